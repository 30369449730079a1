"""ITQ-CCA (Gong 2011): directions that correlate with the classes, rotated towards their signs."""

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Int

from .base import Hasher
from .shallow import blocks, flatten, itq_rotation, linear_hasher, project


def itqcca_hasher(bits: int, *, iterations: int = 50, regularisation: float = 1e-4) -> Hasher:
    """Return ITQ on canonical directions, each scaled by its correlation; learns from classes.

    With C classes only C - 1 correlations are not 0. The scaling keeps directions beyond these from
    adding noise, and the rotation spreads the others over all bits. The info of `fit` has
    `correlation`, the greatest, and `quantisation`, as of `itq_hasher`.

    Args:
        bits: length of a code.
        iterations: of ITQ.
        regularisation: added to the diagonals of both covariances. It is in units of the squared
            numbers, so that scaled features need another.
    """

    def learn(key, images, mean, labels):
        embedding, correlations = canonical_directions(images, labels, regularisation)
        kept = min(bits, len(correlations))
        scaled = np.zeros((len(embedding), bits))
        scaled[:, :kept] = embedding[:, :kept] * correlations[None, :kept]
        scaled = jnp.asarray(scaled, jnp.float32)
        v = project(images, mean, scaled)
        rotation, losses = itq_rotation(key, v, iterations)
        info = {"correlation": float(correlations[0]), "quantisation": float(losses[-1])}
        return jnp.dot(scaled, rotation, precision="highest"), info

    settings = {"bits": bits, "iterations": iterations, "regularisation": regularisation}
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0, got {iterations}")
    check_positive("regularisation", regularisation)
    return linear_hasher("itqcca", bits, learn, settings=settings, supervised=True)


def check_positive(name: str, value: float) -> None:
    """Refuse a number that is not finite and above 0."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be above 0, got {value}")


def canonical_directions(
    images: Array | np.ndarray, labels: Int[np.ndarray, " n"], regularisation: float
) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, " d"]]:
    """Return directions W and their correlations with the classes, the greatest first.

    Canonical correlation analysis (Hotelling 1936), with the classes as Gong 2011 does for ITQ-CCA.
    They solve Cxx^-1 Cxy Cyy^-1 Cyx w = r^2 w, where y is the class as a vector of zeros and a one
    and the regularisation is part of Cxx and Cyy; W' Cxx W = 1.

    Args:
        images: images u8[n h w c] or vectors f32[n d].
        labels: classes, counted from 0.
        regularisation: added to both diagonals; above 0 unless both covariances have full rank.
    """
    n, classes = len(images), int(labels.max()) + 1
    y = np.eye(classes)[labels]
    first = np.asarray(flatten(images[:1])).shape[1]
    total, squares, cross = np.zeros(first), np.zeros((first, first)), np.zeros((first, classes))
    place = 0
    for block in blocks(images):
        x = np.asarray(flatten(block), np.float64)
        total += x.sum(axis=0)
        squares += x.T @ x
        cross += x.T @ y[place : place + len(x)]
        place += len(x)
    mean, shares = total / n, y.mean(axis=0)
    scale = max(n - 1, 1)
    cxx = (squares - n * np.outer(mean, mean)) / scale + regularisation * np.eye(first)
    cxy = (cross - n * np.outer(mean, shares)) / scale
    cyy = (np.diag(shares) - np.outer(shares, shares)) * n / scale
    cyy += regularisation * np.eye(classes)
    lower = np.linalg.cholesky(cxx)
    half = scipy.linalg.solve_triangular(lower, cxy, lower=True)
    values, vectors = np.linalg.eigh(half @ np.linalg.solve(cyy, half.T))
    directions = scipy.linalg.solve_triangular(lower.T, vectors[:, ::-1], lower=False)
    return directions, np.sqrt(np.clip(values[::-1], 0, None))
