"""Hashers without networks: pixels, principal components, and linear bits (LSH, PCAH, ITQ).

They learn from images, whose pixels are scaled to [0, 1], or from vectors (see `inputs`).
Those with bits are the no-learning baselines that learned codes must beat. `linear_hasher` is what
any hasher of linear bits is made with, those that learn from labels included.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxret import inputs
from jaxret.inputs import Inputs

from .base import Hasher, OfImages, check_whole, labelled
from .pixels import pixel_errors

Params = dict[str, Any]
BLOCK = 4096  # images that are turned into float32 at once
_dot = partial(jnp.dot, precision=lax.Precision.HIGHEST)  # as exact on a GPU as on a CPU


def pixels_hasher() -> Hasher:
    """Return raw pixels, in [0, 1], as the code: the baseline for codes of any length."""

    def fit(key, images, labels=None, *, on_epoch=None):
        del key, images, labels, on_epoch
        return {}, {}

    def encode(params, images):
        del params
        return flatten(images)

    return Hasher(fit, OfImages(encode), "euclidean", spec={"name": "pixels", "settings": {}})


def pca_hasher(dims: int) -> Hasher:
    """Return the first principal components of the pixels: the baseline for real-valued codes.

    `decode` is the least-squares reconstruction from the components. The info of `fit` has
    `explained`, the share of the variance that the components hold.
    """

    def learn(key, images, mean):
        del key
        components, explained = principal_components(images, mean, dims)
        return components, {"explained": explained}

    hasher = linear_hasher("pca", dims, learn, distance="euclidean", settings={"dims": dims})

    def measure(params, key, images, labels):
        del key, labels
        return pixel_errors(images, _decode(params, hasher.encode(params, images)))

    return hasher._replace(decode=jax.jit(_decode), measure=OfImages(measure, 2))


def lsh_hasher(bits: int, *, centred: bool = True) -> Hasher:
    """Return the signs of random projections (Charikar 2002), as many as one likes.

    Two vectors at an angle t share a bit with probability 1 - t / pi. Pixels are never negative,
    so the angles between images are small and most bits agree: with `centred` the mean image is
    subtracted first. Tables in the literature are without.
    """

    def learn(key, images, mean):
        del images
        return jax.random.normal(key, (mean.size, bits)), {}

    settings = {"bits": bits, "centred": centred}
    return linear_hasher("lsh", bits, learn, settings=settings, centred=centred)


def pcah_hasher(bits: int) -> Hasher:
    """Return the signs of the principal components: ITQ without its rotation (Gong 2011)."""

    def learn(key, images, mean):
        del key
        components, explained = principal_components(images, mean, bits)
        return components, {"explained": explained}

    return linear_hasher("pcah", bits, learn, settings={"bits": bits})


def pcarr_hasher(bits: int) -> Hasher:
    """Return the signs of principal components after a random rotation (Gong 2011, PCA-RR).

    It is ITQ before it learns.
    """
    return itq_hasher(bits, iterations=0)._replace(
        spec={"name": "pcarr", "settings": {"bits": bits}}
    )


def itq_hasher(bits: int, *, iterations: int = 50) -> Hasher:
    """Return iterative quantisation (Gong 2011): principal components, rotated towards their signs.

    With 0 iterations the rotation stays random (PCA-RR). The info of `fit` has `explained`, as for
    `pca_hasher`, and `quantisation`, the squared distance between an image's rotated components
    and their signs.
    """

    def learn(key, images, mean):
        components, explained = principal_components(images, mean, bits)
        v = project(images, mean, components)
        rotation, losses = itq_rotation(key, v, iterations)
        info = {"explained": explained, "quantisation": float(losses[-1])}
        return _dot(components, rotation), info

    settings = {"bits": bits, "iterations": iterations}
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0, got {iterations}")
    return linear_hasher("itq", bits, learn, settings=settings)


def itq_rotation(
    key: PRNGKeyArray, v: Float[Array, "n b"], iterations: int
) -> tuple[Float[Array, "b b"], Float[Array, " _"]]:
    """Return the rotation R that brings V R near its signs B, and the loss after every half-step.

    The loss is Q(B, R) = |B - V R|^2 / n (Gong 2011; Jimenez 2017, eq. 3.1). From a random rotation
    on, each iteration takes B = sign(V R), then the R that solves the orthogonal Procrustes problem
    for B: with B^T V = U S W^T, R = W U^T. Neither half-step can raise the loss.

    Args:
        key: draws the first rotation, uniform over all.
        v: centred data, n rows.
        iterations: how many times both half-steps are done.

    Returns:
        The rotation, and 2 iterations + 1 losses: the last one is that of the signs of V R.
    """
    return _improve(jax.random.orthogonal(key, v.shape[1]), v, iterations)


@partial(jax.jit, static_argnames="iterations")
def _improve(rotation, v, iterations):
    def signs(rotation):
        return jnp.where(_dot(v, rotation) >= 0, 1.0, -1.0)

    def loss(b, rotation):
        return jnp.sum((b - _dot(v, rotation)) ** 2) / len(v)

    def step(rotation, _):
        b = signs(rotation)
        before = loss(b, rotation)
        u, _, w = jnp.linalg.svd(_dot(b.T, v))  # w is W^T
        rotation = _dot(w.T, u.T)
        return rotation, (before, loss(b, rotation))

    rotation, losses = lax.scan(step, rotation, length=iterations)
    last = loss(signs(rotation), rotation)
    return rotation, jnp.append(jnp.stack(losses, axis=1).reshape(-1), last)


def principal_components(
    images: Inputs, mean: Float[Array, "*shape"], count: int
) -> tuple[Float[Array, "d b"], float]:
    """Return the first directions of greatest variance, as columns, and the share they explain.

    Each column's largest entry is positive, so that the same images give the same signs whatever
    computes them. The cost is n d min(n, d) + min(n, d)^3.

    Args:
        images: u8[n h w c], or f32[n d].
        mean: their mean, of one image's shape.
        count: how many directions.

    Raises:
        ValueError: for more directions than dimensions or than images.
    """
    n, d = len(images), mean.size
    if not 1 <= count <= min(n, d):
        raise ValueError(
            f"bits or dims must lie between 1 and {min(n, d)}, the number of principal components "
            f"of {n} images of {d} numbers, got {count}"
        )
    if d <= n:
        scatter = sum(_scatter(block, mean) for block in blocks(images))
        variances, directions = jnp.linalg.eigh(scatter)  # ascending
        directions = directions[:, ::-1][:, :count]
    else:
        x = jnp.concatenate([_centre(block, mean) for block in blocks(images)])
        variances, rows = jnp.linalg.eigh(_dot(x, x.T))
        # QR also makes unit vectors of directions without variance, where division would not.
        directions = jnp.linalg.qr(_dot(x.T, rows[:, ::-1][:, :count]))[0]
    largest = jnp.argmax(jnp.abs(directions), axis=0)
    directions = directions * jnp.sign(directions[largest, jnp.arange(count)])[None]
    total = jnp.maximum(jnp.sum(variances), jnp.finfo(jnp.float32).tiny)
    return directions, float(jnp.sum(variances[::-1][:count]) / total)


def some_images(images: Any) -> Any:
    """Return accepted images or vectors to learn from; ValueError where there is none."""
    images = inputs.accept(images)
    if len(images) == 0:
        raise ValueError("codes are learned from at least 1 image, got 0")
    return images


def flatten(images: Inputs) -> Float[Array, "n d"]:
    """Return one row of numbers per image: pixels scaled to [0, 1], vectors as they are."""
    images = jnp.asarray(inputs.accept(images))
    scale = 255 if images.dtype == jnp.uint8 else 1
    return images.reshape(len(images), math.prod(images.shape[1:])).astype(jnp.float32) / scale


def project(
    images: Inputs, mean: Float[Array, "*shape"], projection: Float[Array, "d b"]
) -> Float[Array, "n b"]:
    """Return the centred images times a projection, in blocks of bounded memory."""
    return jnp.concatenate([_project(block, mean, projection) for block in blocks(images)])


def linear_hasher(
    name: str,
    size: int,
    learn: Callable[..., tuple[Float[Array, "d b"], dict[str, float]]],
    *,
    settings: dict[str, Any],
    distance: str = "hamming",
    centred: bool = True,
    supervised: bool = False,
) -> Hasher:
    """Return a hasher whose code is a linear map of the centred image.

    Its params are mean, of an image's shape, and projection, one column per bit.

    Args:
        name: its key in HASHERS.
        size: numbers per code.
        learn: (key, images, mean) -> (projection, info); with the labels as a fourth argument
            where it is supervised.
        settings: the constructor's arguments, the size first.
        distance: how codes are compared.
        centred: whether the mean of the images is subtracted; zeros stand for it otherwise.
        supervised: whether it learns from labels. Images of class -1 are then left out.
    """
    check_whole(next(iter(settings)), size)

    def fit(key, images, labels=None, *, on_epoch=None):
        del on_epoch  # nothing here learns in epochs
        images = some_images(images)
        classes = ()
        if supervised:
            images, *classes = labelled(images, labels)
        mean = mean_of(images) if centred else jnp.zeros(images.shape[1:])
        projection, info = learn(key, images, mean, *classes)
        return {"mean": mean, "projection": projection}, info

    def encode(params, images):
        mean = params["mean"]
        check_size(name, images, mean.shape)
        return _project(images, mean, params["projection"])

    return Hasher(fit, OfImages(encode), distance, spec={"name": name, "settings": settings})


def check_size(name: str, images: Inputs, shape: tuple[int, ...]) -> None:
    """Refuse images of another number of numbers than those that a hasher learned from."""
    if math.prod(images.shape[1:]) != math.prod(shape):
        raise ValueError(
            f"this {name} learned from {list(shape)} numbers per image, got "
            f"{list(images.shape[1:])}"
        )


def _decode(params: Params, z: Float[Array, "n b"]) -> Float[Array, "n *shape"]:
    mean = params["mean"]
    x = _dot(z, params["projection"].T).reshape(-1, *mean.shape) + mean[None]
    return x if mean.ndim == 1 else jnp.clip(x, 0.0, 1.0)  # vectors have no bounds, pixels do


def blocks(images: Inputs) -> Iterator[Inputs]:
    """Yield images a bounded number at a time."""
    return (images[first : first + BLOCK] for first in range(0, len(images), BLOCK))


def mean_of(images: Inputs) -> Float[Array, "*shape"]:
    """Return the mean of images, of an image's shape."""
    total = sum(_total(block) for block in blocks(images))
    return jnp.reshape(total / len(images), images.shape[1:])


@jax.jit
def _total(block):
    return jnp.sum(flatten(block), axis=0)


@jax.jit
def _centre(block, mean):
    return flatten(block) - mean.reshape(1, -1)


@jax.jit
def _scatter(block, mean):
    x = _centre(block, mean)
    return _dot(x.T, x)


@jax.jit
def _project(block, mean, projection):
    return _dot(_centre(block, mean), projection)
