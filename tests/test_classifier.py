"""The convolutional classifier as a hasher: which statistics its codes are normalised by."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret import hashers, train
from jaxret.hashers import network
from jaxret.hashers.pixels import scale
from jaxret.models import ConvClassifier

RNG = np.random.default_rng(0)
LABELS = (np.arange(60) % 2).astype(np.int32)
IMAGES = np.clip(RNG.normal(100 + 50 * LABELS[:, None, None, None], 40, (60, 8, 8, 3)), 0, 255)
IMAGES = IMAGES.astype(np.uint8)
SIZES = {"channels": (4, 6), "dense": (5,)}


def made(**settings):
    settings = SIZES | {"dropout": (0.5, 0.5), "batch_size": 10} | settings
    return hashers.classifier_hasher(2, IMAGES.shape[1:], **settings)


def fitted(epochs=2, state=None, **settings):
    hasher = made(epochs=epochs, **settings)
    return train.run(hasher.training, jax.random.key(0), IMAGES, LABELS, state=state)[0]


@pytest.fixture(scope="module")
def plain():
    return fitted()


@pytest.fixture(scope="module")
def clean():
    return fitted(clean_statistics=True)


def test_clean_statistics_leave_training_as_it_is(plain, clean):
    chex.assert_trees_all_equal(plain.params, clean.params)
    chex.assert_trees_all_equal(plain.opt_state, clean.opt_state)


def test_clean_statistics_are_those_without_dropout(plain, clean):
    bare = ConvClassifier(2, dropout=(0.0, 0.0), momentum=0.0, **SIZES)
    variables = {"params": clean.params, **clean.model_state}
    x = scale(jnp.asarray(IMAGES))
    _, told = bare.apply(variables, x, lambda z: z, True, mutable=["batch_stats"])
    expected = told["batch_stats"]["trunk"]
    own, other = (run.model_state["batch_stats"]["trunk"] for run in (clean, plain))
    for name in expected:  # of a few batches, not of all images at once
        chex.assert_trees_all_close(own[name], expected[name], rtol=0.2, atol=1e-3)
    after = "BatchNorm_2"  # the first that sees maps with half of their numbers dropped
    assert (other[after]["var"] > 1.5 * own[after]["var"]).all()


def test_a_stopped_run_with_clean_statistics_goes_on_as_if_it_had_not_stopped(clean):
    again = fitted(2, state=fitted(1, clean_statistics=True), clean_statistics=True)
    chex.assert_trees_all_equal(again.params, clean.params)
    chex.assert_trees_all_equal(again.model_state, clean.model_state)


def test_averaged_weights_leave_training_as_it_is_and_encode(plain):
    averaged = fitted(ema=0.6)
    chex.assert_trees_all_close(plain.params, averaged.params, rtol=1e-4)
    hasher = made(ema=0.6)
    average = averaged.model_state["average"]
    codes = hasher.encode(hashers.weights(averaged), IMAGES)
    chex.assert_trees_all_equal(codes, hasher.encode(average, IMAGES))
    assert not np.allclose(codes, hasher.encode(hashers.weights(plain), IMAGES), rtol=0.01)


def test_an_average_keeps_its_share_and_less_in_its_first_steps():
    def loss(params, model_state, *_):
        return 0.0, (model_state, {})

    averaging, weights = network.with_average(loss), {"w": jnp.ones(2)}
    state = network.with_first_average({"w": jnp.zeros(2)}, {"batch_stats": {"mean": jnp.ones(1)}})
    for step in range(30):
        hyper = {"ema": 0.75, "step": step}
        _, (state, _) = averaging(weights, state, None, None, None, hyper)
    forgotten = np.prod([min(0.75, (1 + step) / (10 + step)) for step in range(30)])
    np.testing.assert_allclose(state["average"]["params"]["w"], 1 - forgotten, rtol=1e-5)
    np.testing.assert_array_equal(state["average"]["batch_stats"]["mean"], 1)


def test_clean_statistics_of_averaged_weights_are_theirs(clean):
    settings = {"ema": 0.6, "clean_statistics": True}
    averaged, settled = fitted(ema=0.6), fitted(**settings)
    average, other = (run.model_state["average"] for run in (settled, averaged))
    chex.assert_trees_all_equal(average["params"], other["params"])
    of_last = clean.model_state["batch_stats"]["trunk"]
    found, unsettled = (tree["batch_stats"]["trunk"] for tree in (average, other))
    first = "BatchNorm_0"  # of the same images, but of other weights
    assert not np.allclose(found[first]["mean"], of_last[first]["mean"], rtol=1e-3)
    assert not np.allclose(found[first]["mean"], unsettled[first]["mean"], rtol=1e-4)
    again = fitted(2, fitted(1, **settings), **settings)
    chex.assert_trees_all_equal(again.model_state, settled.model_state)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ema": 1.0}, "ema must lie from 0 to below 1, got 1.0"),
        ({"crop": -0.1}, "crop must lie from 0 to below 1, got -0.1"),
        ({"dropout": (0.5, 1.0)}, r"dropout must lie from 0 to below 1, got \(0.5, 1.0\)"),
    ],
)
def test_shares_outside_their_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        made(**settings)
