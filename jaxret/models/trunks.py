"""Networks of a trunk and a hash layer, of which the residual network of hashnet.py is one trunk.

A trunk turns an image or a vector into features; TRUNKS names those that hashers choose from.
"""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from .efficientnet import EfficientNet
from .hashnet import DENSE, HE, Trunk
from .layers import overlapping_pool

SLICE = 50  # features that one bit of a divided hash layer sees (Lai 2015)


class DenseTrunk(nn.Module):
    """Dense layers with ReLU; dropout of what each is given and of the last one's output."""

    widths: Sequence[int] = (512,)
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "n *shape"], train: bool = False) -> Float[Array, "n f"]:
        x = x.reshape(len(x), -1)
        for width in (*self.widths, None):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = x if width is None else nn.relu(nn.Dense(width, kernel_init=HE)(x))
        return x


class ConvTrunk(nn.Module):
    """The network of CNNH (Xia 2014): three convolutions of 5 x 5, each pooled, and a dense layer.

    Pooling takes the greatest of 3 x 3 numbers at every second place.
    """

    channels: Sequence[int] = (32, 64, 128)
    width: int = 500
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n f"]:
        for channels in self.channels:
            x = overlapping_pool(nn.Conv(channels, (5, 5), padding="SAME", kernel_init=HE)(x))
        return DenseTrunk((self.width,), self.dropout)(x, train)


class ResidualTrunk(nn.Module):
    """The trunk of DRHN-n (Jimenez 2017) and the mean over pixels of its last maps."""

    depth: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n f"]:
        return jnp.mean(Trunk(depth=self.depth)(x, train)[-1], axis=(1, 2))


class LastBlocks(nn.Module):
    """The last blocks of EfficientNet-Lite0, trained further on the maps that the first is given.

    Its parameters are those of the whole network of the same names, under `network`; dropout is of
    the pooled features.
    """

    first: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "n d"], train: bool = False) -> Float[Array, "n f"]:
        network = EfficientNet(folded=True, first=self.first, trains=True, name="network")
        channels = network.channels(self.first)
        side = math.isqrt(x.shape[1] // channels)
        if side * side * channels != x.shape[1]:
            raise ValueError(
                f"block {self.first} is given square maps of {channels} channels, got vectors of "
                f"{x.shape[1]} numbers"
            )
        x = network(x.reshape(len(x), side, side, channels))
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class DividedHash(nn.Module):
    """Divide and encode (Lai 2015): each bit is a linear function of its own 50 features alone."""

    bits: int

    def setup(self) -> None:
        self.features = nn.Dense(SLICE * self.bits, kernel_init=HE)
        self.kernel = self.param("kernel", DENSE, (SLICE, self.bits))
        self.bias = self.param("bias", nn.initializers.zeros, (self.bits,))

    def encode(self, slices: Float[Array, "n b s"]) -> Float[Array, "n b"]:
        """Return the units from the features of each bit."""
        return jnp.einsum("nbs,sb->nb", slices, self.kernel) + self.bias[None]

    def __call__(self, x: Float[Array, "n f"]) -> Float[Array, "n b"]:
        """Return the units."""
        return self.encode(nn.relu(self.features(x)).reshape(len(x), self.bits, SLICE))


class HashHead(nn.Module):
    """A trunk, a hash layer of one unit per bit, and a linear classifier of what follows the units.

    Attributes:
        trunk: gives the features.
        bits: units of the hash layer.
        num_classes: of the classifier; 0: there is none, and the logits are empty.
        divided: whether each bit has features of its own (see DividedHash).
        norm: whether the units are normalised over the batch.
        dropout: of what the classifier is given.
    """

    trunk: nn.Module
    bits: int
    num_classes: int = 0
    divided: bool = False
    norm: bool = False
    dropout: float = 0.0

    def setup(self) -> None:
        one = nn.Dense(self.bits, kernel_init=DENSE)
        self.hash = DividedHash(self.bits) if self.divided else one
        self.scale = nn.BatchNorm(momentum=0.9) if self.norm else None
        self.drop = nn.Dropout(self.dropout)
        self.classifier = nn.Dense(self.num_classes, kernel_init=DENSE)

    def encode(self, x: Float[Array, "n *shape"], train: bool = False) -> Float[Array, "n b"]:
        """Return the hash layer's units: a bit is 1 where its unit is at least 0."""
        z = self.hash(self.trunk(x, train))
        return z if self.scale is None else self.scale(z, use_running_average=not train)

    def __call__(
        self,
        x: Float[Array, "n *shape"],
        relax: Callable[[Float[Array, "n b"]], Float[Array, "n b"]],
        train: bool = False,
    ) -> tuple[Float[Array, "n b"], Float[Array, "n k"]]:
        """Return the hash layer's units, and the classes' logits of relax(units)."""
        z = self.encode(x, train)
        if not self.num_classes:
            return z, jnp.zeros((len(z), 0))
        return z, self.classifier(self.drop(relax(z), deterministic=not train))


FIRST = 12  # block of the pretrained network that the trunk of its last blocks begins with
LAST_BLOCKS = f"efficientnet-lite0-block{FIRST}"
OF_VECTORS = ("dense", LAST_BLOCKS)  # trunks that see vectors
# name -> trunk, from the widths of dense layers and the share that dropout leaves out
TRUNKS: dict[str, Callable[[Sequence[int], float], nn.Module]] = {
    "dense": DenseTrunk,
    "conv": lambda widths, dropout: ConvTrunk(dropout=dropout),
    "residual": lambda widths, dropout: ResidualTrunk(),
    LAST_BLOCKS: lambda widths, dropout: LastBlocks(FIRST, dropout),
}
