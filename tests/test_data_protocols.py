import os
import time

import numpy as np
import pytest
from PIL import Image

from jaxret import data
from jaxret.data.splits import digest_of_rows

real_data = pytest.mark.skipif(
    "JAXRET_DATA_DIR" not in os.environ, reason="JAXRET_DATA_DIR names no folder of real data"
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


def test_sixty_thousand_images_are_compared_in_a_second():
    rng = np.random.default_rng(0)
    gallery = image_set(rng.integers(0, 256, (60_000, 28, 28, 1), np.uint8))
    start = time.perf_counter()
    assert data.shared_images(gallery, image_set(gallery.images[:10_000])) == 10_000
    assert time.perf_counter() - start < 1


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.load("mnsit", "train"), "unknown data set 'mnsit': choose one of mnist"),
        (lambda: data.load("digits", "val"), "unknown split 'val': choose one of train, test"),
        (lambda: data.load("digits", "test", None, 0), "image_size must be from 1 to 4096, got 0"),
        (lambda: data.load_protocol("59k", "digits"), "unknown protocol '59k': choose one of test"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(call, message):
    with pytest.raises(data.DataError, match=message):
        call()


@real_data
@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "cifar10"])
def test_the_official_splits_share_no_image(dataset):
    protocol = data.load_protocol("test", dataset)
    assert len(protocol.query.labels) == 10_000
    assert data.shared_images(protocol.gallery, protocol.query) == protocol.known_overlap


@real_data
def test_mnist_is_validated_on_its_last_ten_thousand_training_images():
    train = data.load("mnist", "train")
    protocol = data.load_protocol("validation", "mnist")
    assert np.array_equal(protocol.query.images, train.images[50_000:])
    assert np.array_equal(protocol.gallery.labels, train.labels[:50_000])
    assert np.array_equal(protocol.train.images, train.images[:50_000])
    assert data.shared_images(protocol.gallery, protocol.query) == protocol.known_overlap


def drawn(num_train=50_000):
    """Labels as CIFAR-10 has them, and each benchmark's rows."""
    labels = np.random.default_rng(0).permutation(np.arange(60_000) % 10).astype(np.int32)
    return labels, {name: b.divide(labels, num_train) for name, b in data.BENCHMARKS.items()}


def test_benchmarks_divide_as_the_literature_says():
    labels, rows = drawn()
    sizes = {name: tuple(len(part) for part in parts) for name, parts in rows.items()}
    assert sizes == {
        "cifar10-full@1000": (50_000, 50_000, 10_000),
        "cifar10-full@all": (50_000, 50_000, 10_000),
        "cifar10-59k@all": (5_000, 59_000, 1_000),
        "cifar10-54k@all": (5_000, 54_000, 1_000),
        "cifar100-full@1000": (50_000, 50_000, 10_000),
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
    _, rows = drawn()
    assert digest_of_rows(*rows["cifar10-54k@all"]) == "9f74b02bc11ccfd0"


@pytest.mark.parametrize("name", data.BENCHMARKS)
def test_a_benchmark_is_of_one_data_set(name):
    with pytest.raises(data.DataError, match=f"{name} is a protocol of cifar100?, not of digits"):
        data.load_protocol(name, "digits")


@real_data
@pytest.mark.parametrize("name", ["cifar10-full@1000", "cifar10-54k@all"])
def test_a_benchmark_says_its_score_and_its_split(name):
    protocol = data.load_protocol(name, "cifar10")
    assert protocol.name == name
    assert protocol.metric == data.BENCHMARKS[name].metric
    assert protocol.known_overlap == data.shared_images(protocol.gallery, protocol.query)
    assert (
        protocol.split
        == {
            "cifar10-full@1000": "1e1e6657469775c0",
            "cifar10-54k@all": "b81695167e3fcedd",
        }[name]
    )
