"""A folder of images as a data set: its classes, what is left out, what cannot be read."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from image_folders import flat_folder, load_both, make_folder, make_runs, noise, save, write_run

from jaxret import data


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
