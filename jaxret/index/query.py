"""Search an index by images: indexed ones, files from anywhere, bytes."""

import math
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from jaxret.index import contents, model, snapshot
from jaxret.index.catalogue import Row
from jaxret.index.contents import UnreadableError
from jaxret.index.places import PhotoIndexError
from jaxret.index.reader import (
    Filters,
    Image,
    View,
    check_distance,
    images_of,
    is_unchanged,
    mask_of,
    path_below,
    view,
)
from jaxret.index.scan import entry_of

MOST = 2**31  # results


class Query(NamedTuple):
    """An image that is searched by.

    name: as the user gave it. file: where it is, None for bytes. ids: the indexed images that are
    the query itself, which are not results. code: u32[w] or f32[d].
    """

    name: str
    file: str | None
    ids: tuple[int, ...]
    code: Shaped[np.ndarray, " w"]
    negative: bool = False


class Found(NamedTuple):
    """The answer to a search.

    index: see `View.describe`. results: ascending distances. searched: how many images the filters
    left. within: how many of these are within the distance that was asked for, all without one.
    distances are bits, or squared Euclidean; of several queries the sum over positive ones less
    that over negative ones.
    """

    index: dict[str, Any]
    queries: list[Query]
    results: list[Image]
    searched: int
    within: int


AnyQuery = str | os.PathLike | bytes | int | np.ndarray


def search(
    queries: Sequence[str | os.PathLike | bytes | int],
    index: Path,
    *,
    negative: Sequence[str | os.PathLike | bytes | int] = (),
    n: int = 20,
    max_distance: float | int | None = None,
    filters: Filters | None = None,
) -> Found:
    """Return the images of an index that are nearest to the queries.

    An indexed image needs no JAX and no decoding. A query itself is not a result; copies of it
    elsewhere are. Equal distances are in the order of ids.

    Args:
        queries: files; or ids; or the bytes of an image.
        index: its folder.
        negative: images to be far from.
        n: how many results at most.
        max_distance: results are within this distance; of one query only.
        filters: which images are searched.

    Returns:
        Found.

    Raises:
        PhotoIndexError: where a query is no image, or the request breaks a rule.
    """
    with view(index) as seen:
        return search_view(
            seen,
            Resolver(seen),
            queries,
            negative=negative,
            n=n,
            max_distance=max_distance,
            filters=filters,
        )


def search_view(
    seen: View,
    resolve: "Resolver",
    queries: Sequence[AnyQuery],
    *,
    negative: Sequence[AnyQuery] = (),
    n: int = 20,
    max_distance: float | int | None = None,
    filters: Filters | None = None,
) -> Found:
    """Return what `search` returns, of an index that is open.

    resolve turns queries into codes; it may keep an encoder from one search to the next.
    """
    check_request(queries, negative, n, max_distance)
    known = [resolve(query) for query in queries]
    known += [resolve(query)._replace(negative=True) for query in negative]
    return rank(seen, known, n=n, max_distance=max_distance, filters=filters)


def check_request(
    queries: Sequence[AnyQuery],
    negative: Sequence[AnyQuery],
    n: int,
    max_distance: float | int | None,
) -> None:
    """Raise PhotoIndexError where a search breaks a rule."""
    if n < 1:
        raise PhotoIndexError(f"-n must be at least 1, got {n}")
    if not queries:
        raise PhotoIndexError("a search needs at least one QUERY")
    if max_distance is not None and (len(queries) != 1 or negative):
        raise PhotoIndexError("--max-distance needs one query, and no --not")
    check_distance(max_distance)


def rank(
    seen: View,
    known: Sequence[Query],
    *,
    n: int,
    max_distance: float | int | None,
    filters: Filters | None,
) -> Found:
    """Return the images of an open index that are nearest to queries whose codes are known."""
    rows = seen.snapshot
    if not len(rows.ids):
        return Found(seen.describe(), list(known), [], 0, 0)
    own = rows.rows_of(np.array([number for query in known for number in query.ids], np.int64))
    keep = mask_of(seen, filters or Filters())
    positive = np.stack([query.code for query in known if not query.negative])
    others = [query.code for query in known if query.negative]
    distances = snapshot.scores(rows, positive, np.stack(others) if others else None)
    searched = within = _left(len(distances), keep, own)
    if max_distance is not None:
        near = distances <= max_distance
        keep = near if keep is None else keep & near
        within = _left(len(distances), keep, own)
    best = snapshot.nearest(distances, min(n, MOST), keep, own)
    results = images_of(seen, rows.ids[best].tolist(), distances[best])
    return Found(seen.describe(), list(known), results, searched, within)


def _left(n: int, keep: Bool[np.ndarray, " n"] | None, own: Int64[np.ndarray, " m"]) -> int:
    """Return how many of n rows are kept and are not the queries themselves."""
    own = np.unique(own)
    if keep is None:
        return n - len(own)
    return int(np.count_nonzero(keep)) - int(np.count_nonzero(keep[own]))


class Resolver:
    """Turns what a user names into queries; the encoder is loaded once, where it is needed.

    load returns the encoder of an index: see `model.load`.
    """

    def __init__(self, seen: View, load: Callable[..., model.Model] = model.load):
        self.seen = seen
        self.load = load
        self._model: model.Model | None = None

    def __call__(self, query: AnyQuery) -> Query:
        """Return a query by an id, the bytes of an image, its pixels u8[s s 3], or a file."""
        if isinstance(query, int):
            return self._by_id(query)
        if isinstance(query, bytes):
            if not query:
                raise PhotoIndexError("-: standard input held nothing, an image is expected")
            model.warm()
            return Query("-", None, (), self._encode(_picture(query, "-", self._side())))
        if isinstance(query, np.ndarray):
            return Query("-", None, (), self._encode(query))
        return self._by_file(os.fspath(query))

    def _by_id(self, number: int) -> Query:
        is_possible = abs(number) < 2**63  # more is no number for SQLite
        row = self.seen.catalogue.rows_of([number]).get(number) if is_possible else None
        if row is None:
            raise PhotoIndexError(f"no image has the id {number}")
        return Query(f"id:{number}", self.seen.file_of(row.path), (number,), self._code_of(number))

    def _by_file(self, name: str) -> Query:
        facts = regular_file(name)
        own = self._itself(name, facts)
        same = [row for row in own if is_unchanged(row, facts)]
        if same:
            code = self._code_of(same[0].id)
            return Query(name, os.path.abspath(name), tuple(row.id for row in own), code)
        code = self._code_of_content(name)
        if code is None:
            model.warm()
            with open(name, "rb") as file:
                code = self._encode(_picture(file.read(), name, self._side()))
        return Query(name, os.path.abspath(name), tuple(row.id for row in own), code)

    def itself(self, name: str | os.PathLike) -> tuple[int, ...]:
        """Return the ids of the images that are this very file; none where it is not here."""
        try:
            facts = os.stat(name)
        except (OSError, ValueError):
            return ()
        return tuple(row.id for row in self._itself(os.fspath(name), facts))

    def _itself(self, name: str, facts: os.stat_result) -> list[Row]:
        """Return the images that are this very file, by its path or by device and inode."""
        catalogue, entry = self.seen.catalogue, entry_of(facts)
        path = path_below(self.seen.root, name)
        row = catalogue.row_at(path) if path else None
        found = [] if row is None else [row]
        for other in catalogue.rows("inode = ?", [entry.inode]):
            try:
                there = os.stat(self.seen.file_of(other.path))
            except OSError:
                continue
            if os.path.samestat(there, facts) and other not in found:
                found.append(other)
        return found

    def _code_of(self, number: int) -> np.ndarray:
        rows = self.seen.snapshot
        return np.asarray(rows.values[rows.rows_of(np.array([number]))[0]])

    def _code_of_content(self, name: str) -> np.ndarray | None:
        """Return the code of a file whose bytes are in the index, under whatever name."""
        try:
            digest = contents.read_digest(name, name).digest
        except UnreadableError as error:
            raise PhotoIndexError(f"{name}: {error}") from error
        known = self.seen.catalogue.contents_of([digest]).get(digest)
        if known is None:
            return None
        return np.frombuffer(known.code, snapshot.DTYPES[self.seen.snapshot.kind])

    def _side(self) -> int:
        return self.seen.facts["model"]["image_size"] or 1

    def _encode(self, pixels: np.ndarray) -> np.ndarray:
        if self._model is None:
            self._model = self.load(self.seen.catalogue.index, self.seen.facts["model"])
        return self._model.encode(pixels[None])[0]


def regular_file(name: str) -> os.stat_result:
    """Return the facts of a file; raise PhotoIndexError where there is none."""
    try:
        facts = os.stat(name)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        words = "" if os.sep in name or "." in name else ": jaxret searches by image, not by words"
        raise PhotoIndexError(f'no file "{name}"{words}') from None
    except OSError as error:
        raise PhotoIndexError(f"{name}: {error.strerror}") from error
    if not stat.S_ISREG(facts.st_mode):
        what = "a folder" if stat.S_ISDIR(facts.st_mode) else "no file"
        raise PhotoIndexError(f"{name}: is {what}, a query is an image file")
    return facts


def _picture(content: bytes, name: str, side: int) -> np.ndarray:
    try:
        picture = contents.decode_bytes(content, side, name)
    except UnreadableError as error:
        raise PhotoIndexError(f"{name}: {error}") from error
    return picture.pixels


def folder_below(root: Path, folder: str) -> str:
    """Return a folder as a path below the root: from the current folder, or else from the root.

    All images lie below a folder that holds the root.
    """
    absolute = os.path.isabs(folder)
    path = path_below(root, folder) if absolute or os.path.isdir(folder) else None
    if path is None and os.path.isdir(folder) and path_below(Path(os.path.abspath(folder)), root):
        return ""
    if path is None:  # no image is indexed by an absolute path: none lies below a folder elsewhere
        path = "" if os.path.normpath(folder) == "." else os.path.normpath(folder)
    return path


def distance_between(seen: View, one: Query, other: Query) -> float | int:
    """Return the distance of two images."""
    rows = seen.snapshot._replace(ids=np.zeros(1, np.int64), values=one.code[None])
    found = snapshot.distances(rows, other.code)[0].item()
    return found if math.isfinite(found) else float("inf")
