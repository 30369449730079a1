"""Hashing methods beside each other: one data set, the same features, queries and gallery for all.

CIFAR-10, 10,000 queries, 50,000 gallery images (cifar10-full@1000). Features are those of the
pretrained EfficientNet-Lite0, of images enlarged to 96 or 128 pixels, which no method changes.
"unsupervised" never sees a label; "supervised" learns from all 50,000. Settings of training were
chosen on held-out training images; see RESULTS.md. Published numbers have other features, so they
stand in RESULTS.md and not here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from table import Row, Table

SIZES = (96, 128)  # pixels a side that images are enlarged to
UNSUPERVISED_BITS, SUPERVISED_BITS = (16, 32, 64), (12, 48)
# name -> (method, settings of training, a description)
Method = tuple[str, Mapping[str, Any], str]
WITHOUT_LABELS: dict[str, Method] = {}
WITH_LABELS: dict[str, Method] = {}
