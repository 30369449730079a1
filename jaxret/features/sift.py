"""Dense SIFT (Lowe 2004): histograms of gradients on a regular grid, without keypoints.

The image is divided into cells of 4 x 4 pixels. A cell has the length of its gradients by their
direction, 8 directions around, each gradient shared between the two nearest. A descriptor is the
128 numbers of 4 x 4 cells, and there is one at every cell where 4 x 4 fit: 25 in an image of 32
pixels, 441 in one of 96. What Lowe does about keypoints' scale and turn has no place here.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import Extractor, Images, rgb

SIDE = 32
CELL, CELLS, DIRECTIONS = 4, 4, 8  # pixels of a cell, cells of a descriptor along a side
LENGTH = CELLS**2 * DIRECTIONS  # of a descriptor
MOST = 0.2  # of a descriptor's number before it is scaled again, against one strong edge
LEAST = 1e-3  # length that a descriptor is divided by at least: in flat places there is only noise


def sift() -> Extractor:
    """Return dense SIFT, f32[n m * 128]: one descriptor after another, row by row of the grid.

    Images of fewer than 16 pixels a side are repeated pixel by pixel until they have 16; pixels
    that do not fill a cell are left out.
    """
    return Extractor("sift", _sift, SIDE, {"resize": "square, bicubic, centre"})


def _sift(params, images):
    del params
    found = descriptors(images)
    return found.reshape(len(found), -1)


def descriptors(images: Images) -> Float[Array, "n m 128"]:
    """Return the descriptors of images, u8[n h w c], of length 1, or shorter in flat places."""
    grey = jnp.mean(rgb(images), axis=3) / 255
    times = -(-CELL * CELLS // grey.shape[1])
    grey = jnp.repeat(jnp.repeat(grey, times, axis=1), times, axis=2)
    n, side = grey.shape[:2]
    down, across = jnp.gradient(grey, axis=(1, 2))
    length = jnp.sqrt(down**2 + across**2)
    turns = jnp.arctan2(down, across) * (DIRECTIONS / (2 * math.pi))  # in steps of a direction
    away = jnp.abs(turns[..., None] - jnp.arange(DIRECTIONS)[None, None, None])
    away = jnp.minimum(away % DIRECTIONS, DIRECTIONS - away % DIRECTIONS)
    shares = length[..., None] * jnp.maximum(1 - away, 0)
    cells = side // CELL
    whole = shares[:, : cells * CELL, : cells * CELL]
    whole = whole.reshape(n, cells, CELL, cells, CELL, DIRECTIONS).sum(axis=(2, 4))
    places = cells - CELLS + 1
    parts = [whole[:, i : i + places, j : j + places] for i in range(CELLS) for j in range(CELLS)]
    x = jnp.stack(parts, axis=3).reshape(n, places**2, LENGTH)
    x = jnp.minimum(_unit(x), MOST)
    return _unit(x)


def _unit(x):
    return x / jnp.maximum(jnp.linalg.norm(x, axis=2, keepdims=True), LEAST)
