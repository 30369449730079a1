import gzip
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pytest

from jaxret import data
from jaxret.data import cifar, idx, prepared


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, and no prepared data but what a test makes."""

    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "default"))
    monkeypatch.delenv("JAXRET_DATA_DIR", raising=False)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)


def expect_files(monkeypatch, stock, folder):
    """Let TFDS take the small files of a folder for those that it would download."""
    import tensorflow_datasets as tfds

    parent = getattr(tfds.image_classification, stock)
    infos = {}
    for url, info in parent.url_infos.items():
        content = (folder / info.filename).read_bytes()
        infos[url] = tfds.core.download.checksums.UrlInfo(
            size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename=info.filename
        )
    monkeypatch.setattr(parent, "url_infos", infos)


def small_mnist(monkeypatch, folder):
    """Write a small MNIST in canonical files, and make it the canonical one; gives its arrays."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    arrays = {}
    for split, num in (("train", 40), ("test", 10)):
        images = rng.integers(0, 256, (num, 28, 28), np.uint8)
        labels = rng.integers(0, 10, num).astype(np.uint8)
        arrays[split] = images[..., None], labels.astype(np.int32)
        for file, values in zip(idx.FILES[split], (images, labels), strict=True):
            content = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            content += values.tobytes()
            monkeypatch.setitem(idx.SHA256["mnist"], file, hashlib.sha256(content).hexdigest())
            (folder / f"{file}.gz").write_bytes(gzip.compress(content))
    expect_files(monkeypatch, "MNIST", folder)
    return arrays


def small_cifar100(monkeypatch, folder):
    """Write a small CIFAR-100 archive; gives its arrays and its coarse labels."""
    rng = np.random.default_rng(0)
    source = folder / "cifar-100-binary"
    source.mkdir(parents=True)
    arrays = {}
    for split, num in (("train", 40), ("test", 10)):
        images = rng.integers(0, 256, (num, 32, 32, 3), np.uint8)
        fine = rng.integers(0, 100, num).astype(np.uint8)
        coarse = cifar.COARSE[fine]
        rows = images.transpose(0, 3, 1, 2).reshape(num, -1)
        records = np.concatenate([coarse[:, None], fine[:, None], rows], axis=1)
        (source / f"{split}.bin").write_bytes(records.tobytes())
        arrays[split] = images, fine.astype(np.int32), coarse
    (source / "coarse_label_names.txt").write_text("".join(f"group{i}\n" for i in range(20)))
    (source / "fine_label_names.txt").write_text("".join(f"class{i}\n" for i in range(100)))
    with tarfile.open(folder / "cifar-100-binary.tar.gz", "w:gz") as archive:
        archive.add(source, "cifar-100-binary")
    expect_files(monkeypatch, "Cifar100", folder)
    return arrays


def same(found, expected):
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=False))


def test_mnist_is_prepared_without_tensorflow_and_read_in_canonical_order(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    arrays = small_mnist(monkeypatch, tmp_path / "raw")
    root = tmp_path / "data"
    prepared.prepare("mnist", root, manual_dir=tmp_path / "raw")
    for split in ("train", "test"):
        assert same(data.load("mnist", split, root)[:2], arrays[split])
    stock = tfds.data_source("mnist", data_dir=root, download=False)
    assert len(stock["train"]) == 40
    written = {(np.asarray(e["image"]).tobytes(), int(e["label"])) for e in stock["test"]}
    assert written == {(x.tobytes(), y) for x, y in zip(*arrays["test"], strict=True)}
    assert "tensorflow" not in sys.modules


def test_cifar100_is_prepared_with_every_feature_of_the_stock_builder(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    arrays = small_cifar100(monkeypatch, tmp_path / "raw")
    root = tmp_path / "data"
    prepared.prepare("cifar100", root, manual_dir=tmp_path / "raw")
    digests = {
        f"{split}.bin": hashlib.sha256(
            (tmp_path / "raw" / "cifar-100-binary" / f"{split}.bin").read_bytes()
        ).hexdigest()
        for split in ("train", "test")
    }
    binary, python = cifar.RELEASES["cifar100"]
    small = binary._replace(digests=digests)
    monkeypatch.setitem(cifar.RELEASES, "cifar100", (small, python))
    for split in ("train", "test"):
        assert same(data.load("cifar100", split, root)[:2], arrays[split])
    stock = tfds.data_source("cifar100", data_dir=root, download=False)["train"]
    for example in stock:
        i = int(example["id"].decode().removeprefix("train_"))
        image, fine, coarse = (values[i] for values in arrays["train"])
        assert np.array_equal(example["image"], image)
        assert (example["label"], example["coarse_label"]) == (fine, coarse)
    assert stock.dataset_info.features["label"].names[99] == "class99"


def test_a_copy_that_tensorflow_prepared_is_read(tmp_path, monkeypatch):
    """TFDS with TensorFlow writes TFRecord files: the same records, framed otherwise."""
    from array_record.python.array_record_module import ArrayRecordReader

    arrays = small_mnist(monkeypatch, tmp_path / "raw")
    folder = prepared.prepare("mnist", tmp_path / "default", manual_dir=tmp_path / "raw")
    for path in folder.glob("*.array_record-*"):
        frames = b"".join(
            struct.pack("<QI", len(record), 0) + record + bytes(4)
            for record in ArrayRecordReader(str(path)).read_all()
        )
        path.with_name(path.name.replace("array_record", "tfrecord")).write_bytes(frames)
        path.unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    text = json.dumps(info).replace("array_record", "tfrecord")
    (folder / "dataset_info.json").write_text(text)
    assert same(data.load("mnist", "train")[:2], arrays["train"])


def test_the_second_load_comes_from_the_cache(tmp_path, monkeypatch):
    arrays = small_mnist(monkeypatch, tmp_path / "raw")
    root = tmp_path / "data"
    folder = prepared.prepare("mnist", root, manual_dir=tmp_path / "raw")
    data.load("mnist", "test", root)
    shutil.rmtree(folder)
    assert same(data.load("mnist", "test", root)[:2], arrays["test"])


def test_a_damaged_cache_is_written_anew(tmp_path, monkeypatch):
    arrays = small_mnist(monkeypatch, tmp_path / "raw")
    root = tmp_path / "data"
    prepared.prepare("mnist", root, manual_dir=tmp_path / "raw")
    data.load("mnist", "test", root)
    (cache,) = root.glob("jaxret_cache/mnist-*-test.npz")
    good = cache.read_bytes()
    for bad in (b"", good[:-100], good[:2000] + bytes([good[2000] ^ 1]) + good[2001:]):
        cache.write_bytes(bad)
        assert prepared.read_cache(cache) is None
        assert same(data.load("mnist", "test", root)[:2], arrays["test"])
        assert prepared.read_cache(cache) is not None
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]  # nothing half written


def test_a_cache_whose_arrays_were_changed_is_not_read(tmp_path):
    arrays = np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32)
    prepared.write_cache(tmp_path / "a.npz", arrays)
    assert same(prepared.read_cache(tmp_path / "a.npz"), arrays)
    with np.load(tmp_path / "a.npz") as file:
        digest = file["sha256"]
    np.savez(tmp_path / "a.npz", images=arrays[0] + np.uint8(1), labels=arrays[1], sha256=digest)
    assert prepared.read_cache(tmp_path / "a.npz") is None


def test_a_data_folder_that_cannot_be_written_to_is_read_all_the_same(tmp_path, monkeypatch):
    arrays = small_mnist(monkeypatch, tmp_path / "raw")
    root = tmp_path / "data"
    prepared.prepare("mnist", root, manual_dir=tmp_path / "raw")
    (root / "jaxret_cache").touch()  # in the way of the cache's folder
    assert same(data.load("mnist", "test", root)[:2], arrays["test"])


def test_a_prepared_copy_of_other_images_is_refused(tmp_path, monkeypatch):
    small_mnist(monkeypatch, tmp_path / "raw")
    root = tmp_path / "data"
    folder = prepared.prepare("mnist", root, manual_dir=tmp_path / "raw")
    monkeypatch.setitem(idx.SHA256["mnist"], "t10k-images-idx3-ubyte", "0")
    with pytest.raises(data.DataError, match=f"{folder}: the test images are not the canonical"):
        data.load("mnist", "test", root)


def test_a_download_with_a_wrong_checksum_is_not_prepared(tmp_path, monkeypatch):
    small_mnist(monkeypatch, tmp_path / "raw")
    (tmp_path / "raw" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(OSError, match=r"could not prepare MNIST .*has wrong checksum"):
        prepared.prepare("mnist", tmp_path / "data", manual_dir=tmp_path / "raw")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
@pytest.mark.parametrize("given", [None, "empty", "nowhere"])
def test_without_files_and_network_an_error_tells_the_ways_out_at_once(tmp_path, name, given):
    (tmp_path / "empty").mkdir()
    data_dir = given and tmp_path / given
    start = time.monotonic()
    with pytest.raises(data.DataError) as caught:
        data.load(name, "train", data_dir)
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert "\n" not in message
    assert "--dataset=digits" in message
    file = {"mnist": "train-images-idx3-ubyte.gz", "cifar10": "cifar-10-binary.tar.gz"}
    assert file.get(name, "") in message
    assert (str(data_dir) if given else "JAXRET_DATA_DIR") in message
    assert ("no network" in message) != (given == "nowhere")


def test_a_silent_network_is_given_up_in_time(monkeypatch):
    answer = threading.Event()

    def silent(*args, **kwargs):
        answer.wait(10)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", silent)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"no answer in 0\.2 seconds"):
        prepared.check_network("https://example.org/file", seconds=0.2)
    assert time.monotonic() - start < 1
    answer.set()


def test_the_proxy_is_asked_where_there_is_one(monkeypatch):
    addresses = []

    class Connection:
        def close(self):
            pass

    def connect(address, timeout):
        addresses.append(address)
        return Connection()

    monkeypatch.setattr(socket, "create_connection", connect)
    prepared.check_network("https://example.org/file")
    prepared.check_network("http://example.org/file")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    prepared.check_network("https://example.org/file")
    assert addresses == [("example.org", 443), ("example.org", 80), ("proxy.example", 3128)]


def test_importing_the_package_loads_no_library_that_only_some_data_sets_need():
    code = (
        "import sys, jaxret.data; "
        "print([m for m in ('tensorflow_datasets', 'sklearn', 'PIL', 'matplotlib') "
        "if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert result.stdout.strip() == "[]"
