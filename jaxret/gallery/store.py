"""A gallery on disk: one folder of raw columns and a header, whole at every instant.

    gallery.json            format, kind, sizes; file, dtype, shape and sha256 of each column
    <column>-<digest>.bin   one little-endian array, named by its content; no pickle

A save writes new column files beside those of the gallery that is there, flushes them, and then
replaces the header in one step: a process killed at any moment leaves the old gallery or the new
one. Column files that no header names are removed by the next save.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from jaxret.files import PathError, sync_folder

FORMAT = 1
HEADER = "gallery.json"
OURS = re.compile(r"[a-z]+-[0-9a-f]{16}\.bin|\.[a-z]+\.tmp|gallery\.json")
PIECE = 2**22  # bytes read, written and hashed at a time
DTYPES = ("<u4", "<f4", "<i8", "<i4", "|u1")


class GalleryError(PathError):
    """A request that a gallery must refuse, or a folder that is not a whole gallery."""


def write(path: str | os.PathLike, header: dict[str, Any], columns: dict[str, Iterable]) -> None:
    """Replace the gallery in a folder, or make the folder.

    header is what JSON can hold. A column is an iterable of arrays that follow each other along
    the first axis. Writers to one folder wait for each other.
    """
    folder = Path(path)
    _claim(folder)
    with _locked(folder):
        described = {name: _write_column(folder, name, rows) for name, rows in columns.items()}
        sync_folder(folder)  # the files' names are on the disk before the header that needs them
        _write_file(folder / ".header.tmp", [_header_bytes({**header, "columns": described})])
        os.replace(folder / ".header.tmp", folder / HEADER)
        sync_folder(folder)
        named = {column["file"] for column in described.values()} | {HEADER}
        for entry in folder.iterdir():
            if OURS.fullmatch(entry.name) and entry.name not in named:
                entry.unlink(missing_ok=True)


def read(
    path: str | os.PathLike, *, mapped: bool, verify: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the columns, in memory or mapped; with verify, every byte is checked.

    GalleryError says why a folder is refused. A gallery that is replaced while it is read is read
    anew; mapped columns stay as they were.
    """
    folder = Path(path)
    content = _read_header(folder)
    while True:
        header = _parse(folder, content)
        try:
            return header, {
                name: _read_column(folder, name, column, mapped, verify)
                for name, column in header["columns"].items()
            }
        except GalleryError:
            before, content = content, _read_header(folder)
            if content == before:
                raise


def release(column: np.ndarray) -> None:
    """Let go of the pages of a mapped column; the next access reads them again."""
    if isinstance(column.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        column.base.madvise(mmap.MADV_DONTNEED)


def check_whole(name: str, column: np.ndarray) -> None:
    """Refuse a mapped column whose file was cut: reading past its end would kill the process.

    The size of the open file is compared; its bytes are not read. A file that is cut while it is
    being read still kills the process, which nothing in Python can prevent.
    """
    base = cast("object", column.base)  # NumPy's types say that it is an array
    if isinstance(base, mmap.mmap) and (size := base.size()) < column.nbytes:
        raise GalleryError(
            f"the open gallery's {name} were cut to {size} bytes of {column.nbytes}; open it anew "
            "from a whole copy"
        )


def _claim(folder: Path) -> None:
    """Make the folder; refuse one that holds something else."""
    try:
        folder.mkdir(parents=True)
        sync_folder(folder.parent)
    except FileExistsError:
        if not folder.is_dir():
            raise GalleryError(f"a gallery is a folder, {folder} is a file") from None
        others = [entry.name for entry in folder.iterdir() if not OURS.fullmatch(entry.name)]
        if others and not (folder / HEADER).exists():
            raise GalleryError(
                f"a gallery needs a folder of its own, {folder} holds {sorted(others)[0]!r}"
            ) from None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time; the system lets go of the lock of a process that dies."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_column(folder: Path, name: str, rows: Iterable[np.ndarray]) -> dict[str, Any]:
    """Write one column under a temporary name, then under that of its content."""
    digest, described, count = hashlib.sha256(), {}, 0

    def pieces():
        nonlocal count
        for array in rows:
            array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            described.update(dtype=array.dtype.str, width=array.shape[1:])
            count += len(array)
            digest.update(array.data)
            yield array.data

    _write_file(folder / f".{name}.tmp", pieces())
    file = f"{name}-{digest.hexdigest()[:16]}.bin"
    os.replace(folder / f".{name}.tmp", folder / file)
    return {
        "file": file,
        "dtype": described["dtype"],
        "shape": [count, *described["width"]],
        "sha256": digest.hexdigest(),
    }


def _write_file(path: Path, pieces: Iterable) -> None:
    try:
        with open(path, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _header_bytes(header: dict[str, Any]) -> bytes:
    """The one text of a header: it ends in a digest of itself, so any altered byte shows."""
    body = {"format": FORMAT, **header}
    text = json.dumps(body, sort_keys=True)
    body["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(body, indent=1, sort_keys=True).encode() + b"\n"


def _read_header(folder: Path) -> bytes:
    try:
        return (folder / HEADER).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise GalleryError(f"{folder} is not a gallery: it has no {HEADER}") from None


def _parse(folder: Path, content: bytes) -> dict[str, Any]:
    try:
        header = json.loads(content)
        number = header.pop("format")
        header.pop("sha256", None)
        newer = isinstance(number, int) and number > FORMAT
    except (ValueError, KeyError, AttributeError, TypeError):
        raise GalleryError(f"{folder / HEADER} was altered: it is not a header") from None
    if newer:
        raise GalleryError(
            f"{folder} has format {number}, this jaxret reads up to {FORMAT}; use a newer jaxret"
        )
    if _header_bytes(header) != content:
        raise GalleryError(f"{folder / HEADER} was altered: its sha256 is not what it says")
    return header


def _read_column(folder, name, column, mapped, verify) -> np.ndarray:
    """One column, by the header's description of it."""
    path = folder / Path(column["file"]).name
    dtype, shape = column["dtype"], tuple(column["shape"])
    if dtype not in DTYPES:
        raise GalleryError(f"{name} of {folder} must be one of {DTYPES}, got {dtype}")
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != expected:
                raise GalleryError(f"{path} is torn: it has {size} bytes, not {expected}")
            if verify and mapped and _digest(file) != column["sha256"]:
                raise GalleryError(_altered(path))
            if mapped and size:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                return np.ndarray(shape, dtype, buffer=content)
            array = np.empty(shape, dtype)
            if file.readinto(array.reshape(-1).view(np.uint8).data) != expected:
                raise GalleryError(f"{path} is torn: it became shorter while it was read")
    except FileNotFoundError:
        raise GalleryError(f"{folder} is torn: {path.name} is missing") from None
    if verify and hashlib.sha256(array.data).hexdigest() != column["sha256"]:
        raise GalleryError(_altered(path))
    return array


def _digest(file) -> str:
    """Read through a buffer, not a map: the pages do not count as this process's memory."""
    digest, buffer = hashlib.sha256(), bytearray(PIECE)
    while count := file.readinto(buffer):
        digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def _altered(path: Path) -> str:
    return f"{path} was altered: its sha256 is not the header's"
