"""Views of images: random changes that leave what is to be seen as it is. Jitted on the device."""

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
    """Each image moved, turned and scaled by amounts of its own, about its centre.

    Uniform in +-shift pixels along each axis, +-degrees, and factors from 1 / (1 + zoom) to
    1 + zoom. Between pixels by bilinear interpolation; what comes in from outside is 0.
    """
    n, h, w, _ = x.shape
    move_key, turn_key, zoom_key = jax.random.split(key, 3)
    down, right = jax.random.uniform(move_key, (2, n, 1), minval=-shift, maxval=shift)
    angle = jnp.deg2rad(jax.random.uniform(turn_key, (n, 1), minval=-degrees, maxval=degrees))
    most = jnp.log1p(zoom)
    factor = jnp.exp(jax.random.uniform(zoom_key, (n, 1), minval=-most, maxval=most))
    row, column = (axis.reshape(1, -1) for axis in jnp.mgrid[:h, :w])
    row, column = row - (h - 1) / 2, column - (w - 1) / 2
    cos, sin = jnp.cos(angle) / factor, jnp.sin(angle) / factor
    return _between_pixels(
        x,
        cos * row - sin * column - down + (h - 1) / 2,
        sin * row + cos * column - right + (w - 1) / 2,
    )


def _between_pixels(
    x: Float[Array, "n h w c"], row: Float[Array, "n p"], column: Float[Array, "n p"]
) -> Float[Array, "n h w c"]:
    """The images at places of their own, one for each pixel."""
    n, h, w, c = x.shape
    framed = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(n, -1, c)
    # Past the frame of zeros everything is 0, too.
    row, column = jnp.clip(row + 1, 0, h + 1), jnp.clip(column + 1, 0, w + 1)
    top, left = (jnp.clip(jnp.floor(at), 0, size) for at, size in ((row, h), (column, w)))
    below, beside = (row - top)[:, :, None], (column - left)[:, :, None]
    place = (top * (w + 2) + left).astype(jnp.int32)

    def pixels(offset):
        return jnp.take_along_axis(framed, (place + offset)[:, :, None], axis=1)

    upper = pixels(0) * (1 - beside) + pixels(1) * beside
    lower = pixels(w + 2) * (1 - beside) + pixels(w + 3) * beside
    return (upper * (1 - below) + lower * below).reshape(n, h, w, c)


def mirror_and_crop(
    key: PRNGKeyArray, x: Float[Array, "n h w c"], *, pad: int = 4, mirror: bool = True
) -> Float[Array, "n h w c"]:
    """Each image mirrored or not, then cut out of a frame of zeros of its own place (He 2016).

    The frame is pad pixels wide on every side, so an image moves by whole pixels, -pad to pad.
    """
    n, h, w, _ = x.shape
    mirror_key, place_key = jax.random.split(key)
    down, right = jax.random.randint(place_key, (2, n, 1), -pad, pad + 1)
    row, column = (jnp.arange(size).reshape(1, -1) for size in (h, w))
    if mirror:
        turned = jax.random.bernoulli(mirror_key, shape=(n, 1))
        column = jnp.where(turned, w - 1 - column, column)
    return _rows_and_columns(x, row + down, column + right)


def _rows_and_columns(
    x: Float[Array, "n h w c"], row: Int[Array, "n h"], column: Int[Array, "n w"]
) -> Float[Array, "n h w c"]:
    """Rows and then columns of each image, 0 where it has none: two gathers of whole lines."""
    h, w = x.shape[1:3]
    inside = ((row >= 0) & (row < h))[:, :, None] & ((column >= 0) & (column < w))[:, None]
    x = jnp.take_along_axis(x, jnp.clip(row, 0, h - 1)[:, :, None, None], axis=1)
    x = jnp.take_along_axis(x, jnp.clip(column, 0, w - 1)[:, None, :, None], axis=2)
    return jnp.where(inside[..., None], x, 0.0)


def cutout(key: PRNGKeyArray, x: Float[Array, "n h w c"], *, size: int) -> Float[Array, "n h w c"]:
    """A square of each image becomes 0, its centre anywhere in the image (DeVries 2017)."""
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
