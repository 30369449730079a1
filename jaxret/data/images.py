"""Images of any size and colour mode, made square: files that Pillow reads, and arrays."""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8

from jaxret.data.sets import DataError, whole_number

MOST_PIXELS = 4096  # a side; larger ones are a slip of the keyboard
# What undoes each EXIF orientation; the numbers are those of PIL.Image.Transpose.
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


def read_image(path: str | os.PathLike, image_size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Return one image file as a square in RGB, upright, of the first frame.

    The shorter side is resized to image_size (bicubic, antialiased) and the centre is kept, as
    `resize_images` does it. Transparent parts show white. Grey of 16 bits is divided by 257. Wider
    grey is scaled from the first of the ranges 0..1 (floats only), 0..255 (floats only) and
    0..65535 that holds all of its values, or else from its own smallest and largest one. A large
    JPEG is decoded at a reduced scale, which changes it by less than a grey level on average.

    Raises DataError with the path where the file is not an image that Pillow can read.
    """
    image_size = check_image_size(image_size)
    path = expand(path)
    image = try_read(path, image_size)
    if isinstance(image, str):
        raise DataError(f"{path}: {image}")
    return image


def resize_images(
    images: UInt8[np.ndarray, "n h w c"], image_size: int
) -> UInt8[np.ndarray, "n s s c"]:
    """Return images as squares of image_size pixels a side, by the rule of `read_image`.

    The shorter side is resized to image_size (bicubic, antialiased) and the centre is kept. Images
    have 1 channel (grey) or 3 (RGB), and keep them. Images of the right size are returned as they
    are, without a copy.
    """
    image_size = check_image_size(image_size)
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            "images must be uint8 [n h w c] of 1 or 3 channels, got "
            f"{images.dtype} {list(images.shape)}"
        )
    n, height, width, channels = images.shape
    if height == width == image_size:
        return images
    if n and not height * width:
        raise DataError(f"images must have pixels, got {height} x {width}")
    from PIL import Image

    resized = np.empty((n, image_size, image_size, channels), np.uint8)

    def resize(row: int) -> None:
        image = Image.fromarray(images[row, ..., 0] if channels == 1 else images[row])
        square = np.asarray(_square(image, image.size, image_size))
        resized[row] = square.reshape(resized.shape[1:])

    run_in_threads(resize, range(n))
    return resized


def read_files(
    root: Path, files: Sequence[str], image_size: int
) -> tuple[UInt8[np.ndarray, "n s s 3"], list[str | None]]:
    """Return the images of files below a folder, and of each why it could not be read, or None.

    A file that could not be read has any pixels.
    """
    images = np.empty((len(files), image_size, image_size, 3), np.uint8)

    def read(row: int) -> str | None:
        image = try_read(root / files[row], image_size)
        if isinstance(image, str):
            return image
        images[row] = image
        return None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on damaged metadata
        return images, run_in_threads(read, range(len(files)))


def try_read(path: Path, image_size: int) -> UInt8[np.ndarray, "s s 3"] | str:
    """Return the image of a file, or why there is none, in a few words."""
    try:
        return _read(path, image_size)
    except Exception as error:  # a damaged file may raise nearly anything
        name = type(error).__name__
        if name == "UnidentifiedImageError":
            return "not an image that Pillow can read"
        return (getattr(error, "strerror", None) or str(error) or name).splitlines()[0]


def check_image_size(image_size: Any) -> int:
    """Return image_size as an int; raise DataError where it is none, or out of range."""
    return whole_number(image_size, "image_size", 1, MOST_PIXELS)


def expand(path: Any) -> Path:
    """Return a path with ~ replaced by the home folder; raise DataError where it is no path."""
    try:
        return Path(os.fsdecode(path)).expanduser()
    except TypeError:
        raise DataError(f"a path must be a string or a Path, got {path!r}") from None
    except RuntimeError as error:  # no such home folder
        raise DataError(f"{path}: {error}") from None


def run_in_threads(function: Callable, arguments: Sequence) -> list:
    """Return the function's value for each argument; Pillow works outside Python's lock."""
    workers = min(num_cpus(), len(arguments))
    if workers <= 1:
        return [function(argument) for argument in arguments]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, arguments))


def num_cpus() -> int:
    """Return how many CPUs this process may use, which a container makes fewer than it has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(path: Path, image_size: int) -> UInt8[np.ndarray, "s s 3"]:
    from PIL import Image

    with Image.open(path) as image:
        # Above the limit Pillow only warns, and raises at twice the limit. A thread cannot turn the
        # warning into an error without changing the warnings of all threads.
        if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise DataError(f"{image.width} x {image.height} pixels could be a decompression bomb")
        return upright_square(image, image_size)


def upright_square(image: Any, image_size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Return an image that Pillow has opened, and not decoded yet, by the rule of `read_image`."""
    from PIL import ExifTags, Image

    # A JPEG is decoded at the smallest scale above twice the size wanted: 10 times as fast for
    # a photograph, and within a grey level of the full scale.
    draft = image.draft(None, (2 * image_size, 2 * image_size))
    image.load()  # only now is all metadata read; a TIFF is turned upright here
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    # The last row and column of a draft may hold a part of a pixel.
    _, (_, _, width, height) = draft or (None, (0, 0, *image.size))
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_to_bytes(np.asarray(image)))
    # A mode is changed only if it has to be: each copy of a large image would take a gigabyte.
    mode = "RGBA" if image.has_transparency_data else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    image = _square(image, (width, height), image_size)
    if mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return np.asarray(image if turn is None else image.transpose(turn))


def _square(image: Any, size: tuple[float | int, float | int], image_size: int) -> Any:
    """Return the centre square of a Pillow image's first `size` pixels, resized."""
    from PIL import Image

    width, height = size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((image_size, image_size), Image.Resampling.BICUBIC, box=box)


def _to_bytes(grey: Num[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Return grey values wider than a byte, scaled as read_image says."""
    whole = np.issubdtype(grey.dtype, np.integer)
    grey = np.where(np.isfinite(grey), grey, 0).astype(np.float64)
    low, high = grey.min(), grey.max()
    for top in (65535,) if whole else (1, 255, 65535):
        if low >= 0 and high <= top:
            low, high = 0, top
            break
    scale = 255 / (high - low) if high > low else 0
    return np.rint((grey - low) * scale).astype(np.uint8)
