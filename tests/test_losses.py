"""Losses against closed forms and Monte-Carlo estimates."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxret import losses

DRAWS = 400_000


def test_the_bernoulli_nll_is_the_cross_entropy_summed_over_pixels():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(3, 4, 4, 1)), jnp.float32)
    x = jnp.asarray(rng.uniform(size=logits.shape), jnp.float32)
    p = 1 / (1 + np.exp(-np.asarray(logits, float)))
    expected = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(losses.bernoulli_nll(logits, x), expected, rtol=1e-5)


def test_the_bernoulli_nll_stays_finite_for_any_logit():
    x = jnp.asarray([[0.0, 1.0]])
    wrong = losses.bernoulli_nll(jnp.asarray([[1e4, -1e4]]), x)
    np.testing.assert_allclose(wrong, [2e4])


def test_the_gaussian_nll_is_the_density_of_scipy():
    rng = np.random.default_rng(1)
    mean, x = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
    expected = -stats.norm.logpdf(x, mean, np.exp(0.5 * 0.3)).sum(axis=1)
    np.testing.assert_allclose(losses.gaussian_nll(mean, x, 0.3), expected, rtol=1e-5)


def test_the_squared_error_sums_over_pixels():
    got = losses.squared_error(jnp.zeros((2, 2, 2, 1)), jnp.full((2, 2, 2, 1), 3.0))
    np.testing.assert_allclose(got, [36.0, 36.0])


def test_the_gaussian_kl_equals_its_monte_carlo_estimate():
    mean, log_variance = jnp.asarray([[0.5, -1.0]]), jnp.asarray([[0.4, -1.2]])
    deviation = np.exp(0.5 * np.asarray(log_variance))
    z = np.asarray(mean) + deviation * np.random.default_rng(2).normal(size=(DRAWS, 2))
    log_ratio = stats.norm.logpdf(z, mean, deviation) - stats.norm.logpdf(z)
    kl = losses.gaussian_kl(mean, log_variance)
    np.testing.assert_allclose(kl, log_ratio.sum(axis=1).mean(), rtol=0.01)


def test_the_bernoulli_kl_equals_its_monte_carlo_estimate():
    logits = jnp.asarray([[2.0, -0.5, 0.0]])
    p = np.asarray(jax.nn.sigmoid(logits))
    bits = np.random.default_rng(3).uniform(size=(DRAWS, 3)) < p
    log_ratio = stats.bernoulli.logpmf(bits, p) - np.log(0.5)
    np.testing.assert_allclose(losses.bernoulli_kl(logits), log_ratio.sum(axis=1).mean(), rtol=0.01)


def test_the_categorical_kl_equals_its_monte_carlo_estimate():
    logits = jnp.asarray([[[1.0, 0.0, -1.0], [3.0, 0.0, 0.0]]])
    p = np.asarray(jax.nn.softmax(logits))[0]
    rng = np.random.default_rng(4)
    drawn = [np.log(row[rng.choice(3, DRAWS, p=row / row.sum())] * 3).mean() for row in p]
    np.testing.assert_allclose(losses.categorical_kl(logits), [sum(drawn)], rtol=0.01)


def test_a_posterior_equal_to_the_prior_has_no_divergence():
    np.testing.assert_allclose(losses.gaussian_kl(jnp.zeros((2, 3)), jnp.zeros((2, 3))), [0, 0])
    np.testing.assert_allclose(losses.bernoulli_kl(jnp.zeros((2, 3))), [0, 0], atol=1e-6)
    np.testing.assert_allclose(losses.categorical_kl(jnp.ones((2, 3, 4))), [0, 0], atol=1e-6)


def test_a_certain_bit_costs_log_two_and_a_certain_class_log_c():
    np.testing.assert_allclose(losses.bernoulli_kl(jnp.full((1, 4), 80.0)), [4 * np.log(2)], 1e-5)
    certain = jnp.asarray([[[90.0, 0.0, 0.0, 0.0, 0.0]]])
    np.testing.assert_allclose(losses.categorical_kl(certain), [np.log(5)], rtol=1e-5)
