"""Decoders: latents in, pixels out, as logits or means according to the likelihood."""

import math
from collections.abc import Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from .encoders import XAVIER


class DenseDecoder(nn.Module):
    """Fully connected layers with ReLU after each, then one linear layer to the pixels.

    The mirror of DenseEncoder: Torres 2018, section 3.1, is hidden=(100, 500).
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
