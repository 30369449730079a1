"""What the words of a command line name: an index, queries, folders."""

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from jaxret import index
from jaxret.index.places import CATALOGUE


def given(options: Namespace) -> str | None:
    """Return the index that --index or JAXRET_INDEX names."""
    return options.index or os.environ.get("JAXRET_INDEX") or None


def place_to_write(options: Namespace) -> str | None:
    """Return where `index` writes: a JAXRET_INDEX of another folder is not taken over."""
    place = given(options)
    if options.index or place is None or not (Path(place) / CATALOGUE).is_file():
        return place
    from jaxret.index.catalogue import Catalogue
    from jaxret.index.reader import root_of

    with Catalogue(Path(place)) as catalogue:
        root = root_of(Path(os.path.realpath(place)), catalogue.facts())
    if os.path.realpath(options.photos) != str(root):
        raise ValueError(
            f"JAXRET_INDEX is the index of {root}, not of {options.photos}; name an index by "
            "--index DIR"
        )
    return place


def find(options: Namespace, near: list[str]) -> Path:
    """Return the index that is meant: the one that is named, else the nearest to files."""
    files = [name for name in near if name != "-" and not _id_of(name)]
    try:
        return index.find_index(files, given(options))
    except index.PhotoIndexError:
        absent = [name for name in files if not os.path.lexists(name)]
        if absent:  # a word, or a name with a mistake, is why no index was found
            from jaxret.index.query import regular_file

            regular_file(absent[0])
        raise


def _id_of(name: str) -> str | None:
    rest = name.removeprefix("id:")
    return rest if rest != name and rest.isdecimal() else None


def check_one_stdin(names: list[str]) -> None:
    """Raise ValueError where more than one name means standard input, which is read once."""
    if names.count("-") > 1:
        raise ValueError("- is named twice, but standard input holds one image; name a file")


def query(name: str) -> str | bytes | int:
    """Return what a QUERY means: bytes of stdin, an id, a file."""
    if name == "-":
        return sys.stdin.buffer.read()
    number = _id_of(name)
    return name if number is None else int(number)


def filters(options: Namespace, place: Path) -> Any:
    """Return the Filters that options are, their folders as paths below the root."""
    from jaxret.index.query import folder_below

    root = _root(place) if options.folders else Path()
    return index.Filters(
        tuple(folder_below(root, folder) for folder in options.folders),
        tuple(getattr(options, "labels", ())),
        getattr(options, "newer", None),
        getattr(options, "older", None),
        getattr(options, "min_size", None),
    )


def _root(place: Path) -> Path:
    from jaxret.index.catalogue import Catalogue
    from jaxret.index.reader import root_of

    with Catalogue(place) as catalogue:
        return root_of(place, catalogue.facts())


def folders_without_images(options: Namespace, place: Path, filters: Any) -> list[str]:
    """Return the folders of --in, as they are named, that no indexed image lies under."""
    from jaxret.index.reader import has_image_below, view

    if not options.folders:
        return []
    with view(place) as seen:
        return [
            name
            for name, folder in zip(options.folders, filters.folders, strict=True)
            if not has_image_below(seen, folder)
        ]


def keep(rules: list[str], place: Path) -> list[str]:
    """Return keep rules with their folders as paths below the root, as those of --in are."""
    from jaxret.index.groups import IN
    from jaxret.index.query import folder_below

    return [
        f"{IN}{folder_below(_root(place), rule.removeprefix(IN)) or '.'}"
        if rule.startswith(IN) and rule != IN
        else rule
        for rule in rules
    ]
