import os
import time

import numpy as np
import pytest
from PIL import Image

from jaxret import data
from jaxret.data import protocols
from jaxret.data.splits import digest_of_rows

real_data = pytest.mark.skipif(
    "JAXRET_DATA_DIR" not in os.environ, reason="JAXRET_DATA_DIR names no folder of real data"
)


# As a user calls them, whose types nothing enforces.
load, load_protocol, sample_rows = (
    function.__wrapped__ for function in (data.load, data.load_protocol, data.sample_rows)
)


def image_set(images):
    images = np.asarray(images, np.uint8)
    return data.ImageSet(images, np.zeros(len(images), np.int32), ("only",))


def make_folder(root, each=20):
    for c, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for i in range(each):
            pixels = np.random.default_rng(c * each + i).integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_digits_hold_out_a_fifth_of_each_class():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert train.images.shape == (1438, 8, 8, 1)
    assert test.images.shape == (359, 8, 8, 1)
    assert train.images.max() == test.images.max() == 255
    counts = np.bincount(train.labels), np.bincount(test.labels)
    assert np.abs(counts[1] - (counts[0] + counts[1]) / 5).max() <= 0.5


def test_the_test_digits_are_these_for_good():
    # Seen with the first version of the rule: a score must mean the same later.
    test = data.load("digits", "test")
    assert test.labels[:12].tolist() == [4, 5, 6, 9, 4, 7, 8, 9, 9, 6, 9, 9]
    assert test.images.sum(dtype=np.int64) == 1_776_234


@pytest.mark.parametrize("name", data.PROTOCOLS)
def test_queries_and_gallery_of_digits_are_disjoint(name):
    protocol = data.load_protocol(name, "digits")
    assert protocol.name == f"digits-{name}"
    assert protocol.known_overlap == data.shared_images(protocol.gallery, protocol.query) == 0


def test_validation_never_sees_the_test_images():
    test, validation = (data.load_protocol(name, "digits") for name in ("test", "validation"))
    assert data.shared_images(validation.train, test.query) == 0
    assert data.shared_images(validation.query, test.query) == 0
    assert len(validation.train.labels) + len(validation.query.labels) == len(test.train.labels)
    assert data.shared_images(test.train, validation.query) == len(validation.query.labels)


def test_a_protocol_is_the_same_each_time():
    first, second = (data.load_protocol("validation", "digits") for _ in range(2))
    assert np.array_equal(first.query.images, second.query.images)
    assert np.array_equal(first.train.labels, second.train.labels)


def test_shared_images_counts_queries_by_their_pixels():
    gallery = image_set(np.arange(5 * 4).reshape(5, 2, 2, 1))
    query = image_set(np.concatenate([gallery.images[[1, 1, 4]], [[[[9], [9]], [[9], [9]]]]]))
    assert data.shared_images(gallery, query) == 3
    assert data.shared_images(query, gallery) == 2
    assert data.shared_images(gallery, image_set(np.zeros((0, 2, 2, 1)))) == 0


def test_shared_images_agrees_with_comparing_all_pairs():
    rng = np.random.default_rng(0)
    gallery, query = (image_set(rng.integers(0, 2, (40, 2, 2, 1))) for _ in range(2))
    pairs = (gallery.images[None] == query.images[:, None]).all(axis=(2, 3, 4))
    assert data.shared_images(gallery, query) == pairs.any(axis=1).sum()


def test_images_of_different_sizes_cannot_be_compared():
    with pytest.raises(ValueError, match="differ in shape"):
        data.shared_images(image_set(np.zeros((1, 2, 2, 1))), image_set(np.zeros((1, 2, 3, 1))))


def test_sixty_thousand_images_are_compared_in_a_second_of_one_cpu():
    rng = np.random.default_rng(0)
    gallery = image_set(rng.integers(0, 256, (60_000, 28, 28, 1), np.uint8))
    start = time.process_time()
    assert data.shared_images(gallery, image_set(gallery.images[:10_000])) == 10_000
    assert time.process_time() - start < 1


@pytest.mark.parametrize("name", data.PROTOCOLS)
def test_a_folder_has_every_protocol(tmp_path, name):
    protocol = data.load_protocol(name, f"folder:{make_folder(tmp_path / 'pets')}", None, 4)
    assert protocol.name == f"pets-{name}"
    assert protocol.known_overlap == 0
    assert protocol.query.class_names == protocol.gallery.class_names == ("cat", "dog")
    assert min(len(part.labels) for part in protocol[1:4]) > 0


def test_a_copy_of_a_query_in_the_gallery_is_told(tmp_path):
    make_folder(tmp_path)
    for i in range(20):  # every cat is filed as a dog, too: some of them on the other side
        (tmp_path / "dog" / f"copy{i}.png").write_bytes((tmp_path / f"cat/{i}.png").read_bytes())
    with pytest.warns(data.SharedImages, match=r"query images are in the gallery, too"):
        protocol = data.load_protocol("test", str(tmp_path), None, 4)
    assert data.shared_images(protocol.gallery, protocol.query) > protocol.known_overlap == 0


def test_a_known_overlap_is_documented_and_not_measured(monkeypatch):
    digits = data.load("digits", "train")
    monkeypatch.setitem(data.DATASETS, "digits", lambda split, data_dir: digits)
    protocol = data.load_protocol("test", "digits")
    assert protocol.known_overlap == 0
    assert data.shared_images(protocol.gallery, protocol.query) == len(digits.images)


@real_data
@pytest.mark.soak
@pytest.mark.parametrize("key", protocols.KNOWN_OVERLAP, ids=" ".join)
def test_the_known_overlap_is_what_the_files_share(key):
    dataset, name = key
    protocol = data.load_protocol(name, dataset)
    assert data.shared_images(protocol.gallery, protocol.query) == protocol.known_overlap


def test_every_protocol_of_every_data_set_has_a_known_overlap():
    fixed = data.DATASETS.keys() - {"landmarks"}  # whose images come and go
    keys = {(dataset, name) for dataset in fixed for name in data.PROTOCOLS}
    keys |= {(benchmark.dataset, name) for name, benchmark in data.BENCHMARKS.items()}
    assert protocols.KNOWN_OVERLAP.keys() == keys


def test_a_data_set_that_is_added_from_outside_has_every_protocol(monkeypatch):
    def load_stripes(split, data_dir):
        rows = np.arange(20) if split == "train" else np.arange(19, 25)  # 19 is in both
        images = (
            np.zeros((len(rows), 2, 2, 1), np.uint8) + rows.astype(np.uint8)[:, None, None, None]
        )
        return data.ImageSet(images, (rows % 2).astype(np.int32), ("even", "odd"))

    monkeypatch.setitem(data.DATASETS, "stripes", load_stripes)
    with pytest.warns(data.SharedImages, match="stripes-test: 1 of 6 query images are in the gall"):
        protocol = data.load_protocol("test", "stripes")
    assert protocol.known_overlap == 0
    assert len(data.load_protocol("validation", "stripes").query.images) == 4


def test_what_was_read_is_described():
    assert data.describe(data.load("digits", "test")) == [
        "359 images, each 8 x 8 x 1",
        "10 classes: 0 (36), 1 (36), 2 (35), 3 (37), 4 (36), 5 (36), 6 (36), 7 (36), 8 (35), 9 "
        "(36)",
        "split: a fixed fifth of each class is the test part",
    ]
    lines = data.describe(data.load_protocol("validation", "digits"))
    assert lines[0] == (
        "digits-validation: 1,151 training, 1,151 gallery, 287 queries, each 8 x 8 x 1"
    )
    assert lines[3:] == ["validation: a fifth of each class of the training part are the queries"]
    many = image_set(np.zeros((30, 1, 1, 1)))
    labels = np.minimum(np.arange(30), 27).astype(np.int32)
    many = many._replace(labels=labels, class_names=tuple(f"c{i}" for i in range(28)))
    assert "c19 (1), and 8 more, 1 to 3 images each" in data.describe(many)[1]


def test_sampled_rows_are_fixed_ascending_and_spread():
    rows = data.sample_rows(1000, 50)
    assert rows.tolist() == data.sample_rows(1000, 50).tolist()
    assert rows.dtype == np.int32
    assert len(set(rows.tolist())) == 50
    assert (np.diff(rows) > 0).all()
    assert rows.min() >= 0
    assert 400 < rows.mean() < 600  # the first 50 have the mean 24.5
    assert rows.max() < 1000
    assert not np.array_equal(rows, data.sample_rows(1000, 50, seed=1))
    # Seen with the first version of the rule: a sample must mean the same later.
    assert data.sample_rows(1000, 5).tolist() == [298, 553, 672, 859, 993]
    assert data.sample_rows(4, 9).tolist() == [0, 1, 2, 3]
    assert data.sample_rows(0, 9).shape == data.sample_rows(9, 0).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.load("mnsit", "train"), "unknown data set 'mnsit': choose one of mnist"),
        (lambda: data.load("digits", "val"), "unknown split 'val': choose one of train, test"),
        (lambda: data.load("digits", "test", None, 0), "image_size must be from 1 to 4096, got 0"),
        (lambda: data.load("digits", "test", labels="a.csv"), "digits has labels of its own"),
        (lambda: load("digits", "test", None, "8"), "image_size must be a whole number, got '8'"),
        (lambda: load("digits", "test", None, None), "image_size must be a whole number, got None"),
        (lambda: load(None, "test"), "a data set is named by a string or a Path, got None"),
        (lambda: load(3, "test"), "a data set is named by a string or a Path, got 3"),
        (lambda: load("mnist", "test", 3), "a path must be a string or a Path, got 3"),
        (lambda: load("digits", None), "unknown split None: choose one of train, test"),
        (lambda: load("digits", ["test"]), "unknown split .*: choose one of train, test"),
        (lambda: load_protocol(None, "digits"), "unknown protocol None: choose one of test"),
        (lambda: load_protocol([], "digits"), r"unknown protocol \[\]: choose one of test"),
        (lambda: load_protocol("test", None), "a data set is named by a string or a Path, got No"),
        (lambda: load_protocol("test", "mnsit"), "unknown data set 'mnsit'"),
        (lambda: sample_rows(9, -1), "count must be at least 0, got -1"),
        (lambda: sample_rows(9, 2, 2**40), "seed must be from 0 to 4294967295, got 1099511627776"),
        (lambda: data.load_protocol("59k", "digits"), "unknown protocol '59k': choose one of test"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(call, message):
    with pytest.raises(data.DataError, match=message):
        call()


@pytest.mark.parametrize("size", [4.0, np.int8(4), np.uint64(4), np.float32(4), np.array(4)])
def test_a_size_is_any_whole_number(tmp_path, size):
    images = load(make_folder(tmp_path), "train", None, size)
    assert images.images.shape[1:] == (4, 4, 3)


@real_data
def test_mnist_is_validated_on_its_last_ten_thousand_training_images():
    train = data.load("mnist", "train")
    protocol = data.load_protocol("validation", "mnist")
    assert np.array_equal(protocol.query.images, train.images[50_000:])
    assert np.array_equal(protocol.gallery.labels, train.labels[:50_000])
    assert np.array_equal(protocol.train.images, train.images[:50_000])


def divide(num_train=50_000):
    """Labels as CIFAR-10 has them, and each benchmark's rows."""
    labels = np.random.default_rng(0).permutation(np.arange(60_000) % 10).astype(np.int32)
    return labels, {name: b.divide(labels, num_train) for name, b in data.BENCHMARKS.items()}


def test_benchmarks_divide_as_the_literature_says():
    labels, rows = divide()
    sizes = {name: tuple(len(part) for part in parts) for name, parts in rows.items()}
    assert sizes == {
        "cifar10-full@1000": (50_000, 50_000, 10_000),
        "cifar10-full@all": (50_000, 50_000, 10_000),
        "cifar10-59k@all": (5_000, 59_000, 1_000),
        "cifar10-54k@all": (5_000, 54_000, 1_000),
        "cifar100-full@1000": (50_000, 50_000, 10_000),
        "mnist-69k@all": (5_000, 59_000, 1_000),
        "mnist-full@1000": (50_000, 50_000, 10_000),
    }
    for name in ("cifar10-59k@all", "cifar10-54k@all"):
        train, gallery, query = rows[name]
        assert set(np.bincount(labels[train])) == {500}
        assert set(np.bincount(labels[query])) == {100}
        assert not set(query) & (set(gallery) | set(train))
        everything = set(query) | set(gallery) | set(train)
        assert everything == set(range(60_000))
    assert set(rows["cifar10-59k@all"][0]) < set(rows["cifar10-59k@all"][1])
    assert not set(rows["cifar10-54k@all"][0]) & set(rows["cifar10-54k@all"][1])
    for a, b in zip(rows["cifar10-59k@all"], rows["cifar10-54k@all"], strict=True):
        assert len(np.intersect1d(a, b)) == min(len(a), len(b))


def test_a_digest_tells_one_split_from_another():
    rows = np.arange(6, dtype=np.int32)
    digests = {
        digest_of_rows(rows[:2], rows[2:]),
        digest_of_rows(rows[:3], rows[3:]),
        digest_of_rows(rows[2:], rows[:2]),
        digest_of_rows(rows[[1, 0]], rows[2:]),
    }
    assert len(digests) == 4
    assert digest_of_rows(rows[:2], rows[2:]) in digests


def test_rows_are_drawn_alike_on_every_machine():
    # Seen with the first version of the rule: a published split must mean the same later.
    _, rows = divide()
    assert digest_of_rows(*rows["cifar10-54k@all"]) == "9f74b02bc11ccfd0"


@pytest.mark.parametrize("name", data.BENCHMARKS)
def test_a_benchmark_is_of_one_data_set(name):
    with pytest.raises(
        data.DataError, match=f"{name} is a protocol of (cifar100?|mnist), not of digits"
    ):
        data.load_protocol(name, "digits")


@real_data
@pytest.mark.soak
@pytest.mark.parametrize("name", ["cifar10-full@1000", "cifar10-54k@all"])
def test_a_benchmark_says_its_score_and_its_split(name):
    protocol = data.load_protocol(name, "cifar10")
    assert protocol.name == name
    assert protocol.metric == data.BENCHMARKS[name].metric
    assert (
        protocol.split
        == {
            "cifar10-full@1000": "1e1e6657469775c0",
            "cifar10-54k@all": "b81695167e3fcedd",
        }[name]
    )
