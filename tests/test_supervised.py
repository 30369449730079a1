"""Shallow hashers that learn from labels, and spectral hashing: invariants, scores on digits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from marks import soak
from test_shallow import digits, mean_average_precision, vectors

from jaxret.hashers import HASHERS, correlation, kernel, pairs, shallow, spectral

KEY = jax.random.key(0)
SUPERVISED = ("itqcca", "bre", "mlh", "ksh", "sdh")
SMALL = {
    "mlh": {"steps": 20},
    "ksh": {"anchors": 10, "steps": 5},
    "sdh": {"anchors": 10, "iterations": 2},
    "bre": {"sample": 30, "sweeps": 3},
}


def classes_and_vectors(n=90, d=8, num_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % num_classes).astype(np.int32)
    centres = 2 * rng.normal(size=(num_classes, d))
    return (centres[labels] + rng.normal(size=(n, d))).astype(np.float32), labels


@pytest.mark.slow
@pytest.mark.parametrize("name", SUPERVISED)
def test_what_learns_from_labels_refuses_images_without_and_leaves_unlabelled_ones_out(name):
    x, labels = classes_and_vectors()
    hasher = HASHERS[name](4, **SMALL.get(name, {}))
    with pytest.raises(ValueError, match="labels must be one whole number per image"):
        hasher.fit(KEY, x)
    with pytest.raises(ValueError, match="at least two classes of at least two images each"):
        hasher.fit(KEY, x, np.zeros(90, np.int32))
    more = np.concatenate([x, 100 * np.ones((5, 8), np.float32)])
    unlabelled = np.concatenate([labels, np.full(5, -1, np.int32)])
    expected = hasher.encode(hasher.fit(KEY, x, labels)[0], x)
    found = hasher.encode(hasher.fit(KEY, more, unlabelled)[0], x)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("itqcca", {"regularisation": 0.0}, "regularisation must be above 0, got 0"),
        ("itqcca", {"iterations": -1}, "iterations must be at least 0, got -1"),
        ("ksh", {"anchors": 0}, "anchors must be at least 1, got 0"),
        ("sdh", {"iterations": 0}, "iterations must be at least 1, got 0"),
        ("bre", {"partners": 0.0}, "partners must be above 0 and at most 1, got 0"),
        ("mlh", {"radius": 5}, "radius must lie between 0 and 4, the bits, got 5"),
        ("mlh", {"learning_rate": 0.0}, "learning_rate must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused_with_the_rule(name, settings, message):
    with pytest.raises(ValueError, match=message):
        HASHERS[name](4, **settings)


# Spectral hashing.


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ((4, 2, 1), [(0, 1), (0, 2), (1, 1), (0, 3), (0, 4), (1, 2)]),
        ((1, 1, 1, 1), [(0, 1), (1, 1), (2, 1), (3, 1)]),
        ((10, 1, 1, 1), [(0, 1), (0, 2), (0, 3), (0, 4)]),
        ((0, 3, 0), [(1, 1), (1, 2)]),
    ],
)
def test_the_longest_waves_come_first_and_equal_ones_in_the_order_of_components(ranges, expected):
    component, mode = spectral.waves(np.asarray(ranges, np.float32), len(expected))
    assert list(zip(component.tolist(), mode.tolist(), strict=True)) == expected


@pytest.mark.slow
def test_the_first_bit_cuts_the_widest_component_at_the_middle_of_its_range():
    x = vectors()
    hasher = spectral.sh_hasher(6)
    params, _ = hasher.fit(KEY, x)
    bits = np.asarray(hasher.encode(params, x)) >= 0
    v = np.asarray(shallow.project(x, params["mean"], params["projection"]))[:, 0]
    np.testing.assert_array_equal(bits[:, 0], v <= (v.min() + v.max()) / 2)


def test_mirrored_data_have_the_same_hamming_distances_by_spectral_hashing():
    def distances(x):
        hasher = spectral.sh_hasher(12)
        bits = np.asarray(hasher.encode(hasher.fit(KEY, x)[0], x)) >= 0
        return (bits[:, None] != bits[None]).sum(axis=2)

    x = vectors(60)
    differ = distances(x) != distances(-x)
    assert differ.mean() < 0.01  # but for values at the border of a bit


@pytest.mark.slow
def test_spectral_hashing_gives_more_bits_than_dimensions():
    x = digits()[0]
    hasher = spectral.sh_hasher(128)  # of 64 pixels
    bits = np.asarray(hasher.encode(hasher.fit(KEY, x)[0], x)) >= 0
    assert bits.shape == (len(x), 128)
    assert np.all(np.any(bits != bits[:1], axis=0))  # every bit tells images apart
    assert len(np.unique(bits, axis=0)) > 0.9 * len(x)


# ITQ-CCA.


def test_correlations_are_the_singular_values_between_both_spaces():
    x, labels = classes_and_vectors()
    y = np.eye(3)[labels]
    bases = [np.linalg.svd(m - m.mean(axis=0), full_matrices=False)[0] for m in (x, y[:, :2])]
    expected = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    directions, found = correlation.canonical_directions(x, labels, 1e-9)
    np.testing.assert_allclose(found[:2], expected, atol=1e-6)
    assert np.all(found[2:] < 1e-4)  # C - 1 are not 0
    covariance = np.cov(x.T) + 1e-9 * np.eye(8)
    np.testing.assert_allclose(directions.T @ covariance @ directions, np.eye(8), atol=1e-6)
    mixed = x @ np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
    np.testing.assert_allclose(
        correlation.canonical_directions(mixed, labels, 1e-9)[1][:2], expected, atol=1e-4
    )


def test_correlations_of_digits_are_those_measured_elsewhere():
    x, labels, _ = digits()
    expected = (0.9386, 0.9079, 0.9017, 0.8664, 0.8260, 0.7927, 0.7244, 0.6562, 0.5923)
    _, found = correlation.canonical_directions(x, labels, 1e-4)
    np.testing.assert_allclose(found[:9], expected, atol=1e-4)
    assert found[9] < 1e-6


def test_there_may_be_more_bits_than_classes_and_dimensions():
    x, labels = classes_and_vectors()
    hasher = correlation.itqcca_hasher(20)
    codes = np.asarray(hasher.encode(hasher.fit(KEY, x, labels)[0], x)) >= 0
    assert codes.shape == (90, 20)
    assert not np.any(np.all(codes == codes[:1], axis=0))  # every bit tells images apart


# KSH.


def kernel_and_classes():
    x, labels = classes_and_vectors()
    squares = ((x[:, None] - x[None, :12]) ** 2).sum(axis=2)
    k = np.exp(-squares / (2 * squares.mean()))
    return (k - k.mean(axis=0)).astype(np.float32), np.eye(3, dtype=np.float32)[labels]


@pytest.mark.parametrize("steps", [0, 50])
def test_the_residue_of_ksh_is_that_of_its_codes(steps):
    k, y = kernel_and_classes()
    fitted = kernel.ksh_weights(k, y, 5, steps)
    h = np.where(k @ np.asarray(fitted.weights) >= 0, 1.0, -1.0)
    similar = 2 * y @ y.T - 1
    for bits in range(6):
        residue = 5 * similar - h[:, :bits] @ h[:, :bits].T
        assert fitted.residues[bits] == pytest.approx(np.linalg.norm(residue) / 90, rel=1e-4)
        if bits < 5:
            gain = h[:, bits] @ residue @ h[:, bits]
            assert fitted.gains[bits] == pytest.approx(gain, rel=1e-4)
    assert fitted.residues[0] == 5
    assert np.all(np.asarray(fitted.gains) >= np.asarray(fitted.spectral))


@pytest.mark.parametrize("name", ["ksh", "sdh"])
@pytest.mark.parametrize("spread", [0.0, 1e-4, 1.0])
def test_a_kernel_of_all_images_or_of_images_that_are_alike_has_finite_bits(name, spread):
    rng = np.random.default_rng(0)
    x = (1 + spread * rng.normal(size=(60, 5))).astype(np.float32)
    hasher = HASHERS[name](6)
    params, info = hasher.fit(KEY, x, np.arange(60) % 3)
    assert all(np.isfinite(value) for value in info.values())
    assert np.isfinite(hasher.encode(params, x)).all()


def test_ksh_starts_at_the_first_vector_of_its_spectral_problem():
    k, y = kernel_and_classes()
    gram = k.T @ k
    gram = gram + 1e-6 * np.trace(gram) / 12 * np.eye(12)
    matrix = k.T @ (5 * (2 * y @ y.T - 1)) @ k
    first = scipy.linalg.eigh(matrix, gram)[1][:, -1]
    found = np.asarray(kernel.ksh_weights(k, y, 5, 0).weights)[:, 0]
    cosine = found @ gram @ first / np.sqrt((found @ gram @ found) * (first @ gram @ first))
    assert abs(cosine) == pytest.approx(1, abs=1e-4)


def test_the_kernel_is_centred_over_the_training_images():
    x, labels = classes_and_vectors()
    params, _ = kernel.ksh_hasher(3, anchors=10, steps=0).fit(KEY, x, labels)
    centred = kernel._kernel(params, jnp.asarray(x))
    np.testing.assert_allclose(jnp.mean(centred, axis=0), 0, atol=1e-6)


# SDH.


def test_each_step_of_sdh_lowers_its_objective():
    k, y = kernel_and_classes()
    _, losses = kernel.sdh_codes(KEY, k, y, 6, 4, (1.0, 0.1))
    assert losses.shape == (12,)
    assert np.all(np.diff(losses) <= 1e-3 * losses[:-1])
    assert losses[-1] < losses[0]


def test_sdh_learns_from_vectors_that_are_nearly_alike():
    rng = np.random.default_rng(0)
    k = (rng.normal(size=(300, 2)) @ rng.normal(size=(2, 200))).astype(np.float32)  # of rank 2
    y = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 300)]
    weights, losses = kernel.sdh_codes(KEY, jnp.asarray(k), jnp.asarray(y), 6, 2, (1.0, 0.1))
    assert np.isfinite(weights).all()
    assert losses[-1] < losses[0]
    weights, _ = kernel.sdh_codes(KEY, jnp.zeros_like(k), jnp.asarray(y), 6, 2, (1.0, 0.1))
    assert np.isfinite(weights).all()


# BRE.


def test_no_weight_of_bre_raises_its_objective_which_is_that_of_its_codes():
    rng = np.random.default_rng(0)
    x, labels = classes_and_vectors(60)
    both = pairs.drawn_pairs(rng, 60, 0.2)
    assert np.all(both[0] != both[1])
    assert len(both[0]) == 60 * 12
    target = (labels[both[0]] != labels[both[1]]).astype(float)
    kernels = np.stack([x.astype(float) @ x[rng.permutation(60)[:7]].T for _ in range(6)])
    weights, losses = pairs.bre_weights(rng, kernels, both, target, 15)
    assert np.all(np.diff(losses) <= 0)
    assert losses[-1] < 0.7 * losses[0]
    codes = np.einsum("bns,bs->bn", kernels, weights) >= 0
    distance = (codes[:, both[0]] != codes[:, both[1]]).mean(axis=0)
    assert losses[-1] == pytest.approx(np.sum((target - distance) ** 2))


def test_bre_takes_the_best_of_all_values_of_a_weight():
    rng = np.random.default_rng(1)
    k = rng.normal(size=(20, 4))
    k[3, 1] = 0  # a row whose bit the weight does not move
    w = rng.normal(size=4)
    both = pairs.drawn_pairs(rng, 20, 0.3)
    target, others = rng.random(len(both[0])), rng.integers(0, 3, len(both[0]))

    def objective(value):
        codes = k @ np.where(np.arange(4) == 1, value, w) >= 0
        return np.sum((target - (others + (codes[both[0]] != codes[both[1]])) / 4) ** 2)

    path = pairs._path(k, w, 1)
    best, loss = pairs._best(path, both, target, others, 4)
    assert objective(path.weights[best]) == pytest.approx(loss)
    assert loss <= min(map(objective, np.linspace(-20, 20, 2001))) + 1e-9


# MLH.


def brute_force(a, c, loss):
    codes = np.array(list(itertools.product((-1.0, 1.0), repeat=a.shape[0])))
    distance = (codes[:, None] != codes[None]).sum(axis=2)
    return (loss[distance] + (codes @ a)[:, None] + (codes @ c)[None]).max()


@pytest.mark.slow
def test_inference_of_mlh_is_exact_and_bounds_the_loss():
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=(2, 40, 5)).astype(np.float32)
    loss = np.stack([np.asarray(pairs.hinge(5, 2, bool(i % 2))) for i in range(40)])
    bound = pairs.mlh_surrogate(*map(jnp.asarray, (a, c, loss)))
    best = [brute_force(*row) for row in zip(a, c, loss, strict=True)]
    signs = np.abs(a).sum(axis=1) + np.abs(c).sum(axis=1)
    np.testing.assert_allclose(bound, best - signs, atol=1e-5)
    distance = ((a >= 0) != (c >= 0)).sum(axis=1)
    assert np.all(np.asarray(bound) >= loss[np.arange(40), distance] - 1e-5)


def test_hinges_of_mlh_go_from_0_to_1():
    near, far = (np.asarray(pairs.hinge(6, 2, similar)) for similar in (True, False))
    np.testing.assert_allclose(near, [0, 0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(far, [1, 2 / 3, 1 / 3, 0, 0, 0, 0], atol=1e-6)


SMALL_KSH = {"anchors": 100, "sample": 400, "steps": 100}
SPECTRAL = SMALL_KSH | {"steps": 0}  # no gradient
# Measured apart from this package, on digits as in test_shallow: mAP by name, bits and settings.
SCORES = [
    ("sh", 8, {}, 0.361, 0.01),
    ("sh", 12, {}, 0.350, 0.01),
    ("sh", 16, {}, 0.379, 0.01),
    ("sh", 32, {}, 0.368, 0.01),
    ("itqcca", 8, {}, 0.777, 0.03),
    ("itqcca", 12, {}, 0.829, 0.03),
    ("itqcca", 16, {}, 0.861, 0.02),
    ("itqcca", 32, {}, 0.897, 0.01),
    ("ksh", 8, SMALL_KSH, 0.825, 0.03),
    ("ksh", 12, SMALL_KSH, 0.873, 0.015),
    ("ksh", 8, SPECTRAL, 0.619, 0.1),
    ("ksh", 12, SPECTRAL, 0.738, 0.1),
    ("ksh", 12, {"sample": 1000}, 0.957, 0.01),
]


@pytest.mark.parametrize("case", soak(*SCORES))
def test_digits_score_as_measured_elsewhere(case):
    name, bits, settings, score, tolerance = case
    assert digits_score(name, bits, **settings) == pytest.approx(score, abs=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bits", "settings", "least"),
    [("itqcca", 16, {}, 0.84), ("ksh", 12, SMALL_KSH, 0.85)],
)
def test_methods_with_labels_find_most_digits(name, bits, settings, least):
    assert digits_score(name, bits, seeds=1, **settings) >= least


def digits_score(name, bits, seeds=2, **settings):
    x, labels, rows = digits()
    scores = []
    for seed in range(1 if name == "sh" else seeds):
        hasher = HASHERS[name](bits, **settings)
        params, _ = hasher.fit(jax.random.key(seed), x[300:], labels[300:])
        scores.append(mean_average_precision(np.asarray(hasher.encode(params, x)), rows, labels))
    return np.mean(scores)


@pytest.mark.soak
def test_labels_help_more_the_better_the_method_fits_pairs():
    order = [digits_score(name, 12) for name in ("bre", "mlh", "itqcca", "ksh")]
    assert order[0] < order[1] < order[2] < order[3]
