"""How real vectors are kept while they are searched, and the bound that makes a matmul exact."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int32

from jaxret.search.doors import check_vectors

PART = 2**18  # vectors that are brought to the device at once
TILE = 4096  # rows that are multiplied at once: with 128 queries their products fit a cache
UNIT = 2.0**-24  # the rounding error of float32


class Vectors(NamedTuple):
    """Vectors with what a search needs beside them.

    Distances do not change when all vectors move, but the rounding of |x|^2 - 2 xy does: vectors
    are compared as seen from centre, their mean. low is |x - centre|^2 less the most that rounding
    can add, and infinite past the end. size is an array, as in `CodeBlocks`.
    """

    rows: Float[Array, "m d"]
    size: Int32[Array, ""]
    centre: Float32[Array, " d"]
    low: Float32[Array, " m"]

    @property
    def width(self) -> int:
        """The length of a vector."""
        return self.rows.shape[1]

    @property
    def capacity(self) -> int:
        """The rows that there is room for."""
        return self.rows.shape[0]


def lay_out_vectors(vectors: Float[Array | np.ndarray, "n d"], capacity: int = 0) -> Vectors:
    """Prepare float32 or bfloat16 vectors for repeated search, with room for capacity rows."""
    check_vectors("gallery", vectors)
    n = len(vectors)
    rows = max(-(-max(n, capacity) // TILE), 1) * TILE
    if isinstance(vectors, np.ndarray):
        vectors = _on_device(vectors, rows)
    else:  # a copy even where nothing is added: `overwrite_vectors` may give its memory away
        vectors = jnp.pad(vectors, ((0, rows - n), (0, 0))) if rows > n else jnp.copy(vectors)
    size = jnp.int32(n)
    return Vectors(vectors, size, *_prepare(vectors, size))


def _on_device(vectors: np.ndarray, rows: int) -> Array:
    """With rows of 0 up to so many; many vectors in parts, so that only the result is made."""
    n = len(vectors)
    if n <= PART:
        return jnp.asarray(np.pad(vectors, ((0, rows - n), (0, 0))))
    placed = jnp.zeros((rows, vectors.shape[1]), vectors.dtype)
    for start in range(0, n, PART):
        placed = _write(placed, jnp.asarray(vectors[start : start + PART]), start)
    return placed


@jax.jit
def _prepare(rows, size):
    centre = jnp.sum(rows.astype(jnp.float32), axis=0) / jnp.maximum(size, 1)
    return centre, _low(rows, size, centre)


def overwrite_vectors(
    vectors: Vectors, start: int, rows: Float[Array | np.ndarray, "n d"]
) -> Vectors:
    """The same with the rows of one tile, from row start on, a multiple of TILE, written over.

    What was given must not be used any more. The centre stays: any is exact, one near by is fast.
    """
    tile = np.pad(rows, ((0, TILE - len(rows)), (0, 0)))
    low = _low(tile, jnp.int32(len(rows)), vectors.centre)
    return vectors._replace(
        rows=_write(vectors.rows, tile, start), low=_write(vectors.low, low, start)
    )


_write = jax.jit(partial(lax.dynamic_update_slice_in_dim, axis=0), donate_argnums=0)


@jax.jit
def _low(
    rows: Float[Array, "n d"], size: Int32[Array, ""], centre: Float32[Array, " d"]
) -> Float32[Array, " n"]:
    norms = squared_norms(rows.astype(jnp.float32) - centre[None])
    return jnp.where(jnp.arange(len(rows)) < size, norms * (1 - 2 * slack(rows.shape[1])), jnp.inf)


def slack(d: int) -> float:
    """The greatest relative error, of |x|^2 + |y|^2, in |x|^2 - 2 xy + |y|^2 and its parts.

    A sum of d products errs by at most d u / (1 - d u) times the sum of their magnitudes, in any
    order (Higham 2002, eq. 3.5), and 2 |x| |y| <= |x|^2 + |y|^2. The 8 units cover the rounding
    of the differences from the centre, which is relative to the difference, and of the last sums.
    """
    return 2 * (d + 8) * UNIT / (1 - (d + 8) * UNIT)


def squared_norms(x: Float32[Array, "n d"]) -> Float32[Array, " n"]:
    """The squared length of each vector."""
    return jnp.sum(x * x, axis=1)


def direct(d: int, difference: Callable[[int], Array], shape: tuple[int, ...]) -> Array:
    """Squared distances from differences feature by feature, added up in their order."""
    together = next(size for size in (16, 8, 4, 2, 1) if d % size == 0)

    def some(step, total):
        for i in range(together):
            total = total + jnp.square(difference(step * together + i))
        return total

    total = jnp.zeros(shape, jnp.float32)
    if d > 128:
        return lax.fori_loop(0, d // together, some, total)
    for step in range(d // together):
        total = some(step, total)
    return total
