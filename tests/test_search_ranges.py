"""Everything within a radius, and galleries that are read while they are searched."""

import numpy as np
import pytest
from marks import slow

from jaxret import search
from jaxret.search import stream

RNG = np.random.default_rng


def few_codes(seed, n, values=200):
    """Codes that differ in few bits, many of them equal."""
    return RNG(seed).integers(0, values, size=(n, 2), dtype=np.uint32)


def few_vectors(seed, n):
    return RNG(seed).integers(0, 4, size=(n, 3)).astype(np.float32)


def hamming_distances(query, gallery):
    return np.bitwise_count(query[:, None] ^ gallery[None]).sum(axis=2).astype(np.int64)


def euclidean_distances(query, gallery):
    return np.sum((query[:, None] - gallery[None]) ** 2, axis=2)


CASES = {
    "codes": (few_codes, hamming_distances, search.hamming_range),
    "vectors": (few_vectors, euclidean_distances, search.euclidean_range),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vectors", *slow("codes")])
def test_a_range_holds_all_rows_within_it_in_order(kind):
    make, distances_of, ranged = CASES[kind]
    query, gallery = make(0, 4), make(1, 600)
    truth = distances_of(query, gallery)
    mask = RNG(0).random((4, 600)) < 0.5
    for radius in (0, 2):
        for own in (None, mask):
            found = ranged(query, gallery, radius, mask=own)
            assert found.complete.all()
            for i, row in enumerate(truth):
                within = np.flatnonzero((row <= radius) & (True if own is None else own[i]))
                expected = within[np.argsort(row[within], kind="stable")]
                part = slice(*found.starts[i : i + 2])
                np.testing.assert_array_equal(found.indices[part], expected)
                np.testing.assert_array_equal(found.distances[part], row[expected])


@pytest.mark.parametrize("kind", CASES)
def test_a_limit_keeps_the_nearest_and_says_that_there_were_more(kind):
    make, distances_of, ranged = CASES[kind]
    query, gallery = make(0, 4), make(1, 600)
    sizes = np.sum(distances_of(query, gallery) <= 2, axis=1)
    limit = int(np.sort(sizes)[1])
    whole, cut = (ranged(query, gallery, 2, limit=most) for most in (None, limit))
    np.testing.assert_array_equal(np.diff(cut.starts), np.minimum(sizes, limit))
    np.testing.assert_array_equal(cut.complete, sizes <= limit)
    assert not cut.complete.all()
    assert cut.complete.any()
    for i in range(4):
        first = whole.starts[i]
        expected = whole.indices[first : first + min(sizes[i], limit)]
        np.testing.assert_array_equal(cut.indices[slice(*cut.starts[i : i + 2])], expected)


def test_ranges_refuse_a_negative_radius_and_a_limit_of_none():
    gallery = few_codes(0, 5)
    with pytest.raises(ValueError, match="radius must be at least 0, got -1"):
        search.hamming_range(gallery, gallery, -1)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        search.hamming_range(gallery, gallery, 1, limit=0)
    assert len(search.hamming_range(gallery[:0], gallery, 1).complete) == 0
    assert search.hamming_range(gallery, gallery[:0], 1).starts.tolist() == [0] * 6


@pytest.mark.parametrize("kind", ["codes", "vectors"])
@pytest.mark.soak
def test_streaming_over_stretches_of_rows_equals_search_in_memory(kind, monkeypatch):
    make, _, _ = CASES[kind]
    topk = search.hamming_topk if kind == "codes" else search.euclidean_topk
    query, gallery = make(0, 3), make(1, 70_000)
    mask = RNG(0).random((3, 70_000)) < 0.5
    stretches = []
    merge = stream.merge
    monkeypatch.setattr(stream, "merge", lambda *a: stretches.append(a[2]) or merge(*a))
    for own in (None, mask):
        found = search.streamed_topk(query, gallery, 10, mask=own, memory=1)
        whole = topk(query, gallery, 10, mask=own)
        np.testing.assert_array_equal(found.indices, whole.indices)
        np.testing.assert_array_equal(found.distances, whole.distances)
    assert len(stretches) > 4
    tiny = search.streamed_topk(query, gallery[:5], 10)
    np.testing.assert_array_equal(tiny.indices, topk(query, gallery[:5], 10).indices)


def test_rows_beyond_two_to_the_31_are_numbered_when_stretches_are_merged():
    first = search.Neighbors(np.array([[1, 4]], np.int32), np.array([[7, 0]], np.int32))
    second = search.Neighbors(np.array([[1, 3]], np.int32), np.array([[2, 5]], np.int32))
    best = stream.merge(None, first, 2**31 - 8, 3)
    best = stream.merge(best, second, 2**31, 3)
    assert best.distances.tolist() == [[1, 1, 3]]
    assert best.indices.tolist() == [[2**31 - 1, 2**31 + 2, 2**31 + 5]]
    assert best.indices.dtype == np.int64
