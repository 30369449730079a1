"""An index: a folder of photos kept in step with a gallery of their codes.

Names are imported when they are first used: what reads an index needs no JAX.
"""

from typing import TYPE_CHECKING

from jaxret.lazy import getter

if TYPE_CHECKING:
    from jaxret.index.groups import Duplicates, Group, duplicates
    from jaxret.index.places import PhotoIndexError, find_index
    from jaxret.index.query import Found, Query, search
    from jaxret.index.reader import Filters, Image, view
    from jaxret.index.report import info, info_between, info_of, verify
    from jaxret.index.scan import Shard
    from jaxret.index.score import evaluate
    from jaxret.index.thumbs import thumbnail
    from jaxret.index.transfer import export, merge
    from jaxret.index.update import Summary, build

_HOMES = {
    "update": ("Summary", "build"),
    "groups": ("Duplicates", "Group", "duplicates"),
    "report": ("info", "info_between", "info_of", "verify"),
    "places": ("PhotoIndexError", "find_index"),
    "query": ("Found", "Query", "search"),
    "scan": ("Shard",),
    "score": ("evaluate",),
    "thumbs": ("thumbnail",),
    "transfer": ("export", "merge"),
    "reader": ("Filters", "Image", "view"),
}

__all__ = [
    "Duplicates",
    "Filters",
    "Found",
    "Group",
    "Image",
    "PhotoIndexError",
    "Query",
    "Shard",
    "Summary",
    "build",
    "duplicates",
    "evaluate",
    "export",
    "find_index",
    "info",
    "info_between",
    "info_of",
    "merge",
    "search",
    "thumbnail",
    "verify",
    "view",
]

__getattr__ = getter(__name__, _HOMES)
