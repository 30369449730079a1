"""Exact nearest neighbors, on whatever device is there."""

from jaxret.search.layout import (
    CodeLayout,
    Layout,
    VectorLayout,
    euclidean_topk,
    hamming_topk,
    lay_out,
)
from jaxret.search.ranges import Ranges, euclidean_range, hamming_range
from jaxret.search.select import MEMORY, Neighbors, few_sizes
from jaxret.search.sharded import Sharded, shard, sharded_topk
from jaxret.search.stream import streamed_topk
from jaxret.search.validate import check_codes, check_vectors

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
