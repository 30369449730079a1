"""Galleries that are larger than memory: searched from a mapped file, stretch by stretch."""

import numpy as np
from jaxtyping import Array, Float, Shaped, UInt32

from jaxret.search import blocks, doors, euclidean, hamming, select, vectors
from jaxret.search.select import Neighbors


def streamed_topk(
    query: UInt32[Array | np.ndarray, "q w"] | Float[Array | np.ndarray, "q d"],
    rows: Shaped[np.ndarray, "n a"],
    k: int,
    *,
    mask: Shaped[np.ndarray, "..."] | None = None,
    memory: int = select.MEMORY,
) -> Neighbors:
    """The k nearest of rows that are read once, in order, as from `numpy.memmap`.

    Packed codes are compared by Hamming distance, vectors by squared Euclidean distance. memory
    bounds, in bytes, the stretch of rows that is held and what its search needs; beside it there
    are three results.
    """
    doors.check_k(k)
    doors.check_memory(memory)
    is_codes = rows.dtype == np.uint32
    lay_out, topk, unit = (
        (blocks.lay_out, hamming.hamming_topk, blocks.BLOCK)
        if is_codes
        else (vectors.lay_out_vectors, euclidean.euclidean_topk, vectors.TILE)
    )
    mask = None if mask is None else doors.packed(doors.check_mask(mask, len(query), len(rows)))
    # A stretch is held as read, laid out, and for a moment once more between the two.
    stretch = max(1, memory // 4 // (rows.itemsize * rows.shape[1] * unit)) * unit
    stretch = min(stretch, -(-max(len(rows), 1) // unit) * unit)
    best = None
    for start in range(0, max(len(rows), 1), stretch):
        part = lay_out(np.asarray(rows[start : start + stretch]), stretch)
        own = None
        if mask is not None:
            own = np.asarray(mask)[:, start // 32 : (start + stretch) // 32]
        found = topk(query, part, min(k, stretch), mask=own, memory=max(1, memory // 4))
        best = _merged(best, found, start, k)
    return select.neighbors(*best, k, hamming.NEVER if is_codes else np.inf)


def _merged(best, found, start, k):
    distances, indices = np.asarray(found.distances), np.asarray(found.indices)
    indices = np.where(indices < 0, -1, indices + start)
    if best is not None:
        distances = np.concatenate([best[0], distances], axis=1)
        indices = np.concatenate([best[1], indices], axis=1)
        # Stable, and earlier stretches come first: ties stay in the order of rows.
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        distances = np.take_along_axis(distances, order, axis=1)
        indices = np.take_along_axis(indices, order, axis=1)
    return distances, indices
