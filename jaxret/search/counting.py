"""Selection by counting: which rows are the k nearest, without sorting the gallery.

Hamming distances are small integers. The distance t of the k-th neighbor is found by bisection,
each probe a pass that counts the rows within a distance; then the rows nearer than t and the first
of those at t, in the order of rows, are exactly k. They leave their bit masks by rank: the j-th set
bit of all is found through counts per cluster, per group and within a word.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Int32, UInt32

from jaxret.search.blocks import CLUSTER, GROUP, LANES, locate, single_rows
from jaxret.search.passes import (
    by_cluster,
    fold_clusters,
    group_minima,
    in_order,
    kth_minimum,
    rows_between,
)
from jaxret.search.select import noinline


def nearest_rows(
    query: UInt32[Array, "q w"],
    codes: UInt32[Array, "m w 32 64"],
    alive: UInt32[Array, "m p 64"],
    masked: bool,
    k: int,
    here: Bool[Array, ""],
) -> tuple[UInt32[Array, "q k"], Int32[Array, "q k"]]:
    """Distances and rows of the k nearest: first all that are nearer than the k-th, in the order
    of rows, then as many at its distance. The distance is 2^32 - 1 where there is no row.
    """
    distance = threshold(query, codes, alive, masked, k, here)
    # The rows that are nearer, then those at the same distance: two questions for each query.
    low = jnp.concatenate([jnp.zeros_like(distance), distance])
    high = jnp.concatenate([distance, distance + 1])
    twice = jnp.concatenate([query, query])
    alive = jnp.tile(alive, (1, 2, 1)) if alive.shape[1] > 1 else alive
    masks = noinline(here, lambda: rows_between(twice, codes, alive, low, high))
    row, found = first_set(masks, k, 2, here)
    return jnp.where(found, distances_to(query, codes, row), jnp.uint32(0xFFFFFFFF)), row


def distances_to(
    query: UInt32[Array, "q w"], codes: UInt32[Array, "m w 32 64"], row: Int[Array, "q k"]
) -> UInt32[Array, "q k"]:
    """The distance of each query to rows of its own."""
    differing = lax.population_count(single_rows(codes, row) ^ query[:, None])
    return jnp.sum(differing, axis=2, dtype=jnp.uint32)


def threshold(
    query: UInt32[Array, "q w"],
    codes: UInt32[Array, "m w 32 64"],
    alive: UInt32[Array, "m p 64"],
    masked: bool,
    k: int,
    here: Bool[Array, ""],
) -> Int32[Array, " q"]:
    """The least distance within which there are k rows; the greatest one if there never are."""
    words = codes.shape[1]
    minima = noinline(here, lambda: group_minima(query, codes, alive, masked))
    # k groups have a row within the k-th minimum. Within less than the (k / 32)-th minimum there
    # are fewer than k / 32 groups, so fewer than k rows.
    low, high = lax.map(
        lambda k: kth_minimum(minima, k, words), jnp.array([-(-k // 32), k], jnp.int32)
    )

    def within(radius):
        return rows_between(query, codes, alive, jnp.zeros_like(radius), radius + 1)

    def unsure(bounds):
        low, high, _ = bounds
        return jnp.any(low + 1 < high)

    def probe(bounds):
        low, high, first = bounds
        middle = jnp.where(first, high - 1, (low + high) // 2)  # most often the first one decides
        # Apart, or XLA takes the distances, which do not change, out of the loop and stores them.
        rows = lax.population_count(noinline(here, lambda: within(middle)))
        rows = fold_clusters(jnp.add, rows.astype(jnp.uint16))
        enough = jnp.sum(rows.astype(jnp.int32), axis=(0, 2)) >= k
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high), False

    return lax.while_loop(unsure, probe, (low - 1, high, True))[1]


def first_set(
    masks: UInt32[Array, "m p 64"], k: int, parts: int, here: Bool[Array, ""]
) -> tuple[Int32[Array, "q k"], Bool[Array, "q k"]]:
    """The rows of the first k set bits of each query, and which of them there are.

    Each query has this many masks, p = parts * q; all bits of one come before those of the next.
    """
    counts = noinline(here, lambda: _counts(masks))
    queries, clusters = masks.shape[1] // parts, masks.shape[0] // CLUSTER * LANES

    def totals():
        each = in_order(counts[-1]).reshape(parts, queries, clusters).transpose(1, 0, 2)
        return jnp.cumsum(each.reshape(queries, -1), axis=1, dtype=jnp.int32)

    upto = noinline(here, totals)
    rank = jnp.broadcast_to(jnp.arange(k)[None], (queries, k))
    cluster = _first_above(upto, rank)
    found = rank < upto[:, -1:]
    before = jnp.take_along_axis(upto, jnp.maximum(cluster - 1, 0), axis=1)
    rank = rank - jnp.where(cluster > 0, before, 0)

    owner = cluster // clusters * queries + jnp.arange(queries)[:, None]
    cluster = cluster % clusters
    block, lane, _ = locate(cluster * CLUSTER)
    group = jnp.zeros_like(cluster)
    for step in (8, 4, 2, 1):
        upto_group = counts[group + step - 1, block, owner, lane].astype(jnp.int32)
        group = jnp.where(rank >= upto_group, group + step, group)
    before = counts[jnp.maximum(group - 1, 0), block, owner, lane].astype(jnp.int32)
    rank = rank - jnp.where(group > 0, before, 0)
    bit = _nth_bit(masks[block * CLUSTER + group, owner, lane], rank)
    return (cluster * CLUSTER + group) * GROUP + bit, found


def _counts(masks):
    """The set bits of each cluster's first 1 to 16 groups, u16[16 b q 64]."""
    groups = by_cluster(masks)

    def add(total, group):
        word = lax.dynamic_index_in_dim(groups, group, axis=1, keepdims=False)
        total = total + lax.population_count(word).astype(jnp.uint16)
        return total, total

    start = jnp.zeros((groups.shape[0], *groups.shape[2:]), jnp.uint16)
    return lax.scan(add, start, jnp.arange(CLUSTER))[1]


def _first_above(ascending, value):
    """The first position of each row whose entry is above the value; the last one if none is.

    A loop: XLA takes seconds to compile the steps one after the other, merged with what uses them.
    """
    size = ascending.shape[1]
    steps = (size - 1).bit_length()

    def halve(i, position):
        step = jnp.int32(1) << (steps - 1 - i)
        entry = jnp.take_along_axis(ascending, jnp.minimum(position + step, size) - 1, axis=1)
        return jnp.where(value >= entry, position + step, position)

    return jnp.minimum(lax.fori_loop(0, steps, halve, jnp.zeros_like(value)), size - 1)


def _nth_bit(word, rank):
    """The position of the set bit that has rank set bits below it."""
    position = jnp.zeros_like(rank)
    for width in (16, 8, 4, 2, 1):
        low = word & jnp.uint32((1 << width) - 1)
        below = lax.population_count(low).astype(rank.dtype)
        above = rank >= below
        position = jnp.where(above, position + width, position)
        rank = jnp.where(above, rank - below, rank)
        word = jnp.where(above, word >> width, low)
    return position
