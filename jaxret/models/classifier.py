"""A convolutional classifier whose last map is a description of the image."""

from collections.abc import Callable, Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from .layers import XAVIER, Conv, max_pool
from .norm import BatchNorm


class ConvBlocks(nn.Module):
    """Blocks of two 3 x 3 convolutions, pooling and dropout (Sahu n.d., figure 3).

    Batch normalisation follows the ReLU. Where it stood before the ReLU, the network was far worse
    in use than in training: the variances that it keeps are those with dropout (Li 2018). The
    features are the last map, flattened: 2 x 2 x 512 = 2,048 numbers of an image of 32 x 32 pixels.
    """

    channels: Sequence[int] = (64, 128, 256, 512)  # of both convolutions of a block
    dropout: Sequence[float] = (0.25, 0.25, 0.5, 0.5)  # after each block
    momentum: float = 0.9  # of the statistics that are kept for use

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n d"]:
        def normalised(x, width):
            x = nn.relu(Conv(width)(x, train))
            return BatchNorm(use_running_average=not train, momentum=self.momentum)(x)

        for width, share in zip(self.channels, self.dropout, strict=True):
            x = max_pool(normalised(normalised(x, width), width))
            x = nn.Dropout(share, deterministic=not train)(x)
        return x.reshape(len(x), -1)


class ConvClassifier(nn.Module):
    """A convolutional trunk, dense layers with ReLU, and a linear layer of one unit per class."""

    num_classes: int
    channels: Sequence[int] = (64, 128, 256, 512)
    dropout: Sequence[float] = (0.25, 0.25, 0.5, 0.5)
    dense: Sequence[int] = (4096, 4096)
    momentum: float = 0.9

    def setup(self) -> None:
        self.trunk = ConvBlocks(tuple(self.channels), tuple(self.dropout), self.momentum)
        self.hidden = [nn.Dense(width, kernel_init=XAVIER) for width in self.dense]
        self.classifier = nn.Dense(self.num_classes, kernel_init=XAVIER)

    def encode(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n d"]:
        """Return the features."""
        return self.trunk(x, train)

    def classify(self, features: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """Return the logits of the classes."""
        for layer in self.hidden:
            features = nn.relu(layer(features))
        return self.classifier(features)

    def __call__(
        self,
        x: Float[Array, "n h w c"],
        draw: Callable[[Float[Array, "n d"]], Float[Array, "n d"]],
        train: bool = False,
    ) -> tuple[Float[Array, "n d"], Float[Array, "n k"]]:
        """Return the features, and the classes' logits of draw(features)."""
        features = self.encode(x, train)
        return features, self.classify(draw(features))
