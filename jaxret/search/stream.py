"""Galleries that are larger than memory: searched from a mapped file, stretch by stretch."""

import numpy as np
from jaxtyping import Array, Bool, Float, Shaped, UInt32

from jaxret.codes import WORD_BITS, PackedMask
from jaxret.search import validate
from jaxret.search.layout import layout_class
from jaxret.search.results import MEMORY, Neighbors, padded
from jaxret.search.validate import Whole


def streamed_topk(
    query: UInt32[Array | np.ndarray, "q w"] | Float[Array | np.ndarray, "q d"],
    rows: Shaped[np.ndarray, "n a"],
    k: Whole,
    *,
    mask: Bool[np.ndarray, "..."] | PackedMask | None = None,
    memory: Whole = MEMORY,
) -> Neighbors:
    """Return the k nearest of rows that are read once, in order, as from `numpy.memmap`.

    Args:
        query: packed codes u32[q w], compared by Hamming distance, or vectors f32[q d], compared
            by squared Euclidean distance.
        rows: the gallery, u32[n w] or f32[n d]; it may have more than 2^31 rows.
        k: as in `hamming_topk`; the bound there is of 65,536 and n.
        mask: as in `hamming_topk`.
        memory: bytes of the stretch of rows that is held and of what its search needs; beside it
            there are three results.

    Returns:
        Neighbors, in NumPy: what a search in memory would find; rows are i64[q k].

    Raises:
        ValueError: if an argument has another type or shape, or a value out of its range.
    """
    kind = layout_class(rows)
    validate.check_columns("gallery", rows)
    k, memory = validate.columns(k, len(rows)), validate.whole("memory", memory)
    kind.check("query", query)
    words = validate.mask_words(mask, len(query), len(rows), len(rows))
    # A stretch is held as read, laid out, and for a moment once more between the two.
    stretch = max(1, memory // 4 // (rows.itemsize * rows.shape[1] * kind.block)) * kind.block
    stretch = min(stretch, -(-max(len(rows), 1) // kind.block) * kind.block)
    best = None
    for start in range(0, max(len(rows), 1), stretch):
        layout = kind.make(np.asarray(rows[start : start + stretch]), stretch)
        own = None
        if words is not None:
            own = np.asarray(words)[:, start // WORD_BITS : (start + stretch) // WORD_BITS]
            own = PackedMask(own)
        found = layout.topk(query, min(k, stretch), mask=own, memory=max(1, memory // 4))
        best = merge(best, found, start, k)
    assert best is not None  # there is always a first stretch
    found = padded(best.distances, best.indices, k, kind.far)
    return Neighbors(*map(np.asarray, found))


def merge(best: Neighbors | None, found: Neighbors, start: int, k: int) -> Neighbors:
    """Merge what a stretch of rows from start on holds into the best of the rows before it."""
    distances, indices = np.asarray(found[0]), np.asarray(found[1]).astype(np.int64)
    indices = np.where(indices < 0, -1, indices + start)
    if best is not None:
        distances = np.concatenate([best[0], distances], axis=1)
        indices = np.concatenate([best[1], indices], axis=1)
        # Stable, and earlier stretches come first: ties stay in the order of rows.
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        distances = np.take_along_axis(distances, order, axis=1)
        indices = np.take_along_axis(indices, order, axis=1)
    return Neighbors(distances, indices)
