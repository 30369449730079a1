"""Exact nearest neighbors, on whatever device is there.

What needs JAX is imported when it is first used: a gallery's first searches do without.
"""

from typing import TYPE_CHECKING

from jaxret.lazy import getter
from jaxret.search.results import MEMORY, Neighbors, Ranges
from jaxret.search.validate import check_codes, check_vectors

if TYPE_CHECKING:
    from jaxret.search.coarse import coarse_to_fine_topk
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
    "coarse": ("coarse_to_fine_topk",),
    "layout": (
        "CodeLayout", "Layout", "VectorLayout", "euclidean_topk", "hamming_topk", "lay_out",
    ),
    "ranges": ("euclidean_range", "hamming_range"),
    "select": ("few_sizes",),
    "sharded": ("Sharded", "shard", "sharded_topk"),
    "stream": ("streamed_topk",),
}  # fmt: skip

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
    "coarse_to_fine_topk",
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

__getattr__ = getter(__name__, _HOMES)
