"""Packed codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxret import codes

BITS = (1, 10, 12, 31, 32, 33, 64, 100)


@pytest.mark.parametrize("bits", BITS)
def test_packing_equals_the_definition_bit_by_bit(bits):
    z = np.random.default_rng(bits).normal(size=(7, bits)).astype(np.float32)
    z[0, 0] = 0.0  # a latent of 0 is a bit of 1
    np.testing.assert_array_equal(jax.jit(codes.pack)(z), reference.pack(z))


@pytest.mark.parametrize("bits", BITS)
def test_packing_then_unpacking_gives_the_signs(bits):
    z = np.random.default_rng(bits).normal(size=(5, bits)).astype(np.float32)
    np.testing.assert_array_equal(codes.unpack(codes.pack(jnp.asarray(z)), bits), np.sign(z))


def test_bits_that_fill_the_last_word_up_are_zero():
    packed = np.asarray(codes.pack(jnp.ones((3, 12))))
    np.testing.assert_array_equal(packed, np.full((3, 1), 0xFFF, np.uint32))


def test_unpacking_refuses_a_width_that_does_not_fit():
    with pytest.raises(ValueError, match="33 bits need 2 words of 32, the codes have 1"):
        codes.unpack(jnp.zeros((2, 1), jnp.uint32), 33)
