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


def test_bool_are_the_bits_themselves():
    bits = np.random.default_rng(0).random((4, 40)) < 0.5
    np.testing.assert_array_equal(codes.pack(bits), reference.pack(np.where(bits, 1.0, -1.0)))
    np.testing.assert_array_equal(codes.pack(bits), codes.pack(jnp.asarray(bits)))


@pytest.mark.parametrize("bits", [[[0.5, -2.0]], [[1, -1]]])
def test_a_list_of_numbers_is_packed_by_its_signs(bits):
    np.testing.assert_array_equal(codes.pack(bits), [[1]])


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (np.ones((2, 3), np.uint8), "real numbers, whose sign is the bit, or bool, got uint8"),
        (np.array([[0, 1, 1]]), "integers are all 0 or 1: pass bits as bool"),
        (np.array([[1.0], [np.nan]], np.float32), "must not be NaN, row 1 is"),
        (jnp.array([[jnp.nan]]), "must not be NaN, row 0 is"),
        (np.ones(3), r"must be an array \[n b\], got float64\[3\]"),
        ([[1.0], [1.0, 2.0]], r"must be \[n b\], got rows of several lengths"),
        (np.ones((2, 0)), "a code must have at least 1 bit, got 0"),
    ],
)
def test_what_has_no_sign_is_refused(latents, message):
    with pytest.raises(ValueError, match=message):
        codes.pack(latents)


@pytest.mark.slow
def test_a_mask_that_is_cut_at_any_row_keeps_its_bits():
    mask = np.random.default_rng(0).random((2, 200)) < 0.5
    words = jnp.asarray(codes.pack_mask(mask).words)
    np.testing.assert_array_equal(codes.mask_of_rows(words)[:, :200], mask)
    for start in (0, 1, 31, 32, 63):
        found = codes.mask_of_rows(codes.words_from_row(words, jnp.int32(start), 4))
        np.testing.assert_array_equal(found, mask[:, start : start + 128])
    counts = jnp.arange(33)
    np.testing.assert_array_equal(
        codes.mask_of_rows(codes.first_bits(counts)[:, None]), np.tri(33, 32, -1, dtype=bool)
    )
