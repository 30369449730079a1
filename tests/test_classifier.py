"""The convolutional classifier as a hasher: which statistics its codes are normalised by."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret import hashers, train
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
    chex.assert_trees_all_equal(plain.params, averaged.params)
    chex.assert_trees_all_equal(plain.opt_state, averaged.opt_state)
    hasher = made(ema=0.6)
    average = averaged.model_state["average"]
    codes = hasher.encode(hashers.weights(averaged), IMAGES)
    chex.assert_trees_all_equal(codes, hasher.encode(average, IMAGES))
    assert not np.allclose(codes, hasher.encode(hashers.weights(plain), IMAGES), rtol=0.01)


def test_an_average_of_one_step_is_the_first_weights():
    # It keeps 1 / 10 of the first weights, and takes 9 / 10 of those before the step.
    state = fitted(1, ema=0.9, batch_size=60)
    first = train.start(made().training, jax.random.key(0), IMAGES)
    chex.assert_trees_all_close(state.model_state["average"]["params"], first.params, rtol=1e-6)


def test_clean_statistics_of_averaged_weights_are_theirs():
    averaged = fitted(ema=0.6)
    settled = fitted(ema=0.6, clean_statistics=True)
    average, other = (run.model_state["average"] for run in (settled, averaged))
    chex.assert_trees_all_equal(average["params"], other["params"])
    plain = fitted(clean_statistics=True).model_state["batch_stats"]
    first = "BatchNorm_0"  # of the same images, but of other weights
    found, of_last = (tree["trunk"][first]["mean"] for tree in (average["batch_stats"], plain))
    assert not np.allclose(found, of_last, rtol=1e-3)
    assert not np.allclose(found, other["batch_stats"]["trunk"][first]["mean"], rtol=1e-4)


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
