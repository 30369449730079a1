"""Codes as they lie in rows, in memory or in a mapped file, searched by NumPy: exact, without JAX.

Nothing is imported, laid out or compiled, so a process answers its first searches at once. The rows
are read once for each query, in stretches that fit a cache, on all cores.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, Num, UInt, UInt8, UInt32

from jaxret.codes import mask_of_rows
from jaxret.search.results import NEVER, far_type
from jaxret.search.threads import Scratch, on_host_threads

BUDGET = 2**29  # words that NumPy compares for one gallery: less than a second
QUICK = 2**17  # words that NumPy compares in less time than it takes to start a program
SMALL = 2**19  # words; one query among them is NumPy's, as waking a program's threads costs more
HANDFUL = 4  # queries
BYTES = 4  # beside a row during a search, about
STRETCH = 2**20  # bytes of codes that are worked on at once: they fit a cache
REPEATED = 2**9  # words of a query that is compared with many codes by one operation
THREADED = 4  # stretches: of fewer, threads cost more than they save
FOLDS = 64  # distances behind each minimum, at most; of few among many four times as many
FULL = 256  # minima for each neighbor: that many are enough
MOST_OF_FOUR = np.uint32(0x00C08040)  # four counts of 64 times 0x01010101
MANY = 2**12  # numbers
SPARSE = 4  # minima for each neighbor: of fewer, they are a poor bound
SHARE = 8  # groups are searched one by one if at most one in 8 can hold a neighbor
IN_BYTES = 8  # words of codes whose distances, up to 256, hardly ever need more than a byte

_words, _counts = Scratch(), Scratch()


def topk(
    query: UInt32[np.ndarray, "q w"],
    rows: UInt32[np.ndarray, "n w"],
    k: int,
    mask: UInt32[np.ndarray, "p v"] | None = None,
    compare: Callable[..., UInt[np.ndarray, " n"]] | None = None,
) -> tuple[Int32[np.ndarray, "q k"], Int64[np.ndarray, "q k"]]:
    """Return distances and rows of the k nearest codes, of equal ones the lower row first.

    Past the end the distance is NEVER and the row -1. compare(query, out) writes the distances of
    all rows to one query where these are laid out in another way, as `WordColumns.distances` does.
    """
    kind = far_type(rows.shape[1])
    narrow = compare is not None and mask is None and rows.shape[1] == IN_BYTES
    compare = compare or partial(distances, rows)
    buffer = np.empty(len(rows), np.uint8 if narrow else kind)
    left_out = None
    results = []
    for i in range(len(query)):
        found = compare(query[i], buffer)
        if mask is not None:
            if i < len(mask):  # one for all, or one each
                left_out = ~mask_of_rows(mask[i][None])[0, : len(rows)]
            found[left_out] = np.iinfo(kind).max
        row = least_rows(found, k)
        if narrow and len(row) and found[row[0]] == 0:  # or 256, which a byte does not hold
            nothing = row[found[row] == 0]
            if (rows[nothing] != query[i]).any():
                found = compare(query[i], np.empty(len(rows), kind))
                row = least_rows(found, k)
        least = found[row].astype(np.int32)
        if mask is not None:
            row = row[: np.searchsorted(least, np.iinfo(kind).max)]
        results.append((least[: len(row)], row))
    return _table(results, k)


def _table(
    results: list[tuple[Int32[np.ndarray, " _"], Int64[np.ndarray, " _"]]], k: int
) -> tuple[Int32[np.ndarray, "q k"], Int64[np.ndarray, "q k"]]:
    """The distances and rows of each query side by side, NEVER and -1 where there are fewer."""
    if len(results) == 1 and len(results[0][1]) == k:  # which a small search would pay for
        ((least, row),) = results
        return least[None], row[None]
    distances = np.full((len(results), k), NEVER, np.int32)
    rows = np.full((len(results), k), -1, np.int64)
    for i, (least, row) in enumerate(results):
        distances[i, : len(row)], rows[i, : len(row)] = least, row
    return distances, rows


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
    query = np.ascontiguousarray(query).view(word)
    tile = max(1, min(n, STRETCH // (w * word().itemsize)))
    # One long axis: over rows of a few words NumPy is four times as slow.
    repeated = np.tile(query, max(1, REPEATED // w))

    def scan(tiles):
        differing, counts = _words.array(word, tile * w), _counts.array(np.uint8, tile * w)
        for start in tiles * tile:
            part = flat[start * w : (start + tile) * w]
            here = slice(len(part))
            _differing(part, repeated, differing[here])
            np.bitwise_count(differing[here], out=counts[here])
            _row_sums(counts[here].reshape(-1, w), found[start : start + tile])

    tiles = -(-n // tile)
    if tiles < THREADED:
        scan(np.arange(tiles))
    else:
        on_host_threads(scan, tiles)
    return found


def _differing(
    words: UInt[np.ndarray, " m"], repeated: UInt[np.ndarray, " r"], out: UInt[np.ndarray, " m"]
) -> None:
    """Write words xor what is repeated along them."""
    length = len(repeated)
    whole = len(words) // length * length
    if whole:
        lines = words[:whole].reshape(-1, length)
        np.bitwise_xor(lines, repeated[None], out=out[:whole].reshape(-1, length))
    if whole < len(words):
        np.bitwise_xor(words[whole:], repeated[: len(words) - whole], out=out[whole:])


def _row_sums(counts: UInt8[np.ndarray, "n w"], out: UInt[np.ndarray, " n"]) -> None:
    """Write the sum of each row of numbers up to 64: of four by one product, as bytes of one word.

    The numbers are used up. NumPy's own sum over so short an axis takes ten times as long.
    """
    w = counts.shape[1]
    if w % 4:
        out[...] = counts[:, 0]
        for column in range(1, w):
            out += counts[:, column]
        return
    fours = counts.view(np.uint32)
    for column in range(w // 4):
        sums = fours[:, column]
        sums *= np.uint32(0x01010101)  # the highest byte is the sum of all four, where below 256
        most = sums == MOST_OF_FOUR
        sums >>= np.uint32(24)
        if most.any():
            sums[most] = 256
        if column == 0:
            np.copyto(out, sums, casting="unsafe")
        else:
            np.add(out, sums, out=out, casting="unsafe")


def least_rows(values: Num[np.ndarray, " n"], k: int) -> Int64[np.ndarray, " m"]:
    """Return the k rows of the least values, ascending; of equal ones the first row first."""
    n = len(values)
    row = near(values, k) if k < n else np.arange(n)
    if len(row) > SPARSE * k:  # of many equal ones the first: a sort of all would take long
        last = np.partition(values[row], k - 1)[k - 1]
        nearer = values[row] < last
        missing = k - int(np.count_nonzero(nearer))
        row = np.sort(np.concatenate([row[nearer], row[values[row] == last][:missing]]))
    return row[np.argsort(values[row], kind="stable")[:k]].astype(np.int64, copy=False)


def near(values: Num[np.ndarray, " n"], k: int, most: int | None = None) -> Int64[np.ndarray, " m"]:
    """Return places of values, ascending, with the k least among them, k at most n.

    Few more are returned where minima of parts bound the k-th value well: k minima are k values.

    Args:
        values: numbers without order.
        k: how many.
        most: greater values are left out, even if fewer than k are found; None for none.
    """
    most_folds = max(FOLDS, min(4 * FOLDS, len(values) // (FULL * k)))
    folds = min(most_folds, len(values) // (SPARSE * k))
    if folds < 2:
        within = _kth(values, k)
        return np.flatnonzero(values <= (within if most is None else min(within, most)))
    folded = len(values) // folds
    split = folded * folds
    lines = values[:split].reshape(folds, folded)
    minima = lines.min(axis=0)  # vector instructions fold the first axis
    within = _kth(minima, k)
    within = within if most is None else min(within, most)
    column = (minima <= within).nonzero()[0]
    if len(column) * SHARE > folded:
        return np.flatnonzero(values <= within)
    near_there = (lines.take(column, axis=1) <= within).ravel().nonzero()[0]
    line, place = np.divmod(near_there, len(column) or 1)
    place = line * folded + column[place]
    last = (values[split:] <= within).nonzero()[0]
    return np.concatenate([place, split + last]) if len(last) else place


def _kth(values, k) -> Any:
    """The k-th least value; many small integers are counted, which costs less than a partition."""
    if values.dtype in (np.uint8, np.uint16) and len(values) > MANY:
        return int(np.searchsorted(np.cumsum(np.bincount(values)), k))
    return np.partition(values, k - 1)[k - 1]
