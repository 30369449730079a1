"""Bring an index into step with its folder: read what changed, code it, publish it."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxret.index import calibrate, compare, contents, places, snapshot, thumbs
from jaxret.index.catalogue import Catalogue, Content, Row, Skipped, Staged
from jaxret.index.coder import Coder, Request, coder_for
from jaxret.index.contents import Reading
from jaxret.index.model import FLUSH
from jaxret.index.pipeline import in_order
from jaxret.index.places import PhotoIndexError, Place
from jaxret.index.plan import Plan, Progress, attempt, with_facts
from jaxret.index.scan import Shard, sort_key

FIRST_PUBLICATION = 20.0  # seconds after which a long first run publishes what it has
PUBLISH_SHARE = 20  # later publications take at most a twentieth of the time


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
    with _writable(index) as catalogue:
        plan = Plan(catalogue, root, request, progress or (lambda *_: None))
        plan.prepare({name: value for name, value in settings.items() if value is not None})
        plan.compare(recheck, forget_missing)
        run = _Run(plan)
        run.carry_out()
        thumbs.trim(index)
        return run.summary(time.monotonic() - started)


def _checked_root(root: Place) -> Path:
    path = Path(os.path.realpath(root))
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "there is no such folder"
        raise PhotoIndexError(f"{root}: {what}")
    try:
        os.scandir(path).close()
        is_index = (path / places.CATALOGUE).is_file()
    except OSError as error:
        raise PhotoIndexError(f"{root}: cannot be read ({error.strerror})") from error
    if is_index:
        raise PhotoIndexError(f"{root}: is an index; name the folder of photos")
    return path


@contextlib.contextmanager
def _writable(index: Path) -> Iterator[Catalogue]:
    """Open an index as its only writer.

    A first run that fails, or is interrupted, before it read a photo leaves none.
    """
    before = places.before(index)
    places.prepare(index)
    with places.writing(index):
        is_first = not (index / places.CATALOGUE).exists()
        try:
            with Catalogue(index, write=True) as catalogue:
                yield catalogue
        except BaseException:
            if is_first and not _has_read(index):
                places.restore(index, before)
            raise


def _has_read(index: Path) -> bool:
    """Return whether anything of a photo is kept, so that the next run need not read it again."""
    if not (index / places.CATALOGUE).exists():
        return False
    with Catalogue(index) as catalogue:
        tables = ("staged", "contents", "images")
        return any(catalogue.query(f"SELECT 1 FROM {table} LIMIT 1") for table in tables)


class _Run:
    """Carries out a plan: codes files, publishes what is done."""

    def __init__(self, plan: Plan):
        self.plan, self.catalogue = plan, plan.catalogue
        self.coder: Coder | None = None
        self.pending: list[tuple[Staged, contents.Picture]] = []  # decoded, not yet coded
        self.done: list[Staged] = []
        self.published = 0  # files of `done` that are published
        self.last_publication = time.monotonic()
        self.pause = FIRST_PUBLICATION

    def carry_out(self) -> None:
        """Code and publish; where a user interrupts, publish what is done."""
        with contents.many_pixels():
            try:
                self.code()
            except KeyboardInterrupt:
                if self.done or not self.plan.is_first:
                    self.publish(final=False)
                raise
            self.publish(final=True)
            self.settle_racy()
            calibrate.calibrate(self.catalogue, self.plan.root, self.coder)

    # Coding.

    def code(self) -> None:
        """Read and code every file that needs it, a batch at a time."""
        plan = self.plan
        if not plan.todo and not plan.recodes:
            return
        coder = self.coder = coder_for(
            self.catalogue, plan.model, plan.listing, plan.root, plan.tell
        )
        known = self.catalogue.known_digests(coder.digest)

        def read(path):
            file = plan.staged.get(path)
            if file is not None and file.digest in known:
                return Reading(file, None)
            decoded = coder.decoded.pop(path, None)
            if decoded is not None:
                return decoded
            size = coder.image_size
            return attempt(contents.read, plan.full_path(path), path, size, known)

        ready: list[Staged] = []
        for number, result in enumerate(in_order(read, plan.todo, ahead=2 * FLUSH), 1):
            path = plan.todo[number - 1]
            if isinstance(result, str):
                plan.skip(path, result)
            elif result.picture is not None and (fault := coder.fault_of(path)):
                plan.skip(path, fault)
            else:
                ready.append(result.file)
                if result.picture is not None:
                    self.pending.append((result.file, result.picture))
            if len(self.pending) >= FLUSH or number == len(plan.todo):
                self._flush(coder, ready, known)
                ready = []
                plan.tell("coding", number, len(plan.todo))
                self._publish_if_due()

    def _flush(self, coder: Coder, ready: list[Staged], known: set[bytes]) -> None:
        files, pictures = [f for f, _ in self.pending], [p for _, p in self.pending]
        coded = []
        if files:
            codes = coder.encode(files, pictures)
            for file, picture, code in zip(files, pictures, codes, strict=True):
                size = (picture.width, picture.height)
                coded.append(Content(file.digest, code.tobytes(), *size, picture.taken))
        self.plan.stage(ready, coded, coder.digest)
        known.update(file.digest for file in files)
        self.done += ready
        self.pending = []

    def _publish_if_due(self) -> None:
        if not self.plan.is_first or time.monotonic() - self.last_publication < self.pause:
            return
        before = time.monotonic()
        self.publish(final=False)
        self.last_publication = time.monotonic()
        self.pause = max(FIRST_PUBLICATION, PUBLISH_SHARE * (self.last_publication - before))

    # Publishing.

    def publish(self, *, final: bool) -> None:
        """Make what is done what readers see, in one step."""
        catalogue = self.catalogue
        if self.plan.recodes and not final:
            return
        fresh = self.done[self.published :]
        damaged = final and any(path in self.plan.skipped for path in self.plan.owners.changed)
        codes_change = bool(fresh or self.plan.removals or damaged or (final and self.plan.recodes))
        with catalogue.transaction():
            facts = catalogue.facts()
            catalogue.remove(self.plan.removals)
            catalogue.put(self.plan.puts)
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
            if codes_change or self.plan.puts or self.plan.facts_changed or self.plan.given_labels:
                facts["revision"] = facts.get("revision", 0) + 1  # of names and labels as well
            catalogue.set_facts(**(facts | self.plan.facts_changed))
            if final and codes_change:
                catalogue.tidy()
            if codes_change and "model" in facts:
                model = facts["model"]
                snapshot.publish(catalogue, model["kind"], model["width"], facts["generation"])
        self.plan.puts, self.plan.removals, self.plan.facts_changed = [], [], {}
        self.published = len(self.done)
        if codes_change and "model" in facts:
            snapshot.remove_old(catalogue, facts["generation"])
        if final:
            catalogue.compact()

    def _put_fresh(self, files: Sequence[Staged], next_id: int) -> int:
        """Write the images of files that were coded; return the next free id."""
        own = self.plan.owners.changed
        unchanged = {row.path: row for row in self.plan.rows} if self.plan.recodes else {}
        moved = self.plan.owners.moved
        labels = self.catalogue.labels() if files else {}
        rows = []
        for file in files:
            row = own.get(file.path)
            if row is not None:
                self.plan.counts["changed"] += 1
            elif file.path in moved:
                continue
            elif (
                self.plan.recodes
                and file.path in unchanged
                and file.path not in self.plan.owners.new
            ):
                row = unchanged[file.path]
                self.plan.counts["changed"] += row.digest != file.digest
            else:
                row = Row(next_id, file.path, 0, 0, 0, 0, b"", labels.get(file.path), False)
                next_id += 1
                self.plan.counts["new"] += 1
            rows.append(with_facts(row, file))
        self.catalogue.put(rows)
        return next_id

    def _drop_unreadable(self) -> None:
        """Remove images whose new content is none, or that a new model could not code."""
        lost = [
            row.id for path, row in self.plan.owners.changed.items() if path in self.plan.skipped
        ]
        if self.plan.recodes and self.coder is not None:
            known = self.catalogue.known_digests(self.coder.digest)
            lost += [row.id for row in self.catalogue.rows() if row.digest not in known]
        self.catalogue.remove(lost)
        self.plan.counts["removed"] += len(set(lost))

    def _put_skipped(self) -> None:
        before, now = self.plan.skipped_before, self.plan.skipped
        self.catalogue.unskip(path for path in before if before[path] != now.get(path))
        self.catalogue.skip(file for path, file in now.items() if file != before.get(path))

    def _put_labels(self, facts: dict[str, Any]) -> None:
        if self.plan.given_labels is not None:
            self.catalogue.set_labels(self.plan.given_labels)
            facts["labels"] = str(self.plan.request.labels)

    def settle_racy(self) -> None:
        """Read files again that changed just before they were read, now that time has passed."""
        window, now = compare.RACY_NS, time.time_ns()
        where = "abs(seen_ns - mtime_ns) < ? AND mtime_ns < ?"
        rows = self.catalogue.rows(where, [window, now - window])
        paths = [row.path for row in rows]
        reads = in_order(
            lambda path: attempt(contents.read_digest, self.plan.full_path(path), path), paths
        )
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
        return Summary(
            **self.plan.counts,
            missing=self.plan.num_missing,
            unreadable=len(self.plan.skipped),
            ignored=self.plan.listing.ignored,
            images=self.catalogue.query("SELECT count(*) FROM images")[0][0],
            seconds=seconds,
            skipped=sorted(self.plan.skipped.values(), key=lambda file: sort_key(file.path)),
            index_bytes=bytes_of(self.catalogue.index),
            model=facts.get("model", {}).get("name", ""),
            notes=list(self.coder.notes) if self.coder else [],
        )


def _same(row: Row, file: Staged) -> bool:
    return (row.size, row.mtime_ns, row.digest) == (file.size, file.mtime_ns, file.digest)


def bytes_of(index: Path) -> int:
    """Return the size of an index without its model and its thumbnails."""
    total = 0
    for path in index.rglob("*"):
        if path.relative_to(index).parts[0] not in ("model", "thumbs"):
            with contextlib.suppress(OSError):  # a reader's file that is gone already
                total += path.stat().st_size if path.is_file() else 0
    return total
