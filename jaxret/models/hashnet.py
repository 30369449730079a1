"""Deep residual hashing: a residual network whose penultimate layer is the code (Jimenez 2017)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from .layers import check_choice, noinline
from .norm import BatchNorm

# Lasagne's HeNormal, not truncated; the gain of convolutions is that of a ReLU, of dense layers 1.
HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
DENSE = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
# Channels of each residual group and the stride of its first convolution (Jimenez 2017, table 4.1).
GROUPS = ((16, 1), (32, 2), (64, 2), (64, 1), (64, 1), (128, 2))
DEPTHS = range(1, 17)


def _natural(conv, norm, x):
    return nn.relu(norm(conv(x)))


def _as_printed(conv, norm, x):
    return norm(nn.relu(conv(x)))


# name -> (normalisation and ReLU after a convolution, activation after the sum of a block)
ORDERS: dict[str, tuple[Callable, Callable]] = {
    "natural": (_natural, nn.relu),
    "paper": (_as_printed, lambda x: x),
}


def _convolution(x, kernel, *args, **kwargs):
    return lax.conv_general_dilated(noinline(x), kernel, *args, **kwargs)


class Part(nn.Module):
    """The settings and layers that blocks and trunk share.

    `dtype` is that of the computation; parameters are float32 in any case.
    """

    bn_order: str = "natural"
    dtype: Any = jnp.float32

    def conv(self, features: int, stride: int = 1) -> nn.Conv:
        """Return a 3 x 3 convolution without a bias, whose output has the shortcut's size."""
        return nn.Conv(
            features, (3, 3), stride, padding=1, use_bias=False, kernel_init=HE, dtype=self.dtype,
            conv_general_dilated=_convolution,
        )  # fmt: skip

    def norm(self, train: bool) -> BatchNorm:
        """Return batch normalisation with Lasagne's epsilon and running averages."""
        return BatchNorm(not train, momentum=0.9, epsilon=1e-4, dtype=self.dtype)


class Block(Part):
    """Two convolutions whose output is added to their input (He 2016, figure 2).

    The shortcut has no parameters: it takes every stride-th pixel and adds channels of 0 on both
    sides (option A). bn_order "natural" is conv-BN-ReLU-conv-BN-add-ReLU; "paper" is
    conv-ReLU-BN-conv-BN-add, which is Jimenez 2017, eq. 4.4, to the letter.
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
    """A convolution and six groups of residual blocks; returns the output of each of the seven."""

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
            alike = [Block(**parts, features=features) for _ in range(self.depth - 1)]
            maps.append(_one_after_the_other(self, alike, x, train))
        return maps


def in_a_loop() -> bool:
    """Return whether blocks that are alike run in a loop.

    It is for the compiler: a step of DRHN-1, 6 blocks, compiles for an H100 in 39 s of a core, and
    of DRHN-15, 90 blocks, in 84 s with loops. On CPU, XLA is slow with convolutions within a loop
    (jax issue 12868).
    """
    return jax.default_backend() != "cpu"


def _one_after_the_other(trunk: nn.Module, blocks: list[Block], x: Array, train: bool) -> Array:
    """Apply blocks that differ in nothing but their variables, each to what the last one gives."""
    if trunk.is_initializing() or len(blocks) < 2 or not in_a_loop():
        for block in blocks:
            x = block(x, train)
        return x
    names = [str(block.name) for block in blocks]
    each = [{kind: own[name] for kind, own in trunk.variables.items()} for name in names]

    def step(x, variables):
        return blocks[0].clone(parent=None).apply(variables, x, train, mutable=["batch_stats"])

    x, told = lax.scan(step, x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *each))
    if train:
        for i, name in enumerate(names):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], told["batch_stats"])
            trunk.put_variable("batch_stats", name, own)
    return x


class HashNet(nn.Module):
    """DRHN-n: a trunk, the mean over pixels, a hash layer of one unit per bit, a linear classifier.

    `depth` is n, the number of blocks in a group. The hash layer returns its units before their
    sigmoid: a bit is 1 where its unit is at least 0. A callable, the sigmoid or a relaxation, turns
    them into the classifier's input. Images are normalised by the caller.
    """

    depth: int
    bits: int
    num_classes: int
    bn_order: str = "natural"
    dtype: Any = jnp.float32

    def setup(self) -> None:
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
        """Return the output of the first convolution and of each group, for pictures."""
        return self.trunk(x)

    def encode(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n b"]:
        """Return the hash layer's units."""
        last = self.trunk(x, train)[-1].astype(jnp.float32)
        return self.hash(jnp.mean(last, axis=(1, 2)))

    def classify(self, code: Float[Array, "n b"]) -> Float[Array, "n k"]:
        """Return the logits of the classes."""
        return self.classifier(code)

    def __call__(
        self,
        x: Float[Array, "n h w c"],
        relax: Callable[[Float[Array, "n b"]], Float[Array, "n b"]],
        train: bool = False,
    ) -> tuple[Float[Array, "n b"], Float[Array, "n k"]]:
        """Return the hash layer's units, and the classes' logits of relax(units)."""
        z = self.encode(x, train)
        return z, self.classify(relax(z))
