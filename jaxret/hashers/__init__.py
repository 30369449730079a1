"""Hashers: whatever turns images into codes, learnt or not, behind one face.

HASHERS: name -> constructor.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from jaxret import train
from jaxret.models import dense_autoencoder

from . import classic, hashnet
from .autoencoder import OPTIMIZERS, PlainAutoencoder, make_autoencoder, pixel_errors
from .hashnet import DeepHash, make_hashnet, mean_image
from .latents import LATENTS, Latent
from .network import weights
from .vae import VAE, make_vae, quantised, scale


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
        info = {}
        state = train.fit(
            vae.trainer,
            vae.trainer.init(key, hyper),
            hyper,
            images,
            jax.numpy.zeros(len(images), int) if labels is None else labels,
            epochs=epochs,
            batch_size=batch_size,
            on_epoch=lambda _, epoch: info.update(
                {name: float(value) for name, value in epoch.terms.items()}
            ),
        )
        return weights(state), info

    encode = {"mean": vae.mean, "sample": vae.sample}[features]
    return Hasher(fit, jax.jit(encode), latent.distance)


def pixels_hasher() -> Hasher:
    """Raw pixels: the floor for codes of any length."""
    fit, encode = classic.pixels()
    return Hasher(fit, jax.jit(encode), "euclidean")


def pca_hasher(dim: int) -> Hasher:
    """Principal components of the pixels: the floor for codes of dim real numbers."""
    fit, encode = classic.pca(dim)
    return Hasher(fit, jax.jit(encode), "euclidean")


HASHERS = {"vae": vae_hasher, "pixels": pixels_hasher, "pca": pca_hasher}

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
