"""Image retrieval with learned codes, in JAX and Flax.

Images become codes, codes are packed and searched, neighbors are scored: one module per stage.
Names are imported when they are first used, so that `import jaxret` loads neither JAX nor NumPy.
"""

from typing import TYPE_CHECKING

from jaxret.lazy import getter

__version__ = "0.2.0"

if TYPE_CHECKING:
    from jaxret.codes import pack, unpack
    from jaxret.data import ImageSet, Protocol, load, load_protocol, read_image
    from jaxret.features import FEATURES
    from jaxret.gallery import Gallery
    from jaxret.hashers import (
        HASHERS,
        LATENTS,
        Encoder,
        Hasher,
        autoencoder_hasher,
        deep_hasher,
        itq_hasher,
        labels_hasher,
        load_encoder,
        look_hasher,
        lsh_hasher,
        pca_hasher,
        pcah_hasher,
        photo_hasher,
        pixels_hasher,
        recipes,
        save_encoder,
        vae_hasher,
    )
    from jaxret.models import MODELS
    from jaxret.positives import knn_positives
    from jaxret.search import Neighbors, euclidean_topk, hamming_topk

_HOMES = {
    # Images in: data sets by name, folders, retrieval protocols.
    "data": ("ImageSet", "Protocol", "load", "load_protocol", "read_image"),
    # Learning: whatever turns images into codes.
    "hashers": (
        "HASHERS", "LATENTS", "Encoder", "Hasher", "autoencoder_hasher", "deep_hasher",
        "itq_hasher", "labels_hasher", "load_encoder", "look_hasher", "lsh_hasher", "pca_hasher",
        "pcah_hasher", "photo_hasher", "pixels_hasher", "recipes", "save_encoder", "vae_hasher",
    ),
    "features": ("FEATURES",),
    "models": ("MODELS",),
    "positives": ("knn_positives",),
    # Retrieval: bits, search, galleries, scores.
    "codes": ("pack", "unpack"),
    "search": ("Neighbors", "euclidean_topk", "hamming_topk"),
    "gallery": ("Gallery",),
}  # fmt: skip
_MODULES = frozenset({
    "app", "augment", "checkpoint", "codes", "data", "divergences", "encoder", "evaluate",
    "features", "gallery", "hashers", "index", "inputs", "losses", "metrics", "models", "positives",
    "relax", "search", "train", "viz",
})  # fmt: skip

__all__ = [
    "FEATURES",
    "HASHERS",
    "LATENTS",
    "MODELS",
    "Encoder",
    "Gallery",
    "Hasher",
    "ImageSet",
    "Neighbors",
    "Protocol",
    "autoencoder_hasher",
    "deep_hasher",
    "euclidean_topk",
    "hamming_topk",
    "itq_hasher",
    "knn_positives",
    "labels_hasher",
    "load",
    "load_encoder",
    "load_protocol",
    "look_hasher",
    "lsh_hasher",
    "pack",
    "pca_hasher",
    "pcah_hasher",
    "photo_hasher",
    "pixels_hasher",
    "read_image",
    "recipes",
    "save_encoder",
    "unpack",
    "vae_hasher",
]


__getattr__ = getter(__name__, _HOMES, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
