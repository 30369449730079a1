"""Many queries for many nearest vectors: a sample tells how far to look, and loses nothing."""

import jax.numpy as jnp
import numpy as np
import pytest
from test_search_euclidean import assert_nearest, distances_of, galleries

from jaxret import search
from jaxret.search import sampled

QUERIES, K = 300, 300


@pytest.fixture
def samples(monkeypatch):
    """A list of the candidates that samples give searches."""
    drawn = []

    class Noted(sampled.Sampled):
        def candidates(self, query):
            found = super().candidates(query)
            drawn.append(found)
            return found

    monkeypatch.setattr(sampled, "Sampled", Noted)
    return drawn


@pytest.mark.parametrize("name", galleries())
@pytest.mark.parametrize("masked", [False, True])
def test_neighbors_are_exact(name, masked, samples):
    gallery = galleries()[name].astype(np.float32)
    query = gallery[:: len(gallery) // QUERIES][:QUERIES]
    mask = np.random.default_rng(1).random(len(gallery)) < 0.7 if masked else None
    found = search.euclidean_topk(query, gallery, K, mask=mask)
    assert samples
    truth = distances_of(query, gallery)
    assert_nearest(found, truth, K, mask)
    if "ties" in name or "same" in name:
        truth = truth if mask is None else np.where(mask, truth, np.inf)
        order = np.argsort(truth, axis=1, kind="stable")[:, :K]
        np.testing.assert_array_equal(found.indices, order)


def test_thresholds_hardly_ever_fail(samples):
    gallery = np.random.default_rng(0).normal(size=(30_000, 8)).astype(np.float32)
    search.euclidean_topk(gallery[:QUERIES], gallery, K)
    assert np.concatenate([found.found for found in samples]).mean() > 0.99


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_rows_does_not_matter(order, samples):
    rng = np.random.default_rng(2)
    gallery = rng.normal(size=(9000, 4)).astype(np.float32)
    gallery = gallery[np.argsort(np.square(gallery).sum(axis=1))][::order]
    query = 1e-3 * rng.normal(size=(QUERIES, 4)).astype(np.float32)
    found = search.euclidean_topk(query, gallery, K)
    assert samples
    assert_nearest(found, distances_of(query, gallery), K)


@pytest.mark.parametrize("certain", [-5.0, 0.0])
def test_queries_that_a_threshold_fails_are_searched_in_another_way(certain, samples, monkeypatch):
    monkeypatch.setattr(sampled, "CERTAIN", certain)
    gallery = np.random.default_rng(3).normal(size=(9000, 4)).astype(np.float32)
    found = search.euclidean_topk(gallery[:QUERIES], gallery, K)
    assert not samples[0].found.all()
    assert_nearest(found, distances_of(gallery[:QUERIES], gallery), K)


def test_little_memory_and_a_mask_for_each_query_need_no_sample(samples):
    gallery = np.random.default_rng(4).normal(size=(9000, 4)).astype(np.float32)
    query = gallery[:QUERIES]
    truth = distances_of(query, gallery)
    assert_nearest(search.euclidean_topk(query, gallery, K, memory=2**16), truth, K)
    mask = np.random.default_rng(5).random(truth.shape) < 0.9
    assert_nearest(search.euclidean_topk(query, gallery, K, mask=mask), truth, K, mask)
    few = np.arange(len(gallery)) < 8 * K
    assert_nearest(search.euclidean_topk(query, gallery, K, mask=few), truth, K, few)
    assert not samples


def test_a_tile_of_queries_stays_within_memory_by_its_own_count(samples, monkeypatch):
    gallery = np.random.default_rng(7).normal(size=(9000, 4)).astype(np.float32)
    at_once = []

    class Counted(sampled.Sampled):
        def candidates(self, query):
            at_once.append(self.bytes + len(query) * self.bytes_of_query)
            return super().candidates(query)

    monkeypatch.setattr(sampled, "Sampled", Counted)
    layout = search.lay_out(gallery)
    for memory in (2**25, 2**26):
        found = layout.topk(gallery[:2000], K, memory=memory)
        assert_nearest(found, distances_of(gallery[:2000], gallery), K)
        assert 0 < max(at_once) <= memory
        at_once.clear()


def test_rows_of_half_precision_and_more_queries_than_a_tile(samples, monkeypatch):
    monkeypatch.setattr(sampled, "TILE", 128)
    gallery = jnp.asarray(np.random.default_rng(6).normal(size=(9000, 4)), jnp.bfloat16)
    rows = np.asarray(gallery).astype(np.float32)
    found = search.euclidean_topk(rows[:QUERIES], gallery, K)
    assert len(samples) > 2
    assert_nearest(found, distances_of(rows[:QUERIES], rows), K)
