"""The distances that scores are given for, each a search of a gallery."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from jaxret import codes, divergences, search
from jaxret.evaluate.batches import PAIRS, batched
from jaxret.search.results import padded
from jaxret.search.threads import least_on_host
from jaxret.search.validate import Whole, columns

# A distance prepares a gallery, f32[n b] on the host, and returns a search of it:
# (query f32[q b], k) -> Neighbors.


def _euclidean(gallery):
    layout = search.lay_out(gallery.astype(np.float32))
    return lambda query, k: layout.topk(query.astype(np.float32), k)


def _hamming(gallery):
    layout = search.lay_out(np.asarray(codes.pack(gallery)))
    return lambda query, k: layout.topk(codes.pack(query), k)


def _cosine(gallery):
    layout = search.lay_out(divergences.unit_rows(gallery, 1))

    def topk(query, k):
        found = layout.topk(divergences.unit_rows(query, 0), k)
        return found._replace(distances=found.distances / 2)

    return topk


def _by_terms(gallery, *, divergence):
    prepared = tuple(map(jnp.asarray, divergence.gallery(gallery)))
    n = len(gallery)

    def topk(query, k):
        k = columns(k, n)
        parts = divergence.query(query)

        def nearest(*tile):
            table = divergences.distances(tile, prepared, divergence.term)
            return padded(*least_on_host(np.asarray(table), min(k, n)), k, np.inf)

        return search.Neighbors(*batched(nearest, max(1, PAIRS // n), *parts))

    return topk


TIED = ("hamming",)  # distances by which many results tie: bits
DISTANCES: dict[str, Callable] = {
    "euclidean": _euclidean,
    "hamming": _hamming,
    "cosine": _cosine,
} | {
    name: partial(_by_terms, divergence=divergence)
    for name, divergence in divergences.DIVERGENCES.items()
}


def nearest(
    query: Shaped[Array | np.ndarray, "q b"],
    gallery: Shaped[Array | np.ndarray, "n b"],
    k: Whole,
    distance: str,
) -> search.Neighbors:
    """Return the k nearest rows by any of the distances that scores are given for.

    Args:
        query: latents f32[q b].
        gallery: latents f32[n b].
        k: how many; as in `jaxret.search.hamming_topk`.
        distance: one of DISTANCES.

    Returns:
        Neighbors: distances are squared for `euclidean`, bits for `hamming`, 1 - cos for `cosine`.

    Raises:
        ValueError: if the distance is unknown, or latents are not finite or differ in width.
    """
    check_distance(distance)
    query, gallery = np.asarray(query), np.asarray(gallery)
    check_latents(query, gallery)
    return DISTANCES[distance](gallery)(query, k)


def check_latents(query: Any, gallery: Any) -> None:
    """Refuse what is no table of finite real numbers, and tables of different widths."""
    for name, rows in (("query", query), ("gallery", gallery)):
        kinds = (bool, jnp.integer, jnp.floating)
        if rows.ndim != 2 or not any(jnp.issubdtype(rows.dtype, kind) for kind in kinds):
            raise ValueError(
                f"the {name} must be latents [n b], real numbers, got "
                f"{rows.dtype}{list(rows.shape)}"
            )
        if len(rows) == 0:
            raise ValueError(f"the {name} must hold at least 1 image, got 0")
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"latents must be finite, row {int(np.argmin(finite))} of the {name} is not"
            )
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query and gallery must be as long, got {query.shape[1]} and {gallery.shape[1]}"
        )


def check_distance(distance: Any) -> None:
    """Refuse a name that is not in DISTANCES."""
    if distance not in DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, got {distance!r}")
