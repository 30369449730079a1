"""Distances of one query to all codes, by a compiled program, in the order of rows.

The words of all codes lie one after the other, so that a processor reads memory in order and works
on many rows by one instruction.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt, UInt32

from jaxret.search import passes
from jaxret.search.results import far_type
from jaxret.search.select import Compiled, few_sizes


class Columns(NamedTuple):
    """Codes as columns of words, with room for some more rows."""

    words: UInt32[Array, "w m"]
    size: int

    @classmethod
    def make(cls, codes: UInt32[np.ndarray, "n w"]) -> "Columns":
        """Lay codes out; a gallery that grows compiles a program for every fifth part or so."""
        n, w = codes.shape
        words = np.zeros((w, few_sizes(max(n, 1))), np.uint32)
        words[:, :n] = codes.T
        return cls(jnp.asarray(words), n)

    def distances(self, query: UInt32[np.ndarray, " w"]) -> UInt[np.ndarray, " n"]:
        """Return the Hamming distance of each code to one query; the array is read-only."""
        return np.asarray(_DISTANCES(query, self.words))[: self.size]


def _distances(query: UInt32[Array, " w"], words: UInt32[Array, "w m"]) -> UInt[Array, " m"]:
    distances = passes.count_bits(
        len(words), lambda word: query[word] ^ words[word], words.shape[1:], adders=True
    )
    return distances.astype(far_type(len(words)))


_DISTANCES = Compiled(_distances, ())
