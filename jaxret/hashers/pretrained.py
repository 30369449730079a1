"""Hashers of photos: bits on top of features that are not trained here.

    photo     features of a pretrained network -> principal components -> ITQ
    labels    the same features -> a hash layer that learns from classes
    feature_autoencoder   the same features -> a dense autoencoder's code, without labels
    look      layout of brightness and colour -> signs; needs no weights and no fit

Each takes images (see `inputs`), squares of any size and best of
`extractor_of(hasher).image_size`, or the features f32[n d] that `features.extract` gave for them,
in `fit` and in `encode`. The params hold the network's weights, so that a saved encoder needs
nothing else.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxret import inputs
from jaxret.features import FEATURES, Extractor, check_preprocessing, extract
from jaxret.models.layers import check_choice
from jaxret.train import convolution_options

from .base import Hasher, OfImages, settings_from
from .feature_autoencoder import FeatureAutoencoderSettings, embed, fit_feature_autoencoder
from .hash_layer import HashLayerSettings, fit_hash_layer, units
from .shallow import itq_hasher, lsh_hasher, pca_hasher, project

Params = dict[str, Any]
PHOTO = "efficientnet-lite0"
BITS = 256
IMAGES_PER_BIT = 2  # below, components and rotation would fit noise


def photo_hasher(
    bits: int | None = None,
    *,
    dims: int | None = None,
    features: str = PHOTO,
    iterations: int = 50,
    preprocessing: Mapping[str, Any] | None = None,
) -> Hasher:
    """Return bits of pretrained features: principal components and ITQ (Gong 2011), or real codes.

    Features are scaled to unit length first, so that codes follow their cosine.
    Fewer than two images per bit fit noise: then a random orthogonal projection, drawn from the
    key, takes the place of components and rotation. The info of `fit` says so (`fitted` is 0).

    Args:
        bits: length of a binary code; 256 if dims is not given either.
        dims: length of a real code instead: principal components of unit length, so that squared
            Euclidean distance is 2 - 2 cos.
        features: a key of FEATURES.
        iterations: of ITQ.
        preprocessing: that of the features, as a saved encoder states it; None: as it is here.

    Raises:
        ValueError: for bits and dims together, an unknown extractor, or another preprocessing.
    """
    if bits is not None and dims is not None:
        raise ValueError(f"give bits or dims, got {bits} bits and {dims} dims")
    size = dims or bits or BITS
    if size < 1 or 0 in (bits, dims):
        raise ValueError(f"{'bits' if dims is None else 'dims'} must be at least 1, got {size}")
    extractor = _extractor(features)
    settings = {
        "bits": size if dims is None else None,
        "dims": dims,
        "features": features,
        "iterations": iterations,
        "preprocessing": check_preprocessing(extractor, preprocessing),
    }
    itq_hasher(size, iterations=iterations)  # refuses what does not fit

    def fit(key, images, labels=None, *, on_epoch=None):
        del labels, on_epoch
        weights, x = _weights_and_features(extractor, images)
        learn = fit_dims if dims else fit_bits
        linear, info = learn(key, x, size, **({} if dims else {"iterations": iterations}))
        return weights | linear, info

    def encode(params, images):
        x = unit_rows(_features(extractor, params, images))
        z = project(x, params["mean"], params["projection"])
        return unit_rows(z) if dims else z

    return _hasher("photo", fit, encode, settings, "euclidean" if dims else "hamming")


def fit_bits(
    key: PRNGKeyArray, x: Float[Any, "n d"], bits: int, *, iterations: int = 50
) -> tuple[Params, dict[str, float]]:
    """Return mean and projection whose signs are the bits of feature vectors, and the info.

    They are for vectors of unit length (`unit_rows`), to which x is scaled here. `explained` and
    `quantisation` of the info are those of `itq_hasher`; see `photo_hasher`.
    """
    return _fit_linear(key, x, bits, itq_hasher(bits, iterations=iterations))


def fit_dims(key: PRNGKeyArray, x: Float[Any, "n d"], dims: int) -> tuple[Params, dict[str, float]]:
    """Return mean and projection onto principal components of unit vectors, as `fit_bits`."""
    return _fit_linear(key, x, dims, pca_hasher(dims))


def _photo_bits(key, x, bits):
    """The function that gives the codes of photo, fitted to features, for a comparison."""
    params, _ = fit_bits(key, x, bits)
    return lambda x: project(unit_rows(jnp.asarray(x)), params["mean"], params["projection"])


def _fit_linear(key, x, size, hasher):
    n, d = x.shape
    if size > d:
        raise ValueError(
            f"bits or dims must be at most {d}, the length of the features, got {size}"
        )
    x = unit_rows(jnp.asarray(x))
    fitted = n >= IMAGES_PER_BIT * size
    if fitted:
        params, info = hasher.fit(key, x)
    else:
        params, info = lsh_hasher(size).fit(key, x)
        params = params | {"projection": jnp.linalg.qr(params["projection"])[0]}
    return params, info | {"images": float(n), "fitted": float(fitted)}


def labels_hasher(bits: int = BITS, *, features: str = PHOTO, **settings: Any) -> Hasher:
    """Return bits that learn from classes: a hash layer on pretrained features.

    Before it learns from all images, `fit` holds a fifth of each class out, and the info has the
    scores of these as queries: `precision@5/labels`, and `precision@5/photo` of the bits that
    `photo_hasher` makes without labels. Where labels does not beat photo, keep photo.

    Args:
        bits: length of a code.
        features: a key of FEATURES.
        settings: see HashLayerSettings; `preprocessing` as in `photo_hasher`.

    Raises:
        ValueError: for an unknown extractor or setting, or another preprocessing.
    """
    extractor, chosen, told = _chosen(HashLayerSettings, features, settings, bits=bits)

    def fit(key, images, labels=None, *, on_epoch=None):
        del on_epoch
        weights, x = _weights_and_features(extractor, images)
        layer, info = fit_hash_layer(key, x, labels, bits, chosen, _photo_bits)
        return weights | layer, info

    def encode(params, images):
        return units(params, _features(extractor, params, images))

    return _hasher("labels", fit, encode, told, "hamming")


def feature_autoencoder_hasher(
    latent_dim: int, *, features: str = PHOTO, **settings: Any
) -> Hasher:
    """Return codes of real numbers from which a decoder rebuilds pretrained features (Sahu n.d.).

    Args:
        latent_dim: numbers per code.
        features: a key of FEATURES.
        settings: see FeatureAutoencoderSettings; `preprocessing` as in `photo_hasher`.

    Raises:
        ValueError: for an unknown extractor or setting, or another preprocessing.
    """
    extractor, chosen, told = _chosen(
        FeatureAutoencoderSettings, features, settings, latent_dim=latent_dim
    )

    def fit(key, images, labels=None, *, on_epoch=None):
        del labels
        weights, x = _weights_and_features(extractor, images)
        layers, info = fit_feature_autoencoder(key, x, latent_dim, chosen, on_epoch)
        return weights | layers, info

    def encode(params, images):
        return embed(params, _features(extractor, params, images))

    return _hasher("feature_autoencoder", fit, encode, told, "euclidean")


def _chosen(kind: type, features: str, settings: dict[str, Any], **size: int) -> tuple:
    """The extractor, the settings of what learns on it, and all that a spec tells of them.

    size is the length of a code under its name. Raises ValueError where one of them is refused.
    """
    extractor = _extractor(features)
    preprocessing = check_preprocessing(extractor, settings.pop("preprocessing", None))
    chosen = settings_from(kind, settings)
    for name, value in size.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    told = size | {"features": features, "preprocessing": preprocessing}
    return extractor, chosen, told | dataclasses.asdict(chosen)


def look_hasher(bits: int = 64, *, preprocessing: Mapping[str, Any] | None = None) -> Hasher:
    """Return the signs of the lowest frequencies of brightness and colour: alike in look only.

    Equal images have equal codes everywhere: nothing is learned. Of 64 bits 44 are of brightness
    and 20 of colour. See `features.layout`.

    Raises ValueError for more bits than there are frequencies, or another preprocessing.
    """
    extractor = _extractor("layout")
    settings = {"bits": bits, "preprocessing": check_preprocessing(extractor, preprocessing)}
    example = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.uint8)
    most = jax.eval_shape(extractor.apply, {}, example).shape[1]
    if not 1 <= bits <= most:
        raise ValueError(f"bits must lie between 1 and {most}, got {bits}")

    def fit(key, images, labels=None, *, on_epoch=None):
        del key, images, labels, on_epoch
        return {}, {}

    def encode(params, images):
        return _features(extractor, params, images)[:, :bits]

    return _hasher("look", fit, encode, settings, "hamming")


def extractor_of(hasher: Hasher) -> Extractor:
    """Return the extractor of a hasher made here; its image_size is that of the hasher's images.

    Raises ValueError for a hasher without one.
    """
    spec = hasher.spec or {"name": "this hasher"}
    if spec["name"] == "look":
        return _extractor("layout")
    if spec["name"] not in ("photo", "labels", "feature_autoencoder"):
        raise ValueError(
            f"{spec['name']} has no feature extractor; photo, labels, feature_autoencoder and look "
            "do"
        )
    return _extractor(spec["settings"]["features"])


def unit_rows(z: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Return rows of length 1; a row of zeros stays."""
    length = jnp.linalg.norm(z, axis=1, keepdims=True)
    return z / jnp.where(length > 0, length, 1.0)


def _hasher(name, fit, encode, settings, distance):
    compiled = OfImages(encode, options=convolution_options())
    return Hasher(fit, compiled, distance, spec={"name": name, "settings": settings})


def _extractor(name: str) -> Extractor:
    check_choice("features", name, FEATURES)
    return FEATURES[name]()


def _weights_and_features(extractor: Extractor, images: Any) -> tuple[Params, Any]:
    """The part of the params that is the network, and the features of images, or these."""
    x = np.asarray(inputs.accept(images))
    if len(x) == 0:
        raise ValueError("there must be at least 1 image to learn from, got 0")
    weights = extractor.load()
    x = extract(extractor, x, weights) if x.ndim == 4 else x
    return ({"network": weights} if weights else {}), x


def _features(extractor: Extractor, params: Params, images: Any) -> Float[Array, "n d"]:
    x = inputs.accept(images)
    return extractor.apply(params.get("network", {}), x) if x.ndim == 4 else jnp.asarray(x)
