import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from jaxret import data
from jaxret.data import idx

real_data = pytest.mark.skipif(
    "JAXRET_DATA_DIR" not in os.environ, reason="JAXRET_DATA_DIR names no folder of real data"
)
IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)


def idx_bytes(values, kind=8):
    return struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape) + bytes(
        values.tobytes()
    )


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_split(folder, split="train", images=IMAGES, labels=LABELS):
    for name, values in zip(idx.FILES[split], (images, labels), strict=True):
        write(folder / name, idx_bytes(values))


def trust(monkeypatch, name, folder, split="train"):
    """Make the small files of a folder the canonical ones of a data set."""
    for file in idx.FILES[split]:
        digest = idx.hashlib.sha256((folder / file).read_bytes()).hexdigest()
        monkeypatch.setitem(idx.SHA256[name], file, digest)


def test_an_idx_file_gives_the_array_that_was_written(tmp_path):
    plain = write(tmp_path / "a", idx_bytes(IMAGES))
    assert np.array_equal(idx.read_idx(plain), IMAGES)
    assert np.array_equal(idx.read_idx(write(tmp_path / "b", idx_bytes(LABELS))), LABELS)


def test_compression_is_told_by_content_and_not_by_suffix(tmp_path):
    unpacked = write(tmp_path / "a.gz", idx_bytes(IMAGES))
    packed = write(tmp_path / "b", gzip.compress(idx_bytes(IMAGES)))
    assert np.array_equal(idx.read_idx(unpacked), idx.read_idx(packed))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(IMAGES)[:-7], "truncated, expected 76 bytes, found 69"),
        (gzip.compress(idx_bytes(IMAGES)[:-7], mtime=0), "truncated, expected 76 bytes, found 69"),
        (idx_bytes(IMAGES) + b"x", "too long, expected 76 bytes, found 77"),
        (idx_bytes(IMAGES)[:9], "truncated, expected 16 bytes, found 9"),
        (b"", "truncated, an IDX header has 4 bytes, found 0"),
        (idx_bytes(LABELS), "wrong magic number 0x00000801, expected 0x00000803"),
        (idx_bytes(IMAGES, kind=13), "wrong magic number 0x00000d03, expected 0x00000803"),
        (b"<!DOCTYPE html>", "wrong magic number 0x3c21444f"),
        (b"\x1f\x8bnonsense" * 3, "the gzip stream is damaged"),
    ],
    # Names of their own: a compressed file's bytes hold the time, and two workers must agree.
    ids=[
        "short",
        "short, compressed",
        "long",
        "cut header",
        "empty",
        "labels for images",
        "floats",
        "a web page",
        "damaged stream",
    ],
)
def test_a_bad_idx_file_is_named_with_what_is_wrong(tmp_path, content, message):
    path = write(tmp_path / "images", content)
    with pytest.raises(data.DataError, match=message) as caught:
        idx.read_idx(path, num_axes=3)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_cut_gzip_file_is_truncated(tmp_path):
    whole = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, 999, np.uint8)))
    for length in (60, len(whole) // 2, len(whole) - 20):
        with pytest.raises(data.DataError, match="truncated, expected 1007 bytes, found"):
            idx.read_idx(write(tmp_path / "a", whole[:length]))


def test_images_without_as_many_labels_are_refused(tmp_path):
    write_split(tmp_path, labels=LABELS[:4])
    with pytest.raises(data.DataError, match="labels-idx1-ubyte: 4 labels for 5 images"):
        idx.read_pair(*idx.find("mnist", "train", tmp_path))


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_load_finds_the_files_in_each_usual_place(tmp_path, monkeypatch, folder, suffix):
    write_split(tmp_path / folder)
    trust(monkeypatch, "mnist", tmp_path / folder)
    for file in idx.FILES["train"]:
        path = tmp_path / folder / file
        content = path.read_bytes()
        path.unlink()
        write(path.with_name(file + suffix), gzip.compress(content) if suffix else content)
    images = data.load("mnist", "train", tmp_path)
    assert np.array_equal(images.images, IMAGES[..., None])
    assert np.array_equal(images.labels, LABELS)
    assert images.labels.dtype == np.int32
    assert len(images.class_names) == 10


def test_the_environment_names_the_data_folder(tmp_path, monkeypatch):
    write_split(tmp_path / "mnist")
    trust(monkeypatch, "mnist", tmp_path / "mnist")
    monkeypatch.setenv("JAXRET_DATA_DIR", str(tmp_path))
    assert len(data.load("mnist", "train").labels) == 5


def test_a_file_with_other_content_than_the_canonical_one_is_refused(tmp_path):
    write_split(tmp_path / "mnist")
    with pytest.raises(
        data.DataError, match=r"train-images-idx3-ubyte: wrong checksum.* damaged or not"
    ):
        data.load("mnist", "train", tmp_path)


def test_structure_is_reported_before_the_checksum(tmp_path):
    write_split(tmp_path / "mnist")
    path = tmp_path / "mnist" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(data.DataError, match="truncated, expected 76 bytes, found 75"):
        data.load("mnist", "train", tmp_path)


def test_images_without_a_label_file_are_refused(tmp_path):
    write_split(tmp_path / "mnist")
    (tmp_path / "mnist" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(data.DataError, match=r"train-labels-idx1-ubyte\[.gz\] is missing"):
        data.load("mnist", "train", tmp_path)


@real_data
def test_real_fashion_mnist_under_the_name_mnist_is_recognised():
    folder = Path(os.environ["JAXRET_DATA_DIR"]) / "fashion_mnist"
    with pytest.raises(data.DataError, match="this is t10k-images-idx3-ubyte of fashion_mnist"):
        data.load("mnist", "test", folder)


@real_data
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize(("split", "size"), [("train", 60_000), ("test", 10_000)])
def test_real_files_have_the_published_sizes_and_content(name, split, size):
    images = data.load(name, split)  # checksums verified
    assert images.images.shape == (size, 28, 28, 1)
    assert len(set(images.labels.tolist())) == 10
    assert idx.has_canonical_content(name, split, images.images, images.labels)
    assert not idx.has_canonical_content(name, split, images.images[::-1], images.labels)
