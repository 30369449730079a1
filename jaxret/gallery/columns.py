"""The rows of a gallery on the host, in the order of adding, and where each id is among them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int32, Int64, Shaped

from jaxret.gallery.store import check_whole, release

NO_LABEL = -1
NO_NAME = ""
ENCODING = ("utf-8", "surrogatepass")  # a file's name need not be valid text
PIECE = 2**24  # bytes written at a time
NAMES = 2**16  # names written at a time


class Columns:
    """What a gallery knows of each row: value, id, label, name, and whether it was removed.

    The arrays have room to grow: rows past size mean nothing. labels and names are None as long as
    no row has one. A removed row stays, dead, until `compact`.
    """

    def __init__(
        self,
        values: Shaped[np.ndarray, "n w"],
        ids: Int64[np.ndarray, " n"],
        names: Sequence[str] | None = None,
        labels: Int32[np.ndarray, " n"] | None = None,
        ascending: bool | None = None,
    ):
        self.values = values
        self.ids = ids
        self.names = names
        self.labels = labels
        self.size = len(ids)
        self.dead = 0
        self._alive = None  # until a row is removed
        self._ascending = ascending
        self._order = None

    def __len__(self) -> int:
        return self.size - self.dead

    @property
    def ascending(self) -> bool:
        """Are the ids in order? Those that a gallery assigns are."""
        if self._ascending is None:
            ids = self.ids[: self.size]
            self._ascending = bool(np.all(ids[1:] > ids[:-1]))
        return self._ascending

    def alive(self, start: int = 0, stop: int | None = None) -> Bool[np.ndarray, " n"]:
        """Which of these rows are not removed."""
        stop = self.size if stop is None else stop
        return np.ones(stop - start, bool) if self._alive is None else self._alive[start:stop]

    def check_whole(self, *columns: str) -> None:
        """Refuse columns whose mapped file was cut since it was opened."""
        for name in ("ids", *columns):
            column = getattr(self, name)
            if isinstance(column, MappedNames):
                column.check_whole()
            elif isinstance(column, np.ndarray):
                check_whole(name, column)

    def find(self, ids: Int64[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        """The row of each id, -1 where no row that is alive has it."""
        if not self.size:
            return np.full(ids.shape, -1)
        known = self.ids[: self.size]
        if not self.ascending and self._order is None:
            self._order = np.argsort(known, kind="stable")
        order = None if self.ascending else self._order
        row = np.minimum(np.searchsorted(known, ids, sorter=order), self.size - 1)
        row = row if order is None else order[row]
        found = known[row] == ids
        if self._alive is not None:
            found &= self._alive[row]
        return np.where(found, row, -1)

    def append(
        self,
        values: Shaped[np.ndarray, "m w"],
        ids: Int64[np.ndarray, " m"],
        names: list[str] | None,
        labels: Int32[np.ndarray, " m"] | None,
    ) -> None:
        """Add rows at the end."""
        start, stop = self.size, self.size + len(ids)
        self.values = _with_room(self.values, start, stop)
        self.ids = _with_room(self.ids, start, stop)
        self.values[start:stop] = values
        self.ids[start:stop] = ids
        if self._alive is not None:
            self._alive = _with_room(self._alive, start, stop)
            self._alive[start:stop] = True
        if self.labels is not None:
            self.labels = _with_room(self.labels, start, stop)
            self.labels[start:stop] = NO_LABEL
        if self.names is not None:
            assert isinstance(self.names, list)  # mapped names are not written
            self.names.extend([NO_NAME] * len(ids))
        if self._ascending:
            joint = self.ids[max(0, start - 1) : stop]
            self._ascending = bool(np.all(joint[1:] > joint[:-1]))
        self._order = None
        self.size = stop
        self.describe(np.arange(start, stop), names, labels)

    def replace(
        self,
        rows: Int64[np.ndarray, " m"],
        values: Shaped[np.ndarray, "m w"],
        names: list[str] | None,
        labels: Int32[np.ndarray, " m"] | None,
    ) -> None:
        """Give rows new values, and new names and labels where these are given."""
        if not self.values.flags.writeable:
            self.values = self.values.copy()
        self.values[rows] = values
        self.describe(rows, names, labels)

    def describe(
        self,
        rows: Int64[np.ndarray, " m"],
        names: list[str] | None,
        labels: Int32[np.ndarray, " m"] | None,
    ) -> None:
        """Name and label rows; None leaves them as they are."""
        if labels is not None:
            if self.labels is None:
                self.labels = np.full(len(self.ids), NO_LABEL, np.int32)
            elif not self.labels.flags.writeable:
                self.labels = self.labels.copy()
            self.labels[rows] = labels
        if names is not None:
            if self.names is None:
                self.names = [NO_NAME] * self.size
            assert isinstance(self.names, list)  # mapped names are not written
            for row, name in zip(rows, names, strict=True):
                self.names[row] = name

    def kill(self, rows: Int64[np.ndarray, " m"]) -> None:
        """Remove rows; they stay where they are."""
        if self._alive is None:
            self._alive = np.ones(len(self.ids), bool)
        self._alive[rows] = False
        self.dead += len(rows)

    def compact(self) -> None:
        """Drop the rows that were removed; the others keep their order."""
        alive = np.flatnonzero(self.alive())
        self.values, self.ids = self.values[alive], self.ids[alive]
        self.labels = None if self.labels is None else self.labels[alive]
        self.names = None if self.names is None else [self.names[row] for row in alive.tolist()]
        self.size, self.dead = len(alive), 0
        self._alive = self._order = None

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """A column of the rows that are alive, piece by piece."""
        column = getattr(self, name)
        yield column[:0]
        rows = max(1, PIECE // max(1, column[:1].nbytes))
        for start in range(0, self.size, rows):
            stop = min(start + rows, self.size)
            yield column[start:stop][self.alive(start, stop)]
            release(column)

    def encoded_names(self) -> Iterator[np.ndarray]:
        """The names of the rows that are alive, one after the other, as bytes."""
        yield np.zeros(0, np.uint8)
        for names in self._pieces_of_names():
            yield np.frombuffer(b"".join(names), np.uint8)

    def name_ends(self) -> Iterator[np.ndarray]:
        """Where in those bytes each name ends, after a 0."""
        total = np.zeros(1, np.int64)
        yield total
        for names in self._pieces_of_names():
            ends = total[-1] + np.cumsum([len(name) for name in names], dtype=np.int64)
            yield ends
            total = ends if len(ends) else total

    def _pieces_of_names(self) -> Iterator[list[bytes]]:
        names = self.names
        assert names is not None  # a column without names is not written
        for start in range(0, self.size, NAMES):
            rows = np.flatnonzero(self.alive(start, min(start + NAMES, self.size))) + start
            yield [names[row].encode(*ENCODING) for row in rows.tolist()]


class MappedNames(Sequence):
    """Names that are decoded as they are asked for."""

    def __init__(self, content: np.ndarray, ends: np.ndarray):
        self._content, self._ends = content, ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row) -> str:
        return bytes(self._content[self._ends[row] : self._ends[row + 1]]).decode(*ENCODING)

    def check_whole(self) -> None:
        """Refuse names whose mapped file was cut since it was opened."""
        check_whole("names", self._content)
        check_whole("names", self._ends)

    def decoded(self) -> list[str]:
        """All of them."""
        content, ends = self._content.tobytes(), self._ends.tolist()
        return [content[a:b].decode(*ENCODING) for a, b in pairwise(ends)]


def _with_room(array: np.ndarray, size: int, needed: int) -> np.ndarray:
    """The array, or its first rows in one with half as much room again: adding is linear."""
    if needed <= len(array) and array.flags.writeable:
        return array
    room = max(needed, len(array) * 3 // 2)
    grown = np.empty((room, *array.shape[1:]), array.dtype)
    grown[:size] = array[:size]
    return grown
