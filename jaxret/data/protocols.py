"""Retrieval protocols: which images train, which are searched, which are queries.

Every protocol has a name, because a score means nothing without it.
"""

import functools
import hashlib
import math
import os
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from jaxret.data.catalogue import folder_of, load
from jaxret.data.listing import sort_key
from jaxret.data.sets import DataError, ImageSet, take
from jaxret.data.splits import digest_of_rows, draw_by_class, seeded_fifth

Rows = Int32[np.ndarray, " _"]
Parts = tuple[ImageSet, ImageSet, ImageSet]  # training, gallery, queries


class Protocol(NamedTuple):
    """The images of an experiment, by their use.

    name: goes into every result.
    train, gallery, query: the images that train, that are searched, that are sought for.
    known_overlap: how many query images may be in the gallery by content: as many as the canonical
        files of a data set share, and 0 of a folder. It is not measured when it is loaded.
    metric: of a protocol of the literature, the score by which it is known, as jaxret.evaluate
        names it.
    split: of such a protocol, a digest of the row numbers of its parts, the training images
        counted first and the test images after them.
    """

    name: str
    train: ImageSet
    gallery: ImageSet
    query: ImageSet
    known_overlap: int
    metric: str = ""
    split: str = ""


class Benchmark(NamedTuple):
    """A protocol of the literature: of one data set, with one division of all its images."""

    dataset: str
    # (labels of all images, how many are training images) -> rows of training, gallery, queries
    divide: Callable[[Rows, int], tuple[Rows, Rows, Rows]]
    metric: str  # the score that others publish


class SharedImages(UserWarning):
    """Query images stand in the gallery, too, so that finding them proves little."""


class OneClass(UserWarning):
    """All images have one class, so that every score is 1."""


def load_protocol(
    name: str,
    dataset: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    image_size: int = 32,
    *,
    labels: str | os.PathLike | None = None,
) -> Protocol:
    """Return a protocol by name on a data set.

    test: the test images are the queries; the training images train and are the gallery.
    validation: the queries are a fixed part of the training images, and the others train and are
    the gallery, so that a choice never sees the test images. The part is the last 10,000 images
    where the data set has an official split, else a fifth of each class (seeded_fifth, seed 1).

    The others are those of BENCHMARKS, under which methods are published. full: the images of
    test. 59k, 69k of MNIST: 1,000 queries, 100 of each class, drawn from all images, which are the
    gallery otherwise; 5,000 of it train, 500 of each class. 54k: the same, but what trained is not
    in the gallery. What follows the @ says which score is published: mAP of the first 1000 results,
    divided by the relevant ones among them, or of the whole gallery in its order.

    Args:
        name: a key of PROTOCOLS or of BENCHMARKS.
        dataset: a data set or a folder of images; this and what follows as in `load`.
        data_dir: where the canonical files lie.
        image_size: pixels a side of a folder's images.
        labels: a CSV file of a folder's labels.

    Returns:
        The images by their use.

    Raises:
        DataError: in one line, for an argument or a file that breaks a rule.

    Warns:
        SharedImages: where query images of a folder are in the gallery by content.
        OneClass: where all images of a folder have the same class.
        SkippedImages: where files of a folder cannot be read.
    """
    if name not in (names := [*PROTOCOLS, *BENCHMARKS]):
        raise DataError(f"unknown protocol {name!r}: choose one of {', '.join(names)}")
    folder = folder_of(dataset)
    dataset = str(dataset) if folder is None else f"folder:{folder}"
    read = functools.partial(load, dataset, data_dir=data_dir, image_size=image_size, labels=labels)
    if name in BENCHMARKS:
        return _load_benchmark(name, dataset, read)
    title = dataset if folder is None else os.path.basename(os.path.abspath(folder))
    train, gallery, query = PROTOCOLS[name](dataset, read)
    overlap = KNOWN_OVERLAP.get((dataset, name), 0)
    protocol = Protocol(f"{title}-{name}", train, gallery, query, overlap)
    if (dataset, name) not in KNOWN_OVERLAP:
        _warn(protocol)
    return protocol


def _load_benchmark(name: str, dataset: str, read: Callable[[str], ImageSet]) -> Protocol:
    benchmark = BENCHMARKS[name]
    if dataset != benchmark.dataset:
        raise DataError(f"{name} is a protocol of {benchmark.dataset}, not of {dataset}")
    first, last = (read(split) for split in ("train", "test"))
    everything = first._replace(
        images=np.concatenate([first.images, last.images]),
        labels=np.concatenate([first.labels, last.labels]),
    )
    rows = benchmark.divide(everything.labels, len(first.labels))
    train, gallery, query = (take(everything, part) for part in rows)
    overlap = KNOWN_OVERLAP[dataset, name]
    split = digest_of_rows(*rows)
    return Protocol(name, train, gallery, query, overlap, benchmark.metric, split)


def _warn(protocol: Protocol) -> None:
    """Warn of what makes scores mean little, of images that nobody has measured before."""
    overlap = shared_images(protocol.gallery, protocol.query)
    if overlap:
        warnings.warn(
            f"{protocol.name}: {overlap} of {len(protocol.query.images)} query images are in the "
            "gallery, too",
            SharedImages,
            stacklevel=3,
        )
    if len(protocol.gallery.class_names) == 1:
        warnings.warn(
            f"{protocol.name}: all images have the class {protocol.gallery.class_names[0]!r}, and "
            "scores need at least two classes; a folder's sub-folders are its classes",
            OneClass,
            stacklevel=3,
        )


def shared_images(gallery: ImageSet, query: ImageSet) -> int:
    """Return how many query images occur in the gallery, pixel for pixel, whatever their labels."""
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
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]


def _test(dataset: str, read: Callable[[str], ImageSet]) -> Parts:
    del dataset
    train = read("train")
    return train, train, read("test")


def _validation(dataset: str, read: Callable[[str], ImageSet]) -> Parts:
    everything = read("train")
    held_out = HELD_OUT.get(dataset, _fifth)(everything)
    if not held_out.any():
        raise DataError(f"{dataset}: too few training images to hold some out for validation")
    share = "the last 10,000 images" if dataset in HELD_OUT else "a fifth of each class"
    note = f"validation: {share} of the training part are the queries"
    everything = everything._replace(notes=(*everything.notes, note))
    train = take(everything, ~held_out)
    return train, train, take(everything, held_out)


def _last_10000(images: ImageSet) -> Bool[np.ndarray, " n"]:
    return np.arange(len(images.labels)) >= len(images.labels) - 10_000


def _fifth(images: ImageSet) -> Bool[np.ndarray, " n"]:
    """Return a mask of a fifth of each class; of a folder, whatever order its rows are in."""
    names = images.names or ()
    order = sorted(range(len(names)), key=lambda row: sort_key(names[row]))
    order = np.array(order or range(len(images.labels)), np.int32)
    # Images with several labels are no classes.
    labels = images.labels if images.labels.ndim == 1 else np.zeros(len(order), np.int32)
    chosen = np.zeros(len(order), bool)
    chosen[order] = seeded_fifth(labels[order], seed=1)
    return chosen


PROTOCOLS: dict[str, Callable[..., Parts]] = {"test": _test, "validation": _validation}


def _official(labels: Rows, num_train: int) -> tuple[Rows, Rows, Rows]:
    rows = np.arange(len(labels), dtype=np.int32)
    return rows[:num_train], rows[:num_train], rows[num_train:]


def _with_training(labels: Rows, num_train: int) -> tuple[Rows, Rows, Rows]:
    del num_train  # drawn from all images alike
    query, train, others = draw_by_class(labels, QUERIES_AND_TRAINING, seed=0)
    return train, np.sort(np.concatenate([train, others])), query


def _without_training(labels: Rows, num_train: int) -> tuple[Rows, Rows, Rows]:
    del num_train  # drawn from all images alike
    query, train, others = draw_by_class(labels, QUERIES_AND_TRAINING, seed=0)
    return train, others, query


QUERIES_AND_TRAINING = (100, 500)  # of each class
BENCHMARKS = {
    "cifar10-full@1000": Benchmark("cifar10", _official, "map@1000/retrieved"),
    "cifar10-full@all": Benchmark("cifar10", _official, "map@all/all"),
    "cifar10-59k@all": Benchmark("cifar10", _with_training, "map@all/all"),
    "cifar10-54k@all": Benchmark("cifar10", _without_training, "map@all/all"),
    "cifar100-full@1000": Benchmark("cifar100", _official, "map@1000/retrieved"),
    "mnist-full@1000": Benchmark("mnist", _official, "map@1000/retrieved"),
    "mnist-69k@all": Benchmark("mnist", _with_training, "map@all/all"),
}

# The training images that `validation` holds out, where it is not a fifth of each class.
HELD_OUT: dict[str, Callable] = dict.fromkeys(
    ("mnist", "fashion_mnist", "cifar10", "cifar100"), _last_10000
)

# Measured by shared_images on the canonical files. A data set that is not here is measured when it
# is loaded, and what it shares is told, and is not known.
KNOWN_OVERLAP = (
    {
        (dataset, protocol): 0
        for dataset in ("mnist", "fashion_mnist", "cifar10", "cifar4", "digits")
        for protocol in ("test", "validation")
    }
    | {
        ("cifar100", "test"): 10,
        ("cifar100", "validation"): 6,
        ("cifar100", "cifar100-full@1000"): 10,
    }
    | {
        (dataset, name): 0
        for dataset in ("cifar10", "mnist")
        for name in BENCHMARKS
        if name.startswith(f"{dataset}-")
    }
)
