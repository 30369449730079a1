"""Which images of a folder are train and which test, and in what order: its own split or a hash."""

import numpy as np
import pytest
from image_folders import flat_folder, load_both, make_folder, make_runs, save
from PIL import Image

from jaxret import data
from jaxret.data.splits import hashed_fifth, seeded_fifth


def test_an_image_keeps_its_split_when_others_come(tmp_path):
    before = load_both(make_folder(tmp_path, each=20))
    make_folder(tmp_path, ("cat", "dog", "eel"), each=40)
    after = load_both(tmp_path)
    for old, new in zip(before, after, strict=True):
        assert {x.tobytes() for x in old.images} <= {x.tobytes() for x in new.images} | {
            x.tobytes()
            for x in old.images[old.labels == 1]  # made anew, with other content
        }


def test_every_class_of_two_images_has_one_on_each_side(tmp_path):
    train, test = load_both(make_folder(tmp_path, [f"class{i}" for i in range(20)], each=2))
    assert sorted(train.labels) == sorted(test.labels) == list(range(20))


def test_a_folder_of_train_and_test_keeps_its_split(tmp_path):
    make_folder(tmp_path / "train", ("cat", "dog"), each=3)
    make_folder(tmp_path / "val", ("dog", "eel"), each=2)
    train, test = load_both(tmp_path)
    assert train.class_names == test.class_names == ("cat", "dog", "eel")
    assert sorted(train.labels) == [0, 0, 0, 1, 1, 1]
    assert sorted(test.labels) == [1, 1, 2, 2]


def test_a_hashed_fifth_is_about_a_fifth():
    labels = np.arange(5000, dtype=np.int32) % 10
    chosen = hashed_fifth([f"class{i % 10}/{i}.png" for i in range(5000)], labels)
    assert 900 < chosen.sum() < 1100


def test_a_seeded_fifth_is_a_fifth_of_each_class():
    labels = np.repeat(np.arange(4, dtype=np.int32), [50, 7, 1, 100])
    chosen = seeded_fifth(labels, seed=0)
    assert np.bincount(labels[chosen], minlength=4).tolist() == [10, 1, 0, 20]
    assert not np.array_equal(chosen, seeded_fifth(labels, seed=1))


def score(labels, seed):
    """1-NN accuracy and mean precision of the first 10, by codes of 8 bits that say little."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(0).normal(size=(10, 8))
    queries = rng.integers(0, 10, 400)
    codes, sought = (means[y] + 0.5 * rng.normal(size=(len(y), 8)) > 0 for y in (labels, queries))
    distances = (sought[:, None] != codes[None]).sum(axis=2)
    ranking = np.argsort(distances, axis=1, kind="stable")  # ties: the lower row first
    right = labels[ranking] == queries[:, None]
    return np.array([right[:, 0].mean(), right[:, :10].mean()])


def test_short_codes_are_scored_as_in_random_order_and_not_by_class(tmp_path):
    image = save(tmp_path / "0" / "0.png", Image.new("L", (1, 1))).read_bytes()
    for i in range(400):
        path = tmp_path / str(i // 40) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image)
    labels = data.load(f"folder:{tmp_path}", "train", None, 1).labels
    rng = np.random.default_rng(1)
    found, in_class_order, in_random_order = (
        np.mean([score(order(), seed) for seed in range(8)], axis=0)
        for order in (
            lambda: labels,
            lambda: np.sort(labels),
            lambda: rng.permutation(labels),
        )
    )
    assert np.abs(found - in_random_order).max() < 0.02
    assert np.abs(in_class_order - in_random_order).max() > 0.05


def test_images_keep_their_order_when_others_come_and_go(tmp_path):
    make_folder(tmp_path, each=20)
    before = data.load(tmp_path, "train", None, 4).names
    assert list(before) != sorted(before)
    make_folder(tmp_path, ("cat", "dog", "eel"), each=25)
    (tmp_path / before[3]).unlink()
    after = data.load(tmp_path, "train", None, 4).names
    kept = set(after) & set(before)
    assert len(kept) >= len(before) - 3  # a class's lowest and highest hash may change sides
    assert [name for name in after if name in kept] == [name for name in before if name in kept]


def test_a_flat_folder_may_come_with_its_split(tmp_path):
    flat_folder(tmp_path / "train", 3)
    flat_folder(tmp_path / "val", 2)
    train, test = load_both(tmp_path)
    assert sorted(train.names) == ["train/0.png", "train/1.png", "train/2.png"]
    assert sorted(test.names) == ["val/0.png", "val/1.png"]
    assert train.class_names == ()


def make_thumbnails(root):
    save(root / "@eaDir" / "a" / "SYNOPHOTO_THUMB_M.jpg")
    save(root / "train" / "cat" / "@eaDir" / "SYNOPHOTO_THUMB_M.jpg")


EXTRAS = {
    "an empty folder": (lambda root: (root / "more").mkdir(), "'more' (empty)"),
    "a third folder": (lambda root: save(root / "more" / "a" / "1.png"),
                       "'more' (not 'train' or 'test')"),
    "work folders": (make_runs, "'runs/mine' (written by jaxret)"),
    "thumbnails": (make_thumbnails, "'@eaDir' (a system's own)"),
    "validation": (lambda root: make_folder(root / "val"), "'val' (not 'train' or 'test')"),
    "an image": (lambda root: save(root / "a.png"),
                 "images beside the sub-folders: 1, such as 'a.png'"),
}  # fmt: skip


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_lies_beside_train_and_test_is_told_and_changes_nothing(tmp_path, extra):
    make_folder(tmp_path / "train", each=3)
    make_folder(tmp_path / "test", each=2)
    before = load_both(tmp_path)
    assert not [line for line in data.describe(before[0]) if "left out" in line]
    make, told = EXTRAS[extra]
    make(tmp_path)
    after = load_both(tmp_path)
    for old, new in zip(before, after, strict=True):
        assert new.names == old.names
        assert new.class_names == ("cat", "dog")
        lines = data.describe(new)
        assert [line for line in lines if line.startswith("left out: ") and told in line]
        assert "split: the folder's own, 'train' and 'test'" in lines


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ["Train", "Test"],
            "'Train' and 'Test' look like a split, but .* named 'train' and",
        ),
        (["training", "test"], "'training' and 'test' look like a split"),
        (["training", "validation"], "'training' and 'validation' look like a split"),
        (["train", "testing", "cat"], "'train' and 'testing' look like a split"),
        (["train_set", "Val-2"], "'train_set' and 'Val-2' look like a split"),
        (["train"], "'train' looks like one part of a split, and the other part is missing"),
        (["Validation"], "'Validation' looks like one part of a split"),
    ],
)
def test_names_that_look_like_a_split_are_an_error_that_says_which(tmp_path, folders, message):
    for folder in folders:
        make_folder(tmp_path / folder, each=2)
    with pytest.raises(data.DataError, match=message):
        data.load(tmp_path, "train")


def test_a_split_of_which_one_part_is_empty_is_an_error(tmp_path):
    make_folder(tmp_path / "train", each=2)
    (tmp_path / "test").mkdir()
    with pytest.raises(data.DataError, match="'test' is empty, so that 'train' and 'test' are no"):
        data.load(tmp_path, "train")


def test_a_split_with_classes_on_one_side_only_is_an_error(tmp_path):
    make_folder(tmp_path / "train", each=2)
    flat_folder(tmp_path / "test", 2)
    with pytest.raises(data.DataError, match="'train' has sub-folders of classes, and the other"):
        data.load(tmp_path, "train")


def test_train_and_test_that_may_be_classes_are_an_error(tmp_path):
    for folder in ("bus", "train", "test"):
        flat_folder(tmp_path / folder, 2)
    with pytest.raises(data.DataError, match="'train' and 'test' beside 'bus' could be a split or"):
        data.load(tmp_path, "train")


def test_a_class_may_be_called_train(tmp_path):
    make_folder(tmp_path, ("bus", "plane", "train"))
    assert data.load(tmp_path, "test", None, 8).class_names == ("bus", "plane", "train")


def test_a_class_that_one_side_cannot_read_keeps_its_number(tmp_path):
    make_folder(tmp_path, ("ant", "cat"))
    for name in data.load(tmp_path, "test", None, 8).names:
        if name.startswith("ant"):
            (tmp_path / name).write_bytes(b"damaged")
    with pytest.warns(data.SkippedImages):
        train, test = load_both(tmp_path)
    assert train.class_names == test.class_names == ("ant", "cat")
    assert set(test.labels) == {1}
