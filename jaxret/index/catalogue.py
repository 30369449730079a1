"""The catalogue of an index: a SQLite database, the only place where its truth is kept.

    facts       name -> JSON value: format, generation (of the codes), revision (of the images),
                next_id, root, model, settings, ...
    images      one row an image as it was last published: id, path, size, mtime, digest, label
    contents    model, digest of a file's bytes -> code, width, height, time taken: coded once
    staged      files that were read since the last publication, by path
    skipped     files and folders that cannot be read, with the reason
    labels      path -> label, as a CSV file gave them

A batch of coded images goes to contents and staged in one transaction. `images` changes in one
transaction with the generation, so that a reader sees one publication or the next.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxret.index.places import CATALOGUE, PhotoIndexError
from jaxret.index.scan import Entry

FORMAT = 1
MOST_FREE = 100  # pages of 4 kB
WAIT = 30  # seconds for a lock that another process holds for a moment
TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE images (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, seen_ns INTEGER NOT NULL,
    digest BLOB NOT NULL, label TEXT, missing INTEGER NOT NULL DEFAULT 0);
CREATE INDEX images_digest ON images (digest);
CREATE INDEX images_inode ON images (inode);
CREATE TABLE contents (model TEXT NOT NULL, digest BLOB NOT NULL, code BLOB NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, taken TEXT, PRIMARY KEY (model, digest))
    WITHOUT ROWID;
CREATE TABLE staged (path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL, seen_ns INTEGER NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE skipped (path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL, reason TEXT NOT NULL, folder INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE labels (path BLOB PRIMARY KEY, label TEXT NOT NULL) WITHOUT ROWID;
"""
# The model that the published codes are of.
KEY = 16  # hex digits of a model's digest that tell it from others
OF_MODEL = (
    f"model = (SELECT substr(json_extract(value, '$.digest'), 1, {KEY}) FROM facts "
    "WHERE name = 'model')"
)
COLUMNS = "id, path, size, mtime_ns, inode, seen_ns, digest, label, missing"


class Row(NamedTuple):
    """One image of the catalogue. `seen_ns` is when its bytes were read last."""

    id: int
    path: str
    size: int
    mtime_ns: int
    inode: int
    seen_ns: int
    digest: bytes
    label: str | None
    missing: bool


class Staged(NamedTuple):
    """A file whose bytes were read."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    seen_ns: int
    digest: bytes


class Content(NamedTuple):
    """What is kept of a file's bytes."""

    digest: bytes
    code: bytes
    width: int
    height: int
    taken: str | None  # local time of the camera, ISO 8601


class Skipped(NamedTuple):
    """A file, or a folder, that could not be read."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    reason: str
    folder: bool

    def matches(self, entry: Entry) -> bool:
        """Return whether the file is as it was when it could not be read."""
        own = (self.size, self.mtime_ns, self.ctime_ns)
        return own == (entry.size, entry.mtime_ns, entry.ctime_ns)


class Catalogue:
    """The database of an index, open; `with` closes it.

    Raises PhotoIndexError where it is of a newer format or damaged.
    """

    def __init__(self, index: Path, *, write: bool = False):
        self.index = index
        path = index / CATALOGUE
        if not write and not path.is_file():
            raise PhotoIndexError(f"there is no index in {index}; make one: jaxret index PHOTOS")
        with self._named():
            self.database = _connect(path, write)
            if write and not self.database.execute("PRAGMA table_info(facts)").fetchall():
                self.database.executescript(f"BEGIN; {TABLES} COMMIT;")
                self.set_facts(format=FORMAT, generation=0, next_id=0)
            number = self.facts().get("format")
        if not isinstance(number, int) or number > FORMAT:
            self.database.close()
            raise PhotoIndexError(
                f"{index}: has format {number}, this jaxret reads up to {FORMAT}: update jaxret"
            )

    def __enter__(self) -> "Catalogue":
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Turn errors of the database into one line that names the index."""
        try:
            yield
        except sqlite3.Error as error:
            is_damaged = type(error) is sqlite3.DatabaseError or "no such table" in str(error)
            remedy = f"; move {self.index} away and run: jaxret index PHOTOS" if is_damaged else ""
            raise PhotoIndexError(f"{self.index / CATALOGUE}: {error}{remedy}") from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Change all or nothing."""
        with self._named():
            self.database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.database.execute("ROLLBACK")
                raise
            self.database.execute("COMMIT")

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """See one state of the index, whatever a writer does meanwhile."""
        with self._named():
            self.database.execute("BEGIN")
            try:
                yield
            finally:
                self.database.execute("ROLLBACK")

    def query(self, sql: str, arguments: Iterable = ()) -> list[tuple]:
        """Return the rows that a SELECT gives."""
        with self._named():
            return self.database.execute(sql, tuple(arguments)).fetchall()

    # Facts.

    def facts(self) -> dict[str, Any]:
        """Return what is known of the whole index."""
        rows = self.query("SELECT name, value FROM facts")
        try:
            return {name: json.loads(value) for name, value in rows}
        except ValueError as error:
            raise PhotoIndexError(f"{self.index / CATALOGUE}: was altered ({error})") from None

    def set_facts(self, **facts: Any) -> None:
        """Set facts, plain JSON values."""
        rows = [(name, json.dumps(value)) for name, value in facts.items()]
        with self._named():
            self.database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    # Reading.

    def rows(self, where: str = "1", arguments: Iterable = ()) -> list[Row]:
        """Return images in the order of their ids, which is that of the gallery."""
        found = self.query(f"SELECT {COLUMNS} FROM images WHERE {where} ORDER BY id", arguments)
        return [_row(values) for values in found]

    def row_at(self, path: str) -> Row | None:
        """Return the image of a path below the root."""
        return next(iter(self.rows("path = ?", [os.fsencode(path)])), None)

    def rows_of(self, ids: Iterable[int]) -> dict[int, Row]:
        """Return the images of some ids; ids that are not there are left out."""
        found: dict[int, Row] = {}
        ids = [int(number) for number in ids]
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            marks = ",".join("?" * len(part))
            found |= {row.id: row for row in self.rows(f"id IN ({marks})", part)}
        return found

    def contents_of(self, digests: Iterable[bytes]) -> dict[bytes, Content]:
        """Return what is kept of contents; those that are not there are left out."""
        found: dict[bytes, Content] = {}
        digests = list(dict.fromkeys(digests))
        for start in range(0, len(digests), 500):
            part = digests[start : start + 500]
            marks = ",".join("?" * len(part))
            sql = f"SELECT digest, code, width, height, taken FROM contents WHERE {OF_MODEL}"
            for values in self.query(f"{sql} AND digest IN ({marks})", part):
                found[values[0]] = Content(*values)
        return found

    def contents_by(self, model: str) -> list[Content]:
        """Return all that one model has made of contents."""
        sql = "SELECT digest, code, width, height, taken FROM contents WHERE model = ?"
        return [Content._make(row) for row in self.query(sql, [model[:KEY]])]

    def known_digests(self, model: str) -> set[bytes]:
        """Return the digest of every content that a model has coded."""
        rows = self.query("SELECT digest FROM contents WHERE model = ?", [model[:KEY]])
        return {digest for (digest,) in rows}

    def staged(self) -> dict[str, Staged]:
        """Return the files that were read since the last publication."""
        rows = self.query("SELECT path, size, mtime_ns, inode, seen_ns, digest FROM staged")
        return {os.fsdecode(row[0]): Staged(os.fsdecode(row[0]), *row[1:]) for row in rows}

    def skipped(self) -> list[Skipped]:
        """Return the files and folders that could not be read, by path."""
        sql = "SELECT path, size, mtime_ns, ctime_ns, reason, folder FROM skipped ORDER BY path"
        return [Skipped._make((os.fsdecode(r[0]), *r[1:5], bool(r[5]))) for r in self.query(sql)]

    def labels(self) -> dict[str, str]:
        """Return the label of each path that a CSV file named."""
        rows = self.query("SELECT path, label FROM labels")
        return {os.fsdecode(path): label for path, label in rows}

    def codes(self) -> Iterator[tuple[int, bytes]]:
        """Return id and code of every image, in the order of ids."""
        sql = (
            f"SELECT id, code FROM images JOIN contents USING (digest) WHERE {OF_MODEL} ORDER BY id"
        )
        with self._named():
            yield from self.database.execute(sql)

    # Writing; inside a transaction.

    def stage(self, files: Iterable[Staged], contents: Iterable[Content], model: str = "") -> None:
        """Keep what was read of files, and the codes that a model gave to contents."""
        rows = [(os.fsencode(file.path), *file[1:]) for file in files]
        self._many("INSERT OR REPLACE INTO staged VALUES (?, ?, ?, ?, ?, ?)", rows)
        codes = [(model[:KEY], *content) for content in contents]
        self._many("INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?, ?, ?)", codes)

    def put(self, rows: Iterable[Row]) -> None:
        """Write images, new ones or those of the same ids, whatever paths they exchange."""
        rows = list(rows)
        self.remove(row.id for row in rows)
        values = [(row.id, os.fsencode(row.path), *row[2:8], int(row.missing)) for row in rows]
        self._many(f"INSERT INTO images ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", values)

    def remove(self, ids: Iterable[int]) -> None:
        """Remove images."""
        self._many("DELETE FROM images WHERE id = ?", [(number,) for number in ids])

    def skip(self, files: Iterable[Skipped]) -> None:
        """Keep why files could not be read."""
        rows = [(os.fsencode(file.path), *file[1:]) for file in files]
        self._many("INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?, ?, ?)", rows)

    def unskip(self, paths: Iterable[str]) -> None:
        """Forget that files could not be read."""
        rows = [(os.fsencode(path),) for path in paths]
        self._many("DELETE FROM skipped WHERE path = ?", rows)

    def set_labels(self, labels: Mapping[str, str]) -> None:
        """Replace the labels of paths, and those of the images that are there."""
        self._many("DELETE FROM labels", [()])
        rows = [(os.fsencode(path), label) for path, label in labels.items()]
        self._many("INSERT INTO labels VALUES (?, ?)", rows)
        self._many(
            "UPDATE images SET label = (SELECT label FROM labels WHERE labels.path = images.path)",
            [()],
        )

    def tidy(self) -> None:
        """Forget what no image needs: staged files, and contents of none."""
        self._many("DELETE FROM staged", [()])
        self._many("DELETE FROM contents WHERE digest NOT IN (SELECT digest FROM images)", [()])
        self._many(f"DELETE FROM contents WHERE NOT {OF_MODEL}", [()])

    def compact(self) -> None:
        """Give free pages back to the system where they are many, and empty the log."""
        free = self.query("PRAGMA freelist_count")[0][0]
        pages = self.query("PRAGMA page_count")[0][0]
        if free > MOST_FREE and free * 4 > pages:
            self.query("VACUUM")
        self.query("PRAGMA wal_checkpoint(TRUNCATE)")

    def _many(self, sql: str, rows: Iterable) -> None:
        with self._named():
            self.database.executemany(sql, rows)


def _connect(path: Path, write: bool) -> sqlite3.Connection:
    options: dict[str, Any] = {"isolation_level": None, "timeout": WAIT, "uri": True}
    location = path.absolute().as_uri()
    if write:
        database = sqlite3.connect(location, **options)
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        return database
    log = path.with_name(f"{path.name}-wal")
    if not os.access(path.parent, os.W_OK) and not log.exists():
        location += "?immutable=1"  # the log's files cannot be made beside it
    else:
        location += "?mode=rw" if os.access(path, os.W_OK) else "?mode=ro"
    database = sqlite3.connect(location, **options)
    database.execute("PRAGMA trusted_schema = OFF")  # a stranger's index runs nothing
    database.execute("PRAGMA query_only = 1")
    return database


def _row(values: tuple) -> Row:
    number, path, *others, missing = values
    return Row._make((number, os.fsdecode(path), *others, bool(missing)))
