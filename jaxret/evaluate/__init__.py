"""From an encoder and a protocol to named numbers: encode, rank, score.

Every number's name says what it is: `map@1000/retrieved` is mean average precision over the first
1000 results, divided by the relevant ones among them. Work goes in batches of images and tiles of
queries, so memory stays bounded, and neither size changes a result.
"""

from jaxret.evaluate.batches import encode_in_batches
from jaxret.evaluate.distances import DISTANCES, nearest
from jaxret.evaluate.protocols import describe, evaluate, images_in_both
from jaxret.evaluate.scores import retrieval_scores

__all__ = [
    "DISTANCES",
    "describe",
    "encode_in_batches",
    "evaluate",
    "images_in_both",
    "nearest",
    "retrieval_scores",
]
