"""The data sets by name, and where each is looked for."""

import os
from collections.abc import Callable
from pathlib import Path

from jaxret.data import cifar, idx
from jaxret.data.embedded import load_digits
from jaxret.data.folder import load_folder
from jaxret.data.prepared import load_prepared
from jaxret.data.sets import DataError, ImageSet

SPLITS = ("train", "test")


def load(
    name: str, split: str, data_dir: str | os.PathLike | None = None, image_size: int = 32
) -> ImageSet:
    """One split, 'train' or 'test', of a data set of DATASETS or of a folder of images.

    A folder is named 'folder:PATH', or by any path that holds a separator; only its images are
    resized, to image_size pixels a side (see load_folder). digits needs no files. Any other data
    set comes from its canonical files inside data_dir, checksums verified, or else from
    tensorflow-datasets, which downloads it where there is a network. Either way images and order
    are those of the canonical files. data_dir defaults to the environment variable JAXRET_DATA_DIR.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if image_size < 1:
        raise DataError(f"image_size must be at least 1, got {image_size}")
    if is_folder(name):
        return load_folder(Path(name.removeprefix("folder:")).expanduser(), split, image_size)
    if name not in DATASETS:
        raise DataError(
            f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}, or folder:PATH"
        )
    data_dir = data_dir or os.environ.get("JAXRET_DATA_DIR")
    return DATASETS[name](split, Path(data_dir).expanduser() if data_dir else None)


def is_folder(name: str) -> bool:
    """Whether a data set's name is that of a folder of images."""
    return name.startswith("folder:") or os.sep in name


def _published(name: str, load_raw: Callable, class_names: tuple[str, ...], files: str) -> Callable:
    """A data set that comes in canonical files or through tensorflow-datasets."""

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
        return ImageSet(images, labels, class_names)

    return load_split


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

DATASETS: dict[str, Callable[[str, Path | None], ImageSet]] = {
    "mnist": _published("mnist", idx.load_raw, _DIGITS, _IDX_FILES.format("mnist")),
    "fashion_mnist": _published(
        "fashion_mnist", idx.load_raw, _FASHION, _IDX_FILES.format("fashion_mnist")
    ),
    "cifar10": _published("cifar10", cifar.load_raw, _CIFAR10, _CIFAR_FILES.format("cifar-10")),
    "cifar100": _published("cifar100", cifar.load_raw, _CIFAR100, _CIFAR_FILES.format("cifar-100")),
    "digits": lambda split, data_dir: load_digits(split),
}
