"""What a file's bytes say: their digest, and the picture in them."""

import contextlib
import datetime
import hashlib
import importlib
import io
import os
import stat
import threading
import time
import warnings
from collections.abc import Container, Iterator
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxret.index.catalogue import Staged
from jaxret.index.scan import Entry, entry_of

MOST_PIXELS = 250_000_000
LARGE = 40_000_000  # pixels; larger images are decoded one at a time, to save memory
# By content, not by name. Others that Pillow knows (EPS, FITS, PSD, ...) are not for photos.
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
HEIC = (".heic", ".heif")
NO_HEIC = "HEIC needs pillow-heif: pip install pillow-heif"
_ORIENTATION, _MODIFIED, _EXIF, _TAKEN = 0x0112, 0x0132, 0x8769, 0x9003
_alone = threading.Lock()
NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


class UnreadableError(Exception):
    """A file that is no picture, with the reason in a few words."""


class Picture(NamedTuple):
    """A decoded image. width and height are those of the upright original.

    pixels are NO_PIXELS where only the header was read.
    """

    pixels: UInt8[np.ndarray, "s s 3"]
    width: int
    height: int
    taken: str | None  # local time of the camera, ISO 8601


class Reading(NamedTuple):
    """A file that was read; picture is None where its content is known already."""

    file: Staged
    picture: Picture | None


def read(
    full_path: str, path: str, image_size: int | None, known: Container[bytes] = ()
) -> Reading:
    """Read a file once: digest it, and decode it unless its content is known.

    Args:
        full_path: where the file is.
        path: what it is called in the index.
        image_size: pixels a side of the decoded image; None to look at the header only.
        known: digests of contents that need not be decoded.

    Returns:
        Reading.

    Raises:
        UnreadableError: where it is no file, or no image.
    """
    with _opened(full_path) as file:
        seen_ns = time.time_ns()
        entry = entry_of(os.fstat(file.fileno()))
        if not entry.size:
            raise UnreadableError("0 bytes")
        digest = digest_of(file)
        facts = Staged(path, entry.size, entry.mtime_ns, entry.inode, seen_ns, digest)
        if digest in known:
            return Reading(facts, None)
        file.seek(0)
        return Reading(facts, decode(file, image_size, path))


def read_digest(full_path: str, path: str) -> Staged:
    """Read a file for its digest alone; raise UnreadableError where it cannot be read."""
    with _opened(full_path) as file:
        seen_ns = time.time_ns()
        entry = entry_of(os.fstat(file.fileno()))
        digest = digest_of(file)
        return Staged(path, entry.size, entry.mtime_ns, entry.inode, seen_ns, digest)


def digest_of(file: Any) -> bytes:
    """Return the blake2b digest of a file's bytes, 16 bytes long."""
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


def fault_of(path: str, entry: Entry) -> str:
    """Return why a file cannot be an image as far as its name and its facts tell, or ""."""
    if not entry.fault and path.lower().endswith(HEIC) and not heic_is_known():
        return NO_HEIC
    return entry.fault


def heic_is_known() -> bool:
    """Return whether pillow-heif is installed, and let Pillow read HEIC by it."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def many_pixels() -> Iterator[None]:
    """Let Pillow read images of up to MOST_PIXELS, and be silent on damaged metadata."""
    from PIL import Image

    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def decode(file: IO[bytes] | io.BytesIO, image_size: int | None, name: str = "") -> Picture:
    """Return the picture in a file; inside `many_pixels`.

    Raises UnreadableError where there is none.
    """
    from PIL import Image

    if name.lower().endswith(HEIC) and not heic_is_known():
        raise UnreadableError(NO_HEIC)
    try:
        with Image.open(file, formats=formats()) as image:
            pixels = image.width * image.height
            if pixels > MOST_PIXELS:
                raise UnreadableError(f"{image.width} x {image.height} pixels, {_TOO_MANY}")
            with _alone if pixels > LARGE else contextlib.nullcontext():
                return _decode(image, image_size)
    except UnreadableError:
        raise
    except Image.DecompressionBombError:
        raise UnreadableError(_TOO_MANY) from None
    except Exception as error:  # a damaged file may raise nearly anything
        raise UnreadableError(_reason(error)) from None


_TOO_MANY = f"more than {MOST_PIXELS // 1_000_000} megapixels"


def decode_bytes(content: bytes, image_size: int, name: str = "") -> Picture:
    """Return the picture in bytes; raise UnreadableError where there is none."""
    with many_pixels():
        return decode(io.BytesIO(content), image_size, name)


def _decode(image: Any, image_size: int | None) -> Picture:
    from jaxret.data.images import upright_square

    width, height = image.size
    turns = [_orientation(image)]
    pixels = NO_PIXELS
    if image_size is not None:
        pixels = upright_square(image, image_size)
        turns.append(_orientation(image))  # a PNG tells it only after its pixels
    if any(5 <= turn <= 8 for turn in turns):
        width, height = height, width
    return Picture(pixels, width, height, _taken(image))


def _orientation(image: Any) -> int:
    turn = image.getexif().get(_ORIENTATION, 1)
    return turn if isinstance(turn, int) else 1


def _taken(image: Any) -> str | None:
    with contextlib.suppress(Exception):  # damaged metadata
        exif = image.getexif()
        text = exif.get_ifd(_EXIF).get(_TAKEN) or exif.get(_MODIFIED)
        moment = datetime.datetime.strptime(str(text).strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S")
        return moment.isoformat()
    return None


def formats() -> tuple[str, ...]:
    """Return the formats that are read, as far as Pillow knows them here."""
    from PIL import Image

    Image.preinit()
    if not set(FORMATS) <= {*Image.OPEN, "HEIF"}:
        Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _reason(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image that Pillow can read"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if "truncated" in str(error).lower():
        return "truncated"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def _opened(full_path: str) -> Iterator[IO[bytes]]:
    """Open a regular file; a FIFO that took its place since it was listed does not block."""
    try:
        handle = os.open(full_path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UnreadableError("not a file")
            yield file
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
