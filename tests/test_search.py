"""Nearest codes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import soak

from jaxret import codes, search
from jaxret.search import (
    counting,
    euclidean,
    hamming,
    host,
    passes,
    processor,
    scan,
    select,
    threads,
    validate,
)

NEVER = np.iinfo(np.int32).max
RNG = np.random.default_rng


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    """Search by compiled programs alone: test_search_host tests what NumPy answers."""
    monkeypatch.setattr(host, "BUDGET", -1)


def stable(distances, k, mask=None):
    """A stable NumPy argsort: what every search must equal, to the last tie."""
    far = np.where(True if mask is None else mask, distances, NEVER).astype(np.int64)
    order = np.argsort(far, axis=1, kind="stable")[:, :k]
    distances = np.take_along_axis(far, order, axis=1)
    missing = ((0, 0), (0, k - order.shape[1]))
    order = np.where(distances == NEVER, -1, order)
    return (
        np.pad(distances, missing, constant_values=NEVER),
        np.pad(order, missing, constant_values=-1),
    )


def distances_of(query, gallery):
    return np.bitwise_count(query[:, None] ^ gallery[None]).sum(axis=2).astype(np.int64)


def assert_same(found, expected):
    np.testing.assert_array_equal(found.distances, expected[0])
    np.testing.assert_array_equal(found.indices, expected[1])


def random_codes(seed, n, bits, values=2):
    """Codes of which many are equal: each takes one of a few values."""
    rng = RNG(seed)
    distinct = np.asarray(codes.pack(rng.normal(size=(values, bits)).astype(np.float32)))
    return distinct[rng.integers(0, values, size=n)]


def test_the_arrays_used_as_truth_here_equal_the_definition():
    query, gallery = random_codes(0, 3, 40, 9), random_codes(1, 30, 40, 9)
    mask = RNG(0).random((3, 30)) < 0.5
    truth = reference.topk(reference.hamming_distances(query, gallery), 20, mask)
    distances, order = stable(distances_of(query, gallery), 20, mask)
    assert [[j for _, j in row] for row in truth] == order.tolist()
    assert [[NEVER if d is None else d for d, _ in row] for row in truth] == distances.tolist()


# 10 neighbors follow the minima, more are found by a scan (`test_search_scan`); 40,000 are more
# than there are rows. Under jit 200 are counted and 40,000 sorted.
WAYS = (10, 200, 40_000)


@pytest.mark.parametrize("k", [10, 40_000, *soak(200)])
@pytest.mark.parametrize("masked", [True, *soak(False)])
def test_neighbors_equal_a_stable_argsort(k, masked):
    for n, values in ((1, 1), (33, 5), (3000, 1), (3000, 20), (32_768, 3000)):
        query, gallery = random_codes(n, 3, 64, values), random_codes(n + 1, n, 64, values)
        mask = RNG(n).random((3, n)) < RNG(n).random() if masked else None
        found = search.hamming_topk(query, gallery, k, mask=mask)
        assert_same(found, stable(distances_of(query, gallery), k, mask))


LONG = (600, 10), (225, 100), (5000, 10)
LONG_CODES = [pytest.param(*case, marks=pytest.mark.soak) for case in LONG]


@pytest.mark.parametrize(("bits", "k"), [(1, 10), (12, 10), *LONG_CODES])
def test_codes_of_any_length_are_searched(bits, k):
    query, gallery = random_codes(bits, 2, bits, 40), random_codes(bits + 1, 500, bits, 40)
    truth = distances_of(query, gallery)
    assert_same(search.hamming_topk(query, gallery, k), stable(truth, k))


LAID_OUT = 2000


@pytest.mark.soak
@settings(max_examples=15, deadline=None)
@given(
    bits=st.sampled_from([1, 12, 64, 100]),
    n=st.integers(0, LAID_OUT),
    values=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
    k=st.sampled_from([10, 100]),
    kept=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
)
def test_ties_duplicates_filters_and_empty_galleries(bits, n, values, seed, k, kept):
    gallery = random_codes(seed, LAID_OUT, bits, values)[:n]
    query = random_codes(seed + 1, 3, bits, values)
    mask = RNG(seed).random((3, n)) < kept
    found = search.hamming_topk(query, gallery, k, mask=mask)
    assert_same(found, stable(distances_of(query, gallery), k, mask))


@pytest.mark.soak
def test_a_gallery_of_two_blocks_and_distances_in_order_of_rows():
    """Rows that come nearer and nearer: the threshold of groups is far from that of rows."""
    z = np.tri(64, 64, -1)[np.arange(40_000) // 625] * 2 - 1.0
    gallery = np.asarray(codes.pack(jnp.asarray(z, jnp.float32)))
    query = gallery[[0, 20_000, 39_999]]
    truth = distances_of(query, gallery)
    for k in (10, 300):
        assert_same(search.hamming_topk(query, gallery, k), stable(truth, k))


@pytest.mark.slow
def test_the_first_neighbors_of_a_longer_list_are_the_shorter_list():
    query, gallery = random_codes(0, 3, 64, 300), random_codes(1, 3000, 64, 300)
    longest = search.hamming_topk(query, gallery, 40_000)
    for k in WAYS:
        shorter = search.hamming_topk(query, gallery, k)
        assert_same(shorter, (longest.distances[:, :k], longest.indices[:, :k]))


@pytest.mark.soak
@pytest.mark.parametrize("k", WAYS)
def test_a_small_budget_of_memory_changes_nothing(k):
    query, gallery = random_codes(0, 3, 64, 300), random_codes(1, 3000, 64, 300)
    whole = search.hamming_topk(query, gallery, k)
    assert_same(search.hamming_topk(query, gallery, k, memory=1), whole)


@pytest.mark.parametrize("k", WAYS)
@pytest.mark.soak
def test_search_under_jit_is_the_same(k):
    query, gallery = random_codes(0, 3, 64, 300), random_codes(1, 3000, 64, 300)
    mask = RNG(0).random((3, 3000)) < 0.3
    traced = jax.jit(lambda q, g, m: search.hamming_topk(q, g, k, mask=m))(query, gallery, mask)
    assert_same(traced, search.hamming_topk(query, gallery, k, mask=mask))


def test_a_packed_mask_and_a_mask_for_all_queries_are_understood():
    query, gallery = random_codes(0, 3, 64, 300), random_codes(1, 3000, 64, 300)
    mask = RNG(0).random(3000) < 0.5
    packed = codes.pack_mask(mask)
    np.testing.assert_array_equal(packed.words, codes.pack(mask[None]))
    expected = stable(distances_of(query, gallery), 10, mask[None])
    for form in (mask, mask[None], np.tile(mask, (3, 1)), packed):
        assert_same(search.hamming_topk(query, gallery, 10, mask=form), expected)


@pytest.mark.soak
def test_a_growing_gallery_and_few_query_counts_compile_little():
    gallery = random_codes(0, 3000, 96, 300)
    before = hamming._GROUP_MINIMA.wide._cache_size()
    for n in range(1, 3000, 100):
        search.hamming_topk(gallery[:3], search.lay_out(gallery[:n]), 3)
    assert hamming._GROUP_MINIMA.wide._cache_size() == before + 1
    sizes = {search.few_sizes(queries) for queries in range(1, 1025)}
    assert len(sizes) <= 36
    assert all(search.few_sizes(q) < 1.25 * q + 1 for q in range(1, 1025))


@pytest.mark.soak
def test_many_numbers_of_neighbors_compile_few_programs_and_give_the_same_results(monkeypatch):
    lengths = [select.few_lengths(k) for k in range(1, 20001)]
    assert len(set(lengths)) <= 44
    assert all(k <= length <= 1.28 * k + 1 for k, length in enumerate(lengths, 1))
    assert {1, 5, 10, 100, 1000, 20_000} <= set(lengths)

    compiled = []

    def record(call, *arrays, k):
        compiled.append(k)
        return call(*arrays, k=k)

    monkeypatch.setattr(hamming, "_GROUP_MINIMA", partial(record, hamming._GROUP_MINIMA))
    query, gallery = random_codes(0, 3, 64, 300), search.lay_out(random_codes(1, 3000, 64, 300))
    longest = search.hamming_topk(query, gallery, 1000)
    scans = scan._DISTANCES.wide._cache_size()
    for k in (11, 12, 13, 33, 35, 801, 999, 1000):
        found = search.hamming_topk(query, gallery, k)
        assert_same(found, [part[:, :k] for part in longest])
    assert set(compiled) == {13, 40}
    assert scan._DISTANCES.wide._cache_size() == scans  # one program for every k


def test_no_queries_and_no_rows():
    gallery = random_codes(0, 50, 64)
    assert search.hamming_topk(gallery[:0], gallery, 3).indices.shape == (0, 3)
    nothing = search.hamming_topk(gallery[:3], gallery[:0], 10)
    assert_same(nothing, (np.full((3, 10), NEVER), np.full((3, 10), -1)))


def test_the_set_bits_of_masks_are_found_by_rank():
    bits = RNG(0).random((1, 2, 32_768)) < 0.01
    bits[0, 1] = False
    words = np.packbits(bits[0], axis=1, bitorder="little").view("<u4")
    laid = jnp.asarray(words).reshape(2, -1, 64, 16).transpose(1, 3, 0, 2).reshape(-1, 2, 64)
    first_set = jax.jit(counting.first_set, static_argnums=(1, 2))
    rows, found = first_set(laid, 500, 1, True)
    assert found.sum(axis=1).tolist() == [bits[0, 0].sum(), 0]
    np.testing.assert_array_equal(rows[0][found[0]], np.flatnonzero(bits[0, 0]))


def test_bad_requests_are_refused_with_rule_and_value():
    gallery = random_codes(0, 50, 64)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        search.hamming_topk(gallery, gallery, 0)
    with pytest.raises(ValueError, match="as wide, got 1 and 2"):
        search.hamming_topk(gallery[:, :1], search.lay_out(gallery), 1)
    # Under the tests' type checks public functions of search refuse a wrong type before these do.
    with pytest.raises(ValueError, match=r"query must be packed codes, uint32\[n w\], got int32"):
        search.check_codes("query", gallery.view(np.int32))
    with pytest.raises(ValueError, match=r"got uint32\[2\]"):
        search.check_codes("query", gallery[0])
    with pytest.raises(ValueError, match="mask over 50 rows has 50 columns of bool, got 49"):
        search.hamming_topk(gallery, gallery, 1, mask=np.ones(49, bool))
    with pytest.raises(ValueError, match="1 row or one per query"):
        search.hamming_topk(gallery, gallery, 1, mask=np.ones((2, 50), bool))
    with pytest.raises(ValueError, match="memory must be at least 1, got 0"):
        search.hamming_topk(gallery, gallery, 1, memory=0)


@pytest.mark.parametrize("k", [1, 10, 16])
@pytest.mark.parametrize("count", [16, 511, 512])
def test_few_of_little_are_chosen_by_value_then_position(k, count):
    rng = RNG(count)
    for values in (
        rng.integers(0, 6, (40, count)).astype(np.uint8),
        rng.integers(0, 4097, (40, count)).astype(np.uint16),
        np.where(rng.random((40, count)) < 0.99, 0xFFFFFFFF, 3).astype(np.uint32),
        rng.standard_normal((40, count)).astype(np.float32),
    ):
        order = np.argsort(values, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(select.smallest(jnp.asarray(values), k), order)


@pytest.mark.parametrize("k", [1, 16, 40])
def test_distinct_numbers_are_put_in_order(k):
    numbers = RNG(k).permuted(np.arange(35 * k, dtype=np.int32).reshape(35, k) * 7, axis=1)
    np.testing.assert_array_equal(select.ascending(jnp.asarray(numbers)), np.sort(numbers, axis=1))


@pytest.mark.soak
def test_many_queries_for_few_neighbors_equal_a_stable_argsort():
    query, gallery = random_codes(0, 50, 64, 300), random_codes(1, 3000, 64, 300)
    mask = RNG(2).random((50, 3000)) < 0.01
    truth = distances_of(query, gallery)
    assert_same(search.hamming_topk(query, gallery, 10), stable(truth, 10))
    found = search.hamming_topk(query, gallery, 10, mask=mask)
    assert_same(found, stable(truth, 10, mask))


# Masks and k of another form.


def test_a_mask_of_another_type_or_width_is_one_error_and_never_a_wrong_result():
    for mask, message in (
        (np.ones(50, np.uint32), r"a mask must be bool\[n\], .* got uint32\[50\]"),
        (np.ones(50, np.int64), r"a mask must be bool\[n\], .* got int64\[50\]"),
        ([True] * 50, r"a mask must be bool\[n\], .* got list"),
        (codes.PackedMask(np.ones((1, 1), np.uint32)), "over 50 rows has 2 words, got 1"),
        (codes.PackedMask(np.ones((1, 1025), np.uint32)), "over 50 rows has 2 words, got 1025"),
    ):
        with pytest.raises(ValueError, match=message):
            validate.mask_words(mask, 50, 50, 32_768)


def test_under_jit_a_mask_must_cover_all_rows_that_there_may_be():
    gallery = random_codes(0, 50, 64)

    def search_all(layout, mask):
        return search.hamming_topk(gallery[:3], layout, 10, mask=mask)

    with pytest.raises(ValueError, match=r"over 32768 rows .* got 50"):
        jax.eval_shape(search_all, search.lay_out(gallery), np.ones(50, bool))
    with pytest.raises(ValueError, match="over 50 rows has 50 columns of bool, got 49"):
        jax.eval_shape(search_all, gallery, np.ones(49, bool))


def test_any_whole_number_is_a_k_and_nothing_else_is():
    for k in (3, np.int8(3), np.uint64(3), np.array(3), jnp.int32(3), 3.0, np.float32(3)):
        assert validate.whole("k", k) == 3
        assert type(validate.whole("k", k)) is int
    for k in (None, "3", 2.5, np.nan, np.inf, np.array([3]), [3], True, 1j, object()):
        with pytest.raises(ValueError, match="k must be a whole number, got "):
            validate.whole("k", k)


def test_a_k_far_beyond_the_gallery_costs_nothing():
    gallery = random_codes(0, 200, 32)
    found = search.hamming_topk(gallery[:2], gallery, 2**31)
    assert found.indices.shape == (2, validate.PADDED)
    assert np.all(np.asarray(found.indices)[:, 200:] == -1)
    assert validate.columns(2**40, 10**9) == 10**9


def test_a_layout_numbers_rows_by_int32_and_refuses_more():
    with pytest.raises(ValueError, match="at most 2147483647 rows, got 2147483648"):
        search.lay_out(random_codes(0, 2, 32), 2**31)


@pytest.mark.parametrize(("adders", "counts"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("w", [1, 2, 3, 4, 8, 9, 31, 32, 128, 129, 300, 320])
def test_bits_are_counted_alike_on_all_processors_in_a_loop_and_in_a_chain(
    w, adders, counts, monkeypatch
):
    monkeypatch.setattr(passes.processor, "counts_vectors", lambda: counts)
    words = np.concatenate([random_codes(w, w, 32 * 5), np.full((w, 1), 2**32 - 1, np.uint32)], 1)
    found = passes.count_bits(w, lambda word: jnp.asarray(words)[word], (6,), adders)
    np.testing.assert_array_equal(found, np.bitwise_count(words).sum(axis=0))
    assert found[5] == 32 * w


@pytest.mark.parametrize(
    ("text", "counts", "name"),
    [
        ("model name\t: A\nflags\t\t: fpu avx2\nmodel name\t: B\n", False, "A"),
        ("model name : A\nflags : avx512_vpopcntdq avx2\n", True, "A"),
        ("Features\t: fp asimd\n", True, ""),
        ("processor : 0\n", None, ""),
        (None, None, ""),
    ],
)
def test_a_processor_is_known_by_what_it_says(text, counts, name, tmp_path, monkeypatch):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    assert processor.counts_vectors.__wrapped__() is counts
    assert processor.name.__wrapped__() == name


def test_threads_are_as_many_as_the_cores_this_process_may_use(monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: {3, 5, 7}, raising=False)
    assert threads.cores() == 3
    seen = []
    threads.on_host_threads(seen.extend, 10)
    assert sorted(seen) == list(range(10))


@pytest.mark.parametrize("k", [3, 20, 30])
def test_numbers_are_sorted_in_pieces_as_they_are_at_once(k, monkeypatch):
    monkeypatch.setattr(threads, "AT_ONCE", 64)
    distances = RNG(0).integers(0, 9, (21, 30)).astype(np.float32)
    distances[:, 28:] = np.inf
    nearest, place = threads.least_on_host(distances, k)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(nearest, np.take_along_axis(distances, order, axis=1))
    np.testing.assert_array_equal(place, np.where(order < 28, order, -1))


def test_only_two_results_are_there_at_once():
    there, most = set(), []

    class Result:
        def __init__(self, number):
            self.number = number
            there.add(number)
            most.append(len(there))

        def __del__(self):
            there.discard(self.number)

    results = (((Result(i),), 1) for i in range(5))
    (numbers,) = select.gather(results, lambda result: [np.array([result.number])])
    np.testing.assert_array_equal(numbers, range(5))
    assert max(most) == 2


def test_a_layout_is_written_over_block_by_block_for_codes_and_vectors():
    for rows in (random_codes(0, 90, 32), RNG(0).normal(size=(90, 3)).astype(np.float32)):
        layout = search.lay_out(rows)
        changed = layout.overwrite(0, rows[::-1])
        assert (int(changed.size), changed.width, changed.capacity % changed.block) == (
            90,
            rows.shape[1],
            0,
        )
        for one, other in zip(
            changed, search.lay_out(np.ascontiguousarray(rows[::-1])), strict=True
        ):
            if np.shape(one) != (rows.shape[1],):  # the centre stays
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_nothing_waits_for_the_device_before_a_result_is_read(monkeypatch):
    """What a search reads of arrays on a device it would wait for: nothing, by any way to read."""
    reads = []

    def counted(name, read):
        def count(*values, **options):
            if any(isinstance(value, jax.Array) for value in values[:1]):
                reads.append(name)
            return read(*values, **options)

        return count

    layout = search.lay_out(random_codes(1, 700, 64, 50))
    query = jnp.asarray(random_codes(0, 3, 64, 50))
    words = codes.pack_mask(RNG(0).random(700) < 0.5)
    vectors = search.lay_out(RNG(1).normal(size=(700, 4)).astype(np.float32))
    points = jnp.asarray(RNG(2).normal(size=(3, 4)).astype(np.float32))
    for module in (select, euclidean):
        monkeypatch.setattr(module, "on_cpu", lambda *arrays: False)  # as on an accelerator
    for name in ("__int__", "__bool__", "__float__", "__index__", "item", "tolist"):
        monkeypatch.setattr(type(query), name, counted(name, getattr(type(query), name)))
    for name in ("asarray", "array"):
        monkeypatch.setattr(np, name, counted(name, getattr(np, name)))
    int(query[0, 0])
    assert reads == ["__int__"]  # what is read is seen
    reads.clear()
    search.hamming_topk(query, layout, 10)
    search.hamming_topk(query, layout, 10, mask=words)
    assert reads == []
    search.euclidean_topk(points, vectors, 10)  # reads whether bounds prove the result: an answer
    assert set(reads) == {"asarray"}


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 10, pytest.param(70, marks=pytest.mark.soak)])
def test_distances_of_more_than_16_bits_are_whole(k):
    words = 2**11 + 5
    gallery = RNG(0).integers(0, 2**32, (70, words), dtype=np.uint32)[RNG(1).integers(0, 70, 150)]
    query = gallery[:2].copy()
    gallery[3], gallery[5] = ~query[0], ~query[0]  # as far as can be, twice
    expected = stable(distances_of(query, gallery), k)
    assert_same(search.hamming_topk(query, gallery, k), expected)
    under_jit = jax.jit(lambda query, gallery: search.hamming_topk(query, gallery, k))
    assert_same(under_jit(query, gallery), expected)
