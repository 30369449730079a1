"""MNIST and Fashion-MNIST in their canonical IDX files (LeCun 1998, Xiao 2017).

An IDX file is two zero bytes, one byte for the type (8: unsigned bytes), one for the number of
axes, each axis' length as a big-endian 32-bit integer, then the values in C order.
"""

import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from jaxret.data.canonical import check_digest, check_size, read_bytes
from jaxret.data.sets import DataError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

# Of the uncompressed files, because the gzip wrapper differs between mirrors.
SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": (
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": (
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    },
}

# Where each data set's four files are looked for inside the data folder, in this order. The last
# two serve a folder that was made by torchvision and a folder that holds the files themselves.
FOLDERS = {
    "mnist": ("mnist", "MNIST/raw", "."),
    "fashion_mnist": ("fashion_mnist", "FashionMNIST/raw", "."),
}
_KNOWN = {
    digest: f"{file} of {name}" for name, files in SHA256.items() for file, digest in files.items()
}
_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTES = 8


def read_idx(path: Path, num_axes: int | None = None) -> UInt8[np.ndarray, "..."]:
    """Return the array of an IDX file of unsigned bytes, compressed by gzip or not.

    Only the file's structure is checked.

    num_axes is the number of axes that the file must have: 3 for images, 1 for labels.
    """
    return _parse(_uncompressed(path), path, num_axes)


def read_pair(
    images_path: Path, labels_path: Path, sha256: dict[str, str] | None = None
) -> tuple[UInt8[np.ndarray, "n h w 1"], Int32[np.ndarray, " n"]]:
    """Return images and their labels from two IDX files.

    sha256 maps each file's canonical name (no .gz) to the digest of its uncompressed content; None
    accepts any content. The structure is checked first, because it says more about what is wrong.
    """
    contents = [_uncompressed(path) for path in (images_path, labels_path)]
    images = _parse(contents[0], images_path, num_axes=3)
    labels = _parse(contents[1], labels_path, num_axes=1)
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: {len(labels)} labels for {len(images)} images")
    if sha256 is not None:
        for content, path in zip(contents, (images_path, labels_path), strict=True):
            check_digest(content, "sha256", sha256[_canonical(path.name)], path, _KNOWN)
    return images[..., None], labels.astype(np.int32)


def find(name: str, split: str, data_dir: Path) -> tuple[Path, Path] | None:
    """Return the files of a split inside a data folder; None where it holds none of them."""
    for folder in FOLDERS[name]:
        found = [_find_file(data_dir / folder, file) for file in FILES[split]]
        images, labels = found
        if images and labels:
            return images, labels
        if images or labels:
            missing = FILES[split][1 if images else 0]
            raise DataError(f"{data_dir / folder}: {missing}[.gz] is missing")
    return None


def load_raw(
    name: str, split: str, data_dir: Path
) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]] | None:
    """Return a split from its canonical files, verified; None where the folder holds none."""
    paths = find(name, split, data_dir)
    return paths and read_pair(*paths, sha256=SHA256[name])


def has_canonical_content(
    name: str, split: str, images: UInt8[np.ndarray, "n h w 1"], labels: Int32[np.ndarray, " n"]
) -> bool:
    """Return whether a split that came by another way equals the canonical files, in order."""
    for values, file in zip((images[..., 0], labels), FILES[split], strict=True):
        header = struct.pack(f">HBB{values.ndim}I", 0, _UNSIGNED_BYTES, values.ndim, *values.shape)
        content = header + values.astype(np.uint8).tobytes()
        if hashlib.sha256(content).hexdigest() != SHA256[name][file]:
            return False
    return True


def _find_file(folder: Path, name: str) -> Path | None:
    # Some mirrors write train-images.idx3-ubyte.
    for variant in (name, name.replace("-idx", ".idx")):
        for path in (folder / variant, folder / f"{variant}.gz"):
            if path.is_file():
                return path
    return None


def _canonical(name: str) -> str:
    return name.removesuffix(".gz").replace(".idx", "-idx")


def _uncompressed(path: Path) -> bytes:
    content = read_bytes(path)
    if not content.startswith(_GZIP):  # the suffix does not tell: some browsers unpack .gz
        return content
    try:
        # Unlike gzip.decompress this gives what a truncated file still holds, so that the IDX
        # header can tell how much is missing.
        return zlib.decompressobj(wbits=31).decompress(content)
    except zlib.error as error:
        raise DataError(f"{path}: the gzip stream is damaged ({error})") from error


def _parse(content: bytes, path: Path, num_axes: int | None) -> UInt8[np.ndarray, "..."]:
    if len(content) < 4:
        raise DataError(f"{path}: truncated, an IDX header has 4 bytes, found {len(content)}")
    zero, kind, axes = struct.unpack(">HBB", content[:4])
    expected = axes if num_axes is None else num_axes
    if (zero, kind, axes) != (0, _UNSIGNED_BYTES, expected):
        raise DataError(
            f"{path}: wrong magic number 0x{content[:4].hex()}, expected 0x000008{expected:02x} "
            f"(IDX, unsigned bytes, {expected} axes)"
        )
    start = 4 + 4 * axes
    if len(content) < start:
        check_size(len(content), start, path)
    shape = struct.unpack(f">{axes}I", content[4:start])
    check_size(len(content), start + math.prod(shape), path)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
