"""The JSON documents that `jaxret` prints and serves: schema 1, in one place.

Each document also has "schema": 1. A text whose bytes are no UTF-8 is shown with replacement
characters, and its bytes are beside it as `NAME_base64`.

`revision` grows whenever an image is added, removed, changed or renamed: answers of one revision
are of one state of the index. A list that is continued with another revision is refused (409).
"""

import datetime
import os
from collections.abc import Callable
from typing import Any, NotRequired, TypedDict

from jaxret.index.groups import Duplicates
from jaxret.index.query import Found
from jaxret.index.reader import Image


class IndexDocument(TypedDict):
    """Which index an answer is from; one of bits and dims is there."""

    path: str
    root: str  # the folder of photos
    model: str
    digest: str  # of the encoder
    bits: NotRequired[int]
    dims: NotRequired[int]
    metric: str  # "hamming" or "squared euclidean"
    generation: int  # of the codes: grows when some are added, changed or removed
    images: int


class ImageDocument(TypedDict):
    """One image. The server gives paths below the root, the command from the current folder."""

    id: int
    path: str
    file: str  # absolute
    distance: NotRequired[int | float]
    label: str | None
    width: int  # pixels, upright
    height: int
    bytes: int
    taken: str | None  # local time of the camera, ISO 8601
    modified: str  # local time of the file, ISO 8601
    digest: str  # of the file's bytes: BLAKE2b, 16 bytes, hex
    state: str  # "ok", "missing" or "changed" since indexing
    thumb: NotRequired[str]  # server: the address of its thumbnail


class QueryDocument(TypedDict):
    """One image that is searched by; "-" is the name of bytes."""

    name: str
    file: str | None
    id: int | None
    negative: bool


class SearchDocument(TypedDict):
    """The answer to a search: `jaxret search --json`, /api/search."""

    index: IndexDocument
    query: list[QueryDocument]
    metric: str
    bits: NotRequired[int]
    dims: NotRequired[int]
    searched: int  # images that the filters left
    within: int  # of these, how many are within the distance that was asked for
    results: list[ImageDocument]  # ascending distances; equal ones by id
    revision: NotRequired[int]  # server
    took_ms: NotRequired[float]  # server


class GroupDocument(TypedDict):
    """Images that are nearly the same, around the one that is kept."""

    keeper: ImageDocument
    reason: str
    members: list[ImageDocument]


class DuplicatesDocument(TypedDict):
    """Groups: `jaxret duplicates --json`, /api/duplicates."""

    index: IndexDocument
    radius: int | float
    exact: bool  # only equal bytes count
    calibrated: bool  # the radius is the index's own
    groups: list[GroupDocument]
    searched: NotRequired[int]  # server
    total: NotRequired[int]  # server: groups in all
    next: NotRequired[int | None]  # server: what `after` takes for the next page
    revision: NotRequired[int]  # server


class CountDocument(TypedDict):
    """A label or a folder, and how many images it has."""

    name: str
    images: int


class InfoDocument(TypedDict):
    """What the page begins with: /api/info."""

    generation: int
    revision: int
    images: int
    bits: NotRequired[int]
    dims: NotRequired[int]
    metric: str
    model: str
    root: str
    labels: list[CountDocument]
    folders: list[CountDocument]
    updated: str | None  # when the index was last changed, local time, ISO 8601
    skipped: int  # files that cannot be read
    ready: bool  # whether the encoder is loaded, so that an upload is answered at once


class ItemsDocument(TypedDict):
    """A page of images, the newest first: /api/items."""

    images: list[ImageDocument]
    next: str | None  # what `after` takes for the next page
    revision: int


class ItemDocument(TypedDict):
    """One image: /api/items/ID."""

    image: ImageDocument
    revision: int


class IgnoredDocument(TypedDict):
    """What /api/ignore has written: that these images are no duplicates of each other."""

    ids: list[int]


class Problem(TypedDict):
    """Why a request was refused, for programs and for people."""

    code: str
    message: str


class ErrorDocument(TypedDict):
    """A request that was refused; the status says in what way."""

    error: Problem


def image_document(image: Image, path: str) -> ImageDocument:
    """Return the document of an image that is shown by a path."""
    described: dict[str, Any] = {"id": image.id, "path": path, "file": image.file}
    if image.distance is not None:
        described["distance"] = image.distance
    names = ("label", "width", "height", "bytes", "taken", "digest", "state")
    described |= {name: getattr(image, name) for name in names}
    return described | {"modified": iso(image.modified)}  # pyright: ignore[reportReturnType]


def search_document(found: Found, show: Callable[[Image], ImageDocument]) -> SearchDocument:
    """Return the document of a search; `show` returns that of each image."""
    queries = [
        {
            "name": query.name,
            "file": query.file,
            "id": query.ids[0] if query.ids else None,
            "negative": query.negative,
        }
        for query in found.queries
    ]
    unit = "bits" if "bits" in found.index else "dims"
    document = {"index": found.index, "query": queries, "metric": found.index["metric"]}
    return document | {  # pyright: ignore[reportReturnType]
        unit: found.index[unit],
        "searched": found.searched,
        "within": found.within,
        "results": [show(image) for image in found.results],
    }


def duplicates_document(
    found: Duplicates, show: Callable[[Image], ImageDocument], part: slice = slice(None)
) -> DuplicatesDocument:
    """Return the document of a part of the groups; `show` returns that of each image."""
    groups: list[GroupDocument] = [
        {
            "keeper": show(group.keeper),
            "reason": group.reason,
            "members": [show(image) for image in group.members],
        }
        for group in found.groups[part]
    ]
    described: Any = found.index
    return {
        "index": described,
        "radius": 0 if found.radius is None else found.radius,
        "exact": found.radius is None,
        "calibrated": found.calibrated,
        "groups": groups,
    }


def iso(seconds: float) -> str:
    """Return a time since 1970 as local time, ISO 8601."""
    return datetime.datetime.fromtimestamp(seconds).isoformat(timespec="seconds")


def text_of(path: str) -> str:
    """Return a path as text that is valid, whatever its bytes are."""
    return os.fsencode(path).decode("utf-8", "replace")
