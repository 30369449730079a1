"""Where an index lies and who may write to it."""

import contextlib
import datetime
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxret.files import WriteError, write_whole

FOLDER = ".jaxret"
CATALOGUE = "catalogue.sqlite"
LOCK = "lock"
# Backups, git and photo apps leave a folder alone that holds these.
MARKS = {
    "CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n# An index that jaxret made.\n",
    ".gitignore": "*\n",
    ".nomedia": "",
}

MODEL, GALLERY, THUMBS = "model", "gallery", "thumbs"  # folders of an index

Place = str | os.PathLike


class PhotoIndexError(ValueError):
    """A request that an index must refuse, with the reason in one line."""


def find_index(near: Sequence[Place] = (), given: Place | None = None) -> Path:
    """Return the folder of an index.

    Args:
        near: paths that a user named; the first that exists counts, else the current folder. The
            index is the nearest `.jaxret` in a folder above it, as git finds `.git`.
        given: the index itself, or the folder of photos that holds it; nothing is sought then.

    Raises:
        PhotoIndexError: where there is none.
    """
    if given is not None:
        for folder in (Path(given), Path(given) / FOLDER):
            if (folder / CATALOGUE).is_file():
                return folder.absolute()
        raise PhotoIndexError(f"there is no index in {given}; make one: jaxret index PHOTOS")
    start = next((Path(path) for path in near if os.path.lexists(path)), Path.cwd()).absolute()
    for place in dict.fromkeys((start, Path(os.path.realpath(start)))):
        for folder in (place, *place.parents):
            if (folder / FOLDER / CATALOGUE).is_file():
                return folder / FOLDER
            if (folder / CATALOGUE).is_file():
                return folder
    raise PhotoIndexError(
        f"there is no index at or above {start}; make one: jaxret index PHOTOS, or name one: "
        "--index DIR"
    )


def prepare(index: Path) -> None:
    """Make the folder of an index; refuse a folder that holds something else."""
    try:
        others = [name for name in os.listdir(index) if name not in MARKS and name != LOCK]
    except FileNotFoundError:
        others = []
    except OSError as error:
        raise PhotoIndexError(f"{index}: cannot be an index ({error.strerror})") from error
    if others and not (index / CATALOGUE).exists():
        raise PhotoIndexError(
            f"an index needs a folder of its own, {index} holds {sorted(others)[0]!r}"
        )
    for name, content in MARKS.items():
        if not (index / name).exists():
            try:
                write_whole(index / name, content)
            except WriteError as error:
                raise PhotoIndexError(f"{error}; --index DIR puts it elsewhere") from error


class Before(NamedTuple):
    """What there was of a folder before an index was made in it."""

    names: frozenset[str]  # in the folder
    absent: tuple[Path, ...]  # the folder and those above it that did not exist, deepest first


def before(folder: Path) -> Before:
    """Return what there is of a folder."""
    absent = tuple(path for path in (folder, *folder.parents) if not os.path.exists(path))
    names = []
    if not absent:
        with contextlib.suppress(OSError):  # what is wrong with it `prepare` says
            names = os.listdir(folder)
    return Before(frozenset(names), absent)


def restore(folder: Path, before: Before) -> None:
    """Remove what an index has made in a folder since: its files, and folders now empty."""
    with contextlib.suppress(OSError):  # what failed is what the user must hear of
        for name in set(os.listdir(folder)) - before.names:
            path = folder / name
            if name in (MODEL, GALLERY, THUMBS):
                shutil.rmtree(path)
            elif name in (*MARKS, LOCK) or name.startswith(CATALOGUE):
                path.unlink()
        for path in before.absent:
            path.rmdir()


@contextlib.contextmanager
def writing(index: Path) -> Iterator[None]:
    """Hold the index as its only writer; readers never wait for it.

    Raises PhotoIndexError, which names the holder, where another process writes. The system lets
    go of the lock of a process that dies.
    """
    try:
        handle = os.open(index / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise PhotoIndexError(f"{index}: cannot be written ({error.strerror})") from error
    try:
        _lock(handle, index)
        now = datetime.datetime.now().astimezone()
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} since {now:%H:%M}".encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _lock(handle: int, index: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(handle).st_nlink:  # removed meanwhile, by a first run that failed
            raise BlockingIOError
    except BlockingIOError:
        holder = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
        raise PhotoIndexError(f"{index}: being updated by {holder}") from None
    except OSError as error:
        raise PhotoIndexError(
            f"{index}: its file system has no locks ({error.strerror}); put --index on a local disk"
        ) from error
