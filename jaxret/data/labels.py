"""Labels of a folder's images from a CSV file with the columns file,label."""

import csv
import io
import os
import posixpath
from pathlib import Path

from jaxret.data.images import expand
from jaxret.data.sets import DataError

COLUMNS = ("file", "label")
SEPARATOR = "|"


def read_labels(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the labels of each file that a CSV file names.

    The file is UTF-8. Its first line names the columns; `file` (relative to the folder of images,
    with forward slashes) and `label` are read, others are ignored. An image with several labels
    has several lines, or one line with `a|b`. An empty label says that the image has none.

    Raises DataError, with the line, where a line is given twice or the file breaks a rule.
    """
    labels: dict[str, dict[str, int]] = {}  # of each file, with the line of each
    for line, file, cell in _rows(path):
        if not file:
            raise DataError(f"{path}, line {line}: no file")
        known = labels.setdefault(posixpath.normpath(file), {})
        for label in (part.strip() for part in cell.split(SEPARATOR)):
            if not label and cell:
                raise DataError(f"{path}, line {line}: an empty label in {cell!r}")
            if label in known:
                raise DataError(
                    f"{path}, line {line}: {file!r} has the label {label!r} already, in line "
                    f"{known[label]}"
                )
            known[label] = line
        if "" in known and len(known) > 1:
            raise DataError(f"{path}, line {line}: {file!r} has an empty label and another one")
    if not labels:
        raise DataError(f"{path}: no line after the header")
    return {file: tuple(known) if "" not in known else () for file, known in labels.items()}


def find_labels(labels: str | os.PathLike, folder: Path) -> Path:
    """Return the CSV file: a path from the current folder, or else from the folder of images."""
    path = expand(labels)
    for candidate in (path, folder / path):
        if candidate.is_file():
            return candidate
    raise DataError(f"there is no file of labels {path}, here or in {folder}")


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """Return line number, file and label of each line of the CSV file."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start})"
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if any(header.count(name) != 1 for name in COLUMNS):
            raise DataError(
                f"{path}: the first line must name the columns file,label, found "
                f"{','.join(header)[:80]!r}"
            )
        file, label = (header.index(name) for name in COLUMNS)
        for row in reader:
            if not row:  # an empty line
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(row)} columns, the header has "
                    f"{len(header)}"
                )
            rows.append((reader.line_num, row[file].strip(), row[label].strip()))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    return rows
