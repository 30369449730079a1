"""Images by name: readers, splits and retrieval protocols. NumPy only, no JAX."""

from jaxret.data.catalogue import DATASETS, load
from jaxret.data.folder import SkippedImages
from jaxret.data.protocols import (
    BENCHMARKS,
    PROTOCOLS,
    Protocol,
    SharedImages,
    load_protocol,
    shared_images,
)
from jaxret.data.sets import DataError, ImageSet

__all__ = [
    "BENCHMARKS",
    "DATASETS",
    "PROTOCOLS",
    "DataError",
    "ImageSet",
    "Protocol",
    "SharedImages",
    "SkippedImages",
    "load",
    "load_protocol",
    "shared_images",
]
