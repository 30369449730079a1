"""Deep hashing methods: each objective by its invariants, code books, and the shared trainer."""

import pydoc
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from test_efficientnet import needs_weights

import jaxret
from jaxret import hashers, losses, relax, train
from jaxret.features.efficientnet import load_weights
from jaxret.hashers import METHODS, books, methods
from jaxret.hashers.deep import Outputs
from jaxret.models.trunks import (
    LAST_BLOCKS,
    SLICE,
    ConvTrunk,
    DividedHash,
    HashHead,
    ResidualTrunk,
)

RNG = np.random.default_rng(0)
LABELS = jnp.asarray([0, 0, 1, 1, 1, 2])
CODES = jnp.asarray(RNG.normal(size=(6, 8)), jnp.float32)
SIGNS = jnp.where(CODES >= 0, 1.0, -1.0)
BOOK = jnp.asarray(books.random_book(None, 3, 8))


def test_pairs_of_a_class_and_other_pairs_have_equal_weight_and_weights_are_two_in_the_mean():
    weights = np.asarray(losses.pair_weights(LABELS))
    alike = np.asarray(LABELS[:, None] == LABELS[None])
    assert weights.mean() == pytest.approx(2)
    assert weights[alike].sum() == pytest.approx(weights[~alike].sum())
    assert np.all(np.isfinite(losses.pair_weights(jnp.zeros(4, int))))  # one class only


def test_the_gradient_of_the_weighted_likelihood_is_sigmoid_minus_similarity():
    def loss(u):
        return losses.weighted_pairwise_likelihood(u, jnp.asarray([0, 1]), 0.5)

    u = jnp.asarray([[1.0, 2.0], [0.5, -1.0]])
    w = np.asarray(losses.pair_weights(jnp.asarray([0, 1])))
    t = 0.5 * np.asarray(u) @ np.asarray(u).T
    slope = w * (1 / (1 + np.exp(-t)) - np.eye(2)) / 4
    np.testing.assert_allclose(jax.grad(loss)(u), 0.5 * (slope + slope.T) @ u, rtol=1e-5)


@pytest.mark.slow
def test_a_triplet_has_the_gradient_of_its_three_codes():
    u, same, other = (jnp.asarray(v) for v in ([0.2, 0.6], [0.9, 0.4], [0.3, 0.3]))

    def loss(z):
        return losses.triplet_ranking(z, jnp.asarray([0, 0, 1]))

    value, gradient = jax.value_and_grad(loss)(jnp.stack([u, same, other]))
    hinges = [float(jnp.sum((a - b) ** 2) - jnp.sum((a - other) ** 2) + 1)
              for a, b in ((u, same), (same, u))]  # fmt: skip
    assert value == pytest.approx(sum(hinges) / 2)
    # 2 (F- - F+), 2 (F+ - F) and 2 (F - F-) of the first; the second has F and F+ exchanged.
    of_u = 2 * (other - same) + 2 * (u - same)
    of_same = 2 * (same - u) + 2 * (other - u)
    of_other = 2 * (u - other) + 2 * (same - other)
    np.testing.assert_allclose(gradient, jnp.stack([of_u, of_same, of_other]) / 2, rtol=1e-5)


def test_a_triplet_beyond_the_margin_costs_nothing():
    z = jnp.asarray([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    assert losses.triplet_ranking(z, jnp.asarray([0, 0, 1])) == 0
    assert losses.triplet_ranking(z, jnp.asarray([0, 1, 2])) == 0  # no triplet at all


def test_polarisation_is_zero_by_the_margin_and_bounds_the_hamming_distance():
    centres = BOOK[LABELS]
    np.testing.assert_array_equal(losses.polarisation(1.5 * centres, centres), 0)
    assert np.all(losses.polarisation(0.9 * centres, centres) > 0)
    distances = jnp.sum(centres != SIGNS, axis=1)
    assert np.all(8 * losses.polarisation(CODES, centres) >= distances)


def test_a_cosine_is_one_for_a_multiple_of_the_class_code_alone():
    cosines = losses.cosine_logits(3 * BOOK, BOOK)
    np.testing.assert_allclose(jnp.diag(cosines), 1, rtol=1e-6)
    assert np.max(cosines - 2 * np.eye(3)) < 1


def test_the_margin_softmax_of_a_simplex_has_its_closed_form():
    # 4 codes of 3 bits whose cosines are all -1/3: the greatest gap of logits is s (1 - m + 1/3).
    simplex = jnp.asarray([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], jnp.float32)
    loss = losses.cosine_margin(simplex, jnp.arange(4), simplex, 8.0, 0.2)
    np.testing.assert_allclose(loss, np.log1p(3 * np.exp(-8 * (1 - 0.2 + 1 / 3))), rtol=1e-3)


def test_codes_with_the_cosines_of_their_features_match():
    x = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32)
    assert losses.cosine_matching(x, 7 * x) == pytest.approx(0, abs=1e-12)
    ones = jnp.ones((2, 3))
    assert losses.cosine_matching(ones, jnp.asarray([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(1)


@pytest.mark.slow
def test_views_with_equal_bits_do_not_diverge_and_the_second_has_no_gradient():
    z = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
    both = jnp.concatenate([z, z])
    np.testing.assert_allclose(losses.symmetric_bernoulli_kl(both), 0, atol=1e-6)
    a, b = 0.7, -0.4
    p, q = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))
    ways = [s * np.log(s / t) + (1 - s) * np.log((1 - s) / (1 - t)) for s, t in ((p, q), (q, p))]
    one = jnp.asarray([[a], [b]])
    np.testing.assert_allclose(losses.symmetric_bernoulli_kl(one), [np.mean(ways)], rtol=1e-5)
    gradient = jax.grad(lambda z: losses.symmetric_bernoulli_kl(z)[0])(one)
    # d KL(p || q) / d a = p (1 - p) (a - b), halved
    np.testing.assert_allclose(gradient[0, 0], p * (1 - p) * (a - b) / 2, rtol=1e-4)


def test_ntxent_of_equal_views_and_orthogonal_others_has_its_closed_form():
    n, temperature = 4, 0.3
    z = jnp.concatenate([jnp.eye(n), jnp.eye(n)])
    expected = np.log(1 + (2 * n - 2) * np.exp(-1 / temperature))  # of CIBHash's temperature
    np.testing.assert_allclose(losses.ntxent(z, temperature), expected, rtol=1e-4)


@pytest.mark.slow
def test_clusters_that_are_sure_even_and_shared_with_neighbors_cost_the_least():
    sure = 50 * jnp.eye(4)
    loss = losses.neighbor_clustering(jnp.concatenate([sure, sure]), 5.0)
    np.testing.assert_allclose(loss, -5 * np.log(4), rtol=1e-5)
    apart = losses.neighbor_clustering(jnp.concatenate([sure, sure[::-1]]), 5.0)
    one = losses.neighbor_clustering(jnp.tile(sure[:1], (8, 1)), 5.0)
    assert loss < one < apart
    np.testing.assert_allclose(one, 0, atol=1e-5)  # all agree, and the entropy is 0
    np.testing.assert_allclose(losses.neighbor_clustering(jnp.zeros((2, 4)), 0.0), np.log(4))


def test_the_units_of_hashnet_tend_to_their_signs_over_the_run():
    beta = np.asarray(methods._beta(jnp.linspace(0, 1, 101)))
    assert np.all(np.diff(beta) > 0)
    assert beta[0] == 1  # tanh of the units themselves
    u = np.asarray([-2.0, -0.5, 0.5, 2.0])
    away = np.abs(np.tanh(beta[:, None] * u[None]) - np.sign(u)[None])
    assert np.all(np.diff(away, axis=0) <= 0)
    assert away[0].max() > 0.5
    assert away[-1].max() < 0.01


def test_hashnet_compares_the_units_of_the_step_that_it_is_at():
    for step in (0, 60, 100):
        units = jnp.tanh(methods._beta(step / 100) * CODES)
        expected = losses.weighted_pairwise_likelihood(units, LABELS, 10 / 8)
        outputs = Outputs(CODES, CODES, CODES[:, :0], LABELS, None)
        hyper = {"step": step, "steps": 100, "alpha": 10.0}
        np.testing.assert_allclose(METHODS["hashnet"].terms["pairs"](outputs, hyper), expected)


def test_half_of_each_column_is_one_and_the_gradient_pulls_to_the_bits():
    z = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
    bits, vjp = jax.vjp(relax.half_signs, z, 6.0)
    np.testing.assert_array_equal(jnp.sum(bits, axis=0), 0)
    assert np.all(np.where(bits > 0, z, np.inf).min(0) >= np.where(bits < 0, z, -np.inf).max(0))
    g = jnp.asarray(RNG.normal(size=z.shape), jnp.float32)
    np.testing.assert_allclose(vjp(g)[0], g + 6 * (z - bits) / z.size, rtol=1e-6)
    np.testing.assert_array_equal(jnp.sum(relax.half_signs(z[:5]) > 0, axis=0), 2)
    order = RNG.permutation(6)
    np.testing.assert_array_equal(relax.half_signs(z[order]), bits[order])


def test_a_hadamard_book_has_no_constant_bit_and_half_of_the_bits_between_any_two_codes():
    book = losses.hash_centres(10, 64)
    np.testing.assert_array_equal(book @ book.T, 64 * np.eye(10))
    assert np.all(np.abs(book.sum(axis=0)) < 10)
    first = scipy.linalg.hadamard(64)[:10]
    assert len(np.unique(first, axis=1).T) == 16
    assert np.sum(np.abs(first.sum(axis=0)) == 10) == 4
    assert len(np.unique(book, axis=1).T) > 32


@pytest.mark.parametrize(("bits", "least"), [(12, 3), (16, 4), (48, 12)])
def test_no_two_codes_of_a_random_book_are_closer_than_a_quarter_of_the_bits(bits, least):
    book = books.random_book(None, 10, bits)
    distances = (bits - book @ book.T) / 2
    assert distances[~np.eye(10, dtype=bool)].min() >= least


def test_a_random_book_needs_bits_enough():
    assert books.random_book(None, 4, 2).shape == (4, 2)
    with pytest.raises(ValueError, match="2 bits are too few for codes of 5 classes"):
        books.random_book(None, 5, 2)


def test_the_similarity_loss_is_that_of_the_whole_matrix():
    labels = np.arange(12) % 3
    h = RNG.uniform(-1, 1, (12, 5)).astype(np.float32)
    similarity = np.where(labels[:, None] == labels[None], 1.0, -1.0)
    expected = np.mean((similarity - h @ h.T / 5) ** 2)
    np.testing.assert_allclose(books.similarity_loss(h, labels, 3), expected, rtol=1e-5)


@pytest.mark.slow
def test_coordinate_descent_stays_in_the_box_falls_and_ends_near_its_floor():
    labels = np.arange(200) % 10
    h, found = books.factorise_similarity(jax.random.key(0), labels, 10, 12)
    assert np.all(np.abs(h) <= 1)
    assert np.all(np.diff(found) < 0)
    # 0.9 (8/9)^2 = 0.711, codes that are a simplex; 12 bits and n = 400 gave 0.739 elsewhere
    floor = 0.9 * (8 / 9) ** 2
    assert floor - 1e-3 < found[-1] < 0.76 < found[0] < 1 + 1 / 12


def test_the_codes_of_cnnh_lie_far_apart():
    book = books.similarity_book(np.arange(200) % 10, 10, 12)
    assert ((12 - book @ book.T) / 2)[~np.eye(10, dtype=bool)].min() >= 3


@pytest.mark.slow
def test_a_sweep_keeps_the_sums_of_the_codes_that_it_leaves():
    labels = jnp.arange(12) % 3
    h = jnp.asarray(RNG.uniform(-1, 1, (12, 5)), jnp.float32)
    visited, (gram, sums) = books._sweep(jax.random.key(0), h, labels, 3)
    assert np.mean(visited != h) > 0.5
    np.testing.assert_allclose(gram, visited.T @ visited, atol=1e-5)
    by_class = np.stack([np.sum(visited[labels == c], axis=0) for c in range(3)])
    np.testing.assert_allclose(sums, by_class, atol=1e-5)


@pytest.mark.slow
def test_a_divided_bit_sees_its_own_slice_alone():
    model = DividedHash(3)
    params = model.init(jax.random.key(0), jnp.ones((1, 4)))
    slices = jnp.ones((1, 3, SLICE))
    jacobian = jax.jacobian(lambda s: model.apply(params, s, method="encode"))(slices)
    seen = np.abs(jacobian[0, :, 0]).sum(axis=-1) > 0
    np.testing.assert_array_equal(seen, np.eye(3, dtype=bool))


def test_a_head_without_classes_gives_no_logits():
    model = HashHead(ConvTrunk((2,), 3), 5)
    (z, logits), _ = model.init_with_output(jax.random.key(0), jnp.ones((2, 8, 8, 1)), lambda z: z)
    assert (z.shape, logits.shape) == ((2, 5), (2, 0))


@pytest.mark.parametrize("name", METHODS)
def test_the_help_of_a_method_begins_with_its_source(name):
    text = pydoc.render_doc(hashers.HASHERS[name], renderer=pydoc.plaintext)
    assert METHODS[name].about in text
    own = r"\w+\+? \(\w+ \d{4}\)" if name != "contrastive" else "Ours"
    assert re.match(own, METHODS[name].about)
    assert "Make a network that learns codes" in text


def test_a_method_has_the_settings_of_its_paper_and_refuses_others():
    hasher = hashers.HASHERS["bihalf"](8, image_shape=(20,))
    assert hasher.spec["settings"]["hidden"] == ()
    assert hasher.training.hyper["gamma"] == 6
    with pytest.raises(ValueError, match="epoch is no setting of this hasher; did you mean epochs"):
        hashers.HASHERS["bihalf"](8, image_shape=(20,), epoch=1)
    with pytest.raises(ValueError, match="trunk must be one of dense, efficientnet"):
        hashers.HASHERS["dhn"](8, 3, (20,), trunk="conv")
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        hashers.HASHERS["dhn"](8)


def clusters(n=120, classes=3, d=12):
    labels = np.arange(n) % classes
    x = 3 * RNG.normal(size=(classes, d))[labels] + RNG.normal(size=(n, d))
    return x.astype(np.float32), labels.astype(np.int32)


@pytest.mark.soak
@pytest.mark.parametrize("name", METHODS)
def test_every_method_tells_three_clusters_of_vectors_apart(name):
    x, labels = clusters()
    hasher = hashers.HASHERS[name](8, 3, x.shape[1:], epochs=40, batch_size=30, learning_rate=0.01)
    positives = np.stack([RNG.permutation(np.flatnonzero(labels == c))[:5] for c in labels])
    options = {"positives": positives} if hasher.training.pairs else {}
    params, _ = hasher.fit(jax.random.key(0), x, labels, **options)
    bits = np.where(np.asarray(hasher.encode(params, x)) >= 0, 1, -1)
    alike = labels[:, None] == labels[None]
    distances = (8 - bits @ bits.T) / 2
    assert distances[alike].mean() < 0.6 * distances[~alike].mean()


def test_components_are_what_the_network_sees_of_vectors():
    x, labels = clusters()
    hasher = hashers.HASHERS["dpn"](8, 3, (12,), components=4, hidden=(), epochs=1, batch_size=60)
    params, _ = hasher.fit(jax.random.key(0), x, labels)
    assert params["params"]["hash"]["kernel"].shape == (4, 8)
    assert hasher.encode(params, x).shape == (120, 8)


def test_scaling_the_hash_layer_leaves_the_codes_of_cnnbh():
    x, labels = clusters(30)
    hasher = hashers.HASHERS["cnnbh"](8, 3, (12,), hidden=())
    start = train.start(hasher.training, jax.random.key(0), x, labels)
    layer = {"kernel": start.params["hash"]["kernel"], "bias": jnp.linspace(-2, 2, 8)}

    def codes(factors):
        own = {name: factor * layer[name] for name, factor in factors.items()}
        params = {"params": start.params | {"hash": own}} | start.model_state
        return np.asarray(hasher.encode(params, x)) >= 0

    expected = codes({"kernel": 1, "bias": 1})
    for c in (0.25, 8):  # powers of 2: no rounding
        np.testing.assert_array_equal(codes({"kernel": c, "bias": c}), expected)
    assert np.any(codes({"kernel": 8, "bias": 1}) != expected)  # the bias counts


def test_positives_by_cosine_are_the_nearest_in_angle():
    x = np.asarray([[9, 1], [1, 0.1], [-9, -1], [-1, -0.1]], np.float32)  # their mean is 0
    found = jaxret.knn_positives(x, 1, 2, cosine=True)[:, 0]
    np.testing.assert_array_equal(found, [1, 0, 3, 2])
    np.testing.assert_array_equal(jaxret.knn_positives(x, 1, 2)[:, 0], [1, 3, 3, 1])


def test_what_has_unit_length_has_a_code_that_does_not_depend_on_its_distance_from_the_mean():
    x, labels = clusters()
    hasher = hashers.HASHERS["dpn"](8, 3, (12,), unit=True, hidden=(), epochs=1, batch_size=60)
    params, _ = hasher.fit(jax.random.key(0), x, labels)
    farther = params["mean"][None] + 5 * (x - params["mean"][None])
    np.testing.assert_allclose(hasher.encode(params, farther), hasher.encode(params, x), atol=1e-4)


def test_the_residual_trunk_gives_a_number_per_channel():
    trunk = ResidualTrunk()
    out, _ = jax.eval_shape(trunk.init_with_output, jax.random.key(0), jnp.ones((2, 8, 8, 3)))
    assert out.shape == (2, 128)


MAPS = {"trunk": LAST_BLOCKS}


@pytest.mark.parametrize(
    ("shape", "settings", "said"),
    [
        ((100,), {}, "square maps of 192 channels, got vectors of 100 numbers"),
        ((32, 32, 3), {}, "is for the maps of efficientnet-lite0@160-block12"),
        ((192,), {"unit": True}, "no components and no unit length"),
    ],
)
def test_last_blocks_see_maps_alone(shape, settings, said):
    with pytest.raises(ValueError, match=said):
        hashers.HASHERS["dlbhc"](8, 3, shape, **MAPS, **settings)


@needs_weights
@pytest.mark.soak
def test_last_blocks_start_from_the_pretrained_network_and_keep_its_depthwise_kernels():
    x = (10 * RNG.normal(size=(8, 192))).astype(np.float16)  # small ones leave no feature above 0
    labels = np.arange(8) % 2
    hasher = hashers.HASHERS["dlbhc"](8, 2, (192,), **MAPS, batch_size=4, epochs=1)
    start = train.start(hasher.training, jax.random.key(0), x, labels)
    params, _ = hasher.fit(jax.random.key(0), x, labels)
    pretrained, before, after = (
        tree["block_12"]
        for tree in (
            load_weights(), start.params["trunk"]["network"], params["params"]["trunk"]["network"]
        )
    )  # fmt: skip
    for layer in ("expand", "depthwise", "project"):
        np.testing.assert_array_equal(before[layer]["kernel"], pretrained[layer]["kernel"])
        same = np.array_equal(after[layer]["kernel"], pretrained[layer]["kernel"])
        assert same == (layer == "depthwise")
    assert hasher.encode(params, x).shape == (8, 8)


def test_clusters_are_counted_and_none_is_refused_before_training():
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        hashers.HASHERS["contrastive"](8, 0, (4,))
