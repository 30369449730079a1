"""All distances of a few queries at a time, written out, and the nearest chosen on the host.

For one query, or for many neighbors, this is what a CPU does fastest: XLA computes the distance of
each row in one short loop over memory, which every instruction set vectorizes, and NumPy chooses.
The least distance of each group bounds the k-th distance from above, so few rows are sorted.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32, UInt, UInt32

from jaxret.codes import bit
from jaxret.search import passes, select
from jaxret.search.blocks import CLUSTER, GROUP, LANES, alive_groups
from jaxret.search.results import NEVER, far_type
from jaxret.search.select import Compiled, noinline
from jaxret.search.threads import on_host_threads

FAR = 2**22  # bytes of codes for each query: what lies so far from the core is read in order only
NEAR = 2**24  # bytes that are written for the queries of a tile: what fits a cache, about
SHARE = 8  # up to one group in so many is looked into by itself
SPARSE = 4  # groups for each neighbor: of fewer, their minima are a poor bound
SMALL = 2**16  # rows whose number fits one word together with a distance of 16 bits


def topk(
    query: UInt32[Array | np.ndarray, "q w"],
    mask: UInt32[Array | np.ndarray, "p v"] | None,
    codes: UInt32[Array, "m w 32 64"],
    size: int,
    k: int,
    memory: int,
) -> tuple[Int32[np.ndarray, "q k"], Int32[np.ndarray, "q k"]]:
    """Return distances and rows of the k nearest codes, as `hamming.topk` does."""
    per_query = bytes_of_query(codes.shape[0] * LANES, codes.shape[1])
    most = max(1, NEAR // per_query)

    def finish(distances, minima, count):
        return nearest(np.asarray(distances), np.asarray(minima), count, size, k, mask is None)

    found = (
        ((*_DISTANCES(*tile, codes, np.int32(size)), count), count)
        for tile, count in select.tiles([query, mask], per_query, memory, most=most)
    )
    return select.gather(found, finish)


def bytes_of_query(groups: int, words: int) -> int:
    """Return about how much memory a query needs beside the codes."""
    return groups * GROUP * (1 + np.dtype(far_type(words)).itemsize)


def all_distances(
    query: UInt32[Array, "q w"],
    mask: UInt32[Array, "p v"] | None,
    codes: UInt32[Array, "m w 32 64"],
    size: Int32[Array, ""],
) -> tuple[UInt[Array, "m q 32 64"], UInt[Array, "m q 64"]]:
    """The distances to all rows as they lie in memory, and the least distance of each group.

    The greatest value of the type stands for rows that the mask leaves out, and for groups without
    a row. Where there is no mask, the rows past the end have the distance of the last row.
    """
    words = codes.shape[1]
    far = far_type(words)
    none = jnp.uint32(jnp.iinfo(far).max)
    alive = alive_groups(mask, size, codes.shape[0] * LANES)

    def written():
        distances = passes.sum_of_words(
            words,
            lambda word: lax.population_count(
                query[None, :, word, None, None] ^ codes[:, None, word]
            ),
            (codes.shape[0], len(query), GROUP, LANES),
        )
        if mask is not None:
            row = jnp.arange(GROUP)[None, None, :, None]
            distances = jnp.where(bit(alive[:, :, None], row), distances, none)
        return distances.astype(far)

    distances = noinline(size >= 0, written)
    least = distances[:, :, 0]
    for row in range(1, GROUP):
        least = jnp.minimum(least, distances[:, :, row])
    return distances, jnp.where(alive == 0, none.astype(far), least)


_DISTANCES = Compiled(all_distances, ())


def nearest(
    distances: UInt[np.ndarray, "m q 32 64"],
    minima: UInt[np.ndarray, "m q 64"],
    queries: int,
    size: int,
    k: int,
    whole: bool,
) -> tuple[Int32[np.ndarray, "q k"], Int32[np.ndarray, "q k"]]:
    """Return the k least distances of each query and their rows, of equal ones the lower row first.

    Args:
        distances: what `all_distances` returns.
        minima: the same.
        queries: how many of the queries count, the first ones.
        size: the rows of the gallery.
        k: how many rows; past those that there are the distance is NEVER and the row -1.
        whole: whether no mask leaves rows out.

    Returns:
        Distances and rows, each [queries, k].
    """
    least = np.full((queries, k), NEVER, np.int32)
    rows = np.full((queries, k), -1, np.int32)
    capacity = distances[:, 0].size
    past_end = capacity - size if whole else 0
    small = SPARSE * k > minima[:, 0].size and capacity <= SMALL

    def choose(numbers):
        for i in numbers:
            if small:
                keys = _first_keys(distances[:, i], size, k)
                least[i, : len(keys)] = keys >> 16
                rows[i, : len(keys)] = keys & np.uint32(SMALL - 1)
                continue
            radius = _radius(distances[:, i], minima[:, i], size, k, past_end)
            keys = _within(distances[:, i], minima[:, i], size, radius)
            if len(keys) > SPARSE * k:
                keys = np.partition(keys, k - 1)[:k]
            keys.sort()
            keys = keys[:k]
            least[i, : len(keys)] = keys >> np.uint64(32)
            rows[i, : len(keys)] = keys.astype(np.uint32).view(np.int32)

    on_host_threads(choose, queries)
    return least, rows


def _first_keys(distances, size, k) -> Any:
    """The k rows of the least distances, (distance, row) in one u32 each, in order."""
    row = _rows_as_they_lie(distances.size)
    keys = distances.reshape(-1).astype(np.uint32) << np.uint32(16)
    keys |= row
    none = np.uint32(np.iinfo(distances.dtype).max) << np.uint32(16)
    if size < len(row):
        keys[row >= size] = none
    if k < len(keys):
        keys = np.partition(keys, k - 1)[:k]
    keys.sort()
    return keys[: np.searchsorted(keys, none)]


@functools.lru_cache(maxsize=4)
def _rows_as_they_lie(capacity) -> Any:
    """The number of each row in the order of distances in memory, u32[capacity]."""
    row = np.arange(capacity, dtype=np.uint32).reshape(-1, LANES, CLUSTER, GROUP)
    return np.ascontiguousarray(row.transpose(0, 2, 3, 1)).reshape(-1)


def _radius(distances, minima, size, k, past_end) -> int:
    """A distance within which there are k rows, or all rows that there are."""
    none = np.iinfo(minima.dtype).max
    if SPARSE * k <= minima.size:  # k groups with a row within a distance have k rows within it
        counts = np.bincount(minima.reshape(-1))
    else:
        counts = np.bincount(distances.reshape(-1))
        if past_end and size:  # these repeat the last row
            block, lane, place, row = _place(size - 1)
            counts[distances[block * CLUSTER + place, row, lane]] -= past_end
    return min(int(np.searchsorted(np.cumsum(counts), k)), none - 1)


def _within(distances, minima, size, radius) -> Any:
    """The rows within a radius as numbers u64 that are in the order of (distance, row)."""
    # NumPy finds the nonzero ones on one axis several times as fast as on two.
    place, lane = np.divmod(np.flatnonzero(minima <= radius), LANES)
    if SHARE * len(place) < minima.size:
        near = distances[place, :, lane]
        group, row = np.divmod(np.flatnonzero(near <= radius), GROUP)
        place, lane = place[group], lane[group]
    else:
        place, row = np.divmod(np.flatnonzero(distances <= radius), GROUP * LANES)
        row, lane = np.divmod(row, LANES)
    near = distances[place, row, lane]
    block, place = np.divmod(place, CLUSTER)
    row = ((block * LANES + lane) * CLUSTER + place) * GROUP + row
    there = row < size
    return near[there].astype(np.uint64) << np.uint64(32) | row[there].astype(np.uint64)


def _place(row: int) -> tuple[int, int, int, int]:
    """Where a row lies: its block, lane, place within the cluster, and place within the group."""
    group, within = divmod(row, GROUP)
    cluster, place = divmod(group, CLUSTER)
    return *divmod(cluster, LANES), place, within
