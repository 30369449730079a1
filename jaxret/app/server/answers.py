"""What the server knows of one index. Each answer is of one revision, the newest there is."""

import collections
import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxret.app import schema
from jaxret.app.output import tell
from jaxret.app.server.security import RefusedError
from jaxret.app.server.views import Views
from jaxret.index import contents, groups, model, reader, thumbs
from jaxret.index.catalogue import Row
from jaxret.index.places import PhotoIndexError
from jaxret.index.query import Resolver, search_view
from jaxret.index.reader import (
    Filters,
    Image,
    View,
    image_of,
    images_of,
    is_unchanged,
    where_of,
)

MOST_NAMES = 500  # labels and folders that are listed
BY_DATE = 100_000  # images; larger indexes are browsed in the order of ids
NAMED = 8  # hex digits of a digest that tell a thumbnail from its successor
GROUPS = 50  # on a page
MOST_THUMBS = 256  # made between two looks at their size


class StaleError(Exception):
    """What was prepared is of an encoder that has been replaced meanwhile."""


class Answers:
    """Answers about one index. Threads may ask at once; searches and codings are theirs to order.

    Raises RefusedError where a request cannot be answered as it is.
    """

    def __init__(self, index: Path):
        self.index = index
        self.views = Views(index)
        self.ready = False
        self._lock = threading.Lock()  # of the encoder
        self._comparing = threading.Lock()
        self._model: tuple[str, model.Model] | None = None
        self._counts: tuple[Any, tuple[list, list]] | None = None
        self._groups: tuple[Any, groups.Duplicates] | None = None
        self._num_thumbs = 0

    def warm(self) -> None:
        """Load the encoder and compile it, so that the first upload does not wait for that.

        Then a program is compiled that searches a large index sooner than NumPy does.
        """
        try:
            with self._seen() as seen:
                facts = seen.facts["model"]
                if facts["image_size"] is None:
                    return
                loaded = self._load(self.index, facts)
                side = facts["image_size"]
                loaded.encode(np.zeros((1, side, side, 3), np.uint8))
            self.ready = True
            self.views.compile()
        except RefusedError:
            return  # it was told; an upload tells why
        except Exception as error:
            tell(f"jaxret serve: the encoder cannot be loaded: {error}")
        finally:
            self.ready = True

    def side(self) -> int:
        """Return the pixels a side of the images that the encoder takes."""
        with self._seen() as seen:
            return _side(seen)

    def search(
        self,
        ids: Sequence[int],
        negative: Sequence[int],
        n: int,
        max_distance: float | int | None,
        filters: Filters,
        pixels: UInt8[np.ndarray, "s s 3"] | None = None,
    ) -> schema.SearchDocument:
        """Return the images nearest to indexed ones, and to the pixels of an upload.

        Raises StaleError where the pixels are not of the size that the encoder takes now.
        """
        queries = [*([] if pixels is None else [pixels]), *ids]
        if not queries:
            raise RefusedError(422, "no_query", "a search needs a picture, or an item")
        if max_distance is not None and (len(queries) > 1 or negative):
            raise RefusedError(422, "max", "a largest distance needs one query, and no `not`")
        with self._seen() as seen:
            for number in (*ids, *negative):
                self._row(seen, number)
            if pixels is not None and len(pixels) != _side(seen):
                raise StaleError
            found = search_view(
                seen,
                Resolver(seen, self._load),
                queries,
                negative=negative,
                n=n,
                max_distance=max_distance,
                filters=filters,
            )
            document = schema.search_document(found, shown)
            return document | {"revision": _revision(seen)}  # pyright: ignore

    def info(self) -> schema.InfoDocument:
        """Return what the page begins with."""
        with self._seen() as seen:
            described, facts = seen.describe(), seen.facts
            labels, folders = self._counted(seen)
            revision = _revision(seen)
            skipped = seen.catalogue.query("SELECT count(*) FROM skipped")[0][0]
        updated = facts.get("updated")
        unit = "bits" if "bits" in described else "dims"
        kept = ("generation", "images", unit, "metric", "model", "root")
        return {name: described[name] for name in kept} | {  # pyright: ignore[reportReturnType]
            "revision": revision,
            "labels": labels,
            "folders": folders,
            "updated": updated and schema.iso(updated),
            "skipped": skipped,
            "ready": self.ready,
        }

    def _counted(self, seen: View) -> tuple[list, list]:
        """Return labels and folders with their counts; once in a revision."""
        key = _revision(seen)
        if self._counts is None or self._counts[0] != key:
            ask = seen.catalogue.query
            labels: collections.Counter[str] = collections.Counter()
            for label, count in ask("SELECT label, count(*) FROM images GROUP BY label"):
                labels.update(dict.fromkeys(label.split("|") if label else (), count))
            paths = ask("SELECT path FROM images")  # up to millions: the least for each
            names = collections.Counter(path[: path.rfind(b"/") + 1] for (path,) in paths)
            folders: collections.Counter[str] = collections.Counter()
            for name, count in names.items():
                parts = os.fsdecode(name).split("/")[:-1]
                for depth in range(1, len(parts) + 1):
                    folders["/".join(parts[:depth])] += count
            if "labels" not in seen.facts:
                labels = collections.Counter(
                    {name: count for name, count in folders.items() if "/" not in name}
                )
            self._counts = key, (_listed(labels), _listed(folders))
        return self._counts[1]

    def items(
        self, after: str | None, limit: int, filters: Filters, revision: int | None
    ) -> schema.ItemsDocument:
        """Return a page of images, the newest first; in a large index those of the last ids."""
        with self._seen(revision) as seen:
            where, arguments = where_of(seen, filters)
            when = reader.WHEN if len(seen.snapshot.ids) <= BY_DATE else "''"
            if after is not None:
                moment, _, number = after.rpartition("~")
                where += f" AND ({when}, id) < (?, ?)"
                arguments += [moment, int(number)]
            rows = seen.catalogue.query(
                f"SELECT id, {when} FROM images JOIN contents USING (digest) WHERE {where} "
                f"ORDER BY {when} DESC, id DESC LIMIT ?",
                [*arguments, limit],
            )
            images = images_of(seen, [number for number, _ in rows])
            last = f"{rows[-1][1]}~{rows[-1][0]}" if len(rows) == limit else None
            return {
                "images": [*map(shown, images)],
                "next": last,
                "revision": _revision(seen),
            }

    def item(self, number: int) -> schema.ItemDocument:
        """Return one image."""
        with self._seen() as seen:
            row = self._row(seen, number)
            content = seen.catalogue.contents_of([row.digest])[row.digest]
            image = shown(image_of(seen, row, content))
            return {"image": image, "revision": _revision(seen)}

    def duplicates(
        self,
        max_distance: float | int | None,
        keep: Sequence[str],
        after: int,
        revision: int | None,
    ) -> schema.DuplicatesDocument:
        """Return a page of groups; what was compared last is kept for the next page."""
        with self._comparing:
            with self._seen(revision) as seen:
                number = _revision(seen)
            ignored = self.index / groups.IGNORED
            key = (number, max_distance, tuple(keep), _facts_of(ignored))
            if self._groups is None or self._groups[0] != key:
                self._groups = None
                try:
                    found = groups.duplicates(self.index, max_distance=max_distance, keep=keep)
                except PhotoIndexError as error:
                    raise RefusedError(422, "duplicates", str(error)) from error
                with self._seen() as seen:
                    after_it = _revision(seen)
                if after_it != number:  # it changed meanwhile: of which it is, is not known
                    words = "the index has changed meanwhile: try again"
                    raise RefusedError(409, "revision_gone", words)
                self._groups = key, found
            found = self._groups[1]
        part = slice(after, after + GROUPS)
        more = after + GROUPS if after + GROUPS < len(found.groups) else None
        return schema.duplicates_document(found, shown, part) | {  # pyright: ignore
            "searched": found.searched,
            "total": len(found.groups),
            "next": more,
            "revision": number,
        }

    def ignore(self, ids: Sequence[int]) -> schema.IgnoredDocument:
        """Note that images are no duplicates of each other: one line in the index's file."""
        with self._seen() as seen:
            for number in ids:
                self._row(seen, number)
            line = groups.ignore_line(images_of(seen, ids)).encode()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            handle = os.open(self.index / groups.IGNORED, flags, 0o644)
            try:
                os.write(handle, line)  # at once, so that a reader sees a whole line
            finally:
                os.close(handle)
        except OSError as error:
            words = f"the index cannot be written: {error.strerror}"
            raise RefusedError(409, "not_written", words) from error
        return {"ids": [*ids]}

    def kept_thumbnail(self, number: int) -> tuple[Row, Path, bytes | None]:
        """Return an image's row, the root, and its thumbnail where one is kept."""
        with self._seen() as seen:
            row = self._row(seen, number)
        place = self.index / thumbs.FOLDER / row.digest.hex()[:2] / f"{row.digest.hex()}.webp"
        with contextlib.suppress(OSError):
            return row, seen.root, place.read_bytes()
        return row, seen.root, None

    def keep_thumbnail(self, row: Row, content: bytes) -> None:
        """Keep a thumbnail in the index, and remove the oldest ones now and then."""
        thumbs.thumbnail(self.index, "", row.digest.hex(), lambda _: content)
        self._num_thumbs += 1
        if self._num_thumbs % MOST_THUMBS == 0:
            thumbs.trim(self.index)

    @contextlib.contextmanager
    def _seen(self, revision: int | None = None) -> Iterator[View]:
        """Open the newest revision. Raises RefusedError where it is not the one that is meant."""
        try:
            with self.views.newest() as seen:
                if revision not in (None, _revision(seen)):
                    words = "the index has changed meanwhile: begin at the first page"
                    raise RefusedError(409, "revision_gone", words)
                yield seen
        except PhotoIndexError as error:
            tell(f"jaxret serve: {error}")
            words = "the index cannot be read; the terminal says why"
            raise RefusedError(500, "index", words) from error

    def _row(self, seen: View, number: int) -> Row:
        row = seen.catalogue.rows_of([number]).get(number)
        if row is None:
            raise RefusedError(404, "no_such_image", f"no image has the id {number}")
        return row

    def _load(self, index: Path, facts: dict[str, Any]) -> model.Model:
        """Return the encoder, loaded once."""
        with self._lock:
            if self._model is None or self._model[0] != facts["digest"]:
                self._model = facts["digest"], model.load(index, facts)
            return self._model[1]


def shown(image: Image) -> schema.ImageDocument:
    """Return the document of an image as the page shows it."""
    document = schema.image_document(image, image.path)
    return document | {"thumb": f"/thumb/{image.id}?v={image.digest[:NAMED]}"}  # pyright: ignore


def open_original(root: Path, row: Row) -> int:
    """Return a handle of an image's file, if it is still what was indexed.

    It must be a regular file with the size and date of the index. If it lies outside the root, by
    a link, its bytes must be those that were indexed: a link that was put in the place of a photo
    shows nothing else.

    Raises RefusedError where it is gone or has changed.
    """
    file = os.path.join(root, row.path)
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise RefusedError(409, "missing", "the file is gone since indexing") from error
        raise RefusedError(409, "changed", "the file cannot be opened") from error
    try:
        facts = os.fstat(handle)
        same = is_unchanged(row, facts)
        if not (stat.S_ISREG(facts.st_mode) and same and _is_ours(root, file, handle, row)):
            raise RefusedError(409, "changed", "the file has changed since indexing")
    except BaseException:
        os.close(handle)
        raise
    return handle


def _is_ours(root: Path, file: str, handle: int, row: Row) -> bool:
    place = os.path.realpath(file)
    with contextlib.suppress(OSError):
        inside = os.path.commonpath([place, os.path.realpath(root)]) == os.path.realpath(root)
        if inside and os.path.samestat(os.lstat(place), os.fstat(handle)):
            return True
    with open(handle, "rb", closefd=False) as opened:
        digest = contents.digest_of(opened)
    os.lseek(handle, 0, os.SEEK_SET)
    return digest == row.digest


def _revision(seen: View) -> int:
    return seen.facts.get("revision", 0)


def _side(seen: View) -> int:
    side = seen.facts["model"]["image_size"]
    if side is None:
        words = "this index holds vectors of another model: search by an indexed image"
        raise RefusedError(422, "no_encoder", words)
    return side


def _listed(counts: "collections.Counter[str]") -> list[schema.CountDocument]:
    """Return the names of the most images, in the order of names."""
    return [{"name": name, "images": n} for name, n in sorted(counts.most_common(MOST_NAMES))]


def _facts_of(file: Path) -> tuple[int, int] | None:
    try:
        facts = file.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns
