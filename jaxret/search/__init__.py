"""Exact nearest neighbours, on whatever device is there."""

from jaxret.search.blocks import BLOCK, CodeBlocks, lay_out, overwrite
from jaxret.search.doors import check_codes, check_vectors
from jaxret.search.euclidean import euclidean_topk
from jaxret.search.hamming import hamming_topk
from jaxret.search.ranges import Ranges, euclidean_range, hamming_range
from jaxret.search.select import MEMORY, Neighbors, few_sizes
from jaxret.search.sharded import Sharded, shard, sharded_topk
from jaxret.search.stream import streamed_topk
from jaxret.search.vectors import TILE, Vectors, lay_out_vectors, overwrite_vectors

__all__ = [
    "BLOCK",
    "MEMORY",
    "TILE",
    "CodeBlocks",
    "Neighbors",
    "Ranges",
    "Sharded",
    "Vectors",
    "check_codes",
    "check_vectors",
    "euclidean_range",
    "euclidean_topk",
    "few_sizes",
    "hamming_range",
    "hamming_topk",
    "lay_out",
    "lay_out_vectors",
    "overwrite",
    "overwrite_vectors",
    "shard",
    "sharded_topk",
    "streamed_topk",
]
