"""Autoencoders by composition: encoder x decoder x the treatment of the latent between them."""

from collections.abc import Callable

from flax import linen as nn
from jaxtyping import Array, Float

from .layers import XAVIER


class Autoencoder(nn.Module):
    """An encoder, a linear head, and a decoder.

    The head gives the latent's parameters: the code itself for a plain autoencoder, means and
    log-variances for a Gaussian posterior, logits for a discrete one. A callable draws the code
    from them, so a relaxation is an argument and not another class. If head_size is None, there is
    no head and the parameters are the encoder's features.
    """

    encoder: nn.Module
    decoder: nn.Module
    head_size: int | None

    def setup(self) -> None:
        if self.head_size is not None:
            self.head = nn.Dense(self.head_size, kernel_init=XAVIER)

    def encode(self, images: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n p"]:
        """Return the latent's parameters."""
        features = self.encoder(images, train)
        return features if self.head_size is None else self.head(features)

    def decode(self, z: Float[Array, "n d"], train: bool = False) -> Float[Array, "n h w c"]:
        """Return pixels before the likelihood's link function: logits or means."""
        return self.decoder(z, train)

    def __call__(
        self,
        images: Float[Array, "n h w c"],
        draw: Callable[[Float[Array, "n p"]], Float[Array, "n d"]],
        train: bool = False,
    ) -> tuple[Float[Array, "n p"], Float[Array, "n h w c"]]:
        """Return the latent's parameters and the pixels that are decoded from draw(parameters)."""
        parameters = self.encode(images, train)
        return parameters, self.decode(draw(parameters), train)
