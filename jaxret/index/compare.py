"""What changed between a catalogue and a folder: pure functions of rows, entries and digests."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxret.index.catalogue import Row
from jaxret.index.scan import Entry, Listing, sort_key

RACY_NS = 2_000_000_000  # a file may change this long after its mtime without a new one
MOST_LOST = 0.5  # of the images; more than that, and FEWEST_LOST, are not removed unasked
FEWEST_LOST = 10


class Changes(NamedTuple):
    """What the file system's facts alone say of each image and of each file.

    same: nothing to do. moved_inode: only the inode differs, and inodes mean nothing here.
    suspect: facts differ, or are too young to be trusted; the bytes decide. new: paths without an
    image. missing: images without a file. locked: images in folders that cannot be read.
    """

    same: list[Row]
    moved_inode: list[Row]
    suspect: list[Row]
    new: list[str]
    missing: list[Row]
    locked: list[Row]


def compare(rows: Iterable[Row], listing: Listing, *, recheck: bool = False) -> Changes:
    """Compare images with the files of a listing.

    A file is unchanged where size, mtime and inode are equal. Where most files differ in the inode
    alone, and the inodes are not those of other images, inodes mean nothing (exFAT, SMB, a copy).
    recheck makes every image a suspect.
    """
    changes = Changes([], [], [], [], [], [])
    by_inode = []
    known, inodes = set(), set()
    for row in rows:
        known.add(row.path)
        inodes.add(row.inode)
        entry = listing.files.get(row.path)
        if entry is None:
            (changes.locked if is_locked(row.path, listing) else changes.missing).append(row)
        elif entry.fault or recheck or (row.size, row.mtime_ns) != (entry.size, entry.mtime_ns):
            changes.suspect.append(row)
        elif row.inode != entry.inode:
            by_inode.append((row, entry))
        else:
            (changes.suspect if is_racy(row) else changes.same).append(row)
    foreign = sum(entry.inode not in inodes for _, entry in by_inode)
    most = len(by_inode) >= FEWEST_LOST and len(by_inode) > len(changes.same)
    meaningless = most and 2 * foreign > len(by_inode)
    target = changes.moved_inode if meaningless else changes.suspect
    target.extend(row for row, _ in by_inode)
    changes.new.extend(path for path in listing.files if path not in known)
    return changes


def is_racy(row: Row) -> bool:
    """Return whether a file may have changed after it was read without a new mtime."""
    return abs(row.seen_ns - row.mtime_ns) < RACY_NS


def is_locked(path: str, listing: Listing) -> bool:
    """Return whether a path is below a folder that cannot be read."""
    parts = path.split("/")
    folders = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return bool(listing.locked) and any(folder in listing.locked for folder in folders)


class Owners(NamedTuple):
    """Which image each changed or new path belongs to.

    moved: path -> the image whose content it has, which keeps its id. changed: path -> its own
    image, with new content. new: paths of images without an id yet. lost: images without a file.
    """

    moved: dict[str, Row]
    changed: dict[str, Row]
    new: list[str]
    lost: list[Row]


def assign(missing: Sequence[Row], changed: Sequence[Row], digests: Mapping[str, bytes]) -> Owners:
    """Give each changed or new path its image: ids follow the content.

    A path takes the image that had its content and whose own path is gone or has changed; of
    several, in sorted order. A changed path that takes none keeps its own image, unless another
    path took that.

    Args:
        missing: images without a file.
        changed: images whose path has other content now.
        digests: of the changed paths and of the new ones.

    Returns:
        Owners.
    """
    displaced = defaultdict(deque)
    for row in sorted((*missing, *changed), key=lambda row: sort_key(row.path)):
        displaced[row.digest].append(row)
    moved = {}
    for path in sorted(digests, key=sort_key):
        if displaced[digests[path]]:
            moved[path] = displaced[digests[path]].popleft()
    taken = {row.id for row in moved.values()}
    own = {row.path: row for row in changed}
    kept = {path: row for path, row in own.items() if path not in moved and row.id not in taken}
    new = [path for path in digests if path not in moved and path not in kept]
    lost = [
        row for row in (*missing, *changed) if row.id not in taken and kept.get(row.path) is not row
    ]
    return Owners(moved, kept, sorted(new, key=sort_key), lost)


def are_too_many(lost: int, images: int) -> bool:
    """Return whether the share of lost images suggests that a folder is not mounted."""
    return lost >= FEWEST_LOST and lost > MOST_LOST * images


def facts_of(row: Row, entry: Entry, *, seen_ns: int | None = None) -> Row:
    """Return an image with the facts of its file as they are now."""
    return row._replace(
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        inode=entry.inode,
        seen_ns=row.seen_ns if seen_ns is None else seen_ns,
        missing=False,
    )
