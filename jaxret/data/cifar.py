"""CIFAR-10 and CIFAR-100 in their canonical files (Krizhevsky 2009).

Both are published as binary batches and as Python pickles, each in one tar.gz. An image is 3,072
bytes: 32 x 32 red, then green, then blue. CIFAR-100's labels are the 100 fine ones; in its files
the coarse one, of 20, comes first.
"""

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from jaxret.data.canonical import check_digest, check_size, complete, read_bytes
from jaxret.data.sets import DataError

_PIXELS = 3 * 32 * 32

Batch = tuple[UInt8[np.ndarray, "n 32 32 3"], Int32[np.ndarray, " n"]]


class Release(NamedTuple):
    """One of the forms in which a data set is published.

    files, images_per_file: by split. record_bytes: of one image and its labels, where every image
    takes as many. digests: of each file, by the algorithm; empty only in tests.
    """

    archive: str
    archive_bytes: int
    archive_md5: str
    folder: str  # inside the archive
    files: dict[str, tuple[str, ...]]
    images_per_file: dict[str, int]
    record_bytes: int | None
    read: Callable[[bytes, Path | str], Batch]
    algorithm: str
    digests: dict[str, str]


def read_binary(
    content: bytes, where: Path | str, label_bytes: int = 1, num_classes: int = 10
) -> Batch:
    """Return images and labels of a binary batch.

    An image is label_bytes labels, the last of which counts, and then the pixels.
    """
    record = label_bytes + _PIXELS
    if not content or len(content) % record:
        raise DataError(
            f"{where}: truncated, expected a multiple of {record} bytes, found {len(content)}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    labels = records[:, label_bytes - 1].astype(np.int32)
    return _check(records[:, label_bytes:], labels, num_classes, where)


def read_python(
    content: bytes, where: Path | str, label_key: bytes = b"labels", num_classes: int = 10
) -> Batch:
    """Return images and labels of a Python batch: a pickled dictionary of `data` and labels.

    A pickle can run any code, so only what such a batch is made of is let through.
    """
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise DataError(f"{where}: truncated or damaged, not a pickle ({error})") from error
    try:
        # A batch that Python 3 wrote has text for keys.
        batch = {key if isinstance(key, bytes) else key.encode(): batch[key] for key in batch}
        pixels = np.asarray(batch[b"data"])
        labels = np.asarray(batch[label_key]).astype(np.int32)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{where}: not a CIFAR batch, expected data and {label_key.decode()}"
        ) from error
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
        raise DataError(
            f"{where}: data are {pixels.dtype}{list(pixels.shape)}, expected uint8[n, {_PIXELS}]"
        )
    return _check(pixels, labels, num_classes, where)


def load_raw(name: str, split: str, data_dir: Path) -> Batch | None:
    """Return a split from its canonical files, verified; None where the folder holds none of them.

    Unpacked files come first, because an archive takes seconds to unpack.
    """
    for release in RELEASES[name]:
        folders = [data_dir / release.folder, data_dir / name / release.folder, data_dir / name]
        if data_dir.resolve().name == release.folder:
            folders.append(data_dir)
        for folder in folders:
            if complete(folder, release.files[split]):
                paths = [folder / file for file in release.files[split]]
                return _join(release, split, {path: read_bytes(path) for path in paths})
    for release in RELEASES[name]:
        for path in (data_dir / release.archive, data_dir / name / release.archive):
            if path.is_file():
                return _join(release, split, read_archive(path, release, release.files[split]))
    return None


def has_canonical_content(
    name: str, split: str, images: UInt8[np.ndarray, "n 32 32 3"], labels: Int32[np.ndarray, " n"]
) -> bool:
    """Return whether a split that came by another way equals the canonical files, in their order.

    The coarse labels of CIFAR-100 follow from the fine ones.
    """
    release = RELEASES[name][0]
    pixels = images.transpose(0, 3, 1, 2).reshape(len(images), _PIXELS)
    columns = [labels[:, None].astype(np.uint8), pixels]
    if name == "cifar100":
        columns.insert(0, COARSE[labels][:, None])
    files = release.files[split]
    parts = np.array_split(np.concatenate(columns, axis=1), len(files))
    return all(
        hashlib.new(release.algorithm, part.tobytes()).hexdigest() == release.digests[file]
        for file, part in zip(files, parts, strict=True)
    )


def read_archive(path: Path, release: Release, files: tuple[str, ...]) -> dict[str, bytes]:
    """Return the named files of an archive, verified; nothing is written to the disk."""
    content = read_bytes(path)
    if len(content) < release.archive_bytes:
        check_size(len(content), release.archive_bytes, path)
    check_digest(content, "md5", release.archive_md5, path)
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            return {
                f"{path}:{file}": member.read()
                for file in files
                if (member := archive.extractfile(f"{release.folder}/{file}"))
            }
    except (tarfile.TarError, EOFError, OSError, zlib.error, KeyError) as error:
        raise DataError(f"{path}: not the expected archive ({error})") from error


def _join(release: Release, split: str, contents: Mapping[Any, bytes]) -> Batch:
    per_file = release.images_per_file[split]
    images = np.empty((per_file * len(contents), 32, 32, 3), np.uint8)
    labels = np.empty(per_file * len(contents), np.int32)
    for i, (file, (where, content)) in enumerate(
        zip(release.files[split], contents.items(), strict=True)
    ):
        if release.record_bytes:
            check_size(len(content), per_file * release.record_bytes, where)
        batch_images, batch_labels = release.read(content, where)
        if len(batch_images) != per_file:
            raise DataError(
                f"{where}: truncated, expected {per_file} images, found {len(batch_images)}"
            )
        if file in release.digests:
            check_digest(content, release.algorithm, release.digests[file], where)
        images[i * per_file : (i + 1) * per_file] = batch_images
        labels[i * per_file : (i + 1) * per_file] = batch_labels
    return images, labels


def _check(
    pixels: UInt8[np.ndarray, "n 3072"],
    labels: Int32[np.ndarray, " m"],
    num_classes: int,
    where: Path | str,
) -> Batch:
    if len(pixels) != len(labels):
        raise DataError(f"{where}: {len(labels)} labels for {len(pixels)} images")
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= num_classes:
        raise DataError(
            f"{where}: labels from {labels.min()} to {labels.max()}, expected 0 to "
            f"{num_classes - 1}"
        )
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _dtype(kind, align=False, copy=False):
    # Python 2 pickled the flags as integers, which NumPy no longer likes.
    return np.dtype(kind, align=bool(align), copy=bool(copy))


def _encode(text: str, encoding: str) -> bytes:
    # How Python 3 writes bytes in the pickle protocol 2.
    if encoding != "latin1":
        raise DataError(f"the pickle asks for the codec {encoding}, expected latin1")
    return text.encode("latin1")


_RECONSTRUCT = np.empty(0).__reduce__()[0]


class _BatchUnpickler(pickle.Unpickler):
    ADMITTED = {  # noqa: RUF012 : a constant
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _dtype,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str):
        try:
            return self.ADMITTED[module, name]
        except KeyError:
            raise DataError(
                f"refused: the pickle asks for {module}.{name}, which no CIFAR batch needs"
            ) from None


# The coarse label of each fine one, as the files have them.
COARSE = np.array(
    [
        4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7,
        6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10,
        16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16,
        12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
    ],
    np.uint8,
)  # fmt: skip
COARSE_NAMES = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables",
    "household_electrical_devices", "household_furniture", "insects", "large_carnivores",
    "large_man-made_outdoor_things", "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates", "people",
    "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
)  # fmt: skip

_TEN = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
RELEASES = {
    "cifar10": (
        Release(
            archive="cifar-10-binary.tar.gz",
            archive_bytes=170_052_171,
            archive_md5="c32a1d4ab5d03f1284b67883e8d87530",
            folder="cifar-10-batches-bin",
            files={split: tuple(f"{file}.bin" for file in _TEN[split]) for split in _TEN},
            images_per_file={"train": 10_000, "test": 10_000},
            record_bytes=1 + _PIXELS,
            read=read_binary,
            algorithm="sha256",
            digests={
                "data_batch_1.bin": (
                    "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"
                ),
                "data_batch_2.bin": (
                    "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"
                ),
                "data_batch_3.bin": (
                    "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"
                ),
                "data_batch_4.bin": (
                    "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"
                ),
                "data_batch_5.bin": (
                    "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"
                ),
                "test_batch.bin": (
                    "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"
                ),
            },
        ),
        Release(
            archive="cifar-10-python.tar.gz",
            archive_bytes=170_498_071,
            archive_md5="c58f30108f718f92721af3b95e74349a",
            folder="cifar-10-batches-py",
            files=_TEN,
            images_per_file={"train": 10_000, "test": 10_000},
            record_bytes=None,
            read=read_python,
            algorithm="md5",
            digests={
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "40351d587109b95175f43aff81a1287e",
            },
        ),
    ),
    "cifar100": (
        Release(
            archive="cifar-100-binary.tar.gz",
            archive_bytes=168_513_733,
            archive_md5="03b5dce01913d631647c71ecec9e9cb8",
            folder="cifar-100-binary",
            files={"train": ("train.bin",), "test": ("test.bin",)},
            images_per_file={"train": 50_000, "test": 10_000},
            record_bytes=2 + _PIXELS,
            read=lambda content, where: read_binary(content, where, 2, 100),
            algorithm="sha256",
            digests={
                "train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
                "test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
            },
        ),
        Release(
            archive="cifar-100-python.tar.gz",
            archive_bytes=169_001_437,
            archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
            folder="cifar-100-python",
            files={"train": ("train",), "test": ("test",)},
            images_per_file={"train": 50_000, "test": 10_000},
            record_bytes=None,
            read=lambda content, where: read_python(content, where, b"fine_labels", 100),
            algorithm="md5",
            digests={
                "train": "16019d7e3df5f24257cddd939b257f8d",
                "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            },
        ),
    ),
}
