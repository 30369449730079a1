"""Distances beyond Euclidean and Hamming: sums over features of terms that are never negative.

Each is added up feature by feature from direct differences, or from products of numbers that are
not negative. Expanding the squares to rank by one matrix product would cancel: in float32, near
ties would be noise. Here a distance D errs by at most (d + 16) 2^-24 D, rounding of its terms and
their sum; `symmetric_kl`, whose variances are rounded, by 2^-22 sqrt(2 d D) more where they are
within a factor of e; for `cosine` see `unit_rows`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32

STRETCH = 4096  # gallery rows whose distances to a tile of queries fit a cache
UNROLLED = 8  # features in one fused loop
WIDEST = 40.0  # the greatest logarithm of a variance, and the least: float32 squares must not end

Rows = Float[Array | np.ndarray, "n b"]
Parts = tuple[Float32[np.ndarray, "n d"], ...]


class Divergence(NamedTuple):
    """A distance, as a sum over features of term(query's parts, gallery's parts)."""

    query: Callable[[Rows], Parts]
    gallery: Callable[[Rows], Parts]
    term: Callable[[tuple[Array, ...], tuple[Array, ...]], Array]


def unit_rows(rows: Rows, side: int) -> Float32[np.ndarray, "n e"]:
    """Return rows of length 1, of which half the squared Euclidean distance is 1 - cos.

    So search by Euclidean distance finds the nearest by cosine, from direct differences. A
    distance D errs by at most 2^-22 sqrt(2 D) + (d + 8) 2^-24 D + 2^-46: what rounding the
    coordinates of two unit vectors does. The cosine of a row of zeros with any other is 0: each
    side, 0 or 1, has a coordinate of its own for them.
    """
    rows = np.asarray(rows)
    real = jnp.issubdtype(rows.dtype, jnp.floating) or jnp.issubdtype(rows.dtype, jnp.integer)
    if rows.ndim != 2 or rows.shape[1] < 1 or not real:
        raise ValueError(f"rows must be real numbers [n b], got {rows.dtype}{list(rows.shape)}")
    rows = rows.astype(np.float64)
    rows = rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    zeros = np.zeros((len(rows), 2))
    zeros[:, side] = lengths[:, 0] == 0
    unit = rows / np.where(lengths == 0, 1, lengths)
    return np.concatenate([unit, zeros], axis=1).astype(np.float32)


def _moments(posteriors: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Means and logarithms of variances of independent Gaussians."""
    if posteriors.shape[1] % 2:
        raise ValueError(
            f"posteriors must be means, then log variances, got {posteriors.shape[1]} columns"
        )
    mean, log_variance = np.split(np.asarray(posteriors, np.float64), 2, axis=1)
    if np.abs(log_variance).max(initial=0) > WIDEST:
        raise ValueError(
            f"log variances must lie within -{WIDEST:g} and {WIDEST:g}, "
            f"got {log_variance.flat[np.abs(log_variance).argmax()]:g}"
        )
    return mean, log_variance


def _single(*parts: np.ndarray) -> Parts:
    return tuple(np.ascontiguousarray(part, np.float32) for part in parts)


def _mean_and_precision(posteriors: Rows) -> Parts:
    mean, log_variance = _moments(posteriors)
    return _single(mean, np.exp(-log_variance))


def _mean(posteriors: Rows) -> Parts:
    return _single(_moments(posteriors)[0])


def _mahalanobis(query, gallery):
    """(m - m')^2 / v, with the query's mean m and variance v."""
    (m, precision), (n,) = query, gallery
    return jnp.square(m - n) * precision


def _mean_variance_and_precision(posteriors: Rows) -> Parts:
    mean, log_variance = _moments(posteriors)
    return _single(mean, np.exp(log_variance), np.exp(-log_variance))


def _symmetric_kl(query, gallery):
    """Half of (v + (m - m')^2) / v' + (v' + (m - m')^2) / v - 2, written without cancellation.

    Summed over features it is KL(q | g) + KL(g | q) of Gaussians (Jeffreys 1946).
    """
    (m, v, p), (n, w, r) = query, gallery
    return (jnp.square(v - w) * p * r + jnp.square(m - n) * (p + r)) / 2


def _probabilities(logits: Rows) -> Parts:
    """The probabilities of a bit of 1 and of a bit of 0."""
    logits = np.asarray(logits, np.float64)
    return _single(*(0.5 * (1 + np.tanh(sign * logits / 2)) for sign in (1, -1)))


def _expected_hamming(query, gallery):
    """P (1 - p') + (1 - p) p', where logits give the probabilities p of independent bits."""
    (one, zero), (other_one, other_zero) = query, gallery
    return one * other_zero + zero * other_one


DIVERGENCES: dict[str, Divergence] = {
    "mahalanobis": Divergence(_mean_and_precision, _mean, _mahalanobis),
    "symmetric_kl": Divergence(
        _mean_variance_and_precision, _mean_variance_and_precision, _symmetric_kl
    ),
    "expected_hamming": Divergence(_probabilities, _probabilities, _expected_hamming),
}


@partial(jax.jit, static_argnames="term")
def distances(query: tuple, gallery: tuple, term: Callable) -> Float32[Array, "q n"]:
    """Return the distances of a tile of queries to all rows, from the parts of both."""
    q, d = query[0].shape
    n = gallery[0].shape[0]
    stretches = -(-n // STRETCH)
    # Features first: one feature of a stretch of rows is contiguous.
    gallery = tuple(
        jnp.pad(part, ((0, stretches * STRETCH - n), (0, 0)))
        .reshape(stretches, STRETCH, d)
        .transpose(0, 2, 1)
        for part in gallery
    )
    query = tuple(part.T for part in query)

    def feature(parts, i):
        return tuple(lax.dynamic_index_in_dim(part, i, keepdims=False) for part in parts)

    def of_stretch(parts):
        def add(i, total):
            own = tuple(part[:, None] for part in feature(query, i))
            others = tuple(part[None] for part in feature(parts, i))
            return total + term(own, others)

        return lax.fori_loop(0, d, add, jnp.zeros((q, STRETCH)), unroll=min(d, UNROLLED))

    table = lax.map(of_stretch, gallery)
    return table.transpose(1, 0, 2).reshape(q, -1)[:, :n]
