"""A gallery against a plain dictionary, its searches, and what it refuses."""

import re
import shutil

import jax
import numpy as np
import pytest
from galleries import (
    BLOCKS,
    MAKERS,
    SMALL,
    K,
    Q,
    all_distances,
    assert_found,
    assert_same,
    codes_gallery,
    expected_neighbors,
    on_the_device,
    random_codes,
    random_vectors,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import soak

from jaxret.gallery import Gallery, GalleryError, validate

__all__ = ["on_the_device"]


class Model:
    """What a gallery should be: a dictionary, in the order of adding; updating keeps the place."""

    def __init__(self, ids, values):
        self.rows = dict(zip(ids.tolist(), map(tuple, values.tolist()), strict=True))
        self.described = dict.fromkeys(self.rows, ("", -1))
        self.used = set(self.rows)

    def neighbors(self, query, keep=None):
        rows = self.rows if keep is None else {i: self.rows[i] for i in self.rows if i in keep}
        return expected_neighbors(query, list(rows.values()), list(rows), K)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add given", "remove", "update", "filter", "save"]),
        st.integers(0, 2**32 - 1),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["codes", *soak("vectors")])
@given(start=st.sampled_from([0, 1, 20, 200, None]), steps=STEPS)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_a_gallery_equals_a_dictionary_whatever_is_done_to_it(kind, start, steps, tmp_path_factory):
    draw, make = MAKERS[kind]
    start = BLOCKS[kind] + 5 if start is None else start
    values, query = draw(0, start), draw(1, Q)
    gallery = make(values)
    model = Model(np.arange(start), values)
    for name, seed, count in steps:
        rng = np.random.default_rng(seed)
        few = rng.permutation(list(model.rows))[:count].astype(np.int64)
        new = draw(seed, len(few) if name == "update" else count)
        if name.startswith("add"):
            ids = None
            if name == "add given":
                free = np.setdiff1d(rng.integers(0, 2**20, count), list(model.used))
                ids, new = rng.permutation(free), new[: len(free)]
            ids = gallery.add(new, ids, [f"ü{i}" for i in range(len(new))], np.arange(len(new)))
            assert model.used.isdisjoint(ids.tolist())
            model.used.update(ids.tolist())
            for i, (id, value) in enumerate(zip(ids.tolist(), new.tolist(), strict=True)):
                model.rows[id], model.described[id] = tuple(value), (f"ü{i}", i)
        elif name == "remove":
            if seed % 2:  # nearly all of them
                few = np.array(list(model.rows), np.int64)[count:]
            gallery.remove(few)
            for id in few.tolist():
                del model.rows[id]
        elif name == "update":
            gallery.update(few, new)
            model.rows.update(zip(few.tolist(), map(tuple, new.tolist()), strict=True))
        elif name == "filter":
            assert_found(gallery.search(query, K, keep=few), model.neighbors(query, set(few)))
        else:
            folder = tmp_path_factory.mktemp("saved")
            gallery.save(folder)
            gallery = Gallery.load(folder)
            assert_same(Gallery.open(folder, memory=SMALL), gallery)
            shutil.rmtree(folder)
        assert len(gallery) == len(model.rows)
        np.testing.assert_array_equal(gallery.ids, list(model.rows))
        assert_found(gallery.search(query, K), model.neighbors(query))
        described = [model.described[id] for id in few.tolist() if id in model.rows]
        kept = [id for id in few.tolist() if id in model.rows]
        assert gallery.names_of(kept) == [name for name, _ in described]
        assert gallery.labels_of(kept).tolist() == [label for _, label in described]


# Ids.


def test_adding_removing_and_adding_leaves_ids_as_they_were(tmp_path):
    codes = random_codes(0, 10, bits=32)
    gallery = Gallery.from_codes(codes[:4], 32)
    gallery.remove([1, 3])
    assert gallery.add(codes[4:6]).tolist() == [4, 5]
    gallery.remove([5])
    gallery.save(tmp_path)
    for again in (gallery, Gallery.load(tmp_path)):
        assert again.add(codes[6:7]).tolist() == [6]
        assert again.ids.tolist() == [0, 2, 4, 6]
        nearest = again.search(codes[[0, 2, 4, 6]], 1)
        assert nearest.distances.ravel().tolist() == [0] * 4
        assert nearest.indices.ravel().tolist() == [0, 2, 4, 6]


def test_a_removed_id_is_not_used_again_even_after_loading(tmp_path):
    gallery = codes_gallery(random_codes(0, 3), [5, 2, 9])
    gallery.remove([9, 2])
    gallery.save(tmp_path)
    gallery = Gallery.load(tmp_path)
    with pytest.raises(GalleryError, match=r"id 9 was removed, and is not used again"):
        gallery.add(random_codes(1, 2), [3, 9])
    assert gallery.add(random_codes(1, 2)).tolist() == [10, 11]
    assert gallery.add(random_codes(1, 1), [3]).tolist() == [3]


def test_ids_may_be_any_64_bits_that_are_not_negative():
    ids = [2**62, 0, 2**63 - 1]
    gallery = codes_gallery(random_codes(0, 3), ids)
    assert set(gallery.search(random_codes(0, 1), 3).indices[0].tolist()) == set(ids)
    with pytest.raises(GalleryError, match=r"ids must be below 2\^63"):
        gallery.add(random_codes(1, 1))


def test_removing_all_and_adding_again_works():
    gallery = codes_gallery(random_codes(0, 5))
    gallery.remove(range(5))
    assert len(gallery) == 0
    assert gallery.search(random_codes(1, 2), 2).indices.tolist() == [[-1, -1], [-1, -1]]
    assert gallery.add(random_codes(0, 2)).tolist() == [5, 6]
    assert gallery.search(random_codes(0, 1), 1).indices.tolist() == [[5]]


def test_names_and_labels_are_those_of_the_ids():
    gallery = codes_gallery(
        random_codes(0, 3), [7, 5, 6], ["seven", "", "\udcff"], [70, -1, 2**31 - 1]
    )
    assert gallery.names_of([6, 7]) == ["\udcff", "seven"]
    assert gallery.labels_of(np.array([[6, 7], [5, 5]])).tolist() == [[2**31 - 1, 70], [-1, -1]]
    gallery.update([5], random_codes(1, 1), ["five"], [50])
    gallery.update([7], random_codes(1, 1))
    assert gallery.names_of([5, 7]) == ["five", "seven"]
    assert gallery.labels_of([5, 7]).tolist() == [50, 70]


def test_a_gallery_without_names_and_labels_has_none_until_some_are_added():
    gallery = codes_gallery(random_codes(0, 2))
    assert gallery.names_of([0, 1]) == ["", ""]
    assert gallery.labels_of([0, 1]).tolist() == [-1, -1]
    gallery.add(random_codes(1, 1), names=["a"], labels=[3])
    assert gallery.names_of([2, 0]) == ["a", ""]
    assert gallery.labels_of([2, 0]).tolist() == [3, -1]


def test_a_gallery_does_not_change_when_the_array_it_came_from_does():
    codes = random_codes(0, 4)
    gallery = codes_gallery(codes)
    codes[:] = 0
    assert gallery.search(random_codes(0, 4)[2:3], 1).distances.tolist() == [[0]]


# Searching.


@pytest.mark.parametrize("kind", ["codes", *soak("vectors")])
@pytest.mark.soak
def test_a_mapped_search_in_tiles_equals_a_search_in_memory(kind, tmp_path):
    draw, make = MAKERS[kind]
    n = 3 * BLOCKS[kind] - 77  # tiles are of one block
    values, query = draw(0, n), draw(1, Q)
    make(values, np.random.default_rng(2).permutation(n)).save(tmp_path)
    held, mapped = Gallery.load(tmp_path), Gallery.open(tmp_path, memory=SMALL)
    mask = np.random.default_rng(3).random((Q, n)) < 0.3
    for keep in (None, mask, held.ids[:5]):
        one, other = held.search(query, K, keep=keep), mapped.search(query, K, keep=keep)
        assert_found(other, one)
    assert_found(held.search(query, K), expected_neighbors(query, values, held.ids, K))
    for one, other in zip(
        held.range_search(query, 2, 30), mapped.range_search(query, 2, 30), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_a_filter_keeps_the_search_to_some_rows(kind):
    draw, make = MAKERS[kind]
    values, query, rng = draw(0, 60), draw(1, Q), np.random.default_rng(2)
    gallery = make(values)
    gallery.remove([3, 50])
    values, ids = np.delete(values, [3, 50], axis=0), gallery.ids
    masks = rng.random((Q, len(ids))) < 0.1
    for i in range(Q):
        expected = expected_neighbors(query[i : i + 1], values[masks[i]], ids[masks[i]], K)
        assert_found(gallery.search(query[i : i + 1], K, keep=masks[i]), expected)
        found = gallery.search(query, K, keep=masks)
        np.testing.assert_array_equal(found.indices[i : i + 1], expected[1])
    some = rng.permutation(ids)[:20]
    there = np.isin(ids, some)
    assert_found(
        gallery.search(query, K, keep=some), expected_neighbors(query, values[there], ids[there], K)
    )


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("limit", [1, None, *soak(38, 39)])
def test_range_search_finds_all_within_the_radius_or_says_so(kind, limit):
    draw, make = MAKERS[kind]
    values, query = draw(0, 40), draw(1, Q)
    query[0] = values[0]
    gallery = make(values)
    gallery.remove([7])
    values, ids = np.delete(values, 7, axis=0), gallery.ids
    distances = all_distances(query, values)
    for radius in (0, 3, 10**6):
        found = gallery.range_search(query, radius, limit)
        assert found.starts[0] == 0
        assert found.starts[-1] == len(found.indices) == len(found.distances)
        for i in range(Q):
            order = np.argsort(distances[i], kind="stable")
            order = order[distances[i][order] <= radius]
            part = slice(found.starts[i], found.starts[i + 1])
            assert found.indices[part].tolist() == ids[order][:limit].tolist()
            assert found.distances[part].tolist() == distances[i][order][:limit].tolist()
            assert found.complete[i] == (limit is None or len(order) <= limit)


@pytest.mark.parametrize("kind", MAKERS)
def test_no_queries_and_an_empty_gallery_have_answers(kind):
    draw, make = MAKERS[kind]
    for n, q in ((0, 2), (5, 0), (0, 0)):
        gallery = make(draw(0, n))
        assert_found(
            gallery.search(draw(1, q), 3),
            expected_neighbors(draw(1, q), draw(0, n), np.arange(n), 3),
        )
        within = gallery.range_search(draw(1, q), 10**6)
        assert within.starts.tolist() == [0] + [n * i for i in range(1, q + 1)]
        assert within.complete.all()


COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: COMPILED.append(event) if "backend_compile" in event else None
)


@pytest.mark.parametrize("kind", ["codes", *soak("vectors")])
@pytest.mark.parametrize("blocks", [0, 4])
def test_growing_does_not_compile_at_each_add(kind, blocks):
    draw, make = MAKERS[kind]
    gallery, query = make(draw(0, blocks * BLOCKS[kind] + 1)), draw(1, Q)

    def change(seed):
        gallery.add(draw(seed, 20))
        gallery.remove([seed])
        gallery.update([blocks + 50], draw(seed, 1))
        gallery.search(query, K)

    gallery.add(draw(0, 100))
    for seed in range(2):
        change(seed)
    COMPILED.clear()
    for seed in range(2, 25):
        change(seed)
    assert COMPILED == []


@pytest.mark.parametrize("kind", ["codes", *soak("vectors")])
def test_a_gallery_that_grew_finds_all_that_it_holds(kind):
    draw, make = MAKERS[kind]
    values, last = draw(0, BLOCKS[kind] + 40), draw(2, 1)
    gallery = make(values)
    gallery.search(last, K)
    for _ in range(6):  # into blocks that were empty, past groups of rows that still are
        values = np.concatenate([values, draw(len(values), BLOCKS[kind] // 5), last])
        gallery.add(values[len(gallery) :])
        expected = expected_neighbors(last, values, gallery.ids, K)
        assert_found(gallery.search(last, K), expected)


@pytest.mark.slow
def test_a_gallery_that_doubles_compiles_a_few_times_only():
    rng = np.random.default_rng(0)
    gallery = Gallery.from_vectors(rng.normal(size=(10, 5)).astype(np.float32))
    slow = 0
    for _ in range(20):
        gallery.add(rng.normal(size=(500, 5)).astype(np.float32))
        COMPILED.clear()
        gallery.search(np.zeros((Q, 5), np.float32), K)
        slow += len(COMPILED) > 0
    assert len(gallery) == 10_010
    assert slow <= 2 * 3  # 3 capacities: one search after the move, one after the first change


# What is refused.


def refused(rule, act):
    with pytest.raises(GalleryError, match=re.escape(rule)) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_what_makes_no_sense_is_refused_with_rule_and_value():
    codes, x = random_codes(0, 4), random_vectors(0, 4)
    make, bad = codes_gallery, random_vectors(0, 4)
    bad[2, 1] = np.nan
    refused("codes must be packed codes, uint32[n w], got float32[4, 3]", lambda: make(x))
    refused("codes must be packed codes, uint32[n w], got list", lambda: make([[1]]))
    refused("codes must have 2 words for 33 bits, got 1", lambda: Gallery.from_codes(codes, 33))
    refused("bits must be at least 1, got 0", lambda: Gallery.from_codes(codes, 0))
    refused(
        "codes must be 0 past bit 11, row 1 is not",
        lambda: make(np.array([[1], [2**12]], np.uint32)),
    )
    refused(
        "vectors must be vectors, float32[n d], got float64[4, 3]",
        lambda: Gallery.from_vectors(x.astype(float)),
    )
    refused(
        "vectors must be vectors, float32[n d], got float32[3]", lambda: Gallery.from_vectors(x[0])
    )
    refused(
        "vectors must be finite and shorter than 6e+18, row 2 is not: [",
        lambda: Gallery.from_vectors(bad),
    )
    refused("ids must not repeat, 7 does", lambda: make(codes, [1, 7, 2, 7]))
    refused("ids must be at least 0, got -2", lambda: make(codes, [1, -2, 3, 4]))
    refused("ids must be whole numbers below 2^63, got float64", lambda: make(codes, [0.5] * 4))
    refused(
        "ids must be a list, 4, one for each row, got shape [3]", lambda: make(codes, [1, 2, 3])
    )
    refused("names must be 4, one for each row, got 1", lambda: make(codes, names=["a"]))
    refused("names must be a list of strings, got str", lambda: make(codes, names="abcd"))
    refused(
        "names must be strings, that of row 1 is 5", lambda: make(codes, names=["a", 5, "", ""])
    )
    refused("labels must be 4, one for each row, got [2]", lambda: make(codes, labels=[1, 2]))
    refused("labels must be whole numbers, got float64", lambda: make(codes, labels=[0.5] * 4))
    refused(
        "labels must fit int32, got 0 to 2147483648", lambda: make(codes, labels=[0, 1, 2, 2**31])
    )
    refused("memory must be at least 1, got 0", lambda: make(codes, memory=0))


def test_what_a_gallery_refuses_leaves_it_as_it_was():
    codes, bad = random_codes(0, 4), random_vectors(0, 1)
    bad[0, 0] = np.inf
    gallery, floats = codes_gallery(codes, [4, 2, 8, 1]), Gallery.from_vectors(random_vectors(0, 4))
    two = random_codes(1, 2)
    refused("k must be at least 1, got 0", lambda: gallery.search(codes, 0))
    refused("k must be a whole number, got 1.5", lambda: validate.whole("k", 1.5))
    refused(
        "query must have 1 words for 12 bits, got 2",
        lambda: gallery.search(np.zeros((1, 2), np.uint32), 1),
    )
    refused(
        "query must be packed codes, uint32[n w], got int32[4, 1]",
        lambda: gallery.search(codes.astype(np.int32), 1),
    )
    refused("query must have 3 features, got 2", lambda: floats.search(bad[:, 1:], 1))
    refused(
        "query must be finite and shorter than 6e+18, row 0 is not: [inf,",
        lambda: floats.search(bad, 1),
    )
    refused("vectors must be finite", lambda: floats.update([0], bad))
    refused("radius must be at least 0, got -1", lambda: gallery.range_search(codes, -1))
    refused("radius must be at least 0, got nan", lambda: floats.range_search(bad, float("nan")))
    refused("limit must be at least 1, got 0", lambda: gallery.range_search(codes, 1, 0))
    refused(
        "keep must be ids or a mask bool[4] or bool[2 4], got bool[3]",
        lambda: gallery.search(two, 1, keep=np.ones(3, bool)),
    )
    refused("id 5 is not in the gallery", lambda: gallery.search(two, 1, keep=[4, 5]))
    refused("id 5 is not in the gallery", lambda: gallery.remove([4, 5]))
    refused("id 0 is not in the gallery", lambda: gallery.update([0], codes[:1]))
    refused("id 9 is not in the gallery", lambda: gallery.names_of([9]))
    refused("id 9 is not in the gallery", lambda: gallery.labels_of([9]))
    refused("ids must be at least -1, got -2", lambda: gallery.labels_of([-2]))
    refused("ids must not repeat, 2 does", lambda: gallery.remove([2, 2]))
    refused("ids must not repeat, 2 does", lambda: gallery.update([2, 2], two))
    refused("id 8 is in the gallery already; update changes it", lambda: gallery.add(two, [3, 8]))
    refused(
        "codes must have 1 words for 12 bits, got 2",
        lambda: gallery.add(np.zeros((1, 2), np.uint32)),
    )
    refused("names must be 2, one for each row, got 1", lambda: gallery.add(two, names=["a"]))
    assert gallery.add(two[:0]).tolist() == []
    assert gallery.ids.tolist() == [4, 2, 8, 1]
    assert_found(gallery.search(two, 4), expected_neighbors(two, codes, gallery.ids, 4))
    assert gallery.add(two).tolist() == [9, 10]


def test_what_a_search_found_past_the_end_has_no_label_and_no_name():
    gallery = codes_gallery(random_codes(0, 2), [7, 5], ["seven", "five"], [70, 50])
    found = gallery.search(random_codes(0, 1), 3).indices
    assert found.tolist() == [[7, 5, -1]]
    assert gallery.labels_of(found).tolist() == [[70, 50, -1]]
    assert gallery.names_of(found) == ["seven", "five", ""]
    empty = codes_gallery(random_codes(0, 0))
    assert empty.labels_of([-1]).tolist() == [-1]
    assert empty.names_of([-1]) == [""]


def test_keep_is_distinct_ids_or_bool_and_never_a_guess():
    gallery, query = codes_gallery(random_codes(0, 4)), random_codes(1, 1)
    for keep, rule in (
        (np.array([1, 0, 1, 1]), "keep must be ids or a mask of bool: ids must not repeat, 1 does"),
        ([[0, 1], [2, 3]], "keep must be ids or a mask bool[4] or bool[1 4], got int64[2, 2]"),
        ([[0], [2, 3]], "keep must be ids or a mask, got rows of several lengths"),
        ([0.0, 1.0], "keep must be ids or a mask of bool: ids must be whole numbers"),
    ):
        refused(rule, lambda keep=keep: gallery.search(query, 2, keep=keep))


def test_a_k_or_radius_of_any_type_is_a_number_or_one_error():
    gallery, query = codes_gallery(random_codes(0, 4)), random_codes(1, 1)
    expected = gallery.search(query, 2)
    for k in (np.int16(2), np.array(2), 2.0):
        assert_found(gallery.search(query, k), expected)
    for k in (None, "2", np.array([2]), 1.5):
        refused("k must be a whole number, got", lambda k=k: gallery.search(query, k))
    assert gallery.search(query, 2**40).indices.shape == (1, 2**16)
    found = gallery.range_search(query, np.float32(12))
    assert found.starts.tolist() == [0, 4]
    for radius in (None, "2", np.array([2])):
        refused("radius must be a number, got", lambda r=radius: gallery.range_search(query, r))
