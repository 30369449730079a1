"""What searches return, without JAX: the k nearest rows, or all rows within a distance."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int64, Num

from jaxret.codes import PackedMask
from jaxret.search import validate
from jaxret.search.validate import Whole

MEMORY = 2**28  # bytes
NEVER = np.iinfo(np.int32).max  # the distance past the end of a gallery of codes
FIRST, FACTOR = 32, 10  # neighbors at first, and how many times more where all are within


def far_type(words: int) -> type[np.uint8] | type[np.uint16] | type[np.uint32]:
    """Return the least unsigned type that holds any distance of codes and, at its maximum, none."""
    return np.uint8 if 32 * words < 255 else np.uint16 if 32 * words < 2**16 - 1 else np.uint32


class Neighbors(NamedTuple):
    """The nearest rows of a gallery to each query.

    Distances ascend; of equal distances the lower row comes first. Past the end of the gallery the
    index is -1 and the distance is the greatest of its type (infinity for floats).
    """

    distances: Num[Any, "q k"]
    indices: Int[Any, "q k"]


class Ranges(NamedTuple):
    """The rows within a distance of each query: row i's are at `starts[i] : starts[i + 1]`.

    They are in order of (distance, row). complete says of which queries all rows are there; of the
    others there are as many as the limit, the nearest ones.
    """

    starts: Int64[np.ndarray, " p"]
    distances: Num[np.ndarray, " r"]
    indices: Int[np.ndarray, " r"]
    complete: Bool[np.ndarray, " q"]


def padded(
    distances: Num[Any, "q c"],
    indices: Int[Any, "q c"],
    k: int,
    far: float | int,
) -> Neighbors:
    """Add columns past the end, where a small gallery has fewer than k rows."""
    missing = ((0, 0), (0, k - distances.shape[1]))
    numpy = validate.namespace_of(indices)
    if k > distances.shape[1]:
        distances = numpy.pad(distances, missing, constant_values=far)
        indices = numpy.pad(indices, missing, constant_values=-1)
    return Neighbors(distances, indices)


def within(
    topk: Callable,
    query: Any,
    rows: int,
    radius: Whole,
    limit: Whole | None,
    mask: Any,
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
