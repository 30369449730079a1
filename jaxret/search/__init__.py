"""Exact nearest neighbors, on whatever device is there.

What needs JAX is imported when it is first used: a gallery's first searches do without.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxret.search.results import MEMORY, Neighbors, Ranges
from jaxret.search.validate import check_codes, check_vectors

if TYPE_CHECKING:
    from jaxret.search.layout import (
        CodeLayout,
        Layout,
        VectorLayout,
        euclidean_topk,
        hamming_topk,
        lay_out,
    )
    from jaxret.search.ranges import euclidean_range, hamming_range
    from jaxret.search.select import few_sizes
    from jaxret.search.sharded import Sharded, shard, sharded_topk
    from jaxret.search.stream import streamed_topk

_HOMES = {
    "layout": (
        "CodeLayout", "Layout", "VectorLayout", "euclidean_topk", "hamming_topk", "lay_out",
    ),
    "ranges": ("euclidean_range", "hamming_range"),
    "select": ("few_sizes",),
    "sharded": ("Sharded", "shard", "sharded_topk"),
    "stream": ("streamed_topk",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "MEMORY",
    "CodeLayout",
    "Layout",
    "Neighbors",
    "Ranges",
    "Sharded",
    "VectorLayout",
    "check_codes",
    "check_vectors",
    "euclidean_range",
    "euclidean_topk",
    "few_sizes",
    "hamming_range",
    "hamming_topk",
    "lay_out",
    "shard",
    "sharded_topk",
    "streamed_topk",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jaxret.search' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"jaxret.search.{_HOME[name]}"), name)
    globals()[name] = value
    return value
