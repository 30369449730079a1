"""The few nearest packed codes on an accelerator, down a tree: clusters, groups, rows.

A part of the gallery can hold one of the k nearest rows only if its least distance is among the k
least of all parts, the earlier of two equal ones. So one pass gives the least distance of every
cluster; from there on k parts of each level are looked at, and what is passed over was never
written down.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int32, UInt, UInt32

from jaxret.codes import bit
from jaxret.search import hopper, passes
from jaxret.search.blocks import CLUSTER, GROUP, LANES, alive_groups, locate, whole_groups
from jaxret.search.results import far_type
from jaxret.search.select import LITTLE, ascending, smallest

NO_ROW = 0xFFFFFFFF


def nearest_rows(
    query: UInt32[Array, "q w"],
    mask: UInt32[Array, "p v"] | None,
    codes: UInt32[Array, "m w 32 64"],
    size: Int32[Array, ""],
    k: int,
) -> tuple[UInt32[Array, "q k"], Int32[Array, "q k"]]:
    """Distances and rows of the k nearest, in order; the distance is 2^32 - 1 where there is none.

    Past the end of the gallery its last row must be repeated.
    """
    alive = alive_groups(mask, size, codes.shape[0] * LANES)
    clusters = _cluster_minima(query, codes, alive, mask is not None)
    levels = [_in_sixteens(passes.in_order(clusters))]
    while levels[-1].shape[1] > LITTLE:
        parts = levels[-1].reshape(len(query), -1, CLUSTER)
        levels.append(_in_sixteens(jnp.min(parts, axis=2)))
    part = ascending(smallest(levels[-1], min(k, levels[-1].shape[1])))
    for level in reversed(levels[:-1]):
        part = _nearest(part, _at(level, _members(part)), k)
    distances = distances_of(query, codes, alive, _members(part))
    least = jnp.min(distances.reshape(len(query), -1, GROUP), axis=2)
    group = _nearest(part, least, k)
    distances = distances_of(query, codes, alive, group)
    best = smallest(distances, k)
    return _at(distances, best), member(group, best, GROUP)


def _cluster_minima(query, codes, alive, masked) -> UInt[Array, "b q 64"]:
    """The least distance in each cluster, the greatest of the type where it has no row."""
    far = far_type(codes.shape[1])
    if masked or not hopper.takes(codes.shape[1]):
        return _by_counts(query, codes, alive, masked)
    minima = lax.platform_dependent(
        query,
        codes,
        cuda=hopper.cluster_minima,
        default=lambda query, codes: _by_counts(query, codes, alive, masked),
    )
    there = jnp.any(passes.by_cluster(alive) != 0, axis=1)
    return jnp.where(there, minima, jnp.iinfo(far).max)


def _by_counts(query, codes, alive, masked):
    minima = lax.optimization_barrier(passes.group_minima(query, codes, alive, masked))
    return jnp.min(passes.by_cluster(minima), axis=1)


def _in_sixteens(values):
    """Parts without rows behind, up to a multiple of 16."""
    none = jnp.iinfo(values.dtype).max
    return jnp.pad(values, ((0, 0), (0, -values.shape[1] % CLUSTER)), constant_values=none)


def _members(part):
    """The numbers of the 16 parts of the next level within each part."""
    return (part[:, :, None] * CLUSTER + jnp.arange(CLUSTER)[None, None]).reshape(len(part), -1)


def member(
    part: Int32[Array, "q p"], position: Int32[Array, "q k"], size: int
) -> Int32[Array, "q k"]:
    """The numbers of the members at positions of a list of parts' members; size is of a part."""
    return _at(part, position // size) * size + position % size


def _nearest(part, least, k):
    """Of the members of parts those with the k least distances, in their order."""
    return ascending(member(part, smallest(least, min(k, least.shape[1])), CLUSTER))


def _at(values, position):
    return jnp.take_along_axis(values, position, axis=1, mode="promise_in_bounds")


def distances_of(
    query: UInt32[Array, "q w"],
    codes: UInt32[Array, "m w 32 64"],
    alive: UInt32[Array, "m p 64"],
    group: Int32[Array, "q g"],
) -> UInt32[Array, "q r"]:
    """The distances to the rows of each query's groups, 32 g; NO_ROW where there is none."""
    differing = lax.population_count(whole_groups(codes, group) ^ query[:, None, None])
    distances = jnp.sum(differing, axis=3, dtype=jnp.uint32)
    block, lane, within = locate(group)
    owner = jnp.arange(len(group))[:, None] if alive.shape[1] > 1 else 0
    words = jnp.where(group < len(codes) * LANES, alive[block * CLUSTER + within, owner, lane], 0)
    there = bit(words[:, :, None], jnp.arange(GROUP)[None, None])
    return jnp.where(there, distances, jnp.uint32(NO_ROW)).reshape(len(group), -1)
