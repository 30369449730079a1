"""Feature extractors: what turns images into vectors without learning here.

FEATURES: name -> function that returns an `Extractor`. A backbone of one's own is a new entry: any
JAX function from uint8 images to vectors.
"""

import functools
from collections.abc import Callable

from .base import Extractor, FeaturesError, check_preprocessing, extract
from .efficientnet import efficientnet_lite0
from .gist import gist
from .plain import colour_histogram, layout, pixels
from .sift import sift

FEATURES: dict[str, Callable[[], Extractor]] = {
    "pixels": pixels,
    "colour-histogram": colour_histogram,
    "layout": layout,
    "gist": gist,
    "sift": sift,
    "efficientnet-lite0": efficientnet_lite0,
    # for images of few pixels, such as CIFAR's
    "efficientnet-lite0@96": functools.partial(efficientnet_lite0, 96),
    "efficientnet-lite0@128": functools.partial(efficientnet_lite0, 128),
    "efficientnet-lite0@224": functools.partial(efficientnet_lite0, 224),
    "efficientnet-lite0@160": functools.partial(efficientnet_lite0, 160),
    # maps, for the trunk that trains the blocks from there on; see models.trunks
    "efficientnet-lite0@160-block12": functools.partial(efficientnet_lite0, 160, 12),
    "efficientnet-lite0@224-block12": functools.partial(efficientnet_lite0, 224, 12),
}

__all__ = [
    "FEATURES",
    "Extractor",
    "FeaturesError",
    "check_preprocessing",
    "colour_histogram",
    "efficientnet_lite0",
    "extract",
    "gist",
    "layout",
    "pixels",
    "sift",
]
