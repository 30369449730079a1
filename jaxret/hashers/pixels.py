"""Stored bytes as numbers, and errors between them."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jaxret import inputs

Images = UInt8[Array, "n h w c"]


def scale(images: Images) -> Float[Array, "n h w c"]:
    """Stored bytes as numbers in [0, 1]."""
    return jnp.asarray(inputs.accept(images, inputs.ANY_SIZE)).astype(jnp.float32) / 255


def pixel_errors(images: Images, rebuilt: Float[Array, "n h w c"]) -> dict[str, Float[Array, " n"]]:
    """Squared error ("mse") and binary cross-entropy ("bce") of each image, means over its pixels.

    Probabilities are clipped to 1e-7 from 0 and 1, as Keras does: the published figures of Sahu and
    of Gamal are computed so.
    """
    x, p = scale(images), jnp.clip(rebuilt, 1e-7, 1 - 1e-7)
    entropy = -x * jnp.log(p) - (1 - x) * jnp.log1p(-p)
    return {
        "mse": jnp.mean((x - rebuilt) ** 2, axis=(1, 2, 3)),
        "bce": jnp.mean(entropy, axis=(1, 2, 3)),
    }
