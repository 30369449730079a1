"""What every hasher of HASHERS must do, whatever it is: a new entry is tested without a new line.

A hasher whose constructor does not take `bits` alone, or that would train for long, has its
smallest settings in SETTINGS.
"""

import functools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from marks import slow, soak

from jaxret import evaluate
from jaxret.hashers import HASHERS, METHODS, load_encoder, save_encoder
from jaxret.hashers.keep import make_hasher

SHAPE, CLASSES, N = (8, 8, 1), 3, 48
BITS = 6
NETWORK = {"image_shape": SHAPE, "epochs": 1, "batch_size": 16}
SETTINGS = {
    "vae": NETWORK | {"latent_dim": BITS, "hidden": (8,)},
    "autoencoder": NETWORK | {"latent_dim": BITS},
    "classifier": NETWORK
    | {"num_classes": CLASSES, "channels": (4, 4), "dropout": (0.2, 0.2), "dense": (8,)},
    "deep": NETWORK | {"bits": BITS, "num_classes": CLASSES, "learning_rate": 0.01},
    "pixels": {},
    "pca": {"dims": BITS},
    "feature_autoencoder": {"latent_dim": BITS, "features": "pixels", "hidden": (8,)}
    | {"epochs": 2, "batch_size": 16},
    "bow": {"dims": BITS, "words": 8},
    "vlad": {"dims": BITS, "words": 3},
    "fisher": {"dims": BITS, "words": 3},
    "photo": {"bits": BITS, "features": "pixels"},
    "labels": {"bits": BITS, "features": "pixels", "hidden": 16, "steps": 4},
}
SMALL = {
    "bre": {"sweeps": 2},
    "mlh": {"steps": 20},
    "ksh": {"anchors": 20, "steps": 5},
    "sdh": {"anchors": 20, "iterations": 2},
}
SETTINGS |= {name: {"bits": BITS} | settings for name, settings in SMALL.items()}
METHOD = NETWORK | {"bits": BITS, "num_classes": CLASSES, "trunk": "dense", "hidden": (8,)}
SETTINGS |= dict.fromkeys(METHODS, METHOD)
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}

# The methods share one trainer: these, with a book and with pairs, stand for all of them; so do the
# three that aggregate descriptors, and one that trains a network for all that do.
SLOW = ["cnnh", "contrastive", "deep", "classifier", "labels", "bow", "feature_autoencoder", "mlh"]
SOAK = [*(name for name in METHODS if name not in SLOW), "vlad", "fisher"]
every = pytest.mark.parametrize(
    "name", [*slow(*SLOW), *soak(*SOAK), *(name for name in HASHERS if name not in SLOW + SOAK)]
)


def images_and_labels(seed=0):
    """Images of a class share a pattern."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(N) % CLASSES).astype(np.int32)
    patterns = rng.integers(40, 216, (CLASSES, *SHAPE))
    noise = rng.integers(-40, 40, (N, *SHAPE))
    return (patterns[labels] + noise).astype(np.uint8), labels


IMAGES, LABELS = images_and_labels()


def make(name):
    return HASHERS[name](**SETTINGS.get(name, {"bits": BITS}))


@functools.cache
def fitted(name):
    hasher = make(name)
    return hasher, *hasher.fit(jax.random.key(0), IMAGES, LABELS)


@functools.cache
def codes(name):
    hasher, params, _ = fitted(name)
    return np.asarray(hasher.encode(params, IMAGES))


@functools.cache
def fitted_again(name):
    """Codes of a second fit with an equal key, and what on_epoch was called with."""
    hasher, calls = fitted(name)[0], []
    options = {"on_epoch": lambda *arguments: calls.append(arguments)}
    params, _ = hasher.fit(jax.random.key(0), IMAGES, LABELS, **options)
    return np.asarray(hasher.encode(params, IMAGES)), calls


@every
def test_fit_gives_params_and_named_numbers(name):
    _, _, info = fitted(name)
    assert all(isinstance(key, str) and np.isfinite(float(value)) for key, value in info.items())


@every
def test_a_code_has_one_finite_number_per_bit_or_dimension(name):
    expected = {"pixels": IMAGES[0].size, "classifier": 2 * 2 * 4}.get(name, BITS)
    assert codes(name).shape == (N, expected)
    assert codes(name).dtype == np.float32
    assert np.all(np.isfinite(codes(name)))


@every
def test_codes_tell_images_apart(name):
    z = codes(name)
    assert len(np.unique(z >= 0 if make(name).distance == "hamming" else z, axis=0)) > 1


@every
def test_the_distance_is_one_that_scores_know(name):
    assert make(name).distance in evaluate.DISTANCES


@every
def test_a_code_does_not_depend_on_the_images_beside_it(name):
    hasher, params, _ = fitted(name)
    reversed_codes = np.asarray(hasher.encode(params, IMAGES[::-1]))
    np.testing.assert_allclose(reversed_codes[::-1], codes(name), **TOLERANCE)
    np.testing.assert_allclose(hasher.encode(params, IMAGES[:5]), codes(name)[:5], **TOLERANCE)


@every
def test_encoding_is_compiled_once_per_shape(name):
    hasher, params, _ = fitted(name)
    codes(name)
    assert isinstance(hasher.encode, jax.stages.Wrapped)
    before = hasher.encode._cache_size()
    hasher.encode(params, IMAGES[::-1])
    assert hasher.encode._cache_size() == before


@every
def test_float_images_have_the_codes_of_their_bytes_and_no_other_numbers_are_images(name):
    hasher, params, _ = fitted(name)
    compiled = hasher.encode._cache_size()
    np.testing.assert_array_equal(hasher.encode(params, IMAGES / 255), codes(name))
    assert hasher.encode._cache_size() == compiled
    for wrong in (IMAGES.astype(np.float32), IMAGES > 99, IMAGES[..., 0], IMAGES.astype(int)):
        with pytest.raises(ValueError, match="images must be uint8"):
            hasher.encode(params, wrong)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")  # scikit-learn tells the user
@every
def test_images_that_are_all_alike_have_finite_codes(name):
    hasher, images = fitted(name)[0], np.repeat(IMAGES[:1], N, axis=0)
    params, _ = hasher.fit(jax.random.key(0), images, LABELS)
    assert np.isfinite(hasher.encode(params, images)).all()


@every
def test_equal_keys_give_equal_codes(name):
    np.testing.assert_array_equal(fitted_again(name)[0], codes(name))


@every
def test_an_epoch_is_reported_where_there_are_epochs(name):
    epochs = SETTINGS.get(name, {}).get("epochs", 0)
    assert len(fitted_again(name)[1]) == epochs


@every
def test_settings_are_plain_json_that_makes_the_hasher_again(name):
    hasher = make(name)
    spec = json.loads(json.dumps(dict(hasher.spec)))
    assert spec.keys() == {"name", "settings"}
    assert spec["name"] == name
    again = make_hasher(spec)
    assert json.loads(json.dumps(dict(again.spec))) == spec
    assert again.distance == hasher.distance
    given = SETTINGS.get(name, {"bits": BITS})
    assert {key: spec["settings"][key] for key in given} == json.loads(json.dumps(given))


@every
def test_a_decoder_gives_an_image_in_the_unit_range_for_each_code(name):
    hasher, params, _ = fitted(name)
    made = [
        None if hasher.decode is None else hasher.decode(params, codes(name)),
        None if hasher.generate is None else hasher.generate(params, jax.random.key(1), N),
    ]
    for images in made:
        if images is not None:
            assert images.shape == IMAGES.shape
            assert np.all((np.asarray(images) >= 0) & (np.asarray(images) <= 1))


@every
def test_measures_are_one_finite_number_per_image(name):
    hasher, params, _ = fitted(name)
    if hasher.measure is None:
        return
    measured = hasher.measure(params, jax.random.key(1), IMAGES, LABELS)
    assert measured
    assert all(value.shape == (N,) and np.all(np.isfinite(value)) for value in measured.values())


LOAD = """
import sys
import numpy as np
from jaxret import load_encoder

folder, *names = sys.argv[1:]
images = np.load(f"{folder}/images.npy")
codes = {name: load_encoder(f"{folder}/{name}", batch_size=len(images)).encode(images)
         for name in names}
np.savez(f"{folder}/codes.npz", **codes)
"""


@pytest.mark.soak
def test_another_process_loads_every_hasher_and_makes_the_same_codes_bit_for_bit(tmp_path):
    for name in HASHERS:
        hasher, params, _ = fitted(name)
        save_encoder(tmp_path / name, hasher, params, image_size=SHAPE)
    np.save(tmp_path / "images.npy", IMAGES)
    subprocess.run([sys.executable, "-c", LOAD, tmp_path, *HASHERS], check=True)
    with np.load(tmp_path / "codes.npz") as found:
        for name in HASHERS:
            np.testing.assert_array_equal(found[name], codes(name), err_msg=name)


@every
def test_a_loaded_encoder_carries_the_whole_hasher(name, tmp_path):
    hasher, params, _ = fitted(name)
    digest = save_encoder(tmp_path, hasher, params, image_size=SHAPE)
    loaded = load_encoder(tmp_path, batch_size=N)
    assert (loaded.digest, loaded.distance) == (digest, hasher.distance)
    assert loaded.bits_or_dims == codes(name).shape[1]
    if hasher.decode is not None:
        decoded = loaded.hasher.decode(loaded.params, codes(name))
        np.testing.assert_allclose(decoded, hasher.decode(params, codes(name)), **TOLERANCE)
