"""The nearest packed codes: exact, in order of (distance, row), for any k.

Several ways to the same answer. For few neighbors the groups' least distances lead to the rows: a
group can hold one of the k nearest only if its minimum is among the k smallest minima, and likewise
for clusters; accelerators have more levels (`descent`). For many, a CPU writes all distances out,
as it does for few queries among codes that no near cache holds (`scan`), unless a `trial` has shown
that the other way is faster there; accelerators, and searches under jit, count them (`counting`),
or sort all for a large share of the gallery.
"""

import time
from collections.abc import Hashable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32, UInt32

from jaxret.codes import mask_of_rows
from jaxret.search import descent, host, passes, scan, select, validate
from jaxret.search.blocks import (
    CLUSTER,
    GROUP,
    LANES,
    alive_groups,
    in_rows,
    locate,
)
from jaxret.search.counting import nearest_rows
from jaxret.search.descent import distances_of, member
from jaxret.search.results import NEVER, far_type
from jaxret.search.select import Compiled, ascending, noinline, smallest
from jaxret.search.trial import Trial

NO_ROW = np.uint32(0xFFFFFFFF)  # the same before results are finished
FEW = 32  # neighbors, and one more for each 256 groups, up to 512: less costs following minima
LARGE = 8  # from an eighth of the gallery on, sorting all of it costs less than counting


def topk(
    query: UInt32[Array | np.ndarray, "q w"],
    mask: UInt32[Array | np.ndarray, "p v"] | None,
    codes: UInt32[Array, "m w 32 64"],
    size: Int32[Array | np.ndarray, ""],
    k: int,
    memory: int,
) -> tuple[Int32[Array | np.ndarray, "q k"], Int32[Array | np.ndarray, "q k"]]:
    """Return distances and rows of the k nearest codes, k at most the rows there is room for."""
    capacity, words = codes.shape[0] * LANES * GROUP, codes.shape[1]
    traced = validate.is_traced(query, codes, size, mask)
    on_cpu = select.on_cpu(codes)
    on_host = on_cpu and not traced
    most = k if traced else select.few_lengths(k)
    scans = on_host and far_type(words) is not np.uint32  # it counts how often each distance is
    scanned = scans and (k > few(capacity, scans) or scan.is_for(len(query), codes.nbytes))
    program = codes.shape, query.shape, mask is None or mask.shape, scanned or most
    if on_host and host.answers(program, len(query), words, int(size)):
        return host.topk(query, mask, codes, int(size), k, memory)
    if not on_host:
        return _in_tiles(query, mask, codes, size, k, memory, most, scans)
    trial = _trial((program, most), scanned, scans and k <= few(capacity, scans))
    way, start = trial.way(), time.perf_counter()
    if way == "scan":
        found = scan.topk(query, mask, codes, int(size), k, memory)
    else:
        found = _in_tiles(query, mask, codes, size, k, memory, most, scans)
    if trial.best is None:
        jax.block_until_ready(found)
        trial.took(way, time.perf_counter() - start)
    return found


@lru_cache(maxsize=256)
def _trial(kind: Hashable, scanned: bool, either: bool) -> Trial:
    """The ways to answer searches of a kind, which are told apart by shapes and neighbors."""
    ways = ("scan", "tiles") if scanned else ("tiles", "scan")
    return Trial(ways if either else ways[:1])


def _in_tiles(query, mask, codes, size, k, memory, most, scans):
    """Search by a program for each tile of queries that finds all of their neighbors."""
    capacity, words = codes.shape[0] * LANES * GROUP, codes.shape[1]
    on_cpu = select.on_cpu(codes)
    search, finish = _way(capacity, k, most, on_cpu, few(capacity, scans))
    per_query = bytes_of_query(capacity, words, k, scans)
    # There no cache holds a tile, and fewer tiles are fewer launches.
    sizes = {} if on_cpu else {"near": memory, "most": select.MOST_ON_ACCELERATOR}
    found = (
        (search(*tile, codes, size), count)
        for tile, count in select.tiles([query, mask], per_query, memory, **sizes)
    )
    return select.gather(found, finish)


def _way(capacity, k, most, on_cpu, few):
    """How to search for k neighbors, or for up to most, and how to finish a tile's result."""
    if k <= few:
        search = _GROUP_MINIMA if on_cpu else _DESCENT
        return partial(search, k=min(most, few)), partial(select.first, k=k)
    if k * LARGE <= capacity:
        return partial(_NEAREST_ROWS, k=min(most, capacity // LARGE)), partial(_sort, k=k)
    return partial(_SORT_ALL, k=k), select.as_they_are


def few(capacity: int, scans: bool = False) -> int:
    """Return up to how many neighbors are found through the minima of groups.

    Beyond, a scan costs less where there is one, and counting elsewhere.
    """
    groups = capacity // GROUP
    return min(4 * (FEW + groups // 256) if scans else FEW + groups // 256, 512)


def bytes_of_query(capacity: int, words: int, k: int, scans: bool) -> int:
    """Return about how much memory a query needs beside the codes, by the way it is searched."""
    groups = capacity // GROUP
    if k <= few(capacity, scans):
        return groups * 2 + k * GROUP * 8 * words
    if scans:
        return scan.bytes_of_query(groups, words)
    if k * LARGE <= capacity:
        return groups * 16 + k * (64 + 4 * words)
    return groups * 512


def group_minima_topk(
    query: UInt32[Array, "q w"],
    mask: UInt32[Array, "p v"] | None,
    codes: UInt32[Array, "m w 32 64"],
    size: Int32[Array, ""],
    k: int,
) -> tuple[Int32[Array, "q k"], Int32[Array, "q k"]]:
    """The k nearest rows through the least distances of clusters, then of groups."""
    here = size >= 0
    alive = alive_groups(mask, size, codes.shape[0] * LANES)
    minima = noinline(here, lambda: passes.group_minima(query, codes, alive, mask is not None))
    clusters = passes.in_order(noinline(here, lambda: passes.fold_clusters(jnp.minimum, minima)))
    cluster = ascending(smallest(clusters, min(k, clusters.shape[1])))
    nearest = _of_clusters(minima, cluster)
    group = member(cluster, smallest(nearest, min(k, nearest.shape[1])), CLUSTER)
    group = ascending(group)
    distances = distances_of(query, codes, alive, group)
    best = smallest(distances, k)
    distances = jnp.take_along_axis(distances, best, axis=1)
    return _as_neighbors(distances, member(group, best, GROUP))


def _of_clusters(minima, cluster):
    """The minima of the groups of each query's clusters, [q 16 c]."""
    queries = jnp.arange(len(cluster))[:, None, None]
    block, lane, _ = locate((cluster * CLUSTER)[:, :, None])
    place = block * CLUSTER + jnp.arange(CLUSTER)[None, None]
    return minima[place, queries, lane].reshape(len(cluster), -1)


def count_nearest(
    query: UInt32[Array, "q w"],
    mask: UInt32[Array, "p v"] | None,
    codes: UInt32[Array, "m w 32 64"],
    size: Int32[Array, ""],
    k: int,
) -> tuple[UInt32[Array, "q k"], Int32[Array, "q k"]]:
    """The k nearest rows, by counting and not yet in order."""
    alive = alive_groups(mask, size, codes.shape[0] * LANES)
    return nearest_rows(query, codes, alive, mask is not None, k, size >= 0)


def sort_all(
    query: UInt32[Array, "q w"],
    mask: UInt32[Array, "p v"] | None,
    codes: UInt32[Array, "m w 32 64"],
    size: Int32[Array, ""],
    k: int,
) -> tuple[Int32[Array, "q k"], Int32[Array, "q k"]]:
    """The k nearest rows, by sorting all of them on the device."""
    rows = noinline(size >= 0, in_rows, codes)
    distances = passes.count_bits(
        len(rows),
        lambda word: query[:, word, None] ^ rows[None, word],
        (len(query), rows.shape[1]),
    )
    row = lax.broadcasted_iota(jnp.int32, distances.shape, 1)
    there = row < size
    if mask is not None:
        there = there & mask_of_rows(mask)
    distances = jnp.where(there, distances, jnp.uint32(NO_ROW))
    return _as_neighbors(*_by_distance(distances, row, k))


def _by_distance(distances, row, k):
    ordered = lax.sort((distances, row), dimension=1, is_stable=True, num_keys=1)
    return ordered[0][:, :k], ordered[1][:, :k]


def _sort(distances, row, k):
    return _as_neighbors(*_by_distance(distances, row, k))


def _as_neighbors(distances, row) -> tuple[Any, Any]:
    numpy = np if isinstance(row, np.ndarray) else jnp
    there = distances != NO_ROW
    distances = numpy.where(there, distances, NEVER).astype(np.int32)
    return distances, numpy.where(there, row, -1)


def descent_topk(
    query: UInt32[Array, "q w"],
    mask: UInt32[Array, "p v"] | None,
    codes: UInt32[Array, "m w 32 64"],
    size: Int32[Array, ""],
    k: int,
) -> tuple[Int32[Array, "q k"], Int32[Array, "q k"]]:
    """The k nearest rows on an accelerator; see `descent`."""
    return _as_neighbors(*descent.nearest_rows(query, mask, codes, size, k))


_DESCENT = Compiled(descent_topk, ("k",))
_GROUP_MINIMA = Compiled(group_minima_topk, ("k",))
_NEAREST_ROWS = Compiled(count_nearest, ("k",))
_SORT_ALL = Compiled(sort_all, ("k",))
