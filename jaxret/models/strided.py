"""The autoencoders of the landmarks report: strided convolutions, of any geometry.

M1, M2   96 pixels -> 32 -> 16 -> 8 -> 7, and back 7 -> 15 -> 45 -> 92
M3       96 pixels -> 48 -> 24 -> 12 -> 11, and back 11 -> 23 -> 47 -> 96
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from .autoencoder import Autoencoder
from .layers import XAVIER, relu_pool
from .norm import BatchNorm

KERNEL, PADDING, WINDOW = 3, 1, 2  # of the encoder's convolutions, and of its pooling


class Down(NamedTuple):
    """A convolution of 3 x 3 with padding 1, ReLU, and pooling in windows of 2 x 2."""

    features: int
    stride: int
    pool_stride: int

    def side(self, side: int) -> int:
        """Return the side of the map that it makes."""
        side = (side + 2 * PADDING - KERNEL) // self.stride + 1
        return (side - WINDOW) // self.pool_stride + 1


class Up(NamedTuple):
    """A transposed convolution, as PyTorch counts its padding."""

    features: int
    kernel: int
    stride: int
    padding: int = 0
    norm: str = ""  # batch normalisation "before" or "after" ReLU, or none

    def side(self, side: int) -> int:
        """Return the side of the map that it makes."""
        return (side - 1) * self.stride + self.kernel - 2 * self.padding


def _pooled(x, stride):
    """ReLU and the largest number of windows of 2 x 2, a last odd row and column left out."""
    if stride == WINDOW:
        return relu_pool(x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2])
    x = jnp.maximum(x[:, :-1], x[:, 1:])
    return nn.relu(jnp.maximum(x[:, :, :-1], x[:, :, 1:]))


class StridedEncoder(nn.Module):
    """Blocks of `Down`; the features are the last map, flattened. Pixels are shown as -1 to 1."""

    blocks: Sequence[Down]
    batch_norm: bool

    @nn.compact
    def __call__(self, images: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n d"]:
        x = 2 * images - 1
        for block in self.blocks:
            strides = (block.stride,) * 2
            x = nn.Conv(block.features, (KERNEL,) * 2, strides, PADDING, kernel_init=XAVIER)(x)
            x = BatchNorm(not train, momentum=0.9)(x) if self.batch_norm else x
            x = _pooled(x, block.pool_stride)
        return x.reshape(len(x), -1)


class StridedDecoder(nn.Module):
    """Transposed convolutions from a square map to the pixels.

    The report ends in tanh, for pixels from -1 to 1. For pixels from 0 to 1 that is the sigmoid of
    twice the last layer, (tanh(y) + 1) / 2 = sigmoid(2 y), and these logits are returned.
    """

    blocks: Sequence[Up]  # between the code and the last layer
    last: Up  # whose features are the image's channels
    first_side: int

    @nn.compact
    def __call__(self, z: Float[Array, "n d"], train: bool = False) -> Float[Array, "n h w c"]:
        x = z.reshape(len(z), self.first_side, self.first_side, -1)
        for block in self.blocks:
            x = transposed(block)(x)
            x = BatchNorm(not train, momentum=0.9)(x) if block.norm == "before" else x
            x = nn.relu(x)
            x = BatchNorm(not train, momentum=0.9)(x) if block.norm == "after" else x
        return 2 * transposed(self.last)(x)


def transposed(layer: Up) -> nn.ConvTranspose:
    """Return the module of a layer of the decoder."""
    around = layer.kernel - 1 - layer.padding  # zeros around the map once it is spread out
    return nn.ConvTranspose(
        layer.features,
        (layer.kernel,) * 2,
        (layer.stride,) * 2,
        ((around, around),) * 2,
        kernel_init=XAVIER,
    )


def strided_autoencoder(
    image_shape: tuple[int, int, int],
    head_size: int | None,
    down: Sequence[Down],
    up: Sequence[Up],
    *,
    batch_norm: bool = True,
) -> Autoencoder:
    """An encoder of strided convolutions and a decoder of transposed ones.

    Args:
        image_shape: height, width and channels.
        head_size: numbers that the head gives, as many as the encoder's last map has; None: no
            head.
        down: blocks of the encoder.
        up: layers of the decoder; the last one makes the pixels.
        batch_norm: whether batch normalisation follows each convolution of the encoder.

    Returns:
        The network.

    Raises:
        ValueError: if the decoder makes another size than the images have.
    """
    height, width, channels = image_shape
    side = height
    for block in down:
        side = block.side(side)
    made = first = side  # the encoder's last map
    for layer in up:
        made = layer.side(made)
    if not height == width == made:
        raise ValueError(
            f"the decoder makes {made} x {made} pixels of images of {height} x {width}; M1 and M2 "
            "rebuild 92 x 92, M3 96 x 96"
        )
    *between, last = up
    last = last._replace(features=channels)
    return Autoencoder(
        StridedEncoder(tuple(down), batch_norm), StridedDecoder(tuple(between), last, first),
        head_size,
    )  # fmt: skip


# The report prints M1 and M2 layer by layer. Of M3 it says that the convolutions were "slightly"
# adjusted so that 7 x 7 became 11 x 11: strides of 2 in place of 3 do that, and make 96 pixels.
LANDMARK_MODELS = {
    "m1": {
        "down": (Down(16, 3, 2), Down(8, 2, 1)),
        "up": (Up(16, 3, 2), Up(8, 5, 3, 1), Up(3, 6, 2, 1)),
        "batch_norm": False,
    },
    "m2": {
        "down": (Down(64, 3, 2), Down(32, 2, 1)),
        "up": (Up(16, 3, 2, norm="before"), Up(8, 5, 3, 1, norm="after"), Up(3, 6, 2, 1)),
    },
    "m3": {
        "down": (Down(64, 2, 2), Down(32, 2, 1)),
        "up": (Up(16, 3, 2, norm="before"), Up(8, 5, 2, 1, norm="after"), Up(3, 6, 2, 1)),
    },
}
