"""Convolutions of 3 x 3 with a quarter of the multiplications, for training on a CPU (Lavin 2016).

Winograd's F(4 x 4, 3 x 3): 16 pixels of a map come from a window of 6 x 6, which is transformed to
36 numbers. Each of these is multiplied by a number of the transformed kernel and summed over
channels, and the 36 sums are transformed to the 16 pixels. For all windows at once these are
products of matrices; the one that costs most is 36 products of [windows, channels] and
[channels, features].

To transform all windows by one product, a matrix has a row for each place in a window and a column
for each channel of each window. Its rows for the 16 places of a tile are the map with its axes in
another order; those for the 20 places around a tile are rows and columns of the tiles beside it.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32

TILE, WINDOW = 4, 6  # pixels a side
# Transforms of one dimension (Lavin 2016): of a window, of a kernel, and from sums to pixels.
INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
FILTER = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)
INNER = range(1, TILE + 1)  # rows, and columns, of a window that are its tile's
# first and last row of a window, the row of the tile beside it that it is, and the shift that
# brings that tile here
EDGES = ((0, TILE - 1, 1), (WINDOW - 1, 0, -1))
# The transforms are multiplications too, and read and write much memory. How many times fewer
# multiplications than XLA's are worth it was measured on two cores of an AMD EPYC, where memory is
# kept between calls: the speed-up was 0.9 at a ratio of 2.2, 1.3 at 2.8 and 2 at 3.4.
PAYS = 2.7


def pays(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> bool:
    """Return whether `convolve` is worth its transforms for a map [n h w c] and a kernel."""
    n, h, w, channels = x_shape
    features = kernel_shape[3]
    tiles = n * math.ceil(h / TILE) * math.ceil(w / TILE)
    products = WINDOW**2 * tiles * channels * features
    transforms = tiles * (WINDOW**4 * channels + (WINDOW * TILE) ** 2 * features)
    transforms += (WINDOW * 3) ** 2 * channels * features
    return PAYS * (products + transforms) <= 9 * n * h * w * channels * features


def by_xla(
    x: Float[Array, "n h w c"], kernel: Float[Array, "a b c f"], padding: tuple[int, int] = (1, 1)
) -> Float[Array, "n oh ow f"]:
    """Return XLA's convolution with that many zeros before and after each side of the map."""
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), (padding, padding), dimension_numbers=axes)


@jax.custom_vjp
def convolve(
    x: Float32[Array, "n h w c"], kernel: Float32[Array, "3 3 c f"]
) -> Float32[Array, "n h w f"]:
    """Return the convolution with zeros around the map.

    It is rounded otherwise than XLA's: numbers differ by 2e-5 of the largest. So it is for training
    alone: codes must not depend on how many images are encoded at once. Only a CPU computes it in
    this way.
    """
    return lax.platform_dependent(x, kernel, cpu=_by_tiles, default=by_xla)


def _forward(x, kernel):
    return convolve(x, kernel), (x, kernel)


def _backward(residuals, g):
    x, kernel = residuals
    of_kernel = lax.platform_dependent(x, g, cpu=_gradient_by_tiles, default=_gradient_by_xla)
    return convolve(g, kernel[::-1, ::-1].swapaxes(2, 3)), of_kernel


convolve.defvjp(_forward, _backward)


def _gradient_by_xla(x, g):
    kernel = jnp.zeros((3, 3, x.shape[3], g.shape[3]), x.dtype)
    return jax.vjp(lambda kernel: by_xla(x, kernel), kernel)[1](g)[0]


def _by_tiles(x, kernel):
    n, h, w, _ = x.shape
    x = _whole_tiles(x)
    of_kernel = _product(_of_two_dimensions(FILTER), kernel.reshape(9, *kernel.shape[2:]))
    sums = jnp.matmul(_transform_windows(x), of_kernel)
    pixels = _product(_of_two_dimensions(OUTPUT), sums)
    y = pixels.reshape(TILE, TILE, n, x.shape[1] // TILE, x.shape[2] // TILE, -1)
    return y.transpose(2, 3, 0, 4, 1, 5).reshape(*x.shape[:3], -1)[:, :h, :w]


def _gradient_by_tiles(x, g):
    """The kernel's gradient: the transposed transforms, and the product over all windows."""
    of_tile = _of_two_dimensions(OUTPUT).T
    g = _whole_tiles(g)
    of_sums = _product(of_tile, _places(g).reshape(TILE**2, -1, g.shape[3]))
    of_kernel = jnp.matmul(_transform_windows(_whole_tiles(x)).swapaxes(1, 2), of_sums)
    gradient = _product(_of_two_dimensions(FILTER).T, of_kernel)
    return gradient.reshape(3, 3, *gradient.shape[1:])


def _whole_tiles(x: Float[Array, "n h w c"]) -> Float[Array, "n th tw c"]:
    """The map with zeros below and to the right, up to whole tiles."""
    below, right = -x.shape[1] % TILE, -x.shape[2] % TILE
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0))) if below or right else x


def _places(x: Float[Array, "n h w c"]) -> Float[Array, "4 4 n a b c"]:
    """The map by place in a tile."""
    n, h, w, c = x.shape
    tiles = x.reshape(n, h // TILE, TILE, w // TILE, TILE, c)
    return tiles.transpose(2, 4, 0, 1, 3, 5)


def _transform_windows(x: Float[Array, "n h w c"]) -> Float[Array, "36 t c"]:
    """The transformed windows of all tiles."""
    pixels = _places(x)
    *_, high, wide, _ = pixels.shape
    parts = [pixels.reshape(TILE**2, *pixels.shape[2:])]
    places = [(i, j) for i in INNER for j in INNER]

    def add(part, where):
        parts.append(part.reshape(len(where), *pixels.shape[2:]))
        places.extend(where)

    # A window's first row is the last row of the tile above, its last row the first of that below,
    # and so it is with columns. Where there is no such tile, there are zeros.
    for edge, place, by in EDGES:
        if high > 1:
            row = _shift(pixels[place], 2, by)
            add(row, [(edge, j) for j in INNER])
        if wide > 1:
            add(_shift(pixels[:, place], 3, by), [(i, edge) for i in INNER])
        if high > 1 and wide > 1:
            for other, corner, across in EDGES:
                add(_shift(row[corner], 2, across), [(edge, other)])
    matrix = _of_two_dimensions(INPUT)[:, [WINDOW * i + j for i, j in places]]
    # Without the barrier XLA computes each number anew where the product reads it.
    rows = lax.optimization_barrier(jnp.concatenate(parts))
    return _product(matrix, rows).reshape(WINDOW**2, -1, x.shape[3])


def _shift(x: Float[Array, "..."], axis: int, by: int) -> Float[Array, "..."]:
    """The array shifted by one place along an axis, with zeros in the gap."""
    sides = [(by, -by, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), sides)


def _of_two_dimensions(matrix: np.ndarray) -> np.ndarray:
    """The transform of rows and columns, each laid out as one vector."""
    return np.kron(matrix, matrix)


def _product(matrix: np.ndarray, x: Float[Array, "k ..."]) -> Float[Array, "m ..."]:
    """A matrix times an array whose first axis is summed over."""
    return (jnp.asarray(matrix, x.dtype) @ x.reshape(len(x), -1)).reshape(-1, *x.shape[1:])
