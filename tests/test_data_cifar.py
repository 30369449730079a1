import hashlib
import io
import os
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest

from jaxret import data
from jaxret.data import catalogue, cifar

real_data = pytest.mark.skipif(
    "JAXRET_DATA_DIR" not in os.environ, reason="JAXRET_DATA_DIR names no folder of real data"
)
PER_FILE = 4
FILE = "cifar-100-binary/test.bin"


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2's pickle wrote: byte strings for text, integers for flags."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 : it is what pickle reads

    def save_string(self, text):
        content = text.encode("latin1") if isinstance(text, str) else bytes(text)
        self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)
        self.memoize(text)

    def save_flag(self, flag):
        self.write(pickle.BININT1 + bytes([flag]))

    dispatch[str] = dispatch[bytes] = save_string
    dispatch[bool] = save_flag


def python2_pickle(batch):
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(batch)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


def batch(seed, num=PER_FILE, num_classes=10):
    """Images as they should be read, and the same as published: one row of red, green, blue."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (num, 32, 32, 3), np.uint8)
    labels = rng.integers(0, num_classes, num).astype(np.int32)
    return images, labels, images.transpose(0, 3, 1, 2).reshape(num, -1)


def binary(*columns):
    columns = [c[:, None] if c.ndim == 1 else c for c in columns]
    return np.concatenate([c.astype(np.uint8) for c in columns], axis=1).tobytes()


def small(monkeypatch, name, **changes):
    """Let a data set be published in files of 4 images with any content."""
    releases = tuple(
        release._replace(
            images_per_file={"train": PER_FILE, "test": PER_FILE}, digests={}, **changes
        )
        for release in cifar.RELEASES[name]
    )
    monkeypatch.setitem(cifar.RELEASES, name, releases)
    return releases


def write_cifar10(folder, form):
    folder.mkdir(parents=True)
    expected = []
    files = {"binary": "data_batch_{}.bin", "python": "data_batch_{}"}[form]
    for i in range(1, 6):
        images, labels, rows = batch(i)
        expected.append(images)
        content = binary(labels, rows)
        if form == "python":
            content = python2_pickle({"data": rows, "labels": labels.tolist(), "batch_label": "x"})
        (folder / files.format(i)).write_bytes(content)
    return np.concatenate(expected)


@pytest.mark.parametrize("place", ["{}", "cifar10/{}", "cifar10"])
@pytest.mark.parametrize(
    ("form", "folder"),
    [("binary", "cifar-10-batches-bin"), ("python", "cifar-10-batches-py")],
)
def test_cifar10_is_read_from_unpacked_files_in_each_usual_place(
    tmp_path, monkeypatch, place, form, folder
):
    small(monkeypatch, "cifar10")
    expected = write_cifar10(tmp_path / place.format(folder), form)
    images = data.load("cifar10", "train", tmp_path)
    assert np.array_equal(images.images, expected)
    assert images.labels.tolist() == np.concatenate([batch(i)[1] for i in range(1, 6)]).tolist()


def test_the_folder_of_batches_itself_is_a_data_folder(tmp_path, monkeypatch):
    small(monkeypatch, "cifar10")
    expected = write_cifar10(tmp_path / "cifar-10-batches-bin", "binary")
    images = data.load("cifar10", "train", tmp_path / "cifar-10-batches-bin")
    assert np.array_equal(images.images, expected)


@pytest.mark.parametrize("form", ["binary", "python"])
def test_cifar100_has_the_fine_labels(tmp_path, monkeypatch, form):
    small(monkeypatch, "cifar100")
    images, fine, rows = batch(0, num_classes=100)
    coarse = np.zeros(PER_FILE, np.int32)
    if form == "binary":
        path, content = tmp_path / "cifar-100-binary" / "train.bin", binary(coarse, fine, rows)
    else:
        path = tmp_path / "cifar-100-python" / "train"
        named = {"data": rows, "fine_labels": fine.tolist(), "coarse_labels": coarse.tolist()}
        content = python2_pickle(named)
    path.parent.mkdir()
    path.write_bytes(content)
    found = data.load("cifar100", "train", tmp_path)
    assert np.array_equal(found.images, images)
    assert np.array_equal(found.labels, fine)
    assert len(set(found.class_names)) == 100
    assert list(found.class_names) == sorted(found.class_names)


@pytest.mark.parametrize("protocol", range(5))  # 5 asks for a function that no batch needs
def test_a_batch_that_python_3_pickled_is_read(protocol):
    images, labels, rows = batch(0)
    content = pickle.dumps({"data": rows, "labels": labels.tolist()}, protocol)
    found, found_labels = cifar.read_python(content, "batch")
    assert np.array_equal(found, images)
    assert np.array_equal(found_labels, labels)


def test_python_2_flags_bring_no_warning():
    _, labels, rows = batch(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cifar.read_python(python2_pickle({"data": rows, "labels": labels.tolist()}), "batch")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w')",))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_asks_for_code_is_refused_and_not_run(tmp_path, protocol):
    content = pickle.dumps({"data": Malicious(tmp_path / "proof")}, protocol)
    with pytest.raises(data.DataError, match=r"batch: refused: the pickle asks for .*\.exec"):
        cifar.read_python(content, "batch")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated or damaged"),
        (pickle.dumps({"data": batch(0)[2], "labels": [1, 2]}, 4)[:-500], "truncated or damaged"),
        (b"not a pickle", "truncated or damaged"),
        (pickle.dumps([1, 2]), "not a CIFAR batch, expected data and labels"),
        (pickle.dumps({"data": batch(0)[2]}, 4), "not a CIFAR batch, expected data and labels"),
        (pickle.dumps({"data": batch(0)[2], "labels": [1, 2]}, 4), "2 labels for 4 images"),
        (pickle.dumps({"data": batch(0)[2], "labels": [0, 1, 2, 10]}, 4), "labels from 0 to 10"),
        (
            pickle.dumps({"data": batch(0)[2][:, :9], "labels": [1] * 4}, 4),
            r"data are uint8\[4, 9\], expected uint8\[n, 3072\]",
        ),
    ],
)
def test_a_bad_python_batch_is_named_with_what_is_wrong(content, message):
    with pytest.raises(data.DataError, match=f"^some batch: {message}"):
        cifar.read_python(content, "some batch")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated, expected a multiple of 3073 bytes, found 0"),
        (bytes(3072), "truncated, expected a multiple of 3073 bytes, found 3072"),
        (b"\x0a" + bytes(3072), "labels from 10 to 10, expected 0 to 9"),
    ],
)
def test_a_bad_binary_batch_is_named_with_what_is_wrong(content, message):
    with pytest.raises(data.DataError, match=f"^some batch: {message}"):
        cifar.read_binary(content, "some batch")


def test_a_truncated_batch_says_how_many_bytes_are_missing(tmp_path):
    (tmp_path / "cifar-10-batches-bin").mkdir()
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(bytes(3073 * 9))
    with pytest.raises(
        data.DataError, match=r"test_batch.bin: truncated, expected 30730000 bytes, found 27657"
    ):
        data.load("cifar10", "test", tmp_path)


def test_a_batch_with_other_content_than_the_canonical_one_is_refused(tmp_path, monkeypatch):
    release = cifar.RELEASES["cifar10"][0]
    small(monkeypatch, "cifar10")
    monkeypatch.setitem(
        cifar.RELEASES,
        "cifar10",
        (cifar.RELEASES["cifar10"][0]._replace(digests=release.digests),),
    )
    write_cifar10(tmp_path / "cifar-10-batches-bin", "binary")
    with pytest.raises(data.DataError, match=r"data_batch_1.bin: wrong checksum, expected sha256"):
        data.load("cifar10", "train", tmp_path)


def test_a_batch_that_is_missing_beside_others_is_named(tmp_path, monkeypatch):
    small(monkeypatch, "cifar10")
    write_cifar10(tmp_path / "cifar-10-batches-bin", "binary")
    (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    with pytest.raises(data.DataError, match=r"data_batch_4.bin missing beside data_batch_1.bin"):
        data.load("cifar10", "train", tmp_path)


def archive(tmp_path, monkeypatch, folder="cifar-10-batches-bin"):
    expected = write_cifar10(tmp_path / "unpacked" / folder, "binary")
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "unpacked" / folder, folder)
    content = path.read_bytes()
    md5 = hashlib.md5(content).hexdigest()
    small(monkeypatch, "cifar10", archive_bytes=len(content), archive_md5=md5)
    return path, expected


def test_an_archive_is_read_without_unpacking_it_to_the_disk(tmp_path, monkeypatch):
    path, expected = archive(tmp_path, monkeypatch)
    before = sorted(tmp_path.rglob("*"))
    assert np.array_equal(data.load("cifar10", "train", tmp_path).images, expected)
    assert sorted(tmp_path.rglob("*")) == before
    assert path in before


def test_a_bad_archive_is_named_with_what_is_wrong(tmp_path, monkeypatch):
    path, _ = archive(tmp_path, monkeypatch, folder="elsewhere")
    with pytest.raises(data.DataError, match=r"tar.gz: not the expected archive"):
        data.load("cifar10", "train", tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(data.DataError, match=r"tar.gz: wrong checksum, expected md5"):
        data.load("cifar10", "train", tmp_path)
    path.write_bytes(content[:-9])
    sizes = f"expected {len(content)} bytes, found {len(content) - 9}"
    with pytest.raises(data.DataError, match=rf"tar.gz: truncated, {sizes}"):
        data.load("cifar10", "train", tmp_path)


@real_data
def test_real_cifar10_has_the_published_sizes_and_content():
    images = data.load("cifar10", "test")  # checksums verified
    assert images.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(images.labels).tolist() == [1000] * 10
    assert images.class_names[images.labels[0]] == "cat"
    assert cifar.has_canonical_content("cifar10", "test", images.images, images.labels)
    assert not cifar.has_canonical_content("cifar10", "test", images.images[::-1], images.labels)


@real_data
def test_real_cifar100_has_the_published_content():
    images = data.load("cifar100", "test")  # checksums verified
    assert images.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(images.labels).tolist() == [100] * 100
    assert images.class_names[images.labels[0]] == "mountain"
    assert cifar.has_canonical_content("cifar100", "test", images.images, images.labels)
    assert not cifar.has_canonical_content("cifar100", "test", images.images, images.labels[::-1])
    assert not cifar.has_canonical_content("cifar100", "test", images.images ^ 1, images.labels)


@real_data
def test_real_cifar100_with_one_byte_changed_is_refused(tmp_path):
    (tmp_path / "cifar-100-binary").mkdir()
    content = bytearray((Path(os.environ["JAXRET_DATA_DIR"]) / FILE).read_bytes())
    content[0] ^= 1  # the first coarse label, which jaxret does not use
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(data.DataError, match=r"test.bin: wrong checksum, expected sha256 d8b1e6b7"):
        data.load("cifar100", "test", tmp_path)


def test_cifar100_of_other_content_is_refused(tmp_path, monkeypatch):
    releases = cifar.RELEASES["cifar100"]
    small(monkeypatch, "cifar100")
    strict = cifar.RELEASES["cifar100"][0]._replace(digests=releases[0].digests)
    monkeypatch.setitem(cifar.RELEASES, "cifar100", (strict,))
    images, fine, rows = batch(0, num_classes=100)
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_bytes(binary(cifar.COARSE[fine], fine, rows))
    with pytest.raises(data.DataError, match=r"test.bin: wrong checksum, expected sha256 d8b1e6b7"):
        data.load("cifar100", "test", tmp_path)
    assert not cifar.has_canonical_content("cifar100", "test", images, fine)


def test_each_coarse_label_has_five_fine_ones():
    assert np.bincount(cifar.COARSE).tolist() == [5] * 20


def test_coarse_labels_are_those_that_krizhevsky_lists():
    names = catalogue._CIFAR100
    images = np.zeros((100, 32, 32, 3), np.uint8)
    fine = data.ImageSet(images, np.arange(100, dtype=np.int32), names)
    coarse = data.with_coarse_labels(fine)
    groups: dict[str, set[str]] = {}
    for label, name in zip(coarse.labels, names, strict=True):
        groups.setdefault(coarse.class_names[label], set()).add(name)
    assert len(groups) == 20
    assert groups["fish"] == {"aquarium_fish", "flatfish", "ray", "shark", "trout"}
    assert groups["vehicles_2"] == {"lawn_mower", "rocket", "streetcar", "tank", "tractor"}
    assert groups["people"] == {"baby", "boy", "girl", "man", "woman"}
    assert data.with_coarse_labels(fine._replace(class_names=names[:10])) is None
