"""Data sets through tensorflow-datasets, without TensorFlow.

The stock builders of MNIST and CIFAR need TensorFlow to unpack, to open files and to write PNG. The
builders here do these three in Python and are the stock ones otherwise, so `tfds.data_source` reads
what they prepare. A prepared split is decoded once, put into the canonical order, and cached.
"""

import contextlib
import hashlib
import io
import os
import socket
import struct
import tarfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from jaxret.data import cifar, idx
from jaxret.data.sets import DataError
from jaxret.files import write_whole

Arrays = tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]


def load_prepared(name: str, split: str, data_dir: Path | None) -> Arrays:
    """Return a split that is prepared under data_dir or TFDS's own folder, or else download it.

    TFDS's own folder is TFDS_DATA_DIR, or ~/tensorflow_datasets. A download goes to data_dir
    where it is given. Raises OSError where the split cannot be had.
    """
    default = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    roots = [default] if data_dir is None else [data_dir, default]
    for root in roots:
        for path in sorted(_cache_folder(root).glob(f"{name}-*-{split}.npz"), reverse=True):
            if (arrays := read_cache(path)) is not None:
                return arrays
    folder = next(filter(None, (_prepared_folder(root, name) for root in roots)), None)
    if folder is None:
        folder = prepare(name, roots[0])
    arrays = read_prepared(folder, name, split)
    # A folder that cannot be written to costs the decoding each time, no more.
    with contextlib.suppress(OSError):
        cache = _cache_folder(folder.parent.parent)
        write_cache(cache / f"{name}-{folder.name}-{split}.npz", arrays)
    return arrays


def prepare(name: str, root: Path, manual_dir: Path | None = None) -> Path:
    """Download a data set, prepare it below root, and return its folder.

    manual_dir holds the files to take in place of a download, named and checked by TFDS.
    """
    tfds = _import_tfds()

    stock, _ = _BUILDERS[name]
    builder_class = _without_tensorflow(name)
    if manual_dir is None:
        check_network(next(iter(builder_class.url_infos)))
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    try:
        builder = builder_class(data_dir=root, file_format="array_record")
        builder.download_and_prepare(download_config=config)
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise OSError(f"tensorflow-datasets could not prepare {stock} ({lines[0]})") from error
    return Path(builder.data_dir)


def read_prepared(folder: Path, name: str, split: str) -> Arrays:
    """Return a prepared split, in array_record or TFDS's older tfrecord, in the canonical order.

    TFDS writes a split sorted by a hash of each example's number, which is undone here.
    """
    tfds = _import_tfds()

    builder = tfds.builder_from_directory(folder)
    num = builder.info.splits[split].num_examples
    if builder.info.file_format.value == "tfrecord":
        decode = builder.info.features.deserialize_example_np
        shards = sorted(folder.glob(f"{name}-{split}.tfrecord-*"))
        examples = (decode(record) for shard in shards for record in _tfrecords(shard))
    else:
        examples = iter(builder.as_data_source(split))
    hasher = tfds.core.hashing.Hasher(split)
    rows = sorted(range(num), key=hasher.hash_key)
    images = np.empty((num, *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(num, np.int32)
    for row, example in zip(rows, examples, strict=True):
        images[row], labels[row] = example["image"], example["label"]

    module = idx if name in idx.SHA256 else cifar
    if not module.has_canonical_content(name, split, images, labels):
        raise DataError(
            f"{folder}: the {split} images are not the canonical ones in a known order; remove the "
            "folder, and it will be prepared anew"
        )
    return images, labels


def write_cache(path: Path, arrays: Arrays) -> None:
    """Write decoded arrays with their digest; raises OSError where the system refuses."""
    images, labels = arrays
    content = io.BytesIO()
    np.savez(content, images=images, labels=labels, sha256=np.array(_digest(arrays)))
    write_whole(path, [content.getbuffer()])


def read_cache(path: Path) -> Arrays | None:
    """Return the arrays of a cache file; None where it is damaged."""
    try:
        # Opened here, because np.load leaves a file open that is not in its format.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = file["images"], file["labels"]
            return arrays if _digest(arrays) == str(file["sha256"]) else None
    except Exception:  # a damaged file may raise nearly anything; it is written anew
        return None


def check_network(url: str, seconds: float = 3.0) -> None:
    """Raise ConnectionError unless the host of a URL, or the proxy before it, answers in time.

    TFDS itself tries for minutes before it gives up.
    """
    target = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(target.scheme)
    if proxy and not urllib.request.proxy_bypass(target.hostname or ""):
        target = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = target.port or {"https": 443, "socks5": 1080}.get(target.scheme, 80)
    outcome = []

    def connect() -> None:
        try:
            socket.create_connection((target.hostname, port), timeout=seconds).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    # In a thread, because looking a name up knows no time limit.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    if outcome != [None]:
        error = outcome[0] if outcome else f"no answer in {seconds:g} seconds"
        reason = getattr(error, "strerror", None) or error
        raise ConnectionError(f"no files found, and no network ({target.hostname}: {reason})")


def _import_tfds() -> Any:
    """Return tensorflow-datasets, which takes a second to import and whose types say little."""
    import tensorflow_datasets

    return tensorflow_datasets


def _cache_folder(root: Path) -> Path:
    return root / "jaxret_cache"


def _digest(arrays: Arrays) -> str:
    images, labels = arrays
    digest = hashlib.sha256(repr((images.shape, str(images.dtype), str(labels.dtype))).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def _prepared_folder(root: Path, name: str) -> Path | None:
    """The newest version that TFDS prepared below a folder."""
    found = [path.parent for path in (root / name).glob("*.*.*/dataset_info.json")]
    return max(found, key=lambda path: [int(n) for n in path.name.split(".")], default=None)


def _tfrecords(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: length, its checksum, the bytes, their checksum."""
    content = path.read_bytes()
    start = 0
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        yield content[start + 12 : start + 12 + length]
        start += 12 + length + 4


def _without_tensorflow(name: str):
    """The stock builder's class, but for the steps that need TensorFlow."""
    tfds = _import_tfds()

    stock, splits = _BUILDERS[name]
    parent = getattr(tfds.image_classification, stock)
    with tfds.core.registered.skip_registration():

        class Builder(parent):
            name = parent.name
            url_infos = parent.url_infos

            def _split_generators(self, dl_manager):
                return splits(self, dl_manager.download)

    return Builder


def _idx_splits(builder, download: Callable) -> dict[str, Iterator]:
    paths = download(
        {
            split: [urllib.parse.urljoin(builder.URL, f"{file}.gz") for file in files]
            for split, files in idx.FILES.items()
        }
    )

    def examples(images_path, labels_path):
        images, labels = idx.read_pair(Path(images_path), Path(labels_path))
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"image": _png(image[..., 0]), "label": int(label)}

    return {split: examples(*pair) for split, pair in paths.items()}


def _cifar_splits(builder, download: Callable) -> dict[str, Iterator]:
    info = builder._cifar_info
    with tarfile.open(download(info.url)) as archive:
        contents = {
            file.name: content.read()
            for file in archive
            if (content := archive.extractfile(file)) is not None
        }
    for key, file in zip(info.label_keys, info.label_files, strict=True):
        builder.info.features[key].names = contents[info.prefix + file].decode().split()

    def examples(split, files):
        content = b"".join(contents[info.prefix + file] for file in files)
        num_labels = len(info.label_keys)
        records = np.frombuffer(content, np.uint8).reshape(-1, num_labels + 3 * 32 * 32)
        for i, record in enumerate(records):
            labels = dict(zip(info.label_keys, map(int, record[:num_labels]), strict=True))
            image = record[num_labels:].reshape(3, 32, 32).transpose(1, 2, 0)
            yield i, {**labels, "id": f"{split}_{i:05d}", "image": _png(image)}

    return {
        "train": examples("train", info.train_files),
        "test": examples("test", info.test_files),
    }


def _png(image: UInt8[np.ndarray, "..."]) -> io.BytesIO:
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(png, "PNG")
    png.seek(0)
    return png


_BUILDERS = {
    "mnist": ("MNIST", _idx_splits),
    "fashion_mnist": ("FashionMNIST", _idx_splits),
    "cifar10": ("Cifar10", _cifar_splits),
    "cifar100": ("Cifar100", _cifar_splits),
}
