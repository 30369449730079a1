"""Retrieval protocols: which images train, which are searched, which are queries.

Every protocol has a name, because a score means nothing without it.
"""

import hashlib
import math
import os
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from jaxret.data.catalogue import load
from jaxret.data.sets import DataError, ImageSet, take
from jaxret.data.splits import seeded_fifth


class Protocol(NamedTuple):
    """The images of an experiment; known_overlap queries are in the gallery by content."""

    name: str
    train: ImageSet
    gallery: ImageSet
    query: ImageSet
    known_overlap: int


class SharedImages(UserWarning):
    """Some query images stand in the gallery, too, so that finding them proves little."""


def load_protocol(
    name: str, dataset: str, data_dir: str | os.PathLike | None = None, image_size: int = 32
) -> Protocol:
    """A protocol of PROTOCOLS on a data set; dataset, data_dir and image_size as in load.

    test: the test images are the queries; the training images train and are the gallery.
    validation: the queries are a fixed part of the training images, and the others train and are
    the gallery, so that a choice never sees the test images. The part is the last 10,000 images
    where the data set has an official split, else a fifth of each class (seeded_fifth, seed 1).
    """
    if name not in PROTOCOLS:
        raise DataError(f"unknown protocol {name!r}: choose one of {', '.join(PROTOCOLS)}")
    train, gallery, query = PROTOCOLS[name](dataset, data_dir, image_size)
    overlap = KNOWN_OVERLAP.get((dataset, name))
    if overlap is None:
        overlap = shared_images(gallery, query)
        if overlap:
            warnings.warn(
                f"{dataset}: {overlap} of {len(query.labels)} query images are in the gallery, too",
                SharedImages,
                stacklevel=2,
            )
    title = os.path.basename(os.path.normpath(dataset.removeprefix("folder:")))
    return Protocol(f"{title}-{name}", train, gallery, query, overlap)


def shared_images(gallery: ImageSet, query: ImageSet) -> int:
    """How many query images occur in the gallery, pixel for pixel, whatever their labels."""
    if gallery.images.shape[1:] != query.images.shape[1:]:
        raise ValueError(
            f"gallery and query images differ in shape: {gallery.images.shape[1:]} and "
            f"{query.images.shape[1:]}"
        )
    known = set(_digests(gallery))
    return sum(digest in known for digest in _digests(query))


def _digests(images: ImageSet) -> list[bytes]:
    n, *shape = images.images.shape
    rows = np.ascontiguousarray(images.images).reshape(n, math.prod(shape))
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]


def _test(dataset, data_dir, image_size) -> tuple[ImageSet, ImageSet, ImageSet]:
    train = load(dataset, "train", data_dir, image_size)
    return train, train, load(dataset, "test", data_dir, image_size)


def _validation(dataset, data_dir, image_size) -> tuple[ImageSet, ImageSet, ImageSet]:
    everything = load(dataset, "train", data_dir, image_size)
    held_out = HELD_OUT.get(dataset, _fifth)(everything.labels)
    if not held_out.any():
        raise DataError(f"{dataset}: too few training images to hold some out for validation")
    train = take(everything, ~held_out)
    return train, train, take(everything, held_out)


def _last_10000(labels: Int32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    return np.arange(len(labels)) >= len(labels) - 10_000


def _fifth(labels: Int32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    return seeded_fifth(labels, seed=1)


PROTOCOLS: dict[str, Callable] = {"test": _test, "validation": _validation}

# The training images that `validation` holds out, where it is not a fifth of each class.
HELD_OUT = dict.fromkeys(("mnist", "fashion_mnist", "cifar10", "cifar100"), _last_10000)

# Measured by shared_images on the canonical files. What is not here is measured when it is loaded.
KNOWN_OVERLAP = {
    (dataset, protocol): 0
    for dataset in ("mnist", "fashion_mnist", "cifar10", "digits")
    for protocol in ("test", "validation")
}
