"""Many images, a batch of one size at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from jaxret.search.validate import Whole, whole

PAIRS = 2**22


def encode_in_batches(
    encode: Callable,
    params: Any,
    images: Shaped[Array | np.ndarray, "n *shape"],
    batch_size: Whole = 1000,
) -> Float[Array, "n b"]:
    """Encode many images, the same number at each call: the last batch is filled up.

    Args:
        encode: (params, images) -> codes, one row of b numbers per image.
        params: what encode takes first.
        images: what encode takes; a hasher's encode takes those of `jaxret.inputs`.
        batch_size: images at each call.

    Returns:
        The codes, one row per image.

    Raises:
        ValueError: images are no array or none, or encode returns other shapes.
    """
    if not isinstance(images, np.ndarray | jax.Array) or images.ndim < 1:
        raise ValueError(f"images must be an array [n h w c], got {type(images).__name__}")
    if len(images) == 0:
        raise ValueError("there must be at least 1 image to encode, got 0")

    def checked(batch):
        latents = encode(params, batch)
        if latents.ndim != 2 or len(latents) != len(batch):
            raise ValueError(
                f"encode must return one row per image, got shape {latents.shape} for {len(batch)}"
            )
        return latents

    return jnp.asarray(batched(checked, batch_size, images))


def batched(function: Callable, batch_size: Whole, *arrays: Any) -> Any:
    """Apply a function to the rows of arrays, a batch at a time, each batch of one size.

    The last batch repeats its last row; what comes of that is cut off.
    """
    batch_size = whole("batch_size", batch_size)
    rows = len(arrays[0])
    size = min(batch_size, rows)
    results = []
    for start in range(0, rows, size):
        index = np.minimum(np.arange(start, start + size), rows - 1)
        result = function(*(array[index] for array in arrays))
        results.append(jax.tree.map(lambda a, n=rows - start: np.asarray(a)[:n], result))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)
