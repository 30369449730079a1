"""Dense SIFT, and what bags of words, VLAD and Fisher vectors make of descriptors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from jaxret import hashers
from jaxret.features.sift import DIRECTIONS, LENGTH, descriptors, sift
from jaxret.hashers import aggregate

RNG = np.random.default_rng(0)


def found(image):
    """Descriptors of one grey image of whole levels, [m, row and column of a cell, direction]."""
    x = np.asarray(descriptors(np.asarray(image, np.uint8)[None, :, :, None]))[0]
    return x.reshape(-1, 4, 4, DIRECTIONS)


@pytest.mark.slow
def test_a_ramp_points_all_gradients_in_its_direction():
    across = np.broadcast_to(np.arange(32) * 7, (32, 32))
    for direction, image in enumerate((across, across.T, across[:, ::-1], across.T[::-1])):
        expected = np.zeros(DIRECTIONS)
        expected[2 * direction] = 0.25  # 16 equal cells of a descriptor of length 1
        np.testing.assert_allclose(
            found(image), np.broadcast_to(expected, (25, 4, 4, 8)), atol=1e-5
        )


def test_brightness_and_contrast_change_nothing():
    image = RNG.integers(0, 80, (20, 20))
    np.testing.assert_allclose(found(image), found(3 * image), atol=1e-5)
    np.testing.assert_allclose(found(image), found(image + 100), atol=1e-5)


@pytest.mark.slow
def test_a_mirrored_image_has_mirrored_descriptors():
    image = RNG.integers(0, 256, (16, 16))
    mirrored = found(image[:, ::-1])[:, :, ::-1]
    np.testing.assert_allclose(mirrored[..., [4, 3, 2, 1, 0, 7, 6, 5]], found(image), atol=1e-5)


@pytest.mark.slow
def test_a_grid_has_a_descriptor_at_every_cell():
    x = RNG.integers(0, 256, (2, 24, 24, 3), np.uint8)
    assert descriptors(x).shape == (2, 9, LENGTH)
    assert sift().apply({}, x).shape == (2, 9 * LENGTH)
    assert descriptors(x[:, :8, :8]).shape == (2, 1, LENGTH)


def test_descriptors_at_their_words_leave_nothing_and_others_their_differences():
    centres = jnp.asarray([[0.0, 0.0], [10.0, 0.0]])
    x = jnp.asarray([[[0.0, 0.0], [10.0, 0.0]], [[1.0, 2.0], [0.0, 1.0]]])
    params = {"centres": centres}
    np.testing.assert_allclose(aggregate.vlad(params, x), [[0, 0, 0, 0], [1, 3, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(aggregate.bag_of_words(params, x), [[0.5, 0.5], [1, 0]])


def descriptors_of(count, seed=0):
    """One image's descriptors of 3 numbers."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=(1, count, 3)), jnp.float32)


def words(count, seed=1):
    random = np.random.default_rng(seed)
    drawn = {"centres": random.normal(size=(count, 3)), "variances": random.uniform(1, 4, (1, 3))}
    return {name: jnp.asarray(value, jnp.float32) for name, value in drawn.items()}


def test_vlad_is_a_sum_over_descriptors_in_any_order():
    x, more, params = descriptors_of(20), descriptors_of(7, seed=2), words(4)
    whole = aggregate.vlad(params, jnp.concatenate([x, more], axis=1))
    parts = aggregate.vlad(params, x) + aggregate.vlad(params, more)
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    turned = x[:, np.random.default_rng(0).permutation(20)]
    np.testing.assert_allclose(aggregate.vlad(params, turned), aggregate.vlad(params, x), atol=1e-5)


def test_vlad_of_one_word_is_the_mean_of_the_descriptors_less_the_word_times_their_number():
    x, params = descriptors_of(20), words(1)
    expected = 20 * (x.mean(axis=1) - np.asarray(params["centres"]))
    np.testing.assert_allclose(aggregate.vlad(params, x), expected, atol=1e-5)


def test_the_means_of_a_fisher_vector_of_one_gaussian_are_vlad_in_units_of_its_deviations():
    x, params = descriptors_of(20), words(1)
    found = aggregate.fisher(params | {"shares": jnp.ones(1)}, x)[:, :3]
    deviations = np.sqrt(params["variances"])
    np.testing.assert_allclose(20 * deviations * found, aggregate.vlad(params, x), atol=1e-5)


@pytest.mark.soak
def test_a_fisher_vector_is_the_gradient_of_the_likelihood():
    data = RNG.normal(size=(300, 3)) * [1, 2, 3] + RNG.integers(0, 2, (300, 1)) * 5
    mixture = GaussianMixture(2, covariance_type="diag", random_state=0).fit(data)
    centres, variances, shares = (
        jnp.asarray(value, jnp.float32)
        for value in (mixture.means_, mixture.covariances_, mixture.weights_)
    )
    x = jnp.asarray(RNG.normal(size=(1, 7, 3)), jnp.float32)

    def likelihood(centres, deviations):
        away = (x[0, :, None] - centres[None]) / deviations[None]
        terms = jnp.log(shares) - jnp.sum(jnp.log(deviations), axis=1)
        terms = terms[None] - jnp.sum(away**2, axis=2) / 2
        return jnp.mean(jax.scipy.special.logsumexp(terms, axis=1))

    deviations = jnp.sqrt(variances)
    of_centres, of_widths = jax.grad(likelihood, (0, 1))(centres, deviations)
    scale = deviations / jnp.sqrt(shares)[:, None]
    expected = jnp.stack([scale * of_centres, scale * of_widths / jnp.sqrt(2.0)])
    params = {"centres": centres, "variances": variances, "shares": shares}
    np.testing.assert_allclose(aggregate.fisher(params, x)[0], expected.reshape(-1), atol=1e-5)


@pytest.mark.soak
def test_descriptors_may_be_computed_before():
    images = RNG.integers(0, 256, (12, 20, 20, 1), np.uint8)
    hasher = hashers.HASHERS["vlad"](4, words=3)
    params, _ = hasher.fit(jax.random.key(0), images)
    vectors = np.asarray(sift().apply({}, images))
    np.testing.assert_allclose(
        hasher.encode(params, vectors), hasher.encode(params, images), atol=1e-5
    )
    with pytest.raises(ValueError, match="descriptors of 128 numbers, got 100 numbers"):
        hasher.encode(params, np.zeros((2, 100), np.float32))
    with pytest.raises(ValueError, match="words must be at least 2"):
        hashers.HASHERS["bow"](4, words=1)


def test_a_kind_that_is_none_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match="kind must be one of bow, vlad, fisher, got 'bag'"):
        aggregate.aggregate_hasher("bag", 4)
