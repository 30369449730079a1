"""A protocol's images, encoded and scored."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxret import inputs
from jaxret.evaluate.batches import PAIRS, encode_in_batches
from jaxret.evaluate.relevance import checked_labels
from jaxret.evaluate.scores import check_request, retrieval_scores
from jaxret.search.validate import Whole


def evaluate(
    encode: Callable,
    params: Any,
    protocol: Any,
    *,
    overlap: int | None = None,
    allow_overlap: bool = False,
    distance: str = "euclidean",
    ks: Sequence[Whole] = (1, 2, 1000),
    batch_size: int = 1000,
    pairs: int = PAIRS,
) -> dict[str, float]:
    """Encode a protocol's gallery and queries, and score the retrieval.

    Args:
        encode: (params, images) -> f32[n b]. It sees batches of one size only; jit it where
            it can be.
        params: what encode is given.
        protocol: has the fields name, train, gallery, query and known_overlap.
        overlap: how many query images are in the gallery, counted by content; None: they are
            counted here. Each of them finds itself, so more than the protocol documents as
            known_overlap are refused.
        allow_overlap: score all the same.
        distance: one of DISTANCES.
        ks: the K of `map@K` and `precision@K`.
        batch_size: images that are encoded at once.
        pairs: as in `retrieval_scores`.

    Returns:
        Scores by name: see `retrieval_scores`.

    Raises:
        ValueError: if queries are in the gallery, if labels are missing, or if an argument has
            another shape or a value out of its range.
    """
    check_request(distance, ks)
    gallery, query = protocol.gallery, protocol.query
    for name, images in (("query", query), ("gallery", gallery)):
        checked_labels(name, images.labels, len(images.images))  # before the work of encoding
    if not allow_overlap:
        overlap = images_in_both(gallery.images, query.images) if overlap is None else overlap
        if overlap > protocol.known_overlap:
            raise ValueError(
                f"{protocol.name}: at most {protocol.known_overlap} query images may be in the "
                f"gallery, found {overlap}"
            )
    query_latents, gallery_latents = (
        encode_in_batches(encode, params, part.images, batch_size) for part in (query, gallery)
    )
    return retrieval_scores(
        query_latents,
        gallery_latents,
        query.labels,
        gallery.labels,
        distance=distance,
        ks=ks,
        pairs=pairs,
    )


def images_in_both(gallery: Any, query: Any) -> int:
    """Count the query images that occur in the gallery, pixel for pixel.

    Arrays of one type are compared as they are, of two types as `jaxret.inputs` takes them.
    """
    kinds = [getattr(images, "dtype", None) for images in (gallery, query)]
    if kinds[0] is None or kinds[0] != kinds[1]:  # by their bytes they would all differ
        gallery, query = inputs.accept(gallery), inputs.accept(query)
    gallery, query = np.asarray(gallery), np.asarray(query)
    if gallery.shape[1:] != query.shape[1:]:
        return 0
    known = {image.tobytes() for image in query}
    found = known.intersection(image.tobytes() for image in gallery)
    return sum(image.tobytes() in found for image in query)


def describe(protocol: Any, overlap: int) -> dict[str, str | int]:
    """Return what a score must be read with: the protocol's name, its sizes, its overlap.

    A protocol of the literature also has the score it is known by, and a digest of its split.
    """
    known = {name: getattr(protocol, name, "") for name in ("metric", "split")}
    return {
        "name": protocol.name,
        "train": len(protocol.train.images),
        "gallery": len(protocol.gallery.images),
        "query": len(protocol.query.images),
        "overlap": overlap,
        **{name: value for name, value in known.items() if value},
    }
