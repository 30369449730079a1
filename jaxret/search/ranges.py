"""All rows within a distance: as many as there are, or a sign that there were more."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Int64, Num, Shaped, UInt32

from jaxret.search import doors, select
from jaxret.search.blocks import CodeBlocks, lay_out
from jaxret.search.euclidean import euclidean_topk
from jaxret.search.hamming import hamming_topk
from jaxret.search.vectors import Vectors, lay_out_vectors

FIRST, FACTOR = 32, 8  # neighbours asked for at first, and how many times more where all are within


class Ranges(NamedTuple):
    """The rows within a distance of each query: row i's are at `starts[i] : starts[i + 1]`.

    They are in order of (distance, row). complete says of which queries all rows are there; of the
    others there are as many as the limit, the nearest ones.
    """

    starts: Int64[np.ndarray, " p"]
    distances: Num[np.ndarray, " r"]
    indices: Int32[np.ndarray, " r"]
    complete: Bool[np.ndarray, " q"]


def hamming_range(
    query: UInt32[Array | np.ndarray, "q w"],
    gallery: UInt32[Array | np.ndarray, "n w"] | CodeBlocks,
    radius: int,
    *,
    limit: int | None = None,
    mask: Shaped[Array | np.ndarray, "..."] | None = None,
    memory: int = select.MEMORY,
) -> Ranges:
    """All codes that differ from a query by at most radius bits, or the nearest limit of them."""
    if not isinstance(gallery, CodeBlocks):
        gallery = lay_out(gallery)
    search = partial(hamming_topk, memory=memory)
    return within(search, query, gallery, radius, limit, mask)


def euclidean_range(
    query: Float[Array | np.ndarray, "q d"],
    gallery: Float[Array | np.ndarray, "n d"] | Vectors,
    squared_radius: float | int,
    *,
    limit: int | None = None,
    mask: Shaped[Array | np.ndarray, "..."] | None = None,
    memory: int = select.MEMORY,
) -> Ranges:
    """All vectors at a squared distance of at most squared_radius, or the nearest limit of them."""
    if not isinstance(gallery, Vectors):
        gallery = lay_out_vectors(gallery)
    search = partial(euclidean_topk, memory=memory)
    return within(search, query, gallery, squared_radius, limit, mask)


def within(search: Callable, query, gallery, radius, limit, mask) -> Ranges:
    """Ask for more neighbours of the queries whose last one is still within the radius."""
    if not radius >= 0:
        raise ValueError(f"a radius must be at least 0, got {radius}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if mask is not None:
        mask = doors.packed(doors.check_mask(mask, len(query), int(gallery.size)))
    most = int(gallery.size) if limit is None else min(limit + 1, int(gallery.size))
    rows = [None] * len(query)
    asking, k = np.arange(len(query)), FIRST
    while len(asking):
        k = min(k, max(most, 1))
        own = mask if mask is None or len(mask) == 1 else np.asarray(mask)[asking]
        found = search(np.asarray(query)[asking], gallery, k, mask=own)
        distances, indices = np.asarray(found.distances), np.asarray(found.indices)
        counts = np.sum((distances <= radius) & (indices >= 0), axis=1)
        settled = (counts < k) | (k >= most)
        for i in np.flatnonzero(settled):
            rows[asking[i]] = distances[i, : counts[i]], indices[i, : counts[i]]
        asking, k = asking[~settled], k * FACTOR
    return _ragged(rows, limit)


def _ragged(rows, limit):
    counts = np.array([len(distances) for distances, _ in rows], np.int64)
    complete = np.ones(len(rows), bool) if limit is None else counts <= limit
    kept = counts if limit is None else np.minimum(counts, limit)
    parts = [(d[:count], i[:count]) for (d, i), count in zip(rows, kept, strict=True)]
    empty = np.zeros(0, np.int32)
    return Ranges(
        np.concatenate([[0], np.cumsum(kept)]).astype(np.int64),
        np.concatenate([d for d, _ in parts]) if parts else empty,
        np.concatenate([i for _, i in parts]) if parts else empty,
        complete,
    )
