"""From an encoder and a protocol to named numbers: encode, rank, score.

Every number's name says what it is: `map@1000/retrieved` is mean average precision over the first
1000 results, divided by the relevant ones among them. Work goes in batches of images and tiles of
queries, so memory stays bounded, and neither size changes a result.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Integer, UInt, UInt8, UInt32

from jaxret import codes, divergences, metrics, search

ALWAYS_AT = (1, 1000)
RADIUS = 2


def evaluate(
    encode: Callable,
    params,
    protocol,
    *,
    overlap: int,
    distance: str = "euclidean",
    ks: Sequence[int] = (1, 2, 1000),
    batch_size: int = 1000,
    pairs: int = 2**22,
) -> dict[str, float]:
    """Encode a protocol's gallery and queries, and score the retrieval.

    encode(params, u8[n h w c]) -> f32[n b] sees batches of one size only; jit it where it can be.
    protocol has the fields name, train, gallery, query and known_overlap. overlap is the number of
    query images that are in the gallery, counted by content; more than the protocol knows of are
    an error, because each of them finds itself. What is returned: see `retrieval_scores`.
    """
    _check_request(distance, ks)
    if overlap > protocol.known_overlap:
        raise ValueError(
            f"{protocol.name}: at most {protocol.known_overlap} query images may be in the "
            f"gallery, found {overlap}"
        )
    gallery, query = (
        encode_in_batches(encode, params, images.images, batch_size)
        for images in (protocol.gallery, protocol.query)
    )
    return retrieval_scores(
        query,
        gallery,
        protocol.query.labels,
        protocol.gallery.labels,
        distance=distance,
        ks=ks,
        pairs=pairs,
    )


def describe(protocol, overlap: int) -> dict[str, str | int]:
    """What a score must be read with: the protocol's name, its sizes, its overlap.

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
    encode: Callable, params, images: UInt8[np.ndarray, "n h w c"], batch_size: int = 1000
) -> Float[Array, "n b"]:
    """Encode many images, the same number at each call: the last batch is filled up."""
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
    query: Float[Array | np.ndarray, "q b"],
    gallery: Float[Array | np.ndarray, "n b"],
    query_labels: Integer[np.ndarray, " q"],
    gallery_labels: Integer[np.ndarray, " n"],
    *,
    distance: str = "euclidean",
    ks: Sequence[int] = (1, 2, 1000),
    pairs: int = 2**22,
) -> dict[str, float]:
    """Means over queries, by name; a result is relevant when its label equals the query's.

    For each K asked, and for 1 and 1000: `map@K/retrieved`, `map@K/min` and `precision@K`. A
    gallery smaller than K is ranked whole: K counts as its size and keeps its name.

    distance is `euclidean`, `hamming` between the signs, or one of `divergences.SIDES`.

    By `hamming` distance the whole gallery is ranked, ties by row, and there is more:
    `map@all/all`; beside it, and beside each `map@K/retrieved`, the same over the orders of ties as
    `/expected`, `/lowest` and `/highest`; `precision@radius2`, and `empty@radius2`, the share of
    queries with nothing within 2 bits, whose precision counts as 0.

    pairs bounds the pairs of query and result that are held at once, at about 100 bytes each.
    """
    _check_request(distance, ks)
    query, gallery = np.asarray(query), np.asarray(gallery)
    _check_latents(query, gallery, query_labels, gallery_labels)
    ks = tuple(sorted({*ks, *ALWAYS_AT}))
    # Whatever the labels are, from here on they are 0, 1, 2, ...
    classes, labels = np.unique(np.concatenate([query_labels, gallery_labels]), return_inverse=True)
    query_labels, gallery_labels = np.split(labels.astype(np.int32), [len(query)])
    score, width = DISTANCES[distance](gallery, gallery_labels, ks)
    num_relevant = np.bincount(gallery_labels, minlength=len(classes))[query_labels]
    tile = max(1, min(pairs // width, len(query)))
    scores = _batched(score, tile, query, query_labels, num_relevant.astype(np.int32))
    return {name: float(np.mean(values, dtype=np.float64)) for name, values in scores.items()}


def _check_latents(query, gallery, query_labels, gallery_labels):
    for name, rows, labels in (
        ("query", query, query_labels),
        ("gallery", gallery, gallery_labels),
    ):
        if len(rows) == 0:
            raise ValueError(f"the {name} must hold at least 1 image, got 0")
        if len(rows) != len(labels):
            raise ValueError(
                f"the {name} needs one label per image, got {len(labels)} labels for "
                f"{len(rows)} images"
            )
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"latents must be finite, row {int(np.argmin(finite))} of the {name} is not"
            )
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query and gallery must be as long, got {query.shape[1]} and {gallery.shape[1]}"
        )


def _check_request(distance, ks):
    if distance not in DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, got {distance!r}")
    if min(ks, default=1) < 1:
        raise ValueError(f"each K must be at least 1, got {tuple(ks)}")


def _batched(function: Callable, batch_size: int, *arrays):
    """Apply a function to the rows of arrays, a batch at a time, each batch of one size.

    The last batch repeats its last row; what comes of that is cut off.
    """
    if batch_size < 1:
        raise ValueError(f"a batch must hold at least 1 row, got {batch_size}")
    rows = len(arrays[0])
    size = min(batch_size, rows)
    results = []
    for start in range(0, rows, size):
        index = np.minimum(np.arange(start, start + size), rows - 1)
        result = function(*(jnp.asarray(array[index]) for array in arrays))
        results.append(jax.tree.map(lambda a, n=rows - start: np.asarray(a)[:n], result))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


# A distance prepares a gallery and returns a function from a tile of queries to named scores, one
# per query, with the number of results that it holds for each query.


def _euclidean(gallery, labels, ks):
    gallery, labels = jnp.asarray(gallery), jnp.asarray(labels)
    k = min(max(ks), len(gallery))

    def score(query, query_labels, num_relevant):
        neighbors = search.euclidean_topk(query, gallery, k)
        relevant = metrics.same_label(query_labels, labels[neighbors.indices])
        return _scores_at(relevant, num_relevant, ks)

    return score, k


def _hamming(gallery, labels, ks):
    bits = gallery.shape[1]
    gallery = jnp.asarray(_batched(_pack, 1000, gallery))

    def score(query, query_labels, num_relevant):
        distances = np.asarray(_hamming_distances(_pack(query), gallery, bits))
        # On the host: NumPy's stable sort of small integers is a counting sort, 20 times faster
        # than XLA's, and its ties stay in the order of rows.
        order = np.argsort(distances, axis=1, kind="stable")
        relevant = labels[order] == np.asarray(query_labels)[:, None]
        ranked = np.sort(distances, axis=1, kind="stable")
        relevant, ranked = jnp.asarray(relevant), jnp.asarray(ranked)
        return _scores_at(relevant, num_relevant, ks) | _scores_with_ties(
            ranked, relevant, num_relevant, ks, bits
        )

    return score, len(labels)


def _inner_product(gallery, labels, ks, *, sides):
    of_query, of_gallery = sides
    gallery, labels = _side(of_gallery, jnp.asarray(gallery)), jnp.asarray(labels)
    k = min(max(ks), len(gallery))

    def score(query, query_labels, num_relevant):
        rows = _least_products(_side(of_query, query), gallery, k).indices
        return _scores_at(metrics.same_label(query_labels, labels[rows]), num_relevant, ks)

    return score, len(gallery)


DISTANCES: dict[str, Callable] = {"euclidean": _euclidean, "hamming": _hamming} | {
    name: partial(_inner_product, sides=sides) for name, sides in divergences.SIDES.items()
}


def nearest(
    query: Float[Array, "q b"], gallery: Float[Array, "n b"], k: int, distance: str
) -> search.Neighbors:
    """The k nearest rows by any of the distances that scores are given for."""
    _check_request(distance, ())
    if distance == "hamming":
        return search.hamming_topk(_pack(query), _pack(gallery), k)
    if distance == "euclidean":
        return search.euclidean_topk(query, gallery, k)
    of_query, of_gallery = divergences.SIDES[distance]
    return _least_products(_side(of_query, query), _side(of_gallery, gallery), k)


_side = jax.jit(lambda side, x: side(x), static_argnums=0)


@partial(jax.jit, static_argnames="k")
def _least_products(
    query: Float[Array, "q d"], gallery: Float[Array, "n d"], k: int
) -> search.Neighbors:
    products = jnp.dot(query, gallery.T, precision=lax.Precision.HIGHEST)
    return search.Neighbors(*(lambda least, row: (-least, row))(*lax.top_k(-products, k)))


_pack = jax.jit(codes.pack)


@partial(jax.jit, static_argnames="bits")
def _hamming_distances(
    query: UInt32[Array, "q w"], gallery: UInt32[Array, "n w"], bits: int
) -> UInt[Array, "q n"]:
    differing = lax.population_count(query[:, None] ^ gallery[None])
    return jnp.sum(differing, axis=2, dtype=jnp.uint8 if bits < 256 else jnp.uint16)


@partial(jax.jit, static_argnames="ks")
def _scores_at(
    relevant: Bool[Array, "q k"], num_relevant: Int[Array, " q"], ks: tuple[int, ...]
) -> dict[str, Float[Array, " q"]]:
    scores = {}
    for k in ks:
        first = relevant[:, :k]
        for name in ("retrieved", "min"):
            divisor = metrics.ap_divisor(first, num_relevant, name)
            scores[f"map@{k}/{name}"] = metrics.average_precision(first, divisor)
        scores[f"precision@{k}"] = metrics.precision_at(first, (first.shape[1],))[:, 0]
    return scores


@partial(jax.jit, static_argnames=("ks", "bits"))
def _scores_with_ties(
    distances: UInt[Array, "q n"],
    relevant: Bool[Array, "q n"],
    num_relevant: Int[Array, " q"],
    ks: tuple[int, ...],
    bits: int,
) -> dict[str, Float[Array, " q"]]:
    counts = metrics.counts_by_distance(distances, relevant, bits + 1)
    tied = {"map@all/all": metrics.tie_aware_average_precision(*counts, "all")}
    for k in ks:
        cut = min(k, relevant.shape[1])
        tied[f"map@{k}/retrieved"] = metrics.tie_aware_average_precision(*counts, "retrieved", cut)
    scores = {
        f"{name}/{bound}": values
        for name, tie_aware in tied.items()
        for bound, values in tie_aware._asdict().items()
    }
    scores["map@all/all"] = metrics.average_precision(relevant, num_relevant)
    precision, empty = metrics.precision_within_radius(*counts, min(RADIUS, bits))
    scores[f"precision@radius{RADIUS}"] = precision
    scores[f"empty@radius{RADIUS}"] = empty
    return scores
