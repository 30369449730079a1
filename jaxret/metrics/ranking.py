"""Ranked lists: what is relevant in them, average precision, precision and recall."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.metrics import validate
from jaxret.metrics.validate import Values

NO_LABEL = -1


def same_label(query: Values, neighbors: Values) -> Bool[Array, "q k"]:
    """Relevance with single labels, i32[q] and i32[q k]: equal, and not -1, which is no label."""
    query, neighbors = validate.whole("query", query, 1), validate.whole("neighbors", neighbors, 2)
    validate.same_length(query=query, neighbors=neighbors)
    return (query[:, None] == neighbors) & (query[:, None] != NO_LABEL)


def share_a_label(query: Values, neighbors: Values) -> Bool[Array, "q k"]:
    """Relevance with several labels, as one boolean per class, bool[q c] and bool[q k c]: at least
    one in common.
    """
    query, neighbors = validate.flags("query", query, 2), validate.flags("neighbors", neighbors, 3)
    validate.same_length(query=query, neighbors=neighbors)
    if query.shape[1] != neighbors.shape[2]:
        raise ValueError(
            f"query and neighbors must have as many classes, got {query.shape[1]} and "
            f"{neighbors.shape[2]}"
        )
    return jnp.any(query[:, None] & neighbors, axis=2)


# What average precision is divided by, from the relevant results found in the first k, all the
# relevant images of the gallery, and k. A score without the name of its divisor means nothing:
# the same list can rise under one and fall under another.
AP_DIVISORS: dict[str, Callable] = {
    "retrieved": lambda found, num_relevant, k: found,
    "min": lambda found, num_relevant, k: jnp.minimum(num_relevant, k),
    "all": lambda found, num_relevant, k: num_relevant,
}


def divisor_of(name: str) -> Callable:
    """One of AP_DIVISORS."""
    if name not in AP_DIVISORS:
        raise ValueError(f"divisor must be one of {', '.join(AP_DIVISORS)}, got {name!r}")
    return AP_DIVISORS[name]


def average_precision(relevant: Values, num_relevant: Values) -> Float[Array, " q"]:
    """Average precision of each ranked list, relevant bool[q k], num_relevant i32[q].

    AP = 1/R * sum over ranks i of P(i) * relevant(i), where P(i) is the precision of the first i
    results and R = num_relevant.

    Papers disagree on R: `ap_divisor` gives each of them by its name. A query with R = 0 scores 0.
    """
    relevant, num_relevant = validate.lists(relevant, num_relevant)
    hits = jnp.cumsum(relevant, axis=1)
    if validate.concrete(hits, num_relevant) and (hits[:, -1:] > num_relevant[:, None]).any():
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
    relevant, num_relevant = validate.lists(relevant, num_relevant)
    found = jnp.sum(relevant, axis=1)
    return divisor_of(name)(found, num_relevant, relevant.shape[1])


def mean_average_precision(
    relevant: Values, num_relevant: Values, divisor: str = "retrieved"
) -> Float[Array, ""]:
    """Return the mean over queries of average precision (Torres 2018, eq. 4.1).

    With `retrieved` and k = 1 it is the accuracy of the nearest neighbor.
    """
    return jnp.mean(average_precision(relevant, ap_divisor(relevant, num_relevant, divisor)))


def precision_at(relevant: Values, ks: Values) -> Float[Array, "q m"]:
    """Return the share of relevant results in the first K, for each K (Jimenez 2017, eq. 5.1)."""
    relevant = validate.flags("relevant", relevant, 2)
    ks = _checked_ks(ks, relevant.shape[1])
    return _hits_at(relevant, ks) / jnp.array(ks)[None]


def recall_at(relevant: Values, num_relevant: Values, ks: Values) -> Float[Array, "q m"]:
    """Return the share of the gallery's relevant images found in the first K, for each K.

    0 where the gallery holds none.
    """
    relevant, num_relevant = validate.lists(relevant, num_relevant)
    ks = _checked_ks(ks, relevant.shape[1])
    return _hits_at(relevant, ks) / jnp.maximum(num_relevant, 1)[:, None]


def _checked_ks(ks, k) -> tuple[int, ...]:
    ks = validate.any_rank("K", ks)
    if ks.ndim > 1:
        raise ValueError(f"K must be numbers, got shape {list(ks.shape)}")
    ks = tuple(validate.number("each K", i) for i in ks.reshape(-1).tolist())
    if not all(1 <= i <= k for i in ks):
        raise ValueError(f"each K must lie between 1 and the {k} results given, got {ks}")
    return ks


def _hits_at(relevant, ks):
    return jnp.cumsum(relevant, axis=1)[:, jnp.array(ks, jnp.int32) - 1]
