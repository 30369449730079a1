"""Extractors without weights: pixels, histograms of colour, layout of brightness and colour."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .base import Extractor, rgb

SIDE = 32  # pixels a side of small images, which are compared as they are
LAYOUT_SIDE = 64
BINS = (8, 8, 8)  # of hue, saturation and value
MOST = 256  # coefficients of a layout
# Rows of luma and of the two colour differences (ITU-R 601), for RGB in 0..1.
YCBCR = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)


def pixels() -> Extractor:
    """Return the pixels of 32 x 32 images, RGB in [0, 1]: what needs no features at all."""

    def apply(params, images):
        del params
        return (rgb(images) / 255).reshape(len(images), -1)

    return Extractor("pixels", apply, SIDE, {"resize": "square, bicubic, centre"})


def colour_histogram() -> Extractor:
    """Return the root of the share of pixels in each of 8 x 8 x 8 bins of hue, saturation, value.

    Euclidean distances of such roots are Hellinger distances of the histograms, but for a factor.
    The histogram (Swain 1991) does not change as an image is turned or mirrored.
    """
    return Extractor(
        "colour-histogram",
        _histogram,
        96,
        {"resize": "square, bicubic, centre", "bins": list(BINS), "values": "roots of shares"},
    )


def _histogram(params, images):
    del params
    n = len(images)
    hsv = _hsv(rgb(images) / 255).reshape(n, -1, 3)
    bins = jnp.array(BINS)[None, None]
    places = jnp.minimum((hsv * bins).astype(jnp.int32), bins - 1)
    cells = (places[..., 0] * BINS[1] + places[..., 1]) * BINS[2] + places[..., 2]
    total = int(np.prod(BINS))
    cells = cells + total * jnp.arange(n)[:, None]
    counts = jnp.bincount(cells.reshape(-1), length=n * total).reshape(n, total)
    return jnp.sqrt(counts.astype(jnp.float32) / hsv.shape[1])


def _hsv(x: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    """Hue in turns, saturation and value, all in [0, 1]."""
    value, low = jnp.max(x, axis=3), jnp.min(x, axis=3)
    spread = value - low
    safe = jnp.where(spread > 0, spread, 1.0)
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    hue = jnp.where(
        value == red,
        ((green - blue) / safe) % 6,
        jnp.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = jnp.where(spread > 0, hue / 6, 0.0)
    return jnp.stack([hue, spread / jnp.where(value > 0, value, 1.0), value], axis=3)


def layout() -> Extractor:
    """Return the lowest frequencies of brightness and of colour over the image, most telling first.

    They are coefficients of the two-dimensional cosine transform of luma and of the two colour
    differences, without the mean of luma. Their order is by frequency, that of colour counted
    double. Mean luma left out, each is about as often positive as negative, so that signs are bits.
    """
    return Extractor("layout", _layout, LAYOUT_SIDE, {"resize": "square, bicubic, centre"})


def _layout(params, images):
    del params
    x = rgb(images) / 255
    channels, rows, columns = np.array(_places(MOST)).T
    maps = jnp.einsum("nhwc,dc->ndhw", x, YCBCR)
    down = _cosines(x.shape[1], int(rows.max()) + 1)
    across = _cosines(x.shape[2], int(columns.max()) + 1)
    frequencies = jnp.einsum("ndhw,kh,lw->ndkl", maps, down, across)
    return frequencies[:, channels, rows, columns]


def _cosines(length: int, count: int) -> Float[np.ndarray, "k h"]:
    """Rows of the cosine transform, each divided by the number of pixels."""
    angles = np.pi * np.arange(count)[:, None] * (np.arange(length)[None] + 0.5) / length
    return (np.cos(angles) / length).astype(np.float32)


@functools.cache
def _places(count: int) -> list[tuple[int, int, int]]:
    """The first (channel, row, column) of the transform, in their order."""
    places = [(d, k, m) for d in range(3) for k in range(32) for m in range(32) if d + k + m]
    places.sort(
        key=lambda place: ((place[1] + place[2]) * (2 if place[0] else 1) + (place[0] > 0), *place)
    )
    return places[:count]
