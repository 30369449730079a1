"""Nearest vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from marks import slow, soak

from jaxret import search
from jaxret.search import euclidean

RNG = np.random.default_rng


def distances_of(query, gallery):
    """In float32 and in the order of the features, as they are defined."""
    total = np.zeros((len(query), len(gallery)), np.float32)
    for i in range(query.shape[1]):
        total += np.square(query[:, i, None] - gallery[None, :, i])
    return total


def assert_nearest(found, truth, k, mask=None):
    """Right up to the last bit of a distance, which depends on fused multiply-adds."""
    truth = truth if mask is None else np.where(mask, truth, np.inf)
    order = np.argsort(truth, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(truth, order, axis=1)
    best = np.pad(best, ((0, 0), (0, k - best.shape[1])), constant_values=np.inf)
    np.testing.assert_allclose(found.distances, best, rtol=2e-6)
    indices = np.asarray(found.indices)
    np.testing.assert_array_equal(indices < 0, np.isinf(best))
    own = np.take_along_axis(truth, np.maximum(indices, 0), axis=1)
    np.testing.assert_allclose(np.where(indices < 0, np.inf, own), found.distances, rtol=2e-6)
    for row in indices:
        assert len(set(row[row >= 0])) == np.sum(row >= 0)


def galleries(n=9000, d=16):
    """Data on which |x|^2 - 2 xy + |y|^2 alone goes wrong, and data on which it does not."""
    rng = RNG(0)
    normal = rng.normal(size=(n, d))
    return {
        "normal": normal,
        "far from the origin": normal + 1e5,
        "tiny distances": 100 + 1e-4 * normal,
        "two clusters far apart": normal * 1e-3 + np.where(np.arange(n) % 2, 1e4, -1e4)[:, None],
        "small integers, so many ties": rng.integers(0, 2, size=(n, d)),
        "all the same": np.ones((n, d)),
    }


# 10 follows the bounds of large groups, 100 and 1000 of smaller ones, 1600 takes all distances.
@pytest.mark.parametrize("k", [10, 100, 1000, 1600])
@pytest.mark.parametrize("masked", [True, *slow(False)])
def test_neighbors_are_exact_also_where_the_product_form_cancels(k, masked):
    for name, gallery in galleries().items():
        gallery = gallery.astype(np.float32)
        query = gallery[[5, 77, 8000]]
        mask = RNG(1).random((3, 9000)) < 0.2 if masked else None
        found = search.euclidean_topk(query, gallery, k, mask=mask)
        truth = distances_of(query, gallery)
        assert_nearest(found, truth, k, mask)
        if "ties" in name or "same" in name:  # whole numbers: equal to the last tie
            truth = truth if mask is None else np.where(mask, truth, np.inf)
            order = np.argsort(truth, axis=1, kind="stable")[:, :k]
            np.testing.assert_array_equal(found.indices, order)


def test_the_arrays_used_as_truth_here_equal_the_definition():
    query, gallery = RNG(0).normal(size=(2, 5)), RNG(1).normal(size=(20, 5))
    expected = reference.euclidean_distances(query, gallery)
    np.testing.assert_allclose(
        distances_of(query.astype("f4"), gallery.astype("f4")), expected, rtol=1e-5
    )


def test_what_bounds_cannot_certify_is_known_and_searched_exactly():
    """A gallery of equal rows: every group's bound is the same, so no choice can be certified."""
    same = search.lay_out(np.ones((9000, 16), np.float32))
    query = np.full((3, 16), 2.0, np.float32)
    *_, certified = euclidean._BOUNDED(query, None, *same, k=10, group=32)
    assert not certified.any()
    found = search.euclidean_topk(query, same, 10)
    np.testing.assert_array_equal(found.indices, np.tile(np.arange(10), (3, 1)))
    normal = search.lay_out(galleries()["normal"].astype(np.float32))
    *_, certified = euclidean._BOUNDED(query, None, *normal, k=10, group=32)
    assert certified.all()


@pytest.mark.slow
@pytest.mark.parametrize("k", [10, *soak(700)])
def test_one_query_finds_what_it_finds_among_many_to_the_last_bit(k):
    for name, gallery in galleries().items():
        layout, query = search.lay_out(gallery.astype(np.float32)), gallery[[5, 77]]
        query = (query + 0.01 * (name == "normal")).astype(np.float32)
        for mask in (None, RNG(1).random(9000) < 0.2):
            many = search.euclidean_topk(query, layout, k, mask=mask)
            one = search.euclidean_topk(query[:1], layout, k, mask=mask)
            np.testing.assert_array_equal(one.distances, many.distances[:1], err_msg=name)
            np.testing.assert_array_equal(one.indices, many.indices[:1], err_msg=name)


def test_the_bounds_of_one_query_certify_what_they_can_and_nothing_else():
    query = np.full((1, 16), 2.0, np.float32)
    for name, expected in (("normal", True), ("all the same", False)):
        layout = search.lay_out(galleries()[name].astype(np.float32))
        *_, certified = euclidean._one_on_host(query, None, layout, 10)
        assert np.asarray(certified).tolist() == [expected]


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_vectors_brought_in_parts_are_laid_out_as_whole(monkeypatch, dtype):
    gallery = np.random.default_rng(4).normal(size=(70, 3)).astype(dtype)
    whole = search.lay_out(gallery)
    monkeypatch.setattr(search.vectors, "PART", 32)
    for one, other in zip(whole, search.lay_out(gallery), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize(
    ("capacity", "d", "k"), [(4096, 2000, 500), (61440, 784, 1000), (10**8, 2, 65), (4096, 784, 1)]
)
def test_groups_divide_a_word_of_a_mask(capacity, d, k, on_host):
    assert 32 % euclidean.rows_of_group(capacity, d, k, on_host) == 0


def test_long_vectors_are_found_too():
    gallery = RNG(5).normal(size=(5000, 900)).astype(np.float32)
    found = search.euclidean_topk(gallery[:3], gallery, 600)
    assert_nearest(found, distances_of(gallery[:3], gallery), 600, None)


@pytest.mark.soak
def test_the_host_chooses_the_same_groups_as_the_device():
    values = RNG(3).normal(size=(5, 1024)).astype(np.float32)
    for wanted in (1, 20, 40, 1000, 1024):
        on_host = euclidean._cut(*euclidean._smallest_on_host(values, wanted + 1), wanted)
        on_device = euclidean._smallest_groups(jnp.asarray(values.T), wanted, jnp.bool_(True))
        for host, device in zip(on_host, on_device, strict=True):
            np.testing.assert_array_equal(host, device)


@pytest.mark.soak
@pytest.mark.parametrize("k", [1, 10, 100, 1200])
@pytest.mark.parametrize("masks", [None, 1, 3])
def test_stretches_of_rows_give_what_the_whole_gives(monkeypatch, k, masks):
    """With ties across them, and a last one that is shorter."""
    gallery = RNG(6).integers(0, 3, size=(20_000, 5)).astype(np.float32)
    query = RNG(7).normal(size=(3, 5)).astype(np.float32)
    mask = None if masks is None else RNG(8).random((masks, len(gallery))) < 0.5
    layout = search.lay_out(gallery)
    monkeypatch.setattr(euclidean, "STRETCH", 2 * search.vectors.TILE)
    assert_nearest(
        search.euclidean_topk(query, layout, k, mask=mask), distances_of(query, gallery), k, mask
    )


def test_bounds_are_bounds():
    """The matrix form never says that a vector is farther than it is."""
    for gallery in galleries(200).values():
        gallery = gallery.astype(np.float32)
        query = gallery[:20]
        layout = search.lay_out(gallery)
        centre, low = np.asarray(layout.centre), np.asarray(layout.low)[:200]
        error = search.vectors.slack(16)
        norms = np.sum((query - centre) ** 2, axis=1)[:, None] * (1 - 2 * error)
        bound = low[None] - 2 * (query - centre) @ (gallery - centre).T + norms
        wide = query[:, None].astype(np.float64) - gallery[None]
        assert np.all(bound <= np.sum(wide**2, axis=2))


def test_bfloat16_galleries_are_searched_as_the_float32_they_stand_for():
    gallery = jnp.asarray(galleries()["normal"], jnp.bfloat16)
    query = np.asarray(gallery[:3].astype(jnp.float32)) + 0.1
    found = search.euclidean_topk(query, gallery, 10)
    wide = search.euclidean_topk(query, np.asarray(gallery.astype(jnp.float32)), 10)
    np.testing.assert_array_equal(found.indices, wide.indices)
    np.testing.assert_array_equal(found.distances, wide.distances)


def test_vectors_longer_than_an_unrolled_loop():
    gallery = RNG(0).normal(size=(300, 200)).astype(np.float32)
    query = gallery[:3] + np.float32(0.5)
    found = search.euclidean_topk(query, gallery, 10)
    np.testing.assert_allclose(found.distances[:, 0], 50.0, rtol=1e-4)
    assert_nearest(found, distances_of(query, gallery), 10)


@pytest.mark.soak
@pytest.mark.parametrize("k", [10, 1000])
def test_search_under_jit_and_in_small_memory_is_the_same(k):
    for gallery in (galleries()["normal"], galleries()["all the same"]):
        gallery = gallery.astype(np.float32)
        whole = search.euclidean_topk(gallery[:3], gallery, k)
        traced = jax.jit(lambda q, g: search.euclidean_topk(q, g, k))(gallery[:3], gallery)
        small = search.euclidean_topk(gallery[:3], gallery, k, memory=1)
        for found in (traced, small):
            np.testing.assert_array_equal(found.indices, whole.indices)
            np.testing.assert_array_equal(found.distances, whole.distances)


def test_more_neighbors_than_rows():
    gallery = RNG(0).normal(size=(40, 16)).astype(np.float32)
    found = search.euclidean_topk(gallery[:3], gallery, 60)
    assert_nearest(found, distances_of(gallery[:3], gallery), 60)
    nothing = search.euclidean_topk(gallery[:3], gallery[:0], 10)
    assert np.all(np.asarray(nothing.indices) == -1)
    assert np.all(np.isinf(nothing.distances))


def test_bad_vectors_are_refused_with_row_and_value():
    gallery = np.ones((20, 4), np.float32)
    for value in (np.nan, np.inf, 1e30):
        bad = gallery.copy()
        bad[7, 2] = value
        with pytest.raises(ValueError, match="row 7 of the gallery is not"):
            search.euclidean_topk(gallery, bad, 1)
        with pytest.raises(ValueError, match="row 7 of the query is not"):
            search.euclidean_topk(bad, gallery, 1)
    with pytest.raises(ValueError, match=r"float32\[n d\] or bfloat16\[n d\], got float64"):
        search.euclidean_topk(gallery, gallery.astype(np.float64), 1)
    with pytest.raises(ValueError, match=r"float32\[n d\] or bfloat16\[n d\], got >f4"):
        search.euclidean_topk(gallery, gallery.astype(">f4"), 1)  # the other byte order
    with pytest.raises(ValueError, match="as wide, got 3 and 4"):
        search.euclidean_topk(gallery[:, :3], search.lay_out(gallery), 1)
