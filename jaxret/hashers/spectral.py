"""Spectral hashing (Weiss 2008): waves along the principal components, the longest first."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .base import Hasher, OfImages, check_whole
from .shallow import check_size, mean_of, principal_components, project, some_images

LEAST = 1e-30  # a range below which waves would be too short for single precision


def sh_hasher(bits: int) -> Hasher:
    """Return the signs of the smoothest waves on a box around the principal components.

    Were the components uniform on the box, these waves would be the eigenfunctions of the
    similarity graph with the least eigenvalues: balanced bits without correlation that tell
    neighbors apart least. Only waves along a single component are taken, for waves along several
    are products of these. As in the authors' program, the box is from the least to the greatest
    value of the data.
    """
    check_whole("bits", bits)

    def fit(key, images, labels=None, *, on_epoch=None):
        del key, labels, on_epoch
        images = some_images(images)
        mean = mean_of(images)
        components, explained = principal_components(
            images, mean, min(bits, mean.size, len(images))
        )
        v = project(images, mean, components)
        low, high = jnp.min(v, axis=0), jnp.max(v, axis=0)
        component, mode = waves(np.asarray(high - low), bits)
        width = (high - low)[component]
        width = jnp.where(width > LEAST, width, 1)  # images that are alike: their bits are 1
        params = {
            "mean": mean,
            "projection": components[:, component],
            "low": low[component],
            "omega": math.pi * jnp.asarray(mode, jnp.float32) / width,
        }
        return params, {"explained": explained, "components": float(len(set(component.tolist())))}

    def encode(params, images):
        check_size("sh", images, params["mean"].shape)
        v = project(images, params["mean"], params["projection"])
        return jnp.cos(params["omega"][None] * (v - params["low"][None]))

    spec = {"name": "sh", "settings": {"bits": bits}}
    return Hasher(fit, OfImages(encode), "hamming", spec=spec)


def waves(
    ranges: Float[np.ndarray, " d"], count: int
) -> tuple[Int[np.ndarray, " count"], Int[np.ndarray, " count"]]:
    """Return the component, and the number of half-waves, of each of the longest waves.

    A wave of k halves along a range r has the eigenvalue (k / r)^2. Equal ones are in the order of
    components. A component without a range has no wave, unless all are without.

    Args:
        ranges: of the components, not negative.
        count: how many waves.
    """
    ranges = np.asarray(ranges, np.float64)
    ranges = ranges if ranges.max() > 0 else np.ones_like(ranges)
    useful = np.flatnonzero(ranges > 0)
    mode, place = np.meshgrid(np.arange(1, count + 1), useful, indexing="ij")
    frequency = (mode / ranges[place]).reshape(-1)
    order = np.lexsort((place.reshape(-1), np.round(frequency / frequency.min(), 9)))[:count]
    return place.reshape(-1)[order], mode.reshape(-1)[order]
