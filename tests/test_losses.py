"""Losses against closed forms and Monte-Carlo estimates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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


def test_smoothing_mixes_the_cross_entropies_of_the_label_and_of_all_classes():
    logits = jnp.asarray(np.random.default_rng(5).normal(size=(6, 4)), jnp.float32)
    labels = jnp.asarray([0, 1, 2, 3, 0, 1])
    by_label = [
        losses.softmax_cross_entropy(logits, jnp.full(6, label)) for label in range(4)
    ]  # fmt: skip
    plain = losses.softmax_cross_entropy(logits, labels)
    np.testing.assert_allclose(plain, np.stack(by_label, 1)[np.arange(6), labels], rtol=1e-6)
    smoothed = losses.softmax_cross_entropy(logits, labels, 0.1)
    np.testing.assert_allclose(smoothed, 0.9 * plain + 0.1 * np.mean(by_label, axis=0), rtol=1e-5)


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes():
    cost = losses.softmax_cross_entropy(jnp.zeros((2, 10)), jnp.asarray([3, 7]), 0.3)
    np.testing.assert_allclose(cost, np.log(10), rtol=1e-6)


def test_a_code_of_signs_needs_no_quantisation_and_one_of_zeros_the_most():
    signs, zeros = jnp.asarray([[1.0, -1.0, 1.0]]), jnp.zeros((1, 3))
    for loss, most in ((losses.quantisation, np.log(np.cosh(1))), (losses.cubic_quantisation, 1)):
        np.testing.assert_allclose(loss(signs), [0], atol=1e-6)
        np.testing.assert_allclose(loss(zeros), [most], rtol=1e-6)
        assert 0 < float(loss(0.5 * signs)[0]) < most
        assert np.isfinite(loss(1e4 * signs)).all()


def test_bits_that_split_the_batch_are_balanced():
    assert float(losses.bit_balance(jnp.asarray([[1.0, -1.0], [-1.0, 1.0]]))) == 0
    assert float(losses.bit_balance(jnp.asarray([[1.0, 1.0], [1.0, -1.0]]))) == 0.5


def test_the_pairwise_likelihood_is_the_mean_over_pairs_of_different_images():
    codes = np.random.default_rng(6).uniform(-1, 1, (5, 8)).astype(np.float32)
    labels = np.asarray([0, 1, 0, 2, 1])
    costs = []
    for i in range(5):
        for j in range(5):
            if i != j:
                alike = 1 / (1 + np.exp(-codes[i] @ codes[j] / 2))
                costs.append(-np.log(alike if labels[i] == labels[j] else 1 - alike))
    got = losses.pairwise_likelihood(jnp.asarray(codes), jnp.asarray(labels))
    np.testing.assert_allclose(got, np.mean(costs), rtol=1e-5)


def test_a_code_is_central_where_each_bit_is_surely_that_of_its_centre():
    centre = jnp.asarray([[1.0, -1.0]])
    np.testing.assert_allclose(losses.central_similarity(20 * centre, centre), [0], atol=1e-6)
    np.testing.assert_allclose(losses.central_similarity(0 * centre, centre), [np.log(2)], 1e-6)


@pytest.mark.parametrize(
    ("num_classes", "bits", "least"),
    [
        (10, 16, 8),
        (100, 128, 64),
        (100, 64, 32),
        (10, 48, 24),
        (10, 24, 12),
        (100, 12, 2),
        (1, 9, 9),
    ],
)
def test_hash_centres_are_far_apart_and_balanced(num_classes, bits, least):
    centres = losses.hash_centres(num_classes, bits)
    assert centres.shape == (num_classes, bits)
    assert set(np.unique(centres)) == {-1, 1}
    distances = (bits - centres @ centres.T) / 2
    assert distances[~np.eye(num_classes, dtype=bool)].min(initial=bits) >= least
    np.testing.assert_array_equal(centres, losses.hash_centres(num_classes, bits))


def test_too_few_bits_for_the_classes_are_refused():
    with pytest.raises(ValueError, match="4 bits are too few for codes of 10 classes"):
        losses.hash_centres(10, 4)
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 8"):
        losses.hash_centres(0, 8)


def test_ntxent_refuses_an_anchor_without_a_positive():
    with pytest.raises(ValueError, match="as many positives as anchors, got 5 codes"):
        losses.ntxent(jnp.ones((5, 3)))


def test_hash_centres_of_a_power_of_two_differ_in_half_of_their_bits():
    centres = losses.hash_centres(16, 16)
    np.testing.assert_array_equal(centres @ centres.T, 16 * np.eye(16))


@pytest.mark.slow
def test_the_marginal_divergence_is_what_all_images_share():
    same = jnp.full((7, 3), 2.0)
    np.testing.assert_allclose(
        losses.marginal_bernoulli_kl(same), losses.bernoulli_kl(same)[0], rtol=1e-5
    )
    opposite = jnp.concatenate([same, -same])
    np.testing.assert_allclose(losses.marginal_bernoulli_kl(opposite), 0, atol=1e-6)


def test_the_marginal_divergence_is_the_mean_divergence_less_the_information():
    logits = jax.random.normal(jax.random.key(0), (50, 4, 5)) * 3
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    mean = p.mean(axis=0)
    information = np.sum(p * np.log(p / mean), axis=(1, 2)).mean()
    divergence = np.mean(losses.categorical_kl(logits))
    np.testing.assert_allclose(
        losses.marginal_categorical_kl(logits), divergence - information, rtol=1e-4
    )


def test_ntxent_is_the_cross_entropy_of_a_softmax_over_the_other_codes():
    z = np.random.default_rng(0).normal(size=(6, 4))
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    expected = []
    for i, positive in enumerate((3, 4, 5, 0, 1, 2)):
        others = [j for j in range(6) if j != i]
        odds = np.exp([unit[i] @ unit[j] / 0.5 for j in others])
        expected.append(-np.log(odds[others.index(positive)] / odds.sum()))
    found = losses.ntxent(jnp.asarray(z, jnp.float32), 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_ntxent_of_equal_codes_is_that_of_guessing_and_has_a_gradient():
    value, gradient = jax.value_and_grad(lambda z: losses.ntxent(z).mean())(jnp.zeros((8, 3)))
    assert float(value) == pytest.approx(np.log(7), rel=1e-6)
    assert np.isfinite(gradient).all()
