"""All rows within a distance: as many as there are, or a sign that there were more."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int64, Num, UInt32

from jaxret.codes import PackedMask
from jaxret.search import select, validate
from jaxret.search.layout import CodeLayout, Mask, VectorLayout
from jaxret.search.validate import Whole

FIRST, FACTOR = 32, 10  # neighbors at first, and how many times more where all are within


class Ranges(NamedTuple):
    """The rows within a distance of each query: row i's are at `starts[i] : starts[i + 1]`.

    They are in order of (distance, row). complete says of which queries all rows are there; of the
    others there are as many as the limit, the nearest ones.
    """

    starts: Int64[np.ndarray, " p"]
    distances: Num[np.ndarray, " r"]
    indices: Int[np.ndarray, " r"]
    complete: Bool[np.ndarray, " q"]


def hamming_range(
    query: UInt32[Array | np.ndarray, "q w"],
    gallery: UInt32[Array | np.ndarray, "n w"] | CodeLayout,
    radius: Whole,
    *,
    limit: Whole | None = None,
    mask: Mask = None,
    memory: Whole = select.MEMORY,
) -> Ranges:
    """Return all codes that differ from a query by at most radius bits.

    Args:
        query: packed codes u32[q w].
        gallery: packed codes u32[n w], or what `lay_out` makes of them.
        radius: in bits.
        limit: the most rows for a query; None for all. The nearest are returned.
        mask: as in `hamming_topk`.
        memory: as in `hamming_topk`.

    Returns:
        Ranges: the rows of each query in order of (distance, row).

    Raises:
        ValueError: if an argument has another type or shape, or a value out of its range.
    """
    return _range(CodeLayout, query, gallery, radius, limit, mask, memory)


def euclidean_range(
    query: Float[Array | np.ndarray, "q d"],
    gallery: Float[Array | np.ndarray, "n d"] | VectorLayout,
    squared_radius: Whole,
    *,
    limit: Whole | None = None,
    mask: Mask = None,
    memory: Whole = select.MEMORY,
) -> Ranges:
    """Return all vectors at a squared distance of at most squared_radius.

    Args:
        query: vectors f32[q d].
        gallery: vectors f32[n d], or what `lay_out` makes of them.
        squared_radius: in the units of the vectors, squared.
        limit: as in `hamming_range`.
        mask: as in `hamming_topk`.
        memory: as in `hamming_topk`.

    Returns:
        Ranges: the rows of each query in order of (distance, row).

    Raises:
        ValueError: if an argument has another type or shape, or a value out of its range.
    """
    return _range(VectorLayout, query, gallery, squared_radius, limit, mask, memory)


def _range(kind, query, gallery, radius, limit, mask, memory) -> Ranges:
    kind.check("query", query)
    layout = gallery if isinstance(gallery, kind) else kind.make(gallery)
    search = partial(layout.topk, memory=memory)
    return within(search, query, int(layout.size), radius, limit, mask)


def within(
    topk: Callable,
    query: np.ndarray | Array,
    rows: int,
    radius: Whole,
    limit: Whole | None,
    mask: Mask,
) -> Ranges:
    """Ask for more neighbors of the queries whose last one is still within the radius.

    Args:
        topk: a search, (query, k, mask=words) -> Neighbors.
        query: codes or vectors, one row for each query.
        rows: how many rows are searched.
        radius: the greatest distance.
        limit: the most rows for a query, or None.
        mask: as in `hamming_topk`.

    Returns:
        Ranges: the rows of each query in order of (distance, row).

    Raises:
        ValueError: if the radius, the limit or the mask breaks its rule.
    """
    radius = validate.number("radius", radius)
    limit = None if limit is None else min(validate.whole("limit", limit), rows)
    words = validate.mask_words(mask, len(query), rows, rows)
    most = rows if limit is None else min(limit + 1, rows)
    found_rows: list[Any] = [None] * len(query)
    waiting, k = np.arange(len(query)), FIRST
    while len(waiting):
        k = min(k, max(most, 1))
        own = words if words is None or len(words) == 1 else np.asarray(words)[waiting]
        own = None if own is None else PackedMask(own)
        found = topk(np.asarray(query)[waiting], k, mask=own)
        distances, indices = np.asarray(found.distances), np.asarray(found.indices)
        counts = np.sum((distances <= radius) & (indices >= 0), axis=1)
        settled = (counts < k) | (k >= most)
        for i in np.flatnonzero(settled):
            found_rows[waiting[i]] = distances[i, : counts[i]], indices[i, : counts[i]]
        waiting, k = waiting[~settled], k * FACTOR
    return _ragged(found_rows, limit)


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
