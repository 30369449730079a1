"""What a data set is once it is in memory, and the error of every reader."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from jaxret.files import PathError

Labels = Int32[np.ndarray, " n"] | Bool[np.ndarray, "n c"]


class ImageSet(NamedTuple):
    """Images with their labels, as one value.

    images: as they are stored, 0 to 255.
    labels: one class for each image, -1 where there is none. Where an image may have several
        labels, a matrix: labels[i, j] says whether image i has the label class_names[j].
    class_names: () where no image has a label.
    names: the files, relative to the folder that was read; None for arrays.
    notes: sentences on how the images were read and split and what was left out, for `describe`.
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Labels
    class_names: tuple[str, ...]
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


class DataError(PathError):
    """A data set that is absent, damaged or not what it says; the message is one line."""


def take(images: ImageSet, rows: slice | np.ndarray | Sequence[int]) -> ImageSet:
    """Return the images of the given rows, in that order, with their labels and names.

    rows is a slice, row numbers, or a boolean mask over all rows.
    """
    numbers = np.arange(len(images.images))[rows]
    names = images.names and tuple(images.names[row] for row in numbers)
    return images._replace(images=images.images[rows], labels=images.labels[rows], names=names)


def require_labels(images: ImageSet, purpose: str) -> None:
    """Raise DataError where no image has a label.

    purpose is the start of the sentence: what needs labels, such as "a hash network".
    """
    if not has_labels(images):
        raise DataError(
            f"{purpose} needs labels, and these images have none: give each class a sub-folder of "
            "its own, or name a CSV file with the columns file,label"
        )


def has_labels(images: ImageSet) -> bool:
    """Return whether at least one image has a label."""
    return bool(np.any(images.labels if images.labels.ndim == 2 else images.labels >= 0))


def whole_number(value: Any, name: str, least: int, most: int | None = None) -> int:
    """Return a value as an int: a Python or NumPy integer, or a float without a fraction.

    Raises DataError, with the name and the value, for anything else and outside least to most.
    """
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"
    number = None
    if np.ndim(value) == 0 and not isinstance(value, (bool, np.bool_, str, bytes)):
        value = value.item() if isinstance(value, (np.ndarray, np.generic)) else value
        try:
            number = operator.index(_without_fraction(value))
        except TypeError:
            number = None
    if number is None:
        raise DataError(f"{name} must be a whole number, got {value!r}")
    if number < least or (most is not None and number > most):
        raise DataError(f"{name} must be {bounds}, got {number}")
    return number


def _without_fraction(value: Any) -> Any:
    """Return a float that is whole as an int, and any other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
