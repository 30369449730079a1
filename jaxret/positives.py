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


def knn_positives(
    images: Any, count: int, components: int = COMPONENTS
) -> Int32[np.ndarray, "n m"]:
    """Find the `count` nearest other images of each image, as rows, nearest first.

    Distances are between the first principal components, 50 or as many as components says: what is
    known of similarity before anything is learnt. Takes vectors as well as images. Raises
    ValueError unless 1 <= count < n.
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
    rows = np.asarray(search.euclidean_topk(codes, codes, count + 1).indices)
    own = rows == np.arange(len(rows))[:, None]
    own[~own.any(axis=1), -1] = True  # so many copies of the image come before itself
    return rows[~own].reshape(len(rows), count)
