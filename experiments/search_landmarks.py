"""Landmarks by autoencoders: the embeddings are clustered by k-means and searched (the report).

    python experiments/search_landmarks.py --dataset=photos:caltech101 --method=m3 --workdir=runs/m3
    python experiments/reproduce.py --table=landmarks --workdir=runs/landmarks

--dataset=landmarks reads Google Landmarks v2 below the data folder; any folder of images with one
sub-folder per landmark stands in for it. The split is the report's (see data.split_landmarks). A
model trains for --epochs, and the epoch with the least validation loss is kept. k-means makes as
many clusters of the training images as there are classes; `random` draws clusters instead. Losses
are squared errors of pixels from -1 to 1, four times those of pixels from 0 to 1. M1 and M2 need
--image_size=92, because their decoder makes 92 of the 96 pixels of the report.
"""

import dataclasses
import sys
from typing import Any

import drawing
import harness
import report
import search_photos
import training
from harness import LANDMARKS, flag

MODELS = ("m1", "m2", "m3")
METHODS = (*MODELS, "features", "colour-histogram", "gist", "vlad", "pixels", "random")
VLAD_DIMS = 128
ADVICE = ("--method=features",)
VERSION = 1  # grows when the same flags compute something else
STARTS = 4  # of k-means
RANGE = 4.0  # a squared error of pixels from -1 to 1, over one of pixels from 0 to 1


@dataclasses.dataclass(frozen=True)
class LandmarksConfig(harness.Config):
    """Flags."""

    dataset: str = flag(
        "landmarks", "Read landmarks (Google Landmarks v2), photos:NAME, which is the folder "
        "photos/NAME below the data folder, or folder:PATH.", topic="data",
    )  # fmt: skip
    protocol: str = flag(
        LANDMARKS, "Split images as the report did (landmarks): a hundredth of each class are "
        "queries, at least one; a fifth of the others validate.", (LANDMARKS,), "data",
    )  # fmt: skip
    image_size: int = flag(96, "Resize photos to this many pixels a side.", topic="data")
    method: str = flag(
        "m3", "Embed images by this model or extractor, or draw clusters.", METHODS, "model"
    )
    epochs: int = flag(20, "Pass this many times over the training images.", topic="training")
    batch_size: int = flag(32, "Use this many images per step.", topic="training")
    clusters: int = flag(
        0, "Make this many clusters; 0 means as many as there are classes.",
        topic="codes and scores",
    )  # fmt: skip
    baselines: bool = flag(False, "Score raw pixels and PCA beside this method.")
    eval_k: int = flag(
        5, "Report map@K/retrieved and precision@K at this K.", topic="codes and scores"
    )

    VALIDATES = True
    SCALARS = ("learning_rate",)
    EVALUATION = ("eval_k", "clusters")

    def check(self) -> None:
        """See options.Config."""
        super().check()
        harness.at_least(self, "clusters", 0)
        harness.at_least(self, "eval_k", 1)


CONFIG = LandmarksConfig


def hasher(config: LandmarksConfig, protocol: Any) -> Any:
    """Return the hasher of a method; of a model, one that keeps its best epoch."""
    if config.method in MODELS:
        return _model(config, protocol)
    if config.method == "vlad":
        from jaxret import hashers

        return hashers.HASHERS["vlad"](VLAD_DIMS)
    method = "pixels" if config.method == "random" else config.method
    return search_photos.extracted(*search_photos.extractor_for(method))


def _model(config: LandmarksConfig, protocol: Any) -> Any:
    """Return an autoencoder whose `fit` returns the params of the least validation loss."""
    from jaxret import hashers

    made = hashers.autoencoder_hasher(
        0, protocol.train.images.shape[1:], model=f"landmarks_{config.method}", loss="mse",
        **{name: getattr(config, name) for name in ("learning_rate", "epochs", "batch_size")},
    )  # fmt: skip
    validation = validating(protocol)

    def fit(key, images, labels=None, *, on_epoch=lambda state, info: None):
        best: list[Any] = [float("inf"), None]
        history = _histories.setdefault(config, [])
        history.clear()

        def validate(state, info):
            params = hashers.weights(state)
            value = RANGE * report.measured(made, params, validation, config.seed)["mse"]
            history.append((RANGE * float(info.terms["mse"]), value))
            if value < best[0]:
                best[:] = value, params
            names = ("loss/training", "loss/validation")
            on_epoch(state, info._replace(terms=dict(zip(names, history[-1], strict=True))))

        _, info = made.fit(key, images, labels, on_epoch=validate)
        return best[1], {**info, "loss/validation": best[0]}

    return made._replace(fit=fit, training=None)


# configuration -> training and validation loss of each epoch of its last training
_histories: dict[LandmarksConfig, list[tuple[float, float]]] = {}


def validating(protocol: Any) -> Any:
    """Return the images that validate, which stand at the end of the gallery."""
    from jaxret import data

    return data.take(protocol.gallery, slice(len(protocol.train.labels), None))


def positives(config: LandmarksConfig, images: Any) -> None:
    """Return None: nothing here compares images while it learns."""
    del config, images


def score(
    config: LandmarksConfig, hasher: Any, params: Any, protocol: Any, overlap: int
) -> dict[str, float]:
    """Return how clusters agree with landmarks, losses, and scores of searching."""
    import numpy as np

    from jaxret import metrics

    labels, classes = protocol.train.labels, len(protocol.train.class_names)
    count = config.clusters or classes
    if config.method == "random":
        clusters = np.random.default_rng(config.seed).integers(0, count, len(labels))
        return metrics.clustering_scores(labels, clusters) | _sizes(classes, clusters)
    codes = np.asarray(hasher.encode(params, protocol.gallery.images))
    clusters = k_means(codes[: len(labels)], count, config.seed, hasher.distance)
    losses = {}
    if hasher.measure is not None:
        parts = {"train": protocol.train, "validation": validating(protocol)}
        losses = {
            f"loss/{name}": RANGE * report.measured(hasher, params, images, config.seed)["mse"]
            for name, images in parts.items()
        }
    searched = search_photos.search_others(
        codes, protocol.gallery.labels, hasher.distance, config.eval_k
    )
    scores = metrics.clustering_scores(labels, clusters)
    return scores | _sizes(classes, clusters) | losses | searched


def _sizes(classes: int, clusters: Any) -> dict[str, float]:
    return {"classes": float(classes), "clusters": float(len(set(clusters.tolist())))}


def k_means(codes: Any, count: int, seed: int, distance: str) -> Any:
    """Return the cluster of each code; under cosine distance, of codes of unit length."""
    import numpy as np
    from sklearn.cluster import KMeans

    if distance == "cosine":
        codes = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    return KMeans(count, n_init=STARTS, random_state=seed).fit_predict(codes)


def pictures(
    config: LandmarksConfig, hasher: Any, params: Any, protocol: Any, title: str
) -> drawing.Pictures:
    """Return images per landmark, losses, and what images that trained and that validated find."""
    import numpy as np

    from jaxret import data, viz

    def found(part):
        few = data.take(part, data.sample_rows(len(part.labels), 200))
        own = drawing.common(hasher, params, protocol._replace(query=few), [], title)
        return own["retrieval"]

    def counts():
        every = np.concatenate([protocol.gallery.labels, protocol.query.labels])
        return viz.class_sizes(np.bincount(every), "landmarks", title=title)

    def losses():
        train, validation = zip(*_histories[config], strict=True)
        curves = {"loss/training": train, "loss/validation": validation}
        words = "Squared error of pixels from -1 to 1, by epoch"
        return viz.loss_curves(range(1, len(train) + 1), curves, title=title, subtitle=words)

    drawn = {
        "landmarks": counts,
        "retrieval-train": lambda: found(protocol.train)(),
        "retrieval-validation": lambda: found(validating(protocol))(),
    }
    return drawn | ({"losses": losses} if config in _histories else {})


if __name__ == "__main__":
    training.run(sys.modules[__name__])
