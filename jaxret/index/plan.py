"""What a run has to do: the folder compared with the index, and the digests that decide it."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxret.index import compare, contents
from jaxret.index.catalogue import Catalogue, Content, Row, Skipped, Staged
from jaxret.index.coder import Request, settle_model
from jaxret.index.contents import UnreadableError
from jaxret.index.pipeline import in_order
from jaxret.index.places import PhotoIndexError, Place
from jaxret.index.scan import Entry, Listing, Shard, scan, sort_key

HASHED = 512  # files that are digested between two transactions

Progress = Callable[[str, int, int], None]  # phase, done, total


class Plan:
    """The difference between a folder and its index, found without changing what is published.

    puts: images whose facts change, whose codes do not. removals: ids that go. owners: the images
    of changed and new paths. todo: paths to read and code, sorted. staged: files whose digest is
    known. skipped: files and folders that cannot be read.
    """

    def __init__(self, catalogue: Catalogue, root: Path, request: Request, tell: Progress):
        self.catalogue, self.root, self.request, self.tell = catalogue, root, request, tell
        self.counts = dict.fromkeys(("new", "changed", "moved", "removed", "refused"), 0)
        self.puts: list[Row] = []
        self.removals: list[int] = []
        self.num_missing = 0

    def prepare(self, settings: dict[str, Any]) -> None:
        """Read the index and list the folder."""
        catalogue = self.catalogue
        facts = catalogue.facts()
        self.settings = {"exclude": [], "hidden": False, "shard": None}
        self.settings |= facts.get("settings", {}) | settings
        self.settings["exclude"] = [glob for glob in self.settings["exclude"] if glob]
        self.model = settle_model(catalogue, facts, self.request)
        self.rows = catalogue.rows()
        shard = None if self.settings["shard"] is None else Shard(*self.settings["shard"])
        self._check_share(shard)
        self.listing = scan(
            self.root,
            index=catalogue.index,
            exclude=self.settings["exclude"],
            hidden=self.settings["hidden"],
            shard=shard,
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

    def _check_share(self, shard: Shard | None) -> None:
        """Refuse a share without all images of the index: the others would be removed as gone."""
        outside = 0 if shard is None else sum(not shard.holds(row.path) for row in self.rows)
        if shard is not None and outside:
            raise PhotoIndexError(
                f"{self.catalogue.index}: has {outside} images that --shard "
                f"{shard.part}/{shard.parts} leaves out; a shard needs an index of its own: "
                "--index DIR"
            )

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
                self.puts.append(with_facts(row, file))
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
            self.puts.append(with_facts(row, self.staged[path])._replace(path=path))
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
        reads = in_order(
            lambda path: attempt(contents.read_digest, self.full_path(path), path), paths
        )
        for done, (path, result) in enumerate(zip(paths, reads, strict=True), 1):
            self.tell("reading", done, len(paths))
            if isinstance(result, str):
                self.skip(path, result)
                continue
            found[path] = result
            batch.append(result)
            if len(batch) == HASHED:
                self.stage(batch)
                batch = []
        self.stage(batch)
        return found

    def read_digests(self, paths: Sequence[str]) -> Iterator[Staged | str]:
        """Return the facts and the digest of each file, or why it cannot be read."""

        def read(path):
            return attempt(contents.read_digest, self.full_path(path), path)

        return in_order(read, paths)

    def full_path(self, path: str) -> str:
        """Return where the file of a path is."""
        return os.path.join(self.root, path)

    def skip(self, path: str, reason: str) -> None:
        """Note that a file cannot be read."""
        self.skipped[path] = _skipped(path, self.listing.files[path], reason)

    def stage(
        self, files: Iterable[Staged], coded: Iterable[Content] = (), digest: str = ""
    ) -> None:
        """Keep in one transaction what was read of files, and the codes that a model gave."""
        files, coded = list(files), list(coded)
        if files or coded:
            with self.catalogue.transaction():
                self.catalogue.stage(files, coded, digest)


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


def attempt(function: Callable, *arguments: Any) -> Any:
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


def with_facts(row: Row, file: Staged) -> Row:
    """Return an image with the facts and the digest of a file that was read."""
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
