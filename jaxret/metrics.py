"""How good a ranking is: every definition by its name, and ties counted honestly.

A ranking enters as booleans: is the i-th result relevant to the query? Single labels, several
labels and lists of ids all become that, so no metric knows what relevance is. Rankings by Hamming
distance, where many results tie, also enter as counts per distance: how many results lie at each
distance, and how many of them are relevant. These counts hold all that does not depend on the
order of ties.

Every function takes arrays of NumPy or JAX, and lists. It checks types, ranges and lengths, under
jit types and shapes only, and never calculates in a narrow type that it was given.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

NO_LABEL = -1
MOST_LEVELS = 2**20  # of counts by distance: results are as wide
MOST_CLASSES = 2**15  # of confusion counts: their square is held
Whole = SupportsIndex | SupportsFloat
Values = Shaped[Array | np.ndarray, "..."] | Sequence | int | np.generic  # as a caller has them


def same_label(query: Values, neighbors: Values) -> Bool[Array, "q k"]:
    """Relevance with single labels, i32[q] and i32[q k]: equal, and not -1, which is no label."""
    query, neighbors = _whole("query", query, 1), _whole("neighbors", neighbors, 2)
    _same_length(query=query, neighbors=neighbors)
    return (query[:, None] == neighbors) & (query[:, None] != NO_LABEL)


def share_a_label(query: Values, neighbors: Values) -> Bool[Array, "q k"]:
    """Relevance with several labels, as one boolean per class, bool[q c] and bool[q k c]: at least
    one in common.
    """
    query, neighbors = _flags("query", query, 2), _flags("neighbors", neighbors, 3)
    _same_length(query=query, neighbors=neighbors)
    if query.shape[1] != neighbors.shape[2]:
        raise ValueError(
            f"query and neighbors must have as many classes, got {query.shape[1]} and "
            f"{neighbors.shape[2]}"
        )
    return jnp.any(query[:, None] & neighbors, axis=2)


def _any_rank(name: str, values: Any) -> Any:
    """An array, from an array, a number or a list."""
    if hasattr(values, "dtype"):
        return values
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} must be an array, got rows of several lengths") from None


def _array(name: str, values: Any, ndim: int) -> Any:
    """An array of this rank."""
    values = _any_rank(name, values)
    if values.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {list(values.shape)}")
    return values


def _concrete(*arrays) -> bool:
    """Are values there to be checked, which they are not under jit?"""
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def _flags(name: str, values: Any, ndim: int) -> Bool[Array, "..."]:
    """Booleans, which may be given as numbers 0 and 1."""
    values = _array(name, values, ndim)
    if values.dtype != bool:
        if _concrete(values) and not np.isin(np.asarray(values), (0, 1)).all():
            raise ValueError(f"{name} must be bool, or 0 and 1, got {values.dtype} with others")
        values = values != 0
    return jnp.asarray(values)


def _whole(name: str, values: Any, ndim: int, least: int | None = None) -> Int[Array, "..."]:
    """Whole numbers, as int32."""
    values = _array(name, values, ndim)
    if values.size == 0:
        return jnp.zeros(values.shape, jnp.int32)
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise ValueError(f"{name} must be whole numbers, got {values.dtype}")
    if _concrete(values):
        limits = np.iinfo(np.int32)
        lowest, highest = int(values.min()), int(values.max())
        least = limits.min if least is None else least
        if lowest < least:
            raise ValueError(f"{name} must be at least {least}, got {lowest}")
        if highest > limits.max:
            raise ValueError(f"{name} must fit int32, got {highest}")
    return jnp.asarray(values, jnp.int32)


def _same_length(**arrays) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        found = " and ".join(map(str, lengths.values()))
        raise ValueError(f"{' and '.join(lengths)} must be as long, got {found}")


def _lists(relevant: Any, num_relevant: Any) -> tuple[Bool[Array, "q k"], Int[Array, " q"]]:
    """Ranked lists, and how many are relevant for each; one number may stand for all queries."""
    relevant = _flags("relevant", relevant, 2)
    num_relevant = _any_rank("num_relevant", num_relevant)
    if num_relevant.ndim == 0:
        num_relevant = num_relevant.reshape(1).repeat(len(relevant))
    num_relevant = _whole("num_relevant", num_relevant, 1, 0)
    _same_length(relevant=relevant, num_relevant=num_relevant)
    return relevant, num_relevant


def _counts(total: Any, relevant: Any) -> tuple[Int[Array, "q l"], Int[Array, "q l"]]:
    """Results, and relevant results, at each distance: never more of these than of those."""
    total, relevant = _whole("total", total, 2, 0), _whole("relevant", relevant, 2, 0)
    if total.shape != relevant.shape:
        raise ValueError(
            f"total and relevant must have one shape, got {list(total.shape)} and "
            f"{list(relevant.shape)}"
        )
    if _concrete(total, relevant) and (relevant > total).any():
        row, level = np.argwhere(np.asarray(relevant > total))[0]
        raise ValueError(
            f"relevant results must not exceed all results, query {row} has "
            f"{relevant[row, level]} of {total[row, level]} at distance {level}"
        )
    return total, relevant


def _number(name: str, value: Any, most: int | None = None) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = int(value) if isinstance(value, float) and value % 1 == 0 else None
    if number is None or isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}, got {number}")
    return number


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


def average_precision(relevant: Values, num_relevant: Values) -> Float[Array, " q"]:
    """Average precision of each ranked list, relevant bool[q k], num_relevant i32[q].

    AP = 1/R * sum over ranks i of P(i) * relevant(i), where P(i) is the precision of the first i
    results and R = num_relevant.

    Papers disagree on R: `ap_divisor` gives each of them by its name. A query with R = 0 scores 0.
    """
    relevant, num_relevant = _lists(relevant, num_relevant)
    hits = jnp.cumsum(relevant, axis=1)
    if _concrete(hits, num_relevant) and (hits[:, -1:] > num_relevant[:, None]).any():
        raise ValueError("num_relevant must be at least the relevant results of each list")
    precision = hits / jnp.arange(1, relevant.shape[1] + 1)[None]
    total = jnp.sum(precision * relevant, axis=1)
    return jnp.where(num_relevant > 0, total / jnp.maximum(num_relevant, 1), 0.0)


def ap_divisor(relevant: Values, num_relevant: Values, name: str) -> Int[Array, " q"]:
    """Return the R of average precision over the first k results.

    `retrieved`: the relevant results among the first k (Torres 2018, eq. 4.2; Jimenez 2017,
    eq. 5.3 with m_q read so). It never punishes what was not found, so it falls when a late result
    turns relevant: [+ - +] scores 5/6, [+ - -] scores 1.
    `min`: min(num_relevant, k), the most that could be found.
    `all`: num_relevant, the relevant images in the gallery: AP over the whole list.
    """
    relevant, num_relevant = _lists(relevant, num_relevant)
    found = jnp.sum(relevant, axis=1)
    return _divisor(name)(found, num_relevant, relevant.shape[1])


def mean_average_precision(
    relevant: Values, num_relevant: Values, divisor: str = "retrieved"
) -> Float[Array, ""]:
    """Return the mean over queries of average precision (Torres 2018, eq. 4.1).

    With `retrieved` and k = 1 it is the accuracy of the nearest neighbor.
    """
    return jnp.mean(average_precision(relevant, ap_divisor(relevant, num_relevant, divisor)))


def precision_at(relevant: Values, ks: Values) -> Float[Array, "q m"]:
    """Return the share of relevant results in the first K, for each K (Jimenez 2017, eq. 5.1)."""
    relevant = _flags("relevant", relevant, 2)
    ks = _checked_ks(ks, relevant.shape[1])
    return _hits_at(relevant, ks) / jnp.array(ks)[None]


def recall_at(relevant: Values, num_relevant: Values, ks: Values) -> Float[Array, "q m"]:
    """Return the share of the gallery's relevant images found in the first K, for each K.

    0 where the gallery holds none.
    """
    relevant, num_relevant = _lists(relevant, num_relevant)
    ks = _checked_ks(ks, relevant.shape[1])
    return _hits_at(relevant, ks) / jnp.maximum(num_relevant, 1)[:, None]


def _checked_ks(ks, k) -> tuple[int, ...]:
    ks = _any_rank("K", ks)
    if ks.ndim > 1:
        raise ValueError(f"K must be numbers, got shape {list(ks.shape)}")
    ks = tuple(_number("each K", i) for i in ks.reshape(-1).tolist())
    if not all(1 <= i <= k for i in ks):
        raise ValueError(f"each K must lie between 1 and the {k} results given, got {ks}")
    return ks


def _hits_at(relevant, ks):
    return jnp.cumsum(relevant, axis=1)[:, jnp.array(ks, jnp.int32) - 1]


def counts_by_distance(
    distances: Values, relevant: Values, levels: Whole
) -> tuple[Int[Array, "q l"], Int[Array, "q l"]]:
    """Count the results, and the relevant results, at each distance from 0 to levels - 1.

    Each row holds the whole gallery, by ascending distance; a list that stops inside a tie would
    give counts that depend on the order of ties.
    """
    distances, relevant = _whole("distances", distances, 2, 0), _flags("relevant", relevant, 2)
    if distances.shape != relevant.shape:
        raise ValueError(
            f"distances and relevant must have one shape, got {list(distances.shape)} and "
            f"{list(relevant.shape)}"
        )
    if _concrete(distances) and (distances[:, 1:] < distances[:, :-1]).any():
        raise ValueError("distances must ascend in each row")
    levels = jnp.arange(_number("levels", levels, MOST_LEVELS), dtype=distances.dtype)
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
    total: Values,
    relevant: Values,
    divisor: str = "all",
    k: Whole | None = None,
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

    Args:
        total: how many results lie at each distance, i32[q l].
        relevant: how many of them are relevant, i32[q l].
        divisor: one of AP_DIVISORS.
        k: the length of the ranked list, None for the whole.

    Returns:
        TieAware: the expected, the lowest and the highest value of each query, f32[q].

    Raises:
        ValueError: if counts are not whole numbers of one shape, or k is below 1.
    """
    total, relevant = _counts(total, relevant)
    k = None if k is None else _number("k", k)
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if k is not None and _concrete(total):  # a k beyond the lists is the whole lists
        k = min(k, max(1, int(jnp.sum(total, axis=1).max(initial=0))))
    size = int(np.iinfo(np.int32).max) if k is None else k
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

    From the ratios of neighboring probabilities: factorials would overflow.
    """
    x, m, t, r = (values.astype(jnp.float32) for values in (x, m, t, r))
    ratio = (r - x + 1) * (m - x + 1) / jnp.maximum(x * (t - r - m + x), 1)
    first = x <= jnp.maximum(m - (t - r), 0)
    log_ratio = jnp.where(possible & ~first, jnp.log(jnp.maximum(ratio, 1e-30)), 0.0)
    return jax.nn.softmax(jnp.where(possible, jnp.cumsum(log_ratio, axis=1), -jnp.inf), axis=1)


def precision_recall_curve(
    total: Values, relevant: Values
) -> tuple[Float[Array, "q l"], Float[Array, "q l"]]:
    """Precision and recall of the ball of each radius, from the counts per distance.

    The ball of radius r holds every result up to distance r, so ties do not matter. The precision
    of an empty ball and the recall of a query with nothing relevant are 0.
    """
    total, relevant = _counts(total, relevant)
    results, found = jnp.cumsum(total, axis=1), jnp.cumsum(relevant, axis=1)
    precision = found / jnp.maximum(results, 1)
    recall = found / jnp.maximum(found[:, -1:], 1)
    return precision, recall


def precision_within_radius(
    total: Values, relevant: Values, radius: Whole
) -> tuple[Float[Array, " q"], Bool[Array, " q"]]:
    """Precision of the results within a Hamming radius, and which queries find none at all.

    An empty ball has precision 0, the stricter of the two rules in use, so the mean over queries
    must be read beside the share of empty balls.
    """
    total, relevant = _counts(total, relevant)
    radius = _number("radius", radius)
    if not 0 <= radius < total.shape[1]:
        raise ValueError(f"radius must lie between 0 and {total.shape[1] - 1} bits, got {radius}")
    results = jnp.sum(total[:, : radius + 1], axis=1)
    found = jnp.sum(relevant[:, : radius + 1], axis=1)
    return found / jnp.maximum(results, 1), results == 0


def majority_label(neighbors: Values) -> Int[Array, " q"]:
    """Return the label that most neighbors carry; of labels with equal votes, the nearest one's."""
    neighbors = _whole("neighbors", neighbors, 2)
    if neighbors.shape[1] < 1:
        raise ValueError("neighbors must have at least 1 column, got 0")
    votes = jnp.sum(neighbors[:, :, None] == neighbors[:, None, :], axis=2)
    first = jnp.argmax(votes, axis=1)
    return jnp.take_along_axis(neighbors, first[:, None], axis=1)[:, 0]


def label_scores(labels: Values, predicted: Values) -> dict[str, float]:
    """Return accuracy, and precision, recall and F1 as plain means over classes (macro averages).

    A class that is never predicted has precision 0.
    """
    labels, predicted = _pair("labels", labels, "predicted", predicted)
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    options: Any = {"average": "macro", "zero_division": 0}  # scikit-learn's types know no number
    scores = precision_recall_fscore_support(labels, predicted, **options)
    names = ("accuracy", "precision", "recall", "f1")
    return dict(
        zip(names, map(float, (accuracy_score(labels, predicted), *scores[:3])), strict=True)
    )


def _pair(name: str, one: Any, other_name: str, other: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two lists of labels, one for each image."""
    one, other = _label_list(name, one), _label_list(other_name, other)
    _same_length(**{name: one, other_name: other})
    if one.size and one.dtype.kind != other.dtype.kind:
        raise ValueError(f"{name} and {other_name} must be of one kind, got text and numbers")
    return one, other


def _label_list(name: str, values: Any) -> np.ndarray:
    """Labels as whole numbers i64[n], or as text."""
    values = np.asarray(_array(name, values, 1))
    if values.dtype.kind == "f" and np.all(values % 1 == 0):
        values = values.astype(np.int64)
    if values.size and values.dtype.kind not in "biuU":
        raise ValueError(f"{name} must be whole numbers or text, got {values.dtype}")
    if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit int64, got {values.max()}")
    return values if values.dtype.kind == "U" else values.astype(np.int64)


def confusion_counts(
    labels: Values, predicted: Values, num_classes: Whole
) -> Int[np.ndarray, "c c"]:
    """Count how many images of each class (row) were taken for each class (column)."""
    num_classes = _number("num_classes", num_classes, MOST_CLASSES)
    pair = _pair("labels", labels, "predicted", predicted)
    for name, values in zip(("labels", "predicted"), pair, strict=True):
        if values.dtype.kind == "U":
            raise ValueError(f"{name} must be whole numbers, got {values.dtype}")
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(
                f"{name} must lie between 0 and {num_classes - 1}, got {values.min()} to "
                f"{values.max()}"
            )
    labels, predicted = pair
    pairs = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def clustering_scores(labels: Values, clusters: Values) -> dict[str, float]:
    """Return how well clusters agree with labels: Rand index, mutual information, both adjusted.

    The Rand index of random clusters is close to 1 when there are many, because most pairs are
    apart in both; ARI and AMI subtract what chance gives (Hubert 1985; Vinh 2010).
    NMI and AMI divide by the arithmetic mean of the two entropies.
    """
    from sklearn import metrics

    labels, clusters = _pair("labels", labels, "clusters", clusters)
    return {
        "ri": float(metrics.rand_score(labels, clusters)),
        "ari": float(metrics.adjusted_rand_score(labels, clusters)),
        "nmi": float(metrics.normalized_mutual_info_score(labels, clusters)),
        "ami": float(metrics.adjusted_mutual_info_score(labels, clusters)),
    }
