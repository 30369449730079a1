"""Image retrieval with learned codes, in JAX and Flax.

Images become codes, codes are packed and searched, neighbours are scored. Each stage is a module;
those that load slowly (viz, checkpoint) are imported where they are used.
"""

# Images in: data sets by name, folders, retrieval protocols.
from jaxret.data import ImageSet, Protocol, load, load_protocol

# Learning: networks, relaxations, losses, training.
from jaxret.hashers import (
    HASHERS,
    LATENTS,
    Hasher,
    deep_hasher,
    make_autoencoder,
    make_hashnet,
    make_vae,
    vae_hasher,
)
from jaxret.models import MODELS, Autoencoder, HashNet
from jaxret.train import TrainState, fit, make_trainer, sweep_init

# Retrieval: bits, search, galleries. Scores are in jaxret.metrics and jaxret.evaluate.
from jaxret.codes import pack, unpack
from jaxret.gallery import Gallery
from jaxret.search import Neighbors, euclidean_topk, hamming_topk

__all__ = [
    "HASHERS",
    "LATENTS",
    "MODELS",
    "Autoencoder",
    "Gallery",
    "HashNet",
    "Hasher",
    "ImageSet",
    "Neighbors",
    "Protocol",
    "TrainState",
    "deep_hasher",
    "euclidean_topk",
    "fit",
    "hamming_topk",
    "load",
    "load_protocol",
    "make_autoencoder",
    "make_hashnet",
    "make_trainer",
    "make_vae",
    "pack",
    "sweep_init",
    "unpack",
    "vae_hasher",
]
