"""Codes searched by NumPy as they lie in rows: what a stable sort finds, to the last tie."""

import numpy as np
import pytest
from reference import by_numpy, words

from jaxret import codes
from jaxret.search import rows
from jaxret.search.columns import Columns
from jaxret.search.word_columns import WordColumns

RNG = np.random.default_rng


def assert_is_a_stable_sort(query, gallery, k, mask=None):
    packed = None if mask is None else codes.pack_mask(mask).words
    found, truth = rows.topk(query, gallery, k, packed), by_numpy(query, gallery, k, mask)
    np.testing.assert_array_equal(found[0], truth[0])
    np.testing.assert_array_equal(found[1], truth[1])


@pytest.mark.parametrize("width", [1, 2, 3, 4, 8, 12])
def test_numpy_finds_in_rows_what_a_stable_sort_does(width):
    for n in (1, 33, 3000, 9000):
        query, gallery = words(n, 3, width, 3), words(n, n, width, 40)
        for k in (1, 10, 700, n + 2):
            for mask in (None, RNG(k).random(n) < 0.6, RNG(k).random((3, n)) < 0.01):
                assert_is_a_stable_sort(query, gallery, k, mask)


@pytest.mark.parametrize("width", [1, 2, 4, 7, 8, 12])
def test_distances_count_the_bits_of_codes_of_any_length_on_any_number_of_threads(width):
    gallery = RNG(width).integers(0, 2**32, (200_003, width), dtype=np.uint32)
    gallery[7] = ~gallery[3]
    expected = np.bitwise_count(gallery ^ gallery[3]).sum(axis=1)
    found = rows.distances(gallery, gallery[3])
    assert np.array_equal(found, expected)
    assert found[7] == 32 * width < np.iinfo(found.dtype).max


@pytest.mark.parametrize("width", [1, 8])
def test_a_compiled_program_counts_the_same_bits(width):
    gallery = RNG(width).integers(0, 2**32, (1001, width), dtype=np.uint32)
    gallery[7] = ~gallery[3]
    found, expected = (
        Columns.make(gallery).distances(gallery[3]),
        rows.distances(gallery, gallery[3]),
    )
    assert np.array_equal(found, expected)
    assert found.dtype == expected.dtype


@pytest.mark.parametrize("width", [1, 2, 3, 6, 8, 9, 17])
def test_columns_of_words_count_the_same_bits(width):
    gallery = RNG(width).integers(0, 2**32, (70_001, width), dtype=np.uint32)
    gallery[7] = ~gallery[3]
    expected = np.bitwise_count(gallery ^ gallery[3]).sum(axis=1)
    for n in (0, 1, 33, len(gallery)):
        columns = WordColumns.make(gallery[:n])
        found = columns.distances(gallery[3])
        assert np.array_equal(found, expected[:n])
        assert found.dtype == rows.distances(gallery[:n], gallery[3]).dtype
        again = np.full(n, 77, found.dtype)
        assert columns.distances(gallery[3], again) is again
        assert np.array_equal(again, found)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("width", [4, 7, 8, 9])
def test_all_bits_that_differ_are_told_from_none(width, masked):
    gallery = RNG(width).integers(0, 2**32, (40_001, width), dtype=np.uint32)
    query = gallery[[3, 5, 9]].copy()
    gallery[[0, 7, 900]], gallery[40_000] = ~query[0], query[0]  # a code twice, thrice its opposite
    gallery[11:9_000] = ~query[1]  # an opposite far more often than there are neighbors
    gallery[5] = ~query[2]  # and no code of its own
    mask = RNG(0).random(len(gallery)) < 0.9 if masked else None
    packed = None if mask is None else codes.pack_mask(mask).words
    columns = WordColumns.make(gallery)
    for k in (1, 3, 10, 35_000):
        found = rows.topk(query, gallery, k, packed, columns.distances)
        for ours, truth in zip(found, by_numpy(query, gallery, k, mask), strict=True):
            np.testing.assert_array_equal(ours, truth)


def test_no_rows_and_equal_rows_and_codes_that_are_not_contiguous():
    gallery = np.full((5000, 4), 7, np.uint32)
    assert rows.topk(gallery[:1], gallery[:0], 2)[1].tolist() == [[-1, -1]]
    for k in (3, 200):
        assert rows.topk(gallery[:1], gallery, k)[1].tolist() == [list(range(k))]
    assert_is_a_stable_sort(gallery[:2, ::2], gallery[::3, ::2], 10)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32])
def test_the_least_values_are_those_of_a_stable_sort(kind):
    values = RNG(0).integers(0, 60, 30_000).astype(kind) - kind(0 if kind == np.uint8 else 30)
    for k in (1, 20, 3000, 40_000):
        expected = np.argsort(values, kind="stable")[:k]
        np.testing.assert_array_equal(rows.least_rows(values, k), expected)
