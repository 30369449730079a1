"""What a data set is once it is in memory, and the error of every reader."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8


class ImageSet(NamedTuple):
    """Images as they are stored, 0 to 255, with one class each."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]
    class_names: tuple[str, ...]


class DataError(ValueError):
    """A data set that is absent, damaged or not what it says; the message is one line."""


def take(images: ImageSet, rows: slice | np.ndarray) -> ImageSet:
    """Some of the images, in the order of rows."""
    return images._replace(images=images.images[rows], labels=images.labels[rows])
