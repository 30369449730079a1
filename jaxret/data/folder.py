"""A folder of images with one sub-folder per class, in any format that Pillow reads."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8

from jaxret.data.sets import DataError, ImageSet
from jaxret.data.splits import hashed_fifth

_REMEDY = "give each class a sub-folder with its images, such as PATH/cats/1.jpg"
# What undoes each EXIF orientation; the numbers are those of PIL.Image.Transpose.
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
_TEST_FOLDERS = ("test", "val", "valid", "validation")


class SkippedImages(UserWarning):
    """Files of an image folder that could not be used; reasons maps each to what is wrong."""

    def __init__(self, path: Path, of: int, reasons: dict[str, str]):
        self.reasons = reasons
        shown = [f"{name!r} ({reason})" for name, reason in list(reasons.items())[:10]]
        if len(reasons) > len(shown):
            shown.append(f"and {len(reasons) - len(shown)} more")
        super().__init__(f"{path}: {len(reasons)} of {of} files skipped: {', '.join(shown)}")


def load_folder(path: Path, split: str, image_size: int) -> ImageSet:
    """One split of a folder of images; its sub-folders, sorted by name, are the classes.

    A class holds every file below its sub-folder, at any depth and through links. Names that begin
    with a dot are left out, and so are empty sub-folders. hashed_fifth of the path inside the
    folder chooses the test images; but a folder of `train` and `test` (or `val`), each with
    sub-folders of its own, keeps that split. A SkippedImages warning tells what cannot be decoded.
    Every image becomes RGB of image_size x image_size: see read_image.
    """
    if not path.is_dir():
        raise DataError(f"there is no folder {path}")
    root, files, class_names = _files_of_split(path, split)
    if not class_names:
        raise DataError(f"{path}: no sub-folder holds a file; {_REMEDY}")
    if not files:
        raise DataError(f"{path}: no image for {split!r}: no class has two files")
    with warnings.catch_warnings():
        _quiet_pillow()
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
            results = list(pool.map(lambda file: _try_read(root / file, image_size), files))

    used = [i for i, result in enumerate(results) if not isinstance(result, str)]
    reasons = {files[i]: result for i, result in enumerate(results) if isinstance(result, str)}
    if reasons:
        warnings.warn(SkippedImages(root, len(files), reasons), stacklevel=2)
    if not used:
        raise DataError(f"{path}: none of the {len(files)} files of {split!r} is a readable image")
    ids = {name: i for i, name in enumerate(class_names)}
    labels = [ids[_class_of(files[i])] for i in used]
    images = np.stack([results[i] for i in used])
    return ImageSet(images, np.array(labels, np.int32), class_names)


def read_image(path: Path, image_size: int) -> UInt8[np.ndarray, "s s 3"]:
    """One image file as RGB: turned upright, the first frame, resized and cropped to a square.

    Size: the shorter side is resized to image_size (bicubic, antialiased) and the centre is kept.
    Transparent parts show white. Grey of 16 bits is divided by 257. Wider grey is scaled from the
    first of the ranges 0..1 (floats only), 0..255 (floats only) and 0..65535 that holds all of its
    values, or else from its own smallest and largest one.
    """
    from PIL import ExifTags, Image

    with Image.open(path) as image:
        # A JPEG is decoded at the smallest scale above twice the size wanted: 10 times as fast for
        # a photograph, and within a grey level of the full scale.
        drafted = image.draft(None, (2 * image_size, 2 * image_size))
        image.load()  # only now is all metadata read; a TIFF is turned upright here
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
        # The last row and column of a draft may hold a part of a pixel.
        _, (_, _, width, height) = drafted or (None, (0, 0, *image.size))
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            image = Image.fromarray(_to_bytes(np.asarray(image)))
        elif image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        image = image.convert("RGB").resize(
            (image_size, image_size),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
        )
    return np.asarray(image if turn is None else image.transpose(turn))


def _files_of_split(path: Path, split: str) -> tuple[Path, list[str], tuple[str, ...]]:
    """The folder to read from, the split's files inside it, and the names of all classes."""
    own = _own_split(path)
    if own:
        files = {name: _class_files(path / folder) for name, folder in own.items()}
        return path / own[split], files[split], _class_names(files["train"] + files["test"])
    files = _class_files(path)
    class_names = _class_names(files)
    labels = np.array([class_names.index(_class_of(file)) for file in files], np.int32)
    test = hashed_fifth(files, labels)
    chosen = test if split == "test" else ~test
    return path, [files[i] for i in np.flatnonzero(chosen)], class_names


def _own_split(path: Path) -> dict[str, str] | None:
    """The sub-folders of the splits, where the folder is divided already."""
    names = [folder.name for folder in _sub_folders(path)]
    test = [name for name in _TEST_FOLDERS if name in names]
    others = set(names) - {"train", *_TEST_FOLDERS}
    if "train" in names and test and not others and all(_sub_folders(path / n) for n in names):
        return {"train": "train", "test": test[0]}
    return None


def _class_files(path: Path) -> list[str]:
    """Every file of every class, as a path inside the folder with forward slashes."""
    top = os.path.realpath(path)
    return [
        file.relative_to(path).as_posix()
        for folder in _sub_folders(path)
        for file in _walk(folder, seen={top})
    ]


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    """The files below a folder; a folder that was seen is not entered again, so links may loop."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _walk(entry, seen)
        elif entry.is_file() or not entry.exists():  # a broken link is reported as unreadable
            yield entry


def _sub_folders(path: Path) -> list[Path]:
    return [entry for entry in _visible(path) if entry.is_dir()]


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error


def _class_of(file: str) -> str:
    return file.split("/", 1)[0]


def _class_names(files: list[str]) -> tuple[str, ...]:
    return tuple(sorted({_class_of(file) for file in files}))


def _quiet_pillow() -> None:
    """Let no warning of Pillow through, and make a decompression bomb an error."""
    from PIL import Image

    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _try_read(path: Path, image_size: int) -> UInt8[np.ndarray, "s s 3"] | str:
    """The image, or why there is none."""
    try:
        return read_image(path, image_size)
    except Exception as error:  # a damaged file may raise nearly anything
        name = type(error).__name__
        if name == "UnidentifiedImageError":
            return "not an image that Pillow can read"
        return (getattr(error, "strerror", None) or str(error) or name).splitlines()[0]


def _to_bytes(grey: Num[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Grey values wider than a byte, scaled as read_image says."""
    whole = np.issubdtype(grey.dtype, np.integer)
    grey = np.where(np.isfinite(grey), grey, 0).astype(np.float64)
    low, high = grey.min(), grey.max()
    for top in (65535,) if whole else (1, 255, 65535):
        if low >= 0 and high <= top:
            low, high = 0, top
            break
    scale = 255 / (high - low) if high > low else 0
    return np.rint((grey - low) * scale).astype(np.uint8)
