"""Codes as they lie in rows, in memory or in a mapped file, searched by NumPy: exact, without JAX.

Nothing is imported, laid out or compiled, so a process answers its first searches at once. The rows
are read once for each query, in stretches that fit a cache, on all cores.
"""

from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, Num, UInt, UInt8, UInt32

from jaxret.codes import mask_of_rows
from jaxret.search.results import NEVER, far_type
from jaxret.search.threads import on_host_threads

BUDGET = 2**29  # words that NumPy compares for one gallery: less than a second
QUICK = 2**19  # words that NumPy compares in less time than it takes to start a program
HANDFUL = 4  # queries
BYTES = 4  # beside a row during a search, about
STRETCH = 2**20  # bytes of codes that are worked on at once: they fit a cache
THREADED = 4  # stretches: of fewer, threads cost more than they save
FOLDS = 64  # distances behind each minimum
SPARSE = 4  # minima for each neighbor: of fewer, they are a poor bound


def topk(
    query: UInt32[np.ndarray, "q w"],
    rows: UInt32[np.ndarray, "n w"],
    k: int,
    mask: UInt32[np.ndarray, "p v"] | None = None,
) -> tuple[Int32[np.ndarray, "q k"], Int64[np.ndarray, "q k"]]:
    """Return distances and rows of the k nearest codes, of equal ones the lower row first.

    Past the end the distance is NEVER and the row -1.
    """
    least = np.full((len(query), k), NEVER, np.int32)
    row = np.full((len(query), k), -1, np.int64)
    buffer = np.empty(len(rows), far_type(rows.shape[1]))
    far = np.iinfo(buffer.dtype).max
    left_out = None
    for i in range(len(query)):
        found = distances(rows, query[i], buffer)
        if mask is not None:
            if i < len(mask):  # one for all, or one each
                left_out = ~mask_of_rows(mask[i][None])[0, : len(rows)]
            found[left_out] = far
        nearest = least_rows(found, k)
        values = found[nearest]
        there = int(np.searchsorted(values, far))  # rows that no mask leaves out
        least[i, :there], row[i, :there] = values[:there], nearest[:there]
    return least, row


def distances(
    codes: UInt32[np.ndarray, "n w"],
    query: UInt32[np.ndarray, " w"],
    out: UInt[np.ndarray, " n"] | None = None,
) -> UInt[np.ndarray, " n"]:
    """Return the Hamming distance of each code to one query, in an array that may be given."""
    n, w = codes.shape
    found = np.empty(n, far_type(w)) if out is None else out
    word = np.uint32 if w % 2 else np.uint64
    w = w * 4 // word().itemsize
    flat = np.ascontiguousarray(codes).reshape(-1).view(word)
    tile = max(1, min(n, STRETCH // (w * word().itemsize)))
    # One long axis: over rows of a few words NumPy is four times as slow.
    repeated = np.tile(np.tile(np.ascontiguousarray(query).view(word), 64), -(-tile // 64))

    def scan(tiles):
        # The same memory again and again: fresh memory doubles the time.
        differing, counts = np.empty_like(repeated), np.empty(len(repeated), np.uint8)
        for start in tiles * tile:
            part = flat[start * w : (start + tile) * w]
            here = slice(len(part))
            np.bitwise_xor(part, repeated[here], out=differing[here])
            np.bitwise_count(differing[here], out=counts[here])
            _row_sums(counts[here].reshape(-1, w), found[start : start + tile])

    tiles = -(-n // tile)
    if tiles < THREADED:
        scan(np.arange(tiles))
    else:
        on_host_threads(scan, tiles)
    return found


def _row_sums(counts: UInt8[np.ndarray, "n w"], out: UInt[np.ndarray, " n"]) -> None:
    """Write the sum of each row of numbers up to 64: of four by one product, as bytes of one word.

    NumPy's own sum over so short an axis takes ten times as long.
    """
    w = counts.shape[1]
    if w % 4:
        out[...] = counts[:, 0]
        for column in range(1, w):
            out += counts[:, column]
        return
    fours = counts.view(np.uint32)
    for column in range(w // 4):
        sums = fours[:, column] * np.uint32(0x01010101)
        sums >>= np.uint32(24)  # the highest byte is the sum of all four, where that is below 256
        if not sums.all():
            sums[(sums == 0) & (fours[:, column] != 0)] = 256
        if column == 0:
            np.copyto(out, sums, casting="unsafe")
        else:
            np.add(out, sums, out=out, casting="unsafe")


def least_rows(values: Num[np.ndarray, " n"], k: int) -> Int64[np.ndarray, " m"]:
    """Return the k rows of the least values, ascending; of equal ones the first row first."""
    n = len(values)
    row = np.flatnonzero(values <= _bound(values, k)) if k < n else np.arange(n)
    if len(row) > SPARSE * k:  # of many equal ones the first: a sort of all would take long
        last = np.partition(values[row], k - 1)[k - 1]
        nearer = values[row] < last
        missing = k - int(np.count_nonzero(nearer))
        row = np.sort(np.concatenate([row[nearer], row[values[row] == last][:missing]]))
    return row[np.argsort(values[row], kind="stable")[:k]].astype(np.int64, copy=False)


def _bound(values, k) -> Any:
    """A value within which there are k values: k minima of different ones are."""
    folded = len(values) // FOLDS
    if SPARSE * k > folded:
        return np.partition(values, k - 1)[k - 1]
    # The first axis is folded by vector instructions; what is left over only makes the bound lower.
    minima = values[: folded * FOLDS].reshape(FOLDS, folded).min(axis=0)
    return np.partition(minima, k - 1)[k - 1]
