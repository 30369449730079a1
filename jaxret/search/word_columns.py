"""Codes as columns of 64-bit words, which NumPy compares with one query faster than rows.

Made for a gallery that fits a near cache and is searched again and again by one query at a time:
starting a program would take longer than the search.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt, UInt32, UInt64

from jaxret.search.results import far_type
from jaxret.search.threads import Scratch

STRETCH = 2**16  # rows that are compared at once: to start operations costs more than a far cache
IN_A_BYTE = 3  # counts of a word's bits whose sum a byte holds

_words, _counts = Scratch(), Scratch()


class WordColumns(NamedTuple):
    """Word i of all codes, one after the other; a last half word is filled up by zeros."""

    words: UInt64[np.ndarray, "v n"]
    bits: int

    @classmethod
    def make(cls, codes: UInt32[np.ndarray, "n w"]) -> "WordColumns":
        """Copy packed codes into columns."""
        return cls(np.ascontiguousarray(_in_pairs(codes).T), 32 * codes.shape[1])

    def distances(
        self, query: UInt32[np.ndarray, " w"], out: UInt[np.ndarray, " n"] | None = None
    ) -> UInt[np.ndarray, " n"]:
        """Return the Hamming distance of each code to one query, in an array that may be given.

        Bytes may be given for codes of up to 256 bits: a distance of 256 is 0 then.
        """
        v, n = self.words.shape
        found = np.empty(n, far_type(self.bits // 32)) if out is None else out
        query = _in_pairs(query[None]).T
        size = min(STRETCH, n)
        differing = _words.array(np.uint64, v * size).reshape(v, size)
        counts = _counts.array(np.uint8, v * size).reshape(v, size)
        for start in range(0, n, STRETCH):
            part = self.words[:, start : start + STRETCH]
            here = slice(part.shape[1])
            np.bitwise_xor(part, query, out=differing[:, here])
            np.bitwise_count(differing[:, here], out=counts[:, here])
            _sum(counts[:, here], found[start : start + STRETCH])
        return found


def _in_pairs(codes: UInt32[np.ndarray, "n w"]) -> UInt64[np.ndarray, "n v"]:
    n, w = codes.shape
    if w % 2:
        codes = np.concatenate([codes, np.zeros((n, 1), np.uint32)], axis=1)
    return np.ascontiguousarray(codes).view(np.uint64)


def _sum(counts: UInt[np.ndarray, "v n"], out: UInt[np.ndarray, " n"]) -> None:
    """Write the sums over the first axis of numbers up to 64, which may be used up."""
    if out.dtype == np.uint8:
        np.add.reduce(counts, axis=0, dtype=np.uint8, out=out)
        return
    for first in range(0, len(counts), IN_A_BYTE):
        total, *others = counts[first : first + IN_A_BYTE]
        for other in others:
            total += other
        if first == 0:
            out[...] = total
        else:
            out += total
