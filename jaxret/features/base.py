"""The one face of feature extractors, pretrained or not."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from jaxret.batches import in_batches
from jaxret.data.images import num_cpus
from jaxret.train import convolution_options

Images = UInt8[Array | np.ndarray, "n h w c"]
BATCH = 128  # images at once, on an accelerator
PIXELS = 2**16  # of a batch on CPU: what a network makes of them stays in a near cache
COMPILED = 8  # extractors whose programs are kept


class FeaturesError(ValueError):
    """An extractor that cannot work here, with what to do."""


def _no_weights() -> dict[str, Any]:
    return {}


class Extractor(NamedTuple):
    """A way to turn images into vectors, which is not trained here.

    Everything but the weights is there at once; `params` reads them.
    """

    name: str
    # (params, u8[n h w c]) -> f32[n d]: a pure function of JAX. Images are squares, of any size
    # and of 1 or 3 channels; they give the best vectors at image_size.
    apply: Callable[[Any, Images], Float[Array, "n d"]]
    image_size: int
    preprocessing: Mapping[str, Any]  # of what apply does first; plain JSON values, for an encoder
    # Returns the weights, nested dictionaries of arrays. Raises FeaturesError if there are none.
    load: Callable[[], dict[str, Any]] = _no_weights

    @property
    def params(self) -> dict[str, Any]:
        """The weights; see `load`."""
        return self.load()


def extract(
    extractor: Extractor,
    images: Any,
    params: Any = None,
    *,
    batch_size: int | None = None,
) -> Float[np.ndarray, "n d"]:
    """Return the vectors of images, computed a batch at a time.

    Args:
        extractor: what computes them.
        images: u8[n h w c], squares, best of extractor.image_size pixels a side.
        params: the weights; None: those that the extractor loads.
        batch_size: images at once; None: as many as are fastest. The last batch is filled up, so
            one program does all.

    Raises:
        FeaturesError: if the extractor has no weights here.
        ValueError: if there is no image, images are no squares of 1 or 3 channels, or batch_size is
            below 1.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise ValueError(
            f"features are of images uint8 [n h w c], at least 1, got {images.dtype} "
            f"{list(images.shape)}"
        )
    if images.shape[1] != images.shape[2] or images.shape[3] not in (1, 3):
        raise ValueError(f"images must be squares, grey or RGB, got {list(images.shape[1:])}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    params = extractor.load() if params is None else params
    if not all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params)):
        params = jax.device_put(params)  # takes milliseconds even where all is there
    if batch_size is None:
        batch_size = _fastest(extractor.image_size, len(images))
    return in_batches(functools.partial(_compiled(extractor.apply), params), images, batch_size)


def _fastest(side: int, count: int) -> int:
    """Return the batch size for count images; on CPU small enough that every core has a batch."""
    if jax.default_backend() != "cpu":
        return min(BATCH, count)
    return min(max(1, PIXELS // side**2), -(-count // num_cpus()))


@functools.lru_cache(COMPILED)
def _compiled(apply: Callable) -> Callable:
    return jax.jit(apply, compiler_options=convolution_options())


def rgb(images: Shaped[Array | np.ndarray, "n h w c"]) -> Float[Array, "n h w 3"]:
    """Return images as RGB in 0..255; grey becomes three equal channels."""
    x = jnp.asarray(images).astype(jnp.float32)
    return jnp.repeat(x, 3 // x.shape[3], axis=3)


def check_preprocessing(extractor: Extractor, stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the preprocessing of an extractor.

    Raises ValueError if a stored one, as an encoder keeps it, is another.
    """
    own = dict(extractor.preprocessing)
    if stored is not None and dict(stored) != own:
        raise ValueError(f"preprocessing of {extractor.name} is {own} here, got {dict(stored)}")
    return own
