"""EfficientNet-Lite0 without its classifier: an image becomes 1280 features.

The network is written once. Its layers have two forms: a convolution with batch normalisation,
which is the definition, and a folded one for inference and for training its last blocks further.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Shaped

Tree = dict[str, Any]
AXES = ("NHWC", "HWIO", "NHWC")
EPSILON = 1e-3  # of batch normalisation; TensorFlow's, where PyTorch's is 1e-5


class Group(NamedTuple):
    """Blocks of one width; the first one has the stride and changes the width."""

    repeats: int
    kernel: int
    stride: int
    expansion: int  # width of the middle of a block, as a multiple of its input's
    features: int


# Tan 2019, table 1. Lite drops squeeze-and-excitation and clips at 6 in place of swish.
LITE0 = (
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24),
    Group(2, 5, 2, 6, 40),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
)


class Layer(nn.Module):
    """A convolution and its normalisation, then clipping to [0, 6] (ReLU6) if `clip`.

    A map is padded with zeros as TensorFlow's SAME does: the odd row goes below, the odd column to
    the right. If `folded`, the normalisation is a part of the kernel and a bias: see `fold`.
    `trains`: see EfficientNet.
    """

    features: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    clip: bool = True
    folded: bool = False
    trains: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n oh ow f"]:
        y = self._folded(x) if self.folded else self._plain(x)
        return jnp.clip(y, 0.0, 6.0) if self.clip else y

    def _plain(self, x):
        groups = x.shape[3] if self.depthwise else 1
        size = (self.kernel, self.kernel)
        y = nn.Conv(
            self.features, size, self.stride, feature_group_count=groups, use_bias=False,
            precision=lax.Precision.HIGHEST, name="conv",
        )(x)  # fmt: skip
        return nn.BatchNorm(use_running_average=True, epsilon=EPSILON, name="norm")(y)

    def _folded(self, x):
        channels = 1 if self.depthwise else x.shape[3]
        shape = (self.kernel, self.kernel, channels, self.features)
        # What is trained starts from pretrained weights; to draw what they replace takes seconds.
        first = nn.initializers.zeros if self.trains else nn.initializers.lecun_normal()
        kernel = self.param("kernel", first, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if self.depthwise:
            kernel = lax.stop_gradient(kernel) if self.trains else kernel
            y = cast(jax.Array, convolve_depthwise(x, kernel, self.stride))
        elif self.trains and self.kernel == self.stride == 1:
            y = jnp.dot(x, kernel[0, 0], precision=lax.Precision.HIGHEST)
        else:
            y = _convolve(x, kernel, self.stride)
        return y + bias[None, None, None]


class Block(nn.Module):
    """An inverted residual block (Sandler 2018): widen, convolve each channel, narrow.

    Its input is added to its output if the two have one shape.
    """

    group: Group
    stride: int
    folded: bool
    trains: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n oh ow f"]:
        layer = functools.partial(Layer, folded=self.folded, trains=self.trains)
        width = x.shape[3] * self.group.expansion
        y = x if width == x.shape[3] else layer(width, name="expand")(x)
        y = layer(width, self.group.kernel, self.stride, depthwise=True, name="depthwise")(y)
        y = layer(self.group.features, clip=False, name="project")(y)
        return x + y if y.shape == x.shape else y


class EfficientNet(nn.Module):
    """A stem, groups of inverted residual blocks, a wide last layer, the mean over pixels.

    The default is EfficientNet-Lite0. Images are normalised by the caller; any size will do. The
    network can be cut before a block: its first part gives the map that the block is given, its
    last part takes that map. Both have the variables of the whole network under the same names.

    Attributes:
        groups: the blocks.
        stem: channels of the first convolution.
        head: channels of the last one, the length of a feature vector.
        folded: which form the layers have; the variables of the two forms differ, see `fold`.
        first: the first block of a last part; 0: the network begins with an image.
        stop: the block before which a first part ends; None: the network ends with features.
        trains: whether the folded form is trained: convolutions of 1 x 1 are matrix products then,
            and the depthwise kernels stay as they are: they are a hundredth of the weights, and
            their gradient takes longer than all else in their layers.
    """

    groups: tuple[Group, ...] = LITE0
    stem: int = 32
    head: int = 1280
    folded: bool = False
    first: int = 0
    stop: int | None = None
    trains: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n *f"]:
        layer = functools.partial(Layer, folded=self.folded, trains=self.trains)
        if self.first == 0:
            x = layer(self.stem, kernel=3, stride=2, name="stem")(x)
        strides = [(g, g.stride if i == 0 else 1) for g in self.groups for i in range(g.repeats)]
        for number, (group, stride) in enumerate(strides[: self.stop]):
            if number >= self.first:
                x = Block(group, stride, self.folded, self.trains, name=f"block_{number}")(x)
        if self.stop is not None:
            return x
        return jnp.mean(layer(self.head, name="head")(x), axis=(1, 2))

    def channels(self, block: int) -> int:
        """Return how many channels the map has that a block is given."""
        widths = [group.features for group in self.groups for _ in range(group.repeats)]
        return self.stem if block == 0 else widths[block - 1]


def last_part(params: Mapping[str, Any], first: int) -> Tree:
    """Return, of the parameters of the whole network, those from a block on."""
    numbers = {f"block_{number}" for number in range(first, len(params))}
    return {name: own for name, own in params.items() if name == "head" or name in numbers}


def fold(variables: Mapping[str, Any]) -> Tree:
    """Return the variables of the folded form from those of the plain form.

    Batch normalisation after training is y = (x - mean) s + offset with s = scale / sqrt(variance +
    epsilon). So the kernel times s, and the bias offset - mean s, give the same.
    """
    return {"params": _fold(variables["params"], variables["batch_stats"])}


def _fold(params, statistics):
    if "conv" not in params:
        return {name: _fold(params[name], statistics[name]) for name in params}
    norm = {**params["norm"], **statistics["norm"]}
    scale, offset, mean, variance = (
        np.asarray(norm[name], np.float64) for name in ("scale", "bias", "mean", "var")
    )
    factor = scale / np.sqrt(variance + EPSILON)
    kernel = np.asarray(params["conv"]["kernel"], np.float64) * factor[None, None, None]
    bias = offset - mean * factor
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_depthwise(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k k 1 c"], stride: int
) -> Float[Array, "n oh ow c"]:
    """Return the convolution of each channel with its own kernel, zeros around the map (SAME).

    On CPU it is a sum of k^2 shifted maps, which XLA computes in one loop, faster than its grouped
    convolution there. The gradient of the map has the same form: JAX's own would add k^2 padded
    maps. The kernel's takes longer than both; training here keeps the kernels as they are
    (`trains`) and does not compute it. Elsewhere it is that convolution.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_convolve_by_shifts, stride=stride),
        default=functools.partial(_convolve, stride=stride),
    )


def _forward(x, kernel, stride):
    # Without the barrier what x is computed by is computed again for each shift.
    x = lax.optimization_barrier(x)
    return convolve_depthwise(x, kernel, stride), (x, kernel)


def _backward(stride, kept, gradient):
    def by_convolution(x, kernel, gradient):
        _, pull = jax.vjp(functools.partial(_convolve, stride=stride), x, kernel)
        return pull(gradient)

    return lax.platform_dependent(
        *kept,
        lax.optimization_barrier(gradient),
        cpu=functools.partial(_gradients_by_shifts, stride=stride),
        default=by_convolution,
    )


convolve_depthwise.defvjp(_forward, _backward)


def _convolve(x, kernel, stride):
    groups = x.shape[3] // kernel.shape[2]
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=AXES, feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    )  # fmt: skip


def _convolve_by_shifts(x, kernel, stride):
    shifts = _shifts(_padded(x, len(kernel), stride), len(kernel), stride)
    taps = kernel.reshape(-1, 1, 1, 1, kernel.shape[3])
    return functools.reduce(jnp.add, (part * tap for part, tap in zip(shifts, taps, strict=True)))


def _padded(x, taps, stride):
    heights, widths = (_padding(length, taps, stride) for length in x.shape[1:3])
    return jnp.pad(x, ((0, 0), heights, widths, (0, 0)))


def _shifts(padded, taps, stride):
    """What each tap of a kernel is multiplied with, row by row."""
    high, wide = ((length - taps) // stride + 1 for length in padded.shape[1:3])
    for i in range(taps):
        for j in range(taps):
            bottom, right = i + (high - 1) * stride + 1, j + (wide - 1) * stride + 1
            yield padded[:, i:bottom:stride, j:right:stride]


def _gradients_by_shifts(x, kernel, gradient, stride):
    """Of the map, the shifted form with the kernel turned; of the kernel, a sum for each tap.

    The sums go through the images one by one: XLA's CPU backend takes a few times as long for sums
    over all images at once.
    """
    taps = len(kernel)
    spread = []  # the gradient's rows and columns stand a stride apart
    for length, given in zip(gradient.shape[1:3], x.shape[1:3], strict=True):
        before = taps - 1 - _padding(given, taps, stride)[0]
        after = given + taps - 1 - before - ((length - 1) * stride + 1)
        spread.append((before, after, stride - 1))
    padded = lax.pad(gradient, jnp.zeros((), x.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
    turned = kernel[::-1, ::-1].reshape(-1, 1, 1, 1, kernel.shape[3])
    parts = zip(_shifts(padded, taps, 1), turned, strict=True)
    of_map = functools.reduce(jnp.add, (part * tap for part, tap in parts))

    def add(sums, image):
        padded, own = image
        shifts = _shifts(padded[None], taps, stride)
        return sums + jnp.stack([jnp.sum(part[0] * own, axis=(0, 1)) for part in shifts]), None

    images = _padded(x, taps, stride), gradient
    sums, _ = lax.scan(add, jnp.zeros((taps**2, kernel.shape[3]), x.dtype), images)
    return of_map, sums.reshape(kernel.shape)


def _padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis; TensorFlow's rule, which depends on the length."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


# name of a tensor in the PyTorch conversion of the weights -> layer, and array in it
_LAYERS = {
    "_conv_stem": ("stem", "conv"), "_bn0": ("stem", "norm"),
    "_conv_head": ("head", "conv"), "_bn1": ("head", "norm"),
}  # fmt: skip
_PARTS = {
    "_expand_conv": ("expand", "conv"), "_bn0": ("expand", "norm"),
    "_depthwise_conv": ("depthwise", "conv"), "_bn1": ("depthwise", "norm"),
    "_project_conv": ("project", "conv"), "_bn2": ("project", "norm"),
}  # fmt: skip
_ARRAYS = {
    ("conv", "weight"): ("params", "kernel"), ("norm", "weight"): ("params", "scale"),
    ("norm", "bias"): ("params", "bias"), ("norm", "running_mean"): ("batch_stats", "mean"),
    ("norm", "running_var"): ("batch_stats", "var"),
}  # fmt: skip


def from_torch(tensors: Mapping[str, Shaped[np.ndarray, "*shape"]]) -> Tree:
    """Return the variables of the plain form from tensors of `efficientnet_lite_pytorch`.

    The classifier is left out. Raises ValueError for a tensor that is no part of the network; one
    that is missing is found by Flax.
    """
    variables: Tree = {"params": {}, "batch_stats": {}}
    for name, tensor in tensors.items():
        *path, array = name.split(".")
        if path == ["_fc"] or array == "num_batches_tracked":
            continue
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", ".".join(path))
        layer = _PARTS.get(block[2]) if block else _LAYERS.get(".".join(path))
        place = _ARRAYS.get((layer[1], array)) if layer else None
        if layer is None or place is None:
            raise ValueError(f"{name} is no tensor of EfficientNet-Lite")
        groups = (f"block_{block[1]}", *layer) if block else layer
        tree = variables[place[0]]
        for group in groups:
            tree = tree.setdefault(group, {})
        # PyTorch's kernels are [out, in, h, w].
        tree[place[1]] = tensor.transpose(2, 3, 1, 0) if layer[1] == "conv" else tensor
    return variables
