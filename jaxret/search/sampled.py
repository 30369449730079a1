"""Many vectors at once on a CPU: a sample of the rows tells how far to look.

The threshold of a query is the place in a random sample within which its neighbors lie, all but
certainly: where they do not, the query is named, so that this costs time and no neighbor. The
device multiplies; NumPy reads each table of products while a cache still holds it, and keeps what
is within the thresholds, while the device multiplies the next.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32, Int64

from jaxret.search.select import Compiled
from jaxret.search.threads import Scratch, cores, on_host_threads

LEAST = 256  # queries, and neighbors of each: for fewer a sample costs more than it saves
TILE = 2048  # queries and
STRETCH = 1024  # rows that are multiplied at once: 8 MB
SHARE, SAMPLE = 64, 2**12  # a sample is a 64th of the rows, or so many
CERTAIN = 4.0  # standard deviations
KEPT = 32  # bytes of a row within a threshold, while the rows of each query are put together


class Candidates(NamedTuple):
    """Rows that may be near, for each query, in order.

    cut is the least bound of all other rows. Where `found` is False, candidates are missing.
    """

    row: Int32[np.ndarray, "q w"]
    cut: Float32[np.ndarray, " q"]
    found: Bool[np.ndarray, " q"]


class Sampled:
    """A gallery of vectors, and a sample of them, for queries that want so many candidates.

    low is the least of |x - centre|^2 of each row, infinite where there is none; a multiple of
    STRETCH rows.
    """

    def __init__(
        self,
        rows: Float[Array, "m d"],
        centre: Float32[Array, " d"],
        low: Float32[np.ndarray, " m"],
        wanted: int,
    ):
        self.rows, self.centre, self.low, self.wanted = rows, centre, low, wanted
        there = np.flatnonzero(np.isfinite(low))
        size = min(len(there), max(SAMPLE, len(there) // SHARE))
        drawn = np.random.default_rng(0).choice(len(there), size, replace=False, shuffle=False)
        self._drawn = there[drawn]
        self._place = min(_hardly_more(wanted * size / len(there)), size) - 1
        expected, share = self._place + 1, -(-len(there) // size)
        self.bytes_of_query = 8 * STRETCH + KEPT * expected * share
        self._most = max(wanted, _hardly_more(expected) * share)
        self._starts = (np.unique(there // STRETCH) * STRETCH).astype(np.int32)

    def candidates(self, query: Float32[Array | np.ndarray, "q d"]) -> Candidates:
        """Return the candidates of each query, of at most TILE."""
        kept = _Kept(self._thresholds(np.asarray(query)), self._most)
        low = jnp.asarray(self.low)

        def tables():
            for start in self._starts:
                yield _BOUNDS(query, self.rows, self.centre, low, start, size=STRETCH), start

        one_ahead: Iterator[Any] = itertools.chain(tables(), [None])
        for (table, start), _ in itertools.pairwise(one_ahead):
            kept.add(np.asarray(table), int(start))
        return kept.least(self.wanted)

    def _thresholds(self, query) -> Float32[np.ndarray, " q"]:
        """The bound at the threshold's place in the sample."""
        within, centre = np.empty(len(query), np.float32), np.asarray(self.centre)
        sample = np.asarray(self.rows)[self._drawn].astype(np.float32) - centre
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


def bounds_of_stretch(
    query: Float32[Array, "q d"],
    rows: Float[Array, "m d"],
    centre: Float32[Array, " d"],
    low: Float32[Array, " m"],
    start: Int32[Array, ""],
    *,
    size: int,
) -> Float32[Array, "q s"]:
    """The bounds of so many rows from start on, low - 2 x q: low is one more feature of x."""
    seen = lax.dynamic_slice_in_dim(rows, start, size).astype(jnp.float32) - centre[None]
    seen = jnp.concatenate([seen, lax.dynamic_slice_in_dim(low, start, size)[:, None]], axis=1)
    factor = -2 * (query - centre[None])
    factor = jnp.concatenate([factor, jnp.ones_like(factor[:, :1])], axis=1)
    return jnp.dot(factor, seen.T, precision=lax.Precision.HIGHEST)


_near = Scratch()
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
            near = _near.array(np.bool_, bounds.size).reshape(bounds.shape)
            np.less_equal(bounds, within[:, None], out=near)
            place = np.flatnonzero(near)
            owner, row = np.divmod(place.astype(np.uint32), np.uint32(STRETCH))
            kept.append((owner.astype(np.uint16), row.astype(np.int32) + np.int32(start)))
            kept[-1] += (bounds.reshape(-1)[place],)
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
                row[here][i] = rows[own][_least(values[own], wanted)]
                if ends[i] - own.start > wanted:
                    cut[here][i] = np.partition(values[own], wanted)[wanted]

        self._each(choose)
        return Candidates(row, cut, found)


def _least(values: Float32[np.ndarray, " c"], wanted: int) -> Int64[np.ndarray, " w"]:
    """Places of the least values, ascending."""
    near = np.flatnonzero(values <= np.partition(values, wanted - 1)[wanted - 1])
    if len(near) > wanted:  # of the greatest there are several
        near = np.sort(near[np.argsort(values[near], kind="stable")[:wanted]])
    return near


def _hardly_more(expected: float | int) -> int:
    """A count that is exceeded hardly ever where so many are expected."""
    return max(1, int(np.ceil(expected + CERTAIN * (np.sqrt(expected) + 1))))
