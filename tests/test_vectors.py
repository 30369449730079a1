"""Features in the place of images: kept by content, computed once; and baselines of them."""

import dataclasses

import baseline
import drawing
import harness
import jax
import numpy as np
import pytest
import report
import vectors

from jaxret.features import FEATURES, extract


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "features"
    monkeypatch.setenv("JAXRET_FEATURES_DIR", str(folder))
    return folder


def images(n=9, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 1), np.uint8)


def counted(monkeypatch):
    """Count the images that features are computed of."""
    seen = []
    monkeypatch.setattr(
        "jaxret.features.extract", lambda e, x: seen.append(len(x)) or extract(e, x)
    )
    return seen


def test_vectors_are_those_of_the_extractor_and_each_image_is_computed_once(monkeypatch):
    layout, x = FEATURES["layout"](), images()
    seen = counted(monkeypatch)
    expected = extract(layout, x)
    np.testing.assert_allclose(vectors.vectors(layout, x), expected, atol=1e-6)
    np.testing.assert_allclose(vectors.vectors(layout, x[::-1]), expected[::-1], atol=1e-6)
    more = np.concatenate([images(2, seed=1), x])
    np.testing.assert_allclose(vectors.vectors(layout, more)[2:], expected, atol=1e-6)
    assert seen == [9, 2]


def test_what_is_computed_is_kept_a_block_at_a_time(cache, monkeypatch):
    monkeypatch.setattr(vectors, "BLOCK", 4)
    vectors.vectors(FEATURES["layout"](), images())
    assert len(list(cache.glob("layout-*/*.npy"))) == 3
    assert vectors.vectors(FEATURES["pixels"](), images()).shape == (9, 192)
    assert not list(cache.glob("pixels*"))


def test_a_baseline_hashes_the_features_that_its_flags_name():
    config = baseline.BaselineConfig(dataset="digits", workdir="w", features="layout")
    protocol, _ = harness.load_data(config)
    plain, _ = harness.load_data(dataclasses.replace(config, features=""))
    assert protocol.train.images.shape == (len(plain.train.images), 256)
    assert protocol.train.images is protocol.gallery.images
    np.testing.assert_array_equal(protocol.query.labels, plain.query.labels)
    found = extract(FEATURES["layout"](), plain.query.images[:3])
    np.testing.assert_allclose(protocol.query.images[:3], found, atol=1e-6)


@pytest.mark.slow
def test_what_a_query_finds_is_drawn_as_the_images_that_vectors_are_of():
    config = baseline.BaselineConfig(dataset="digits", workdir="w", features="layout")
    protocol, plain = harness.load_data(config)[0], report._images(config, None)
    hasher = make(method="lsh", bits=8)
    params, _ = hasher.fit(jax.random.key(0), protocol.train.images)
    drawn = drawing.common(hasher, params, protocol, [], "title", lambda: plain)["retrieval"]()
    assert any(panel.get_images() for panel in drawn.axes)
    assert "retrieval" not in drawing.common(hasher, params, protocol, [], "title")


def make(**flags):
    config = baseline.BaselineConfig(dataset="digits", workdir="w", **flags)
    config.check()
    return baseline.hasher(config, None)


def test_settings_of_a_method_are_given_by_name():
    made = make(method="lsh", bits=5, settings="centred=false")
    assert made.spec["settings"] == {"bits": 5, "centred": False}
    made = make(method="ksh", bits=5, settings="sample=20, steps=3")
    assert (made.spec["settings"]["sample"], made.spec["settings"]["steps"]) == (20, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"method": "lsh", "settings": "center=1"}, "--settings: center is no setting of lsh"),
        ({"method": "lsh", "settings": "bits=3"}, "--settings: bits is no setting of lsh"),
        ({"settings": "centred"}, "--settings must be name=value,..., got 'centred'"),
        ({"features": "gits"}, "--features must be one of .*gist.*, got 'gits'"),
    ],
)
def test_unknown_settings_and_features_are_refused_in_one_line(flags, message):
    with pytest.raises(ValueError, match=message):
        make(**flags)
