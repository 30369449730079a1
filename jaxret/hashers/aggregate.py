"""One vector per image from its many local descriptors: bags of visual words, VLAD, Fisher vectors.

    bow      which words an image has, how often (Sivic 2003)
    vlad     how far descriptors lie from their word, summed for each word (Jegou 2010)
    fisher   how words would have to move and widen to fit the descriptors (Perronnin 2010)

Words are learned from descriptors of the training images, dense SIFT: by k-means, for Fisher
vectors by a mixture of Gaussians with diagonal covariances. The vector's square roots with their
signs are scaled to length 1, and principal components of that are the code, real numbers that are
compared by Euclidean distance. No label is read.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxret import inputs
from jaxret.features.sift import LENGTH, descriptors

from .base import Hasher, OfImages, check_whole
from .shallow import BLOCK, blocks, principal_components, some_images

Params = dict[str, Any]
SAMPLE = 20_000  # descriptors that words are learned from, at most
ROUNDS = 30  # of k-means and of the mixture, at most
LEAST = 1e-4  # variance of a Gaussian, at least


class Kind(NamedTuple):
    """A way to aggregate descriptors."""

    learn: Callable[[int, Any, int], Params]  # (seed, descriptors f32[s d], words) -> words
    vectors: Callable[[Params, Float[Array, "n m d"]], Float[Array, "n v"]]
    words: int  # by default


def _k_means(seed: int, sample: np.ndarray, words: int) -> Params:
    from sklearn.cluster import KMeans

    found = KMeans(words, n_init="auto", max_iter=ROUNDS, random_state=seed).fit(sample)
    return {"centres": found.cluster_centers_.astype(np.float32)}


def _mixture(seed: int, sample: np.ndarray, words: int) -> Params:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        words, covariance_type="diag", max_iter=ROUNDS, reg_covar=LEAST, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few rounds are enough
        mixture.fit(sample)
    kept = {
        "centres": mixture.means_,
        "variances": mixture.covariances_,
        "shares": mixture.weights_,
    }
    return {name: np.asarray(value, np.float32) for name, value in kept.items()}


def nearest_word(x: Float[Array, "n m d"], centres: Float[Array, "k d"]) -> Float[Array, "n m k"]:
    """Return 1 for the centre that a descriptor is nearest to, 0 for the others."""
    products = jnp.einsum("nmd,kd->nmk", x, centres)
    nearest = jnp.argmin(jnp.sum(centres**2, axis=1)[None, None] - 2 * products, axis=2)
    return jax.nn.one_hot(nearest, len(centres))


def bag_of_words(params: Params, x: Float[Array, "n m d"]) -> Float[Array, "n k"]:
    """Return the share of an image's descriptors that each word has."""
    return jnp.mean(nearest_word(x, params["centres"]), axis=1)


def vlad(params: Params, x: Float[Array, "n m d"]) -> Float[Array, "n v"]:
    """Return, for each word, the sum of its descriptors' differences from it."""
    own = nearest_word(x, params["centres"])
    sums = jnp.einsum("nmk,nmd->nkd", own, x)
    sums = sums - jnp.sum(own, axis=1)[:, :, None] * params["centres"][None]
    return sums.reshape(len(x), -1)


def fisher(params: Params, x: Float[Array, "n m d"]) -> Float[Array, "n v"]:
    """Return the gradients of the mean log-likelihood by centres and deviations, each scaled.

    Scaled by the inverse square root of the (approximate) Fisher information, as Perronnin 2010.
    """
    centres, variances, shares = (params[name] for name in ("centres", "variances", "shares"))
    away = (x[:, :, None] - centres[None, None]) * jax.lax.rsqrt(variances)[None, None]
    density = jnp.log(shares) - jnp.sum(jnp.log(variances), axis=1) / 2
    own = jax.nn.softmax(density[None, None] - jnp.sum(away**2, axis=3) / 2, axis=2)
    scale = jax.lax.rsqrt(shares)[None, :, None] / x.shape[1]
    of_centres = scale * jnp.einsum("nmk,nmkd->nkd", own, away)
    of_widths = scale / jnp.sqrt(2.0) * jnp.einsum("nmk,nmkd->nkd", own, away**2 - 1)
    return jnp.stack([of_centres, of_widths], axis=1).reshape(len(x), -1)


KINDS = {
    "bow": Kind(_k_means, bag_of_words, 256),
    "vlad": Kind(_k_means, vlad, 16),
    "fisher": Kind(_mixture, fisher, 16),
}


def aggregate_hasher(kind: str, dims: int, *, words: int | None = None) -> Hasher:
    """Return a hasher of local descriptors, aggregated to one vector and compressed.

    It takes images, or the vectors of `features.sift`.

    Args:
        kind: a key of KINDS.
        dims: numbers of a code, at most as many as a vector has and as there are images.
        words: how many are learned; None: 256 for bow, else 16.

    Returns:
        Hasher.

    Raises:
        ValueError: for a kind that is none, and for sizes that are no whole numbers. fit raises it
            where there are fewer descriptors than words.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    own = KINDS[kind]
    check_whole("dims", dims)
    words = own.words if words is None else words
    check_whole("words", words, least=2)
    vectors_of = jax.jit(partial(_vectors, own.vectors))

    def fit(key: PRNGKeyArray, images: Any, labels: Any = None, *, on_epoch: Any = None):
        del labels, on_epoch
        images = some_images(images)
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        sample = _sample(images, seed)
        if len(sample) < words:
            raise ValueError(f"{words} words need as many descriptors, got {len(sample)}")
        params = jax.tree.map(jnp.asarray, own.learn(seed, sample, words))
        x = jnp.concatenate([vectors_of(params, block) for block in blocks(images)])
        mean = jnp.mean(x, axis=0)
        projection, explained = principal_components(x, mean, dims)
        return params | {"mean": mean, "projection": projection}, {"explained": explained}

    def encode(params, images):
        vectors = _vectors(own.vectors, params, images)
        return jnp.dot(vectors - params["mean"][None], params["projection"])

    spec = {"name": kind, "settings": {"dims": dims, "words": words}}
    return Hasher(fit, OfImages(encode), "euclidean", spec=spec)


def _descriptors(images):
    """The descriptors of images, or those that stand one after another in vectors."""
    if images.ndim == 4:
        return descriptors(images)
    if images.shape[1] % LENGTH:
        raise ValueError(
            f"vectors must hold descriptors of {LENGTH} numbers, got {images.shape[1]} numbers"
        )
    return jnp.asarray(images).reshape(len(images), -1, LENGTH)


def _vectors(aggregate, params, images):
    x = aggregate(params, _descriptors(inputs.accept(images)))
    x = jnp.sign(x) * jnp.sqrt(jnp.abs(x))
    length = jnp.linalg.norm(x, axis=1, keepdims=True)
    return x / jnp.where(length > 0, length, 1.0)


def _sample(images, seed):
    """Descriptors of a random sample of images, at most SAMPLE of them."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(images))[:BLOCK])
    x = np.asarray(_descriptors(images[rows])).reshape(-1, LENGTH)
    return x[np.sort(rng.permutation(len(x))[:SAMPLE])]
