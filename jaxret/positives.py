"""Positives for contrastive training without labels: the nearest other images."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Int32

from jaxret import inputs, search
from jaxret.evaluate import encode_in_batches
from jaxret.hashers import pca_hasher
from jaxret.hashers.base import check_whole

COMPONENTS = 50
SHORTEST = 1e-12  # length of components that is still scaled to 1


def knn_positives(
    images: Any, count: int, components: int = COMPONENTS, *, cosine: bool = False
) -> Int32[np.ndarray, "n m"]:
    """Find the `count` nearest other images of each image, as rows, nearest first.

    Distances are between the first principal components, 50 or as many as components says: what is
    known of similarity before anything is learnt. With `cosine` they are between components of unit
    length: of a pretrained network's features more of the nearest then share the image's class.

    Args:
        images: images, or vectors; see `inputs`.
        count: how many neighbors.
        components: how many principal components, at most.
        cosine: whether components are scaled to unit length.

    Raises:
        ValueError: unless 1 <= count < n.
    """
    images = inputs.accept(images)
    check_whole("count", count, least=0)
    check_whole("components", components)
    if not 1 <= count < len(images):
        raise ValueError(
            f"count must lie between 1 and the number of other images, {len(images) - 1}, "
            f"got {count}"
        )
    hasher = pca_hasher(min(components, images[0].size, len(images)))
    params, _ = hasher.fit(jax.random.key(0), images)
    codes = np.asarray(encode_in_batches(hasher.encode, params, images))
    if cosine:
        codes = codes / np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), SHORTEST)
    rows = np.asarray(search.euclidean_topk(codes, codes, count + 1).indices)
    own = rows == np.arange(len(rows))[:, None]
    own[~own.any(axis=1), -1] = True  # enough copies of the image come before it
    return rows[~own].reshape(len(rows), count)
