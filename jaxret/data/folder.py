"""A folder of images as a data set: one sub-folder per class, or a CSV file, or no labels."""

import os
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Int

from jaxret.data.images import read_files, try_read
from jaxret.data.listing import Listing, list_folder
from jaxret.data.sets import DataError, ImageSet, Labels
from jaxret.data.splits import shuffle_names


class SkippedImages(UserWarning):
    """Files of an image folder that could not be used; reasons maps each to what is wrong."""

    def __init__(self, path: Path, total: int, reasons: dict[str, str]):
        self.reasons = reasons
        shown = [f"{name!r} ({reason})" for name, reason in list(reasons.items())[:10]]
        if len(reasons) > len(shown):
            shown.append(f"and {len(reasons) - len(shown)} more")
        super().__init__(f"{path}: {len(reasons)} of {total} files skipped: {', '.join(shown)}")


def load_folder(
    path: Path, split: str, image_size: int, labels: str | os.PathLike | None = None
) -> ImageSet:
    """Return one split of a folder of images, in RGB, in an order that a hash of the names gives.

    Classes are the sub-folders, each with every file below it, at any depth and through links. A
    folder of images without sub-folders of images is flat: its images have no label. With labels,
    the CSV file alone names the images and their labels (see `read_labels`): labels are i32[n],
    -1 for none, or bool[n c] where any image has several. A class without a readable image is no
    class.

    `hashed_fifth` of the path inside the folder chooses the test images; but a folder of `train`
    and `test` (or `val`, `valid`, `validation`) keeps that split. Names that look like these, such
    as `Train` and `Test`, are an error.

    Left out, and told in the notes: empty sub-folders, further ones beside `train` and `test`,
    those of file servers (`@eaDir`), those that jaxret wrote, and images beside the sub-folders.
    Names that begin with a dot are left out silently.

    Args:
        path: the folder. Nothing is written into it.
        split: "train" or "test".
        image_size: pixels a side of every image; see `read_image`.
        labels: a CSV file, sought from the current folder and then from path; or None.

    Returns:
        The images, with names relative to path.

    Raises:
        DataError: where the folder or the CSV file breaks a rule, or no image can be read.

    Warns:
        SkippedImages: names the files that cannot be decoded.
    """
    listing = list_folder(path, labels)
    rows = _rows_of(split, listing, path)
    files = [listing.files[row] for row in rows]
    images, reasons = read_files(path, files, image_size)
    skipped = {file: why for file, why in zip(files, reasons, strict=True) if why}
    notes = list(listing.notes)
    if skipped:
        warnings.warn(SkippedImages(path, len(files), dict(sorted(skipped.items()))), stacklevel=3)
        notes.append(f"left out: {len(skipped)} of {len(files)} files of {split!r}: unreadable")
    readable = np.array([why is None for why in reasons])
    if not readable.any():
        raise DataError(f"{path}: none of the {len(files)} files of {split!r} is a readable image")
    if skipped:
        images, rows = images[readable], rows[readable]
    class_names = _classes(path, listing, rows, image_size)
    if without := {name for names in listing.labels for name in names} - set(class_names):
        notes.append(f"left out: classes without a readable image: {', '.join(sorted(without))}")
    return ImageSet(
        images,
        _labels(listing, rows, class_names),
        class_names,
        tuple(listing.files[row] for row in rows),
        tuple(notes),
    )


def _rows_of(split: str, listing: Listing, path: Path) -> Int[np.ndarray, " m"]:
    """Return which of a listing's files are a split's, in the order that their names give."""
    rows = np.flatnonzero(listing.test == (split == "test"))
    if not len(rows):
        what = "no class has two files" if any(listing.labels) else "there is only one file"
        raise DataError(f"{path}: no image for {split!r}: {what}")
    return rows[shuffle_names([listing.files[row] for row in rows])]


def _classes(
    path: Path, listing: Listing, readable: Int[np.ndarray, " _"], image_size: int
) -> tuple[str, ...]:
    """Return the classes that have a readable image in either part, sorted.

    The other part's images are decoded only where this part's leave a class in doubt.
    """
    found = {name for row in readable for name in listing.labels[row]}
    in_doubt = {name for names in listing.labels for name in names} - found
    this_part = listing.test == listing.test[readable[0]]
    for row in np.flatnonzero(~this_part) if in_doubt else ():
        names = in_doubt.intersection(listing.labels[row])
        if names and not isinstance(try_read(path / listing.files[row], image_size), str):
            found |= names
            in_doubt -= names
    return tuple(sorted(found))


def _labels(listing: Listing, rows: Int[np.ndarray, " m"], class_names: tuple[str, ...]) -> Labels:
    ids = {name: i for i, name in enumerate(class_names)}
    if not listing.several:
        names = [listing.labels[row] for row in rows]
        return np.array([ids[name[0]] if name else -1 for name in names], np.int32)
    labels = np.zeros((len(rows), len(ids)), bool)
    for i, row in enumerate(rows):
        labels[i, [ids[name] for name in listing.labels[row]]] = True
    return labels
