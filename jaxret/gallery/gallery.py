"""The gallery: what is searched, with what a user knows about it."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from jaxtyping import Int, Int32, Int64

from jaxret.codes import PackedMask, pack_mask
from jaxret.gallery import store, validate
from jaxret.gallery.cache import MEMORY, DeviceCache
from jaxret.gallery.columns import NO_LABEL, NO_NAME, Columns, MappedNames
from jaxret.gallery.store import GalleryError
from jaxret.search import Neighbors, Ranges
from jaxret.search.results import within

if TYPE_CHECKING:
    from jaxret.gallery.joined import JoinedGallery

DEAD = 4  # once one row in 4 is removed, the remaining rows are compacted
CHECKS = {"codes": validate.codes, "vectors": validate.vectors}


class Gallery:
    """Codes or vectors with stable ids, optional names and labels; searched exactly.

    Make one by `from_codes`, `from_vectors`, `load` or `open`. Rows keep the order in which they
    were added, which settles ties. An id is given or assigned once and always belongs to its row:
    it is not used again after the row was removed, nor in a gallery that was saved and loaded.
    Assigned ids count upwards from one past the greatest that was ever used.

    A request that breaks a rule raises GalleryError, a ValueError that says rule and value, and
    leaves the gallery as it was.

    memory, in bytes, limits what is kept on the device between searches: codes or vectors that need
    more are read again at each search, and that within the limit.
    """

    def __init__(self, kind: str, width: int, columns: Columns, next_id: int, memory: int):
        """For the constructors below; columns are taken over."""
        self.kind = kind  # "codes" or "vectors"
        self.width = width  # bits, or features
        self._columns = columns
        self._next_id = next_id
        self._retired = [np.zeros(0, np.int64)]
        self._read_only = False
        self._cache = DeviceCache(validate.whole("memory", memory))

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
        return cls._make("codes", codes, validate.whole("bits", bits), ids, names, labels, memory)

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
        ids = np.arange(count) if ids is None else validate.distinct_ids(ids, count)
        names, labels = validate.names(names, count), validate.labels(labels, count)
        values = values.copy() if values.flags.writeable else values
        next_id = int(ids.max(initial=-1)) + 1
        return cls(kind, width, Columns(values, ids, names, labels), next_id, memory)

    @classmethod
    def load(cls, path: str | os.PathLike, *, memory: int = MEMORY) -> "Gallery":
        """A gallery that was saved, read into memory and checked to the last byte."""
        return cls._read(path, memory, mapped=False, verify=True)

    @overload
    @classmethod
    def open(
        cls, path: str | os.PathLike, *, verify: bool = ..., memory: int = ...
    ) -> "Gallery": ...
    @overload
    @classmethod
    def open(
        cls, path: Sequence[str | os.PathLike], *, verify: bool = ..., memory: int = ...
    ) -> "JoinedGallery": ...
    @classmethod
    def open(
        cls, path: Any, *, verify: bool = True, memory: int = MEMORY
    ) -> "Gallery | JoinedGallery":
        """A gallery that was saved, read-only and mapped: what is not asked for is not read.

        A list of folders, such as the shares of a large gallery, is opened as one: `JoinedGallery`.

        It may be larger than the memory of machine and device. verify reads all of it once, a
        second for a gigabyte or two; without, only the header and the sizes of the files are
        checked, and altered bytes go unseen. A save to the same folder does not change what is
        open.
        """
        if not isinstance(path, (str, os.PathLike)):
            from jaxret.gallery.joined import JoinedGallery

            own = validate.whole("memory", memory) // max(1, len(path)) or 1
            return JoinedGallery([cls.open(one, verify=verify, memory=own) for one in path])
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
        """Return the name of each id of a list; "" where none was given, and for the id -1."""
        self._columns.check_whole("names")
        rows: list[int] = self._rows(ids, least=-1).reshape(-1).tolist()
        names = self._columns.names
        return [NO_NAME if names is None or row < 0 else names[row] for row in rows]

    def labels_of(self, ids: Any) -> Int32[np.ndarray, "..."]:
        """Return labels in the shape of ids; -1 where none was given, and for the id -1.

        The id -1 stands past the end of a search's result.
        """
        self._columns.check_whole("labels")
        rows, labels = self._rows(ids, least=-1), self._columns.labels
        if labels is None or not self._columns.size:
            return np.full(rows.shape, NO_LABEL, np.int32)
        return np.where(rows < 0, np.int32(NO_LABEL), labels[rows])

    def search(self, query: Any, k: Any, *, keep: Any = None) -> Neighbors:
        """Return the k nearest rows to each query, in NumPy; indices are ids, int64.

        Of equal distances the row that was added first comes first. Past the end the id is -1 and
        the distance the greatest of its type. keep narrows the search: a list of ids, or a mask in
        the order of `ids`, bool[n] or bool[q n] for a mask per query. query is u32[q w] or
        f32[q d]. A k above 65,536 and the gallery's rows gives as many columns as the greater.
        """
        k = validate.columns(k, self._columns.size)
        query, mask = self._checked(query, keep)
        found = self._cache.topk(query, self._columns, k, mask=mask)
        indices = np.asarray(found.indices)
        all_there = mask is None and k <= self._columns.size
        ids = self._columns.ids[indices] if all_there else self._ids_at(indices)
        return Neighbors(np.asarray(found.distances), ids)

    def range_search(
        self, query: Any, radius: Any, limit: Any = None, *, keep: Any = None
    ) -> Ranges:
        """Return all rows at a distance of at most radius from each query.

        Args:
            query: codes u32[q w] or vectors f32[q d].
            radius: in the unit of the distances: bits, or squared.
            limit: the most rows for a query; the nearest are returned. None for all.
            keep: as for `search`.

        Returns:
            Ranges: query i found indices[starts[i] : starts[i + 1]], which are ids, in the order
            of `search`; where complete[i] is False the limit was reached and there are more.

        Raises:
            GalleryError: if an argument breaks its rule.
        """
        limit = None if limit is None else validate.whole("limit", limit)
        radius = validate.number("radius", radius)
        query, mask = self._checked(query, keep)
        columns = self._columns

        def topk(query, k, mask):
            return self._cache.topk(query, columns, k, mask=mask)

        found = within(topk, query, columns.size, radius, limit, mask)
        return found._replace(indices=self._ids_at(found.indices))

    def _checked(self, query: Any, keep: Any) -> tuple:
        """The query, and the rows to search where these are not all: a packed mask over them."""
        columns = self._columns
        query = CHECKS[self.kind]("query", query, self.width)
        columns.check_whole("values")
        if keep is None:
            return query, None if columns.dead == 0 else pack_mask(columns.alive())
        keep = validate.keep(keep, len(query), len(self))
        if keep.dtype != bool:
            mask = np.zeros(columns.size, bool)
            mask[self._rows(keep)] = True
            return query, pack_mask(mask)
        if columns.dead == 0:
            return query, pack_mask(keep)
        there, row = np.flatnonzero(columns.alive()), np.zeros(columns.size, bool)
        words = []
        for wanted in keep:  # one by one: bits, not bytes, are held for all of them
            row[there] = wanted
            words.append(pack_mask(row).words)
        return query, PackedMask(np.concatenate(words))

    def _ids_at(self, rows: Int[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        if not self._columns.size:
            return rows.astype(np.int64)
        return np.where(rows < 0, -1, self._columns.ids[rows])

    def _rows(self, ids: Any, least: int = 0) -> Int64[np.ndarray, "..."]:
        ids = validate.ids(ids, least)
        rows = self._columns.find(ids)
        if ((rows < 0) & (ids >= 0)).any():
            raise GalleryError(f"id {ids[(rows < 0) & (ids >= 0)].flat[0]} is not in the gallery")
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
            ids = validate.distinct_ids(ids, count)
            self._check_unused(ids)
        names, labels = validate.names(names, count), validate.labels(labels, count)
        start = self._columns.size
        self._columns.append(values, ids, names, labels)
        self._next_id = max(self._next_id, int(ids.max(initial=-1)) + 1)
        self._cache.touch(np.arange(start, start + count))
        return ids

    def remove(self, ids: Any) -> None:
        """Remove rows. Their ids are never used again."""
        self._check_writable()
        ids = validate.distinct_ids(ids)
        self._columns.kill(self._rows(ids))
        self._retired.append(ids)
        if self._columns.dead * DEAD > self._columns.size:
            self._columns.compact()
            self._cache.clear()

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
        ids = validate.distinct_ids(ids, len(values))
        names, labels = validate.names(names, len(values)), validate.labels(labels, len(values))
        rows = self._rows(ids)
        self._columns.replace(rows, values, names, labels)
        self._cache.touch(rows)

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
