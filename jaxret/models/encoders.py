"""Encoders: images in, features out. Each is a small part that any autoencoder can take."""

from collections.abc import Sequence

from flax import linen as nn
from jaxtyping import Array, Float

XAVIER = nn.initializers.glorot_uniform()


class DenseEncoder(nn.Module):
    """Fully connected layers with ReLU after each, Xavier weights and zero biases.

    The encoder of Torres 2018, section 3.1, is hidden=(500, 100). last_relu says whether a ReLU
    follows the last layer, too.
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
