import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxret import data
from jaxret.data.folder import read_image
from jaxret.data.splits import hashed_fifth, seeded_fifth

RED, WHITE = [255, 0, 0], [255, 255, 255]


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


def pixel(path, size=4):
    """The colour of an image that has one colour, within 2 levels."""
    image = read_image(path, size)
    assert image.shape == (size, size, 3)
    assert np.ptp(image.astype(int), axis=(0, 1)).max() <= 2
    return image[size // 2, size // 2].tolist()


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
    assert train.labels.tolist() == test.labels.tolist() == list(range(20))


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
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.labels.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("color", "mode"),
    [
        ((255, 0, 0), "RGB"),
        ((0, 255, 255, 0), "CMYK"),
        ((255, 0, 0, 255), "RGBA"),
        ((76, 85, 255), "YCbCr"),
    ],
)
def test_red_is_red_in_every_colour_mode(tmp_path, mode, color):
    image = Image.new(mode, (9, 7), color)
    path = save(tmp_path / ("a.png" if mode in ("RGB", "RGBA") else "a.tiff"), image)
    assert np.abs(np.subtract(pixel(path), RED)).max() <= 2


def test_a_palette_gives_its_colours(tmp_path):
    image = Image.new("RGB", (9, 7), "red").convert("P", palette=Image.Palette.ADAPTIVE)
    assert pixel(save(tmp_path / "a.png", image)) == RED
    assert pixel(save(tmp_path / "a.gif", image)) == RED


def test_transparent_parts_show_white(tmp_path):
    clear_red, half_black = (255, 0, 0, 0), (0, 0, 0, 128)
    assert pixel(save(tmp_path / "a.png", Image.new("RGBA", (9, 7), clear_red))) == WHITE
    assert pixel(save(tmp_path / "b.png", Image.new("RGBA", (9, 7), half_black))) == [127] * 3
    assert pixel(save(tmp_path / "c.png", Image.new("LA", (9, 7), (0, 0)))) == WHITE
    palette = Image.new("P", (9, 7), 0)
    palette.putpalette([255, 0, 0])
    assert pixel(save(tmp_path / "d.png", palette, transparency=0)) == WHITE


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.uint16([0, 257 * 100, 65535]), [0, 100, 255]),
        (np.uint16([0, 100, 200]), [0, 0, 1]),  # dark in 16 bits is dark
        (np.int32([0, 257 * 100, 65535]), [0, 100, 255]),
        (np.int32([-100, 0, 300]), [0, 64, 255]),
        (np.float32([0, 0.5, 1]), [0, 128, 255]),
        (np.float32([0, 100, 255]), [0, 100, 255]),
        (np.float32([0, 25700, 65535]), [0, 100, 255]),
        (np.float32([-1e6, 0, 1e6]), [0, 128, 255]),
        (np.float32([np.nan, 0.5, 1]), [0, 128, 255]),
    ],
)
def test_wide_grey_is_scaled_to_bytes_and_not_clipped(tmp_path, values, expected):
    image = Image.fromarray(np.tile(values[:, None], (1, 3)))
    path = save(tmp_path / "a.tiff", image)
    assert read_image(path, 3)[:, 1, 0].tolist() == expected


def test_grey_and_black_and_white_become_rgb(tmp_path):
    assert pixel(save(tmp_path / "a.png", Image.new("L", (9, 7), 90))) == [90] * 3
    assert pixel(save(tmp_path / "b.png", Image.new("1", (9, 7), 1))) == WHITE


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_that_was_turned_is_upright(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = noise(0, 2).resize((300, 200), Image.Resampling.BICUBIC)
    options = {} if name == "a.tiff" else {"quality": 95}
    path = save(tmp_path / name, stored, exif=exif, **options)
    # Pillow's own rule, on the whole image.
    upright = ImageOps.exif_transpose(Image.open(path))
    square = ImageOps.fit(upright.convert("RGB"), (8, 8), Image.Resampling.BICUBIC)
    difference = read_image(path, 8).astype(int) - np.asarray(square)
    assert np.abs(difference).max() <= 3


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (9, 7), color) for color in ("red", "blue")]
    for name in ("a.gif", "a.png", "a.tiff"):
        path = save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
        assert pixel(path) == RED


@pytest.mark.parametrize("size", [(30, 10), (10, 30)])
def test_the_centre_of_the_longer_side_is_kept(tmp_path, size):
    image = Image.new("RGB", size, "white")
    left, top = (size[0] - 10) // 2, (size[1] - 10) // 2
    image.paste("red", (left, top, left + 10, top + 10))
    assert pixel(save(tmp_path / "a.png", image), size=10) == RED


def test_shrinking_averages_instead_of_picking_pixels(tmp_path):
    stripes = np.zeros((640, 640), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(np.subtract(pixel(save(tmp_path / "a.png", Image.fromarray(stripes))), 127.5)
                  ).max() <= 2  # fmt: skip


def test_a_large_jpeg_is_within_a_grey_level_of_its_full_decoding(tmp_path):
    path = save(tmp_path / "a.jpg", noise(0).resize((900, 700), Image.Resampling.BICUBIC))
    plain = save(tmp_path / "a.png", Image.open(path))
    difference = read_image(path, 32).astype(int) - read_image(plain, 32)
    assert np.abs(difference).mean() < 1


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
        (["a.png"], "no sub-folder holds a file; give each class a sub-folder"),
        (["cat/a.png", "dog/a.png"], "no image for 'test': no class has two files"),
    ],
)
def test_a_folder_without_images_in_classes_is_refused(tmp_path, files, message):
    for file in files:
        save(tmp_path / file)
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
