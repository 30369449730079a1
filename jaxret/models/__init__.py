"""Networks, as small parts that compose. MODELS: name -> constructor.

A constructor takes the images' shape and the head's size, None for a network without a head, whose
code is what its encoder gives; all else has a default.
"""

from collections.abc import Sequence
from functools import partial

from .autoencoder import Autoencoder
from .decoders import AttentionDecoder, ConvDecoder, DenseDecoder, RecurrentDecoder
from .encoders import AttentionEncoder, ConvEncoder, DenseEncoder, RecurrentEncoder
from .hashnet import HashNet

Shape = tuple[int, int, int]


def dense_autoencoder(
    image_shape: Shape, head_size: int | None, hidden: Sequence[int] = (500, 100)
) -> Autoencoder:
    """Dense encoder and its mirror; the default is Torres 2018, section 3.1."""
    return Autoencoder(
        DenseEncoder(tuple(hidden)),
        DenseDecoder(_mirror(hidden, head_size), image_shape),
        head_size,
    )


def conv_autoencoder(
    image_shape: Shape,
    head_size: int | None,
    channels: Sequence[int] = (16, 8, 8),
    hidden: Sequence[int] | None = None,
    *,
    up: str = "upsampling",
    pool: str = "max",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> Autoencoder:
    """Convolution and pooling, and back; with hidden, dense layers on both sides of the code.

    The default has the channels of Chollet 2016 ("Building autoencoders in Keras"), whose settings
    the text of Sahu et al. follows. hidden=() is a decoder that begins with one dense layer, for
    codes of any size.
    """
    between = None if hidden is None else _mirror(hidden, head_size)
    return Autoencoder(
        ConvEncoder(tuple(channels), tuple(hidden or ()), pool, batch_norm, dropout),
        ConvDecoder(tuple(reversed(channels)), image_shape, between, up, batch_norm),
        head_size,
    )


def recurrent_autoencoder(
    image_shape: Shape, head_size: int | None, hidden: Sequence[int] = (128,), *, cell: str = "gru"
) -> Autoencoder:
    """Rows read and written by recurrent layers: Gamal and Mohamed, RNN + VAE."""
    return Autoencoder(
        RecurrentEncoder(tuple(hidden), cell),
        RecurrentDecoder(tuple(reversed(hidden)), image_shape, cell),
        head_size,
    )


def attention_autoencoder(
    image_shape: Shape,
    head_size: int | None,
    patch: tuple[int, int] = (4, 4),
    width: int = 32,
    depth: int = 2,
    heads: int = 4,
) -> Autoencoder:
    """Patches that attend to each other; rows with patch=(1, the image's width)."""
    parts = {"patch": tuple(patch), "width": width, "depth": depth, "heads": heads}
    return Autoencoder(AttentionEncoder(**parts), AttentionDecoder(image_shape, **parts), head_size)


def _mirror(hidden, head_size):
    """The decoder's widths; without a head the encoder's last layer is the code itself."""
    return tuple(reversed(hidden[:-1] if head_size is None else hidden))


MODELS = {
    "dense": dense_autoencoder,
    "conv_up": conv_autoencoder,
    "conv_transposed": partial(conv_autoencoder, up="transposed"),
    "conv_dense_up": partial(conv_autoencoder, hidden=()),
    "conv_dense_transposed": partial(conv_autoencoder, hidden=(), up="transposed"),
    "gru": recurrent_autoencoder,
    "lstm": partial(recurrent_autoencoder, cell="lstm"),
    "attention": attention_autoencoder,
}

__all__ = [
    "MODELS",
    "AttentionDecoder",
    "AttentionEncoder",
    "Autoencoder",
    "ConvDecoder",
    "ConvEncoder",
    "DenseDecoder",
    "DenseEncoder",
    "HashNet",
    "RecurrentDecoder",
    "RecurrentEncoder",
    "attention_autoencoder",
    "conv_autoencoder",
    "dense_autoencoder",
    "recurrent_autoencoder",
]
