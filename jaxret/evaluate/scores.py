"""Scores of whole rankings, by name."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Shaped

from jaxret import metrics, search
from jaxret.evaluate.batches import PAIRS, batched
from jaxret.evaluate.distances import DISTANCES, TIED, check_distance, check_latents
from jaxret.evaluate.relevance import relevance_of
from jaxret.search.threads import on_host_threads
from jaxret.search.validate import Whole, whole

ALWAYS_AT = (1, 10, 1000)
RADIUS = 2


def retrieval_scores(
    query: Shaped[Array | np.ndarray, "q b"],
    gallery: Shaped[Array | np.ndarray, "n b"],
    query_labels: Any,
    gallery_labels: Any,
    *,
    distance: str = "euclidean",
    ks: Sequence[Whole] = (1, 2, 1000),
    pairs: int = PAIRS,
) -> dict[str, float]:
    """Rank the whole gallery for each query, and return means over queries, by name.

    For each K of ks, and for 1, 10 and 1000: `map@K/retrieved`, `map@K/min` and `precision@K`,
    absent where K exceeds the gallery. `map@all/all` is over the whole ranking. Ties are in the
    order of rows. `queries_without_relevant` counts the queries for which the gallery holds no
    relevant image; they score 0.

    By `hamming` distance there is more. `/expected`, `/lowest` and `/highest` behind `map@all/all`
    and each `map@K/retrieved` are the same over the orders of ties. `precision@radius2` is that of
    the results within 2 bits, and `empty@radius2` the share of queries with nothing there, whose
    precision counts as 0.

    Args:
        query: latents f32[q b]; by `hamming` distance their signs are the codes.
        gallery: latents f32[n b].
        query_labels: i32[q], -1 where there is none, and relevant is what has the same label; or
            bool[q c] for several labels, and relevant is what shares at least one.
        gallery_labels: i32[n] or bool[n c].
        distance: one of DISTANCES.
        ks: lengths of ranked lists.
        pairs: the pairs of query and result held at once, at about 30 bytes each.

    Returns:
        Scores by name.

    Raises:
        ValueError: if labels are missing, or if an argument has another shape or a value out of
            its range.
    """
    ks = check_request(distance, ks)
    query, gallery = np.asarray(query), np.asarray(gallery)
    check_latents(query, gallery)
    relevance = relevance_of(query_labels, gallery_labels, len(query), len(gallery))
    n, bits = gallery.shape
    ks = tuple(k for k in ks if k <= n)
    rank = DISTANCES[distance](gallery)
    levels = bits + 1 if distance in TIED else 0

    def score(index):
        found = rank(query[index], n)
        lists = _ranked(found, relevance(index), levels)
        return _scores(lists, ks) | (_scores_with_ties(lists, ks, bits) if levels else {})

    tile = max(1, min(whole("pairs", pairs) // n, len(query)))
    scores = batched(score, tile, np.arange(len(query)))
    missing = float(np.sum(scores.pop("without_relevant")))
    means = {name: float(np.mean(values, dtype=np.float64)) for name, values in scores.items()}
    return means | {"queries_without_relevant": missing}


def check_request(distance: Any, ks: Sequence[Whole]) -> tuple[int, ...]:
    """Return every K that is scored, ascending; refuse a distance that is not known."""
    check_distance(distance)
    return tuple(sorted({whole("each K", k) for k in ks} | set(ALWAYS_AT)))


class Lists(NamedTuple):
    """Whole rankings of a tile of queries, as the ranks of what is relevant.

    counts are the results, and the relevant results, at each distance in bits; None by other
    distances.
    """

    relevant: Bool[np.ndarray, "q n"]
    num_relevant: Int[np.ndarray, " q"]
    average_precision: Float[np.ndarray, " q"]
    counts: tuple[Int[np.ndarray, "q l"], Int[np.ndarray, "q l"]] | None


def _ranked(found: search.Neighbors, relevance: Bool[np.ndarray, "q n"], levels: int) -> Lists:
    """Put relevance into the order of the ranking, on the host: sums over hits alone are fast."""
    rows, distances = np.asarray(found.indices), np.asarray(found.distances)
    queries = len(rows)
    relevant, precision = np.empty_like(relevance), np.zeros(queries)
    counts = np.zeros((2, queries, levels), np.int32)

    def rank(numbers):
        for i in numbers:
            np.take(relevance[i], rows[i], out=relevant[i], mode="clip")
            hits = np.flatnonzero(relevant[i])
            if len(hits):  # metrics.average_precision, as its terms are 0 elsewhere
                precision[i] = np.mean(np.arange(1, len(hits) + 1) / (hits + 1))
            if levels:  # metrics.counts_by_distance
                upto = np.searchsorted(distances[i], np.arange(levels, dtype=np.int32), "right")
                for total, ends in zip(counts, (upto, np.searchsorted(hits, upto)), strict=True):
                    total[i] = np.diff(ends, prepend=0)

    on_host_threads(rank, queries)
    tied = (counts[0], counts[1]) if levels else None
    return Lists(relevant, np.sum(relevance, axis=1), precision, tied)


def _scores(lists: Lists, ks: tuple[int, ...]) -> dict[str, Shaped[Array | np.ndarray, " q"]]:
    first = np.ascontiguousarray(lists.relevant[:, : max(ks)])
    return {
        "map@all/all": lists.average_precision,
        "without_relevant": lists.num_relevant == 0,
        **_scores_at(first, lists.num_relevant.astype(np.int32), ks),
    }


@partial(jax.jit, static_argnames="ks")
def _scores_at(
    relevant: Bool[Array, "q k"], num_relevant: Int[Array, " q"], ks: tuple[int, ...]
) -> dict[str, Float32[Array, " q"]]:
    scores = {}
    for k in ks:
        first = relevant[:, :k]
        for name in ("retrieved", "min"):
            divisor = metrics.ap_divisor(first, num_relevant, name)
            scores[f"map@{k}/{name}"] = metrics.average_precision(first, divisor)
        scores[f"precision@{k}"] = metrics.precision_at(first, (k,))[:, 0]
    return scores


def _scores_with_ties(lists: Lists, ks: tuple[int, ...], bits: int):
    assert lists.counts is not None  # the distance is one of TIED
    return _scores_of_counts(*lists.counts, ks, bits)


@partial(jax.jit, static_argnames=("ks", "bits"))
def _scores_of_counts(
    total: Int[Array, "q l"], relevant: Int[Array, "q l"], ks: tuple[int, ...], bits: int
) -> dict[str, Shaped[Array, " q"]]:
    counts = total, relevant
    tied = {"map@all/all": metrics.tie_aware_average_precision(*counts, "all")}
    for k in ks:
        tied[f"map@{k}/retrieved"] = metrics.tie_aware_average_precision(*counts, "retrieved", k)
    scores = {
        f"{name}/{bound}": values
        for name, tie_aware in tied.items()
        for bound, values in tie_aware._asdict().items()
    }
    precision, empty = metrics.precision_within_radius(*counts, min(RADIUS, bits))
    scores[f"precision@radius{RADIUS}"] = precision
    scores[f"empty@radius{RADIUS}"] = empty
    return scores
