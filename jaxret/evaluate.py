"""From an encoder and a protocol to named numbers: encode, rank, score.

Every number's name says what it is: `map@1000/retrieved` is mean average precision over the first
1000 results, divided by the relevant ones among them. Work goes in batches of images and tiles of
queries, so memory stays bounded, and neither size changes a result.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Shaped, UInt8

from jaxret import codes, divergences, inputs, metrics, search
from jaxret.search.select import least_on_host, on_host_threads, padded
from jaxret.search.validate import Whole, columns, whole

ALWAYS_AT = (1, 10, 1000)
RADIUS = 2
NO_LABEL = -1
PAIRS = 2**22


def evaluate(
    encode: Callable,
    params: Any,
    protocol: Any,
    *,
    overlap: int | None = None,
    allow_overlap: bool = False,
    distance: str = "euclidean",
    ks: Sequence[Whole] = (1, 2, 1000),
    batch_size: int = 1000,
    pairs: int = PAIRS,
) -> dict[str, float]:
    """Encode a protocol's gallery and queries, and score the retrieval.

    Args:
        encode: (params, images) -> f32[n b]. It sees batches of one size only; jit it where
            it can be.
        params: what encode is given.
        protocol: has the fields name, train, gallery, query and known_overlap.
        overlap: how many query images are in the gallery, counted by content; None: they are
            counted here. Each of them finds itself, so more than the protocol documents as
            known_overlap are refused.
        allow_overlap: score all the same.
        distance: one of DISTANCES.
        ks: the K of `map@K` and `precision@K`.
        batch_size: images that are encoded at once.
        pairs: as in `retrieval_scores`.

    Returns:
        Scores by name: see `retrieval_scores`.

    Raises:
        ValueError: if queries are in the gallery, if labels are missing, or if an argument has
            another shape or a value out of its range.
    """
    _check_request(distance, ks)
    gallery, query = protocol.gallery, protocol.query
    for name, images in (("query", query), ("gallery", gallery)):
        _checked_labels(name, images.labels, len(images.images))  # before the work of encoding
    if not allow_overlap:
        overlap = images_in_both(gallery.images, query.images) if overlap is None else overlap
        if overlap > protocol.known_overlap:
            raise ValueError(
                f"{protocol.name}: at most {protocol.known_overlap} query images may be in the "
                f"gallery, found {overlap}"
            )
    query_latents, gallery_latents = (
        encode_in_batches(encode, params, part.images, batch_size) for part in (query, gallery)
    )
    return retrieval_scores(
        query_latents,
        gallery_latents,
        query.labels,
        gallery.labels,
        distance=distance,
        ks=ks,
        pairs=pairs,
    )


def images_in_both(gallery: UInt8[np.ndarray, "n ..."], query: UInt8[np.ndarray, "q ..."]) -> int:
    """Count the query images that occur in the gallery, pixel for pixel."""
    kinds = [getattr(images, "dtype", None) for images in (gallery, query)]
    if kinds[0] is None or kinds[0] != kinds[1]:  # by their bytes they would all differ
        gallery, query = inputs.accept(gallery), inputs.accept(query)
    gallery, query = np.asarray(gallery), np.asarray(query)
    if gallery.shape[1:] != query.shape[1:]:
        return 0
    known = {image.tobytes() for image in query}
    found = known.intersection(image.tobytes() for image in gallery)
    return sum(image.tobytes() in found for image in query)


def describe(protocol: Any, overlap: int) -> dict[str, str | int]:
    """Return what a score must be read with: the protocol's name, its sizes, its overlap.

    A protocol of the literature also has the score it is known by, and a digest of its split.
    """
    known = {name: getattr(protocol, name, "") for name in ("metric", "split")}
    return {
        "name": protocol.name,
        "train": len(protocol.train.images),
        "gallery": len(protocol.gallery.images),
        "query": len(protocol.query.images),
        "overlap": overlap,
        **{name: value for name, value in known.items() if value},
    }


def encode_in_batches(
    encode: Callable,
    params: Any,
    images: Shaped[Array | np.ndarray, "n *shape"],
    batch_size: Whole = 1000,
) -> Float[Array, "n b"]:
    """Encode many images, the same number at each call: the last batch is filled up.

    Which images there may be is up to encode: a hasher's takes those of `jaxret.inputs`.
    """
    if not isinstance(images, np.ndarray | jax.Array) or images.ndim < 1:
        raise ValueError(f"images must be an array [n h w c], got {type(images).__name__}")
    if len(images) == 0:
        raise ValueError("there must be at least 1 image to encode, got 0")

    def checked(batch):
        latents = encode(params, batch)
        if latents.ndim != 2 or len(latents) != len(batch):
            raise ValueError(
                f"encode must return one row per image, got shape {latents.shape} for {len(batch)}"
            )
        return latents

    return jnp.asarray(_batched(checked, batch_size, images))


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
    ks = _check_request(distance, ks)
    query, gallery = np.asarray(query), np.asarray(gallery)
    _check_latents(query, gallery)
    relevance = _relevance(query_labels, gallery_labels, len(query), len(gallery))
    n, bits = gallery.shape
    ks = tuple(k for k in ks if k <= n)
    rank = DISTANCES[distance](gallery)
    levels = bits + 1 if distance in TIED else 0

    def score(index):
        found = rank(query[index], n)
        lists = _ranked(found, relevance(index), levels)
        return _scores(lists, ks) | (_scores_with_ties(lists, ks, bits) if levels else {})

    tile = max(1, min(whole("pairs", pairs) // n, len(query)))
    scores = _batched(score, tile, np.arange(len(query)))
    missing = float(np.sum(scores.pop("without_relevant")))
    means = {name: float(np.mean(values, dtype=np.float64)) for name, values in scores.items()}
    return means | {"queries_without_relevant": missing}


def _check_latents(query, gallery):
    for name, rows in (("query", query), ("gallery", gallery)):
        kinds = (bool, jnp.integer, jnp.floating)
        if rows.ndim != 2 or not any(jnp.issubdtype(rows.dtype, kind) for kind in kinds):
            raise ValueError(
                f"the {name} must be latents [n b], real numbers, got "
                f"{rows.dtype}{list(rows.shape)}"
            )
        if len(rows) == 0:
            raise ValueError(f"the {name} must hold at least 1 image, got 0")
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"latents must be finite, row {int(np.argmin(finite))} of the {name} is not"
            )
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query and gallery must be as long, got {query.shape[1]} and {gallery.shape[1]}"
        )


def _check_request(distance, ks) -> tuple[int, ...]:
    if distance not in DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, got {distance!r}")
    return tuple(sorted({whole("each K", k) for k in ks} | set(ALWAYS_AT)))


def _checked_labels(name, labels, count) -> np.ndarray:
    """Labels as i64[n], or as bool[n c]; at least one image has one."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.dtype != bool and np.isin(labels, (0, 1)).all():
        labels = labels.astype(bool)
    if len(labels) != count if labels.ndim else True:
        raise ValueError(
            f"the {name} needs one label per image, got {labels.shape[0] if labels.ndim else 1} "
            f"labels for {count} images"
        )
    if not (labels.ndim == 1 and labels.dtype.kind in "iu") and not (
        labels.ndim == 2 and labels.dtype == bool
    ):
        raise ValueError(
            f"labels of the {name} must be whole numbers [n] or bool [n c], got "
            f"{labels.dtype}{list(labels.shape)}"
        )
    if count and not (labels.any() if labels.ndim == 2 else (labels != NO_LABEL).any()):
        raise ValueError(f"scores need labels, and no image of the {name} has one")
    return labels if labels.ndim == 2 else labels.astype(np.int64)


def _relevance(query, gallery, q, n) -> Callable[[np.ndarray], Bool[np.ndarray, "t n"]]:
    """From numbers of queries to which rows of the gallery are relevant to each."""
    query, gallery = _checked_labels("query", query, q), _checked_labels("gallery", gallery, n)
    if query.ndim != gallery.ndim or query.shape[1:] != gallery.shape[1:]:
        raise ValueError(
            "query and gallery must have labels of one kind, got shapes "
            f"{list(query.shape)} and {list(gallery.shape)}"
        )
    if query.ndim == 1:  # whatever the labels are, small numbers are compared faster
        classes, labels = np.unique(np.concatenate([query, gallery]), return_inverse=True)
        small = labels.astype(np.min_scalar_type(len(classes)))
        own, others, labelled = small[:q], small[q:], query != NO_LABEL
        return lambda i: (own[i][:, None] == others[None]) & labelled[i][:, None]
    classes = gallery.astype(np.float32).T
    return lambda i: query[i].astype(np.float32) @ classes > 0


def _batched(function: Callable, batch_size: Whole, *arrays):
    """Apply a function to the rows of arrays, a batch at a time, each batch of one size.

    The last batch repeats its last row; what comes of that is cut off.
    """
    batch_size = whole("batch_size", batch_size)
    rows = len(arrays[0])
    size = min(batch_size, rows)
    results = []
    for start in range(0, rows, size):
        index = np.minimum(np.arange(start, start + size), rows - 1)
        result = function(*(array[index] for array in arrays))
        results.append(jax.tree.map(lambda a, n=rows - start: np.asarray(a)[:n], result))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


# A distance prepares a gallery, f32[n b] on the host, and returns a search of it:
# (query f32[q b], k) -> Neighbors.


def _euclidean(gallery):
    layout = search.lay_out(gallery.astype(np.float32))
    return lambda query, k: layout.topk(query.astype(np.float32), k)


def _hamming(gallery):
    layout = search.lay_out(np.asarray(codes.pack(gallery)))
    return lambda query, k: layout.topk(codes.pack(query), k)


def _cosine(gallery):
    layout = search.lay_out(divergences.unit_rows(gallery, 1))

    def topk(query, k):
        found = layout.topk(divergences.unit_rows(query, 0), k)
        return found._replace(distances=found.distances / 2)

    return topk


def _by_terms(gallery, *, divergence):
    prepared = tuple(map(jnp.asarray, divergence.gallery(gallery)))
    n = len(gallery)

    def topk(query, k):
        k = columns(k, n)
        parts = divergence.query(query)

        def nearest(*tile):
            table = divergences.distances(tile, prepared, divergence.term)
            return padded(*least_on_host(np.asarray(table), min(k, n)), k, np.inf)

        return search.Neighbors(*_batched(nearest, max(1, PAIRS // n), *parts))

    return topk


TIED = ("hamming",)  # distances by which many results tie: bits
DISTANCES: dict[str, Callable] = {
    "euclidean": _euclidean,
    "hamming": _hamming,
    "cosine": _cosine,
} | {
    name: partial(_by_terms, divergence=divergence)
    for name, divergence in divergences.DIVERGENCES.items()
}


def nearest(
    query: Shaped[Array | np.ndarray, "q b"],
    gallery: Shaped[Array | np.ndarray, "n b"],
    k: Whole,
    distance: str,
) -> search.Neighbors:
    """Return the k nearest rows by any of the distances that scores are given for.

    Args:
        query: latents f32[q b].
        gallery: latents f32[n b].
        k: how many; as in `jaxret.search.hamming_topk`.
        distance: one of DISTANCES.

    Returns:
        Neighbors: distances are squared for `euclidean`, bits for `hamming`, 1 - cos for `cosine`.

    Raises:
        ValueError: if the distance is unknown, or latents are not finite or differ in width.
    """
    _check_request(distance, ())
    query, gallery = np.asarray(query), np.asarray(gallery)
    _check_latents(query, gallery)
    return DISTANCES[distance](gallery)(query, k)


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
