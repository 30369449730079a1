"""The image files below a folder, by their names and by what the file system says of them."""

import fnmatch
import hashlib
import os
import stat
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxret.index.places import FOLDER, PhotoIndexError

EXTENSIONS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".heic", ".heif",
})  # fmt: skip
# Folders of thumbnails and deleted files that systems make beside a user's own.
SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "lost+found", "__macosx"}
    | {"system volume information"}
)
MOST_BYTES = 4 * 2**30  # of a file: a sparse one may have any size, and all of it would be read
NOT_FILES = (
    (stat.S_ISFIFO, "a FIFO, not a file"),
    (stat.S_ISSOCK, "a socket, not a file"),
    (stat.S_ISCHR, "a device, not a file"),
    (stat.S_ISBLK, "a device, not a file"),
)


class Entry(NamedTuple):
    """What the file system says of a file. `fault` is why it cannot be an image, or empty."""

    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int  # as a signed number of 64 bits, which SQLite can hold
    fault: str = ""


class Listing(NamedTuple):
    """The files of a folder.

    files: path below the folder, with forward slashes -> Entry; sorted by the parts of the path.
    locked: folder that cannot be read -> reason.
    ignored: the number of files without an image's extension.
    links: the number of further names of a file that is listed already.
    """

    files: dict[str, Entry]
    locked: dict[str, str]
    ignored: int
    links: int


class Shard(NamedTuple):
    """Share number `part` of `parts`, counted from 1: paths whose digest falls to it."""

    part: int
    parts: int

    def holds(self, path: str) -> bool:
        """Return whether a path belongs to this share."""
        digest = path_digest(path)
        return int.from_bytes(digest[:8], "little") % self.parts == self.part - 1


def path_digest(path: str) -> bytes:
    """Return a digest of a path below the root: equal on every machine."""
    return hashlib.blake2b(os.fsencode(path), digest_size=16).digest()


def sort_key(path: str) -> str:
    """Return what sorts paths by their parts: a folder's files stay together."""
    return path.replace("/", "\0")


def entry_of(facts: os.stat_result) -> Entry:
    """Return an Entry of what `os.stat` gives.

    Times beyond the years 1677 and 2262, which have no number of 64 bits, are the last that have.
    """
    fault = next((why for test, why in NOT_FILES if test(facts.st_mode)), "")
    if not fault and facts.st_size > MOST_BYTES:
        fault = f"more than {MOST_BYTES // 2**30} GB"
    inode = facts.st_ino - 2**64 if facts.st_ino >= 2**63 else facts.st_ino
    mtime, ctime = (
        max(-(2**63) + 1, min(time_ns, 2**63 - 1))
        for time_ns in (facts.st_mtime_ns, facts.st_ctime_ns)
    )
    return Entry(facts.st_size, mtime, ctime, facts.st_dev, inode, fault)


def scan(
    root: Path,
    *,
    index: Path | None = None,
    exclude: Sequence[str] = (),
    hidden: bool = False,
    shard: Shard | None = None,
    known: Container[str] = (),
) -> Listing:
    """List the image files below a folder. No file is opened.

    Links to files are followed, links to folders are not, so that each real folder is walked once.
    A file with several names is listed under one of them.

    Args:
        root: the folder.
        index: a folder that is not walked, wherever it lies.
        exclude: glob patterns of names, or of paths below root, that are left out.
        hidden: whether names that begin with a dot are walked.
        shard: the share of the files to list; None for all.
        known: paths that are preferred where a file has several names.

    Returns:
        Listing.

    Raises:
        PhotoIndexError: where root is not a folder that can be read.
    """
    walk = _Walk(root, index, tuple(pattern.rstrip("/") for pattern in exclude), hidden)
    found = list(walk.files())
    files: dict[str, Entry] = {}
    links, names = 0, {}
    for path, entry, linked in sorted(found, key=lambda item: _preference(item, known)):
        if linked and (entry.device, entry.inode) in names:
            links += 1
            continue
        if linked:
            names[entry.device, entry.inode] = path
        if shard is None or shard.holds(path):
            files[path] = entry
    ordered = {path: files[path] for path in sorted(files, key=sort_key)}
    return Listing(ordered, walk.locked, walk.ignored, links)


Found = tuple[str, Entry, int]  # path, what it is, 0: its only name, 1: one of several, 2: a link


def _preference(item: Found, known: Container[str]) -> tuple:
    path, _, linked = item
    return (linked == 2, path not in known if linked else False, sort_key(path))


class _Walk:
    """One walk through a folder; `locked` and `ignored` grow on the way."""

    def __init__(self, root: Path, index: Path | None, exclude: tuple[str, ...], hidden: bool):
        self.root, self.exclude, self.hidden = root, exclude, hidden
        self.locked: dict[str, str] = {}
        self.ignored = 0
        self.index = None
        if index is not None and index.is_dir():
            facts = index.stat()
            self.index = (facts.st_dev, facts.st_ino)

    def files(self) -> Iterator[Found]:
        folders = [""]
        single, links = [], set()
        while folders:
            folder = folders.pop()
            for entry in self._entries(folder):
                path = f"{folder}/{entry.name}" if folder else entry.name
                if self._left_out(path, entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if self._is_walked(entry):
                        folders.append(path)
                elif os.path.splitext(entry.name)[1].lower() not in EXTENSIONS:
                    self.ignored += 1
                elif not (entry.is_symlink() and os.path.isdir(entry.path)):
                    found = self._file(path, entry)
                    if found[2]:
                        links.add((found[1].device, found[1].inode))
                        yield found
                    else:
                        single.append(found)
        # A file with one name may have links to it, which count as its further names.
        for path, entry, _ in single:
            yield path, entry, int((entry.device, entry.inode) in links)

    def _entries(self, folder: str) -> list[os.DirEntry]:
        try:
            with os.scandir(self.root / folder) as entries:
                return list(entries)
        except OSError as error:
            if not folder:
                raise PhotoIndexError(f"{self.root}: {error.strerror}") from error
            self.locked[folder] = error.strerror or "cannot be read"
            return []

    def _left_out(self, path: str, name: str) -> bool:
        if name == FOLDER or (name.startswith(".") and not self.hidden):
            return True
        if name.lower() in SYSTEM_FOLDERS or name.startswith(".Trash"):
            return True
        match = fnmatch.fnmatchcase
        return any(match(path, pattern) or match(name, pattern) for pattern in self.exclude)

    def _is_walked(self, entry: os.DirEntry) -> bool:
        if self.index is None:
            return True
        facts = entry.stat(follow_symlinks=False)
        return (facts.st_dev, facts.st_ino) != self.index

    def _file(self, path: str, entry: os.DirEntry) -> Found:
        try:
            facts = entry.stat()
        except OSError as error:
            fault = "a link to nothing" if entry.is_symlink() else error.strerror or "unreadable"
            try:
                own = entry.stat(follow_symlinks=False)
            except OSError:  # gone since the folder was listed
                return path, Entry(0, 0, 0, 0, 0, fault), 0
            return path, entry_of(own)._replace(fault=fault), 0
        return path, entry_of(facts), 2 if entry.is_symlink() else int(facts.st_nlink > 1)
