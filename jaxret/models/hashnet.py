"""Deep residual hashing: a residual network whose last layer but one is the code (Jimenez 2017)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from .layers import check_choice, noinline

# Lasagne's HeNormal, by the gain of a ReLU for convolutions and of 1 for dense layers; not cut off.
HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
DENSE = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
# Channels of each residual group and the stride of its first convolution (Jimenez 2017, table 4.1).
GROUPS = ((16, 1), (32, 2), (64, 2), (64, 1), (64, 1), (128, 2))
DEPTHS = range(1, 17)


def _natural(conv, norm, x):
    return nn.relu(norm(conv(x)))


def _as_printed(conv, norm, x):
    return norm(nn.relu(conv(x)))


# name -> (what follows a convolution, what follows the sum of a block)
ORDERS: dict[str, tuple[Callable, Callable]] = {
    "natural": (_natural, nn.relu),
    "paper": (_as_printed, lambda x: x),
}


def _convolution(x, kernel, *args, **kwargs):
    return lax.conv_general_dilated(noinline(x), kernel, *args, **kwargs)


class Part(nn.Module):
    """What the parts of a network share; numbers are kept in float32, whatever dtype computes."""

    bn_order: str = "natural"
    dtype: Any = jnp.float32

    def conv(self, features: int, stride: int = 1) -> nn.Conv:
        """3 x 3 without a bias, padded so that it sees what a shortcut of the same stride takes."""
        return nn.Conv(
            features, (3, 3), stride, padding=1, use_bias=False, kernel_init=HE, dtype=self.dtype,
            conv_general_dilated=_convolution,
        )  # fmt: skip

    def norm(self, train: bool) -> nn.BatchNorm:
        """Batch normalisation with Lasagne's epsilon and running averages."""
        return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-4, dtype=self.dtype)


class Block(Part):
    """Two convolutions, added to what came in (He 2016, figure 2).

    The shortcut has no parameters: every stride-th pixel, and channels of 0 on both sides (option
    A). Its bn_order "natural" is conv-BN-ReLU-conv-BN-add-ReLU; "paper" is eq. 4.4 to the letter,
    conv-ReLU-BN-conv-BN-add.
    """

    features: int = 16
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n oh ow f"]:
        after_conv, after_sum = ORDERS[self.bn_order]
        y = after_conv(self.conv(self.features, self.stride), self.norm(train), x)
        y = self.norm(train)(self.conv(self.features)(y))
        side = (self.features - x.shape[-1]) // 2
        x = x[:, :: self.stride, :: self.stride]
        return after_sum(y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (side, side))))


class Trunk(Part):
    """A convolution and six groups of residual blocks: the map that each of the seven gives."""

    depth: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool = False
    ) -> list[Float[Array, "n _ _ _"]]:
        parts = {"bn_order": self.bn_order, "dtype": self.dtype}
        after_conv, _ = ORDERS[self.bn_order]
        maps = [after_conv(self.conv(GROUPS[0][0]), self.norm(train), x.astype(self.dtype))]
        for features, stride in GROUPS:
            x = Block(**parts, features=features, stride=stride)(maps[-1], train)
            for _ in range(self.depth - 1):
                x = Block(**parts, features=features)(x, train)
            maps.append(x)
        return maps


class HashNet(nn.Module):
    """DRHN-n: trunk, mean over the pixels, a layer of one unit per bit, a classifier on the code.

    depth is n, the blocks of a group. The hash layer's units are returned before the sigmoid that
    belongs to them: a bit is 1 where its unit is at least 0. What the classifier sees of them
    enters as a callable, the sigmoid or a relaxation. x is normalised as the hasher does it.
    """

    depth: int
    bits: int
    num_classes: int
    bn_order: str = "natural"
    dtype: Any = jnp.float32

    def setup(self):
        if self.depth not in DEPTHS:
            raise ValueError(
                f"depth must lie between {DEPTHS[0]} and {DEPTHS[-1]}, got {self.depth}"
            )
        if self.bits < 1:
            raise ValueError(f"bits must be at least 1, got {self.bits}")
        check_choice("bn_order", self.bn_order, ORDERS)
        self.trunk = Trunk(bn_order=self.bn_order, dtype=self.dtype, depth=self.depth)
        self.hash = nn.Dense(self.bits, kernel_init=DENSE)
        self.classifier = nn.Dense(self.num_classes, kernel_init=DENSE)

    def maps(self, x: Float[Array, "n h w c"]) -> list[Float[Array, "n _ _ _"]]:
        """What the first convolution and each group make of images, for pictures."""
        return self.trunk(x)

    def encode(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n b"]:
        """The hash layer's units."""
        last = self.trunk(x, train)[-1].astype(jnp.float32)
        return self.hash(jnp.mean(last, axis=(1, 2)))

    def classify(self, code: Float[Array, "n b"]) -> Float[Array, "n k"]:
        """Logits of the classes."""
        return self.classifier(code)

    def __call__(
        self,
        x: Float[Array, "n h w c"],
        relax: Callable[[Float[Array, "n b"]], Float[Array, "n b"]],
        train: bool = False,
    ) -> tuple[Float[Array, "n b"], Float[Array, "n k"]]:
        """The hash layer's units, and the classes' logits of what relax makes of them."""
        z = self.encode(x, train)
        return z, self.classify(relax(z))
