"""Odd pictures dropped on the page: each is found by what it shows, or refused in one line."""

import io

import made_photos as photos
import numpy as np
import pytest
from PIL import Image
from serving import SIDE, client, ids_of, index_by_hand

__all__ = ["client"]
SEED = 3  # of the indexed picture that the uploads show
NEAR = 8  # bits of 64: palettes and lossy formats change pixels a little
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = photos.make(tmp_path_factory.mktemp("odd") / "photos", 12)
    index_by_hand(made)
    return made


def bytes_of(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def sideways():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise to see it
    turned = photos.picture(SEED).transpose(Image.Transpose.ROTATE_90)
    return bytes_of(turned, "JPEG", quality=95, exif=exif)


def palette():
    image = photos.picture(SEED).quantize(256)
    return bytes_of(image, transparency=bytes([255] * 256))


def animated(kind, **options):
    others = [photos.picture(seed) for seed in (7, 8)]
    return bytes_of(photos.picture(SEED), kind, save_all=True, append_images=others, **options)


def grey_16():
    grey = np.asarray(photos.picture(SEED).convert("L"), np.uint16) * 257
    return bytes_of(Image.fromarray(grey))


def opaque(mode):
    image = photos.picture(SEED).convert(mode)
    image.putalpha(255)
    return bytes_of(image)


SHOWN = {
    "as it is": lambda: bytes_of(photos.picture(SEED)),
    "a JPEG in CMYK": lambda: bytes_of(photos.picture(SEED).convert("CMYK"), "JPEG", quality=95),
    "a palette with transparency": palette,
    "an animated GIF": lambda: animated("GIF"),
    "an animated WEBP": lambda: animated("WEBP", lossless=True),
    "an animated PNG": lambda: animated("PNG"),
    "a photo taken sideways": sideways,
    "with an opaque channel": lambda: opaque("RGB"),
    "a TIFF": lambda: bytes_of(photos.picture(SEED), "TIFF"),
    "a progressive JPEG": lambda: bytes_of(photos.picture(SEED), "JPEG", progressive=True),
    "with bytes behind its end": lambda: bytes_of(photos.picture(SEED)) + b"\0" * 5000,
}


@pytest.mark.parametrize("form", SHOWN)
def test_a_picture_in_an_odd_form_is_found(client, root, form):
    reply = client.upload(SHOWN[form](), "?k=12")
    assert reply.status == 200
    found = reply.json["results"]
    assert len(found) == 12
    assert found[0]["id"] == ids_of(root / ".jaxret")["a/3.jpg"]
    assert found[0]["distance"] <= NEAR < found[1]["distance"]


@pytest.mark.parametrize("form", [grey_16, lambda: opaque("L")])
def test_grey_of_16_bits_or_with_an_opaque_channel_is_the_same_grey(client, form):
    plain = client.upload(bytes_of(photos.picture(SEED).convert("L"))).json["results"]
    assert client.upload(form()).json["results"] == plain


@pytest.mark.parametrize("kind", ["image/gif", "image/svg+xml", "application/octet-stream"])
def test_what_a_file_calls_itself_does_not_matter(client, kind):
    content = bytes_of(photos.picture(SEED))
    same = client.upload(content, Content_Type=kind).json["results"]
    assert same == client.upload(content, Content_Type="image/png").json["results"]


def half(kind):
    content = bytes_of(photos.picture(SEED, (640, 480)), kind)
    return content[: len(content) // 2]


def wide(width, height):
    """A PNG of white whose rows are as short as they can be."""
    return bytes_of(Image.new("1", (width, height), 1))


REFUSED = {
    "no bytes": lambda: b"",
    "one byte": lambda: b"\xff",
    "a text": lambda: b"this is no picture\n" * 50,
    "a page": lambda: b"<html><script>alert(1)</script></html>",
    "half a JPEG": lambda: half("JPEG"),
    "half a PNG": lambda: half("PNG"),
    "half a WEBP": lambda: half("WEBP"),
    "the start of a GIF": lambda: b"GIF89a\x01\0\x01\0\x80\0\0",
    "a format that is not read": lambda: bytes_of(photos.picture(SEED), "PCX"),
    "an image without pixels": lambda: b"P6 0 0 255\n",
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_shows_nothing_is_refused_in_one_line(client, form):
    reply = client.upload(REFUSED[form]())
    assert (reply.status, reply.json["error"]["code"]) == (422, "not_an_image")
    message = reply.json["error"]["message"]
    assert 0 < len(message) < 200
    assert "\n" not in message
    assert "Traceback" not in message


def test_a_picture_of_one_line_of_pixels_is_read_and_one_of_too_many_is_not(client):
    assert client.upload(wide(30_000, 1)).status == 200
    reply = client.upload(wide(10_001, 10_000))
    assert (reply.status, reply.json["error"]["code"]) == (413, "too_many_pixels")
    assert client.upload(bytes_of(photos.picture(SEED, (SIDE, SIDE)))).status == 200
