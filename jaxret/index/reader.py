"""An index as a reader sees it: one generation, whatever a writer does meanwhile."""

import contextlib
import datetime
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Num

from jaxret.index import snapshot
from jaxret.index.catalogue import Catalogue, Content, Row
from jaxret.index.places import CATALOGUE, PhotoIndexError
from jaxret.index.scan import entry_of
from jaxret.index.snapshot import Snapshot


class View(NamedTuple):
    """The published state of an index."""

    catalogue: Catalogue
    facts: dict[str, Any]
    snapshot: Snapshot
    root: Path

    def file_of(self, path: str) -> str:
        """Return where the file of a path below the root is."""
        return os.path.join(self.root, path)

    def describe(self) -> dict[str, Any]:
        """Return what every answer says of the index it is from."""
        model = self.facts["model"]
        return {
            "path": str(self.catalogue.index),
            "root": str(self.root),
            "model": model["name"],
            "digest": model["digest"],
            snapshot.UNITS[model["kind"]]: model["width"],
            "metric": self.snapshot.metric,
            "generation": self.snapshot.generation,
            "images": len(self.snapshot.ids),
        }

    def label_of(self, row: Row) -> str | None:
        """Return an image's label: by a CSV file where one was given, else its first folder."""
        if "labels" in self.facts:
            return row.label
        first, slash, _ = row.path.partition("/")
        return first if slash else None


@contextlib.contextmanager
def view(index: Path) -> Iterator[View]:
    """Open an index to read it. No JAX is needed, and nothing is written.

    Raises PhotoIndexError where there is none that can be searched.
    """
    with Catalogue(index) as catalogue, catalogue.reading():
        facts = catalogue.facts()
        yield View(catalogue, facts, snapshot.read(catalogue), root_of(index, facts))


def root_of(index: Path, facts: dict[str, Any]) -> Path:
    """Return the folder of photos: beside the index it moves with it."""
    return Path(os.path.normpath(index / facts.get("root", "..")))


class Filters(NamedTuple):
    """Which images a search is about; empty: all.

    folders: paths below the root. newer, older: dates or times, ISO 8601, of when the photo was
    taken, or else of the file; newer includes the date, older does not. min_size: width, height.
    """

    folders: Sequence[str] = ()
    labels: Sequence[str] = ()
    newer: str | None = None
    older: str | None = None
    min_size: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        """Is there any?"""
        return any(self)


DATE = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?)?)?)?")
FIRST = "0001-01-01T00:00:00"  # what completes a date that ends early

# SQL: when a photo was taken, or else its file changed.
WHEN = (
    "coalesce(taken, strftime('%Y-%m-%dT%H:%M:%S', mtime_ns / 1000000000, 'unixepoch', "
    "'localtime'))"
)


def check_distance(value: float | int | None) -> None:
    """Raise PhotoIndexError where a distance is below 0 or not a number."""
    if value is not None and not value >= 0:
        raise PhotoIndexError(f"--max-distance must be at least 0, got {value}")


def checked_date(text: str) -> str:
    """Return a date or a time, ISO 8601, which may end early (2024, 2024-05).

    Raises PhotoIndexError where there is no such date or time.
    """
    text = text.replace(" ", "T")
    try:
        if not DATE.fullmatch(text):
            raise ValueError
        datetime.datetime.fromisoformat(text + FIRST[len(text) :])
    except ValueError:
        raise PhotoIndexError(f"a date such as 2024-05-31 is expected, got {text!r}") from None
    return text


def mask_of(seen: View, filters: Filters) -> Bool[np.ndarray, " n"] | None:
    """Return which rows of the snapshot pass filters; None for all.

    A folder's images are those below it by the parts of the path, not by a pattern.
    """
    if not filters:
        return None
    where, arguments = where_of(seen, filters)
    sql = f"SELECT id FROM images JOIN contents USING (digest) WHERE {where} ORDER BY id"
    found = seen.catalogue.query(sql, arguments)
    return np.isin(seen.snapshot.ids, np.array([number for (number,) in found], np.int64))


def where_of(seen: View, filters: Filters) -> tuple[str, list[Any]]:
    """Return the condition on images joined with contents that filters are, with its arguments."""
    clauses: list[str] = ["1"]
    arguments: list[Any] = []

    def either(parts):
        clauses.append("(" + " OR ".join(sql for sql, _ in parts) + ")")
        arguments.extend(value for _, values in parts for value in values)

    if filters.folders:
        either([_below(folder) for folder in filters.folders])
    if filters.labels:
        if "labels" in seen.facts:
            marked = "instr('|' || label || '|', '|' || ? || '|') > 0"
            either([(marked, [name]) for name in filters.labels])
        else:
            either([_below(name) for name in filters.labels])
    for sign, date in ((">=", filters.newer), ("<", filters.older)):
        if date is not None:
            either([(f"{WHEN} {sign} ?", [checked_date(date)])])
    if filters.min_size:
        either([("(width >= ? AND height >= ?)", list(filters.min_size))])
    return " AND ".join(clauses), arguments


def has_image_below(seen: View, folder: str) -> bool:
    """Return whether an image lies below a folder, a path below the root."""
    where, arguments = _below(folder)
    return bool(seen.catalogue.query(f"SELECT 1 FROM images WHERE {where} LIMIT 1", arguments))


def _below(folder: str) -> tuple[str, list[bytes]]:
    name = os.fsencode(folder)
    if not name:
        return "1", []
    return "(path >= ? AND path < ?)", [name + b"/", name + b"0"]  # "0" follows "/"


class Image(NamedTuple):
    """One image of an answer. distance is None where nothing is compared.

    path is below the root, file absolute. state is "ok", "missing" or "changed" since indexing.
    """

    id: int
    path: str
    file: str
    distance: float | int | None
    label: str | None
    width: int
    height: int
    bytes: int
    taken: str | None
    modified: float  # seconds since 1970
    digest: str
    state: str


def images_of(
    seen: View, ids: Sequence[int], distances: Num[np.ndarray, " m"] | None = None
) -> list[Image]:
    """Return images by id, with how far each is; their files are looked at, not opened."""
    rows = seen.catalogue.rows_of(ids)
    contents = seen.catalogue.contents_of(row.digest for row in rows.values())
    found = []
    for number, key in enumerate(ids):
        row = rows[int(key)]
        distance = None if distances is None else distances[number].item()
        found.append(image_of(seen, row, contents[row.digest], distance))
    return found


def image_of(seen: View, row: Row, content: Content, distance: float | int | None = None) -> Image:
    """Return one image of an answer."""
    file = seen.file_of(row.path)
    return Image(
        row.id,
        row.path,
        file,
        distance,
        seen.label_of(row),
        content.width,
        content.height,
        row.size,
        content.taken,
        row.mtime_ns / 1e9,
        row.digest.hex(),
        state_of(file, row),
    )


def state_of(file: str, row: Row) -> str:
    """Return whether a file is as it was indexed."""
    try:
        facts = os.stat(file)
    except OSError:
        return "missing"
    return "ok" if is_unchanged(row, facts) else "changed"


def is_unchanged(row: Row, facts: os.stat_result) -> bool:
    """Return whether a file has the size and the date that it was indexed with."""
    entry = entry_of(facts)
    return (row.size, row.mtime_ns) == (entry.size, entry.mtime_ns)


def path_below(root: Path, file: str | os.PathLike) -> str | None:
    """Return a file's path below the root; None where it is elsewhere. Links are resolved."""
    for place in (os.path.abspath(file), os.path.realpath(file)):
        for top in (str(root), os.path.realpath(root)):
            if place == top:
                return ""
            if place.startswith(top.rstrip("/") + "/"):
                return place[len(top.rstrip("/")) + 1 :]
    return None


def is_index(folder: Path) -> bool:
    """Return whether a folder is an index."""
    return (folder / CATALOGUE).is_file()


__all__ = [
    "WHEN",
    "Filters",
    "Image",
    "PhotoIndexError",
    "View",
    "check_distance",
    "checked_date",
    "has_image_below",
    "image_of",
    "images_of",
    "is_index",
    "is_unchanged",
    "mask_of",
    "path_below",
    "root_of",
    "state_of",
    "view",
    "where_of",
]
