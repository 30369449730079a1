"""Files that are whole at every instant: the one way in which jaxret and its scripts write them."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

Piece = bytes | memoryview
Content = bytes | str | Iterable[Piece]


class PathError(ValueError):
    """A file or a folder that cannot be used; the message is one line, whatever its name holds."""

    def __init__(self, message: str):
        """Write line breaks, which a path may hold, as Python does."""
        super().__init__(one_line(message))


class WriteError(OSError):
    """A file that cannot be written; the message names it and the reason."""

    def __init__(self, message: str):
        """As of `PathError`."""
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Return text whose line breaks are written as Python writes them."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


def write_whole(path: str | os.PathLike, content: Content) -> None:
    """Replace a file in one step, or make it, with the folders above it.

    The content goes to a temporary file beside the path, is flushed to the disk, and is renamed
    into place: a process killed at any moment leaves the old file or the new one. Text is encoded
    as UTF-8. An iterable yields pieces, so that a large file need not be in memory at once.

    Raises WriteError where the system refuses, and for a device or a pipe, which a rename would
    replace; the old file then stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError("a device or a pipe, a file is expected")
        try:
            with open(temporary, "wb") as file:
                for piece in _pieces(content):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


def sync_folder(folder: str | os.PathLike) -> None:
    """Flush a folder's list of names to the disk, so that a rename outlives a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pieces(content: Content) -> Iterable[Piece]:
    if isinstance(content, str):
        return [content.encode()]
    return [content] if isinstance(content, bytes) else content
