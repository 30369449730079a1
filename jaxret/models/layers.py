"""Layers that several encoders and decoders are made of."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

XAVIER = nn.initializers.glorot_uniform()
# name -> for the pixels at even and at odd places (rows of the outer tuple), by the offsets -1, 0,
# (1) in the small map, which of the three taps of a kernel meet there
UPS = {
    "upsampling": (((1, 0, 0), (0, 1, 1), (0, 0, 0)), ((0, 0, 0), (1, 1, 0), (0, 0, 1))),
    "transposed": (((1, 0, 0), (0, 0, 1)), ((0, 0, 0), (0, 1, 0))),
}
# [pixel at an even, odd place; its window's two blocks; two pixels of a block; tap of a kernel of
# three]: whether that tap meets that pixel of the window
MEETS = (np.arange(4).reshape(1, 2, 2, 1) == np.arange(2).reshape(2, 1, 1, 1) + np.arange(3)) * 1.0
FEW = 4  # channels
CELLS = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


def check_choice(name: str, value: str, choices: dict) -> None:
    """Refuse a name that a dictionary does not hold."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


@jax.custom_vjp
def noinline(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x; where it is differentiated on CPU, it stays in memory for the backward pass.

    For a kernel's gradient XLA there needs the convolution's input in another order of axes, and
    while it copies, computes it anew: normalisation, ReLU, sum and all, number by number. Only a
    branch stops it. A training step of DRHN-1 takes 0.77 of the time, for one copy of each map.
    """
    return x


def _noinline_forward(x):
    def branched(x):
        # The sum with 0 is x, but not to a compiler that minds the sign of 0.
        return lax.cond(x.ravel()[0] == 0, lambda x: x, lambda x: x + 0, x) if x.size else x

    return lax.platform_dependent(x, cpu=branched, default=lambda x: x), None


noinline.defvjp(_noinline_forward, lambda _, g: (g,))


@jax.custom_vjp
def largest(windows: Float[Array, "n h 2 w 2 c"]) -> Float[Array, "n h w c"]:
    """The largest of each window; equal ones share the gradient.

    As jnp.max, whose gradient, like that of slices or of reduce_window, is slower on CPU: it costs
    more than the convolution before it.
    """
    return jnp.max(windows, axis=(2, 4))


def _largest_forward(windows):
    chosen = largest(windows)
    return chosen, (windows, chosen)


def _largest_backward(kept, g):
    windows, chosen = kept
    share = g / sum((windows[:, :, i, :, j] == chosen) * 1.0 for i in (0, 1) for j in (0, 1))
    is_chosen = windows == chosen[:, :, None, :, None]
    return (jnp.where(is_chosen, share[:, :, None, :, None], 0.0),)


largest.defvjp(_largest_forward, _largest_backward)

# name -> what windows become, after ReLU; the largest is the same before it, and is less work
POOLS = {
    "max": lambda windows: nn.relu(largest(windows)),
    "average": lambda windows: jnp.mean(nn.relu(windows), axis=(2, 4)),
}


def relu_halved(x: Float[Array, "n h w c"], how: str = "max") -> Float[Array, "n ch cw c"]:
    """ReLU, and pooled in windows of 2 x 2.

    Where a side is odd, its last windows hold what is there: the last row or column
    repeated changes neither the largest nor the mean of a window.
    """
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), mode="edge")
    n, h, w, c = x.shape
    return POOLS[how](x.reshape(n, h // 2, 2, w // 2, 2, c))


class Conv(nn.Module):
    """A convolution of 3 x 3 with zeros around the map, as nn.Conv's.

    Where channels are few, windows of 4 x 4 give four pixels at once, by one product of matrices:
    on CPU a quarter of the time that XLA's convolution takes, for 16 / 9 of the work.
    """

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w f"]:
        kernel = self.param("kernel", XAVIER, (3, 3, x.shape[3], self.features))
        y = _four_at_once(x, kernel) if x.shape[3] <= FEW else _convolved(x, kernel, (1, 1))
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None]
        return y


def _convolved(x, kernel, around):
    """Convolution of a map with so many zeros before and after each of its sides."""
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), (around, around), dimension_numbers=axes)


def _multiplied_then_moved(x, kernel, around):
    """The same where channels come out few: what each tap gives everywhere, moved and added."""
    (n, h, w, c), taps, f = x.shape, kernel.shape[0], kernel.shape[3]
    given = x.reshape(-1, c) @ kernel.transpose(2, 0, 1, 3).reshape(c, -1)
    given = given.reshape(n, h, w, taps, taps * f)
    sides = ((0, 0), around, around, (0, 0))
    rows = [jnp.pad(given[:, :, :, i], sides)[:, i : i + h] for i in range(taps)]
    return sum(row[:, :, j : j + w, j * f : (j + 1) * f] for row in rows for j in range(taps))


def _four_at_once(x, kernel):
    n, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1 + h % 2), (1, 1 + w % 2), (0, 0)))
    high, wide = x.shape[1] // 2, x.shape[2] // 2
    x = x.reshape(n, high, 2, wide, 2, c).swapaxes(2, 3).reshape(n, high, wide, 4 * c)
    windows = [x[:, :-1, :-1], x[:, :-1, 1:], x[:, 1:, :-1], x[:, 1:, 1:]]
    windows = jnp.concatenate(windows, axis=3).reshape(-1, 16 * c)  # two axes: three would be moved
    kernel = jnp.einsum("aipt,bjqu,tucf->ijpqcabf", MEETS, MEETS, kernel).reshape(16 * c, -1)
    y = (windows @ kernel).reshape(n, high - 1, wide - 1, 2, 2, -1)
    return y.swapaxes(2, 3).reshape(n, 2 * high - 2, 2 * wide - 2, -1)[:, :h, :w]


class DoublingConv(nn.Module):
    """Twice the size through a 3 x 3 kernel: how is "upsampling" or "transposed".

    Upsampling by the nearest neighbour and then a convolution, or a convolution transposed with
    stride 2: both are an ordinary convolution of the small map to four times the channels, those
    of the pixels at even and odd places (Shi 2016, sub-pixel convolution). Said so, no large map
    is made to be convolved, and a step of training takes half the time on CPU.
    """

    features: int
    how: str = "upsampling"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n th tw f"]:
        n, h, w, c = x.shape
        kernel = self.param("kernel", XAVIER, (3, 3, c, self.features))
        taps = jnp.asarray(UPS[self.how], kernel.dtype)
        window = taps.shape[1]
        kernel = jnp.einsum("atd,bue,decf->tucabf", taps, taps, kernel)
        convolve = _multiplied_then_moved if 4 * self.features <= FEW else _convolved
        y = convolve(x, kernel.reshape(window, window, c, -1), (1, window - 2))
        y = y.reshape(n, h, w, 2, 2, self.features).swapaxes(2, 3)
        y = y.reshape(n, 2 * h, 2 * w, self.features)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (1, 1, 1, self.features))
        return y


def levels(size: tuple[int, int], halvings: int) -> list[tuple[int, int]]:
    """Sides of an image and of what is left after each pooling: 28, 14, 7, 4, ..."""
    return [tuple(math.ceil(side / 2**level) for side in size) for level in range(halvings + 1)]


class TransformerBlock(nn.Module):
    """Self-attention, then two dense layers, each added to what came in.

    Vaswani 2017 with the normalisation first (Xiong 2020, figure 1b) and GELU between the layers.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        width = x.shape[-1]
        x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x))
        between = nn.gelu(nn.Dense(2 * width, kernel_init=XAVIER)(nn.LayerNorm()(x)))
        return x + nn.Dense(width, kernel_init=XAVIER)(between)


def patch_grid(image_shape: tuple[int, int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """How many patches stand below and beside each other."""
    if any(side % part for side, part in zip(image_shape, patch, strict=False)):
        raise ValueError(
            f"patches of {patch[0]} x {patch[1]} pixels do not fill an image of "
            f"{image_shape[0]} x {image_shape[1]}"
        )
    return image_shape[0] // patch[0], image_shape[1] // patch[1]
