"""All distances of a few queries at a time, written out, and the nearest chosen on the host.

For one query, or for many neighbors, this is what a CPU does fastest: XLA computes the distance of
each row in one short loop over memory, which every instruction set vectorizes, and NumPy chooses.
The least distances of parts of the gallery bound the k-th distance from above, so few rows are
sorted.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32, UInt, UInt32

from jaxret.codes import bit
from jaxret.search import passes, select
from jaxret.search.blocks import BLOCK, CLUSTER, GROUP, LANES, alive_groups, rows_at
from jaxret.search.results import NEVER, far_type
from jaxret.search.rows import IN_BYTES, SPARSE, near
from jaxret.search.select import Compiled
from jaxret.search.threads import Scratch, on_host_threads

FAR = 2**22  # bytes of codes for each query: so far from the core, they are best read in order
NEAR = 2**25  # bytes that are written for the queries of a tile: what fits a cache, about
MOST = 254  # a byte holds distances up to this, and no row: two bytes cost half as much again

_SCRATCH = Scratch()

NO_KEY = np.uint64(NEVER << 32 | 0xFFFFFFFF)  # of (distance, row): NEVER, and -1 as an int32


def topk(
    query: UInt32[Array | np.ndarray, "q w"],
    mask: UInt32[Array | np.ndarray, "p v"] | None,
    codes: UInt32[Array, "m w 32 64"],
    size: int,
    k: int,
    memory: int,
) -> tuple[Int32[np.ndarray, "q k"], Int32[np.ndarray, "q k"]]:
    """Return distances and rows of the k nearest codes, as `hamming.topk` does."""
    words = codes.shape[1]
    exact = words != IN_BYTES
    found = _search(query, mask, codes, size, k, memory, exact)
    if not exact and np.any(found[0] == MOST):
        return _search(query, mask, codes, size, k, memory, True)
    return found


def _search(query, mask, codes, size, k, memory, exact):
    there, used = np.int32(size), max(1, -(-size // BLOCK)) * CLUSTER
    if len(query) == 1:  # to cut it into tiles would cost a tenth of a small search
        distances = _DISTANCES.wide(query, mask, codes, there, exact=exact)
        return nearest(np.asarray(distances)[:used], 1, k)
    words = codes.shape[1] if exact else 1
    per_query = bytes_of_query(codes.shape[0] * LANES, words)
    most = max(1, NEAR // per_query)
    again, done = (
        len(query) > 2 * most,
        [],
    )  # touching fresh memory takes a tenth of the time and more

    def compute(query, mask):
        if not again:
            return _DISTANCES.wide(query, mask, codes, there, exact=exact)
        shape = len(codes), len(query), GROUP, LANES
        (device,) = codes.devices()
        into = done.pop() if done else jnp.zeros(shape, far_type(words), device=device)
        return _DISTANCES_INTO.wide(query, mask, codes, there, into, exact=exact)

    def finish(distances, count):
        found = nearest(np.asarray(distances)[:used], count, k)
        if again:
            done.append(distances)
        return found

    found = (
        ((compute(*tile), count), count)
        for tile, count in select.tiles([query, mask], per_query, memory, most=most)
    )
    return select.gather(found, finish)


def is_for(queries: int, size: int) -> bool:
    """Return whether few neighbors are found faster among written distances than through the minima
    of groups: those of one query, and of few queries among codes of a large size in bytes.
    """
    return queries == 1 or queries * FAR <= size


def bytes_of_query(groups: int, words: int) -> int:
    """Return about how much memory a query needs beside the codes."""
    return 2 * groups * GROUP * np.dtype(far_type(words)).itemsize


def all_distances(
    query: UInt32[Array, "q w"],
    mask: UInt32[Array, "p v"] | None,
    codes: UInt32[Array, "m w 32 64"],
    size: Int32[Array, ""],
    into: UInt[Array, "m q 32 64"] | None = None,
    exact: bool = True,
) -> UInt[Array, "m q 32 64"]:
    """The distances to all rows as they lie in memory; if not exact, in bytes, those above `MOST`
    as that. They take the place of an array that is given up, if there is one (`_DISTANCES_INTO`).

    The greatest value of the type stands for rows that the mask leaves out, and for those past the
    end in the last block that has rows; what later blocks hold means nothing. Without a mask only
    that block is looked at again: to compare all rows with the end doubles the time of short codes.
    """
    del into  # nothing of it is read
    words, several = codes.shape[1], codes.shape[0]
    row = jnp.arange(GROUP, dtype=jnp.uint32)[None, None, :, None]
    kind = far_type(words) if exact else np.uint8
    far = jnp.iinfo(kind).max
    distances = passes.count_bits(
        words,
        lambda word: query[None, :, word, None, None] ^ codes[:, None, word],
        (several, len(query), GROUP, LANES),
        adders=True,
    )
    distances = distances if exact else jnp.minimum(distances, jnp.uint32(MOST))
    if mask is not None:
        there = bit(alive_groups(mask, size, several * LANES)[:, :, None], row)
        return jnp.where(there, distances, jnp.uint32(far)).astype(kind)
    distances = distances.astype(kind)
    start = jnp.minimum(size // BLOCK * CLUSTER, several - CLUSTER)
    last = lax.dynamic_slice_in_dim(distances, start, CLUSTER)
    there = alive_groups(None, size - start * (GROUP * LANES), CLUSTER * LANES)
    last = jnp.where(bit(there[:, :, None], row), last, far)
    return lax.dynamic_update_slice_in_dim(distances, last, start, axis=0)


_DISTANCES = Compiled(all_distances, ("exact",))
_DISTANCES_INTO = Compiled(all_distances, ("exact",), donate_argnames=("into",), keep_unused=True)


def nearest(
    distances: UInt[np.ndarray, "m q 32 64"], queries: int, k: int
) -> tuple[Int32[np.ndarray, "q k"], Int32[np.ndarray, "q k"]]:
    """Return the k least distances of each query and their rows, of equal ones the lower row first.

    Args:
        distances: what `all_distances` returns.
        queries: how many of the queries count, the first ones.
        k: how many rows; past those that there are the distance is NEVER and the row -1.

    Returns:
        Distances and rows, each [queries, k].
    """
    found = np.full((queries, k), NO_KEY)
    furthest = np.iinfo(distances.dtype).max - 1

    def choose(numbers):
        for i in numbers:
            values = distances[:, i]
            if distances.shape[1] > 1:
                values = _SCRATCH.array(values.dtype, values.size).reshape(values.shape)
                np.copyto(values, distances[:, i])
            values = values.reshape(-1)
            place = near(values, k, furthest)
            keys = values[place].astype(np.uint64) << np.uint64(32)
            keys |= rows_at(place, len(distances)).astype(np.uint64)
            if len(keys) > SPARSE * k:
                keys = np.partition(keys, k - 1)[:k]
            keys.sort()
            found[i, : len(keys)] = keys[:k]

    on_host_threads(choose, queries)
    return (found >> np.uint64(32)).astype(np.int32), found.astype(np.uint32).view(np.int32)
