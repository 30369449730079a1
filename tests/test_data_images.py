import os
import threading

import numpy as np
import pytest
from image_folders import noise, save
from PIL import Image, ImageOps

from jaxret import data
from jaxret.data import images as module

RED, WHITE = [255, 0, 0], [255, 255, 255]


def pixel(path, size=4):
    """The colour of an image that has one colour, within 2 levels."""
    image = data.read_image(path, size)
    assert image.shape == (size, size, 3)
    assert np.ptp(image.astype(int), axis=(0, 1)).max() <= 2
    return image[size // 2, size // 2].tolist()


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


def test_an_opaque_channel_changes_nothing(tmp_path):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8))
    plain = data.read_image(save(tmp_path / "a.png", photo), 5)
    np.testing.assert_array_equal(
        data.read_image(save(tmp_path / "b.png", photo.convert("RGBA")), 5), plain
    )


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
    assert data.read_image(path, 3)[:, 1, 0].tolist() == expected


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
    difference = data.read_image(path, 8).astype(int) - np.asarray(square)
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
    difference = data.read_image(path, 32).astype(int) - data.read_image(plain, 32)
    assert np.abs(difference).mean() < 1


@pytest.mark.parametrize("size", [(30, 20), (13, 40), (8, 8), (5, 3)])
def test_an_array_is_resized_as_its_file_is(tmp_path, size):
    pixels = np.random.default_rng(0).integers(0, 256, (4, *size, 3), np.uint8)
    found = data.resize_images(pixels, 8)
    assert found.shape == (4, 8, 8, 3)
    for i in range(4):
        path = save(tmp_path / f"{i}.png", Image.fromarray(pixels[i]))
        assert np.array_equal(found[i], data.read_image(path, 8))


def test_grey_arrays_stay_grey_and_equal_each_channel_of_rgb():
    grey = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 1), np.uint8)
    found = data.resize_images(grey, 8)
    assert found.shape == (3, 8, 8, 1)
    assert np.array_equal(np.repeat(found, 3, axis=3), data.resize_images(grey.repeat(3, 3), 8))


def test_images_of_the_right_size_are_returned_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    assert data.resize_images(images, 8) is images
    assert data.resize_images(images[:0], 5).shape == (0, 5, 5, 3)


def test_strided_and_read_only_arrays_are_resized_too():
    images = np.random.default_rng(0).integers(0, 256, (6, 40, 30, 3), np.uint8)
    view = images[::2, ::-2, :, ::-1]
    view.flags.writeable = False
    assert np.array_equal(data.resize_images(view, 8), data.resize_images(view.copy(), 8))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 4, 4, 4), np.uint8), ((2, 4, 4), np.uint8), ((2, 4, 4, 3), np.float32)],
)
def test_arrays_of_another_form_are_refused_with_the_rule(shape, dtype):
    images = np.zeros(shape, dtype)
    with pytest.raises(
        data.DataError, match=r"images must be uint8 \[n h w c\] of 1 or 3 channels"
    ):
        module.resize_images.__wrapped__(images, 8)


@pytest.mark.parametrize("size", [5, 5.0, np.int8(5), np.uint64(5), np.float32(5), np.array(5)])
def test_a_size_is_any_whole_number(tmp_path, size):
    path = save(tmp_path / "a.png")
    assert data.read_image.__wrapped__(path, size).shape == (5, 5, 3)


@pytest.mark.parametrize("size", [None, "5", 5.5, True, [5], np.nan, np.inf, 1j])
def test_a_size_that_is_no_whole_number_is_refused(size):
    with pytest.raises(data.DataError, match="image_size must be a whole number, got "):
        module.check_image_size(size)


@pytest.mark.parametrize("size", [0, -3, 4097, 2**70])
def test_a_size_out_of_range_is_refused(size):
    with pytest.raises(data.DataError, match=f"image_size must be from 1 to 4096, got {size}"):
        module.check_image_size(size)


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "a.jpg").write_text("not an image")
    with pytest.raises(data.DataError, match=r"a\.jpg: not an image that Pillow can read"):
        data.read_image(tmp_path / "a.jpg", 8)
    with pytest.raises(data.DataError, match=r"b\.jpg: No such file or directory"):
        data.read_image(str(tmp_path / "b.jpg"), 8)


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "a.png")
    assert data.read_image("~/a.png", 8).shape == (8, 8, 3)


def test_no_more_threads_work_than_the_process_has_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5}, raising=False)
    threads = set()
    barrier = threading.Barrier(2, timeout=10)

    def work(i):
        threads.add(threading.get_ident())
        if i < 2:  # both threads have started
            barrier.wait()
        return i

    assert module.run_in_threads(work, range(40)) == list(range(40))
    assert len(threads) == 2
