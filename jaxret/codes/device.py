"""Latents to packed words and back, and bits of words, in JAX."""

import operator
from collections.abc import Sequence
from functools import partial
from typing import Any, SupportsIndex

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt32

from jaxret.codes.words import WORD_BITS, described, mask_of_rows, num_words, pack_mask


def pack(z: Shaped[Array | np.ndarray, "..."] | Sequence) -> UInt32[Array, "n w"]:
    """Pack the signs of real-valued latents [n b] into words, w = ceil(b / 32).

    A latent of at least 0 is a bit of 1, so floats 0.0 and 1.0 are both a 1: pass bits as bool.
    Raises ValueError for NaN, for unsigned integers, and for integers that are all 0 or 1.
    """
    latents = _latents(z)
    num_words(latents.shape[1])
    if _is_on_host(latents):
        return jnp.asarray(_packed_signs(np.asarray(latents)))
    return _packed_on_device(latents)


def _packed_signs(latents: Shaped[Array | np.ndarray, "n b"]) -> UInt32[Array | np.ndarray, "n w"]:
    return pack_mask(latents if latents.dtype == bool else latents >= 0).words


_packed_on_device = jax.jit(_packed_signs)


def _is_on_host(array: Any) -> bool:
    """Tell whether NumPy can read an array's memory as it is, and nothing traces it."""
    if isinstance(array, jax.core.Tracer):
        return False
    devices = array.devices() if isinstance(array, jax.Array) else set()
    return all(device.platform == "cpu" for device in devices) and len(devices) <= 1


def unpack(codes: UInt32[Array | np.ndarray, "n w"], bits: SupportsIndex) -> Float[Array, "n b"]:
    """Return the signs that were packed: +1 for a bit of 1, -1 for a bit of 0."""
    if getattr(codes, "dtype", None) != np.uint32 or codes.ndim != 2:
        raise ValueError(f"codes must be packed words, uint32[n w], got {described(codes)}")
    words = num_words(bits)
    if words != codes.shape[1]:
        raise ValueError(f"{bits} bits need {words} words of 32, the codes have {codes.shape[1]}")
    bits = operator.index(bits)
    if _is_on_host(codes):
        ones = mask_of_rows(np.asarray(codes))[:, :bits]
        return jnp.asarray(np.where(ones, np.float32(1), np.float32(-1)))
    return _signs(codes, bits)


@partial(jax.jit, static_argnames="bits")
def _signs(codes: UInt32[Array, "n w"], bits: int) -> Float[Array, "n b"]:
    return bits_of(codes)[:, :bits].astype(jnp.float32) * 2 - 1


def _latents(z: Any) -> Any:
    """Check what a public function is given as latents; under jit by shape and type alone."""
    if not hasattr(z, "dtype"):
        try:
            z = np.asarray(z)
        except ValueError:
            raise ValueError("latents must be [n b], got rows of several lengths") from None
    if z.ndim != 2:
        raise ValueError(f"latents must be an array [n b], got {described(z)}")
    if z.dtype == bool:
        return z
    if not jnp.issubdtype(z.dtype, jnp.floating) and not jnp.issubdtype(z.dtype, jnp.signedinteger):
        raise ValueError(
            f"latents must be real numbers, whose sign is the bit, or bool, got {z.dtype}"
        )
    if isinstance(z, jax.core.Tracer) or 0 in z.shape:
        return z
    numpy = np if isinstance(z, np.ndarray) else jnp
    if jnp.issubdtype(z.dtype, jnp.floating):
        missing = numpy.isnan(z).any(axis=1)
        if missing.any():
            raise ValueError(f"latents must not be NaN, row {int(missing.argmax())} is")
    elif ((z == 0) | (z == 1)).all() and (z == 0).any():
        raise ValueError(
            "latents are bits by their sign, and these integers are all 0 or 1: pass bits as bool"
        )
    return z


def words_of(ones: Bool[Array, "... 32"]) -> UInt32[Array, "..."]:
    """Return the words of bits; the bits of a word are disjoint, so their sum is their union."""
    shifts = lax.broadcasted_iota(jnp.uint32, ones.shape, ones.ndim - 1)
    return jnp.sum(ones.astype(jnp.uint32) << shifts, axis=-1, dtype=jnp.uint32)


def bits_of(words: UInt32[Array, "n w"]) -> UInt32[Array, "n b"]:
    """Return all bits of each row of words, as 0 and 1."""
    shifts = lax.broadcasted_iota(jnp.uint32, (1, 1, WORD_BITS), 2)
    bits = (words[:, :, None] >> shifts) & jnp.uint32(1)
    return bits.reshape(len(words), words.shape[1] * WORD_BITS)


def bit(
    words: UInt32[Array, "..."], position: Int[Array, "..."] | Shaped[Array, "..."] | int
) -> Bool[Array, "..."]:
    """Tell whether the bit at a position, 0 to 31, is 1 in each word."""
    position = jnp.asarray(position, jnp.uint32)
    return (words >> position) & jnp.uint32(1) == 1


def first_bits(count: Int[Array, "..."]) -> UInt32[Array, "..."]:
    """Return words whose first count bits are 1, count from 0 to 32."""
    full = jnp.uint32(0xFFFFFFFF)
    partial = (jnp.uint32(1) << count.astype(jnp.uint32)) - 1  # a word has no 32nd bit to shift to
    return jnp.where(count == WORD_BITS, full, partial)


def words_from_row(
    words: UInt32[Array, "p v"], start: Int[Array, ""], count: int
) -> UInt32[Array, "p c"]:
    """Return `count` words of a mask, from a row on that need not begin a word."""
    words = lax.dynamic_slice_in_dim(words, start // WORD_BITS, count + 1, axis=1)
    shift = (start % WORD_BITS).astype(jnp.uint32)
    # A word has no 32nd bit to shift to: two shifts, of which one is 1.
    return words[:, :-1] >> shift | words[:, 1:] << (WORD_BITS - 1 - shift) << 1
