"""Passes over a whole gallery of codes: what XLA does at the speed of its vector units.

A pass looks at every row once for every query and leaves one small value per group of 32 rows: the
least distance, or a mask of the rows within a distance. The block of codes stays in the nearest
cache while all queries of the tile look at it, so nothing of a row's size is written per query.
"""

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Int32, Shaped, UInt, UInt32

from jaxret.codes import bit
from jaxret.search import processor, select
from jaxret.search.blocks import CLUSTER, GROUP
from jaxret.search.results import far_type

UNROLLED = 128  # population counts in one fused loop; longer chains are cut into steps


def group_minima(
    query: UInt32[Array, "q w"],
    codes: UInt32[Array, "m w 32 64"],
    alive: UInt32[Array, "m p 64"],
    masked: bool,
) -> UInt[Array, "m q 64"]:
    """The least distance in each group, the greatest of the type where it has no row.

    Only rows that alive keeps count; p is 1, or q for a mask per query. Where masked is false these
    are the first rows of the gallery, and past its end the last one is repeated: no bits are
    looked at then.
    """
    far = far_type(codes.shape[1])
    none = jnp.uint32(jnp.iinfo(far).max)

    def step(least, distance, row):
        if masked:
            distance = jnp.where(bit(alive, row), distance, none)
        return jnp.minimum(least, distance)

    start = jnp.full((codes.shape[0], len(query), codes.shape[3]), none)
    least = _over_rows(query, codes, start, step)
    return jnp.where(alive == 0, none, least).astype(far)


def rows_between(
    query: UInt32[Array, "q w"],
    codes: UInt32[Array, "m w 32 64"],
    alive: UInt32[Array, "m p 64"],
    low: Int32[Array, " q"],
    high: Int32[Array, " q"],
) -> UInt32[Array, "m q 64"]:
    """The mask of each group's rows at a distance of at least low and less than high."""
    low, width = (bound.astype(jnp.uint32)[None, :, None] for bound in (low, high - low))

    def step(mask, distance, row):
        bit = jnp.left_shift(jnp.uint32(1), jnp.asarray(row, jnp.uint32))
        # Below low the difference wraps around and is greater than any width.
        return mask | jnp.where(distance - low < width, bit, jnp.uint32(0))

    start = jnp.zeros((codes.shape[0], len(query), codes.shape[3]), jnp.uint32)
    return _over_rows(query, codes, start, step) & alive


def _over_rows(query, codes, start, step):
    """Fold step(value, distance, row) over the 32 rows of every group."""
    words = codes.shape[1]
    at_once = min(GROUP, 1 << max(0, (UNROLLED // words).bit_length() - 1))  # rows

    def distance(rows, row):
        return count_bits(
            words,
            lambda word: query[None, :, word, None] ^ rows[:, None, word, row],
            (codes.shape[0], len(query), codes.shape[3]),
        )

    if at_once == GROUP:
        value = start
        for row in range(GROUP):
            value = step(value, distance(codes, row), jnp.uint32(row))
        return value

    def fold(value, first):
        rows = lax.dynamic_slice_in_dim(codes, first, at_once, axis=2)
        for row in range(at_once):
            value = step(value, distance(rows, row), first.astype(jnp.uint32) + row)
        return value, None

    # A loop cuts the chain: XLA would otherwise need ever more registers, and time to compile.
    return lax.scan(fold, start, jnp.arange(0, GROUP, at_once))[0]


def count_bits(
    words: int,
    differing: Callable[[Any], UInt32[Array, "..."]],
    shape: tuple[int, ...],
    adders: bool = False,
) -> UInt32[Array, "..."]:
    """Count the bits that are set in differing(word) for all words; many words in a loop of few.

    Compilation takes a time that grows with the words in one chain: without the loop, minutes for
    codes of 2,000 words.

    A processor that cannot count the bits of whole vectors needs a dozen instructions for each
    word. There adders may make a sum and a carry of every three words first, by five instructions
    (Warren 2012), so that less is left to count. They pay where each result is written out, and
    lose where a loop folds many rows.
    """
    adders = adders and not select.on_accelerator() and processor.counts_vectors() is False
    count = _count_of_sums if adders else _count
    if words <= UNROLLED:
        return count(map(differing, range(words)))
    at_once = UNROLLED // 4
    whole = words // at_once * at_once

    def add(step, total):
        return total + count(differing(step * at_once + word) for word in range(at_once))

    total = lax.fori_loop(0, whole // at_once, add, jnp.zeros(shape, jnp.uint32))
    rest = range(whole, words)
    return total + count(map(differing, rest)) if rest else total


def _count(words: Iterable[UInt32[Array, "..."]]) -> UInt32[Array, "..."]:
    return functools.reduce(operator.add, map(lax.population_count, words))


def _count_of_sums(words: Iterable[UInt32[Array, "..."]]) -> UInt32[Array, "..."]:
    words, weight, counts = list(words), 0, []
    while words:
        carries = []
        while len(words) > 2:
            sum_, carry = _carry_save(*words[:3])
            words = [*words[3:], sum_]
            carries.append(carry)
        counts.append(_count(words) << weight)
        words, weight = carries, weight + 1
    return functools.reduce(operator.add, counts)


def _carry_save(a, b, c):
    """The sums of the bits at each place, and what they carry to the next."""
    either = a ^ b
    return either ^ c, a & b | either & c


def by_cluster(values: Shaped[Array, "m q 64"]) -> Shaped[Array, "b 16 q 64"]:
    """The groups of each cluster on an axis of their own."""
    return values.reshape(-1, CLUSTER, *values.shape[1:])


def fold_clusters(
    function: Callable[[Array, Array], Array], values: Shaped[Array, "m q 64"]
) -> Shaped[Array, "b q 64"]:
    """Fold the 16 groups of each cluster into one value, group by group."""
    groups = by_cluster(values)
    result = groups[:, 0]
    for group in range(1, CLUSTER):
        result = function(result, groups[:, group])
    return result


def in_order(values: Shaped[Array, "b q 64"]) -> Shaped[Array, "q c"]:
    """One value per cluster, in the order of rows, on one axis for each query."""
    return values.transpose(1, 0, 2).reshape(values.shape[1], -1)


def kth_minimum(
    minima: UInt[Array, "m q 64"], k: Int[Array, ""] | int, words: int
) -> Int32[Array, " q"]:
    """The k-th smallest group minimum of each query; 32 * words where there are fewer groups."""
    bits = 32 * words

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        # At most 16 to a cluster: counted in bytes, 64 to an instruction.
        near = (minima <= middle.astype(minima.dtype)[None, :, None]).astype(jnp.uint8)
        enough = jnp.sum(fold_clusters(jnp.add, near), axis=(0, 2), dtype=jnp.int32) >= k
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    queries = minima.shape[1]
    start = jnp.zeros(queries, jnp.int32), jnp.full(queries, bits, jnp.int32)
    return lax.fori_loop(0, bits.bit_length(), halve, start)[1]
