"""The nearest vectors: by matrix product first, exact all the same.

|x|^2 - 2 xy is fast and cancels: it can put a far vector before a near one. Here it only gives
lower bounds on distances. The groups of rows with the smallest bounds are searched by direct
differences; where the next group's bound is above the k-th distance so found, nothing was lost.
A query that this does not prove is searched by direct differences alone. On a CPU, NumPy chooses
the groups faster than XLA, and multiplies all rows by one query as fast as memory is read; many
queries for many neighbors search no groups but the rows that a sample points to (`sampled`).
"""

import math
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt32

from jaxret.codes import bit, mask_of_rows
from jaxret.search import sampled, select, validate
from jaxret.search.select import Compiled, noinline, on_cpu, smallest
from jaxret.search.threads import least_on_host, on_host_threads
from jaxret.search.vectors import TILE, direct, slack, squared_norms

CLUSTER = 32  # groups
MANY = 64  # neighbors: beyond, groups are smaller on any device
SORTED = 256  # neighbors: on the host NumPy sorts that many and more, XLA chooses fewer
LARGE = 8  # from an eighth of the gallery on, no bound pays
CHOICE = 4  # groups that are chosen among in the time of reading one number of a group
NEAR = 4 * select.NEAR  # a product of matrices gains from more queries at once
SPARE = 8  # groups, and an eighth of k: a wider choice is certified more often
FRESH = 2**24  # bytes of the rows that are searched by differences at once
STRETCH = 2**20  # rows whose bounds the host holds at once: the fewer, the more queries at once


def topk(
    query: Float32[Array | np.ndarray, "q d"],
    mask: UInt32[Array | np.ndarray, "p v"] | None,
    rows: Float[Array, "m d"],
    size: Int32[Array | np.ndarray, ""],
    centre: Float32[Array, " d"],
    low: Float32[Array, " m"],
    k: int,
    memory: int,
) -> tuple[Float32[Array | np.ndarray, "q k"], Int32[Array | np.ndarray, "q k"]]:
    """Return distances and rows of the k nearest vectors, k at most the rows there is room for."""
    gallery = rows, size, centre, low
    traced = validate.is_traced(query, *gallery, mask)
    host = on_cpu(rows) and not traced
    alone = host and len(query) == 1 and rows.dtype == np.float32
    on_host = host and (len(query) > 1 or k > MANY)
    capacity, d = rows.shape
    wanted = k
    if k * LARGE <= capacity and not traced:
        k = min(select.few_lengths(k), capacity // LARGE)
    sizes = {"k": k, "group": rows_of_group(capacity, d, k, on_host)}
    run = partial(_search, gallery=gallery, **sizes, memory=memory)
    if k * LARGE > capacity:
        if host:
            return run(_ALL, query, mask, partial(_least_on_host, k=k))
        return run(partial(_SELECT, k=k), query, mask)
    if alone:
        ways = [partial(_one_on_host, gallery=gallery, k=k)]
    elif on_host:
        ways = [partial(_near_on_host, gallery=gallery, **sizes, memory=memory)]
    else:
        ways = [partial(run, partial(_CERTIFIED if traced else _BOUNDED, **sizes))]
    if on_host and (sample := _sample(query, mask, gallery, k, memory)):
        ways.insert(0, partial(_near_by_sample, sample=sample, gallery=gallery, k=k, memory=memory))
    ways.append(partial(run, partial(_EXACT, **sizes)))
    *found, certain = ways.pop(0)(query, mask)
    while not traced and not (certain := np.asarray(certain)).all():
        lost = np.flatnonzero(~certain)
        found, certain = [np.array(part) for part in found], certain.copy()
        of_lost = mask if mask is None or len(mask) == 1 else np.asarray(mask)[lost]
        better = ways.pop(0)(np.asarray(query)[lost], of_lost)
        for part, own in zip((*found, certain), better, strict=True):
            part[lost] = own
    distances, row = select.first(*found, k=wanted)
    return distances, row


def _search(search, query, mask, finish=select.as_they_are, *, gallery, k, group, memory):
    capacity, d = gallery[0].shape
    per_query = bytes_of_query(capacity, d, k, group)
    found = (
        (search(*tile, *gallery), count)
        for tile, count in select.tiles([query, mask], per_query, memory, NEAR)
    )
    return select.gather(found, finish)


def _sample(query, mask, gallery, k, memory) -> sampled.Sampled | None:
    """A sample of the rows, where it pays: for many queries that search among the same rows."""
    rows, size, centre, low = gallery
    if min(len(query), k) < sampled.LEAST or (mask is not None and len(mask) > 1):
        return None
    low = np.asarray(low)
    there = int(size)
    if mask is not None:
        low = np.where(mask_of_rows(np.asarray(mask))[0], low, np.float32(np.inf))
        there = np.count_nonzero(np.isfinite(low))
    wanted = _wanted(k, single=True)
    if wanted * LARGE > there:
        return None
    sample = sampled.Sampled(rows, centre, low, wanted)
    return sample if sample.bytes + sample.bytes_of_query * sampled.LEAST <= memory else None


def _near_by_sample(query, mask, *, sample: sampled.Sampled, gallery, k, memory):
    """What `rerank` finds of the rows within each query's threshold."""
    del mask  # the sample's rows are those that it leaves

    def ranked():
        # A tile's candidates are ranked before the next tile's are sought: it may have all memory.
        per_query = sample.bytes_of_query
        most = min((memory - sample.bytes) // per_query, sampled.TILE)
        for tile, count in select.tiles([query], per_query, 2 * memory, 2 * memory, most):
            row, cut, found = (part[:count] for part in sample.candidates(tile[0]))
            cut = np.where(found, cut, -np.inf).astype(np.float32)
            parts = [tile[0][:count], None, row, cut[:, None]]
            yield from _ranked(parts, gallery, k=k, group=1, memory=memory)

    return _gather_ranked(ranked(), k)


def _ranked(tile, gallery, *, k, group, memory):
    """The rows of the chosen groups by direct differences, for few queries at once.

    Products gain from many queries, differences lose: the rows of many queries' groups fit no
    cache. XLA chooses few neighbors; NumPy sorts a thousand in a fifth of its time.
    """
    per_query = _bytes_of_groups(gallery[0].shape[1], k, group)
    search = _DIFFERENCES if k >= SORTED else partial(_RERANK, k=k)
    for part, count in select.tiles(tile, per_query, min(memory, FRESH)):
        query, words, groups, cut = part
        yield search(query, words, *gallery[:3], groups, cut[:, 0], group=group), count


def _gather_ranked(ranked, k):
    """What `rerank` finds, from the tiles that `_ranked` yields."""
    finish = partial(_first_on_host, k=k) if k >= SORTED else select.as_they_are
    return select.gather(ranked, finish)


def _first_on_host(distances, row, bound, k):
    """The k nearest rows of each query, and whether all others' bound is above them."""
    nearest, place = least_on_host(np.asarray(distances), k)
    row = np.where(place < 0, -1, np.take_along_axis(np.asarray(row), np.maximum(place, 0), axis=1))
    bound = np.asarray(bound)
    return nearest, row, (bound > nearest[:, -1]) | (bound == np.inf)


def _near_on_host(query, mask, gallery, *, k, group, memory):
    """What `rerank` finds, where the host chooses among the bounds.

    It does so for one stretch of rows while the device bounds the next.
    """
    return _gather_ranked(_groups_on_host(query, mask, gallery, k, group, memory), k)


def _groups_on_host(query, mask, gallery, k, group, memory):
    capacity = len(gallery[0])
    wanted = min(_wanted(k), capacity // group)
    stretch = min(STRETCH, capacity)
    starts = range(0, capacity, stretch)

    def bounds():
        # To choose many takes long, and is done while the device multiplies for the next tile.
        near = NEAR if k <= MANY else NEAR // 4
        per_query = _bytes_of_bounds(stretch, group)
        for tile, count in select.tiles([query, mask], per_query, memory, near):
            for start in starts:
                sizes = {"rows_there": min(stretch, capacity - start), "group": group}
                yield _MINIMA(*tile, *gallery, np.int32(start), **sizes), start, tile, count

    best = []
    for minima, start, tile, count in select.one_ahead(bounds()):
        least, group_there = _smallest_on_host(np.asarray(minima), wanted + 1)
        del minima
        best.append((least, group_there + start // group))
        if start == starts[-1]:
            least, groups = (np.concatenate(parts, axis=1) for parts in zip(*best, strict=True))
            chosen, cut = _cut(least, groups, wanted)
            parts = [*tile, chosen, cut[:, None]]
            parts = [part if part is None else part[:count] for part in parts]
            yield from _ranked(parts, gallery, k=k, group=group, memory=memory)
            best = []


def _one_on_host(query, mask, gallery, k):
    """What `rerank` finds for one query, where NumPy bounds the distance of each row.

    The rows are multiplied as they are, not as seen from their mean c: (x - c)(q - c) is
    x (q - c) - c (q - c), and the rounding of the first product adds |c| |q - c| to what it is
    relative to.
    """
    rows, size, centre, low = gallery
    c = np.asarray(centre)
    difference = np.asarray(query)[0] - c
    bounds = np.asarray(rows) @ (-2 * difference)
    bounds += np.asarray(low)
    if mask is not None:
        bounds[~mask_of_rows(np.asarray(mask))[0, : len(bounds)]] = np.inf
    wanted = min(_wanted(k), len(bounds))
    chosen, cut = _cut(*_smallest_on_host(bounds[None], wanted + 1), wanted)
    c, difference = c.astype(np.float64), difference.astype(np.float64)
    lost = 2 * slack(len(c)) * np.linalg.norm(c) * np.linalg.norm(difference)
    cut = (cut + 2 * c @ difference - lost).astype(np.float32)
    cut = np.nextafter(cut, np.float32("-inf"))
    return _RERANK(query, mask, rows, size, centre, chosen, cut, k=k, group=1)


def rows_of_group(capacity: int, d: int, k: int, on_host: bool) -> int:
    """How many rows share a bound: few where many of them are read, for k groups or more.

    Choosing few among small groups is cheap on the host only.
    """
    if k <= MANY and not on_host:
        return 32
    even = CHOICE * capacity / (_wanted(k) * d)  # where choosing costs as much as reading, squared
    return 1 << min(5, max(0, round(math.log2(even) / 2)))


def bytes_of_query(capacity: int, d: int, k: int, group: int) -> int:
    """The memory that a query needs beside the gallery, about."""
    if k * LARGE > capacity:
        return 12 * capacity
    return _bytes_of_bounds(capacity, group) + 2 * _bytes_of_groups(d, k, group)


def _bytes_of_bounds(capacity, group):
    groups = capacity // group
    return 4 * (2 * TILE + 2 * groups + 4 * groups // CLUSTER)


def _bytes_of_groups(d, k, group):
    return 4 * k * group * (d + 4)


def bounded(
    query: Float32[Array, "q d"],
    mask: UInt32[Array, "p v"] | None,
    rows: Float[Array, "m d"],
    size: Int32[Array, ""],
    centre: Float32[Array, " d"],
    low: Float32[Array, " m"],
    k: int,
    group: int,
    exact: bool = False,
) -> tuple[Float32[Array, "q k"], Int32[Array, "q k"], Bool[Array, " q"]]:
    """The k nearest among the groups with the smallest bounds, and whether that proves them.

    If exact, the groups' least distances take the place of bounds, and everything is certified.
    """
    minima = _group_minima(query, mask, rows, size, centre, low, group, exact)
    chosen, cut = _smallest_groups(minima, min(_wanted(k), len(minima)), size >= 0)
    found = rerank(query, mask, rows, size, centre, chosen, cut, k, group)
    return *found[:2], found[2] | exact


def _wanted(k, single=False):
    """How many groups are searched for k neighbors; bounds of single rows tell more."""
    return k + SPARE + k // (32 if single else 8)


def minima_by_query(
    query: Float32[Array, "q d"],
    mask: UInt32[Array, "p v"] | None,
    rows: Float[Array, "m d"],
    size: Int32[Array, ""],
    centre: Float32[Array, " d"],
    low: Float32[Array, " m"],
    start: Int32[Array, ""],
    *,
    rows_there: int,
    group: int,
) -> Float32[Array, "q g"]:
    """The least bound in each group of rows from start on, f32[q g]."""
    minima = _group_minima(
        query, mask, rows, size, centre, low, group, False, start // TILE, rows_there // TILE
    )
    return noinline(size >= 0, lambda: minima.T)


def _smallest_on_host(
    values: Float32[np.ndarray, "q v"], wanted: int
) -> tuple[Float32[np.ndarray, "q w"], Int32[np.ndarray, "q w"]]:
    """So many smallest values of each row, or all, and where they stand, in no order."""
    queries, size = values.shape
    if wanted >= size:
        return values, np.broadcast_to(np.arange(size, dtype=np.int32), values.shape)
    least = np.empty((queries, wanted), np.float32)
    chosen = np.empty((queries, wanted), np.int32)

    def choose(queries):
        for i in queries:
            value = values[i]
            # As many clusters as rows are wanted have a value of at most this one.
            within = value.reshape(CLUSTER, -1).min(axis=0)
            within = (
                np.partition(within, wanted - 1)[wanted - 1] if wanted <= len(within) else np.inf
            )
            near = np.flatnonzero(value <= within)
            chosen[i] = near[np.argpartition(value[near], wanted - 1)[:wanted]]
            least[i] = value[chosen[i]]

    on_host_threads(choose, queries)
    return least, chosen


def _cut(
    values: Float32[np.ndarray, "q v"], groups: Int32[np.ndarray, "q v"], wanted: int
) -> tuple[Int32[np.ndarray, "q w"], Float32[np.ndarray, " q"]]:
    """The wanted groups of the smallest values, in order of rows, and the least other value."""
    if wanted == values.shape[1]:
        return np.sort(groups, axis=1), np.full(len(values), np.inf, np.float32)
    order = np.argpartition(values, wanted, axis=1)
    chosen = np.take_along_axis(groups, order[:, :wanted], axis=1)
    cut = np.take_along_axis(values, order[:, wanted : wanted + 1], axis=1)[:, 0]
    return np.sort(chosen, axis=1), cut


def rerank(
    query: Float32[Array, "q d"],
    mask: UInt32[Array, "p v"] | None,
    rows: Float[Array, "m d"],
    size: Int32[Array, ""],
    centre: Float32[Array, " d"],
    chosen: Int32[Array, "q w"],
    cut: Float32[Array, " q"],
    k: int,
    group: int,
) -> tuple[Float32[Array, "q k"], Int32[Array, "q k"], Bool[Array, " q"]]:
    """The k nearest of the rows of each query's groups, in order; whether no other can be nearer.

    cut is the least bound of the other groups.
    """
    distances, row, bound = differences(query, mask, rows, size, centre, chosen, cut, group)
    best = smallest(distances, k)
    distances = jnp.take_along_axis(distances, best, axis=1)
    row = jnp.take_along_axis(row, best, axis=1)
    return distances, row, (bound > distances[:, -1]) | jnp.isposinf(bound)


def differences(
    query: Float32[Array, "q d"],
    mask: UInt32[Array, "p v"] | None,
    rows: Float[Array, "m d"],
    size: Int32[Array, ""],
    centre: Float32[Array, " d"],
    chosen: Int32[Array, "q w"],
    cut: Float32[Array, " q"],
    group: int,
) -> tuple[Float32[Array, "q r"], Int32[Array, "q r"], Float32[Array, " q"]]:
    """The distances of the rows of each query's groups, and a bound on all other rows' distances.

    cut is the least bound of the other groups. Where there is no row the distance is infinite and
    the row -1.
    """
    words = jnp.full((1, len(rows) // 32), 0xFFFFFFFF, jnp.uint32) if mask is None else mask
    row = (chosen[:, :, None] * group + jnp.arange(group)[None, None]).reshape(len(query), -1)
    vectors = rows[row].astype(jnp.float32)
    distances = direct(
        rows.shape[1], lambda i: query[:, i, None] - vectors[:, :, i], vectors.shape[:2]
    )
    owner = jnp.arange(len(query))[:, None] if len(words) > 1 else 0
    there = (row < size) & bit(words[owner, row // 32], row % 32)
    error = slack(rows.shape[1])
    bound = cut + squared_norms(query - centre[None]) * (1 - 2 * error)
    return jnp.where(there, distances, jnp.inf), jnp.where(there, row, -1), bound * (1 - error)


def _group_minima(
    query, mask, rows, size, centre, low, group, exact, first: Array | int = 0, tiles=None
):
    """The least bound, or distance, in each group of rows of some tiles, none: all; f32[g q]."""
    here, d, centred = size >= 0, rows.shape[1], (query - centre[None]).T

    def values(rows, low):
        if not exact:
            products = jnp.dot(rows - centre[None], centred, precision=lax.Precision.HIGHEST)
            return low[:, None] - 2 * products
        distances = direct(d, lambda i: query.T[i][None] - rows[:, i][:, None], (TILE, len(query)))
        return jnp.where(jnp.isinf(low)[:, None], jnp.inf, distances)

    def part_of(array, tile, size, axis=0):
        return lax.dynamic_slice_in_dim(array, tile * size, size, axis)

    def minima(tile):
        arrays = part_of(rows, tile, TILE).astype(jnp.float32), part_of(low, tile, TILE)
        table = noinline(here, lambda: values(*arrays))
        table = table.reshape(TILE // 32, 32 // group, group, len(query))
        if mask is not None:
            words = part_of(mask, tile, TILE // 32, axis=1).T
        least = jnp.full_like(table[:, :, 0], jnp.inf)
        for member in range(group):
            value = table[:, :, member]
            if mask is not None:
                shift = jnp.arange(member, 32, group, dtype=jnp.uint32)[None, :, None]
                value = jnp.where(bit(words[:, None], shift), value, jnp.inf)
            least = jnp.minimum(least, value)
        return least.reshape(-1, len(query))

    tiles = len(rows) // TILE if tiles is None else tiles
    return lax.map(minima, first + jnp.arange(tiles)).reshape(-1, len(query))


def _smallest_groups(minima, wanted, here):
    """The groups with the smallest minima, in order of rows, and the least of the others."""
    groups, queries = minima.shape
    clusters = minima.reshape(-1, CLUSTER, queries)

    def fold():
        least = clusters[:, 0]
        for member in range(1, CLUSTER):
            least = jnp.minimum(least, clusters[:, member])
        return least

    least = noinline(here, fold).T
    cluster = jnp.sort(smallest(least, min(wanted + 1, len(clusters))), axis=1)
    chosen = clusters[
        cluster[:, :, None], jnp.arange(CLUSTER)[None, None], jnp.arange(queries)[:, None, None]
    ].reshape(queries, -1)
    order = smallest(chosen, min(wanted + 1, chosen.shape[1]))
    cut = jnp.full(queries, jnp.inf)
    if wanted < groups:
        cut = jnp.take_along_axis(chosen, order[:, wanted:], axis=1)[:, 0]
    order = order[:, :wanted]
    group = jnp.take_along_axis(cluster, order // CLUSTER, axis=1) * CLUSTER + order % CLUSTER
    return jnp.sort(group, axis=1), cut


def certified(
    query: Float32[Array, "q d"],
    mask: UInt32[Array, "p v"] | None,
    rows: Float[Array, "m d"],
    size: Int32[Array, ""],
    centre: Float32[Array, " d"],
    low: Float32[Array, " m"],
    k: int,
    group: int,
) -> tuple[Float32[Array, "q k"], Int32[Array, "q k"], Bool[Array, " q"]]:
    """The k nearest, by direct differences for the whole tile where a query asks for it."""
    parts = query, mask, rows, size, centre, low, k, group
    *found, sure = bounded(*parts)
    distances, row = lax.cond(
        jnp.all(sure), lambda: tuple(found), lambda: bounded(*parts, True)[:2]
    )
    return distances, row, jnp.ones_like(sure)


def all_distances(
    query: Float32[Array, "q d"],
    mask: UInt32[Array, "p v"] | None,
    rows: Float[Array, "m d"],
    size: Int32[Array, ""],
    centre: Float32[Array, " d"],
    low: Float32[Array, " m"],
) -> tuple[Float32[Array, "q m"]]:
    """The distances to all rows, infinite where there is none."""
    there = jnp.arange(len(rows))[None] < size
    if mask is not None:
        there = there & mask_of_rows(mask)
    by_feature = noinline(size >= 0, lambda: rows.T.astype(jnp.float32))
    distances = direct(
        rows.shape[1],
        lambda i: query[:, i][:, None] - by_feature[i][None],
        (len(query), len(rows)),
    )
    return (jnp.where(there, distances, jnp.inf),)


def select_all(
    query: Float32[Array, "q d"],
    mask: UInt32[Array, "p v"] | None,
    rows: Float[Array, "m d"],
    size: Int32[Array, ""],
    centre: Float32[Array, " d"],
    low: Float32[Array, " m"],
    k: int,
) -> tuple[Float32[Array, "q k"], Int32[Array, "q k"]]:
    """The k nearest of all rows, selected on the device."""
    (distances,) = all_distances(query, mask, rows, size, centre, low)
    nearest, row = lax.top_k(-distances, k)
    return -nearest, jnp.where(jnp.isinf(nearest), -1, row)


def _least_on_host(distances, k):
    return least_on_host(np.asarray(distances), k)


_BOUNDED = Compiled(bounded, ("k", "group"))
_EXACT = Compiled(partial(bounded, exact=True), ("k", "group"))
_CERTIFIED = Compiled(certified, ("k", "group"))
_MINIMA = Compiled(minima_by_query, ("rows_there", "group"))
_RERANK = Compiled(rerank, ("k", "group"))
_DIFFERENCES = Compiled(differences, ("group",))
_ALL = Compiled(all_distances, ())
_SELECT = Compiled(select_all, ("k",))
