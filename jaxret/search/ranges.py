"""All rows within a distance: as many as there are, or a sign that there were more."""

from functools import partial

import numpy as np
from jaxtyping import Array, Float, UInt32

from jaxret.search.layout import CodeLayout, Mask, VectorLayout
from jaxret.search.results import MEMORY, Ranges, within
from jaxret.search.validate import Whole


def hamming_range(
    query: UInt32[Array | np.ndarray, "q w"],
    gallery: UInt32[Array | np.ndarray, "n w"] | CodeLayout,
    radius: Whole,
    *,
    limit: Whole | None = None,
    mask: Mask = None,
    memory: Whole = MEMORY,
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
    memory: Whole = MEMORY,
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
