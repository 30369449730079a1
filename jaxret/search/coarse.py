"""Coarse-to-fine search: rows with near codes are candidates, vectors rank them (Lin 2015)."""

import numpy as np
from jaxtyping import Array, Float, Float32, Int32, Int64, UInt32

from jaxret.search import validate
from jaxret.search.layout import CodeLayout, hamming_topk
from jaxret.search.ranges import hamming_range
from jaxret.search.results import Neighbors
from jaxret.search.threads import on_host_threads
from jaxret.search.validate import Whole

TILE = 256  # queries whose pools are there at once


def coarse_to_fine_topk(
    query_codes: UInt32[Array | np.ndarray, "q w"],
    query: Float[Array | np.ndarray, "q d"],
    gallery_codes: UInt32[Array | np.ndarray, "n w"] | CodeLayout,
    gallery: Float[Array | np.ndarray, "n d"],
    k: Whole,
    *,
    radius: Whole = 0,
) -> Neighbors:
    """Return the k rows whose vectors are nearest, among those whose codes are near.

    A query's pool is the rows within a radius of its code; where these are fewer than k, those
    within the least radius that holds k. Distances are squared Euclidean ones.

    Args:
        query_codes: packed codes u32[q w].
        query: vectors f32[q d] of the same queries.
        gallery_codes: packed codes u32[n w], or what `lay_out` makes of them.
        gallery: vectors f32[n d] of the same rows.
        k: how many rows.
        radius: in bits; 0 is the rows of an equal code.

    Returns:
        Neighbors, in NumPy: by distance, of equal ones the lower row first; -1 and infinity past
        the end of a gallery of fewer than k rows. There are k columns, or the greater of 65,536 and
        the rows where that is less.

    Raises:
        ValueError: if an argument has another type or shape, or a value out of its range.
    """
    validate.check_codes("query", query_codes)
    codes, vectors = np.asarray(query_codes), _vectors("query", query, len(query_codes))
    is_laid_out = isinstance(gallery_codes, CodeLayout)
    layout = gallery_codes if is_laid_out else CodeLayout.make(gallery_codes)
    size = int(layout.size)
    rows = _vectors("gallery", gallery, size)
    if vectors.shape[1] != rows.shape[1]:
        raise ValueError(
            f"query and gallery must have vectors of one length, got {vectors.shape[1]} and "
            f"{rows.shape[1]} features"
        )
    k = validate.columns(k, size)
    radius = min(validate.number("radius", radius), 32 * codes.shape[1])  # no two differ in more
    distances = np.full((len(codes), k), np.inf, np.float32)
    indices = np.full((len(codes), k), -1, np.int32)
    if not size:
        return Neighbors(distances, indices)
    for start in range(0, len(codes), TILE):
        tile = np.arange(start, min(start + TILE, len(codes)))
        last = np.asarray(hamming_topk(codes[tile], layout, min(k, size)).distances)[:, -1]
        within = np.maximum(last, radius)
        for bits in np.unique(within):
            own = tile[within == bits]
            found = hamming_range(codes[own], layout, int(bits))
            pools = np.split(found.indices, found.starts[1:-1])
            _rank(own, pools, vectors, rows, distances, indices)
    return Neighbors(distances, indices)


def _rank(
    own: Int64[np.ndarray, " m"],
    pools: list[np.ndarray],
    vectors: Float32[np.ndarray, "q d"],
    rows: Float32[np.ndarray, "n d"],
    distances: Float32[np.ndarray, "q k"],
    indices: Int32[np.ndarray, "q k"],
) -> None:
    """Write the nearest of each query's pool."""
    k = distances.shape[1]

    def rank(numbers):
        for i in numbers:
            pool = np.sort(pools[i])
            offset = rows[pool] - vectors[own[i]]
            squared = np.einsum("nd,nd->n", offset, offset)
            order = np.argsort(squared, kind="stable")[:k]
            distances[own[i], : len(order)] = squared[order]
            indices[own[i], : len(order)] = pool[order]

    on_host_threads(rank, len(own))


def _vectors(name, vectors, count) -> np.ndarray:
    validate.check_vectors(name, vectors)
    if len(vectors) != count:
        raise ValueError(
            f"the {name} must have as many vectors as codes, {count}, got {len(vectors)}"
        )
    return np.asarray(vectors, np.float32)
