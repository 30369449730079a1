"""Layers that several encoders and decoders are made of."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

XAVIER = nn.initializers.glorot_uniform()
# name -> what a window of four becomes
POOLS = {
    "max": lambda a, b, c, d: jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d)),
    "average": lambda a, b, c, d: (a + b + c + d) / 4,
}
# name -> for the pixels at even and at odd places (rows of the outer tuple), by the offsets -1, 0,
# (1) in the small map, which of the three taps of a kernel meet there
UPS = {
    "upsampling": (((1, 0, 0), (0, 1, 1), (0, 0, 0)), ((0, 0, 0), (1, 1, 0), (0, 0, 1))),
    "transposed": (((1, 0, 0), (0, 0, 1)), ((0, 0, 0), (0, 1, 0))),
}
CELLS = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


def check_choice(name: str, value: str, choices: dict) -> None:
    """Refuse a name that a dictionary does not hold."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def halved(x: Float[Array, "n h w c"], how: str = "max") -> Float[Array, "n ch cw c"]:
    """Pooled in windows of 2 x 2; where a side is odd, its last windows hold what is there.

    By slices, whose gradient is a third faster on CPU than that of XLA's reduce_window. The last
    row or column repeated changes neither the largest nor the mean of a window.
    """
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), mode="edge")
    return POOLS[how](*(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)))


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
        y = lax.conv_general_dilated(
            x,
            kernel.reshape(window, window, c, -1),
            window_strides=(1, 1),
            padding=((1, window - 2), (1, window - 2)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
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
