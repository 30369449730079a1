"""Images by name: readers, folders, splits and retrieval protocols. NumPy only, no JAX."""

from jaxret.data.catalogue import DATASETS, load, with_coarse_labels
from jaxret.data.folder import SkippedImages
from jaxret.data.images import read_image, resize_images
from jaxret.data.landmarks import split_landmarks
from jaxret.data.protocols import (
    BENCHMARKS,
    PROTOCOLS,
    OneClass,
    Protocol,
    SharedImages,
    load_protocol,
    shared_images,
)
from jaxret.data.sets import DataError, ImageSet, has_labels, require_labels, take
from jaxret.data.splits import sample_rows
from jaxret.data.summary import describe

__all__ = [
    "BENCHMARKS",
    "DATASETS",
    "PROTOCOLS",
    "DataError",
    "ImageSet",
    "OneClass",
    "Protocol",
    "SharedImages",
    "SkippedImages",
    "describe",
    "has_labels",
    "load",
    "load_protocol",
    "read_image",
    "require_labels",
    "resize_images",
    "sample_rows",
    "shared_images",
    "split_landmarks",
    "take",
    "with_coarse_labels",
]
