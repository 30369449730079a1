"""Bring an index into step with its folder: read what changed, code it, publish it."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxret.index import calibrate, compare, contents, places, snapshot
from jaxret.index.catalogue import Catalogue, Content, Row, Skipped, Staged
from jaxret.index.coder import Coder, Request, coder_for, settle_model
from jaxret.index.contents import Reading, UnreadableError
from jaxret.index.pipeline import in_order
from jaxret.index.places import PhotoIndexError, Place
from jaxret.index.scan import Entry, Listing, Shard, scan, sort_key

FLUSH = 64  # images that are coded between two transactions: what a kill can lose
HASHED = 512  # files that are digested between two transactions
FIRST_PUBLICATION = 20.0  # seconds after which a long first run publishes what it has
PUBLISH_SHARE = 20  # later publications take at most a twentieth of the time

Progress = Callable[[str, int, int], None]  # phase, done, total


class Summary(NamedTuple):
    """What a run of `build` did. Counts are images; missing ones have no file but are kept.

    unreadable counts files and folders; refused is how many removals were refused.
    """

    new: int
    changed: int
    moved: int
    removed: int
    missing: int
    unreadable: int
    ignored: int
    images: int
    seconds: float
    refused: int
    skipped: list[Skipped]
    index_bytes: int
    model: str
    notes: list[str]


def build(
    root: Place,
    index: Place | None = None,
    *,
    model: str | None = None,
    bits: int | None = None,
    dims: int | None = None,
    labels: Place | None = None,
    vectors: Place | None = None,
    exclude: Sequence[str] | None = None,
    hidden: bool | None = None,
    recheck: bool = False,
    rebuild: bool = False,
    forget_missing: bool = False,
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Index a folder of photos, or bring its index up to date. Nothing else is written.

    Args:
        root: the folder.
        index: the folder of the index; None for `.jaxret` in root.
        model: photo, look, labels, another name of HASHERS, or an encoder folder; None for the
            index's own, or photo.
        bits: length of the codes; None for the model's own.
        dims: length of real vectors, instead of bits.
        labels: a CSV file with the columns file,label.
        vectors: an `.npy` file f32[n d] of another model's vectors. A text file of the same name
            (`.txt`) names their images, a path below root on each line; without it they are those
            of the folder's images, sorted by the parts of their paths.
        exclude: glob patterns of names or paths to leave out; None for those of the last run.
        hidden: whether names that begin with a dot are indexed; None for as in the last run.
        recheck: read every file, whatever the file system says.
        rebuild: make a new model and all codes anew; ids stay.
        forget_missing: remove images whose files are gone, however many they are.
        shard: the share of the folder to index.
        progress: is told phase, files done and files in all.

    Returns:
        Summary.

    Raises:
        PhotoIndexError: where the folder, the index or the request is refused; the index is then
            as it was.
    """
    started = time.monotonic()
    root = _checked_root(root)
    index = Path(os.path.realpath(index if index is not None else root / places.FOLDER))
    request = Request(model, bits, dims, labels, vectors, rebuild)
    settings = {"exclude": exclude, "hidden": hidden, "shard": shard}
    places.prepare(index)
    with places.writing(index), Catalogue(index, write=True) as catalogue:
        run = _Run(catalogue, root, request, progress or (lambda *_: None))
        run.prepare({name: value for name, value in settings.items() if value is not None})
        with contents.many_pixels():
            run.compare(recheck, forget_missing)
            try:
                run.code()
            except KeyboardInterrupt:
                run.publish(final=False)
                raise
            run.publish(final=True)
            run.settle_racy()
            calibrate.calibrate(catalogue, root, run.coder)
        return run.summary(time.monotonic() - started)


def _checked_root(root: Place) -> Path:
    path = Path(os.path.realpath(root))
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "there is no such folder"
        raise PhotoIndexError(f"{root}: {what}")
    return path


class _Run:
    """One run of `build`, step by step; the fields are what the steps hand on."""

    def __init__(self, catalogue: Catalogue, root: Path, request: Request, progress: Progress):
        self.catalogue, self.root, self.request = catalogue, root, request
        self.tell = progress
        self.counts = dict.fromkeys(("new", "changed", "moved", "removed", "refused"), 0)
        self.notes: list[str] = []
        self.coder: Coder | None = None
        self.published = 0  # files of `done` that are published
        self.done: list[Staged] = []
        self.puts: list[Row] = []  # images whose facts change, whose codes do not
        self.removals: list[int] = []
        self.facts_changed: dict[str, Any] = {}
        self.last_publication = time.monotonic()
        self.pause = FIRST_PUBLICATION

    def prepare(self, settings: dict[str, Any]) -> None:
        """Read the index and list the folder."""
        catalogue = self.catalogue
        facts = catalogue.facts()
        self.settings = {"exclude": [], "hidden": False, "shard": None}
        self.settings |= facts.get("settings", {}) | settings
        self.settings["exclude"] = [glob for glob in self.settings["exclude"] if glob]
        self.model = settle_model(catalogue, facts, self.request)
        self.rows = catalogue.rows()
        shard = self.settings["shard"]
        self.listing = scan(
            self.root,
            index=catalogue.index,
            exclude=self.settings["exclude"],
            hidden=self.settings["hidden"],
            shard=None if shard is None else Shard(*shard),
            known={row.path for row in self.rows},
        )
        if shard is not None and self.model.facts is None and self.model.source is None:
            raise PhotoIndexError(
                "--shard needs --model ENCODER: shards are joined only if one encoder made them"
            )
        self.given_labels = None
        if self.request.labels is not None:
            self.given_labels = read_labels(self.request.labels, self.root, self.listing)
        self.is_first = not facts["generation"]
        self.recodes = self.model.recodes
        place = ".." if catalogue.index.parent == self.root else str(self.root)
        wanted = {"root": place, "settings": self.settings}
        self.facts_changed = {k: v for k, v in wanted.items() if facts.get(k) != v}

    def compare(self, recheck: bool, forget_missing: bool) -> None:
        """Find what changed; read the digests that decide it."""
        catalogue, listing = self.catalogue, self.listing
        if self.rows and not listing.files and not listing.ignored and not forget_missing:
            raise PhotoIndexError(
                f"{self.root}: is empty, and its index has {len(self.rows)} images; is it mounted? "
                "(--forget-missing empties the index)"
            )
        changes = compare.compare(self.rows, listing, recheck=recheck)
        self._skip_known(recheck)
        staged = {
            path: file for path, file in catalogue.staged().items() if _is(file, listing, path)
        }
        staged.update(self._digests([row.path for row in changes.suspect], {}))
        changed, unread = [], []
        for row in changes.suspect:
            file = staged.get(row.path)
            if file is None:
                unread.append(row)
            elif file.digest == row.digest:
                self.puts.append(_with_facts(row, file))
            else:
                changed.append(row)
        self.puts += [compare.facts_of(row, listing.files[row.path]) for row in changes.moved_inode]
        self.puts += [row._replace(missing=False) for row in changes.same if row.missing]
        new = [path for path in changes.new if path not in self.skipped]
        if changes.missing or changed:
            staged.update(self._digests([path for path in new if path not in staged], staged))
            new = [path for path in new if path in staged]
        self.staged = staged
        digests = {path: staged[path].digest for path in (row.path for row in changed)}
        digests |= {path: staged[path].digest for path in new if path in staged}
        self._settle(changes, changed, unread, digests, forget_missing)
        owned = {*self.owners.moved, *self.owners.changed}
        fresh = [path for path in (*new, *self.owners.new) if path not in owned]
        todo = {*fresh, *self.owners.changed}
        if self.recodes:
            kept = {row.path for row in (*changes.same, *self.puts)}
            todo |= {path for path in kept if path in listing.files}
        self.todo = sorted(todo, key=sort_key)

    def _settle(self, changes, changed, unread, digests, forget_missing) -> None:
        """Decide which images move, which are removed and which are kept without a file."""
        self.owners = compare.assign(changes.missing, changed, digests)
        for path, row in self.owners.moved.items():
            self.puts.append(_with_facts(row, self.staged[path])._replace(path=path))
        gone = {row.id for row in changes.missing}
        lost = [row for row in self.owners.lost if row.id in gone]
        overwritten = [row for row in self.owners.lost if row.id not in gone]
        kept = [*changes.locked, *unread]
        if not forget_missing and compare.are_too_many(len(lost), len(self.rows)):
            self.counts["refused"] = len(lost)
            kept, lost = [*kept, *lost], []
        self.puts += [row._replace(missing=True) for row in kept if not row.missing]
        self.num_missing = len(kept)
        self.removals = [row.id for row in (*lost, *overwritten)]
        self.counts |= {"moved": len(self.owners.moved), "removed": len(self.removals)}

    def _skip_known(self, recheck: bool) -> None:
        """Leave out files that could not be read before and are as they were."""
        listing, before = self.listing, {file.path: file for file in self.catalogue.skipped()}
        self.skipped: dict[str, Skipped] = {}
        for folder, reason in listing.locked.items():
            self.skipped[folder] = Skipped(folder, 0, 0, 0, reason, True)
        for path, entry in listing.files.items():
            fault, old = contents.fault_of(path, entry), before.get(path)
            if fault:
                self.skipped[path] = _skipped(path, entry, fault)
            elif old and old.matches(entry) and old.reason != contents.NO_HEIC and not recheck:
                self.skipped[path] = old
        self.skipped_before = before

    def _digests(self, paths: Sequence[str], known: dict[str, Staged]) -> dict[str, Staged]:
        """Read digests, and keep them so that a killed run does not read them again."""
        paths = [path for path in paths if path not in self.skipped and path not in known]
        found: dict[str, Staged] = {}
        batch = []
        reads = in_order(lambda path: _attempt(contents.read_digest, self._full(path), path), paths)
        for done, (path, result) in enumerate(zip(paths, reads, strict=True), 1):
            self.tell("reading", done, len(paths))
            if isinstance(result, str):
                self._skip(path, result)
                continue
            found[path] = result
            batch.append(result)
            if len(batch) == HASHED:
                self._stage(batch, [])
                batch = []
        self._stage(batch, [])
        return found

    def _full(self, path: str) -> str:
        return os.path.join(self.root, path)

    def _skip(self, path: str, reason: str) -> None:
        self.skipped[path] = _skipped(path, self.listing.files[path], reason)

    def _stage(self, files: Iterable[Staged], coded: Iterable[Content]) -> None:
        files, coded = list(files), list(coded)
        if files or coded:
            digest = "" if self.coder is None else self.coder.digest
            with self.catalogue.transaction():
                self.catalogue.stage(files, coded, digest)

    # Coding.

    def code(self) -> None:
        """Read and code every file that needs it, a batch at a time."""
        if not self.todo and not self.recodes:
            return
        self.coder = coder_for(self.catalogue, self.model, self.listing, self.root, self.tell)
        known = self.catalogue.known_digests(self.coder.digest)
        self.pending: list[tuple[Staged, contents.Picture]] = []

        def read(path):
            file = self.staged.get(path)
            if file is not None and file.digest in known:
                return Reading(file, None)
            decoded = self.coder.decoded.pop(path, None)
            if decoded is not None:
                return decoded
            size = self.coder.image_size
            return _attempt(contents.read, self._full(path), path, size, known)

        started = time.monotonic()
        ready: list[Staged] = []
        for number, result in enumerate(in_order(read, self.todo, ahead=2 * FLUSH), 1):
            path = self.todo[number - 1]
            fault = result if isinstance(result, str) else self.coder.fault_of(path)
            if fault and (isinstance(result, str) or result.picture is not None):
                self._skip(path, fault)
            else:
                ready.append(result.file)
                if result.picture is not None:
                    self.pending.append((result.file, result.picture))
            if len(self.pending) >= FLUSH or number == len(self.todo):
                self._flush(ready, known)
                ready = []
                self.tell("coding", number, len(self.todo))
                self._publish_if_due(started)

    def _flush(self, ready: list[Staged], known: set[bytes]) -> None:
        files, pictures = [f for f, _ in self.pending], [p for _, p in self.pending]
        coded = []
        if files:
            codes = self.coder.encode(files, pictures)
            for file, picture, code in zip(files, pictures, codes, strict=True):
                size = (picture.width, picture.height)
                coded.append(Content(file.digest, code.tobytes(), *size, picture.taken))
        self._stage(ready, coded)
        known.update(file.digest for file in files)
        self.done += ready
        self.pending = []

    def _publish_if_due(self, started: float) -> None:
        if not self.is_first or time.monotonic() - self.last_publication < self.pause:
            return
        before = time.monotonic()
        self.publish(final=False)
        self.last_publication = time.monotonic()
        self.pause = max(FIRST_PUBLICATION, PUBLISH_SHARE * (self.last_publication - before))

    # Publishing.

    def publish(self, *, final: bool) -> None:
        """Make what is done what readers see, in one step."""
        catalogue = self.catalogue
        if self.recodes and not final:
            return
        fresh = self.done[self.published :]
        damaged = final and any(path in self.skipped for path in self.owners.changed)
        codes_change = bool(fresh or self.removals or damaged or (final and self.recodes))
        with catalogue.transaction():
            facts = catalogue.facts()
            catalogue.remove(self.removals)
            catalogue.put(self.puts)
            facts["next_id"] = self._put_fresh(fresh, facts["next_id"])
            if final:
                self._put_skipped()
                self._drop_unreadable()
            self._put_labels(facts)
            if self.coder is not None:
                facts["model"] = self.coder.facts
                facts.pop("pending", None)
                catalogue.query("DELETE FROM facts WHERE name = 'pending'")
            if codes_change and "model" in facts:
                facts["generation"] += 1
                facts["updated"] = time.time()
            catalogue.set_facts(**(facts | self.facts_changed))
            if final and codes_change:
                catalogue.tidy()
            if codes_change and "model" in facts:
                model = facts["model"]
                snapshot.publish(catalogue, model["kind"], model["width"], facts["generation"])
        self.puts, self.removals, self.facts_changed = [], [], {}
        self.published = len(self.done)
        if codes_change and "model" in facts:
            snapshot.remove_old(catalogue, facts["generation"])
        if final:
            catalogue.query("PRAGMA wal_checkpoint(TRUNCATE)")

    def _put_fresh(self, files: Sequence[Staged], next_id: int) -> int:
        """Write the images of files that were coded; return the next free id."""
        own = self.owners.changed
        unchanged = {row.path: row for row in self.rows} if self.recodes else {}
        moved = self.owners.moved
        labels = self.catalogue.labels()
        rows = []
        for file in files:
            row = own.get(file.path)
            if row is not None:
                self.counts["changed"] += 1
            elif file.path in moved:
                continue
            elif self.recodes and file.path in unchanged and file.path not in self.owners.new:
                row = unchanged[file.path]
                self.counts["changed"] += row.digest != file.digest
            else:
                row = Row(next_id, file.path, 0, 0, 0, 0, b"", labels.get(file.path), False)
                next_id += 1
                self.counts["new"] += 1
            rows.append(_with_facts(row, file))
        self.catalogue.put(rows)
        return next_id

    def _drop_unreadable(self) -> None:
        """Remove images whose new content is none, or that a new model could not code."""
        lost = [row.id for path, row in self.owners.changed.items() if path in self.skipped]
        if self.recodes:
            known = self.catalogue.known_digests(self.coder.digest)
            lost += [row.id for row in self.catalogue.rows() if row.digest not in known]
        self.catalogue.remove(lost)
        self.counts["removed"] += len(set(lost))

    def _put_skipped(self) -> None:
        before, now = self.skipped_before, self.skipped
        self.catalogue.unskip(path for path in before if before[path] != now.get(path))
        self.catalogue.skip(file for path, file in now.items() if file != before.get(path))

    def _put_labels(self, facts: dict[str, Any]) -> None:
        if self.given_labels is not None:
            self.catalogue.set_labels(self.given_labels)
            facts["labels"] = str(self.request.labels)

    def settle_racy(self) -> None:
        """Read files again that changed just before they were read, now that time has passed."""
        window, now = compare.RACY_NS, time.time_ns()
        where = "abs(seen_ns - mtime_ns) < ? AND mtime_ns < ?"
        rows = self.catalogue.rows(where, [window, now - window])
        paths = [row.path for row in rows]
        reads = in_order(lambda path: _attempt(contents.read_digest, self._full(path), path), paths)
        settled = [
            row._replace(seen_ns=file.seen_ns)
            for row, file in zip(rows, reads, strict=True)
            if not isinstance(file, str) and _same(row, file)
        ]
        if settled:
            with self.catalogue.transaction():
                self.catalogue.put(settled)

    def summary(self, seconds: float) -> Summary:
        """Return what was done."""
        facts = self.catalogue.facts()
        files = [path for path in self.catalogue.index.rglob("*") if path.is_file()]
        outside = {"model", "thumbs"}
        own = [f for f in files if f.relative_to(self.catalogue.index).parts[0] not in outside]
        return Summary(
            **self.counts,
            missing=self.num_missing,
            unreadable=len(self.skipped),
            ignored=self.listing.ignored,
            images=self.catalogue.query("SELECT count(*) FROM images")[0][0],
            seconds=seconds,
            skipped=sorted(self.skipped.values(), key=lambda file: sort_key(file.path)),
            index_bytes=sum(path.stat().st_size for path in own),
            model=facts.get("model", {}).get("name", ""),
            notes=[*self.notes, *(self.coder.notes if self.coder else ())],
        )


def read_labels(file: Place, root: Path, listing: Listing) -> dict[str, str]:
    """Return the labels that a CSV file gives to files of a listing; several are joined by "|".

    Raises PhotoIndexError where the file breaks a rule or names none of them.
    """
    from jaxret.data import DataError
    from jaxret.data.labels import find_labels
    from jaxret.data.labels import read_labels as read

    try:
        found = read(find_labels(file, root))
    except DataError as error:
        raise PhotoIndexError(str(error)) from error
    labels = {path: "|".join(names) for path, names in found.items() if names}
    if listing.files and not labels.keys() & listing.files.keys():
        raise PhotoIndexError(f"{file}: names no image of {root}")
    return labels


def _attempt(function: Callable, *arguments: Any) -> Any:
    """Return a function's value, or the reason why a file cannot be read."""
    try:
        return function(*arguments)
    except UnreadableError as error:
        return str(error)


def _is(file: Staged, listing: Listing, path: str) -> bool:
    """Return whether a file is still what it was when it was read."""
    entry = listing.files.get(path)
    return entry is not None and (file.size, file.mtime_ns, file.inode) == (
        entry.size,
        entry.mtime_ns,
        entry.inode,
    )


def _same(row: Row, file: Staged) -> bool:
    return (row.size, row.mtime_ns, row.digest) == (file.size, file.mtime_ns, file.digest)


def _with_facts(row: Row, file: Staged) -> Row:
    return row._replace(
        size=file.size,
        mtime_ns=file.mtime_ns,
        inode=file.inode,
        seen_ns=file.seen_ns,
        digest=file.digest,
        missing=False,
    )


def _skipped(path: str, entry: Entry, reason: str) -> Skipped:
    return Skipped(path, entry.size, entry.mtime_ns, entry.ctime_ns, reason, False)
