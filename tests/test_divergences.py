"""Each distance as an inner product ranks as its definition does."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxret import divergences, evaluate

RNG = np.random.default_rng(0)


def kl(mean, variance, other_mean, other_variance):
    """Between Gaussians of independent coordinates (Kingma 2014, appendix B, for any prior)."""
    ratio = variance / other_variance
    return 0.5 * (ratio + (mean - other_mean) ** 2 / other_variance - 1 - np.log(ratio)).sum()


def symmetric_kl(a, b):
    (m, v), (n, w) = ((x[:5], np.exp(x[5:])) for x in (a, b))
    return kl(m, v, n, w) + kl(n, w, m, v)


def mahalanobis(a, b):
    return ((a[:5] - b[:5]) ** 2 / np.exp(a[5:])).sum()


def cosine(a, b):
    return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def expected_hamming(a, b):
    p, r = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))
    return (p * (1 - r) + (1 - p) * r).sum()


TRUTH = {
    "cosine": cosine,
    "mahalanobis": mahalanobis,
    "symmetric_kl": symmetric_kl,
    "expected_hamming": expected_hamming,
}


@pytest.mark.parametrize("name", divergences.SIDES)
def test_the_inner_product_is_the_distance_up_to_a_number_of_the_query(name):
    query, gallery = (jnp.asarray(RNG.standard_normal((n, 10)), jnp.float32) for n in (4, 30))
    truth = np.array([[TRUTH[name](q, g) for g in np.asarray(gallery)] for q in np.asarray(query)])
    of_query, of_gallery = divergences.SIDES[name]
    product = np.asarray(of_query(query)) @ np.asarray(of_gallery(gallery)).T
    difference = product - truth
    np.testing.assert_allclose(difference, difference[:, :1].repeat(30, 1), atol=1e-3)

    found = evaluate.nearest(query, gallery, 5, name)
    np.testing.assert_array_equal(found.indices, np.argsort(truth, axis=1)[:, :5])


@pytest.mark.parametrize("name", divergences.SIDES)
def test_scores_are_given_for_every_distance(name):
    labels = RNG.integers(0, 3, 40).astype(np.int32)
    centres = 5 * RNG.standard_normal((3, 10))
    rows = (centres[labels] + RNG.standard_normal((40, 10))).astype(np.float32)
    rows[:, 5:] = np.clip(rows[:, 5:], -1, 1)
    scores = evaluate.retrieval_scores(
        rows[:10], rows[10:], labels[:10], labels[10:], distance=name
    )
    nearest = evaluate.nearest(*map(jnp.asarray, (rows[:10], rows[10:])), 1, name).indices[:, 0]
    right = labels[10:][np.asarray(nearest)] == labels[:10]
    assert scores["map@1/retrieved"] == pytest.approx(right.mean())
    assert scores["map@1/retrieved"] > 0.8
