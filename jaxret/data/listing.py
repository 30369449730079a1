"""What a folder of images holds, before an image is decoded: files, labels, split."""

import functools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxret.data.labels import find_labels, read_labels
from jaxret.data.sets import DataError
from jaxret.data.splits import hashed_fifth

TRAIN_FOLDER = "train"
TEST_FOLDERS = ("test", "val", "valid", "validation")
_LIKE_TRAIN = re.compile(r"(train(ing)?|trn)(s|set|data|images|split)?\d*")
_LIKE_TEST = re.compile(r"(test(ing)?|tst|val|valid|validation|eval)(s|set|data|images|split)?\d*")
# Folders of thumbnails and deleted files that systems make beside a user's own.
_SYSTEM_FOLDERS = {
    "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "system volume information",
    "__macosx", "lost+found",
}  # fmt: skip
# What jaxret writes into its own folders. Each begins with a key of ours, so that another program's
# file of the same name does not hide a folder of photos.
_OWN_FLAGS = "args.flags"
_OWN_HEADERS = ("metrics.json", "encoder.json", "index.json", "gallery.json")
_OWN_KEY = re.compile(rb'\s*\{\s*"(schema|format)"')
_OWN_PARTS = ("checkpoints", "encoder", "plots")
_REMEDY = "give each class a sub-folder with its images, such as PATH/cats/1.jpg"
_SHOWN = 5  # names in a note


class Listing(NamedTuple):
    """The files of a folder of images, with what is known of each.

    files: paths inside the folder with forward slashes, sorted by their parts.
    labels: of each file; several only where a CSV file gives several.
    test: whether a file is of the test part.
    several: whether any file has several labels.
    notes: how the split was made, and what was left out.
    """

    files: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    test: Bool[np.ndarray, " n"]
    several: bool
    notes: tuple[str, ...]


def list_folder(path: Path, labels: str | os.PathLike | None = None) -> Listing:
    """Return the files of a folder of images, with their labels and parts, by load_folder's rules.

    Raises DataError where the folder breaks a rule.
    """
    if not path.is_dir():
        raise DataError(f"there is no folder {path}")
    left_out: dict[str, str] = {}  # folder -> why
    tree = _tree(path, left_out)
    parts = _own_split(path, tree)
    if labels is None:
        files, classes = _by_folder(path, tree, parts)
        origin = "" if any(classes) else "labels: none"
    else:
        csv_file = find_labels(labels, path)
        files, classes = _by_csv(path, tree, parts, csv_file)
        origin = f"labels: {csv_file}"
    several = any(len(names) > 1 for names in classes)
    test, rule = _split(files, classes, parts, several)
    left_out |= _unused(tree, parts)
    notes = [origin, f"split: {rule}", _tell(left_out), _tell_loose(tree, files)]
    return Listing(files, classes, test, several, tuple(filter(None, notes)))


def looks_like_image(file: str) -> bool:
    """Return whether a file's name ends as that of an image that Pillow knows."""
    return os.path.splitext(file)[1].lower() in _extensions()


def sort_key(file: str) -> list[str]:
    """Return the parts of a path: sorted by them, a folder's files stay together."""
    return file.split("/")


Tree = dict[str, list[str]]  # sub-folder -> files below it; "" -> files beside the sub-folders
Files = tuple[str, ...]
Classes = tuple[tuple[str, ...], ...]
Parts = tuple[str, str] | None  # the folders of the training and the test images


def _own_split(path: Path, tree: Tree) -> Parts:
    """Return the folders of a split that the folder comes with; None where it comes without."""
    full = [folder for folder, files in tree.items() if folder and files]
    test = next((name for name in TEST_FOLDERS if name in tree), None)
    if TRAIN_FOLDER in tree and test:
        for folder in (TRAIN_FOLDER, test):
            if folder not in full:
                raise DataError(
                    f"{path}: {folder!r} is empty, so that {TRAIN_FOLDER!r} and {test!r} are no "
                    "split; fill it or remove it"
                )
        return TRAIN_FOLDER, test
    bare = {folder: re.sub(r"[^a-z0-9]", "", folder.casefold()) for folder in full}
    train_like = [folder for folder in full if _LIKE_TRAIN.fullmatch(bare[folder])]
    test_like = [folder for folder in full if _LIKE_TEST.fullmatch(bare[folder])]
    if train_like and test_like:
        raise DataError(
            f"{path}: {train_like[0]!r} and {test_like[0]!r} look like a split, but a split's "
            f"folders are named {TRAIN_FOLDER!r} and {' or '.join(map(repr, TEST_FOLDERS))}"
        )
    if len(full) == 1 and (train_like or test_like):
        raise DataError(
            f"{path}: {full[0]!r} looks like one part of a split, and the other part is missing; "
            f"name {path / full[0]} itself to have its images split"
        )
    return None


def _by_folder(path: Path, tree: Tree, parts: Parts) -> tuple[Files, Classes]:
    """Return the files that count and their classes, which are sub-folders; none in a flat one."""
    below = _below(tree, parts)
    depth = 1 if parts else 0
    in_classes = [file for file in below if file.count("/") > depth]
    if parts is None:
        pictures = any(map(looks_like_image, tree[""]))
        flat = pictures and not any(map(looks_like_image, in_classes))
        files = tree[""] if flat else in_classes
    else:
        divided = {file.split("/", 1)[0] for file in in_classes}
        flat = not divided
        if len(divided) == 1:
            raise DataError(
                f"{path}: {divided.pop()!r} has sub-folders of classes, and the other one of "
                f"{parts[0]!r} and {parts[1]!r} has none"
            )
        others = [repr(name) for name, files in tree.items() if name not in ("", *parts) and files]
        if flat and others:
            raise DataError(
                f"{path}: {parts[0]!r} and {parts[1]!r} beside {', '.join(others[:_SHOWN])} could "
                "be a split or classes; give the split's folders sub-folders of classes, or "
                "rename them"
            )
        files = below if flat else in_classes
    if not files:
        own = "; this is a folder that jaxret wrote" if _is_own(path) else ""
        raise DataError(f"{path}: no sub-folder holds a file{own}; {_REMEDY}")
    classes = tuple(() if flat else (file.split("/")[depth],) for file in files)
    return tuple(files), classes


def _by_csv(path: Path, tree: Tree, parts: Parts, csv_file: Path) -> tuple[Files, Classes]:
    """Return the files that a CSV file of labels names, and their labels."""
    labels = read_labels(csv_file)
    present = {file for files in tree.values() for file in files}
    unknown = [file for file in labels if file not in present]
    if unknown:
        raise DataError(
            f"{csv_file}: {len(unknown)} of {len(labels)} files are not in {path}, the first is "
            f"{unknown[0]!r}"
        )
    candidates = _below(tree, parts) + ([] if parts else tree[""])
    missing = [file for file in candidates if file not in labels and looks_like_image(file)]
    if missing:
        raise DataError(
            f"{csv_file}: {len(missing)} images of {path} have no line, the first is "
            f"{missing[0]!r}; an empty label says that an image has none"
        )
    files = tuple(sorted((file for file in candidates if file in labels), key=sort_key))
    return files, tuple(labels[file] for file in files)


def _split(
    files: Files, classes: Classes, parts: Parts, several: bool
) -> tuple[Bool[np.ndarray, " n"], str]:
    """Return which files are of the test part, and the rule in words."""
    if parts is not None:
        rule = f"the folder's own, {parts[0]!r} and {parts[1]!r}"
        return np.array([file.startswith(f"{parts[1]}/") for file in files], bool), rule
    single = [names[0] if names and not several else "" for names in classes]
    ids = {name: i for i, name in enumerate(sorted(set(single)))}
    labels = np.array([ids[name] for name in single], np.int32)
    share = "a fifth of each class" if len(ids) > 1 else "a fifth of the images"
    rule = f"about {share}, chosen by a hash of the file names, is the test part"
    return hashed_fifth(files, labels), rule


def _below(tree: Tree, parts: Parts) -> list[str]:
    return [file for folder in parts or filter(None, tree) for file in tree[folder]]


def _unused(tree: Tree, parts: Parts) -> dict[str, str]:
    """Return the sub-folders of which no file is used, and why."""
    unused = {folder: "empty" for folder, files in tree.items() if not files}
    if parts:
        others = tree.keys() - {*parts, *unused}
        unused |= dict.fromkeys(sorted(others), f"not {parts[0]!r} or {parts[1]!r}")
    unused.pop("", None)
    return unused


def _tell(left_out: dict[str, str]) -> str:
    if not left_out:
        return ""
    shown = [f"{name!r} ({why})" for name, why in list(left_out.items())[:_SHOWN]]
    if len(left_out) > _SHOWN:
        shown.append(f"and {len(left_out) - _SHOWN} more")
    return f"left out: {', '.join(shown)}"


def _tell_loose(tree: Tree, files: Files) -> str:
    """Return a note on images that lie where no class is read."""
    used = set(files)
    loose = [file for file in tree[""] if file not in used and looks_like_image(file)]
    if not loose:
        return ""
    return f"left out: images beside the sub-folders: {len(loose)}, such as {loose[0]!r}"


def _tree(path: Path, left_out: dict[str, str]) -> Tree:
    """Return every file of the folder; put the folders that are not entered into left_out."""
    top = os.path.realpath(path)
    own = _is_own(path)
    tree: Tree = {"": []}
    for entry in _visible(path):
        if not entry.is_dir():
            if _is_file(entry):
                tree[""].append(entry.name)
        elif own and entry.name in _OWN_PARTS:
            left_out[entry.name] = "written by jaxret"
        elif reason := _unwanted(entry):
            left_out[entry.name] = reason
        else:
            files = _walk(path, entry, {top}, left_out)
            tree[entry.name] = [file.relative_to(path).as_posix() for file in files]
    return tree


def _walk(root: Path, folder: Path, seen: set[str], left_out: dict[str, str]) -> Iterator[Path]:
    """Yield the files below a folder. A folder in seen is not entered again: links may loop."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in _visible(folder):
        if not entry.is_dir():
            if _is_file(entry):
                yield entry
        elif reason := _unwanted(entry):
            left_out[entry.relative_to(root).as_posix()] = reason
        else:
            yield from _walk(root, entry, seen, left_out)


def _is_file(entry: Path) -> bool:
    return entry.is_file() or not entry.exists()  # a broken link is reported as unreadable


def _unwanted(folder: Path) -> str:
    """Return why a folder is not one of images; "" where it may be one."""
    if folder.name.casefold() in _SYSTEM_FOLDERS:
        return "a system's own"
    return "written by jaxret" if _is_own(folder) else ""


def _is_own(folder: Path) -> bool:
    """Return whether jaxret wrote a folder: a run's, an encoder's, a gallery's or an index's."""
    if (folder / _OWN_FLAGS).is_file():
        return True
    for name in _OWN_HEADERS:
        try:
            with open(folder / name, "rb") as file:
                if _OWN_KEY.match(file.read(200)):
                    return True
        except OSError:
            continue
    return False


def _visible(folder: Path) -> Iterable[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error


@functools.cache
def _extensions() -> frozenset[str]:
    from PIL import Image

    return frozenset(Image.registered_extensions())
