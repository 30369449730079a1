"""The checks of images and vectors: what fit and encode take, and what they refuse in one line."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxret
from jaxret import inputs
from jaxret.hashers import load_encoder, save_encoder

KEY = jax.random.key(0)
BYTES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
VECTORS = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
FLOATS = (BYTES / 255).astype(np.float32)
NAN = np.where(np.arange(40)[:, None, None, None] == 7, np.float32(np.nan), FLOATS)

# what is refused -> what the sentence says of it
REFUSED = {
    "floats up to 255": (BYTES.astype(np.float32), "got float32[40, 8, 8, 1] from 0 to 255"),
    "floats below 0": (FLOATS - 1, "from -1 to 0"),
    "NaN": (NAN, "float32[40, 8, 8, 1] from nan to nan"),
    "bool": (BYTES > 127, "got bool[40, 8, 8, 1]"),
    "uint16": (BYTES.astype(np.uint16), "got uint16[40, 8, 8, 1]"),
    "int32": (BYTES.astype(np.int32), "got int32[40, 8, 8, 1]"),
    "complex": (FLOATS.astype(complex), "got complex128[40, 8, 8, 1]"),
    "text": (BYTES.astype(str), "[40, 8, 8, 1]"),
    "channels first": (np.zeros((40, 3, 8, 8), np.uint8), "with the channels first"),
    "grey channels first": (BYTES.transpose(0, 3, 1, 2), "with the channels first"),
    "no channels": (BYTES[..., 0], "got uint8[40, 8, 8]"),
    "one image": (BYTES[0], "got uint8[8, 8, 1]"),
    "float images without channels": (FLOATS[..., 0], "got float32[40, 8, 8]"),
    "five axes": (BYTES[None], "got uint8[1, 40, 8, 8, 1]"),
    "vectors of integers": (VECTORS.astype(np.int64), "got int64[40, 6]"),
    "vectors with NaN": (VECTORS * np.nan, "got float32[40, 6] with values that are not finite"),
    "huge vectors": (VECTORS * 1e17, "got float32[40, 6] with values beyond 1e+15"),
    "vectors beyond float32": (VECTORS.astype(float) * 1e300, "with values that are not finite"),
    "a list": (BYTES.tolist(), "got list"),
    "nothing": (None, "got NoneType"),
    "a number": (3, "got int"),
}
forms = pytest.mark.parametrize("case", REFUSED)


@functools.cache
def fitted(name="pcah"):
    hasher = jaxret.HASHERS[name](4)
    return hasher, hasher.fit(KEY, BYTES)[0]


@functools.cache
def network():
    return jaxret.vae_hasher(4, (8, 8, 1), hidden=(8,), epochs=1, batch_size=40)


@forms
def test_what_is_neither_an_image_nor_a_vector_is_refused_with_the_rule(case):
    values, reason = REFUSED[case]
    for function in (inputs.accept, lambda x: fitted()[0].encode(fitted()[1], x)):
        with pytest.raises(ValueError, match=re.escape(reason)) as caught:
            function(values)
        assert str(caught.value).startswith(inputs.RULE)
        assert "\n" not in str(caught.value)


@forms
@pytest.mark.parametrize("name", ["pcah", "look", "photo", "vae"])
def test_every_kind_of_hasher_checks_what_it_learns_from(name, case):
    makers = {"vae": network, "photo": lambda: jaxret.photo_hasher(4, features="pixels")}
    hasher = makers[name]() if name in makers else jaxret.HASHERS[name](4)
    if name == "look":  # it learns nothing, and looks at nothing
        fit = hasher.encode
        arguments = {}, REFUSED[case][0]
    else:
        fit = hasher.fit
        arguments = KEY, REFUSED[case][0]
    with pytest.raises(ValueError, match=re.escape(inputs.RULE)):
        fit(*arguments)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "bfloat16"])
def test_floats_from_0_to_1_are_the_bytes_that_they_came_from(dtype):
    exact = BYTES if dtype != "bfloat16" else (BYTES // 255 * 255).astype(np.uint8)
    floats = (exact / 255).astype(jnp.dtype(dtype))
    assert inputs.accept(floats).dtype == np.uint8
    np.testing.assert_array_equal(inputs.accept(floats), exact)
    if not dtype.startswith(">"):
        np.testing.assert_array_equal(inputs.accept(jnp.asarray(floats)), exact)


def test_a_hasher_learns_the_same_from_floats_and_from_bytes():
    hasher, params = fitted()
    again, _ = hasher.fit(KEY, FLOATS)
    np.testing.assert_array_equal(hasher.encode(again, FLOATS), hasher.encode(params, BYTES))


def test_images_of_any_memory_layout_have_the_same_code():
    hasher, params = fitted()
    wide = np.zeros((80, 8, 16, 1), np.uint8)
    wide[::2, :, ::2] = BYTES
    readonly = BYTES.copy()
    readonly.flags.writeable = False
    expected = np.asarray(hasher.encode(params, BYTES))
    for images in (wide[::2, :, ::2], np.asfortranarray(BYTES), readonly, jnp.asarray(BYTES)):
        np.testing.assert_array_equal(hasher.encode(params, images), expected)


def test_under_jit_types_and_shapes_are_checked():
    hasher, params = fitted()
    encode = jax.jit(lambda images: hasher.encode(params, images))
    np.testing.assert_array_equal(encode(FLOATS), encode(BYTES))
    with pytest.raises(ValueError, match=r"got int32\[40, 8, 8, 1\]"):
        encode(BYTES.astype(np.int32))


def test_images_of_another_size_than_those_learned_from_are_refused():
    for hasher, params in (fitted(), (network(), None)):
        with pytest.raises(ValueError, match=r"8, 8, 3") as caught:
            hasher.encode(params, np.zeros((2, 8, 8, 3), np.uint8))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"images of 8 x 8 x 1 are expected here, got float32"):
        network().fit(KEY, VECTORS)
    with pytest.raises(ValueError, match=r"this pcah learned from \[8, 8, 1\] numbers per image"):
        fitted()[0].encode(fitted()[1], VECTORS)


def test_a_loaded_encoder_and_the_search_for_positives_check_alike(tmp_path):
    hasher, params = fitted()
    save_encoder(tmp_path, hasher, params, image_size=(8, 8, 1))
    encoder = load_encoder(tmp_path)
    np.testing.assert_array_equal(encoder.encode(FLOATS), encoder.encode(BYTES))
    np.testing.assert_array_equal(jaxret.knn_positives(FLOATS, 2), jaxret.knn_positives(BYTES, 2))
    for function in (encoder.encode, lambda x: jaxret.knn_positives(x, 2)):
        for values, reason in REFUSED.values():
            with pytest.raises(ValueError, match=re.escape(reason)):
                function(values)


def test_the_values_of_bytes_are_not_looked_at_so_that_nothing_waits_for_the_device(monkeypatch):
    hasher, params = fitted()
    monkeypatch.setattr(inputs, "_range", lambda values: pytest.fail("values were looked at"))
    hasher.encode(params, jnp.asarray(BYTES))
