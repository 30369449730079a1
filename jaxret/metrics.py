"""How good a ranking is: every definition by its name, and ties counted honestly.

A ranking enters as booleans: is the i-th result relevant to the query? Single labels, several
labels and lists of ids all become that, so no metric knows what relevance is. Rankings by Hamming
distance, where many results tie, also enter as counts per distance: how many results lie at each
distance, and how many of them are relevant. These counts hold all that does not depend on the
order of ties.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped


def same_label(query: Int[Array, " q"], neighbors: Int[Array, "q k"]) -> Bool[Array, "q k"]:
    """Relevance with single labels: the labels are equal."""
    return query[:, None] == neighbors


def share_a_label(query: Bool[Array, "q c"], neighbors: Bool[Array, "q k c"]) -> Bool[Array, "q k"]:
    """Relevance with several labels, given as one boolean per class: at least one in common."""
    return jnp.any(query[:, None] & neighbors, axis=2)


# What average precision is divided by, from the relevant results found in the first k, all the
# relevant images of the gallery, and k. A score without the name of its divisor means nothing:
# the same list can rise under one and fall under another.
AP_DIVISORS: dict[str, Callable] = {
    "retrieved": lambda found, num_relevant, k: found,
    "min": lambda found, num_relevant, k: jnp.minimum(num_relevant, k),
    "all": lambda found, num_relevant, k: num_relevant,
}


def _divisor(name: str) -> Callable:
    if name not in AP_DIVISORS:
        raise ValueError(f"divisor must be one of {', '.join(AP_DIVISORS)}, got {name!r}")
    return AP_DIVISORS[name]


def average_precision(
    relevant: Bool[Array, "q k"], num_relevant: Int[Array, " q"]
) -> Float[Array, " q"]:
    """Average precision of each ranked list.

    AP = 1/R * sum over ranks i of P(i) * relevant(i), where P(i) is the precision of the first i
    results and R = num_relevant.

    Papers disagree on R: `ap_divisor` gives each of them by its name. A query with R = 0 scores 0.
    """
    hits = jnp.cumsum(relevant, axis=1)
    precision = hits / jnp.arange(1, relevant.shape[1] + 1)[None]
    total = jnp.sum(precision * relevant, axis=1)
    return jnp.where(num_relevant > 0, total / jnp.maximum(num_relevant, 1), 0.0)


def ap_divisor(
    relevant: Bool[Array, "q k"], num_relevant: Int[Array, " q"], name: str
) -> Int[Array, " q"]:
    """The R of average precision over the first k results.

    `retrieved`: the relevant results among the first k (Torres 2018, eq. 4.2; Jimenez 2017,
    eq. 5.3 with m_q read so). It never punishes what was not found, so it falls when a late result
    turns relevant: [+ - +] scores 5/6, [+ - -] scores 1.
    `min`: min(num_relevant, k), the most that could be found.
    `all`: num_relevant, the relevant images in the gallery: AP over the whole list.
    """
    found = jnp.sum(relevant, axis=1)
    return _divisor(name)(found, num_relevant, relevant.shape[1])


def mean_average_precision(
    relevant: Bool[Array, "q k"], num_relevant: Int[Array, " q"], divisor: str = "retrieved"
) -> Float[Array, ""]:
    """The mean over queries of average precision (Torres 2018, eq. 4.1).

    With `retrieved` and k = 1 it is the accuracy of the nearest neighbour.
    """
    return jnp.mean(average_precision(relevant, ap_divisor(relevant, num_relevant, divisor)))


def precision_at(relevant: Bool[Array, "q k"], ks: Sequence[int]) -> Float[Array, "q m"]:
    """The share of relevant results in the first K, for each K asked (Jimenez 2017, eq. 5.1)."""
    _check_ks(ks, relevant.shape[1])
    return _hits_at(relevant, ks) / jnp.array(ks)[None]


def recall_at(
    relevant: Bool[Array, "q k"], num_relevant: Int[Array, " q"], ks: Sequence[int]
) -> Float[Array, "q m"]:
    """The share of the gallery's relevant images found in the first K, for each K asked.

    0 where the gallery holds none.
    """
    _check_ks(ks, relevant.shape[1])
    return _hits_at(relevant, ks) / jnp.maximum(num_relevant, 1)[:, None]


def _check_ks(ks, k):
    if not all(1 <= i <= k for i in ks):
        raise ValueError(f"each K must lie between 1 and the {k} results given, got {tuple(ks)}")


def _hits_at(relevant, ks):
    return jnp.cumsum(relevant, axis=1)[:, jnp.array(ks) - 1]


def counts_by_distance(
    distances: Integer[Array, "q n"], relevant: Bool[Array, "q n"], levels: int
) -> tuple[Int[Array, "q l"], Int[Array, "q l"]]:
    """How many results, and how many relevant results, lie at each distance 0 to levels - 1.

    Each row holds the whole gallery, by ascending distance; a list that stops inside a tie would
    give counts that depend on the order of ties.
    """
    levels = jnp.arange(levels, dtype=distances.dtype)
    upto = jax.vmap(lambda row: jnp.searchsorted(row, levels, side="right"))(distances)
    hits = jnp.pad(jnp.cumsum(relevant, axis=1), ((0, 0), (1, 0)))
    return _differences(upto), _differences(jnp.take_along_axis(hits, upto, axis=1))


def _differences(cumulative):
    return jnp.diff(cumulative, axis=1, prepend=0)


class TieAware(NamedTuple):
    """Average precision over the orders of tied results: its mean, its least, its greatest."""

    expected: Float[Array, " q"]
    lowest: Float[Array, " q"]
    highest: Float[Array, " q"]


def tie_aware_average_precision(
    total: Int[Array, "q l"],
    relevant: Int[Array, "q l"],
    divisor: str = "all",
    k: int | None = None,
) -> TieAware:
    """Average precision when results at the same distance come in no particular order.

    The expectation over all orders of the tied results, each as likely (McSherry 2008),
    and the values of the worst and the best order. total and relevant count the results at each
    distance, nearest first. With k, average precision over the first k; the cut may fall inside a
    tie. A query whose divisor is 0 scores 0.

    In a tie of m results, x of them relevant, with R relevant among the T results above, the i-th
    is relevant with probability x/m and has then R + 1 + (i - 1)(x - 1)/(m - 1) relevant results
    up to itself; the sum of these over T + i is a difference of two harmonic numbers. A tie cut by
    k leaves x to chance (hypergeometric), and x enters the divisor `retrieved`, so the expectation
    runs over x: O(l) for each query over the whole list, O(l + k) at a cut.
    """
    size = int(np.iinfo(np.int32).max) if k is None else k
    if size < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    above = jnp.cumsum(total, axis=1) - total
    found = jnp.cumsum(relevant, axis=1) - relevant
    taken = jnp.clip(size - above, 0, total)
    whole = taken == total

    ties = _tie_sums(relevant, total, above, found)
    sums = [jnp.sum(jnp.where(whole, tie, 0.0), axis=1)[:, None] for tie in ties]
    found_above = jnp.sum(jnp.where(whole, relevant, 0), axis=1)[:, None]

    # At most one tie is cut; where none is, all of its numbers are 0 and so is x.
    cut = (taken > 0) & ~whole
    m, t, r, above, found = (
        jnp.sum(jnp.where(cut, values, 0), axis=1)[:, None]
        for values in (taken, total, relevant, above, found)
    )
    x = jnp.arange(1 if k is None else k + 1)[None]
    possible = (x >= m - (t - r)) & (x <= jnp.minimum(m, r))
    num_relevant = jnp.sum(relevant, axis=1)[:, None]
    divisors = _divisor(divisor)(found_above + x, num_relevant, size)
    ap = [
        jnp.where(divisors > 0, (first + last) / jnp.maximum(divisors, 1), 0.0)
        for first, last in zip(sums, _tie_sums(x, m, above, found), strict=True)
    ]
    probability = _hypergeometric(x, m, t, r, possible)
    return TieAware(
        jnp.sum(jnp.where(possible, probability * ap[0], 0.0), axis=1),
        jnp.min(jnp.where(possible, ap[1], jnp.inf), axis=1),
        jnp.max(jnp.where(possible, ap[2], -jnp.inf), axis=1),
    )


def _tie_sums(x, m, above, found):
    """What a tie adds to the sum of average precision: expected, worst and best order.

    Among its m results x are relevant; `found` of the `above` results before it are.
    """
    x, m, above, found = (values.astype(jnp.float32) for values in (x, m, above, found))
    slope = (x - 1) / jnp.maximum(m - 1, 1)
    share = x / jnp.maximum(m, 1)
    between = _harmonic(above, m)
    expected = share * (slope * m + (found + 1 - slope * (above + 1)) * between)
    lowest = x + (found - above - m + x) * _harmonic(above + m - x, x)
    highest = x + (found - above) * _harmonic(above, x)
    return expected, lowest, highest


def _harmonic(a, m):
    """The sum of 1/(a + i) for i from 1 to m, in O(1): H(a + m) - H(a).

    By the asymptotic series H(x) = log(x + 1/2) + c + 1/24 (x + 1/2)^-2 - 7/960 (x + 1/2)^-4
    + 31/8064 (x + 1/2)^-6 - ..., four steps further on, where its error is below float32's. Each
    difference is written so that nothing cancels when m is small beside a.
    """
    steps = sum(1 / ((a + i) * (a + m + i)) for i in range(1, 5)) * m
    low, high = a + 4.5, a + m + 4.5
    series = jnp.log1p(m / low)
    for power, coefficient in ((2, 1 / 24), (4, -7 / 960), (6, 31 / 8064)):
        series += coefficient * (high**-power - low**-power)
    return steps + series


def _hypergeometric(x, m, t, r, possible):
    """The probability that m of t results, r of them relevant, drawn at random hold x relevant.

    From the ratios of neighbouring probabilities: factorials would overflow.
    """
    x, m, t, r = (values.astype(jnp.float32) for values in (x, m, t, r))
    ratio = (r - x + 1) * (m - x + 1) / jnp.maximum(x * (t - r - m + x), 1)
    first = x <= jnp.maximum(m - (t - r), 0)
    log_ratio = jnp.where(possible & ~first, jnp.log(jnp.maximum(ratio, 1e-30)), 0.0)
    return jax.nn.softmax(jnp.where(possible, jnp.cumsum(log_ratio, axis=1), -jnp.inf), axis=1)


def precision_recall_curve(
    total: Int[Array, "q l"], relevant: Int[Array, "q l"]
) -> tuple[Float[Array, "q l"], Float[Array, "q l"]]:
    """Precision and recall of the ball of each radius, from the counts per distance.

    The ball of radius r holds every result up to distance r, so ties do not matter. The precision
    of an empty ball and the recall of a query with nothing relevant are 0.
    """
    results, found = jnp.cumsum(total, axis=1), jnp.cumsum(relevant, axis=1)
    precision = found / jnp.maximum(results, 1)
    recall = found / jnp.maximum(found[:, -1:], 1)
    return precision, recall


def precision_within_radius(
    total: Int[Array, "q l"], relevant: Int[Array, "q l"], radius: int
) -> tuple[Float[Array, " q"], Bool[Array, " q"]]:
    """Precision of the results within a Hamming radius, and which queries find none at all.

    An empty ball has precision 0, the stricter of the two rules in use, so the mean over queries
    must be read beside the share of empty balls.
    """
    if not 0 <= radius < total.shape[1]:
        raise ValueError(f"radius must lie between 0 and {total.shape[1] - 1} bits, got {radius}")
    results = jnp.sum(total[:, : radius + 1], axis=1)
    found = jnp.sum(relevant[:, : radius + 1], axis=1)
    return found / jnp.maximum(results, 1), results == 0


def majority_label(neighbors: Int[Array, "q k"]) -> Int[Array, " q"]:
    """The label that most neighbours carry; of labels with equal votes, the nearest one's."""
    votes = jnp.sum(neighbors[:, :, None] == neighbors[:, None, :], axis=2)
    first = jnp.argmax(votes, axis=1)
    return jnp.take_along_axis(neighbors, first[:, None], axis=1)[:, 0]


def label_scores(
    labels: Shaped[np.ndarray, " n"], predicted: Shaped[np.ndarray, " n"]
) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 as plain means over classes (macro averages).

    A class that is never predicted has precision 0.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    scores = precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    names = ("accuracy", "precision", "recall", "f1")
    return dict(
        zip(names, map(float, (accuracy_score(labels, predicted), *scores[:3])), strict=True)
    )


def confusion_counts(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], num_classes: int
) -> Int[np.ndarray, "c c"]:
    """How many images of each class (row) were taken for each class (column)."""
    pairs = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def clustering_scores(
    labels: Shaped[np.ndarray, " n"], clusters: Shaped[np.ndarray, " n"]
) -> dict[str, float]:
    """How well clusters agree with labels: Rand index, mutual information, and both adjusted.

    The Rand index of random clusters is close to 1 when there are many, because most pairs are
    apart in both; ARI and AMI subtract what chance gives (Hubert 1985; Vinh 2010).
    NMI and AMI divide by the arithmetic mean of the two entropies.
    """
    from sklearn import metrics

    return {
        "ri": float(metrics.rand_score(labels, clusters)),
        "ari": float(metrics.adjusted_rand_score(labels, clusters)),
        "nmi": float(metrics.normalized_mutual_info_score(labels, clusters)),
        "ami": float(metrics.adjusted_mutual_info_score(labels, clusters)),
    }
