"""Galleries of several folders, searched as one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from jaxret.gallery import validate
from jaxret.gallery.columns import NO_LABEL, NO_NAME
from jaxret.gallery.gallery import CHECKS, Gallery
from jaxret.gallery.store import GalleryError
from jaxret.search import Neighbors, Ranges


class JoinedGallery:
    """Galleries of one kind and width as one that is read only: nothing of them is copied.

    Rows are in the order of the galleries. Searches, ids, names and labels are as those of
    `Gallery`; no id may be in two galleries.
    """

    def __init__(self, parts: Sequence[Gallery]):
        """Join galleries; raises GalleryError where they do not fit each other."""
        if not parts:
            raise GalleryError("at least one gallery is needed")
        self.kind, self.width = parts[0].kind, parts[0].width
        for part in parts:
            if (part.kind, part.width) != (self.kind, self.width):
                raise GalleryError(f"galleries must be of one kind and width: {parts[0]}, {part}")
        self._parts = list(parts)
        ordered = np.sort(self.ids)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(repeated):
            raise GalleryError(f"ids must differ between galleries, {repeated[0]} is in two")

    def __len__(self) -> int:
        """The rows of all galleries."""
        return sum(map(len, self._parts))

    def __repr__(self) -> str:
        """What it holds, in one line."""
        unit = "bits" if self.kind == "codes" else "features"
        return (
            f"JoinedGallery({len(self)} {self.kind} of {self.width} {unit} in "
            f"{len(self._parts)} galleries)"
        )

    @property
    def ids(self) -> Int64[np.ndarray, " n"]:
        """The id of every row, gallery by gallery: the order of masks."""
        return np.concatenate([part.ids for part in self._parts])

    def search(self, query: Any, k: Any, *, keep: Any = None) -> Neighbors:
        """Return the k nearest rows to each query: see `Gallery.search`."""
        k = validate.columns(k, len(self))
        query = CHECKS[self.kind]("query", query, self.width)
        found = [
            part.search(query, k, keep=mask)
            for part, mask in zip(self._parts, self._masks(keep, len(query)), strict=True)
        ]
        return merge(found, k)

    def range_search(
        self, query: Any, radius: Any, limit: Any = None, *, keep: Any = None
    ) -> Ranges:
        """Return all rows within a radius of each query: see `Gallery.range_search`."""
        query = CHECKS[self.kind]("query", query, self.width)
        found = [
            part.range_search(query, radius, limit, keep=mask)
            for part, mask in zip(self._parts, self._masks(keep, len(query)), strict=True)
        ]
        most = len(self) if limit is None else int(limit)
        starts, distances, ids, complete = [0], [], [], []
        for row in range(len(query)):
            slices = [slice(part.starts[row], part.starts[row + 1]) for part in found]
            near = np.concatenate([p.distances[s] for p, s in zip(found, slices, strict=True)])
            own = np.concatenate([p.indices[s] for p, s in zip(found, slices, strict=True)])
            order = np.argsort(near, kind="stable")[:most]
            distances.append(near[order])
            ids.append(own[order])
            complete.append(all(p.complete[row] for p in found) and len(order) == len(near))
            starts.append(starts[-1] + len(order))
        first = found[0]
        return Ranges(
            np.array(starts, np.int64),
            np.concatenate([*distances, first.distances[:0]]),
            np.concatenate([*ids, first.indices[:0]]),
            np.array(complete, bool),
        )

    def names_of(self, ids: Any) -> list[str]:
        """Return the name of each id of a list; "" where none was given, and for the id -1."""
        ids = validate.ids(ids, -1).reshape(-1)
        names = [NO_NAME] * len(ids)
        for part, places in self._places(ids):
            for place, name in zip(places, part.names_of(ids[places]), strict=True):
                names[place] = name
        return names

    def labels_of(self, ids: Any) -> Int32[np.ndarray, "..."]:
        """Return labels in the shape of ids; -1 where none was given, and for the id -1."""
        ids = validate.ids(ids, -1)
        labels = np.full(ids.size, NO_LABEL, np.int32)
        for part, places in self._places(ids.reshape(-1)):
            labels[places] = part.labels_of(ids.reshape(-1)[places])
        return labels.reshape(ids.shape)

    def _places(
        self, ids: Int64[np.ndarray, " m"]
    ) -> list[tuple[Gallery, Int64[np.ndarray, " p"]]]:
        """Return for each gallery where its ids are in a list; every id but -1 must be known."""
        found = [(part, np.flatnonzero(np.isin(ids, part.ids))) for part in self._parts]
        unknown = ids >= 0
        for _, places in found:
            unknown[places] = False
        if unknown.any():
            raise GalleryError(f"id {ids[unknown][0]} is not in the gallery")
        return found

    def _masks(self, keep: Any, queries: int) -> list[Any]:
        """Return what each gallery is to search."""
        if keep is None:
            return [None] * len(self._parts)
        keep = validate.keep(keep, queries, len(self))
        if keep.dtype != bool:
            self._places(keep)
            keep = np.isin(self.ids, keep)[None]
        ends = np.cumsum([len(part) for part in self._parts])
        return np.split(keep, ends[:-1], axis=1)


def merge(found: Sequence[Neighbors], k: int) -> Neighbors:
    """Return the k nearest of several results; of equal distances the earlier result comes first.

    Args:
        found: Neighbors [q m] of each part of a gallery, ascending; of no row is the index -1.
        k: columns of the result.
    """
    distances = np.concatenate([part.distances for part in found], axis=1)
    ids = np.concatenate([part.indices for part in found], axis=1)
    # No row sorts last: a real distance may be the greatest of its type as well.
    order = np.lexsort((distances, ids < 0), axis=1)[:, :k]
    return Neighbors(*(np.take_along_axis(x, order, axis=1) for x in (distances, ids)))
