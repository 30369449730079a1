"""Coarse-to-fine search: a pool by codes, ranked by vectors."""

import jaxtyping
import numpy as np
import pytest

from jaxret import search

RNG = np.random.default_rng(0)
N, QUERIES = 200, 7
CODES = RNG.integers(0, 4, (N, 1), dtype=np.uint32)  # two bits: large buckets
QUERY_CODES = RNG.integers(0, 4, (QUERIES, 1), dtype=np.uint32)
ROWS = RNG.integers(-3, 4, (N, 3)).astype(np.float32)  # with equal distances
QUERY = RNG.integers(-3, 4, (QUERIES, 3)).astype(np.float32)
SQUARED = ((QUERY[:, None] - ROWS[None]) ** 2).sum(axis=2)
BITS = np.bitwise_count(QUERY_CODES[:, None, 0] ^ CODES[None, :, 0])


def expected(i, k, radius):
    """Rows and distances of one query by their definition."""
    reach = max(radius, np.sort(BITS[i])[k - 1])
    pool = np.flatnonzero(BITS[i] <= reach)
    pool = pool[np.argsort(SQUARED[i, pool], kind="stable")][:k]
    return pool, SQUARED[i, pool]


@pytest.mark.parametrize(("k", "radius"), [(1, 0), (10, 0), (90, 0), (10, 1), (N, 0), (9, 2**40)])
def test_a_pool_is_the_nearest_codes_and_its_order_that_of_the_vectors(k, radius):
    found = search.coarse_to_fine_topk(QUERY_CODES, QUERY, CODES, ROWS, k, radius=radius)
    for i in range(QUERIES):
        rows, distances = expected(i, k, radius)
        np.testing.assert_array_equal(found.indices[i], rows)
        np.testing.assert_array_equal(found.distances[i], distances)


def test_within_one_bucket_it_is_exact_euclidean_search():
    one = np.zeros_like(CODES)
    found = search.coarse_to_fine_topk(one[:QUERIES], QUERY, search.lay_out(one), ROWS, 9)
    exact = search.euclidean_topk(QUERY, ROWS, 9)
    np.testing.assert_array_equal(found.indices, exact.indices)
    np.testing.assert_allclose(found.distances, exact.distances)


def test_past_the_end_of_the_gallery_are_no_rows():
    found = search.coarse_to_fine_topk(QUERY_CODES, QUERY, CODES[:3], ROWS[:3], 5)
    assert (found.indices[:, 3:] == -1).all()
    assert np.isinf(found.distances[:, 3:]).all()
    assert (np.sort(found.indices[:, :3], axis=1) == [0, 1, 2]).all()
    empty = search.coarse_to_fine_topk(QUERY_CODES, QUERY, CODES[:0], ROWS[:0], 5)
    assert (empty.indices == -1).all()
    beyond = search.coarse_to_fine_topk(QUERY_CODES, QUERY, CODES[:3], ROWS[:3], 2**64)
    np.testing.assert_array_equal(beyond.indices[:, :5], found.indices)


def test_vectors_that_do_not_belong_to_the_codes_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as a user has it
    with pytest.raises(ValueError, match="gallery must have as many vectors as codes, 200, got 9"):
        search.coarse_to_fine_topk(QUERY_CODES, QUERY, CODES, ROWS[:9], 5)
    with pytest.raises(ValueError, match="vectors of one length, got 2 and 3 features"):
        search.coarse_to_fine_topk(QUERY_CODES, QUERY[:, :2].copy(), CODES, ROWS, 5)
