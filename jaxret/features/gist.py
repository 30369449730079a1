"""GIST (Oliva 2001): energy of oriented frequency bands over the image, on a grid of 4 x 4 blocks.

The classic papers of hashing score CIFAR-10 by 512 such numbers. Steps and constants are those of
the authors' Matlab program (LMgist): the logarithm of grey, local normalisation, 4 scales of 8
orientations. Images are taken at the size they have; that program enlarges them first.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .base import Extractor, rgb

SIDE = 32
SCALES, ORIENTATIONS, BLOCKS = 4, 8, 4
PADDING = 5  # pixels mirrored at each border, for the local normalisation
CUTOFF = 4 / np.sqrt(np.log(2))  # cycles per padded image of the local mean
CONTRAST = 0.2  # added to the local deviation


def gist() -> Extractor:
    """Return GIST, f32[n 512]: scale by orientation by row and column of blocks, in this order.

    Images have at least 4 pixels a side. Grey is the mean of the channels.
    """
    return Extractor("gist", _gist, SIDE, {"resize": "square, bicubic, centre"})


def _gist(params, images):
    del params
    x = _normalised(jnp.mean(rgb(images), axis=3))
    side = x.shape[1]
    filters = jnp.asarray(_filters(side))
    energy = jnp.abs(jnp.fft.ifft2(jnp.fft.fft2(x)[:, None] * filters[None]))
    pool = jnp.asarray(_pooling(side))
    means = jnp.einsum("nfhw,rh,cw->nfrc", energy, pool, pool, precision="highest")
    return means.reshape(len(x), SCALES * ORIENTATIONS * BLOCKS**2)


def _normalised(grey: Float[Array, "n h w"]) -> Float[Array, "n h w"]:
    """Log brightness, minus its local mean and over its local deviation."""
    inside = slice(PADDING, -PADDING)
    around = ((0, 0), (PADDING, PADDING), (PADDING, PADDING))
    x = jnp.pad(jnp.log1p(grey), around, mode="symmetric")
    low = jnp.asarray(_low_pass(x.shape[1]))[None]

    def smooth(x):
        return jnp.fft.ifft2(jnp.fft.fft2(x) * low).real

    x = x - smooth(x)
    x = x / (CONTRAST + jnp.sqrt(jnp.abs(smooth(x**2))))
    return x[:, inside, inside]


def _low_pass(side: int) -> Float[np.ndarray, "h w"]:
    cycles = np.fft.fftfreq(side) * side
    squares = cycles[:, None] ** 2 + cycles[None] ** 2
    return np.exp(-squares / CUTOFF**2).astype(np.float32)


@functools.cache
def _filters(side: int) -> Float[np.ndarray, "f h w"]:
    """Transfer functions of the bands, real and one-sided, so that moduli are energies."""
    frequencies = np.fft.fftfreq(side)
    down, across = frequencies[:, None], frequencies[None]
    radius, angle = np.hypot(down, across), np.arctan2(down, across)
    filters = []
    for scale in range(SCALES):
        centre = 0.3 / 1.85**scale
        for orientation in range(ORIENTATIONS):
            turned = angle + np.pi * orientation / ORIENTATIONS
            turned = (turned + np.pi) % (2 * np.pi) - np.pi
            width = (ORIENTATIONS / 8) ** 2
            filters.append(
                np.exp(-3.5 * (radius / centre - 1) ** 2 - 2 * np.pi * width * turned**2)
            )
    return np.stack(filters).astype(np.float32)


def _pooling(side: int) -> Float[np.ndarray, "r h"]:
    """Rows that average over the pixels of each of the blocks."""
    if side < BLOCKS:
        raise ValueError(f"gist needs images of at least {BLOCKS} pixels a side, got {side}")
    ends = np.linspace(0, side, BLOCKS + 1).astype(int)
    pixels = np.arange(side)[None]
    inside = (pixels >= ends[:-1, None]) & (pixels < ends[1:, None])
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
