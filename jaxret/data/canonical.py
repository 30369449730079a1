"""Canonical files on disk: reading, and the checks that every format shares."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxret.data.sets import DataError


def read_bytes(path: Path) -> bytes:
    """Return the file's content; raise DataError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def check_size(found: int, expected: int, where: Path | str) -> None:
    """Raise DataError where a file is shorter or longer than its format says."""
    if found != expected:
        problem = "truncated" if found < expected else "too long"
        raise DataError(f"{where}: {problem}, expected {expected} bytes, found {found}")


def check_digest(
    content: bytes,
    algorithm: str,
    expected: str,
    where: Path | str,
    known: Mapping[str, str] | None = None,
) -> None:
    """Raise DataError where the content is not that of the canonical file.

    known names contents by their digests, to say what was found instead.
    """
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected:
        reason = "the file is damaged or not the canonical one; download it again"
        if known and found in known:
            reason = f"this is {known[found]}"
        raise DataError(
            f"{where}: wrong checksum, expected {algorithm} {expected}, found {found}: {reason}"
        )


def complete(folder: Path, names: Iterable[str]) -> bool:
    """Return whether the folder holds these files; raise DataError where it holds only a part."""
    missing = [name for name in names if not (folder / name).is_file()]
    present = [name for name in names if name not in missing]
    if present and missing:
        raise DataError(f"{folder}: {', '.join(missing)} missing beside {', '.join(present)}")
    return bool(present)
