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
from jaxret.data.splits import digest_of_rows, drawn_by_class, seeded_fifth

Rows = Int32[np.ndarray, " _"]


class Protocol(NamedTuple):
    """The images of an experiment; known_overlap queries are in the gallery by content.

    One of the literature also says by which score it is known, and has a digest of the row numbers
    of its parts, the training images counted first and the test images after them.
    """

    name: str
    train: ImageSet
    gallery: ImageSet
    query: ImageSet
    known_overlap: int
    metric: str = ""  # as jaxret.evaluate names it
    split: str = ""


class Benchmark(NamedTuple):
    """A protocol of the literature: of one data set, with one division of all its images."""

    dataset: str
    # (labels of all images, how many are training images) -> rows of training, gallery, queries
    divide: Callable[[Rows, int], tuple[Rows, Rows, Rows]]
    metric: str  # the score that others publish


class SharedImages(UserWarning):
    """Some query images stand in the gallery, too, so that finding them proves little."""


def load_protocol(
    name: str, dataset: str, data_dir: str | os.PathLike | None = None, image_size: int = 32
) -> Protocol:
    """A protocol by name on a data set; dataset, data_dir and image_size as in load.

    test: the test images are the queries; the training images train and are the gallery.
    validation: the queries are a fixed part of the training images, and the others train and are
    the gallery, so that a choice never sees the test images. The part is the last 10,000 images
    where the data set has an official split, else a fifth of each class (seeded_fifth, seed 1).

    The others are those of BENCHMARKS, under which methods are published. full: the images of
    test. 59k: 1,000 queries, 100 of each class, drawn from all 60,000 images, which are the
    gallery otherwise; 5,000 of it train, 500 of each class. 54k: the same, but what trained is not
    in the gallery. What follows the @ says which score is published: mAP of the first 1000 results,
    divided by the relevant ones among them, or of the whole gallery in its order.
    """
    if name in BENCHMARKS:
        return _load_benchmark(name, dataset, data_dir)
    if name not in PROTOCOLS:
        names = ", ".join((*PROTOCOLS, *BENCHMARKS))
        raise DataError(f"unknown protocol {name!r}: choose one of {names}")
    train, gallery, query = PROTOCOLS[name](dataset, data_dir, image_size)
    title = os.path.basename(os.path.normpath(dataset.removeprefix("folder:")))
    overlap = _overlap(dataset, name, gallery, query)
    return Protocol(f"{title}-{name}", train, gallery, query, overlap)


def _load_benchmark(name, dataset, data_dir) -> Protocol:
    benchmark = BENCHMARKS[name]
    if dataset != benchmark.dataset:
        raise DataError(f"{name} is a protocol of {benchmark.dataset}, not of {dataset}")
    first, last = (load(dataset, split, data_dir) for split in ("train", "test"))
    everything = first._replace(
        images=np.concatenate([first.images, last.images]),
        labels=np.concatenate([first.labels, last.labels]),
    )
    rows = benchmark.divide(everything.labels, len(first.labels))
    train, gallery, query = (take(everything, part) for part in rows)
    overlap = _overlap(dataset, name, gallery, query)
    split = digest_of_rows(*rows)
    return Protocol(name, train, gallery, query, overlap, benchmark.metric, split)


def _overlap(dataset, name, gallery, query) -> int:
    """Measured before, or now: then it is told."""
    overlap = KNOWN_OVERLAP.get((dataset, name))
    if overlap is None:
        overlap = shared_images(gallery, query)
        if overlap:
            warnings.warn(
                f"{dataset}: {overlap} of {len(query.labels)} query images are in the gallery, too",
                SharedImages,
                stacklevel=3,
            )
    return overlap


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


def _official(labels: Rows, num_train: int) -> tuple[Rows, Rows, Rows]:
    rows = np.arange(len(labels), dtype=np.int32)
    return rows[:num_train], rows[:num_train], rows[num_train:]


def _with_training(labels: Rows, num_train: int) -> tuple[Rows, Rows, Rows]:
    del num_train  # drawn from all images alike
    query, train, others = drawn_by_class(labels, QUERIES_AND_TRAINING, seed=0)
    return train, np.sort(np.concatenate([train, others])), query


def _without_training(labels: Rows, num_train: int) -> tuple[Rows, Rows, Rows]:
    del num_train  # drawn from all images alike
    query, train, others = drawn_by_class(labels, QUERIES_AND_TRAINING, seed=0)
    return train, others, query


QUERIES_AND_TRAINING = (100, 500)  # of each class
BENCHMARKS = {
    "cifar10-full@1000": Benchmark("cifar10", _official, "map@1000/retrieved"),
    "cifar10-full@all": Benchmark("cifar10", _official, "map@all/all"),
    "cifar10-59k@all": Benchmark("cifar10", _with_training, "map@all/all"),
    "cifar10-54k@all": Benchmark("cifar10", _without_training, "map@all/all"),
    "cifar100-full@1000": Benchmark("cifar100", _official, "map@1000/retrieved"),
}

# The training images that `validation` holds out, where it is not a fifth of each class.
HELD_OUT = dict.fromkeys(("mnist", "fashion_mnist", "cifar10", "cifar100"), _last_10000)

# Measured by shared_images on the canonical files. What is not here is measured when it is loaded.
KNOWN_OVERLAP = {
    (dataset, protocol): 0
    for dataset in ("mnist", "fashion_mnist", "cifar10", "digits")
    for protocol in ("test", "validation")
} | {("cifar10", name): 0 for name in BENCHMARKS if name.startswith("cifar10-")}
