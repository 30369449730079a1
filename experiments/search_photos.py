"""Photos searched by content: pretrained features, their bits, hashers trained here, baselines.

    python experiments/search_photos.py --dataset=photos:caltech101 --method=photo --workdir=runs/p
    python experiments/reproduce.py --table=photos --workdir=experiments/photos/results

Under the protocol `others` every photo trains without its label, and is searched among all the
others; under `test` the queries are held out, as methods that learn from labels need it. The
sub-folder of a photo is its class. photos:NAME is the folder photos/NAME below the data folder.
"""

import dataclasses
import hashlib
import sys
from typing import Any

import harness
import report
import training
from harness import OTHERS, flag

METHODS = (
    "pixels", "colour-histogram", "look", "features", "photo", "labels", "vae", "drhn1",
)  # fmt: skip
ADVICE = ("--method=photo",)
VERSION = 1  # grows when the same flags compute something else


@dataclasses.dataclass(frozen=True)
class PhotosConfig(harness.Config):
    """Flags."""

    protocol: str = flag(
        OTHERS, "Search each photo among all the others, which train as well (others), or choose "
        "a protocol of the other scripts: test, validation.", topic="data",
    )  # fmt: skip
    image_size: int = flag(224, "Resize photos to this many pixels a side.", topic="data")
    method: str = flag("photo", "Make codes by this method.", METHODS, "model")
    bits: int = flag(0, "Give codes this many bits; 0: as the method has it.", topic="model")
    dims: int = flag(0, "Give codes of `photo` this many real numbers, not bits.", topic="model")
    centre: bool = flag(False, "Subtract the mean from `features` of unit length.", topic="model")
    baselines: bool = flag(False, "Score raw pixels, and ITQ or PCA, beside this method.")
    eval_k: int = flag(
        5, "Report map@K/retrieved and precision@K at this K.", topic="codes and scores"
    )

    FINDS_OTHERS = True
    SCALARS = ()
    EVALUATION = ("eval_k",)

    def check(self) -> None:
        """See options.Config."""
        super().check()
        for name in ("bits", "dims"):
            harness.at_least(self, name, 0)
        harness.at_least(self, "eval_k", 1)
        if self.dims and (self.bits or self.method != "photo"):
            raise ValueError("--dims is for --method=photo, without --bits")
        if self.method in ("labels", "drhn1") and self.protocol == OTHERS:
            raise ValueError(
                f"--method={self.method} learns from labels: it needs queries that are held out, "
                "--protocol=test"
            )


CONFIG = PhotosConfig


def hasher(config: PhotosConfig, protocol: Any) -> Any:
    """Return the hasher of a method."""
    from jaxret import hashers
    from jaxret.hashers import recipes

    shape = protocol.train.images.shape[1:]
    size = {name: value for name in ("bits", "dims") if (value := getattr(config, name))}
    changes = {"epochs": config.epochs, "batch_size": config.batch_size}
    if config.method in ("photo", "labels"):
        return on_features(hashers.HASHERS[config.method](**size))
    if config.method == "look":
        return hashers.look_hasher(**size)
    if config.method == "vae":
        recipe = recipes.vae_bits(config.bits or 64).replace(**changes)
        return hashers.vae_hasher(image_shape=shape, **recipe.settings)
    if config.method == "drhn1":
        recipe = recipes.DRHN_OURS.replace(**changes)
        num_classes = len(protocol.train.class_names)
        return hashers.deep_hasher(config.bits or 48, num_classes, shape, 1, **recipe.settings)
    return extracted(*extractor_for(config.method), config.centre)


def positives(config: PhotosConfig, images: Any) -> None:
    """Return None: nothing here compares images while it learns."""
    del config, images


def score(
    config: PhotosConfig, hasher: Any, params: Any, protocol: Any, overlap: int
) -> dict[str, float]:
    """Return retrieval scores."""
    if config.protocol != OTHERS:
        return report.retrieval(config, hasher, params, protocol, overlap)
    import numpy as np

    codes = np.asarray(hasher.encode(params, protocol.query.images))
    return search_others(codes, protocol.query.labels, hasher.distance, config.eval_k)


def search_others(codes: Any, labels: Any, distance: str, k: int) -> dict[str, float]:
    """Return scores of searching each row among the others, ties in the order of rows."""
    import numpy as np

    from jaxret import evaluate, metrics

    n = len(codes)
    rows = np.asarray(evaluate.nearest(codes, codes, n, distance).indices)
    rows = rows[rows != np.arange(n)[:, None]].reshape(n, n - 1)  # without the query itself
    relevant = labels[rows] == labels[:, None]
    total = relevant.sum(axis=1).astype(np.int32)
    ks = tuple(sorted({1, 10, k}))
    precision = np.asarray(metrics.precision_at(relevant, ks))
    found = {f"precision@{k}": float(precision[:, i].mean()) for i, k in enumerate(ks)}
    return {
        "map@1/retrieved": found.pop("precision@1"),
        **found,
        "map@all/all": float(np.mean(metrics.average_precision(relevant, total))),
    }


def on_features(hasher: Any, extractor: Any = None) -> Any:
    """Return a hasher of features as one of photos, whose features are computed once.

    Args:
        hasher: one that takes features.
        extractor: what computes them; None: the hasher's own.
    """
    from jaxret.hashers import extractor_of

    extractor = extractor or extractor_of(hasher)

    def fit(key, images, labels=None, **options):
        params, info = hasher.fit(key, _features(extractor, images), labels, **options)
        return {name: own for name, own in params.items() if name != "network"}, info

    def encode(params, images):
        return hasher.encode(params, _features(extractor, images))

    return hasher._replace(fit=fit, encode=encode, spec=None)  # features are no part of the params


def extractor_for(method: str) -> tuple[Any, str]:
    """Return an extractor and the distance of its vectors.

    method is `features`, of the pretrained network, or a key of FEATURES.
    """
    from jaxret import features
    from jaxret.hashers import extractor_of, photo_hasher

    if method == "features":
        return extractor_of(photo_hasher()), "cosine"
    return features.FEATURES[method](), "euclidean"


def extracted(extractor: Any, distance: str, centre: bool = False) -> Any:
    """Return a hasher that learns at most a mean: features as they are.

    Args:
        extractor: what computes them.
        distance: how they are compared.
        centre: whether the mean is subtracted from features of unit length.
    """
    import numpy as np

    from jaxret.hashers import Hasher

    def vectors(images):
        x = _features(extractor, images)
        return x / np.linalg.norm(x, axis=1, keepdims=True) if centre else x

    def fit(key, images, labels=None, *, on_epoch=None):
        del key, labels, on_epoch
        return {"mean": vectors(images).mean(axis=0) if centre else 0.0}, {}

    return Hasher(fit, lambda params, images: vectors(images) - params["mean"], distance)


_known: dict[tuple[str, bytes], Any] = {}


def _features(extractor: Any, images: Any) -> Any:
    """Return features of images, each computed once in a process."""
    import numpy as np

    from jaxret.features import extract

    images = np.asarray(images)
    keys = [(extractor.name, hashlib.blake2b(image.tobytes()).digest()) for image in images]
    rows = [row for row, key in enumerate(keys) if key not in _known]
    for row, vector in zip(rows, extract(extractor, images[rows]) if rows else (), strict=True):
        _known[keys[row]] = vector
    return np.stack([_known[key] for key in keys])


if __name__ == "__main__":
    training.run(sys.modules[__name__])
