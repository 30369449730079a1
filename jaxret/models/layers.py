"""Layers that encoders, decoders and hash networks share."""

import functools
import math
from collections.abc import Collection, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Float32

from . import winograd

XAVIER = nn.initializers.glorot_uniform()
# name -> which taps of a kernel of three contribute to an output pixel: one row for pixels at even
# places, one for odd ones; in it, a triple of taps for each offset (-1, 0, and 1) in the small map.
UPS = {
    "upsampling": (((1, 0, 0), (0, 1, 1), (0, 0, 0)), ((0, 0, 0), (1, 1, 0), (0, 0, 1))),
    "transposed": (((1, 0, 0), (0, 0, 1)), ((0, 0, 0), (0, 1, 0))),
}
# [output pixel at an even or odd place, block of its window, pixel of a block, tap of a kernel of
# three]: 1 if that tap multiplies that pixel of the window
TAPS = (np.arange(4).reshape(1, 2, 2, 1) == np.arange(2).reshape(2, 1, 1, 1) + np.arange(3)) * 1.0
FEW_CHANNELS = 4  # up to here a product of matrices is faster on CPU than XLA's convolution
CELLS = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise ValueError if a value is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


@jax.custom_vjp
def noinline(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x; if it is differentiated on CPU, XLA keeps x in memory for the backward pass.

    For the gradient of a kernel, XLA on CPU needs the input of the convolution with its axes in
    another order. While it copies the input, it recomputes it number by number: normalisation,
    ReLU, sum and all. Only a branch prevents that. With it, a training step of DRHN-1 takes 0.77 of
    the time, and one copy of each map more memory.
    """
    return x


def _noinline_forward(x):
    def branched(x):
        # x + 0 is x, but the compiler must not simplify it, because -0 + 0 is +0.
        return lax.cond(x.ravel()[0] == 0, lambda x: x, lambda x: x + 0, x) if x.size else x

    return lax.platform_dependent(x, cpu=branched, default=lambda x: x), None


noinline.defvjp(_noinline_forward, lambda _, g: (g,))


@jax.custom_vjp
def window_max(windows: Float[Array, "n h 2 w 2 c"]) -> Float[Array, "n h w c"]:
    """Return the largest number of each window; equal ones share the gradient.

    The same as jnp.max, whose gradient costs more on CPU than the convolution before it, as do
    those of slices and of reduce_window.
    """
    return jnp.max(windows, axis=(2, 4))


def _window_max_forward(windows):
    largest = window_max(windows)
    return largest, (windows, largest)


def _window_max_backward(residuals, g):
    windows, largest = residuals
    count = sum((windows[:, :, i, :, j] == largest) * 1.0 for i in (0, 1) for j in (0, 1))
    is_largest = windows == largest[:, :, None, :, None]
    # XLA may compute the windows a second time here, rounded otherwise: then none is the largest.
    return (jnp.where(is_largest, (g / jnp.maximum(count, 1))[:, :, None, :, None], 0.0),)


window_max.defvjp(_window_max_forward, _window_max_backward)


def sum_of_pixels(x: Float32[Array, "n h w c"]) -> Float32[Array, " c"]:
    """Return the sum over all but the last axis.

    XLA on CPU cuts a sum over a large batch into windows, for which it writes out what is summed,
    on one thread; a product of matrices takes a third of that time.
    """
    return lax.platform_dependent(x, cpu=_by_product, default=_by_sum)


def _by_sum(x):
    return jnp.sum(x, axis=(0, 1, 2))


def _by_product(x):
    n, h, w, c = x.shape
    rows = jnp.dot(jnp.ones((1, n * h), x.dtype), x.reshape(n * h, w * c), precision="highest")
    return jnp.sum(rows.reshape(w, c), axis=0)


@jax.custom_vjp
def plus_bias(x: Float[Array, "n h w c"], bias: Float[Array, " c"]) -> Float[Array, "n h w c"]:
    """Return x with the bias of its channel added to each number."""
    return x + bias[None, None, None]


plus_bias.defvjp(lambda x, bias: (plus_bias(x, bias), None), lambda _, g: (g, sum_of_pixels(g)))


# name -> ReLU and pooling of windows; the largest number is taken first, which is less work
POOLS = {
    "max": lambda windows: nn.relu(window_max(windows)),
    "average": lambda windows: jnp.mean(nn.relu(windows), axis=(2, 4)),
}


def relu_pool(x: Float[Array, "n h w c"], pool: str = "max") -> Float[Array, "n ch cw c"]:
    """ReLU, then pooling in windows of 2 x 2; see `max_pool` for odd sides.

    Raises ValueError if `pool` is not a key of POOLS.
    """
    check_choice("pool", pool, POOLS)
    return POOLS[pool](_windows(x))


def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n ch cw c"]:
    """The largest number of each window of 2 x 2.

    If a side is odd, its last windows are cut off at the border.
    """
    return window_max(_windows(x))


def _windows(x):
    """Windows of 2 x 2; to repeat the last row or column of an odd side changes neither the
    largest number nor the mean of its last windows.
    """
    if any(side % 2 for side in x.shape[1:3]):  # the gradient of no padding adds up maps of zeros
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), mode="edge")
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c)


def overlapping_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n ch cw c"]:
    """ReLU, then the largest of 3 x 3 numbers at every second place, with zeros around the map.

    The same as nn.max_pool of windows (3, 3), strides (2, 2) and padding SAME, which is what maps
    of odd sides get: on CPU its gradient takes five times as long as that of maxima of slices.
    Equal numbers share the gradient, which Flax gives to the first.
    """
    n, h, w, c = x.shape
    if h % 2 or w % 2:
        return nn.max_pool(nn.relu(x), (3, 3), (2, 2), "SAME")

    def largest(even, odd, axis):
        first = [(0, int(i == axis)) for i in range(4)]
        following = jnp.pad(lax.slice_in_dim(even, 1, None, axis=axis), first)
        return jnp.maximum(jnp.maximum(even, odd), following)

    x = nn.relu(x).reshape(n, h, w // 2, 2 * c)
    x = largest(x[:, :, :, :c], x[:, :, :, c:], axis=2).reshape(n, h // 2, 2, w // 2, c)
    return largest(x[:, :, 0], x[:, :, 1], axis=1)


class Conv(nn.Module):
    """A convolution of 3 x 3 with zeros around the map, equal to nn.Conv.

    If the channels are few, windows of 4 x 4 give four pixels at once by one product of matrices.
    On CPU that takes a quarter of the time of XLA's convolution, for 16 / 9 of the operations. If
    they are many, a CPU trains with a third of the multiplications (see `winograd`).
    """

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n h w f"]:
        kernel = self.param("kernel", XAVIER, (3, 3, x.shape[3], self.features))
        if x.shape[3] <= FEW_CHANNELS:
            y = _convolve_by_windows(x, kernel)
        elif train and winograd.pays(x.shape, kernel.shape):
            y = winograd.convolve(x, kernel)
        else:
            y = winograd.by_xla(x, kernel)
        if self.use_bias:
            y = plus_bias(y, self.param("bias", nn.initializers.zeros, (self.features,)))
        return y


def _convolve_by_taps(x, kernel, padding):
    """XLA's for few output channels: the product with each tap, shifted, and then the sum."""
    (n, h, w, c), taps, f = x.shape, kernel.shape[0], kernel.shape[3]
    products = x.reshape(-1, c) @ kernel.transpose(2, 0, 1, 3).reshape(c, -1)
    products = products.reshape(n, h, w, taps, taps * f)
    sides = ((0, 0), padding, padding, (0, 0))
    rows = [jnp.pad(products[:, :, :, i], sides)[:, i : i + h] for i in range(taps)]
    shifted = [row[:, :, j : j + w, j * f : (j + 1) * f] for row in rows for j in range(taps)]
    return functools.reduce(jnp.add, shifted)


def _convolve_by_windows(x, kernel):
    """The same, for few input channels: four output pixels from each window of 4 x 4."""
    n, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1 + h % 2), (1, 1 + w % 2), (0, 0)))
    high, wide = x.shape[1] // 2, x.shape[2] // 2
    x = x.reshape(n, high, 2, wide, 2, c).swapaxes(2, 3).reshape(n, high, wide, 4 * c)
    windows = [x[:, :-1, :-1], x[:, :-1, 1:], x[:, 1:, :-1], x[:, 1:, 1:]]
    # A matrix: XLA transposes a product of arrays with more axes.
    windows = jnp.concatenate(windows, axis=3).reshape(-1, 16 * c)
    kernel = jnp.einsum("aipt,bjqu,tucf->ijpqcabf", TAPS, TAPS, kernel).reshape(16 * c, -1)
    y = (windows @ kernel).reshape(n, high - 1, wide - 1, 2, 2, -1)
    return y.swapaxes(2, 3).reshape(n, 2 * high - 2, 2 * wide - 2, -1)[:, :h, :w]


class DoublingConv(nn.Module):
    """A map of twice the size by a 3 x 3 kernel; `up` is "upsampling" or "transposed".

    "upsampling" doubles the map by the nearest neighbor and convolves it; "transposed" is a
    transposed convolution of stride 2. Both equal an ordinary convolution of the small map to four
    times the channels, those of the pixels at even and odd places (Shi 2016, sub-pixel
    convolution). Computed that way, no large map is convolved, and a training step takes half the
    time on CPU.
    """

    features: int
    up: str = "upsampling"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n th tw f"]:
        check_choice("up", self.up, UPS)
        n, h, w, c = x.shape
        kernel = self.param("kernel", XAVIER, (3, 3, c, self.features))
        taps = jnp.asarray(UPS[self.up], kernel.dtype)
        window = taps.shape[1]
        kernel = jnp.einsum("atd,bue,decf->tucabf", taps, taps, kernel)
        few = 4 * self.features <= FEW_CHANNELS
        convolve = _convolve_by_taps if few else winograd.by_xla
        y = convolve(x, kernel.reshape(window, window, c, -1), (1, window - 2))
        y = y.reshape(n, h, w, 2, 2, self.features).swapaxes(2, 3)
        y = y.reshape(n, 2 * h, 2 * w, self.features)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (1, 1, 1, self.features))
            y = plus_bias(y, bias.reshape(-1))
        return y


def levels(size: tuple[int, int], halvings: int) -> list[tuple[int, int]]:
    """Return height and width of an image and of its map after each pooling: 28, 14, 7, 4, ..."""
    h, w = size
    return [(math.ceil(h / 2**level), math.ceil(w / 2**level)) for level in range(halvings + 1)]


def recurrent(
    x: Float[Array, "n rows d"], widths: Sequence[int], cell: str
) -> Float[Array, "n rows f"]:
    """Return the outputs of recurrent layers, one after the other, for each row.

    It is called in a module, which owns the layers. Raises ValueError if `cell` is not a key of
    CELLS.
    """
    check_choice("cell", cell, CELLS)
    for width in widths:
        x = cast(Array, nn.RNN(CELLS[cell](width))(x))
    return x


class TransformerBlock(nn.Module):
    """Self-attention, then two dense layers; the output of each is added to its input.

    Vaswani 2017, with the normalisation first (Xiong 2020, figure 1b) and GELU between the dense
    layers.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        width = x.shape[-1]
        x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x))
        between = nn.gelu(nn.Dense(2 * width, kernel_init=XAVIER)(nn.LayerNorm()(x)))
        return x + nn.Dense(width, kernel_init=XAVIER)(between)


def patch_grid(image_shape: tuple[int, ...], patch: tuple[int, int]) -> tuple[int, int]:
    """Return the number of rows and columns of patches.

    Raises ValueError if the patches do not fill the image.
    """
    if any(part < 1 or side % part for side, part in zip(image_shape[:2], patch, strict=True)):
        raise ValueError(
            f"patches of {patch[0]} x {patch[1]} pixels do not fill an image of "
            f"{image_shape[0]} x {image_shape[1]}"
        )
    return image_shape[0] // patch[0], image_shape[1] // patch[1]
