"""Nearest codes among distances that are written out: what a stable sort finds, to the last tie."""

import contextlib

import numpy as np
import pytest
from marks import soak
from reference import by_numpy, words

from jaxret import search
from jaxret.search import host, scan
from jaxret.search.blocks import BLOCK

RNG = np.random.default_rng


@pytest.fixture(autouse=True)
def scans_alone(monkeypatch):
    """NumPy does not answer in the place of a scan, nor do the minima of groups."""
    monkeypatch.setattr(host, "BUDGET", -1)
    monkeypatch.setattr(scan, "FAR", 0)


def assert_is_a_stable_sort(query, gallery, k, mask=None, **options):
    found = search.hamming_topk(query, gallery, k, mask=mask, **options)
    truth = by_numpy(query, gallery, k, mask)
    np.testing.assert_array_equal(found.distances, truth[0])
    np.testing.assert_array_equal(found.indices, truth[1])


@pytest.mark.parametrize("n", [1500, *soak(1, 511, BLOCK, BLOCK + 700)])
@pytest.mark.parametrize("width", [2, *soak(1, 8)])
def test_a_scan_finds_what_a_stable_sort_does(n, width):
    query, gallery = words(n, 3, width, 3), words(n, n, width, 40)
    for k in (1, 30, 600, n + 2):  # of few groups, of many, of all rows, and of more
        for mask in (None, RNG(k).random(n) < 0.6, RNG(k).random((3, n)) < 0.01):
            assert_is_a_stable_sort(query, gallery, k, mask)


def test_rows_past_the_end_repeat_the_last_one_and_are_never_found():
    query = words(0, 1, 2, 1)
    gallery = np.concatenate([words(1, 700, 2, 50), query])  # the last row is the nearest
    for k in (1, 500, 701):
        assert_is_a_stable_sort(query, gallery, k)


def test_a_gallery_of_equal_codes_gives_its_first_rows():
    gallery = np.full((5000, 2), 7, np.uint32)
    for k in (3, 700):
        found = search.hamming_topk(gallery[:1], gallery, k)
        assert found.indices.tolist() == [list(range(k))]


def test_codes_that_differ_in_every_bit_are_not_taken_for_no_row():
    for width in (7, 8):
        query, gallery = np.zeros((1, width), np.uint32), np.full((3, width), 2**32 - 1, np.uint32)
        assert_is_a_stable_sort(query, gallery, 3, np.array([True, False, True]))


def test_distances_that_a_byte_does_not_hold_are_told_apart():
    query, bits = np.zeros((1, 8), np.uint32), np.zeros((300, 256), np.uint8)
    for row, distance in enumerate(RNG(0).integers(252, 257, len(bits))):
        bits[row, :distance] = 1
    gallery = np.packbits(bits, axis=1).view(np.uint32)
    for queries in (1, 3):
        for mask in (None, np.arange(len(bits)) % 7 > 0):
            assert_is_a_stable_sort(np.repeat(query, queries, axis=0), gallery, 200, mask)


def test_rows_past_the_last_block_are_not_looked_at():
    layout = search.lay_out(words(1, BLOCK + 5, 2, 60), capacity=3 * BLOCK)
    query = words(2, 1, 2, 1)
    found = layout._replace(size=np.array(700, np.int32)).topk(query, 30)
    truth = by_numpy(query, words(1, BLOCK + 5, 2, 60)[:700], 30)
    np.testing.assert_array_equal(found.indices, truth[1])


def test_little_memory_gives_the_same_in_tiles():
    query, gallery, mask = words(0, 9, 2, 9), words(1, 700, 2, 60), RNG(0).random((9, 700)) < 0.5
    assert_is_a_stable_sort(query, gallery, 300, mask, memory=20_000)


@pytest.mark.parametrize("w", [2, 8, 10])
@pytest.mark.parametrize("masked", [False, True])
def test_many_tiles_share_the_memory_of_two(w, masked, monkeypatch):
    monkeypatch.setattr(scan, "NEAR", 1)
    query, gallery = words(0, 9, w, 9), words(1, 700, w, 60)
    mask = RNG(0).random((9, 700)) < 0.7 if masked else None
    into, places = scan._DISTANCES_INTO.wide, []

    def noted(*args, **static):
        places.append(args[-1].unsafe_buffer_pointer())
        return into(*args, **static)

    monkeypatch.setattr(scan._DISTANCES_INTO, "wide", noted)
    assert_is_a_stable_sort(query, gallery, 300, mask)
    assert len(places) == 9
    assert len(set(places)) == 2


def test_few_queries_of_codes_that_no_near_cache_holds_are_scanned(monkeypatch):
    gallery = search.lay_out(words(1, 900, 2, 60))
    seen = []
    monkeypatch.setattr(scan, "FAR", gallery.codes.nbytes // 2)
    monkeypatch.setattr(scan, "topk", lambda query, *rest: seen.append(len(query)))
    for queries in (1, 2, 3):
        with contextlib.suppress(TypeError):  # nothing is returned
            search.hamming_topk(words(0, queries, 2, 9), gallery, 3)
    assert seen == [1, 2]


def test_one_program_serves_any_number_of_neighbors():
    query, layout = words(0, 2, 3, 2), search.lay_out(words(1, 400, 3, 60))
    before = scan._DISTANCES.wide._cache_size()
    for k in (1, 12, 100, 399):
        search.hamming_topk(query, layout, k)
    assert scan._DISTANCES.wide._cache_size() == before + 1
