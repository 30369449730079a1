"""Relaxations: forward by the definition, backward by what the docstring says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from marks import soak

from jaxret import relax

Z = jnp.asarray([-5.0, -1.5, -1.0, -0.3, -0.0, 0.0, 0.3, 1.0, 1.5, 5.0])


def backward(function, z):
    """What comes back when 1, 2, 3, ... is sent."""
    _, vjp = jax.vjp(function, z)
    return vjp(jnp.arange(1.0, z.size + 1).reshape(z.shape))[0]


SENT = np.arange(1.0, Z.size + 1)


@pytest.mark.parametrize("sign", [relax.sign_ste, relax.sign_identity, relax.sign_zero_gradient])
def test_a_sign_is_plus_or_minus_one_and_never_zero(sign):
    expected = [-1, -1, -1, -1, 1, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(jax.jit(sign)(Z), expected)
    np.testing.assert_array_equal(sign(Z), jax.vjp(sign, Z)[0])  # also where a gradient is taken


def test_the_clipped_straight_through_sign_stops_the_gradient_outside_one():
    np.testing.assert_array_equal(backward(relax.sign_ste, Z), SENT * (np.abs(Z) <= 1))


def test_the_identity_straight_through_sign_passes_the_whole_gradient():
    np.testing.assert_array_equal(backward(relax.sign_identity, Z), SENT)


def test_the_sign_without_a_gradient_passes_nothing():
    np.testing.assert_array_equal(backward(relax.sign_zero_gradient, Z), 0 * SENT)


def test_clip_ste_is_torres_equation_3_2_with_its_own_derivative():
    np.testing.assert_array_equal(relax.clip_ste(Z), np.clip(Z, -1, 1))
    np.testing.assert_array_equal(backward(relax.clip_ste, Z), SENT * (np.abs(Z) < 1))


def test_bernoulli_bits_are_one_with_the_probability_of_their_logit():
    logits = jnp.asarray([[-2.0, 0.0, 0.7, 3.0]])
    uniform = jax.random.uniform(jax.random.key(0), (200_000, 4))
    bits = relax.bernoulli_ste(jnp.broadcast_to(logits, uniform.shape), uniform)
    assert set(np.unique(bits)) == {-1.0, 1.0}
    np.testing.assert_allclose((bits > 0).mean(axis=0), jax.nn.sigmoid(logits[0]), atol=0.004)


def test_the_bernoulli_gradient_is_that_of_the_expected_bit():
    logits = jnp.linspace(-4, 4, 9)
    uniform = jax.random.uniform(jax.random.key(1), logits.shape)
    estimated = jax.grad(lambda x: relax.bernoulli_ste(x, uniform).sum())(logits)
    exact = jax.grad(lambda x: (2 * jax.nn.sigmoid(x) - 1).sum())(logits)
    np.testing.assert_allclose(estimated, exact, rtol=1e-5)


def softmax_of_gumbel(logits, noise, temperature):
    """The definition, left to autodiff."""
    return jax.nn.softmax((jax.nn.log_softmax(logits) + noise) / temperature)


@pytest.mark.parametrize("temperature", [1.0, *soak(0.3, 5.0)])
def test_gumbel_softmax_and_its_gradient_equal_the_definition(temperature):
    logits = jax.random.normal(jax.random.key(2), (3, 4, 5))
    noise = relax.gumbel_noise(jax.random.key(3), logits.shape)
    weights = jax.random.normal(jax.random.key(4), logits.shape)
    own = lambda x: (weights * relax.gumbel_softmax(x, noise, temperature)).sum()  # noqa: E731
    exact = lambda x: (weights * softmax_of_gumbel(x, noise, temperature)).sum()  # noqa: E731
    np.testing.assert_allclose(
        relax.gumbel_softmax(logits, noise, temperature),
        softmax_of_gumbel(logits, noise, temperature),
        atol=1e-6,
    )
    np.testing.assert_allclose(jax.grad(own)(logits), jax.grad(exact)(logits), atol=2e-6)


def test_hard_gumbel_softmax_is_one_hot_with_the_soft_gradient():
    logits = jax.random.normal(jax.random.key(5), (6, 4))
    noise = relax.gumbel_noise(jax.random.key(6), logits.shape)
    hard = relax.gumbel_softmax(logits, noise, 0.5, True)
    soft = relax.gumbel_softmax(logits, noise, 0.5, False)
    np.testing.assert_array_equal(hard, np.eye(4)[np.argmax(soft, axis=1)])
    by_hand = [
        jax.grad(lambda x, h=h: relax.gumbel_softmax(x, noise, 0.5, h)[0, 1])(logits)
        for h in (True, False)
    ]
    np.testing.assert_array_equal(*by_hand)


def test_the_gumbel_maximum_is_a_sample_of_the_categorical():
    logits = jnp.asarray([0.0, 1.0, -1.0, 2.0])
    noise = relax.gumbel_noise(jax.random.key(7), (200_000, 4))
    sample = relax.gumbel_softmax(jnp.broadcast_to(logits, noise.shape), noise, 1.0, True)
    np.testing.assert_allclose(sample.mean(axis=0), jax.nn.softmax(logits), atol=0.004)


@pytest.mark.slow
def test_a_temperature_may_differ_between_vmapped_runs():
    logits = jnp.zeros((2, 3, 4))
    noise = relax.gumbel_noise(jax.random.key(8), logits.shape)
    temperatures = jnp.asarray([0.5, 2.0])
    both = jax.vmap(relax.gumbel_softmax, (0, 0, 0))(logits, noise, temperatures)
    for run in range(2):
        alone = relax.gumbel_softmax(logits[run], noise[run], temperatures[run])
        np.testing.assert_allclose(both[run], alone, atol=1e-6)


TABLE_3_1 = {  # as printed in Torres 2018
    2: [-1, 1],
    4: [-3, -1, 1, 3],
    8: [-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5],
    16: [s * v for s in (-1, 1) for v in (0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75)],
    32: [-3.875 + 0.25 * i for i in range(32)],
}


@pytest.mark.parametrize("levels", TABLE_3_1)
def test_quantisation_gives_the_nearest_level_of_table_3_1(levels):
    z = np.random.default_rng(levels).uniform(-6, 6, (50, 7)).astype(np.float32)
    got = jax.jit(relax.quantise_uniform, static_argnums=1)(z, levels)
    np.testing.assert_array_equal(got, reference.quantise(z, TABLE_3_1[levels]))
    assert set(np.unique(got)) <= set(TABLE_3_1[levels])


def test_quantisation_passes_the_gradient_within_its_range():
    z = jnp.asarray([-9.0, -4.1, -3.9, 0.0, 3.9, 4.1])
    np.testing.assert_array_equal(
        backward(lambda x: relax.quantise_uniform(x, 8), z), [0, 0, 3, 4, 5, 0]
    )


def test_an_unknown_number_of_levels_is_refused():
    with pytest.raises(ValueError, match=r"one of \[2, 4, 8, 16, 32\], got 3"):
        relax.quantise_uniform(Z, 3)


@pytest.mark.slow
def test_a_relaxed_bit_is_gumbel_softmax_of_two_classes_and_tends_to_the_bit():
    key = jax.random.key(4)
    logits = 3 * jax.random.normal(key, (6, 5))
    gumbel = jax.random.gumbel(jax.random.fold_in(key, 1), (6, 5, 2))
    noise = gumbel[..., 0] - gumbel[..., 1]  # logistic
    both = jnp.stack([logits, jnp.zeros_like(logits)], axis=2)
    for temperature in (0.3, 1.0, 2.0):
        first = relax.gumbel_softmax(both, gumbel, temperature)[..., 0]
        bits = relax.binary_concrete(logits, noise, temperature)
        np.testing.assert_allclose(bits, 2 * first - 1, atol=1e-5)
    bits = relax.binary_concrete(logits, noise, 1e-4)
    np.testing.assert_array_equal(jnp.round(bits), jnp.where(logits + noise >= 0, 1.0, -1.0))
