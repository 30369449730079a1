"""Where a gallery is searched: by NumPy at first, then on the device."""

import subprocess
import sys

import numpy as np
from galleries import assert_same, codes_gallery, on_the_device, random_codes

from jaxret.gallery import Gallery
from jaxret.search import rows, select
from jaxret.search.word_columns import WordColumns

__all__ = ["on_the_device"]

FRESH = """
import sys
import numpy as np
from jaxret import Gallery
gallery = Gallery.open(sys.argv[1])
query, keep = np.load(sys.argv[2]), np.arange(0, 3000, 3)
found = gallery.search(query, 12)
near = gallery.range_search(query, 90, 50, keep=keep)
kept = gallery.search(query, 4000, keep=keep)
assert not {"jax", "jaxlib", "flax"} & set(sys.modules), "JAX was imported"
print(repr([part.tolist() for part in (*found, *near, *kept)]))
"""


def test_a_fresh_process_searches_codes_without_jax_and_finds_what_programs_do(tmp_path):
    words = np.random.default_rng(0).integers(0, 2**32, (3000, 8), dtype=np.uint32)
    words[1500:] = words[:1500]  # ties
    query = words[:3] ^ np.uint32(257)
    Gallery.from_codes(words, 256).save(tmp_path / "gallery")
    np.save(tmp_path / "query.npy", query)
    command = [sys.executable, "-c", FRESH, tmp_path / "gallery", tmp_path / "query.npy"]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    gallery, keep = Gallery.open(tmp_path / "gallery"), np.arange(0, 3000, 3)
    compiled = (
        *gallery.search(query, 12),
        *gallery.range_search(query, 90, 50, keep=keep),
        *gallery.search(query, 4000, keep=keep),
    )
    assert ran.stdout.strip() == repr([part.tolist() for part in compiled])


def test_numpy_searches_until_it_has_done_enough_and_rows_that_change_are_seen(monkeypatch):
    values = random_codes(0, 60)
    gallery = codes_gallery(values)
    compiled = gallery.search(values[:2], 9)
    assert gallery._cache._layout is not None
    monkeypatch.setattr(rows, "BUDGET", 60 * 2 * 2)
    gallery = codes_gallery(values)
    for _ in range(2):
        found = gallery.search(values[:2], 9)
        assert gallery._cache._layout is None
        for one, other in zip(found, compiled, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        gallery.update([5], values[[5]])
    assert_same(gallery, codes_gallery(values))
    assert gallery._cache._layout is not None


def test_what_numpy_does_sooner_than_a_program_starts_is_always_numpys(monkeypatch):
    values = random_codes(0, 60)
    gallery = codes_gallery(values)
    monkeypatch.setattr(rows, "QUICK", 60 * 2)
    gallery.search(values[:2], 9)
    assert gallery._cache._layout is None
    gallery.search(values[:3], 9)
    assert gallery._cache._layout is not None
    gallery.update([5], values[[7]])
    found = gallery.search(values[7:8], 2)  # by NumPy again, which sees the new row
    assert found.indices.tolist() == [[5, 7]]


def test_one_query_at_a_time_is_numpys_in_columns_which_follow_what_changes(monkeypatch):
    values = random_codes(0, 60)
    gallery = codes_gallery(values)
    expected = [gallery.search(values[[i]], 9) for i in range(4)]
    monkeypatch.setattr(rows, "SMALL", values.size)
    gallery = codes_gallery(values)
    for i in range(4):
        found = gallery.search(values[[i]], 9)
        assert (gallery._cache._words is None) == (i == 0)
        np.testing.assert_array_equal(found.indices, expected[i].indices)
        np.testing.assert_array_equal(found.distances, expected[i].distances)
    assert gallery._cache._layout is None
    gallery.update([5], values[[7]])
    for _ in range(3):
        assert gallery.search(values[[7]], 2).indices.tolist() == [[5, 7]]
    gallery.remove(np.arange(40, 60))
    for _ in range(3):
        assert gallery.search(values[[50]], 60).indices.max() < 40
    assert gallery._cache._words is not None
    gallery.add(values[[7]])
    assert gallery.search(values[[7]], 3).indices.tolist() == [[5, 7, 60]]


def test_rows_that_change_while_columns_are_made_are_not_left_out_for_good(monkeypatch):
    values = random_codes(0, 60)
    gallery = codes_gallery(values)
    monkeypatch.setattr(rows, "SMALL", 2 * values.size)
    make = WordColumns.make

    def changed_meanwhile(codes):
        made = make(codes)
        gallery.add(values[[7]])
        return made

    gallery.search(values[[7]], 3)
    with monkeypatch.context() as patch:
        patch.setattr(WordColumns, "make", changed_meanwhile)
        gallery.search(values[[7]], 3)
    for _ in range(3):
        assert gallery.search(values[[7]], 2).indices.tolist() == [[7, 60]]


def test_an_accelerator_that_jax_is_at_hand_for_searches_from_the_first_query_on(monkeypatch):
    monkeypatch.setattr(rows, "BUDGET", 2**60)
    monkeypatch.setattr(select, "on_accelerator", lambda: True)
    gallery = codes_gallery(random_codes(0, 60))
    assert not gallery._cache._is_for_numpy(random_codes(1, 2), gallery._columns.values)


def test_one_query_of_rows_that_are_not_kept_is_numpys_and_many_are_read_in_stretches(monkeypatch):
    values = random_codes(0, 500)
    gallery = Gallery.from_codes(np.tile(values, (1, 8)), 256, memory=500 * rows.BYTES)
    calls = []
    topk = rows.topk
    monkeypatch.setattr(rows, "topk", lambda *found: calls.append(1) or topk(*found))
    many = gallery.search(np.tile(values[:9], (1, 8)), 7)
    assert not calls
    one = gallery.search(np.tile(values[:1], (1, 8)), 7)
    assert calls
    np.testing.assert_array_equal(one.indices, many.indices[:1])
    np.testing.assert_array_equal(one.distances, many.distances[:1])
