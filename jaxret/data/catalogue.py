"""The data sets by name, and where each is looked for."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.data import cifar, idx
from jaxret.data.embedded import load_digits
from jaxret.data.folder import load_folder
from jaxret.data.images import check_image_size, expand
from jaxret.data.landmarks import load_landmarks
from jaxret.data.prepared import load_prepared
from jaxret.data.sets import DataError, ImageSet, take

SPLITS = ("train", "test")


def load(
    name: str | os.PathLike,
    split: str,
    data_dir: str | os.PathLike | None = None,
    image_size: int = 32,
    *,
    labels: str | os.PathLike | None = None,
) -> ImageSet:
    """Return one split of a data set of DATASETS, or of a folder of images.

    `digits` needs no files. Any other data set comes from its canonical files inside data_dir,
    checksums verified, or else from tensorflow-datasets, which downloads it where there is a
    network. Either way images and order are those of the canonical files.

    Args:
        name: a name of DATASETS; or a folder of images, as a Path, as "folder:PATH", or as any
            string that holds a separator. See `load_folder` for what a folder may hold.
        split: "train" or "test".
        data_dir: where the canonical files lie. Default: the environment variable
            JAXRET_DATA_DIR.
        image_size: pixels a side of a folder's images; other data sets keep their size.
        labels: a CSV file with the columns file,label, for a folder only; see `read_labels`.

    Returns:
        The images as they are stored, u8[n h w c], with labels, class names and file names.

    Raises:
        DataError: in one line, for an argument or a file that breaks a rule.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    image_size = check_image_size(image_size)
    folder = folder_of(name)
    name = str(name)
    if folder is not None:
        return load_folder(folder, split, image_size, labels or None)
    if name not in DATASETS:
        raise DataError(
            f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}, or folder:PATH"
        )
    if labels:
        raise DataError(f"{name} has labels of its own; a file of labels is for a folder of images")
    data_dir = data_dir or os.environ.get("JAXRET_DATA_DIR")
    return DATASETS[name](split, expand(data_dir) if data_dir else None)


def folder_of(name: Any) -> Path | None:
    """Return the folder of images that a data set's name means; None for a name of DATASETS."""
    if not isinstance(name, str):
        if not isinstance(name, os.PathLike):
            raise DataError(f"a data set is named by a string or a Path, got {name!r}")
        return expand(name)
    if name.startswith("folder:"):
        path = name.removeprefix("folder:")
        if not path.strip():
            raise DataError("'folder:' names no folder: write folder:PATH")
        return expand(path)
    return expand(name) if os.sep in name else None


def _published(name: str, load_raw: Callable, class_names: tuple[str, ...], files: str) -> Callable:
    """Return the loader of a data set: from its canonical files, or tensorflow-datasets."""

    def load_split(split: str, data_dir: Path | None) -> ImageSet:
        found = None
        try:
            if data_dir is not None:
                if not data_dir.is_dir():
                    raise FileNotFoundError(f"there is no folder {data_dir}")
                found = load_raw(name, split, data_dir)
            images, labels = found or load_prepared(name, split, data_dir)
        except OSError as error:
            place = data_dir or "a folder that data_dir or JAXRET_DATA_DIR names"
            raise DataError(
                f"{name}: {error}; put {files} into {place}, or use --dataset=digits, which needs "
                "no download"
            ) from error
        return ImageSet(images, labels, class_names, notes=(_OFFICIAL,))

    return load_split


_OFFICIAL = "split: the official one"
_DIGITS = tuple("0123456789")
_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_CIFAR100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip

_IDX_FILES = (
    "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz (unpacked or not, in a sub-folder {})"
)
_CIFAR_FILES = "{0}-binary.tar.gz or {0}-python.tar.gz (unpacked or not)"


def load_cifar4(split: str, data_dir: Path | None) -> ImageSet:
    """Return the four vehicles of CIFAR-10 (Sahu n.d.): 20,000 or 4,000 images, in its order."""
    images = DATASETS["cifar10"](split, data_dir)
    classes = np.array([_CIFAR10.index(name) for name in CIFAR4], np.int32)
    chosen = take(images, np.isin(images.labels, classes))
    labels = np.searchsorted(classes, chosen.labels).astype(np.int32)
    return chosen._replace(labels=labels, class_names=CIFAR4)


def with_coarse_labels(images: ImageSet) -> ImageSet | None:
    """Return images of CIFAR-100 with the 20 coarse classes as labels; None for any others."""
    if images.class_names != _CIFAR100:
        return None
    labels = cifar.COARSE[images.labels].astype(np.int32)
    return images._replace(labels=labels, class_names=cifar.COARSE_NAMES)


CIFAR4 = ("airplane", "automobile", "ship", "truck")
DATASETS: dict[str, Callable[[str, Path | None], ImageSet]] = {
    "mnist": _published("mnist", idx.load_raw, _DIGITS, _IDX_FILES.format("mnist")),
    "fashion_mnist": _published(
        "fashion_mnist", idx.load_raw, _FASHION, _IDX_FILES.format("fashion_mnist")
    ),
    "cifar10": _published("cifar10", cifar.load_raw, _CIFAR10, _CIFAR_FILES.format("cifar-10")),
    "cifar4": load_cifar4,
    "cifar100": _published("cifar100", cifar.load_raw, _CIFAR100, _CIFAR_FILES.format("cifar-100")),
    "landmarks": load_landmarks,
    "digits": lambda split, data_dir: load_digits(split),
}
