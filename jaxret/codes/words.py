"""Packed words, and masks over the rows of a gallery, without JAX where NumPy holds them."""

import operator
import sys
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Bool, UInt32

WORD_BITS = 32


def num_words(bits: SupportsIndex) -> int:
    """Return the packed width of a code of this many bits."""
    try:
        bits = operator.index(bits)
    except TypeError:
        raise ValueError(f"bits must be a whole number, got {bits!r}") from None
    if bits < 1:
        raise ValueError(f"a code must have at least 1 bit, got {bits}")
    return -(-bits // WORD_BITS)


class PackedMask(NamedTuple):
    """The rows that a search keeps, in bits: row j is bit j % 32 of word j // 32.

    There is one row of words for all queries, or one for each query.
    """

    words: UInt32[Any, "p v"]


def pack_mask(mask: Bool[Any, "..."]) -> PackedMask:
    """Pack a mask over the rows of a gallery, bool[n] or bool[q n]."""
    if getattr(mask, "dtype", None) != np.bool_ or mask.ndim not in (1, 2):
        raise ValueError(f"a mask must be bool[n] or bool[q n], got {described(mask)}")
    mask = mask[None] if mask.ndim == 1 else mask
    padding = ((0, 0), (0, -mask.shape[1] % WORD_BITS))
    if is_traced(mask):
        import jax.numpy as jnp

        from jaxret.codes.device import words_of

        return PackedMask(words_of(jnp.pad(mask, padding).reshape(len(mask), -1, WORD_BITS)))
    bits = np.packbits(np.pad(np.asarray(mask), padding), axis=1, bitorder="little")
    return PackedMask(bits.view("<u4").astype(np.uint32, copy=False))


def mask_of_rows(words: UInt32[Any, "p v"]) -> Bool[Any, "p n"]:
    """Unpack the words of a mask: one bool for each row that they have room for."""
    if not isinstance(words, np.ndarray):
        from jaxret.codes.device import bits_of

        return bits_of(words) == 1
    octets = np.ascontiguousarray(words, "<u4").view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little").view(bool)


def is_traced(*arrays: Any) -> bool:
    """Return whether any array is a value of a function that is being traced, as under jit."""
    if "jax" not in sys.modules:
        return False
    import jax.core

    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def described(array: Any) -> str:
    """Return an array's type and shape for a message, or the type of what is no array."""
    if hasattr(array, "dtype"):
        return f"{array.dtype}{list(array.shape)}"
    return type(array).__name__
