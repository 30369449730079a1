"""Hashers: whatever turns images into codes, learnt or not, behind one face.

HASHERS: name -> constructor. Its first argument is the length of a code, its other arguments are
plain values, and what it makes is a `Hasher`.
"""

from collections.abc import Callable

from . import recipes
from .autoencoder import AutoencoderSettings, autoencoder_hasher
from .base import Hasher, fit_all
from .deep import DeepSettings, deep_hasher, functions_of
from .keep import Encoder, load_encoder, save_encoder
from .latents import LATENTS
from .network import weights
from .pretrained import extractor_of, labels_hasher, look_hasher, photo_hasher
from .shallow import itq_hasher, lsh_hasher, pca_hasher, pcah_hasher, pixels_hasher
from .vae import VaeSettings, vae_hasher

HASHERS: dict[str, Callable[..., Hasher]] = {
    "vae": vae_hasher,
    "autoencoder": autoencoder_hasher,
    "deep": deep_hasher,
    "pixels": pixels_hasher,
    "pca": pca_hasher,
    "lsh": lsh_hasher,
    "pcah": pcah_hasher,
    "itq": itq_hasher,
    "photo": photo_hasher,
    "labels": labels_hasher,
    "look": look_hasher,
}

__all__ = [
    "HASHERS",
    "LATENTS",
    "AutoencoderSettings",
    "DeepSettings",
    "Encoder",
    "Hasher",
    "VaeSettings",
    "autoencoder_hasher",
    "deep_hasher",
    "extractor_of",
    "fit_all",
    "functions_of",
    "itq_hasher",
    "labels_hasher",
    "load_encoder",
    "look_hasher",
    "lsh_hasher",
    "pca_hasher",
    "pcah_hasher",
    "photo_hasher",
    "pixels_hasher",
    "recipes",
    "save_encoder",
    "vae_hasher",
    "weights",
]
