"""Decoders: latents in, pixels out, which are logits or means according to the likelihood."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from .layers import (
    XAVIER,
    DoublingConv,
    TransformerBlock,
    levels,
    patch_grid,
    recurrent,
)
from .norm import BatchNorm


class DenseDecoder(nn.Module):
    """Fully connected layers with ReLU after each, then one linear layer to the pixels.

    It mirrors DenseEncoder: Torres 2018, section 3.1, has hidden=(100, 500).
    """

    hidden: Sequence[int]
    image_shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, z: Float[Array, "n d"], train: bool = False) -> Float[Array, "n h w c"]:
        del train  # no dropout, no batch statistics
        for width in self.hidden:
            z = nn.relu(nn.Dense(width, kernel_init=XAVIER)(z))
        z = nn.Dense(math.prod(self.image_shape), kernel_init=XAVIER)(z)
        return z.reshape(len(z), *self.image_shape)


class ConvDecoder(nn.Module):
    """Convolutions that lead level by level from a small map to the image: ConvEncoder mirrored.

    `channels` begins with those of the smallest map. Each level doubles the sides, by "upsampling"
    before a convolution or by a "transposed" convolution, and crops them to what the encoder had
    there (a side of 7 is pooled to 4, which doubles to 8). Dense layers of the widths `hidden`, and
    one more of the map's size, make the map from z, each with ReLU. If hidden is None, no layer
    does: z must be exactly the map (Gamal n.d., the fully convolutional way).
    """

    channels: Sequence[int]
    image_shape: tuple[int, int, int]
    hidden: Sequence[int] | None = None
    up: str = "upsampling"
    batch_norm: bool = False

    @nn.compact
    def __call__(self, z: Float[Array, "n d"], train: bool = False) -> Float[Array, "n h w c"]:
        *above, smallest = levels(self.image_shape[:2], len(self.channels))
        x = self._map(z, (*smallest, self.channels[0]))
        widths = (*self.channels[1:], self.image_shape[2])
        for width, (high, wide) in zip(widths, reversed(above), strict=True):
            last = (high, wide) == above[0]
            between = self.batch_norm and not last
            x = DoublingConv(width, self.up, use_bias=not between)(x)[:, :high, :wide]
            if between:
                x = BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = x if last else nn.relu(x)
        return x

    def _map(self, z, shape):
        size = math.prod(shape)
        if self.hidden is None and z.shape[1] != size:
            raise ValueError(
                "a convolutional decoder without dense layers needs a code that is exactly its "
                f"first map, {shape[0]} x {shape[1]} x {shape[2]} = {size} numbers, got "
                f"{z.shape[1]}; leave out the head or add dense layers"
            )
        if self.hidden is not None:
            for width in (*self.hidden, size):
                z = nn.relu(nn.Dense(width, kernel_init=XAVIER)(z))
        return z.reshape(len(z), *shape)


class RecurrentDecoder(nn.Module):
    """Recurrent layers that read z at every step and write the image row by row.

    A linear layer turns each step's output into a row. z is repeated as by Keras's
    RepeatVector(rows) in Gamal n.d..
    """

    hidden: Sequence[int]
    image_shape: tuple[int, int, int]
    cell: str = "gru"

    @nn.compact
    def __call__(self, z: Float[Array, "n d"], train: bool = False) -> Float[Array, "n h w c"]:
        del train
        rows, *rest = self.image_shape
        x = jnp.broadcast_to(z[:, None], (len(z), rows, z.shape[1]))
        x = recurrent(x, self.hidden, self.cell)
        return nn.Dense(math.prod(rest), kernel_init=XAVIER)(x).reshape(len(z), *self.image_shape)


class AttentionDecoder(nn.Module):
    """One token per patch, made from z; they attend to each other, and each gives its pixels.

    It mirrors AttentionEncoder.
    """

    image_shape: tuple[int, int, int]
    patch: tuple[int, int]
    width: int = 32
    depth: int = 2
    heads: int = 4

    @nn.compact
    def __call__(self, z: Float[Array, "n d"], train: bool = False) -> Float[Array, "n h w c"]:
        del train
        rows, columns = patch_grid(self.image_shape, self.patch)
        high, wide = self.patch
        x = nn.Dense(rows * columns * self.width, kernel_init=XAVIER)(z)
        x = x.reshape(len(z), rows * columns, self.width)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for _ in range(self.depth):
            x = TransformerBlock(self.heads)(x)
        x = nn.Dense(high * wide * self.image_shape[2], kernel_init=XAVIER)(nn.LayerNorm()(x))
        x = x.reshape(len(z), rows, columns, high, wide, -1).swapaxes(2, 3)
        return x.reshape(len(z), *self.image_shape)
