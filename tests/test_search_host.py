"""Small searches of codes in NumPy: what compiled programs find, to the last tie."""

import numpy as np
import pytest
from marks import soak
from reference import by_numpy, words

from jaxret import search
from jaxret.search import host
from jaxret.search.blocks import BLOCK

RNG = np.random.default_rng


@pytest.fixture(autouse=True)
def numpy_alone(monkeypatch):
    """Nothing is compiled, however much is compared."""
    monkeypatch.setattr(host, "BUDGET", 2**60)


def found_in(layout, query, k, mask):
    found = search.hamming_topk(query, layout, k, mask=mask)
    return np.asarray(found.distances), np.asarray(found.indices)


@pytest.mark.parametrize("n", [1, 513, 1500, BLOCK + 700, *soak(511, BLOCK)])
@pytest.mark.parametrize("width", [1, 2, *soak(8)])
def test_numpy_finds_what_a_stable_sort_does(n, width):
    query, gallery = words(n, 3, width, 3), words(n, n, width, 40)
    layout = search.lay_out(gallery)
    for k in (1, 30, n + 2) if n < BLOCK else (30,):
        for mask in (None, RNG(k).random(n) < 0.6, RNG(k).random((3, n)) < 0.1):
            found, truth = found_in(layout, query, k, mask), by_numpy(query, gallery, k, mask)
            np.testing.assert_array_equal(found[0], truth[0])
            np.testing.assert_array_equal(found[1], truth[1])


def test_numpy_and_compiled_programs_agree_and_each_searches_in_its_place(monkeypatch):
    monkeypatch.setattr(host, "_compared", {})
    query, gallery = words(0, 5, 2, 5), words(1, 900, 2, 60)
    layout = search.lay_out(gallery)
    mask = RNG(0).random((5, 900)) < 0.4
    small = found_in(layout, query, 20, mask)
    monkeypatch.setattr(host, "topk", None)  # fails where it is called
    with pytest.raises(TypeError):
        found_in(layout, query, 20, mask)
    monkeypatch.setattr(host, "BUDGET", -1)
    for mine, compiled in zip(small, found_in(layout, query, 20, mask), strict=True):
        np.testing.assert_array_equal(mine, compiled)
        assert mine.dtype == compiled.dtype


def test_a_code_as_wide_as_its_distance_type_is_not_taken_for_no_row():
    query, gallery = np.zeros((1, 7), np.uint32), np.full((3, 7), 0xFFFFFFFF, np.uint32)
    distances, row = found_in(gallery, query, 3, None)
    assert distances.tolist() == [[224] * 3]
    assert row.tolist() == [[0, 1, 2]]
    query, gallery = np.zeros((1, 8), np.uint32), np.full((3, 8), 0xFFFFFFFF, np.uint32)
    assert found_in(gallery, query, 3, None)[0].tolist() == [[256] * 3]


def test_little_memory_gives_the_same_in_tiles():
    query, gallery, mask = words(0, 9, 2, 9), words(1, 700, 2, 60), RNG(0).random((9, 700)) < 0.5
    whole, tiled = (
        search.hamming_topk(query, gallery, 12, mask=mask, memory=memory)
        for memory in (2**28, 20_000)
    )
    np.testing.assert_array_equal(whole.distances, tiled.distances)
    np.testing.assert_array_equal(whole.indices, tiled.indices)


def test_a_program_is_compiled_once_numpy_has_done_enough_for_it(monkeypatch):
    monkeypatch.setattr(host, "BUDGET", 100)
    monkeypatch.setattr(host, "_compared", {})
    assert [host.answers("a program", 2, 1, 25) for _ in range(4)] == [True, True, False, False]
    assert host.answers("another", 2, 1, 25)
    assert not host.answers("a third", 2, 1, 51)  # a large search does not begin in NumPy
