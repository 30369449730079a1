"""Latents to bits to packed words: the only file that knows the order of bits.

Bit j of word i is latent 32 i + j; a bit is 1 where the latent is at least 0. The bits that fill
the last word up are 0, so two codes of the same length never differ there.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt32

WORD_BITS = 32


def num_words(bits: int) -> int:
    """The packed width of a code of this many bits."""
    if bits < 1:
        raise ValueError(f"a code must have at least 1 bit, got {bits}")
    return -(-bits // WORD_BITS)


def pack(z: Float[Array, "n b"]) -> UInt32[Array, "n w"]:
    """Pack the signs of real-valued latents, w = ceil(b / 32)."""
    n, bits = z.shape
    words = num_words(bits)
    ones = jnp.pad((z >= 0).astype(jnp.uint32), ((0, 0), (0, words * WORD_BITS - bits)))
    shifts = jnp.arange(WORD_BITS, dtype=jnp.uint32)[None, None]
    # The bits of a word are disjoint, so their sum is their union.
    return jnp.sum(ones.reshape(n, words, WORD_BITS) << shifts, axis=2, dtype=jnp.uint32)


def unpack(codes: UInt32[Array, "n w"], bits: int) -> Float[Array, "n b"]:
    """The signs that were packed: +1 for a bit of 1, -1 for a bit of 0."""
    n, words = codes.shape
    if num_words(bits) != words:
        raise ValueError(f"{bits} bits need {num_words(bits)} words of 32, the codes have {words}")
    shifts = lax.broadcasted_iota(jnp.uint32, (1, 1, WORD_BITS), 2)
    ones = (codes[:, :, None] >> shifts) & jnp.uint32(1)
    return ones.reshape(n, words * WORD_BITS)[:, :bits].astype(jnp.float32) * 2 - 1
