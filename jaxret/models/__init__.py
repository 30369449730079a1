"""Networks that are composed of small parts. MODELS: name -> constructor of an autoencoder.

A constructor takes the shape of the images and the size of the head; all other arguments have
defaults. A head size of None makes a network without a head: its code is the encoder's output.
"""

from collections.abc import Sequence
from functools import partial

from .autoencoder import Autoencoder
from .classifier import ConvClassifier
from .decoders import AttentionDecoder, ConvDecoder, DenseDecoder, RecurrentDecoder
from .encoders import AttentionEncoder, ConvEncoder, DenseEncoder, RecurrentEncoder
from .hashnet import HashNet
from .strided import LANDMARK_MODELS, strided_autoencoder

Shape = tuple[int, int, int]


def dense_autoencoder(
    image_shape: Shape, head_size: int | None, hidden: Sequence[int] = (500, 100)
) -> Autoencoder:
    """A dense encoder and its mirror image; the default is Torres 2018, section 3.1."""
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
    """A convolutional encoder and its mirror image.

    Args:
        image_shape: height, width and channels.
        head_size: numbers that the head gives; None: no head.
        channels: of each convolution; the default is Chollet 2016, which Sahu n.d. follows.
        hidden: widths of dense layers on both sides of the code. (): the decoder begins with one
            dense layer, so a code may have any size. None: no dense layer at all.
        up: a key of `layers.UPS`: how the decoder doubles the size of a map.
        pool: a key of `layers.POOLS`: how the encoder halves it.
        batch_norm: whether batch normalisation follows each convolution but the last.
        dropout: the share of numbers that are dropped after each block of the encoder.

    Returns:
        The network. Its first call raises ValueError if a name is unknown or if a code does not fit
        a decoder without dense layers.
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
    """Recurrent layers that read and write an image row by row (Gamal n.d., RNN + VAE).

    Args:
        image_shape: height, width and channels.
        head_size: numbers that the head gives; None: no head.
        hidden: widths of the encoder's recurrent layers; the decoder has them in reverse.
        cell: a key of `layers.CELLS`.

    Returns:
        The network. Its first call raises ValueError if the cell is unknown.
    """
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
    """Patches that attend to each other.

    Args:
        image_shape: height, width and channels.
        head_size: numbers that the head gives; None: no head.
        patch: height and width of a patch in pixels. (1, image width) makes each row a token.
        width: numbers of a token.
        depth: transformer blocks on each side of the code.
        heads: attention heads; they divide the width.

    Returns:
        The network. Its first call raises ValueError if the patches do not fill the image.
    """
    parts = {"patch": tuple(patch), "width": width, "depth": depth, "heads": heads}
    return Autoencoder(AttentionEncoder(**parts), AttentionDecoder(image_shape, **parts), head_size)


def _mirror(hidden, head_size):
    """The decoder's widths; without a head, the encoder's last layer is the code itself."""
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
# Those whose decoder makes images of one size only: M1 and M2 92 pixels a side, M3 96.
SIZED_MODELS = {
    f"landmarks_{name}": partial(strided_autoencoder, **layers)
    for name, layers in LANDMARK_MODELS.items()
}

__all__ = [
    "MODELS",
    "SIZED_MODELS",
    "AttentionDecoder",
    "AttentionEncoder",
    "Autoencoder",
    "ConvClassifier",
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
    "strided_autoencoder",
]
