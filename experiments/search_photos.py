"""Photos searched among the others of a folder: pretrained features, their bits, and baselines.

    python experiments/search_photos.py --table=photos:caltech101 --workdir=runs/photos

Each photo is a query and all the others are its gallery; their sub-folder is their class. The
photos lie in photos/<name> below the data folder. The work folder gets table.json and table.md, of
the form that experiments/reproduce.py writes.
"""

import dataclasses
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import harness
from harness import flag
from table import markdown

TABLES = {
    "photos:caltech101": "Caltech-101, 10 photos of each class",
    "photos:landmarks36": "web photos of 36 landmarks",
}
EXTRA = ("precision@5", "precision@10", "map@all/all")


@dataclasses.dataclass(frozen=True)
class PhotosConfig:
    """Flags."""

    table: str = flag("photos:caltech101", "Run this table.", tuple(TABLES))
    workdir: str = flag("", "Write the table into this folder (required).")
    data_dir: str = flag(
        "", "Look for photos/ in this folder; the default is the environment variable "
        "JAXRET_DATA_DIR.", topic="data",
    )  # fmt: skip
    seeds: int = flag(3, "Fit bits with this many seeds.")

    def check(self) -> None:
        """Raise ValueError, with the flag, the rule and the value, if a flag breaks a rule."""
        if not self.workdir:
            raise ValueError("--workdir is required: a folder for the table")
        harness.at_least(self, "seeds", 1)


def read(config: PhotosConfig, size: int) -> tuple[Any, Any]:
    """Return the photos as squares of a size, and their classes."""
    import numpy as np

    from jaxret import data

    root = config.data_dir or os.environ.get("JAXRET_DATA_DIR", "")
    folder = Path(root) / "photos" / config.table.split(":")[1]
    parts = [data.load(folder, split, image_size=size) for split in ("train", "test")]
    images, labels = zip(*((part.images, part.labels) for part in parts), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def search_others(codes: Any, labels: Any, distance: str) -> dict[str, float]:
    """Return scores of searching each row among the others, ties in the order of rows."""
    import numpy as np

    from jaxret import evaluate, metrics

    n = len(codes)
    rows = np.asarray(evaluate.nearest(codes, codes, n, distance).indices)
    rows = rows[rows != np.arange(n)[:, None]].reshape(n, n - 1)  # without the query itself
    relevant = labels[rows] == labels[:, None]
    total = relevant.sum(axis=1).astype(np.int32)
    precision = np.asarray(metrics.precision_at(relevant, (1, 5, 10)))
    return {
        "map@1/retrieved": float(precision[:, 0].mean()),
        "precision@5": float(precision[:, 1].mean()),
        "precision@10": float(precision[:, 2].mean()),
        "map@all/all": float(np.mean(metrics.average_precision(relevant, total))),
    }


def baselines(config: PhotosConfig) -> list[tuple[str, str, str, list[Any]]]:
    """Return name, description, distance and codes of what needs no pretrained network."""
    import numpy as np

    from jaxret import features, hashers

    found = []
    for name, make, distance, words in (
        ("raw pixels", features.pixels, "euclidean", "32 x 32, Euclidean distance"),
        # Of square roots, Euclidean distance is the Hellinger distance of histograms.
        ("colour histogram", features.colour_histogram, "euclidean", "8 x 8 x 8 HSV, Hellinger"),
    ):
        extractor = make()
        codes = features.extract(extractor, read(config, extractor.image_size)[0])
        codes = np.sqrt(codes) if make is features.colour_histogram else codes
        found.append((name, words, distance, [codes]))
    look = hashers.look_hasher()
    images, _ = read(config, hashers.extractor_of(look).image_size)
    codes = np.asarray(look.encode({}, images))
    return [*found, ("look, 64 bits", "signs of layout and colour", "hamming", [codes])]


def pretrained(config: PhotosConfig) -> tuple[list[tuple[str, str, str, list[Any]]], float]:
    """Return name, description, distance and codes on the network's features; images/s."""
    import jax
    import numpy as np

    from jaxret import features, hashers

    extractor = hashers.extractor_of(hashers.photo_hasher())
    images, _ = read(config, extractor.image_size)
    features.extract(extractor, images[:1])  # compiles
    began = time.perf_counter()
    x = features.extract(extractor, images)
    rate = len(x) / (time.perf_counter() - began)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    rows = [
        ("features", "1280 numbers, cosine", "cosine", [x]),
        ("features, centred", "1280 numbers, cosine", "cosine", [unit - unit.mean(axis=0)]),
    ]
    for kind, size in (("dims", 128), ("bits", 64), ("bits", 128), ("bits", 256)):
        hasher = hashers.photo_hasher(**{kind: size})
        seeds = range(config.seeds if kind == "bits" else 1)
        params = [hasher.fit(jax.random.key(seed), x)[0] for seed in seeds]
        codes = [np.asarray(hasher.encode(own, x)) for own in params]
        words = "PCA + ITQ" if kind == "bits" else "PCA, cosine"
        rows.append((f"photo, {size} {kind}", words, hasher.distance, codes))
    return rows, rate


def summary(scores: list[dict[str, float]], words: str) -> dict[str, Any]:
    """Return mean and spread of 1-NN accuracy, as a table's "ours"."""
    values = [score["map@1/retrieved"] for score in scores]
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": sd, "seeds": len(values), "how": words}


def main(config: PhotosConfig) -> None:
    """Score all rows and write the table."""
    began = time.perf_counter()
    _, labels = read(config, 32)
    learned, rate = pretrained(config)
    rows = []
    for name, words, distance, codes in [*baselines(config), *learned]:
        scores = [search_others(own, labels, distance) for own in codes]
        means = {key: statistics.fmean(score[key] for score in scores) for key in EXTRA}
        rows.append(
            {
                "name": name,
                "published": None,
                "as_published": None,
                "ours": summary(scores, words),
                "metrics": {"as_published": {}, "ours": means},
            }
        )
    table = {
        "table": config.table,
        "title": f"{TABLES[config.table]}, each searched among the others",
        "protocol": f"{config.table.split(':')[1]}-others",
        "metric": "map@1/retrieved",
        "device": harness.environment()["device"],
        "seconds": round(time.perf_counter() - began, 1),
        "vmap_runs": 1,
        "rows": rows,
        "extra_metrics": list(EXTRA),
        "photos": len(labels),
        "classes": int(labels.max()) + 1,
        "features_per_second": round(rate, 1),
    }
    folder = Path(config.workdir)
    harness.write_whole(folder / "table.json", json.dumps(table, indent=1) + "\n")
    harness.write_whole(folder / "table.md", markdown(table))
    print(markdown(table))


if __name__ == "__main__":
    harness.run(PhotosConfig, main)
