"""Many vectors at once on a CPU: a sample of the rows tells how far to look.

A query's threshold is a distance that a random sample of the rows gives: the query's neighbors are
all but certainly nearer. A query for which that fails is reported, and is searched in another way.
The device multiplies a stretch of rows by the queries; NumPy keeps the rows whose bounds are within
the thresholds, while the device multiplies the next stretch.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32

from jaxret.search.select import Compiled, one_ahead
from jaxret.search.threads import Scratch, cores, on_host_threads

LEAST = 256  # queries, and neighbors of each: with fewer a sample costs more than it saves
TILE, STRETCH = 2048, 1024  # queries and rows that are multiplied at once: 8 MB
SHARE, SAMPLE = 64, 2**12  # a sample is a 64th of the rows, but at least 4,096 rows
CERTAIN = 4.0  # standard deviations above the mean that a count hardly ever exceeds
KEPT = 32  # bytes that a row within a threshold takes until its query's candidates are chosen


class Candidates(NamedTuple):
    """The rows with the least bounds, for each query, in order of rows.

    cut is the least bound of all other rows. Where `found` is False, the rows mean nothing.
    """

    row: Int32[np.ndarray, "q w"]
    cut: Float32[np.ndarray, " q"]
    found: Bool[np.ndarray, " q"]


class Sampled:
    """A gallery of vectors and a sample of them, for queries that each want `wanted` candidates.

    rows, centre and low are those of `vectors.place`; low is infinite for rows to leave out, too.
    Beside them a search needs `bytes`, and `bytes_of_query` for each query.
    """

    def __init__(
        self,
        rows: Float[Array, "m d"],
        centre: Float32[Array, " d"],
        low: Float32[np.ndarray, " m"],
        wanted: int,
    ):
        self.rows, self.centre, self.low, self.wanted = rows, centre, low, wanted
        is_there = np.isfinite(low)
        there = int(np.count_nonzero(is_there))
        size = min(there, max(SAMPLE, there // SHARE))
        drawn = np.random.default_rng(0).choice(there, size, replace=False, shuffle=False)
        leading = is_there[:there].all()
        self._drawn = drawn if leading else np.flatnonzero(is_there)[drawn]
        self._place = min(_hardly_more(wanted * size / there), size) - 1
        expected, share = self._place + 1, -(-there // size)
        self.bytes = (1 if leading else 9) * len(low) + 6 * size * rows.shape[1]
        self.bytes_of_query = 8 * STRETCH + KEPT * expected * share
        self._most = max(wanted, _hardly_more(expected) * share)
        stretches = np.flatnonzero(is_there.reshape(-1, STRETCH).any(axis=1))
        self._starts = (stretches * STRETCH).astype(np.int32)

    def candidates(self, query: Float32[Array | np.ndarray, "q d"]) -> Candidates:
        """Return the candidates of each query, of at most TILE."""
        kept = _Kept(self._thresholds(np.asarray(query)), self._most)
        factor, low = _FACTORS(query, self.centre), jnp.asarray(self.low)

        def tables():
            for start in self._starts:
                yield _BOUNDS(factor, self.rows, self.centre, low, start, size=STRETCH), start

        for table, start in one_ahead(tables()):
            kept.add(np.asarray(table), int(start))
            del table
        return kept.least(self.wanted)

    def _thresholds(self, query) -> Float32[np.ndarray, " q"]:
        """The bound at the threshold's place in the sample."""
        within, centre = np.empty(len(query), np.float32), np.asarray(self.centre)
        sample = np.asarray(self.rows)[self._drawn].astype(np.float32, copy=False)
        sample -= centre
        low = self.low[self._drawn]
        at_once = max(cores(), TILE * STRETCH // len(sample))
        for first in range(0, len(query), at_once):
            table = -2 * (query[first : first + at_once] - centre) @ sample.T

            def choose(numbers, table=table, first=first):
                part = table[numbers[0] : numbers[-1] + 1]
                part += low
                part.partition(self._place, axis=1)
                within[first + numbers] = part[:, self._place]

            on_host_threads(choose, len(table))
        return within


def factors(query: Float32[Array, "q d"], centre: Float32[Array, " d"]) -> Float32[Array, "q f"]:
    """What the rows are multiplied by: -2 q, and 1 for their bounds, which are one more feature."""
    factor = -2 * (query - centre[None])
    return jnp.concatenate([factor, jnp.ones_like(factor[:, :1])], axis=1)


def bounds_of_stretch(
    factor: Float32[Array, "q f"],
    rows: Float[Array, "m d"],
    centre: Float32[Array, " d"],
    low: Float32[Array, " m"],
    start: Int32[Array, ""],
    *,
    size: int,
) -> Float32[Array, "q s"]:
    """The bounds low - 2 x q of `size` rows from start on; low is one more feature of x.

    `vectors.slack` allows for four times the rounding of a product of d features, so for that, too.
    """
    seen = lax.dynamic_slice_in_dim(rows, start, size).astype(jnp.float32) - centre[None]
    seen = jnp.concatenate([seen, lax.dynamic_slice_in_dim(low, start, size)[:, None]], axis=1)
    return jnp.dot(factor, seen.T, precision=lax.Precision.HIGHEST)


_marks = Scratch()
_FACTORS = Compiled(factors, ())
_BOUNDS = Compiled(bounds_of_stretch, ("size",))


class _Kept:
    """The rows whose bounds are within the thresholds of some queries."""

    def __init__(self, within: Float32[np.ndarray, " q"], most: int):
        self.within, self.most = within, most
        self.counts = np.zeros(len(within), np.int64)
        parts = np.array_split(np.arange(len(within)), min(cores(), len(within)))
        self._parts = [(slice(part[0], part[-1] + 1), []) for part in parts]

    def _each(self, function) -> None:
        def run(numbers):
            for i in numbers:
                function(*self._parts[i])

        on_host_threads(run, len(self._parts))

    def add(self, table: Float32[np.ndarray, "q s"], start: int) -> None:
        """Keep what is within, of the bounds of a stretch of rows from start on."""

        def keep(here, kept):
            bounds, within, counts = table[here], self.within[here], self.counts[here]
            is_within = _marks.array(np.bool_, bounds.size).reshape(bounds.shape)
            np.less_equal(bounds, within[:, None], out=is_within)
            place = np.flatnonzero(is_within)
            owner, row = np.divmod(place.astype(np.uint32), np.uint32(STRETCH))
            row, value = row.astype(np.int32) + np.int32(start), bounds.reshape(-1)[place]
            kept.append((owner.astype(np.uint16), row, value))
            counts += np.bincount(owner, minlength=len(counts))
            within[counts > self.most] = -np.inf

        self._each(keep)

    def least(self, wanted: int) -> Candidates:
        """The wanted rows of the least bounds of each query, in order of rows."""
        found = (self.counts >= wanted) & (self.counts <= self.most)
        row = np.zeros((len(found), wanted), np.int32)
        cut = self.within.copy()

        def choose(here, kept):
            owner, rows, values = map(np.concatenate, zip(*kept, strict=True))
            kept.clear()
            order = np.argsort(owner, kind="stable")
            rows, values = rows[order], values[order]
            ends = np.cumsum(self.counts[here])
            for i in np.flatnonzero(found[here]):
                own = slice(ends[i] - self.counts[here][i], ends[i])
                least, other = _least(values[own], wanted)
                row[here][i] = rows[own][least]
                if other is not None:
                    cut[here][i] = other

        self._each(choose)
        return Candidates(row, cut, found)


def _least(
    values: Float32[np.ndarray, " n"], k: int
) -> tuple[Bool[np.ndarray, " n"], np.float32 | None]:
    """Which are the k least values, of equal ones the first, and the least other, if there is."""
    if len(values) == k:
        return np.ones(k, bool), None
    last, other = np.partition(values, (k - 1, k))[k - 1 : k + 1]
    least = values < last
    missing = k - np.count_nonzero(least)
    least[np.flatnonzero(values == last)[:missing]] = True
    return least, other


def _hardly_more(expected: float | int) -> int:
    """A count that is hardly ever exceeded, given its mean."""
    return max(1, int(np.ceil(expected + CERTAIN * (np.sqrt(expected) + 1))))
