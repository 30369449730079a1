from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import reference
from marks import soak

from jaxret import codes, evaluate, metrics, search

SOAK = pytest.mark.soak

# Most tests share these sizes, so that they share compiled code.
QUERIES, ROWS, BITS = 7, 50, 6


class Images(NamedTuple):
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple = ()


class Split(NamedTuple):
    name: str
    train: Images
    gallery: Images
    query: Images
    known_overlap: int = 0


def random_images(seed, n, classes=3):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)
    return Images(images, rng.integers(0, classes, n).astype(np.int32))


def random_split(n=ROWS, q=QUERIES):
    return Split("random", random_images(0, n), random_images(0, n), random_images(1, q))


def projection(bits=BITS):
    # Whole numbers below 2^24: exact in float32, so no batch size can change a latent.
    return jnp.array(np.random.default_rng(2).integers(-3, 4, (16, bits)), jnp.float32)


@jax.jit
def project(params, images):
    return (images.reshape(len(images), -1).astype(jnp.float32) - 128) @ params


@jax.jit
def project_within_1(params, images):
    """Small latents: logarithms of variances may not be large."""
    return project(params, images) / 10_000


def squared_euclidean(query, gallery):
    difference = query.astype(np.float64)[:, None] - gallery.astype(np.float64)[None]
    return np.sum(difference**2, axis=2)


def hamming(query, gallery):
    return np.sum((query >= 0)[:, None] != (gallery >= 0)[None], axis=2)


LATENTS, LABELS = np.ones((ROWS, BITS), np.float32), np.zeros(ROWS, np.int32)

TWINS = {"euclidean": squared_euclidean, "hamming": hamming}


def slow_scores(split, latents, distance, ks):
    """Every query's whole list by a stable sort, then each score by its definition."""
    query, gallery = (np.asarray(latents(s.images)) for s in (split.query, split.gallery))
    orders = np.argsort(TWINS[distance](query, gallery), axis=1, kind="stable")
    relevant = (split.gallery.labels[orders] == split.query.labels[:, None]).tolist()

    def mean_ap(k, divisor):
        return np.mean(
            [
                reference.average_precision(
                    row[:k], reference.ap_divisor(row[:k], sum(row), divisor)
                )
                for row in relevant
            ]
        )

    scores = {"map@all/all": mean_ap(None, "all")}
    for k in (k for k in ks if k <= len(relevant[0])):
        scores[f"map@{k}/retrieved"] = mean_ap(k, "retrieved")
        scores[f"map@{k}/min"] = mean_ap(k, "min")
        scores[f"precision@{k}"] = np.mean([np.mean(row[:k]) for row in relevant])
    return scores


@pytest.mark.parametrize(
    ("distance", "bits", "q", "n"),
    [
        ("euclidean", BITS, QUERIES, ROWS),
        ("euclidean", 1, 1, 1),
        pytest.param("hamming", BITS, QUERIES, ROWS, marks=SOAK),
        ("hamming", 1, 1, 1),
        pytest.param("hamming", 300, 3, 20, marks=SOAK),
    ],
)
def test_every_score_equals_its_twin(distance, bits, q, n):
    split, params, ks = random_split(n, q), projection(bits), (1, 2, 10, 1000)
    got = evaluate.evaluate(project, params, split, overlap=0, distance=distance, ks=ks)
    expected = slow_scores(split, lambda images: project(params, images), distance, ks)
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("distance", ["euclidean", pytest.param("hamming", marks=SOAK)])
@pytest.mark.parametrize(("batch_size", "pairs"), [(1, 1), (8, 200)])
def test_scores_do_not_depend_on_the_size_of_batches_and_tiles(distance, batch_size, pairs):
    def scores(**sizes):
        return evaluate.evaluate(
            project, projection(), random_split(), overlap=0, distance=distance, **sizes
        )

    assert scores(batch_size=batch_size, pairs=pairs) == pytest.approx(scores(), rel=1e-6)


def test_a_tile_holds_no_more_pairs_than_allowed(monkeypatch):
    tiles = []

    def record(gallery):
        def topk(query, k):
            tiles.append(query.shape)
            return search.euclidean_topk(query, gallery, k)

        return topk

    monkeypatch.setitem(evaluate.DISTANCES, "record", record)
    latents, labels = np.ones((50, 2), np.float32), np.zeros(50, np.int32)
    scores = evaluate.retrieval_scores(
        latents[:7], latents, labels[:7], labels, distance="record", pairs=160
    )
    assert tiles == [(3, 2)] * 3
    assert scores["map@all/all"] == 1


def test_the_encoder_sees_batches_of_one_size():
    seen = set()

    def encode(params, images):
        seen.add(images.shape)
        return project(params, images)

    got = evaluate.encode_in_batches(encode, projection(4), random_images(0, 23).images, 10)
    assert seen == {(10, 4, 4, 1)}
    np.testing.assert_array_equal(got, project(projection(4), random_images(0, 23).images))


@pytest.mark.parametrize(
    "distance", ["euclidean", *soak(*sorted(set(evaluate.DISTANCES) - {"euclidean"}))]
)
def test_a_k_larger_than_the_gallery_is_absent_and_the_whole_ranking_stands_there(distance):
    got = evaluate.evaluate(
        project_within_1, projection(), random_split(), distance=distance, ks=(ROWS, ROWS + 1)
    )
    ks = {int(name.split("@")[1]) for name in got if name.startswith("precision@") and
          name.split("@")[1].isdigit()}  # fmt: skip
    assert ks == {1, 10, ROWS}
    assert {"map@all/all", f"map@{ROWS}/min"} <= got.keys()
    assert got["map@all/all"] == pytest.approx(got[f"map@{ROWS}/retrieved"], rel=1e-6)
    assert not any("1000" in name or str(ROWS + 1) in name for name in got)


@pytest.mark.parametrize("distance", ["euclidean", "hamming"])
def test_codes_that_are_the_labels_retrieve_perfectly(distance):
    labels = np.arange(ROWS, dtype=np.int32) % 5
    latents = (np.eye(BITS, dtype=np.float32) * 2 - 1)[labels]
    got = evaluate.retrieval_scores(
        latents[:QUERIES], latents, labels[:QUERIES], labels, distance=distance, ks=(ROWS,)
    )
    assert {value for name, value in got.items() if name.startswith("map")} == {1.0}
    assert got[f"precision@{ROWS}"] == pytest.approx(1 / 5)


def test_hamming_scores_depend_on_signs_alone():
    def signs(params, images):
        return jnp.where(project(params, images) >= 0, 1.0, -1.0)

    plain, scaled = (
        evaluate.evaluate(encode, projection(), random_split(), overlap=0, distance="hamming")
        for encode in (project, signs)
    )
    assert plain == scaled


@pytest.mark.slow
@pytest.mark.parametrize(("k", "name"), [(2, "map@2/retrieved"), (ROWS, "map@all/all")])
def test_the_whole_ranking_is_the_one_that_search_returns(k, name):
    split, params = random_split(), projection()
    query, gallery = (codes.pack(project(params, s.images)) for s in (split.query, split.gallery))
    neighbors = search.hamming_topk(query, gallery, k)
    relevant = metrics.same_label(
        jnp.array(split.query.labels), jnp.array(split.gallery.labels)[neighbors.indices]
    )
    got = evaluate.evaluate(project, params, split, overlap=0, distance="hamming")
    expected = metrics.mean_average_precision(relevant, jnp.full(QUERIES, ROWS), "retrieved")
    assert got[name] == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.soak
def test_a_code_that_differs_in_300_bits_is_further_than_one_that_differs_in_100():
    query, gallery = np.ones((3, 300), np.float32), -np.ones((20, 300), np.float32)
    gallery[1:, 100:] = 1
    labels = (np.arange(20) == 0).astype(np.int32)
    got = evaluate.retrieval_scores(query, gallery, labels[1:4], labels, distance="hamming")
    assert got["map@1/retrieved"] == 1


def shuffled(split, seed):
    order = np.random.default_rng(seed).permutation(len(split.gallery.images))
    gallery = Images(split.gallery.images[order], split.gallery.labels[order])
    return split._replace(gallery=gallery)


def test_shuffling_the_gallery_moves_map_but_neither_its_expected_value_nor_its_bounds():
    runs = [
        evaluate.evaluate(
            project, projection(), shuffled(random_split(), seed), overlap=0, distance="hamming"
        )
        for seed in range(3)
    ]
    for name in ("map@all/all", "map@2/retrieved"):
        for got in runs:
            assert got[f"{name}/lowest"] - 1e-6 <= got[name] <= got[f"{name}/highest"] + 1e-6
        for bound in ("expected", "lowest", "highest"):
            first, *others = (got[f"{name}/{bound}"] for got in runs)
            assert others == pytest.approx([first] * 2, rel=1e-6)
    assert len({got["map@all/all"] for got in runs}) == 3


def test_labels_may_be_any_whole_numbers():
    split = random_split()
    renamed = [
        images._replace(labels=np.array([-7, 10**9, 3], np.int32)[images.labels])
        for images in (split.gallery, split.query)
    ]
    other = split._replace(gallery=renamed[0], query=renamed[1])
    one, same = (
        evaluate.evaluate(project, projection(), s, overlap=0, distance="hamming")
        for s in (split, other)
    )
    assert one == same


def test_a_label_that_the_gallery_lacks_scores_0():
    got = evaluate.retrieval_scores(
        LATENTS[:QUERIES], LATENTS, LABELS[:QUERIES] + 1, LABELS, distance="hamming"
    )
    assert got.pop("queries_without_relevant") == QUERIES
    assert {value for name, value in got.items() if name != "empty@radius2"} == {0}


def test_when_every_code_is_equal_precision_is_the_share_of_relevant_images():
    labels = (np.arange(ROWS) >= 40).astype(np.int32)
    got = evaluate.retrieval_scores(
        LATENTS[:QUERIES], LATENTS, labels[:QUERIES], labels, distance="hamming"
    )
    assert got["precision@radius2"] == pytest.approx(40 / 50)
    assert got["empty@radius2"] == 0
    assert got["map@1/retrieved/expected"] == pytest.approx(40 / 50)
    assert got["map@1/retrieved"] == 1


def test_a_query_with_nothing_within_two_bits_counts_as_0_and_is_reported():
    query = np.copy(LATENTS[:QUERIES])
    query[0, :2] = -1  # two bits away
    query[1, :3] = -1  # three
    got = evaluate.retrieval_scores(query, LATENTS, LABELS[:QUERIES], LABELS, distance="hamming")
    assert got["precision@radius2"] == pytest.approx(6 / 7)
    assert got["empty@radius2"] == pytest.approx(1 / 7)


def test_a_query_in_the_gallery_is_refused_unless_the_protocol_knows_of_it():
    split = random_split()
    leaky = split._replace(query=Images(split.gallery.images[:2], split.gallery.labels[:2]))
    for overlap in (2, None):  # counted by the caller, or by evaluate
        with pytest.raises(
            ValueError, match="at most 0 query images may be in the gallery, found 2"
        ):
            evaluate.evaluate(project, projection(4), leaky, overlap=overlap)
    known = leaky._replace(known_overlap=2)
    for split, options in ((known, {}), (known, {"overlap": 2}), (leaky, {"allow_overlap": True})):
        scores = evaluate.evaluate(project, projection(4), split, **options)
        assert scores["map@1/retrieved"] == 1


def test_images_in_both_are_counted_by_content_and_by_query():
    images = random_images(0, 5).images
    assert evaluate.images_in_both(images, images[[0, 0, 3]]) == 3
    assert evaluate.images_in_both(images, 255 - images) == 0
    assert evaluate.images_in_both(images, images[:, :2]) == 0


# Labels.


def test_a_query_and_an_image_without_a_label_are_relevant_to_nothing():
    labels = np.where(np.arange(ROWS) % 2, -1, 0)
    query_labels = np.array([0, -1, 0, 0, 5, 0, 0])
    got = evaluate.retrieval_scores(
        LATENTS[:QUERIES], LATENTS, query_labels, labels, ks=(ROWS,), distance="hamming"
    )
    assert got["queries_without_relevant"] == 2  # the one without a label, and label 5
    assert got[f"precision@{ROWS}"] == pytest.approx(5 / 7 / 2)


@pytest.mark.parametrize("distance", ["euclidean", pytest.param("hamming", marks=SOAK)])
def test_images_with_several_labels_are_relevant_where_they_share_one(distance):
    rng = np.random.default_rng(0)
    query, gallery = (rng.normal(size=(n, 8)).astype(np.float32) for n in (QUERIES, ROWS))
    tags, others = rng.random((QUERIES, 4)) < 0.3, rng.random((ROWS, 4)) < 0.3
    tags[0] = False
    got = evaluate.retrieval_scores(query, gallery, tags, others, distance=distance, ks=(5,))
    orders = np.argsort(TWINS[distance](query, gallery), axis=1, kind="stable")
    relevant = [[bool((tags[i] & others[j]).any()) for j in row] for i, row in enumerate(orders)]
    assert got["precision@5"] == pytest.approx(np.mean([np.mean(row[:5]) for row in relevant]))
    expected = [reference.average_precision(row, sum(row)) for row in relevant]
    assert got["map@all/all"] == pytest.approx(np.mean(expected), rel=1e-6)
    assert got["queries_without_relevant"] == sum(not any(row) for row in relevant) >= 1
    same = evaluate.retrieval_scores(
        query, gallery, tags.astype(int), others.astype(int), distance=distance, ks=(5,)
    )
    assert same == got


def test_one_class_per_image_scores_as_a_matrix_as_it_does_as_a_number():
    split, classes = random_split(), np.eye(3, dtype=bool)
    several = [part._replace(labels=classes[part.labels]) for part in (split.gallery, split.query)]
    other = split._replace(gallery=several[0], query=several[1])
    one, same = (
        evaluate.evaluate(project, projection(), s, overlap=0, distance="hamming")
        for s in (split, other)
    )
    assert one == same


def test_the_description_names_the_protocol_its_sizes_and_its_overlap():
    assert evaluate.describe(random_split(n=50, q=7), 0) == {
        "name": "random",
        "train": 50,
        "gallery": 50,
        "query": 7,
        "overlap": 0,
    }


@pytest.fixture
def untyped():
    """Annotations unenforced, as a user has them: only the rules that are written out speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"distance": "manhattan"},
            "distance must be one of euclidean, .*, got 'manhattan'",
        ),
        ({"ks": (0, 2)}, "each K must be at least 1, got 0"),
        ({"query": LATENTS[:0]}, "query must hold at least 1 image, got 0"),
        ({"gallery": LATENTS[:0]}, "gallery must hold at least 1 image, got 0"),
        ({"gallery_labels": LABELS[:3]}, "one label per image, got 3 labels for 50 images"),
        ({"gallery_labels": LABELS - 1}, "scores need labels, and no image of the gallery has one"),
        ({"query_labels": LABELS - 1}, "scores need labels, and no image of the query has one"),
        ({"query_labels": np.zeros((ROWS, 3), bool)}, "no image of the query has one"),
        ({"query_labels": LABELS * 0.5}, r"must be whole numbers \[n\] or bool \[n c\]"),
        ({"query_labels": np.ones((ROWS, 3), bool)}, "must have labels of one kind, got shapes"),
        ({"ks": (1.5,)}, "each K must be a whole number, got 1.5"),
        ({"query": (LATENTS > 0).astype("u1"), "distance": "hamming"}, "or bool, got uint8"),
        ({"query": LATENTS * np.nan}, "latents must be finite, row 0 of the query is not"),
        ({"gallery": LATENTS[:, :1]}, "query and gallery must be as long, got 6 and 1"),
    ],
)
def test_bad_input_is_refused_with_the_rule_and_the_value(change, message):
    arguments = {
        "query": LATENTS,
        "gallery": LATENTS,
        "query_labels": LABELS,
        "gallery_labels": LABELS,
    } | change
    with pytest.raises(ValueError, match=message):
        evaluate.retrieval_scores(**arguments)


@pytest.mark.parametrize(
    ("encode", "images", "batch_size", "message"),
    [
        (project, 0, 10, "at least 1 image to encode, got 0"),
        (project, 5, 0, "batch_size must be at least 1, got 0"),
        (lambda params, images: images, 5, 10, r"one row per image, got shape \(5, 4, 4, 1\)"),
        (lambda params, images: params, 5, 10, "one row per image, got shape"),
    ],
)
def test_an_encoding_that_cannot_be_is_refused(encode, images, batch_size, message):
    images = random_images(0, images).images
    with pytest.raises(ValueError, match=message):
        evaluate.encode_in_batches(encode, projection(), images, batch_size)
