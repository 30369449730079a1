"""Train one of the autoencoder zoo, plain or variational; search with its codes; score it, draw it.

    python experiments/train_autoencoder.py --model=conv_dense_up --latent_dim=32 --workdir=runs/c32

The models are those of jaxret.models.MODELS, or your own: --model=mine.py:small calls the function
small of the file mine.py with an image's shape and the size of the head, as those of MODELS are
called, for a jaxret.models.Autoencoder. Beside the retrieval scores metrics.json has the
reconstruction errors of training and query images, means over pixels: mse/train, mse/test,
bce/train, bce/test; of a variational autoencoder also mse784_plus_kl, by one sample of each
posterior: 784 times the squared error per pixel, whatever the image's size, and the KL divergence
in nats.
"""

import dataclasses
import functools
import os
import runpy
import sys
from collections.abc import Callable

import drawing
import harness
import report
import training
from harness import flag

MODELS = (
    "dense", "conv_up", "conv_transposed", "conv_dense_up", "conv_dense_transposed", "gru", "lstm",
    "attention",
)  # fmt: skip
ADVICE = ("more --epochs", "--batch_norm for convolutions", "more --latent_dim")
VERSION = 2  # grows when the same flags compute something else
LISTS = ("hidden", "channels", "patch")  # flags such as 16,8,8


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig(harness.Config):
    """Flags."""

    model: str = flag(
        "dense", f"Choose encoder and decoder: {', '.join(MODELS)}, or FILE.py:FUNCTION for your "
        "own.", topic="model",
    )  # fmt: skip
    variational: bool = flag(
        False, "Make the code a latent variable, with a KL divergence from a prior.", topic="model"
    )
    latent: str = flag(
        "gaussian", "Choose the variational latent.", ("gaussian", "clipped", "bernoulli"), "model"
    )
    bit_gradient: str = flag(
        "straight_through", "Train Bernoulli bits by the gradient of their expectation "
        "(straight_through) or of a relaxed sample (concrete).", ("straight_through", "concrete"),
        "training",
    )  # fmt: skip
    latent_dim: int = flag(
        32, "Give codes this many numbers, from a linear layer; 0 takes the encoder's last layer "
        "or map as it is, which conv_up and conv_transposed need.", topic="model",
    )  # fmt: skip
    hidden: str = flag(
        "", "Give dense or recurrent models layers of these widths; the default is the model's "
        "own.", topic="model",
    )  # fmt: skip
    channels: str = flag(
        "16,8,8", "Give the blocks of a convolutional encoder these channels, which the decoder "
        "mirrors.", topic="model",
    )  # fmt: skip
    pool: str = flag(
        "max", "Pool each convolutional block in this way.", ("max", "average"), "model"
    )
    batch_norm: bool = flag(
        False, "Normalise convolutional blocks by batch statistics.", topic="model"
    )
    dropout: float = flag(
        0.0, "Drop this share of a convolutional encoder's numbers in training.", topic="training"
    )
    patch: str = flag(
        "4,4", "Cut images into patches of this height and width for attention; 1,28 are MNIST's "
        "rows.", topic="model",
    )  # fmt: skip
    width: int = flag(32, "Give attention this many numbers per patch.", topic="model")
    depth: int = flag(2, "Give attention this many blocks on either side.", topic="model")
    loss: str = flag(
        "bce", "Minimise this error of a pixel: cross-entropy or squared error.", ("bce", "mse"),
        "training",
    )  # fmt: skip
    optimizer: str = flag(
        "adam", "Choose the optimizer; adadelta has a learning rate of 1.", ("adam", "adadelta"),
        "training",
    )  # fmt: skip
    learning_rate_end: float = flag(
        0.0, "Move the learning rate geometrically to this value; 0 keeps it constant.",
        topic="training",
    )  # fmt: skip
    beta: float = flag(
        1.0, "Weight the KL divergence of a variational model by beta.", topic="training"
    )
    shift: float = flag(
        0.0, "Move each image that the encoder sees by up to this many pixels; the decoder "
        "reconstructs it unchanged.", topic="augmentation",
    )  # fmt: skip
    degrees: float = flag(
        0.0, "Rotate each image that the encoder sees by up to this many degrees.",
        topic="augmentation",
    )  # fmt: skip
    zoom: float = flag(
        0.0, "Scale each image that the encoder sees by up to 1 plus this factor.",
        topic="augmentation",
    )  # fmt: skip
    eval_k: int = flag(
        2, "Report map@K/retrieved and precision@K at this K.", topic="codes and scores"
    )

    SCALARS = ("learning_rate", "learning_rate_end", "beta")
    EVALUATION = ("eval_k",)

    def check(self) -> None:
        """See options.Config."""
        super().check()
        if self.model not in MODELS and ".py:" not in self.model:
            known = ", ".join(MODELS)
            raise ValueError(
                f"--model must be one of {known} or FILE.py:FUNCTION, got {self.model!r}"
            )
        harness.at_least(self, "latent_dim", 0)
        harness.at_least(self, "eval_k", 1)
        if self.variational and not self.latent_dim:
            raise ValueError("--variational needs --latent_dim of at least 1, got 0")
        if len(harness.positive_integers("patch", self.patch)) != 2:
            raise ValueError(f"--patch must be two numbers such as 4,4, got {self.patch!r}")
        harness.check_settings(lambda: self.settings().check())

    def settings(self):
        """Return the hasher's settings: the flags of the same names."""
        from jaxret.hashers.autoencoder import AutoencoderSettings

        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(AutoencoderSettings)}
        for name in LISTS:
            given = values[name]
            values[name] = harness.positive_integers(name, given) if given else ()
        if self.model not in MODELS:
            values["model"] = "dense"  # own_model stands in for it
        return AutoencoderSettings(**values)


CONFIG = AutoencoderConfig


def hasher(config: AutoencoderConfig, protocol):
    """Return the hasher that the flags describe, for a protocol's images."""
    from jaxret import hashers

    own = None if config.model in MODELS else own_model(config.model)
    settings = dataclasses.asdict(config.settings())
    image_shape = protocol.train.images.shape[1:]
    return hashers.autoencoder_hasher(config.latent_dim, image_shape, own_model=own, **settings)


@functools.cache  # a module's class must stay the same, or all is compiled again
def own_model(name: str) -> Callable:
    """Return the function of a file that FILE.py:FUNCTION names.

    Raises ValueError if there is no such file or function; errors of the file are its own.
    """
    file, _, function = name.rpartition(":")
    file = os.path.expanduser(file)
    if not os.path.isfile(file):
        raise ValueError(f"--model: there is no file {file}")
    found = runpy.run_path(file)
    if function not in found:
        raise ValueError(f"--model: {file} has no function {function!r}")
    return found[function]


def positives(config: AutoencoderConfig, images):
    """Return None: no loss here compares images."""
    del config, images


def bounds(config: AutoencoderConfig) -> bool:
    """Return whether the loss is a likelihood: a squared error lacks its constant."""
    return config.loss == "bce"


def score(config: AutoencoderConfig, hasher, params, protocol, overlap: int) -> dict[str, float]:
    """Return retrieval scores, reconstruction errors, and the length of a code."""
    errors = {}
    for part, images in (("train", protocol.train), ("test", protocol.query)):
        means = report.measured(hasher, params, images, config.seed)
        wanted = (name for name in ("mse", "bce", "mse784_plus_kl") if name in means)
        errors |= {f"{name}/{part}": means[name] for name in wanted}
    if config.variational:  # the published score is of images that did not train
        errors["mse784_plus_kl"] = errors["mse784_plus_kl/test"]
    code = hasher.encode(params, protocol.query.images[:1])
    found = report.retrieval(config, hasher, params, protocol, overlap)
    return found | errors | {"code_size": code.shape[1]}


def pictures(config: AutoencoderConfig, hasher, params, protocol, title: str) -> drawing.Pictures:
    """Return what the decoder makes of codes: between two images, over a plane, of the prior."""
    drawn = {"interpolation": lambda: drawing.interpolations(hasher, params, protocol.query, title)}
    if config.latent_dim == 2:
        drawn["manifold"] = lambda: _manifold(hasher, params, protocol, title)
    if hasher.generate is not None:
        drawn["samples"] = lambda: drawing.samples(hasher, params, config.seed, title)
    return drawn


def _manifold(hasher, params, protocol, title):
    import numpy as np

    codes = np.asarray(hasher.encode(params, report.sample(protocol.query, 1000).images))
    low, high = np.quantile(codes, (0.02, 0.98), axis=0)
    axes = np.linspace(low, high, 20).T
    return drawing.plane(hasher, params, *axes, title, "Decoded from a grid over the codes")


if __name__ == "__main__":
    training.run(sys.modules[__name__])
