"""The gallery: what is searched, with what a user knows about it."""

import os
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from jaxret.gallery import doors, store
from jaxret.gallery.columns import NO_LABEL, NO_NAME, Columns, MappedNames
from jaxret.gallery.shelf import KINDS, MEMORY, Shelf
from jaxret.gallery.store import GalleryError
from jaxret.search import Neighbors, Ranges
from jaxret.search.doors import packed
from jaxret.search.ranges import within

DEAD = 4  # when one row of so many is removed, the others move together
CHECKS = {"codes": doors.codes, "vectors": doors.vectors}


class Gallery:
    """Codes or vectors with stable ids, optional names and labels; searched exactly.

    Make one by `from_codes`, `from_vectors`, `load` or `open`. Rows keep the order in which they
    were added, which settles ties. An id is given or assigned once and belongs to its row for ever:
    it is not used again after the row was removed, nor in a gallery that was saved and loaded.
    Assigned ids count upwards from one past the greatest that was ever used.

    Whatever is asked against a rule is a GalleryError, a ValueError that says rule and value; the
    gallery is then as it was.

    memory is in bytes: a gallery whose codes or vectors need at most so much is kept on the device
    between searches; a larger one is read at each search, within so much memory.
    """

    def __init__(self, kind: str, width: int, columns: Columns, next_id: int, memory: int):
        """For the constructors below; columns are taken over."""
        self.kind = kind  # "codes" or "vectors"
        self.width = width  # bits, or features
        self._columns = columns
        self._next_id = next_id
        self._retired = [np.zeros(0, np.int64)]
        self._read_only = False
        self._shelf = Shelf(KINDS[kind], doors.at_least_1("memory", memory))

    # Making.

    @classmethod
    def from_codes(
        cls,
        codes: Any,
        bits: int,
        ids: Any = None,
        names: Any = None,
        labels: Any = None,
        *,
        memory: int = MEMORY,
    ) -> "Gallery":
        """A gallery of packed codes u32[n w], as `codes.pack` makes them, compared by Hamming
        distance. A read-only array is not copied: it may be a memory map larger than the memory.
        """
        return cls._make("codes", codes, doors.at_least_1("bits", bits), ids, names, labels, memory)

    @classmethod
    def from_vectors(
        cls,
        x: Any,
        ids: Any = None,
        names: Any = None,
        labels: Any = None,
        *,
        memory: int = MEMORY,
    ) -> "Gallery":
        """A gallery of finite vectors f32[n d], compared by squared Euclidean distance. A
        read-only array is not copied.
        """
        width = x.shape[1] if len(getattr(x, "shape", ())) == 2 else 1
        return cls._make("vectors", x, width, ids, names, labels, memory)

    @classmethod
    def _make(cls, kind, values, width, ids, names, labels, memory) -> "Gallery":
        values = CHECKS[kind](kind, values, width)
        count = len(values)
        ids = np.arange(count) if ids is None else doors.distinct_ids(ids, count)
        names, labels = doors.names(names, count), doors.labels(labels, count)
        values = values.copy() if values.flags.writeable else values
        next_id = int(ids.max(initial=-1)) + 1
        return cls(kind, width, Columns(values, ids, names, labels), next_id, memory)

    @classmethod
    def load(cls, path: str | os.PathLike, *, memory: int = MEMORY) -> "Gallery":
        """A gallery that was saved, read into memory and checked to the last byte."""
        return cls._read(path, memory, mapped=False, verify=True)

    @classmethod
    def open(
        cls, path: str | os.PathLike, *, verify: bool = True, memory: int = MEMORY
    ) -> "Gallery":
        """A gallery that was saved, read-only and mapped: what is not asked for is not read.

        It may be larger than the memory of machine and device. verify reads all of it once, a
        second for a gigabyte or two; without, only the header and the sizes of the files are
        checked, and altered bytes go unseen. A save to the same folder does not change what is
        open.
        """
        gallery = cls._read(path, memory, mapped=True, verify=verify)
        gallery._read_only = True
        return gallery

    @classmethod
    def _read(cls, path, memory: int, *, mapped: bool, verify: bool) -> "Gallery":
        header, stored = store.read(path, mapped=mapped, verify=verify)
        kind = header["kind"]
        names = MappedNames(stored["names"], stored["ends"]) if "names" in stored else None
        if names is not None and not mapped:
            names = names.decoded()
        columns = Columns(
            stored[kind], stored["ids"], names, stored.get("labels"), header["ascending"]
        )
        gallery = cls(kind, header["width"], columns, header["next_id"], memory)
        gallery._retired = [stored["retired"]]
        return gallery

    def save(self, path: str | os.PathLike) -> None:
        """Write the gallery to a folder, in the place of one that is there.

        A process killed at any moment leaves the old gallery or the new one, whole. Rows that were
        removed are not written.
        """
        columns = self._columns
        stored = {
            self.kind: columns.pieces("values"),
            "ids": columns.pieces("ids"),
            "retired": [self._all_retired()],
        }
        if columns.labels is not None:
            stored["labels"] = columns.pieces("labels")
        if columns.names is not None:
            stored |= {"names": columns.encoded_names(), "ends": columns.name_ends()}
        header = {
            "kind": self.kind,
            "width": self.width,
            "next_id": self._next_id,
            "ascending": columns.ascending,
        }
        store.write(path, header, stored)

    # Asking.

    def __len__(self) -> int:
        """The rows, without those that were removed."""
        return len(self._columns)

    def __repr__(self) -> str:
        """What it holds, in one line."""
        unit = "bits" if self.kind == "codes" else "features"
        return f"Gallery({len(self)} {self.kind} of {self.width} {unit})"

    @property
    def ids(self) -> Int64[np.ndarray, " n"]:
        """The id of every row, in the order of adding: the order of masks."""
        columns = self._columns
        return columns.ids[: columns.size][columns.alive()]

    def names_of(self, ids: Any) -> list[str]:
        """The name of each id of a list, "" where none was given."""
        rows, names = self._rows(ids).reshape(-1).tolist(), self._columns.names
        return [NO_NAME if names is None else names[row] for row in rows]

    def labels_of(self, ids: Any) -> Int32[np.ndarray, "..."]:
        """The label of each id, in the shape of ids; -1 where none was given."""
        rows, labels = self._rows(ids), self._columns.labels
        return np.full(rows.shape, NO_LABEL, np.int32) if labels is None else labels[rows]

    def search(self, query: Any, k: int, *, keep: Any = None) -> Neighbors:
        """The k nearest rows to each query, u32[q w] or f32[q d]; indices are ids, int64.

        Of equal distances the row that was added first comes first. Past the end the id is -1 and
        the distance the greatest of its type. keep narrows the search: a list of ids, or a mask in
        the order of `ids`, bool[n] or bool[q n] for a mask per query. The result is in NumPy.
        """
        k = doors.at_least_1("k", k)
        query, mask = self._asked(query, keep)
        found = self._shelf.topk(query, self._columns, k, mask=mask)
        return Neighbors(np.asarray(found.distances), self._ids_at(np.asarray(found.indices)))

    def range_search(
        self, query: Any, radius: float | int, limit: int | None = None, *, keep: Any = None
    ) -> Ranges:
        """All rows at a distance of at most radius from each query, or the nearest limit of them.

        Query i found indices[starts[i] : starts[i + 1]], which are ids, in the order of `search`;
        where complete[i] is False the limit was reached and there are more. The radius is of the
        kind of the distances: bits, or squared. keep as for `search`.
        """
        limit = None if limit is None else doors.at_least_1("limit", limit)
        if not radius >= 0:  # nan is not
            raise GalleryError(f"radius must be at least 0, got {radius}")
        query, mask = self._asked(query, keep)
        found = within(self._shelf.topk, query, self._columns, radius, limit, mask)
        return found._replace(indices=self._ids_at(found.indices))

    def _asked(self, query: Any, keep: Any) -> tuple:
        """The query, and the rows to search where these are not all: a packed mask over them."""
        columns = self._columns
        query = CHECKS[self.kind]("query", query, self.width)
        if keep is None:
            return query, None if columns.dead == 0 else packed(columns.alive()[None])
        if np.asarray(keep).dtype != bool:
            mask = np.zeros(columns.size, bool)
            mask[self._rows(keep)] = True
            return query, packed(mask[None])
        keep = doors.keep(keep, len(query), len(self))
        if columns.dead == 0:
            return query, packed(keep)
        there, row = np.flatnonzero(columns.alive()), np.zeros(columns.size, bool)
        masks = []
        for wanted in keep:  # one by one: bits, not bytes, are held for all of them
            row[there] = wanted
            masks.append(packed(row[None]))
        return query, np.concatenate(masks)

    def _ids_at(self, rows: Int32[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        if not self._columns.size:
            return rows.astype(np.int64)
        return np.where(rows < 0, -1, self._columns.ids[rows])

    def _rows(self, ids: Any) -> Int64[np.ndarray, "..."]:
        ids = doors.ids(ids)
        rows = self._columns.find(ids)
        if (rows < 0).any():
            raise GalleryError(f"id {ids[rows < 0].flat[0]} is not in the gallery")
        return rows

    # Changing.

    def add(
        self,
        values: Any,
        ids: Any = None,
        names: Any = None,
        labels: Any = None,
    ) -> Int64[np.ndarray, " m"]:
        """Add codes or vectors after the rows that are there; the ids given or assigned."""
        self._check_writable()
        values = CHECKS[self.kind](self.kind, values, self.width)
        count = len(values)
        if ids is None:
            if self._next_id + count >= 2**63:
                raise GalleryError(f"ids must be below 2^63, the next is {self._next_id}")
            ids = self._next_id + np.arange(count)
        else:
            ids = doors.distinct_ids(ids, count)
            self._check_unused(ids)
        names, labels = doors.names(names, count), doors.labels(labels, count)
        start = self._columns.size
        self._columns.append(values, ids, names, labels)
        self._next_id = max(self._next_id, int(ids.max(initial=-1)) + 1)
        self._shelf.touch(np.arange(start, start + count))
        return ids

    def remove(self, ids: Any) -> None:
        """Remove rows. Their ids are never used again."""
        self._check_writable()
        ids = doors.distinct_ids(ids)
        self._columns.kill(self._rows(ids))
        self._retired.append(ids)
        if self._columns.dead * DEAD > self._columns.size:
            self._columns.compact()
            self._shelf.clear()

    def update(
        self,
        ids: Any,
        values: Any,
        names: Any = None,
        labels: Any = None,
    ) -> None:
        """Give rows new codes or vectors, and new names and labels where these are given.

        The rows keep their ids and their places in the order of adding, so among ties too.
        """
        self._check_writable()
        values = CHECKS[self.kind](self.kind, values, self.width)
        ids = doors.distinct_ids(ids, len(values))
        names, labels = doors.names(names, len(values)), doors.labels(labels, len(values))
        rows = self._rows(ids)
        self._columns.replace(rows, values, names, labels)
        self._shelf.touch(rows)

    def _check_writable(self) -> None:
        if self._read_only:
            raise GalleryError("an opened gallery is read-only; Gallery.load gives one to change")

    def _check_unused(self, ids: Int64[np.ndarray, " m"]) -> None:
        present = self._columns.find(ids) >= 0
        if present.any():
            raise GalleryError(f"id {ids[present][0]} is in the gallery already; update changes it")
        retired = np.isin(ids, self._all_retired())
        if retired.any():
            raise GalleryError(f"id {ids[retired][0]} was removed, and is not used again")

    def _all_retired(self) -> Int64[np.ndarray, " r"]:
        """The ids that were removed, in order."""
        if len(self._retired) > 1:
            self._retired = [np.sort(np.concatenate(self._retired))]
        return self._retired[0]
