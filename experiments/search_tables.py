"""Hash tables (Gionis 1999): which neighbors they find, against how much of the gallery they read.

    python experiments/search_tables.py --bits=16 --hash_tables=16 --workdir=runs/tables
    python experiments/reproduce.py --table=hashing:lsh-tables --workdir=runs/lsh-tables

Each of l tables puts every image into the bucket of its k bits, the signs of k random projections.
The candidates of a query are all images in its l buckets; only to these is a distance computed. So
the ten nearest neighbors that are found are those among the candidates, and the share of the
gallery that they are is what a query costs.
"""

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import harness
import training
import vectors
from harness import flag

ADVICE = ("more --hash_tables",)
VERSION = 1  # grows when the same flags compute something else
K = 10  # neighbors
QUERIES = 1000  # a fixed random sample


@dataclasses.dataclass(frozen=True)
class TablesConfig(harness.Config):
    """Flags."""

    dataset: str = flag("cifar10", "Read cifar10 or any other data set by name.", topic="data")
    features: str = flag(
        "gist", "Search among these features, a key of jaxret.FEATURES.", topic="data"
    )
    bits: int = flag(12, "Give each table buckets of this many bits, at most 63.", topic="model")
    hash_tables: int = flag(8, "Make this many tables.", topic="model")
    baselines: bool = flag(False, "Score nothing beside.")
    eval_k: int = flag(K, "Find this many results; 10.", topic="codes and scores")

    SCALARS = ()

    def check(self) -> None:
        """See options.Config."""
        super().check()
        for name in ("bits", "hash_tables"):
            harness.at_least(self, name, 1)
        if self.bits > 63:
            raise ValueError(f"--bits must be at most 63, got {self.bits}")
        vectors.check_features(self.features)

    def extractor(self) -> str:
        """See options.Config."""
        return self.features


CONFIG = TablesConfig


def hasher(config: TablesConfig, protocol: Any) -> Any:
    """Return the hasher that gives the bits of all tables, one after another."""
    from jaxret.hashers import lsh_hasher

    del protocol
    return lsh_hasher(config.bits * config.hash_tables)


def positives(config: TablesConfig, images: Any) -> None:
    """Return None: nothing is compared."""
    del config, images


def score(
    config: TablesConfig, hasher: Any, params: Any, protocol: Any, overlap: int
) -> dict[str, float]:
    """Return how many of the nearest by angle are candidates, and how many candidates there are."""
    import numpy as np

    from jaxret import data
    from jaxret.data.sets import take
    from jaxret.evaluate import encode_in_batches, nearest

    del overlap
    query = take(protocol.query, data.sample_rows(len(protocol.query.labels), QUERIES))
    gallery = protocol.gallery
    mean = np.asarray(params["mean"])[None]
    near = nearest(query.images - mean, gallery.images - mean, K, "cosine").indices
    query_buckets, gallery_buckets = (
        buckets(np.asarray(encode_in_batches(hasher.encode, params, part.images)), config.bits)
        for part in (query, gallery)
    )
    found, read, empty, right = [], [], 0, []
    for row, shared in enumerate(candidates(query_buckets, gallery_buckets)):
        found.append(shared[np.asarray(near[row])].mean())
        read.append(shared.mean())
        empty += not shared.any()
        if shared.any():
            right.append((gallery.labels[shared] == query.labels[row]).mean())
    return {
        "recall@10": float(np.mean(found)),
        "candidates": float(np.mean(read)),
        "empty": empty / len(found),
        "precision": float(np.mean(right)) if right else 0.0,
    }


def buckets(z: Any, bits: int) -> Any:
    """Return the number of each row's bucket in each table, i64[n l].

    Args:
        z: f32[n l * bits]; a bit is 1 where its number is at least 0.
        bits: of a table.
    """
    import numpy as np

    weights = 2 ** np.arange(bits, dtype=np.int64)
    return (z.reshape(len(z), -1, bits) >= 0) @ weights


def candidates(query_buckets: Any, gallery_buckets: Any) -> Iterator[Any]:
    """Yield for each query which rows of the gallery share a bucket with it in any table, b1[n].

    Args:
        query_buckets: buckets of the queries, i64[q l].
        gallery_buckets: buckets of the gallery, i64[n l].
    """
    import numpy as np

    order = np.argsort(gallery_buckets, axis=0, kind="stable")
    ordered = np.take_along_axis(gallery_buckets, order, axis=0)
    for row in query_buckets:
        shared = np.zeros(len(gallery_buckets), bool)
        for table, bucket in enumerate(row):
            first, last = np.searchsorted(ordered[:, table], [bucket, bucket + 1])
            shared[order[first:last, table]] = True
        yield shared


if __name__ == "__main__":
    training.run(sys.modules[__name__])
