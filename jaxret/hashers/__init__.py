"""Hashers: whatever turns images into codes, learnt or not, behind one face.

HASHERS: name -> constructor. Its first argument is the length of a code, its other arguments are
plain values, and what it makes is a `Hasher`.
"""

from collections.abc import Callable
from functools import partial

from . import recipes
from .aggregate import KINDS, aggregate_hasher
from .autoencoder import AutoencoderSettings, autoencoder_hasher
from .base import Hasher, fit_all
from .classifier import ClassifierSettings, classifier_hasher
from .correlation import itqcca_hasher
from .deep import DeepSettings, deep_hasher, functions_of
from .keep import Encoder, load_encoder, save_encoder
from .kernel import ksh_hasher, sdh_hasher
from .latents import LATENTS
from .methods import METHODS
from .network import weights
from .pairs import bre_hasher, mlh_hasher
from .pretrained import (
    extractor_of,
    feature_autoencoder_hasher,
    labels_hasher,
    look_hasher,
    photo_hasher,
)
from .shallow import (
    itq_hasher,
    lsh_hasher,
    pca_hasher,
    pcah_hasher,
    pcarr_hasher,
    pixels_hasher,
)
from .shared import MethodSettings, method_hasher
from .spectral import sh_hasher
from .vae import VaeSettings, vae_hasher


def _method(name: str) -> Callable[..., Hasher]:
    """The constructor of a method, whose help begins with what the method is."""
    make = partial(method_hasher, name)
    make.__doc__ = f"{METHODS[name].about}\n\n{method_hasher.__doc__}"
    return make


HASHERS: dict[str, Callable[..., Hasher]] = {
    "vae": vae_hasher,
    "autoencoder": autoencoder_hasher,
    "classifier": classifier_hasher,
    "deep": deep_hasher,
    "pixels": pixels_hasher,
    "pca": pca_hasher,
    "lsh": lsh_hasher,
    "pcah": pcah_hasher,
    "pcarr": pcarr_hasher,
    "sh": sh_hasher,
    "itq": itq_hasher,
    "itqcca": itqcca_hasher,
    "bre": bre_hasher,
    "mlh": mlh_hasher,
    "ksh": ksh_hasher,
    "sdh": sdh_hasher,
    "photo": photo_hasher,
    "labels": labels_hasher,
    "feature_autoencoder": feature_autoencoder_hasher,
    "look": look_hasher,
    **{name: partial(aggregate_hasher, name) for name in KINDS},
    **{name: _method(name) for name in METHODS},
}

__all__ = [
    "HASHERS",
    "LATENTS",
    "METHODS",
    "AutoencoderSettings",
    "ClassifierSettings",
    "DeepSettings",
    "Encoder",
    "Hasher",
    "MethodSettings",
    "VaeSettings",
    "aggregate_hasher",
    "autoencoder_hasher",
    "bre_hasher",
    "classifier_hasher",
    "deep_hasher",
    "extractor_of",
    "feature_autoencoder_hasher",
    "fit_all",
    "functions_of",
    "itq_hasher",
    "itqcca_hasher",
    "ksh_hasher",
    "labels_hasher",
    "load_encoder",
    "look_hasher",
    "lsh_hasher",
    "method_hasher",
    "mlh_hasher",
    "pca_hasher",
    "pcah_hasher",
    "pcarr_hasher",
    "photo_hasher",
    "pixels_hasher",
    "recipes",
    "save_encoder",
    "sdh_hasher",
    "sh_hasher",
    "vae_hasher",
    "weights",
]
