"""How real vectors are kept while they are searched, and the bound that makes a matmul exact."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int32

PART = 2**18  # vectors that are brought to the device at once
TILE = 4096  # rows that are multiplied at once: with 128 queries their products fit a cache
UNIT = 2.0**-24  # the rounding error of float32


def place(
    vectors: Float[Array | np.ndarray, "n d"], capacity: int
) -> tuple[Float[Array, "m d"], Float32[Array, " d"], Float32[Array, " m"]]:
    """Prepare vectors for search, with room for capacity rows, a multiple of TILE.

    Distances do not change when all vectors move, but the rounding of |x|^2 - 2 xy does: vectors
    are compared as seen from their mean. Returns the rows, their mean, and |x - mean|^2 less the
    most that rounding can add, infinite past the end.
    """
    n = len(vectors)
    if isinstance(vectors, np.ndarray):
        rows = _on_device(vectors, capacity)
    else:  # a copy even where nothing is added: `write_tile` may give its memory away
        rows = jnp.pad(vectors, ((0, capacity - n), (0, 0))) if capacity > n else jnp.copy(vectors)
    return rows, *_prepare(rows, np.int32(n))


def _on_device(vectors: np.ndarray, rows: int) -> Array:
    """Copy to the device, with rows of 0 behind; many vectors in parts, so that nothing else of
    their size is made.
    """
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


def write_tile(
    rows: Float[Array, "m d"],
    centre: Float32[Array, " d"],
    low: Float32[Array, " m"],
    start: int,
    vectors: Float[Array | np.ndarray, "n d"],
) -> tuple[Float[Array, "m d"], Float32[Array, " m"]]:
    """Write one tile of rows and of low, from row start on, a multiple of TILE.

    The rows and low that were given are used up. The centre stays: any is exact, one near by is
    fast.
    """
    tile = np.pad(vectors, ((0, TILE - len(vectors)), (0, 0)))
    tile_low = _low(tile, np.int32(len(vectors)), centre)
    return _write(rows, tile, start), _write(low, tile_low, start)


_write = jax.jit(partial(lax.dynamic_update_slice_in_dim, axis=0), donate_argnums=0)


@jax.jit
def _low(
    rows: Float[Array, "n d"], size: Int32[Array, ""], centre: Float32[Array, " d"]
) -> Float32[Array, " n"]:
    norms = squared_norms(rows.astype(jnp.float32) - centre[None])
    return jnp.where(jnp.arange(len(rows)) < size, norms * (1 - 2 * slack(rows.shape[1])), jnp.inf)


def slack(d: int) -> float:
    """Return the greatest relative error, of |x|^2 + |y|^2, in |x|^2 - 2 xy + |y|^2 and its parts.

    A sum of d products errs by at most d u / (1 - d u) times the sum of their magnitudes, in any
    order (Higham 2002, eq. 3.5), and 2 |x| |y| <= |x|^2 + |y|^2. The 8 units cover the rounding
    of the differences from the centre, which is relative to the difference, and of the last sums.
    """
    return 2 * (d + 8) * UNIT / (1 - (d + 8) * UNIT)


def squared_norms(x: Float32[Array, "n d"]) -> Float32[Array, " n"]:
    """Return the squared length of each vector."""
    return jnp.sum(x * x, axis=1)


@jax.jit
def squared_lengths(vectors: Float[Array, "n d"]) -> Float32[Array, " n"]:
    """Return the squared length of each vector on a device, in float32."""
    return squared_norms(vectors.astype(jnp.float32))


def direct(d: int, difference: Callable[[int], Array], shape: tuple[int, ...]) -> Array:
    """Return squared distances from differences feature by feature, added up in their order."""
    at_once = next(size for size in (16, 8, 4, 2, 1) if d % size == 0)

    def add(step, total):
        for i in range(at_once):
            total = total + jnp.square(difference(step * at_once + i))
        return total

    total = jnp.zeros(shape, jnp.float32)
    if d > 128:
        return lax.fori_loop(0, d // at_once, add, total)
    for step in range(d // at_once):
        total = add(step, total)
    return total
