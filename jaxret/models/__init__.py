"""Networks, as small parts that compose. MODELS: name -> constructor."""

from collections.abc import Sequence

from .autoencoder import Autoencoder
from .decoders import DenseDecoder
from .encoders import DenseEncoder


def dense_autoencoder(
    image_shape: tuple[int, int, int], head_size: int, hidden: Sequence[int] = (500, 100)
) -> Autoencoder:
    """Dense encoder and its mirror; the default is Torres 2018, section 3.1."""
    return Autoencoder(
        DenseEncoder(tuple(hidden)), DenseDecoder(tuple(reversed(hidden)), image_shape), head_size
    )


MODELS = {"dense": dense_autoencoder}

__all__ = ["MODELS", "Autoencoder", "DenseDecoder", "DenseEncoder", "dense_autoencoder"]
