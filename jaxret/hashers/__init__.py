"""Hashers: whatever turns images into codes, learnt or not, behind one face.

HASHERS: name -> constructor.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxret import train
from jaxret.models import HashNet, dense_autoencoder

from . import classic, hashnet
from .autoencoder import OPTIMIZERS, PlainAutoencoder, make_autoencoder, pixel_errors
from .hashnet import DeepHash, make_hashnet, mean_image
from .latents import LATENTS, Latent
from .network import weights
from .vae import VAE, View, make_vae, quantised, scale


class Hasher(NamedTuple):
    """Learn, then encode."""

    fit: Callable[..., tuple[Any, dict[str, float]]]  # (key, images, labels | None) -> params, info
    encode: Callable[[Any, Any], Float[Array, "n b"]]  # (params, images); a bit is value >= 0
    distance: str  # how codes are compared: "euclidean", or "hamming" of the signs


def vae_hasher(
    latent: Latent,
    image_shape: tuple[int, int, int],
    hidden: tuple[int, ...] = (500, 100),
    *,
    features: str = "mean",
    epochs: int = 75,
    batch_size: int = 100,
    learning_rate: float = 1e-3,
    beta: float = 1.0,
    temperature: float = 1.0,
) -> Hasher:
    """A dense variational autoencoder; the defaults are those of Torres 2018."""
    vae = make_vae(dense_autoencoder(image_shape, latent.head_size, hidden), latent, image_shape)
    hyper = {"learning_rate": learning_rate, "beta": beta, "temperature": temperature}

    def fit(key, images, labels=None):
        labels = np.zeros(len(images), int) if labels is None else labels
        return _fitted(
            vae.trainer, key, hyper, images, labels, epochs=epochs, batch_size=batch_size
        )

    encode = {"mean": vae.mean, "sample": vae.sample}[features]
    return Hasher(fit, jax.jit(encode), latent.distance)


def deep_hasher(
    bits: int,
    num_classes: int,
    image_shape: tuple[int, int, int],
    depth: int = 1,
    *,
    epochs: int = 86,
    batch_size: int = 128,
    learning_rate: float = 0.2,
    weight_decay: float = 5e-4,
    label_smoothing: float = 0.1,
    quantisation: float = 0.1,
    view: View | None = None,
) -> Hasher:
    """A residual network with a hash layer (Jimenez 2017), by a recipe of ours, from labels.

    The rate goes up for a fifth of the run, then down to 0. view, if given, changes the images that
    it learns from; see `jaxret.augment.mirror_and_crop`. fit raises ValueError without labels.
    """

    def made(mean):
        return make_hashnet(
            HashNet(depth, bits, num_classes),
            mean,
            terms=("classification", "quantisation"),
            schedule=hashnet.one_cycle(0.2),
            nesterov=True,
            view=view,
        )

    hyper = {
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "classification": 1.0,
        "quantisation": quantisation,
    }

    def fit(key, images, labels=None):
        if labels is None:
            raise ValueError("deep hashing learns from labels, got none")
        scan = jax.default_backend() != "cpu"  # see train.make_epoch_loop
        return _fitted(
            made(mean_image(images)).trainer, key, hyper, images, labels,
            epochs=epochs, batch_size=batch_size, scan=scan,
        )  # fmt: skip

    blank = np.zeros(image_shape, np.float32)  # encode takes the mean from the params
    encode = jax.jit(made(blank).encode, compiler_options=train.convolution_options())
    return Hasher(fit, encode, "hamming")


def _fitted(trainer, key, hyper, images, labels, **how):
    """What fit gives: params, and the last epoch's terms."""
    state, info = trainer.init(key, hyper), {}

    def keep(_, epoch):
        info.update({name: float(value) for name, value in epoch.terms.items()})

    state = train.fit(trainer, state, hyper, images, labels, **how, on_epoch=keep)
    return weights(state), info


def pixels_hasher() -> Hasher:
    """Raw pixels: the floor for codes of any length."""
    fit, encode = classic.pixels()
    return Hasher(fit, jax.jit(encode), "euclidean")


def pca_hasher(dim: int) -> Hasher:
    """Principal components of the pixels: the floor for codes of dim real numbers."""
    fit, encode = classic.pca(dim)
    return Hasher(fit, jax.jit(encode), "euclidean")


HASHERS = {"vae": vae_hasher, "deep": deep_hasher, "pixels": pixels_hasher, "pca": pca_hasher}

__all__ = [
    "HASHERS",
    "LATENTS",
    "OPTIMIZERS",
    "VAE",
    "DeepHash",
    "Hasher",
    "Latent",
    "PlainAutoencoder",
    "hashnet",
    "make_autoencoder",
    "make_hashnet",
    "make_vae",
    "mean_image",
    "pca_hasher",
    "pixel_errors",
    "pixels_hasher",
    "quantised",
    "scale",
    "vae_hasher",
    "weights",
]
