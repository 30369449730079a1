import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import slow

from jaxret import metrics

DIVISORS = ("retrieved", "min", "all")

average_precision = jax.jit(metrics.average_precision)
tie_aware = jax.jit(metrics.tie_aware_average_precision, static_argnums=(2, 3))
counts_by_distance = jax.jit(metrics.counts_by_distance, static_argnums=2)


def lists(*rows):
    return jnp.array(rows, bool)


def counts(*rows):
    return jnp.array(rows, jnp.int32)


def random_lists(seed, q, k, share=0.4):
    return np.random.default_rng(seed).random((q, k)) < share


# Average precision.


def test_the_two_lists_worked_out_by_torres_score_five_sixths_and_43_ninetieths():
    # Torres 2018, eq. 4.2 and 4.3: labels of the neighbours of two queries with label 5.
    labels = jnp.array([[5, 3, 5, 3, 8], [3, 3, 5, 5, 5]])
    relevant = metrics.same_label(jnp.array([5, 5]), labels)
    divisor = metrics.ap_divisor(relevant, jnp.array([6000, 6000]), "retrieved")
    np.testing.assert_allclose(average_precision(relevant, divisor), [5 / 6, 43 / 90], rtol=1e-6)


def test_each_divisor_gives_the_number_of_its_own_convention():
    relevant, num_relevant = lists([1, 0, 1, 0]), jnp.array([8])
    scores = {
        name: float(metrics.mean_average_precision(relevant, num_relevant, name))
        for name in metrics.AP_DIVISORS
    }
    assert scores == pytest.approx({"retrieved": 5 / 6, "min": 5 / 12, "all": 5 / 24})


def test_retrieved_punishes_a_late_hit_and_min_does_not():
    relevant, num_relevant = lists([1, 0, 1], [1, 0, 0]), jnp.array([9, 9])
    retrieved, least = (
        average_precision(relevant, metrics.ap_divisor(relevant, num_relevant, name))
        for name in ("retrieved", "min")
    )
    np.testing.assert_allclose(retrieved, [5 / 6, 1], rtol=1e-6)
    assert least[0] > least[1]


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize(("q", "k"), [(1, 1), (1, 50), (7, 1), (5, 33)])
def test_average_precision_equals_its_twin_under_jit(divisor, q, k):
    relevant = random_lists(k, q, k)
    num_relevant = relevant.sum(axis=1) + np.arange(q)
    expected = [
        reference.average_precision(row, reference.ap_divisor(row, r, divisor))
        for row, r in zip(relevant.tolist(), num_relevant.tolist(), strict=True)
    ]

    @jax.jit
    def fast(relevant, num_relevant):
        return average_precision(relevant, metrics.ap_divisor(relevant, num_relevant, divisor))

    np.testing.assert_allclose(
        fast(jnp.array(relevant), jnp.array(num_relevant)), expected, rtol=1e-5
    )


def test_average_precision_of_60000_results_keeps_six_digits():
    relevant = random_lists(0, 3, 60_000, share=0.1)
    ranks = [np.flatnonzero(row) + 1 for row in relevant]
    expected = [np.mean(np.arange(1, len(r) + 1) / r) for r in ranks]
    got = average_precision(jnp.array(relevant), jnp.array(relevant.sum(axis=1)))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("divisor", DIVISORS)
def test_a_query_with_nothing_relevant_scores_0_and_a_perfect_list_1(divisor):
    relevant = lists([0, 0, 0], [1, 1, 1])
    divisors = metrics.ap_divisor(relevant, jnp.array([0, 3]), divisor)
    np.testing.assert_array_equal(average_precision(relevant, divisors), [0, 1])


def test_map_at_1_is_the_accuracy_of_the_nearest_neighbour():
    relevant = random_lists(3, 40, 1)
    score = metrics.mean_average_precision(jnp.array(relevant), jnp.full(40, 9), "retrieved")
    assert float(score) == pytest.approx(relevant.mean())


def test_an_unknown_divisor_is_refused_by_name():
    with pytest.raises(ValueError, match="one of retrieved, min, all, got 'half'"):
        metrics.mean_average_precision(lists([1]), jnp.array([1]), "half")


# Precision and recall.


def test_precision_and_recall_at_several_k_count_the_hits_of_each_prefix():
    relevant = lists([1, 0, 1, 1])
    np.testing.assert_allclose(metrics.precision_at(relevant, (1, 2, 4)), [[1, 0.5, 0.75]])
    np.testing.assert_allclose(
        metrics.recall_at(relevant, jnp.array([6]), (1, 2, 4)), [[1 / 6, 1 / 6, 1 / 2]]
    )


@pytest.mark.parametrize("ks", [(0,), (1, 5), (-1,)])
def test_a_k_beyond_the_list_is_refused(ks):
    with pytest.raises(ValueError, match=r"between 1 and the 4 results given, got \("):
        metrics.precision_at(lists([1, 0, 1, 1]), ks)


def test_images_with_several_labels_are_relevant_when_they_share_one():
    query = lists([1, 1, 0])
    neighbors = jnp.array([[[0, 1, 1], [0, 0, 1], [0, 0, 0]]], bool)
    np.testing.assert_array_equal(metrics.share_a_label(query, neighbors), [[True, False, False]])


def test_one_boolean_per_class_says_the_same_as_single_labels():
    rng = np.random.default_rng(0)
    query, neighbors = rng.integers(0, 4, 5), rng.integers(0, 4, (5, 9))
    classes = np.eye(4, dtype=bool)
    np.testing.assert_array_equal(
        metrics.share_a_label(jnp.array(classes[query]), jnp.array(classes[neighbors])),
        metrics.same_label(jnp.array(query), jnp.array(neighbors)),
    )


# Ties.


def ranked(distances, relevant, levels):
    """The counts per distance of lists given in any order."""
    order = np.argsort(distances, axis=1, kind="stable")
    return counts_by_distance(
        jnp.array(np.take_along_axis(distances, order, axis=1)),
        jnp.array(np.take_along_axis(relevant, order, axis=1)),
        levels,
    )


def tied_lists(seed, q, n, levels):
    rng = np.random.default_rng(seed)
    return rng.integers(0, levels, (q, n)), rng.random((q, n)) < 0.4


@pytest.mark.parametrize("n", [1, 40])
def test_counts_by_distance_are_histograms_of_all_and_of_relevant_results(n):
    distances, relevant = tied_lists(0, 3, n, 6)
    total, hits = ranked(distances, relevant, 8)
    for i in range(3):
        np.testing.assert_array_equal(total[i], np.bincount(distances[i], minlength=8))
        np.testing.assert_array_equal(hits[i], np.bincount(distances[i][relevant[i]], minlength=8))


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(0, 2), min_size=5, max_size=5),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.sampled_from(DIVISORS),
    st.sampled_from([None, 3]),
)
def test_tie_aware_values_are_the_mean_the_least_and_the_greatest_over_all_orders(
    distances, relevant, divisor, k
):
    scores = [
        reference.average_precision(
            order[:k], reference.ap_divisor(order[:k], sum(relevant), divisor)
        )
        for order in reference.orders_of_ties(distances, relevant)
    ]
    total, hits = ranked(np.array([distances]), np.array([relevant]), 3)
    got = tie_aware(total, hits, divisor, k)
    np.testing.assert_allclose(
        [float(value[0]) for value in got],
        [np.mean(scores), min(scores), max(scores)],
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("k", [None, 10])
def test_tie_aware_values_do_not_change_when_the_gallery_is_shuffled(k):
    distances, relevant = tied_lists(1, 4, 50, 5)
    order = np.random.default_rng(2).permutation(50)
    one = tie_aware(*ranked(distances, relevant, 5), "min", k)
    other = tie_aware(*ranked(distances[:, order], relevant[:, order], 5), "min", k)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("k", [17, *slow(None)])
def test_without_ties_all_three_values_are_plain_average_precision(divisor, k):
    relevant = random_lists(4, 3, 60)
    distances = np.tile(np.arange(60), (3, 1))
    first = jnp.array(relevant[:, :k])
    divisors = metrics.ap_divisor(first, jnp.array(relevant.sum(axis=1)), divisor)
    expected = average_precision(first, divisors)
    for value in tie_aware(*ranked(distances, relevant, 60), divisor, k):
        np.testing.assert_allclose(value, expected, rtol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("k", [30, *slow(None)])
def test_the_bounds_hold_for_every_order_and_its_mean_approaches_the_expected_value(divisor, k):
    distances, relevant = tied_lists(5, 1, 200, 7)
    total, hits = ranked(distances, relevant, 7)
    expected, lowest, highest = tie_aware(total, hits, divisor, k)
    scores = []
    for seed in range(400):
        shuffled = np.random.default_rng(seed).permutation(200)
        order = shuffled[np.argsort(distances[0, shuffled], kind="stable")][:k]
        ordered = relevant[0, order]
        named = reference.ap_divisor(ordered.tolist(), int(relevant.sum()), divisor)
        scores.append(reference.average_precision(ordered, named))
    assert lowest[0] - 1e-6 <= min(scores)
    assert max(scores) <= highest[0] + 1e-6
    # Four standard errors of a mean of 400.
    assert abs(np.mean(scores) - expected[0]) < 4 * np.std(scores) / 20 + 1e-6


def test_when_all_60000_results_tie_the_expected_value_keeps_six_digits():
    total, relevant = [[60_000], [60_000], [60_000]], [[6000], [1], [60_000]]
    expected = [
        reference.expected_average_precision(t, r) for t, r in zip(total, relevant, strict=True)
    ]
    got = tie_aware(counts(*total), counts(*relevant))
    np.testing.assert_allclose(got.expected, expected, rtol=1e-6)
    np.testing.assert_allclose(got.highest, 1, rtol=1e-6)


@pytest.mark.parametrize("levels", [13, 4097])
def test_the_expected_value_over_60000_results_equals_the_sum_over_ranks(levels):
    rng = np.random.default_rng(levels)
    total = rng.multinomial(60_000, rng.dirichlet(np.ones(levels)), size=2)
    share = np.linspace(0.9, 0.0, levels)
    relevant = rng.binomial(total, share[None])
    expected = [
        reference.expected_average_precision(t, r)
        for t, r in zip(total.tolist(), relevant.tolist(), strict=True)
    ]
    got = tie_aware(counts(*total), counts(*relevant))
    np.testing.assert_allclose(got.expected, expected, rtol=3e-6)


@pytest.mark.parametrize("share", [0.05, 0.6, 1.0])
def test_a_cut_inside_a_tie_of_thousands_gives_the_sum_over_what_it_may_leave(share):
    # 400 results above, then 5,000 that tie, of which 600 make it into the first 1,000.
    total, relevant = [400, 5000, 9], [380, int(5000 * share), 5]
    got = tie_aware(counts(total), counts(relevant), "retrieved", 1000).expected
    expected = reference.expected_average_precision(total, relevant, 1000)
    np.testing.assert_allclose(got, [expected], rtol=3e-6)


@pytest.mark.parametrize("divisor", DIVISORS)
def test_tie_aware_values_are_0_where_nothing_is_relevant(divisor):
    total, relevant = counts([0, 0, 0], [3, 0, 2]), counts([0, 0, 0], [0, 0, 0])
    np.testing.assert_array_equal(tie_aware(total, relevant, divisor, 2), np.zeros((3, 2)))


def test_a_longer_cut_than_the_list_is_no_cut():
    total, relevant = ranked(*tied_lists(6, 3, 20, 4), 4)
    cut = tie_aware(total, relevant, "retrieved", 50)
    np.testing.assert_allclose(cut, tie_aware(total, relevant, "retrieved"), rtol=1e-6)


def test_a_cut_below_1_is_refused():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        tie_aware(counts([1]), counts([1]), "all", 0)


# Balls of a Hamming radius.


def test_precision_within_a_radius_is_0_for_an_empty_ball_and_says_so():
    total, relevant = counts([1, 2, 0, 4], [0, 0, 0, 5]), counts([1, 0, 0, 4], [0, 0, 0, 5])
    precision, empty = metrics.precision_within_radius(total, relevant, 2)
    np.testing.assert_allclose(precision, [1 / 3, 0])
    np.testing.assert_array_equal(empty, [False, True])


@pytest.mark.parametrize("radius", [-1, 4])
def test_a_radius_outside_the_code_is_refused(radius):
    with pytest.raises(ValueError, match=f"between 0 and 3 bits, got {radius}"):
        metrics.precision_within_radius(counts([1, 2, 0, 4]), counts([1, 0, 0, 4]), radius)


def test_the_curve_by_distance_gives_each_radius_its_precision_and_recall():
    total, relevant = ranked(*tied_lists(7, 3, 30, 5), 6)
    precision, recall = metrics.precision_recall_curve(total, relevant)
    for radius in range(6):
        np.testing.assert_allclose(
            precision[:, radius], metrics.precision_within_radius(total, relevant, radius)[0]
        )
    np.testing.assert_array_equal(recall[:, -1], 1)
    assert np.all(np.diff(recall, axis=1) >= 0)


def test_the_curve_of_a_query_with_nothing_relevant_is_0():
    for values in metrics.precision_recall_curve(counts([0, 3]), counts([0, 0])):
        np.testing.assert_array_equal(values, [[0, 0]])


# Labels and clusters.


def test_the_majority_wins_and_a_draw_goes_to_the_nearest():
    neighbors = jnp.array([[2, 1, 1, 0], [3, 1, 1, 3], [0, 1, 2, 3]])
    np.testing.assert_array_equal(metrics.majority_label(neighbors), [1, 3, 0])


def test_the_majority_label_equals_its_twin():
    for neighbors in itertools.product(range(3), repeat=4):
        got = metrics.majority_label(jnp.array([neighbors]))
        assert int(got[0]) == reference.majority_label(neighbors)


def test_label_scores_are_means_over_classes():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    assert metrics.label_scores(labels, predicted) == pytest.approx(
        {"accuracy": 3 / 4, "precision": 5 / 6, "recall": 3 / 4, "f1": (4 / 5 + 2 / 3) / 2}
    )


def test_clusters_under_other_names_agree_fully():
    scores = metrics.clustering_scores(np.array([0, 0, 1, 2]), np.array([7, 7, 3, 5]))
    names = ("ri", "ari", "nmi", "nmi/geometric", "ami")
    assert scores == pytest.approx(dict.fromkeys(names, 1))


def test_mutual_information_is_divided_by_either_mean_of_the_entropies():
    labels, clusters = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3])  # 1 and 2 bits, 1 shared
    scores = metrics.clustering_scores(labels, clusters)
    assert scores["nmi"] == pytest.approx(1 / 1.5)
    assert scores["nmi/geometric"] == pytest.approx(1 / np.sqrt(2))


def test_random_clusters_score_high_by_rand_index_and_nothing_when_adjusted():
    rng = np.random.default_rng(0)
    scores = metrics.clustering_scores(rng.integers(0, 50, 2000), rng.integers(0, 50, 2000))
    assert scores["ri"] > 0.95
    assert abs(scores["ari"]) < 0.01
    assert abs(scores["ami"]) < 0.02


# What is given in another form.


@pytest.mark.slow
def test_narrow_types_are_widened_before_anything_is_added():
    relevant = np.ones((1, 300), np.uint8)
    np.testing.assert_allclose(metrics.average_precision(relevant, np.array([300])), [1])
    np.testing.assert_allclose(metrics.precision_at(np.ones((1, 200), np.int8), (200,)), [[1]])
    labels = np.repeat(np.arange(20, dtype=np.uint8), 1)
    assert np.trace(metrics.confusion_counts(labels, labels, 20)) == 20
    total = np.array([[200, 200]], np.uint8)
    wide, narrow = (metrics.tie_aware_average_precision(t, t) for t in (total.astype(int), total))
    np.testing.assert_array_equal(wide, narrow)


def test_lists_and_numpy_scalars_mean_what_arrays_do():
    np.testing.assert_allclose(metrics.average_precision([[1, 0, 1]], [8]), [(1 + 2 / 3) / 8])
    np.testing.assert_allclose(metrics.average_precision([[True, False]], np.int64(1)), [1])
    np.testing.assert_allclose(metrics.precision_at([[1, 0]], [np.int8(2)]), [[0.5]])
    np.testing.assert_allclose(metrics.precision_at([[1, 0]], 2), [[0.5]])
    counts = metrics.confusion_counts([0, 1, 1], [0, 1, 0], np.int8(2))
    assert counts.tolist() == [[1, 0], [1, 1]]


def test_the_label_of_no_label_equals_nothing():
    assert metrics.same_label([-1, 3], [[-1, 3], [-1, 3]]).tolist() == [[False] * 2, [False, True]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.confusion_counts([0, 3], [0, 1], 3), "labels must lie between 0 and 2"),
        (lambda: metrics.confusion_counts([0, 1], [0, -1], 3), "predicted must lie between 0 and"),
        (lambda: metrics.confusion_counts([0, 1], [0], 2), "must be as long, got 2 and 1"),
        (lambda: metrics.confusion_counts([0.0, 1.0], [0, 1], 2), "labels must be whole numbers"),
        (lambda: metrics.average_precision([[1, 0]], [1, 1]), "must be as long, got 1 and 2"),
        (lambda: metrics.average_precision([[1, 1]], [1]), "at least the relevant results"),
        (lambda: metrics.average_precision([[2, 1]], [3]), "must be bool, or 0 and 1"),
        (lambda: metrics.average_precision([1, 0], [1]), r"must have 2 axes, got shape \[2\]"),
        (lambda: metrics.average_precision([[1], [1, 0]], [1, 1]), "rows of several lengths"),
        (lambda: metrics.average_precision([[1, 0]], [-1]), "num_relevant must be at least 0"),
        (lambda: metrics.precision_at([[1, 0]], [1.5]), "each K must be a whole number, got 1.5"),
        (lambda: metrics.precision_recall_curve([[1]], [[2]]), "query 0 has 2 of 1 at distance 0"),
        (lambda: metrics.precision_recall_curve([[1, 2]], [[1]]), "must have one shape"),
        (lambda: metrics.counts_by_distance([[2, 1]], [[1, 0]], 3), "distances must ascend"),
        (lambda: metrics.same_label([1, 2], [[1]]), "must be as long, got 2 and 1"),
        (lambda: metrics.share_a_label([[1]], [[[1, 0]]]), "as many classes, got 1 and 2"),
        (lambda: metrics.label_scores([1, 2], [1]), "must be as long, got 2 and 1"),
        (lambda: metrics.clustering_scores([1, 2], [1]), "must be as long, got 2 and 1"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
