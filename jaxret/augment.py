"""Augmentation: random changes of an image that leave its content as it is.

Each function takes a key and a batch and draws for each image on its own. All run on the device,
inside a jitted step.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


def affine(
    key: PRNGKeyArray,
    x: Float[Array, "n h w c"],
    *,
    shift: float | int = 0.0,
    degrees: float | int = 0.0,
    zoom: float | int = 0.0,
) -> Float[Array, "n h w c"]:
    """Images that are shifted, rotated and zoomed about their centre.

    Pixels are interpolated bilinearly; those from outside of the image are 0.

    Args:
        key: the random key.
        x: images.
        shift: the largest shift along each axis in pixels; uniform in -shift to shift.
        degrees: the largest rotation; uniform in -degrees to degrees.
        zoom: the factor lies between 1 / (1 + zoom) and 1 + zoom; its logarithm is uniform.

    Returns:
        Images of the same shape.
    """
    n, h, w, _ = x.shape
    move_key, turn_key, zoom_key = jax.random.split(key, 3)
    down, right = jax.random.uniform(move_key, (2, n, 1), minval=-shift, maxval=shift)
    angle = jnp.deg2rad(jax.random.uniform(turn_key, (n, 1), minval=-degrees, maxval=degrees))
    limit = jnp.log1p(zoom)
    factor = jnp.exp(jax.random.uniform(zoom_key, (n, 1), minval=-limit, maxval=limit))
    row, column = (axis.reshape(1, -1) for axis in jnp.mgrid[:h, :w])
    row, column = row - (h - 1) / 2, column - (w - 1) / 2
    cos, sin = jnp.cos(angle) / factor, jnp.sin(angle) / factor
    return _bilinear(
        x,
        cos * row - sin * column - down + (h - 1) / 2,
        sin * row + cos * column - right + (w - 1) / 2,
    )


def _bilinear(
    x: Float[Array, "n h w c"], row: Float[Array, "n p"], column: Float[Array, "n p"]
) -> Float[Array, "n h w c"]:
    """Each image's values at its own p places, given as rows and columns between the pixels."""
    n, h, w, c = x.shape
    framed = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(n, -1, c)
    # Beyond the frame of zeros everything is 0, too.
    row, column = jnp.clip(row + 1, 0, h + 1), jnp.clip(column + 1, 0, w + 1)
    top, left = jnp.clip(jnp.floor(row), 0, h), jnp.clip(jnp.floor(column), 0, w)
    below, right = (row - top)[:, :, None], (column - left)[:, :, None]
    place = (top * (w + 2) + left).astype(jnp.int32)

    def pixels(offset):
        return jnp.take_along_axis(framed, (place + offset)[:, :, None], axis=1)

    upper = pixels(0) * (1 - right) + pixels(1) * right
    lower = pixels(w + 2) * (1 - right) + pixels(w + 3) * right
    return (upper * (1 - below) + lower * below).reshape(n, h, w, c)


def mirror_and_crop(
    key: PRNGKeyArray, x: Float[Array, "n h w c"], *, pad: int = 4, mirror: bool = True
) -> Float[Array, "n h w c"]:
    """Images that are mirrored at random, padded with zeros and cropped at random (He 2016).

    Args:
        key: the random key.
        x: images.
        pad: width of the padding on every side in pixels, so an image shifts by -pad to pad.
        mirror: whether half of the images are mirrored, left to right.

    Returns:
        Images of the same shape.
    """
    n, h, w, _ = x.shape
    mirror_key, place_key = jax.random.split(key)
    down, right = jax.random.randint(place_key, (2, n, 1), -pad, pad + 1)
    row, column = (jnp.arange(size).reshape(1, -1) for size in (h, w))
    if mirror:
        mirrored = jax.random.bernoulli(mirror_key, shape=(n, 1))
        column = jnp.where(mirrored, w - 1 - column, column)
    return _rows_and_columns(x, row + down, column + right)


def _rows_and_columns(
    x: Float[Array, "n h w c"], row: Int[Array, "n h"], column: Int[Array, "n w"]
) -> Float[Array, "n h w c"]:
    """Each image's given rows and columns, 0 outside of the image, by two gathers of lines."""
    h, w = x.shape[1:3]
    inside = ((row >= 0) & (row < h))[:, :, None] & ((column >= 0) & (column < w))[:, None]
    x = jnp.take_along_axis(x, jnp.clip(row, 0, h - 1)[:, :, None, None], axis=1)
    x = jnp.take_along_axis(x, jnp.clip(column, 0, w - 1)[:, None, :, None], axis=2)
    return jnp.where(inside[..., None], x, 0.0)


def cutout(key: PRNGKeyArray, x: Float[Array, "n h w c"], *, size: int) -> Float[Array, "n h w c"]:
    """Images with a random square of zeros; its centre is uniform in the image (DeVries 2017).

    `size` is the square's side in pixels. The part of a square beyond the border is cut off.
    """
    n, h, w, _ = x.shape
    down, right = (
        jax.random.randint(one, (n, 1), 0, side)
        for one, side in zip(jax.random.split(key), (h, w), strict=True)
    )

    def within(side, centre):
        first = centre - size // 2
        place = jnp.arange(side).reshape(1, -1)
        return (place >= first) & (place < first + size)

    hole = within(h, down)[:, :, None] & within(w, right)[:, None]
    return jnp.where(hole[..., None], 0.0, x)
