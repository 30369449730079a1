"""Hashers that are not trained by gradients: the floors that learnt codes must beat."""

import jax
import jax.numpy as jnp
from jax import lax


def pixels():
    """Fit and encode: an image's pixels, in [0, 1], as they are."""

    def fit(key, images, labels=None):
        del key, images, labels
        return {}, {}

    def encode(params, images):
        del params
        return images.reshape(len(images), -1).astype(jnp.float32) / 255

    return fit, encode


def pca(dim: int):
    """Fit and encode: the first dim principal components of the pixels."""
    of_pixels = pixels()[1]

    def fit(key, images, labels=None):
        del key, labels
        size = images[0].size
        if not 1 <= dim <= size:
            raise ValueError(f"dim must lie between 1 and the number of pixels, {size}, got {dim}")
        mean, covariance = jax.jit(_moments)(of_pixels({}, images))
        variances, directions = jnp.linalg.eigh(covariance)  # ascending
        explained = float(jnp.sum(variances[-dim:]) / jnp.sum(variances))
        return {"mean": mean, "components": directions[:, ::-1][:, :dim]}, {"explained": explained}

    def encode(params, images):
        x = of_pixels({}, images) - params["mean"][None]
        return jnp.dot(x, params["components"], precision=lax.Precision.HIGHEST)

    return fit, encode


def _moments(x):
    mean = jnp.mean(x, axis=0)
    x = x - mean[None]
    return mean, jnp.dot(x.T, x, precision=lax.Precision.HIGHEST) / len(x)
