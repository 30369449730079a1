"""Latents to bits to packed words: the only package that knows the order of bits.

Bit j of word i is latent 32 i + j, or row 32 i + j in the mask of a search. A latent's bit is 1
where it is at least 0. The bits that fill up the last word are 0, so two codes of the same length
never differ there. What needs JAX is imported when it is first used.
"""

from typing import TYPE_CHECKING

from jaxret.codes.words import (
    WORD_BITS,
    PackedMask,
    is_traced,
    mask_of_rows,
    num_words,
    pack_mask,
)
from jaxret.lazy import getter

if TYPE_CHECKING:
    from jaxret.codes.device import bit, first_bits, pack, unpack, words_from_row

__all__ = [
    "WORD_BITS",
    "PackedMask",
    "bit",
    "first_bits",
    "is_traced",
    "mask_of_rows",
    "num_words",
    "pack",
    "pack_mask",
    "unpack",
    "words_from_row",
]

__getattr__ = getter(
    __name__, {"device": ("bit", "first_bits", "pack", "unpack", "words_from_row")}
)
