import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxret import data
from jaxret.data.splits import hashed_fifth, seeded_fifth


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (6, 5), "red")).save(path, **options)
    return path


def noise(seed, size=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return Image.fromarray(pixels)


def make_folder(root, classes=("cat", "dog"), each=10):
    for c, name in enumerate(classes):
        for i in range(each):
            save(root / name / f"{i}.png", noise(c * each + i))
    return root


def load_both(root, image_size=8):
    return [data.load(f"folder:{root}", split, None, image_size) for split in ("train", "test")]


def test_the_sub_folders_in_order_are_the_classes(tmp_path):
    train, test = load_both(make_folder(tmp_path, ("zebra", "ant", "Mole")))
    assert train.class_names == test.class_names == ("Mole", "ant", "zebra")
    assert len(train.labels) + len(test.labels) == 30
    for images in (train, test):
        assert set(images.labels.tolist()) == {0, 1, 2}
        assert images.images.shape == (len(images.labels), 8, 8, 3)
        assert images.labels.dtype == np.int32
    assert np.array_equal(  # zebra's pictures were made first
        np.sort(train.images[train.labels == 2].sum(axis=(1, 2, 3))),
        np.sort([x for x in [np.asarray(noise(i)).sum() for i in range(10)]
                 if x in train.images.sum(axis=(1, 2, 3))]),
    )  # fmt: skip


def test_a_path_with_a_separator_needs_no_prefix(tmp_path):
    make_folder(tmp_path)
    plain, named = data.load(str(tmp_path), "test"), data.load(f"folder:{tmp_path}", "test")
    assert np.array_equal(plain.images, named.images)


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


def test_images_below_further_folders_belong_to_the_class(tmp_path):
    make_folder(tmp_path)
    save(tmp_path / "cat" / "more" / "still more" / "a.png")
    assert sum(len(images.labels) for images in load_both(tmp_path)) == 21


def test_hidden_files_and_loose_files_and_empty_folders_are_left_out(tmp_path):
    make_folder(tmp_path)
    save(tmp_path / "cat" / ".hidden.png")
    save(tmp_path / ".cache" / "a.png")
    save(tmp_path / "loose.png")
    (tmp_path / "empty").mkdir()
    train, test = load_both(tmp_path)
    assert train.class_names == ("cat", "dog")
    assert len(train.labels) + len(test.labels) == 20


def test_links_are_followed_once(tmp_path):
    make_folder(tmp_path / "images")
    save(tmp_path / "elsewhere" / "a.png")
    links = tmp_path / "images" / "cat"
    (links / "loop").symlink_to(tmp_path / "images")
    (links / "self").symlink_to(links)
    (links / "other").symlink_to(tmp_path / "elsewhere")
    (links / "b.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    assert sum(len(images.labels) for images in load_both(tmp_path / "images")) == 22


def test_a_folder_of_train_and_test_keeps_its_split(tmp_path):
    make_folder(tmp_path / "train", ("cat", "dog"), each=3)
    make_folder(tmp_path / "val", ("dog", "eel"), each=2)
    train, test = load_both(tmp_path)
    assert train.class_names == test.class_names == ("cat", "dog", "eel")
    assert sorted(train.labels) == [0, 0, 0, 1, 1, 1]
    assert sorted(test.labels) == [1, 1, 2, 2]


def test_what_cannot_be_decoded_is_skipped_and_named(tmp_path):
    make_folder(tmp_path, each=5)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "cat" / "empty.jpg").touch()
    whole = save(tmp_path / "dog" / "cut.jpg", noise(0, 64)).read_bytes()
    (tmp_path / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train, test = load_both(tmp_path)
    assert len(train.labels) + len(test.labels) == 10
    assert {warning.category for warning in caught} == {data.SkippedImages}
    reasons = {}
    for warning in caught:
        reasons |= warning.message.reasons
        assert f"{len(warning.message.reasons)} of" in str(warning.message)
        assert "\n" not in str(warning.message)
    assert set(reasons) == {"cat/notes.txt", "cat/empty.jpg", "dog/cut.jpg", "dog/gone.png"}
    assert "truncated" in reasons["dog/cut.jpg"]
    assert reasons["dog/gone.png"] == "No such file or directory"
    assert reasons["cat/notes.txt"] == "not an image that Pillow can read"


def test_a_decompression_bomb_is_skipped(tmp_path):
    make_folder(tmp_path)

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )  # fmt: skip

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    (tmp_path / "cat" / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels)
    with pytest.warns(data.SkippedImages, match="decompression bomb"):
        load_both(tmp_path)


def test_many_skipped_files_are_counted_and_ten_are_shown(tmp_path):
    for i in range(200):
        save(tmp_path / "cat" / f"{i % 20}.png")
        (tmp_path / "cat" / f"{i}.txt").touch()
    with pytest.warns(data.SkippedImages, match=r"\d+ of \d+ files skipped") as caught:
        load_both(tmp_path)
    assert sum(len(warning.message.reasons) for warning in caught) == 200
    for warning in caught:
        assert str(warning.message).count("not an image") == 10
        assert str(warning.message).endswith(f"and {len(warning.message.reasons) - 10} more")


def test_a_name_that_is_not_unicode_is_read(tmp_path):
    make_folder(tmp_path, each=1)
    os.rename(tmp_path / "cat" / "0.png", os.fsencode(tmp_path / "cat") + b"/\xff.png")
    assert len(data.load(f"folder:{tmp_path}", "train").labels) == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no sub-folder holds a file; give each class a sub-folder"),
        (["a.txt"], "no sub-folder holds a file; give each class a sub-folder"),
        (["a.png"], "no image for .test.: there is only one file"),
        (["cat/a.png", "dog/a.png"], "no image for 'test': no class has two files"),
    ],
)
def test_a_folder_without_images_in_classes_is_refused(tmp_path, files, message):
    for file in files:
        save(tmp_path / file, format="PNG")
    with pytest.raises(data.DataError, match=message):
        data.load(f"folder:{tmp_path}", "test")


@pytest.mark.filterwarnings("ignore::jaxret.data.SkippedImages")
def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.txt").touch()
    with pytest.raises(data.DataError, match="none of the 1 files of 'train' is a readable image"):
        data.load(f"folder:{tmp_path}", "train")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(data.DataError, match=f"there is no folder {tmp_path}/nowhere"):
        data.load(f"folder:{tmp_path}/nowhere", "train")


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


def test_names_are_the_files_and_stay_with_their_images(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test", each=4)
    protocol = data.load_protocol("validation", tmp_path, None, 8)
    rows = np.array([2, 0])
    mask = np.arange(len(protocol.query.labels)) % 2 == 0
    test = data.load(tmp_path, "test", None, 8)
    for images in (
        *protocol[1:4],
        test,
        data.take(test, rows),
        data.take(test, slice(1, 3)),
        data.take(protocol.query, mask),
    ):
        assert len(images.names) == len(images.images) > 0
        for name, image, label in zip(images.names, images.images, images.labels, strict=True):
            assert np.array_equal(image, data.read_image(tmp_path / name, 8))
            assert name.split("/")[1] == images.class_names[label]
    assert data.take(data.load("digits", "test"), rows).names is None


def flat_folder(root, num=20):
    for i in range(num):
        save(root / f"{i}.png", noise(i))
    return root


def test_a_flat_folder_has_images_without_labels(tmp_path):
    flat_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    train, test = load_both(tmp_path)
    assert len(train.images) + len(test.images) == 20
    assert len(test.images) > 0
    for images in (train, test):
        assert set(images.labels.tolist()) == {-1}
        assert images.labels.dtype == np.int32
        assert images.class_names == ()
        assert not data.has_labels(images)
    with pytest.raises(data.DataError, match=r"^a hash network needs labels, and these images"):
        data.require_labels(train, "a hash network")


@pytest.mark.parametrize("name", data.PROTOCOLS)
def test_a_flat_folder_has_every_protocol(tmp_path, name):
    protocol = data.load_protocol(name, flat_folder(tmp_path / "pets"), None, 8)
    assert protocol.name == f"pets-{name}"
    assert min(len(part.images) for part in protocol[1:4]) > 0
    assert "no labels: the images can be trained on and searched, but not scored" in data.describe(
        protocol
    )


def test_a_flat_folder_may_come_with_its_split(tmp_path):
    flat_folder(tmp_path / "train", 3)
    flat_folder(tmp_path / "val", 2)
    train, test = load_both(tmp_path)
    assert sorted(train.names) == ["train/0.png", "train/1.png", "train/2.png"]
    assert sorted(test.names) == ["val/0.png", "val/1.png"]
    assert train.class_names == ()


def write_run(folder):
    """A work folder as a train script leaves it."""
    save(folder / "plots" / "loss.png")
    (folder / "args.flags").write_text("--epochs=1\n")
    (folder / "metrics.json").write_text('{"schema": 1}')


def make_runs(root):
    write_run(root / "runs" / "mine")


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


def test_a_run_inside_the_data_folder_is_no_class(tmp_path):
    make_folder(tmp_path)
    before = load_both(tmp_path)
    write_run(tmp_path / "run")
    make_runs(tmp_path)
    write_run(tmp_path)  # even with the data folder itself as its work folder
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "encoder.json").write_text('{\n "schema": 1}')
    save(tmp_path / "kept" / "a.png")
    after = load_both(tmp_path)
    for old, new in zip(before, after, strict=True):
        assert (new.names, new.class_names) == (old.names, old.class_names)
    (told,) = [note for note in after[0].notes if note.startswith("left out")]
    for folder in ("run", "kept", "plots", "runs/mine"):
        assert f"'{folder}' (written by jaxret)" in told


def test_a_file_of_another_program_does_not_hide_a_class(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "cat" / "index.json").write_text('{"pictures": []}')
    (tmp_path / "dog" / "metrics.json").write_bytes(b"\xff\x00")
    with pytest.warns(data.SkippedImages):
        assert load_both(tmp_path)[0].class_names == ("cat", "dog")


def test_a_folder_that_jaxret_wrote_is_no_data_set(tmp_path):
    write_run(tmp_path)
    with pytest.raises(data.DataError, match="this is a folder that jaxret wrote"):
        data.load(tmp_path, "train")


def test_a_class_without_a_readable_image_is_no_class(tmp_path):
    make_folder(tmp_path, ("ant", "cat", "dog"))
    for i in range(10):
        (tmp_path / "ant" / f"{i}.png").write_bytes(b"damaged")
    (tmp_path / "bills").mkdir()
    (tmp_path / "bills" / "a.txt").touch()
    with pytest.warns(data.SkippedImages):
        train, test = load_both(tmp_path)
    for images in (train, test):
        assert images.class_names == ("cat", "dog")
        for name, label in zip(images.names, images.labels, strict=True):
            assert name.startswith(images.class_names[label])
        assert "left out: classes without a readable image: ant, bills" in images.notes


def test_a_class_that_one_side_cannot_read_keeps_its_number(tmp_path):
    make_folder(tmp_path, ("ant", "cat"))
    for name in data.load(tmp_path, "test", None, 8).names:
        if name.startswith("ant"):
            (tmp_path / name).write_bytes(b"damaged")
    with pytest.warns(data.SkippedImages):
        train, test = load_both(tmp_path)
    assert train.class_names == test.class_names == ("ant", "cat")
    assert set(test.labels) == {1}


def test_a_parent_folder_by_mistake_is_told(tmp_path):
    make_folder(tmp_path / "pets" / "all")
    with pytest.warns(data.OneClass, match="class 'all', and scores need at least two classes"):
        protocol = data.load_protocol("test", tmp_path / "pets", None, 8)
    assert any(line == "1 class: all (20)" for line in data.describe(protocol))


@pytest.mark.parametrize("name", ["folder:", "folder:  "])
def test_an_unset_variable_is_not_the_current_folder(name):
    with pytest.raises(data.DataError, match="'folder:' names no folder: write folder:PATH"):
        data.load(name, "train")
    with pytest.raises(data.DataError, match="'folder:' names no folder"):
        data.load_protocol("test", name)


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_folder(tmp_path / "pets")
    for name in ("folder:~/pets", "~/pets", tmp_path / "pets"):
        assert len(data.load(name, "train", None, 8).names) > 0
    assert data.load_protocol("test", "~/pets", None, 8).name == "pets-test"
    with pytest.raises(data.DataError, match="home"):
        data.load("folder:~nobody-of-this-name/pets", "train")


def test_the_current_folder_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(make_folder(tmp_path / "pets"))
    assert data.load_protocol("test", "folder:.", None, 8).name == "pets-test"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_sub_folder_that_cannot_be_read_is_named(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "cat").chmod(0)
    try:
        with pytest.raises(data.DataError, match="cat: cannot be read"):
            data.load(tmp_path, "train")
    finally:
        (tmp_path / "cat").chmod(0o700)


def test_nothing_is_written_into_the_folder(tmp_path):
    make_folder(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    data.load_protocol("validation", tmp_path, None, 8)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
