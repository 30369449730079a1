"""Indexes of the same images' codes: size on disk, time to build, speed, and what is found.

    python benchmarks/indexes.py --rows=20000,1000000 --json=indexes.json
    python experiments/reproduce.py --table=sahu:index --workdir=runs/index

The codes are of a pretrained network's features: 128 or 64 principal components, and 64 bits of the
same (PCA and ITQ). A gallery of more rows than there are images repeats them with noise, so that it
stays clustered. recall/own compares an index with exact search of the same codes in the same
distance; recall/floats compares it with exact search of the 128 numbers; both are of 10 results. F1
takes each of the 10 as a guess at the query's class. Rates are of one thread. This is a module.
"""

import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import harness
import vectors
from harness import flag

VERSION = 1  # grows when the same flags compute something else
K = 10  # results
ALONE = 100  # queries that are timed one at a time
WARM = 2.0  # seconds untimed, in which a search may settle on its fastest way
NOISE = 0.3  # of repeated rows, as a share of each component's standard deviation
FEATURES = "efficientnet-lite0@96"
SPACES = {"128": {"dims": 128}, "64": {"dims": 64}, "bits": {"bits": 64}}


class Index(NamedTuple):
    """An index that is built: how it is searched, and how it is written."""

    search: Callable[[Any, int], Any]  # (query f32[q d], k) -> rows [q k]
    save: Callable[[Path], None]  # into a folder


def exact_bits(gallery: Any) -> Index:
    """Return jaxret's gallery of packed bits."""
    import jaxret
    from jaxret import codes

    kept = jaxret.Gallery.from_codes(codes.pack(gallery), gallery.shape[1])
    return Index(lambda query, k: kept.search(codes.pack(query), k)[1], _saver(kept))


def exact_floats(gallery: Any) -> Index:
    """Return jaxret's gallery of real numbers, compared by Euclidean distance."""
    import jaxret

    kept = jaxret.Gallery.from_vectors(gallery)
    return Index(lambda query, k: kept.search(query, k)[1], _saver(kept))


def _saver(gallery) -> Callable[[Path], None]:
    return lambda folder: gallery.save(folder / "gallery")


def annoy_trees(gallery: Any, trees: int) -> Index:
    """Return Annoy's trees (Sahu n.d., section 3.5)."""
    import annoy
    import numpy as np

    index = annoy.AnnoyIndex(gallery.shape[1], "euclidean")
    index.set_seed(1)
    for row, vector in enumerate(gallery):
        index.add_item(row, vector)
    index.build(trees, n_jobs=1)

    def search(query, k):
        return np.array([index.get_nns_by_vector(vector, k) for vector in query])

    return Index(search, lambda folder: index.save(str(folder / "annoy")))


def hnsw(gallery: Any, links: int = 32, breadth: int = 64) -> Index:
    """Return faiss's graph of neighbors (HNSW)."""
    import faiss

    index = faiss.IndexHNSWFlat(gallery.shape[1], links)
    index.hnsw.efSearch = breadth
    return _faiss(index, gallery, faiss.write_index)


def faiss_bits(gallery: Any) -> Index:
    """Return faiss's exact search of packed bits."""
    import faiss
    import numpy as np

    def packed(x):
        return np.packbits(x >= 0, axis=1)

    index = faiss.IndexBinaryFlat(gallery.shape[1])
    made = _faiss(index, packed(gallery), faiss.write_index_binary)
    return made._replace(search=lambda query, k: index.search(packed(query), k)[1])


def _faiss(index, gallery, write) -> Index:
    import faiss

    faiss.omp_set_num_threads(1)
    index.add(gallery)
    return Index(
        lambda query, k: index.search(query, k)[1],
        lambda folder: write(index, str(folder / "faiss")),
    )


# name -> the codes that it holds, how it is built
INDEXES: dict[str, tuple[str, Callable[[Any], Index]]] = {
    "bits": ("bits", exact_bits),
    "faiss-bits": ("bits", faiss_bits),
    "floats-128": ("128", exact_floats),
    "floats-64": ("64", exact_floats),
    "annoy-20x128": ("128", functools.partial(annoy_trees, trees=20)),
    "annoy-10x64": ("64", functools.partial(annoy_trees, trees=10)),
    "hnsw-128": ("128", hnsw),
    "hnsw-64": ("64", hnsw),
}


@dataclasses.dataclass(frozen=True)
class IndexConfig(harness.Config):
    """Flags."""

    dataset: str = flag("cifar4", "Read cifar4 or any other data set by name.", topic="data")
    features: str = flag(
        FEATURES, "Make codes of these features, a key of jaxret.FEATURES.", topic="data"
    )
    index: str = flag("bits", "Build this index.", tuple(INDEXES), "codes and scores")
    rows: int = flag(
        0, "Repeat the gallery, with noise, up to this many rows; 0: as it is.", topic="data"
    )
    baselines: bool = flag(False, "Score nothing beside.")
    eval_k: int = flag(K, "Find this many results; 10.", topic="codes and scores")

    SCALARS = ()
    ADDED = harness.Config.ADDED | {"features": FEATURES}

    def check(self) -> None:
        """See options.Config."""
        super().check()
        harness.at_least(self, "rows", 0)
        if not self.features:
            raise ValueError("--features must name features, got none")
        vectors.check_features(self.features)

    def extractor(self) -> str:
        """See options.Config."""
        return self.features


CONFIG = IndexConfig


def hasher(config: IndexConfig, protocol: Any) -> Any:
    """Return a hasher that learns the codes of every space; `score` encodes by them."""
    from jaxret.hashers import Hasher, photo_hasher

    sizes = SPACES.items()
    made = {name: photo_hasher(**size, features=config.features) for name, size in sizes}

    def fit(key, images, labels=None, *, on_epoch=None):
        del labels, on_epoch
        return {name: one.fit(key, images)[0] for name, one in made.items()}, {}

    def encode(params, images):
        return {name: one.encode(params[name], images) for name, one in made.items()}

    return Hasher(fit, encode, "euclidean")


def positives(config: IndexConfig, images: Any) -> None:
    """Return None: nothing here compares images while it learns."""
    del config, images


def score(
    config: IndexConfig, hasher: Any, params: Any, protocol: Any, overlap: int
) -> dict[str, float]:
    """Return what an index costs and finds."""
    import numpy as np

    del overlap
    query, gallery = (
        {name: np.asarray(z, np.float32) for name, z in hasher.encode(params, part.images).items()}
        for part in (protocol.query, protocol.gallery)
    )
    rows = config.rows or len(protocol.gallery.labels)
    gallery = {name: repeated(z, rows, config.seed) for name, z in gallery.items()}
    labels = np.resize(protocol.gallery.labels, rows)
    space, build = INDEXES[config.index]
    exact = exact_bits if space == "bits" else exact_floats
    found, costs = measured(build, gallery[space], query[space])
    truth = {
        "own": exact(gallery[space]).search(query[space], K),
        "floats": exact_floats(gallery["128"]).search(query["128"], K),
    }
    recalls = {f"recall/{name}": shared(found, np.asarray(rows)) for name, rows in truth.items()}
    from jaxret import metrics

    guessed = labels[found].reshape(-1)
    f1 = metrics.label_scores(np.repeat(protocol.query.labels, K), guessed)["f1"]
    return costs | recalls | {"f1": f1, "rows": float(rows)}


def repeated(z: Any, rows: int, seed: int) -> Any:
    """Return as many rows: the rows of z again and again, after the first time with noise."""
    import numpy as np

    rng = np.random.default_rng(seed)
    more = np.resize(z, (rows, z.shape[1]))
    noise = rng.standard_normal(more[len(z) :].shape, np.float32)
    more[len(z) :] += NOISE * z.std(axis=0)[None] * noise
    return more


def measured(build: Callable[[Any], Index], gallery: Any, query: Any) -> tuple[Any, dict]:
    """Return the rows that an index finds, and megabytes, seconds to build and queries per second.

    Args:
        build: makes the index of a gallery.
        gallery: f32[n d].
        query: f32[q d].
    """
    import numpy as np

    start = time.perf_counter()
    index = build(gallery)
    built = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder))
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    start = time.perf_counter()
    while time.perf_counter() - start < WARM:
        index.search(query[:1], K), index.search(query, K)
    each = []
    for row in range(min(ALONE, len(query))):
        start = time.perf_counter()
        np.asarray(index.search(query[row : row + 1], K))
        each.append(time.perf_counter() - start)
    start = time.perf_counter()
    found = np.asarray(index.search(query, K))
    batch_seconds = time.perf_counter() - start
    return found, {
        "megabytes": size / 1e6,
        "build_seconds": built,
        "queries_per_second": 1 / statistics.median(each),
        "queries_per_second/batch": len(query) / batch_seconds,
    }


def shared(found: Any, truth: Any) -> float:
    """Return the mean share of each row's true results that are among those found."""
    pairs = zip(found.tolist(), truth.tolist(), strict=True)
    return statistics.fmean(len(set(own) & set(true)) / len(true) for own, true in pairs)


if __name__ == "__main__":
    print("search_index.py is a module; the command is: python benchmarks/indexes.py --help")
