"""The checks of images and vectors: what every `fit` and every `encode` takes.

    images      uint8 [n h w c], or floats [n h w c] that all lie from 0 to 1
    vectors     finite floats [n d] from -1e15 to 1e15, so that sums of squares are finite too

Floats become the nearest of the 256 levels of a byte, as where an image is saved: a float image has
the code of the uint8 image that it came from. Nothing else is guessed at, for a wrong guess is a
code that looks like any other: floats up to 255, integers of other types, and channels that come
before height and width are refused.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

RULE = "images must be uint8 [n h w c], or floats from 0 to 1, and vectors finite floats [n d]"
LARGEST = 1e15  # of a vector's numbers
CHANNELS = (1, 3, 4)  # what is taken for channels where it stands second
ANY_SIZE = (None, None, None)  # of images

Inputs = Shaped[Array | np.ndarray, "n *shape"]


def accept(values: Any, shape: Sequence[int | None] | None = None) -> Inputs:
    """Return images as uint8 [n h w c], or vectors as float32 [n d].

    An array of JAX stays one. Under jit, where values are not known, types and shapes are checked.

    Args:
        values: an array of NumPy or JAX, or what NumPy makes an array of by `__array__`.
        shape: that of one image, (h, w, c), or of one vector, (d,); None stands for any length.

    Raises:
        ValueError: with the rule, for anything else.
    """
    values = _array(values)
    if values.ndim == 4 and values.dtype == np.uint8:
        accepted = values
    elif jnp.issubdtype(values.dtype, jnp.floating) and values.ndim in (2, 4):
        accepted = _bytes(values) if values.ndim == 4 else _vectors(values)
    else:
        raise ValueError(f"{RULE}, got {_described(values)}")
    found = accepted.shape[1:]
    if len(found) == 3 and found[0] in CHANNELS and found[2] not in CHANNELS:
        raise ValueError(f"{RULE}, got {_described(values)}, with the channels first")
    if shape is not None and not _fits(found, shape):
        raise ValueError(f"{_wanted(shape)} are expected here, got {_described(values)}")
    return accepted


def _array(values: Any) -> Any:
    """An array as it is; what is no array and does not become one is refused."""
    if isinstance(values, np.ndarray | jax.Array):
        return values
    if not hasattr(values, "__array__"):
        raise ValueError(f"{RULE}, got {type(values).__name__}")
    return np.asarray(values)


def _bytes(images: Any) -> Any:
    lowest, highest = _range(images)
    if not (lowest >= 0 and highest <= 1):  # NaN compares as false
        raise ValueError(f"{RULE}, got {_described(images)} from {lowest:g} to {highest:g}")
    numpy = np if isinstance(images, np.ndarray) else jnp
    return numpy.rint(numpy.clip(images.astype(np.float32), 0, 1) * 255).astype(np.uint8)


def _vectors(vectors: Any) -> Any:
    with np.errstate(over="ignore"):
        singles = vectors if vectors.dtype == np.float32 else vectors.astype(np.float32)
    extremes = _range(singles)
    what = None
    if not all(map(np.isfinite, extremes)):
        what = "values that are not finite"
    elif max(map(abs, extremes)) > LARGEST:
        what = f"values beyond {LARGEST:g}, whose squares may have no finite sum: scale them"
    if what:
        raise ValueError(f"{RULE}, got {_described(vectors)} with {what}")
    return singles


def _range(values: Any) -> tuple[float, float]:
    """The least and the greatest value, NaN if there is one; 0 where nothing is known or there."""
    if isinstance(values, jax.core.Tracer) or values.size == 0:
        return 0.0, 0.0
    if isinstance(values, np.ndarray):
        return float(values.min()), float(values.max())
    lowest, highest = _range_on_device(values)
    return float(lowest), float(highest)


@jax.jit
def _range_on_device(values):
    return jnp.min(values), jnp.max(values)


def _fits(found: Sequence[int], shape: Sequence[int | None]) -> bool:
    return len(found) == len(shape) and all(
        wanted in (None, length) for length, wanted in zip(found, shape, strict=True)
    )


def _described(values: Any) -> str:
    return f"{values.dtype}{list(values.shape)}"


def _wanted(shape: Sequence[int | None]) -> str:
    sizes = " x ".join(map(str, shape))
    if len(shape) == 1:
        return f"vectors of {sizes} numbers"
    return "images" if None in shape else f"images of {sizes}"
