"""Batch normalisation equals Flax's: values, running statistics and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxret.models.norm import BatchNorm

SHAPE = (40, 6, 5, 3)  # XLA on CPU cuts sums over more than 32 images into windows
SETTINGS = {"momentum": 0.8, "epsilon": 1e-3}


def maps(seed):
    return 3 * jax.random.normal(jax.random.key(seed), SHAPE) + 5


def variables_of(layer):
    variables = layer.init(jax.random.key(0), maps(0))
    drawn = iter(jax.random.split(jax.random.key(1), 9))
    return jax.tree.map(lambda leaf: leaf + jax.random.uniform(next(drawn), leaf.shape), variables)


def assert_close(one, other, rtol=1e-4, atol=1e-4):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other)


def several(function):
    return jax.vmap(function, (0, None))


@pytest.mark.parametrize("each", [jax.jit, several])
def test_training_has_the_values_statistics_and_gradients_of_flax(each):
    ours, flaxs = BatchNorm(**SETTINGS), nn.BatchNorm(False, **SETTINGS)
    variables, x, g = variables_of(ours), maps(2), maps(3) - 5
    assert_close(variables, variables_of(flaxs))

    def step(layer):
        def result(params, x):
            y, told = layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(y * g), told

        return each(jax.value_and_grad(result, (0, 1), has_aux=True))

    params = variables["params"]
    if each is several:
        params = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    assert_close(step(ours)(params, x), step(flaxs)(params, x), atol=1e-3)


def test_running_statistics_are_used_without_training_and_initialising_leaves_them():
    ours, flaxs = (kind(use_running_average=True) for kind in (BatchNorm, nn.BatchNorm))
    variables = variables_of(ours)
    assert_close(ours.apply(variables, maps(2)), flaxs.apply(variables, maps(2)))
    fresh = BatchNorm().init(jax.random.key(0), maps(2))["batch_stats"]
    assert_close(fresh, {"mean": jnp.zeros(3), "var": jnp.ones(3)})


def test_half_precision_is_normalised_in_single_precision():
    ours, flaxs = (
        kind(use_running_average=False, dtype=jnp.bfloat16) for kind in (BatchNorm, nn.BatchNorm)
    )
    x = maps(2).astype(jnp.bfloat16)
    variables = variables_of(ours)
    found, expected = (
        layer.apply(variables, x, mutable=["batch_stats"]) for layer in (ours, flaxs)
    )
    assert found[0].dtype == jnp.bfloat16
    assert_close(found, expected, rtol=2e-2, atol=2e-2)
