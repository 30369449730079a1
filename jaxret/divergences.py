"""Distances beyond Euclidean and Hamming, each as an inner product of two sides.

Every one is d(q, g) = <u(q), v(g)>, up to a number that depends on q alone and so changes no
ranking: all galleries are ranked by one matrix product. SIDES: name -> (u, v).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Rows = Float[Array, "n d"]
Posteriors = Float[Array, "n p"]  # means, then logarithms of variances, of independent Gaussians


def _unit(x: Rows) -> Rows:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _moments(posteriors: Posteriors) -> tuple[Rows, Rows]:
    mean, log_variance = jnp.split(posteriors, 2, axis=1)
    return mean, jnp.exp(log_variance)


def _columns(*parts):
    return jnp.concatenate(parts, axis=1)


def _mahalanobis_query(posteriors: Posteriors) -> Rows:
    """The sum of (m - m')^2 / v, with the query's means m and variances v."""
    mean, variance = _moments(posteriors)
    return _columns(1 / variance, -2 * mean / variance)


def _mahalanobis_gallery(posteriors: Posteriors) -> Rows:
    mean, _ = _moments(posteriors)
    return _columns(mean**2, mean)


def _symmetric_kl_query(posteriors: Posteriors) -> Rows:
    """KL(q | g) + KL(g | q) (Jeffreys 1946).

    Of Gaussians: half the sum of (v + (m - m')^2) / v' + (v' + (m - m')^2) / v - 2.
    """
    mean, variance = _moments(posteriors)
    ones = jnp.ones((len(mean), 1))
    return _columns(variance + mean**2, -2 * mean, ones, 1 / variance, -2 * mean / variance) / 2


def _symmetric_kl_gallery(posteriors: Posteriors) -> Rows:
    mean, variance = _moments(posteriors)
    own = jnp.sum(mean**2 / variance, axis=1, keepdims=True)
    return _columns(1 / variance, mean / variance, own, variance + mean**2, mean)


SIDES: dict[str, tuple[Callable[[Rows], Rows], Callable[[Rows], Rows]]] = {
    # 1 - cos, of vectors.
    "cosine": (lambda x: -_unit(x), _unit),
    "mahalanobis": (_mahalanobis_query, _mahalanobis_gallery),
    "symmetric_kl": (_symmetric_kl_query, _symmetric_kl_gallery),
    # The sum of p (1 - p') + (1 - p) p', where logits give the probabilities p of independent bits.
    "expected_hamming": (lambda logits: -jnp.tanh(logits / 2), jax.nn.sigmoid),
}
