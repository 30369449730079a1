"""Distances beyond Euclidean and Hamming: each equals its definition, near ties included."""

import os
import subprocess
import sys

import numpy as np
import pytest

from jaxret import divergences, evaluate

RNG = np.random.default_rng(0)


def kl(mean, variance, other_mean, other_variance):
    """Between Gaussians of independent coordinates (Kingma 2014, appendix B, for any prior)."""
    ratio = variance / other_variance
    return 0.5 * (ratio + (mean - other_mean) ** 2 / other_variance - 1 - np.log(ratio)).sum()


def moments(x):
    return x[: len(x) // 2], np.exp(x[len(x) // 2 :])


def symmetric_kl(a, b):
    (m, v), (n, w) = moments(a), moments(b)
    return kl(m, v, n, w) + kl(n, w, m, v)


def mahalanobis(a, b):
    (m, v), (n, _) = moments(a), moments(b)
    return ((m - n) ** 2 / v).sum()


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


def truth_of(name, query, gallery):
    rows = [np.asarray(part, np.float64) for part in (query, gallery)]
    return np.array([[TRUTH[name](q, g) for g in rows[1]] for q in rows[0]])


@pytest.mark.parametrize("name", TRUTH)
def test_neighbors_and_their_distances_are_those_of_the_definition(name):
    query, gallery = (RNG.standard_normal((n, 10)).astype(np.float32) for n in (4, 30))
    truth = truth_of(name, query, gallery)
    found = evaluate.nearest(query, gallery, 40, name)
    order = np.argsort(truth, axis=1)
    np.testing.assert_array_equal(
        found.indices, np.pad(order, ((0, 0), (0, 10)), constant_values=-1)
    )
    expected = np.take_along_axis(truth, order, axis=1)
    np.testing.assert_allclose(np.asarray(found.distances)[:, :30], expected, rtol=2e-6)
    assert np.isinf(np.asarray(found.distances)[:, 30:]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUTH)
def test_near_ties_far_from_the_origin_are_told_apart(name):
    """Rows that differ in the fourth digit, which expanded squares in float32 rank at random."""
    d = 10
    shift = np.array([300.0] * d + [0.5] * d) if name != "expected_hamming" else np.full(2 * d, 1.0)
    rows = (shift + 3e-2 * RNG.standard_normal((40, 2 * d))).astype(np.float32)
    query, gallery = rows[:4], rows[4:]
    truth = truth_of(name, query, gallery)
    found = evaluate.nearest(query, gallery, 36, name)
    ranked = np.take_along_axis(truth, np.asarray(found.indices), axis=1)
    # 1 - cos is near 1e-8 here, and a definition in float64 itself keeps 7 digits of it.
    rounding = divergence_bound(name, ranked, 2 * d)
    assert np.all(ranked[:, :-1] <= ranked[:, 1:] + 2 * rounding[:, 1:])
    assert np.all(np.abs(found.distances - ranked) <= rounding)
    assert np.median(np.diff(ranked, axis=1)) > 2 * np.median(rounding)  # so most pairs are tested


def divergence_bound(name, distance, d):
    """What the modules say that a distance may err by."""
    if name == "cosine":
        return 2.0**-22 * np.sqrt(2 * distance) + (d + 8) * 2.0**-24 * distance + 2.0**-46
    roundings = 2.0**-22 * np.sqrt(2 * d * distance) if name == "symmetric_kl" else 0
    return (d + 16) * 2.0**-24 * distance + roundings


def test_cosine_distances_lie_between_0_and_2_and_zeros_are_at_1():
    rows = np.array([[1, 0], [0, 2], [-3, 0], [0, 0], [1e-30, 0], [1e30, 1e30]], np.float32)
    found = evaluate.nearest(rows[[0, 3]], rows, 6, "cosine")
    assert found.indices.tolist() == [[0, 4, 5, 1, 3, 2], [0, 1, 2, 3, 4, 5]]
    expected = [[0, 0, 1 - 0.5**0.5, 1, 1, 2], [1] * 6]
    np.testing.assert_allclose(found.distances, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUTH)
def test_tiles_of_queries_and_stretches_of_rows_change_nothing(name, monkeypatch):
    query, gallery = (RNG.standard_normal((n, 4)).astype(np.float32) for n in (5, 30))
    whole = evaluate.nearest(query, gallery, 7, name)
    monkeypatch.setattr(evaluate.distances, "PAIRS", 60)
    monkeypatch.setattr(divergences, "STRETCH", 8)
    divergences.distances.clear_cache()
    tiled = evaluate.nearest(query, gallery, 7, name)
    divergences.distances.clear_cache()
    np.testing.assert_array_equal(whole.indices, tiled.indices)
    # Equal to the last bit as users compile; the tests' quick compilation may round otherwise.
    ulps = 1 if "fusion_emitters=false" in os.environ.get("XLA_FLAGS", "") else 0
    np.testing.assert_array_max_ulp(np.asarray(whole.distances), np.asarray(tiled.distances), ulps)


@pytest.mark.soak
def test_tiles_change_nothing_to_the_last_bit_as_users_compile():
    test = f"{__file__}::test_tiles_of_queries_and_stretches_of_rows_change_nothing"
    usual = {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", test]
    done = subprocess.run(command, env=os.environ | usual, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_posteriors_that_cannot_be_are_refused():
    rows = np.zeros((3, 5), np.float32)
    with pytest.raises(ValueError, match="means, then log variances, got 5 columns"):
        evaluate.nearest(rows, rows, 1, "symmetric_kl")
    rows = np.full((3, 4), 50, np.float32)
    with pytest.raises(ValueError, match="within -40 and 40, got 50"):
        evaluate.nearest(rows, rows, 1, "mahalanobis")


@pytest.mark.parametrize("name", TRUTH)
def test_scores_are_given_for_every_distance(name):
    labels = RNG.integers(0, 3, 40).astype(np.int32)
    centres = 5 * RNG.standard_normal((3, 10))
    rows = (centres[labels] + RNG.standard_normal((40, 10))).astype(np.float32)
    rows[:, 5:] = np.clip(rows[:, 5:], -1, 1)
    scores = evaluate.retrieval_scores(
        rows[:10], rows[10:], labels[:10], labels[10:], distance=name
    )
    nearest = evaluate.nearest(rows[:10], rows[10:], 1, name).indices[:, 0]
    right = labels[10:][np.asarray(nearest)] == labels[:10]
    assert scores["map@1/retrieved"] == pytest.approx(right.mean())
    assert scores["map@1/retrieved"] > 0.8
