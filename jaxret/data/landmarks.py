"""Google Landmarks v2 (Weyand 2020): the list of its training images, and a range of landmarks.

The list is train.csv, with the columns id, url and landmark_id; the image of an id lies in
train/a/b/c/ID.jpg, where a, b and c are the first characters of the id. Nothing is downloaded.
"""

import csv
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from jaxret.data.folder import SkippedImages
from jaxret.data.images import read_files
from jaxret.data.sets import DataError, ImageSet, take
from jaxret.data.splits import draw_shares

FOLDER = "gldv2"  # below the folder of data
FIRST, LAST = 1000, 2000  # landmarks of the landmarks report, both counted
IMAGE_SIZE = 96
TEST, VALIDATION = 0.01, 0.2  # shares; the second is of what is not test
SEED = 0
_ID = re.compile(r"[0-9a-f]{16}")


class Landmark(NamedTuple):
    """One row of train.csv."""

    id: str  # 16 hexadecimal digits
    landmark: int

    @property
    def file(self) -> str:
        """Where its image lies, relative to the folder that holds train.csv."""
        return "/".join(["train", *self.id[:3], f"{self.id}.jpg"])


def read_landmarks(path: Path, first: int = FIRST, last: int = LAST) -> list[Landmark]:
    """Return the rows of train.csv whose landmark_id lies from first to last, both counted.

    Raises DataError, with the line, where the file breaks the format.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [row for row in _rows(path, file) if first <= row.landmark <= last]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason})") from error


def _rows(path: Path, file: Iterator[str]) -> Iterator[Landmark]:
    reader = csv.reader(file, strict=True)
    try:
        header = next(reader, [])
        if not {"id", "landmark_id"} <= set(header):
            raise DataError(
                f"{path}: the first line must name the columns id,url,landmark_id, found "
                f"{','.join(header)[:80]!r}"
            )
        at, landmark_at = header.index("id"), header.index("landmark_id")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if len(row) != len(header):
                raise DataError(f"{where}: {len(row)} columns, the header has {len(header)}")
            if not _ID.fullmatch(row[at]):
                raise DataError(f"{where}: id must be 16 hexadecimal digits, got {row[at]!r}")
            if not (row[landmark_at].isascii() and row[landmark_at].isdigit()):
                raise DataError(
                    f"{where}: landmark_id must be a whole number, got {row[landmark_at]!r}"
                )
            yield Landmark(row[at], int(row[landmark_at]))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def load_landmarks(split: str, data_dir: Path | None) -> ImageSet:
    """Return the training or test images of the landmarks 1000 to 2000, 96 pixels a side.

    They lie in data_dir/gldv2. The split is that of the landmarks report, drawn from the images
    that are there and whole (see `split_landmarks`); what the report validates with is in "train".
    Landmarks of a single image are left out.

    Raises:
        DataError: if train.csv is absent or breaks the format, or no image is there.

    Warns:
        SkippedImages: names the files that cannot be decoded; those that are absent are counted in
            the notes.
    """
    if data_dir is None or not (data_dir / FOLDER / "train.csv").is_file():
        raise DataError(
            f"landmarks: there is no {FOLDER}/train.csv in {data_dir or 'a folder of data'}; put "
            f"the list and the images of Google Landmarks v2 there ({FOLDER}/train/a/b/c/ID.jpg) "
            "and name the folder by data_dir or JAXRET_DATA_DIR"
        )
    root = data_dir / FOLDER
    listed = sorted(read_landmarks(root / "train.csv"))
    rows = [row for row in listed if (root / row.file).is_file()]
    if not rows:
        raise DataError(
            f"{root}: none of the {len(listed)} images of landmarks {FIRST} to {LAST} is there"
        )
    files = [row.file for row in rows]
    images, reasons = read_files(root, files, IMAGE_SIZE)
    skipped = {file: why for file, why in zip(files, reasons, strict=True) if why}
    if skipped:
        warnings.warn(SkippedImages(root, len(files), skipped), stacklevel=2)
    ids = np.array([row.landmark for row in rows], np.int64)
    whole = np.array([why is None for why in reasons])
    known, counts = np.unique(ids[whole], return_counts=True)
    kept = whole & np.isin(ids, known[counts > 1])
    if not kept.any():
        raise DataError(f"{root}: no landmark has two images that can be read")
    classes, labels = np.unique(ids[kept], return_inverse=True)
    notes = (
        f"{len(listed) - len(rows):,} of {len(listed):,} listed images are absent, "
        f"{len(skipped):,} cannot be decoded",
        f"left out: {np.sum(counts == 1)} landmarks of a single image",
    )
    everything = ImageSet(
        images[kept],
        labels.astype(np.int32),
        tuple(map(str, classes)),
        tuple(np.array(files)[kept].tolist()),
        notes,
    )
    _, _, test = split_landmarks(everything.labels)
    return take(everything, test if split == "test" else ~test)


def split_landmarks(
    labels: Int32[np.ndarray, " n"],
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Return masks of training, validation and test images, by the rule of the landmarks report.

    A hundredth of each class is test, at least one image; of what is left a fifth validates and the
    rest trains. A class of one image trains only.
    """
    test = draw_shares(labels, TEST, SEED, least=1)
    others = np.flatnonzero(~test)
    validation = np.zeros(len(labels), bool)
    validation[others[draw_shares(labels[others], VALIDATION, SEED)]] = True
    return ~test & ~validation, validation, test
