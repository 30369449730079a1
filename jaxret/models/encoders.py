"""Encoders: images in, features out. Any encoder fits any autoencoder."""

from collections.abc import Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from .layers import (
    XAVIER,
    Conv,
    TransformerBlock,
    patch_grid,
    recurrent,
    relu_pool,
)
from .norm import BatchNorm


class DenseEncoder(nn.Module):
    """Fully connected layers with ReLU after each, Xavier weights and zero biases.

    Torres 2018, section 3.1, has hidden=(500, 100). If last_relu is False, no ReLU follows the last
    layer.
    """

    hidden: Sequence[int]
    last_relu: bool = True

    @nn.compact
    def __call__(self, images: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n d"]:
        del train  # no dropout, no batch statistics
        x = images.reshape(len(images), -1)
        for i, width in enumerate(self.hidden):
            x = nn.Dense(width, kernel_init=XAVIER)(x)
            if self.last_relu or i + 1 < len(self.hidden):
                x = nn.relu(x)
        return x


class ConvEncoder(nn.Module):
    """Blocks of 3 x 3 convolution, ReLU and 2 x 2 pooling, then dense layers with ReLU.

    Without dense layers, the features are the last map, flattened (Sahu n.d., model C; Gamal n.d.,
    the fully convolutional way); with dense layers, this is Gamal's mixed approach. `pool` is "max"
    or "average". Batch normalisation stands between convolution and ReLU (Ioffe 2015). `dropout` is
    the share of numbers that are dropped after each block and each dense layer.
    """

    channels: Sequence[int]
    hidden: Sequence[int] = ()
    pool: str = "max"
    batch_norm: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n d"]:
        x = images
        for width in self.channels:
            # A bias before the normalisation would have no effect but noise for a gradient.
            x = Conv(width, use_bias=not self.batch_norm)(x, train)
            if self.batch_norm:
                x = BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = relu_pool(x, self.pool)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = x.reshape(len(x), -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=XAVIER)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x


class RecurrentEncoder(nn.Module):
    """Recurrent layers that read an image row by row (Gamal n.d., RNN + VAE).

    The features are the output of the last layer after the last row. `cell` is "gru" (Cho 2014) or
    "lstm" (Hochreiter 1997).
    """

    hidden: Sequence[int]
    cell: str = "gru"

    @nn.compact
    def __call__(self, images: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n d"]:
        del train
        rows = images.reshape(*images.shape[:2], -1)
        return recurrent(rows, self.hidden, self.cell)[:, -1]


class AttentionEncoder(nn.Module):
    """Patches that attend to each other; a patch of one row of the image makes rows the tokens.

    Each patch becomes a token with a learnt position (Dosovitskiy 2021). The features are all
    tokens, concatenated, so a dense head weighs each place on its own.
    """

    patch: tuple[int, int]
    width: int = 32
    depth: int = 2
    heads: int = 4

    @nn.compact
    def __call__(self, images: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n d"]:
        del train
        rows, columns = patch_grid(images.shape[1:], self.patch)
        high, wide = self.patch
        x = images.reshape(len(images), rows, high, columns, wide, -1).swapaxes(2, 3)
        x = nn.Dense(self.width, kernel_init=XAVIER)(x.reshape(len(x), rows * columns, -1))
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for _ in range(self.depth):
            x = TransformerBlock(self.heads)(x)
        return nn.LayerNorm()(x).reshape(len(x), -1)
