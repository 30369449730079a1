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
