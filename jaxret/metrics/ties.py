"""Counts per distance: all that does not depend on the order of tied results."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxret.metrics import validate
from jaxret.metrics.ranking import divisor_of
from jaxret.metrics.validate import Values, Whole

MOST_LEVELS = 2**20  # of counts by distance: results are as wide


def counts_by_distance(
    distances: Values, relevant: Values, levels: Whole
) -> tuple[Int[Array, "q l"], Int[Array, "q l"]]:
    """Count the results, and the relevant results, at each distance from 0 to levels - 1.

    Each row holds the whole gallery, by ascending distance; a list that stops inside a tie would
    give counts that depend on the order of ties.
    """
    distances, relevant = (
        validate.whole("distances", distances, 2, 0),
        validate.flags("relevant", relevant, 2),
    )
    if distances.shape != relevant.shape:
        raise ValueError(
            f"distances and relevant must have one shape, got {list(distances.shape)} and "
            f"{list(relevant.shape)}"
        )
    if validate.concrete(distances) and (distances[:, 1:] < distances[:, :-1]).any():
        raise ValueError("distances must ascend in each row")
    levels = jnp.arange(validate.number("levels", levels, MOST_LEVELS), dtype=distances.dtype)
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

    The expectation over all orders of the tied results, each as likely (McSherry 2008), and the
    values of the worst and the best order. total and relevant count the results at each distance,
    nearest first. The cut at k may fall inside a tie. A query whose divisor is 0 scores 0.

    A tie cut by k leaves to chance how many relevant results x it adds (hypergeometric), and x
    enters the divisor `retrieved`, so the expectation runs over x: O(l) for each query over the
    whole list, O(l + k) at a cut.

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
    total, relevant = validate.counts(total, relevant)
    k = _length(k, total)
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
    divisors = divisor_of(divisor)(found_above + x, num_relevant, size)
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


def _length(k, total):
    """The length of the ranked list: k, at most the longest list; None for the whole."""
    if k is None:
        return None
    k = validate.number("k", k)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if validate.concrete(total):
        k = min(k, max(1, int(jnp.sum(total, axis=1).max(initial=0))))
    return k


def _tie_sums(x, m, above, found):
    """What a tie adds to the sum of average precision: expected, worst and best order.

    Among its m results x are relevant; `found` of the `above` results before it are. In no
    particular order the i-th is relevant with probability x/m and has then
    found + 1 + (i - 1)(x - 1)/(m - 1) relevant results up to itself; the sum of these over
    above + i is a difference of two harmonic numbers.
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
    total, relevant = validate.counts(total, relevant)
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
    total, relevant = validate.counts(total, relevant)
    radius = validate.number("radius", radius)
    if not 0 <= radius < total.shape[1]:
        raise ValueError(f"radius must lie between 0 and {total.shape[1] - 1} bits, got {radius}")
    results = jnp.sum(total[:, : radius + 1], axis=1)
    found = jnp.sum(relevant[:, : radius + 1], axis=1)
    return found / jnp.maximum(results, 1), results == 0
