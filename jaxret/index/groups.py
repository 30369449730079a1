"""Groups of images that are nearly the same, each around the one that is kept.

Images are taken in the order of the keep rules. The first that is free is a keeper, and every free
image within the radius of it joins its group. So a group never chains: each member is within the
radius of its keeper, and who drops all members loses nothing farther than that.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int64, Num

from jaxret.index import calibrate, snapshot
from jaxret.index.places import PhotoIndexError, Place
from jaxret.index.reader import (
    Filters,
    Image,
    View,
    check_distance,
    images_of,
    mask_of,
    view,
)

RULES = ("largest", "oldest", "newest", "shortest")
IN = "in:"
IGNORED = "not-duplicates.txt"
TILE = 256  # keepers whose distances are computed at once
MANY = 30_000  # images; more are compared on the device

Pairs = set[frozenset[str]]  # digests of images that are not duplicates of each other


class Group(NamedTuple):
    """A keeper, why it is kept, and its members by distance."""

    keeper: Image
    reason: str
    members: list[Image]


class Duplicates(NamedTuple):
    """Groups of an index. radius is None where only equal bytes count."""

    index: dict[str, Any]
    radius: float | int | None
    calibrated: bool
    searched: int
    groups: list[Group]


def duplicates(
    index: Path,
    *,
    max_distance: float | int | None = None,
    exact: bool = False,
    keep: Sequence[str] = (),
    filters: Filters | None = None,
    ignore: Place | None = None,
) -> Duplicates:
    """Return groups of images that are nearly the same. No file is touched.

    Args:
        index: its folder.
        max_distance: the radius; None for the largest with at most one expected pair by chance, as
            far as altered copies reach.
        exact: only equal bytes count; needs no distance.
        keep: rules in turn: largest (pixels, then bytes), oldest, newest (taken), shortest (path),
            or in:FOLDER, a path below the root, whose images are kept first. The path settles
            ties. () is largest.
        filters: which images are compared.
        ignore: a file of decisions: each line holds digests of images that are not duplicates of
            each other, and anything after a #. None for not-duplicates.txt in the index, if it is
            there.

    Returns:
        Duplicates.

    Raises:
        PhotoIndexError: for an unknown rule, a folder in:FOLDER without images, a radius below 0,
            or an ignore file that cannot be read.
    """
    rules = _checked_rules(keep)
    check_distance(max_distance)
    if exact and max_distance is not None:
        raise PhotoIndexError("--exact and --max-distance exclude each other")
    pairs = read_ignored(index / IGNORED if ignore is None else ignore, ignore is not None)
    with view(index) as seen:
        _check_folders(seen, rules)
        mask = mask_of(seen, filters or Filters())
        rows = np.arange(len(seen.snapshot.ids)) if mask is None else np.flatnonzero(mask)
        images = [
            image
            for image in images_of(seen, seen.snapshot.ids[rows].tolist())
            if image.state != "missing"
        ]
        order = sorted(images, key=lambda image: _order(image, rules))
        calibrated = max_distance is None and not exact
        radius = default_radius(seen) if calibrated else max_distance
        near = () if radius is None else _near_groups(seen, order, radius, pairs)
        groups = [
            Group(keeper, _reason(keeper, rules), members)
            for keeper, members in (_exact_groups(order) if exact else near)
        ]
        return Duplicates(
            seen.describe(), None if exact else radius, calibrated, len(images), groups
        )


def default_radius(seen: View) -> float | int:
    """Return the radius that an index's calibration gives; see `calibrate.default_radius`."""
    rows = seen.snapshot
    calibration = seen.facts.get("calibration")
    if calibration is None:
        calibration = {"random": calibrate.random_distances(rows)}
    return calibrate.default_radius(calibration, rows.kind, rows.width, len(rows.ids))


def read_ignored(file: Place, needed: bool) -> Pairs:
    """Return the pairs of digests that a file says are no duplicates."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        if needed:
            raise PhotoIndexError(f"there is no file {file}") from None
        return set()
    except (OSError, UnicodeDecodeError) as error:
        raise PhotoIndexError(f"{file}: cannot be read ({error})") from error
    pairs = set()
    for number, line in enumerate(text.splitlines(), 1):
        digests = line.partition("#")[0].split()
        if any(len(digest) != 32 or set(digest) - set("0123456789abcdef") for digest in digests):
            raise PhotoIndexError(f"{file}, line {number}: digests of 32 hex digits are expected")
        pairs |= {frozenset((a, b)) for a in digests for b in digests if a != b}
    return pairs


def _checked_rules(keep: Sequence[str]) -> tuple[str, ...]:
    rules = tuple(keep) or (RULES[0],)
    for rule in rules:
        if rule not in RULES and not (rule.startswith(IN) and rule != IN):
            raise PhotoIndexError(f"--keep must be {', '.join(RULES)} or {IN}FOLDER, got {rule!r}")
    return tuple(f"{IN}{_folder_of(rule)}" if rule.startswith(IN) else rule for rule in rules)


def _folder_of(rule: str) -> str:
    folder = os.path.normpath(rule.removeprefix(IN))
    return "" if folder in (".", "/") else folder


def _is_in(image: Image, rule: str) -> bool:
    folder = rule.removeprefix(IN)
    return not folder or image.path.startswith(f"{folder}/")


def _check_folders(seen: View, rules: tuple[str, ...]) -> None:
    """Refuse a folder that is misspelt: its photos would be listed as those that may go."""
    for rule in rules:
        if rule.startswith(IN):
            mask = mask_of(seen, Filters((rule.removeprefix(IN),)))
            if mask is not None and not mask.any():
                raise PhotoIndexError(
                    f"--keep {rule}: the index has no image there; a folder of {seen.root} is "
                    "expected"
                )


def _order(image: Image, rules: tuple[str, ...]) -> tuple:
    keys = []
    for rule in rules:
        if rule.startswith(IN):
            keys.append(not _is_in(image, rule))
        elif rule == "largest":
            keys += [-image.width * image.height, -image.bytes]
        elif rule == "shortest":
            keys.append(len(image.path))
        else:
            moment = _moment(image)
            keys.append(moment if rule == "oldest" else -moment)
    return (*keys, image.path)


def _moment(image: Image) -> float:
    """Return when a photo was taken, or else changed, in seconds."""
    import datetime

    if image.taken is None:
        return image.modified
    moment = datetime.datetime.fromisoformat(image.taken)
    try:
        return moment.timestamp()
    except ValueError:  # the first or last year of the calendar, which means a date that is not set
        return image.modified


def _reason(image: Image, rules: tuple[str, ...]) -> str:
    reasons = {
        "largest": f"{image.width}x{image.height}, {image.bytes} bytes",
        "shortest": f"{len(image.path)} characters",
        "oldest": image.taken or "by its date of change",
        "newest": image.taken or "by its date of change",
    }
    for rule in rules:
        if not rule.startswith(IN):
            return f"{rule}: {reasons[rule]}"
        if _is_in(image, rule):
            return f"in {rule.removeprefix(IN) or '.'}"
    return "first path"


Groups = Iterator[tuple[Image, list[Image]]]


def _exact_groups(order: Sequence[Image]) -> Groups:
    by_digest: dict[str, list[Image]] = {}
    for image in order:
        by_digest.setdefault(image.digest, []).append(image)
    for keeper, *members in by_digest.values():
        if members:
            yield keeper, [member._replace(distance=0) for member in members]


def _near_groups(seen: View, order: Sequence[Image], radius: float | int, pairs: Pairs) -> Groups:
    if not order:
        return
    ids = np.array([image.id for image in order], np.int64)
    rows = seen.snapshot._replace(
        ids=ids, values=np.asarray(seen.snapshot.values[seen.snapshot.rows_of(ids)])
    )
    near = _on_device if len(ids) > MANY else _on_host
    free = np.ones(len(ids), bool)
    start = 0
    while start < len(ids):
        tile = start + np.flatnonzero(free[start : start + TILE * 4])[:TILE]
        if not len(tile):
            start += TILE * 4
            continue
        for row, (others, distances) in zip(tile, near(rows, tile, radius), strict=True):
            if not free[row]:
                continue
            members = []
            free[row] = False
            for other, distance in zip(others.tolist(), distances.tolist(), strict=True):
                pair = frozenset((order[row].digest, order[other].digest))
                if free[other] and pair not in pairs:
                    free[other] = False
                    members.append(order[other]._replace(distance=distance))
            if members:
                yield order[row], sorted(members, key=lambda image: (image.distance, image.path))
        start = int(tile[-1]) + 1


Near = Iterator[tuple[Int64[np.ndarray, " m"], Num[np.ndarray, " m"]]]


def _on_host(rows: snapshot.Snapshot, tile: Int[np.ndarray, " t"], radius: float | int) -> Near:
    """Return, for each row of a tile, the rows within the radius and their distances."""
    for row in tile:
        later = rows._replace(ids=rows.ids[row:], values=rows.values[row:])
        distances = snapshot.distances(later, rows.values[row])
        within = np.flatnonzero(distances <= radius)
        yield within + row, distances[within]


def _on_device(rows: snapshot.Snapshot, tile: Int[np.ndarray, " t"], radius: float | int) -> Near:
    from jaxret.gallery import Gallery

    if rows.kind == "codes":
        gallery = Gallery.from_codes(rows.values, rows.width)
    else:
        gallery = Gallery.from_vectors(rows.values)
    found = gallery.range_search(rows.values[tile], radius)
    for number in range(len(tile)):
        part = slice(found.starts[number], found.starts[number + 1])
        yield np.asarray(found.indices[part]), np.asarray(found.distances[part])


def ignore_line(images: Sequence[Image]) -> str:
    """Return the line by which an ignore file says that images are no duplicates."""
    names = ", ".join(os.fsencode(image.path).decode(errors="replace") for image in images)
    return f"{' '.join(image.digest for image in images)}  # {' '.join(names.split())}\n"
