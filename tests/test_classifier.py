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


def fitted(epochs=2, state=None, **settings):
    settings = SIZES | {"dropout": (0.5, 0.5), "batch_size": 10, "epochs": epochs} | settings
    hasher = hashers.classifier_hasher(2, IMAGES.shape[1:], **settings)
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
