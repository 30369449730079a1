"""jaxret's networks in PyTorch, as a PyTorch user writes them: autoencoders and DRHN.

Each is made from the parameters of a jaxret model, so that both compute the same function. Feature
maps have NCHW shape; callers may store them as channels_last. This module is no command.
"""

import math

import numpy as np

if __name__ == "__main__":  # before PyTorch, which need not be installed
    import timing

    timing.no_command(__file__, "train.py and encode.py")
    raise SystemExit

import torch
from torch import nn
from torch.nn import functional


class Mapped(nn.Module):
    """Apply a function of a feature map."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        """See nn.Module."""
        return self.function(x)


def encoder(params) -> nn.Sequential:
    """Return the encoder of an autoencoder.

    Convolutions with ReLU and max-pooling, then dense layers with ReLU, then the head.
    """
    modules = []
    for layer in _layers(params["encoder"], "Conv"):
        modules += [_convolution(layer), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
    modules.append(Mapped(lambda x: x.permute(0, 2, 3, 1).flatten(1)))  # jaxret's order of a code
    for layer in _layers(params["encoder"], "Dense"):
        modules += [_linear(layer), nn.ReLU()]
    if "head" in params:
        modules.append(_linear(params["head"]))
    return nn.Sequential(*modules)


def conv_decoder(params, image_shape, transposed: bool) -> nn.Sequential:
    """Return a decoder: dense layers with ReLU, then doublings with ReLU up to the image's size.

    Args:
        params: of jaxret's autoencoder.
        image_shape: (height, width, channels).
        transposed: whether doublings are transposed convolutions; else upsampling and convolution.
    """
    doublings = _layers(params["decoder"], "Doubling")
    sides = [image_shape[:2]]
    for _ in doublings:
        sides.append([math.ceil(side / 2) for side in sides[-1]])
    first = (*sides.pop(), doublings[0]["kernel"].shape[2])
    modules = []
    for layer in _layers(params["decoder"], "Dense"):
        modules += [_linear(layer), nn.ReLU()]
    modules.append(Mapped(lambda z: z.unflatten(1, first).permute(0, 3, 1, 2)))
    for layer in doublings:
        high, wide = sides.pop()
        if transposed:
            modules.append(_transposed(layer))
        else:
            modules += [nn.Upsample(scale_factor=2), _convolution(layer)]
        modules += [Mapped(lambda x, h=high, w=wide: x[:, :, :h, :w]), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


class Block(nn.Module):
    """Add two convolutions to the input, as jaxret.models.hashnet.Block does."""

    def __init__(self, params, stride):
        super().__init__()
        self.first, self.second = (
            _unbiased(params[f"Conv_{i}"], s) for i, s in ((0, stride), (1, 1))
        )
        self.norms = nn.ModuleList(_normalisation(params[f"BatchNorm_{i}"]) for i in (0, 1))
        self.stride = stride
        self.side = (self.second.out_channels - self.first.in_channels) // 2

    def forward(self, x):
        """See nn.Module."""
        y = torch.relu(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(y))
        x = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(y + functional.pad(x, (0, 0, 0, 0, self.side, self.side)))


def hashnet(params) -> tuple[nn.Sequential, nn.Linear]:
    """Return DRHN's encoder (normalised images to hash units) and its classifier."""
    trunk = params["trunk"]
    modules = [_unbiased(trunk["Conv_0"], 1), _normalisation(trunk["BatchNorm_0"]), nn.ReLU()]
    blocks = sorted(_layers(trunk, "Block", named=True), key=lambda named: int(named[0][6:]))
    for _, block in blocks:
        wide, narrow = block["Conv_0"]["kernel"].shape[2:]
        modules.append(Block(block, 1 if wide == narrow else 2))
    modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), _linear(params["hash"])]
    return nn.Sequential(*modules), _linear(params["classifier"])


def hash_encoder(variables) -> nn.Sequential:
    """Return DRHN's encoder of images in [0, 1]: subtract the mean image, then encode."""
    mean = torch.from_numpy(np.array(variables["mean"])).permute(2, 0, 1)[None]
    return nn.Sequential(Mapped(lambda x: x - mean), *hashnet(variables["params"])[0])


def _unbiased(layer, stride):
    wide, narrow = layer["kernel"].shape[2:]
    module = nn.Conv2d(wide, narrow, 3, stride, padding=1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.array(np.transpose(layer["kernel"], (3, 2, 0, 1)))))
    return module


def _normalisation(layer):
    """Return a normalisation with fresh statistics, as an untrained network has."""
    return nn.BatchNorm2d(len(layer["scale"]), eps=1e-4)


def _layers(params, kind, named=False):
    layers = [(name, layer) for name, layer in params.items() if name.startswith(kind)]
    return layers if named else [layer for _, layer in layers]


def _convolution(layer):
    wide, narrow = layer["kernel"].shape[2:]
    module = nn.Conv2d(wide, narrow, 3, padding=1)
    return _with(module, np.transpose(layer["kernel"], (3, 2, 0, 1)), layer["bias"])


def _transposed(layer):
    """Return a transposed convolution.

    PyTorch spreads the kernel and Flax correlates with it, so the kernel is turned around. The
    output has one more row and column than PyTorch users expect; the caller cuts them off.
    """
    wide, narrow = layer["kernel"].shape[2:]
    module = nn.ConvTranspose2d(wide, narrow, 3, stride=2)
    turned = np.asarray(layer["kernel"])[::-1, ::-1]
    return _with(module, np.transpose(turned, (2, 3, 0, 1)), layer["bias"])


def _linear(layer):
    kernel = np.asarray(layer["kernel"])
    return _with(nn.Linear(*kernel.shape), kernel.T, layer["bias"])


def _with(module, weight, bias):
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.array(weight)))
        module.bias.copy_(torch.from_numpy(np.array(bias).reshape(-1)))
    return module
