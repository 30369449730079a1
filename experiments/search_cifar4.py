"""Search in two stages (Sahu n.d., section 3): features of a network, compressed, then searched.

    python experiments/search_cifar4.py --method=labels --workdir=runs/cifar4
    python experiments/reproduce.py --table=sahu:cifar4 --workdir=runs/sahu

The first stage is a classifier that is trained here (trunk, two-stage; see train_classifier.py) or
a pretrained network that sees enlarged images (features, features-autoencoder, photo, labels).
The second stage is an autoencoder of the features, bits of PCA and ITQ, or a hash layer.
`last-blocks` also trains the last blocks of the pretrained network. `end-to-end` is the published
approach 1, an autoencoder of pixels.

Precision, recall and F1 take each of the first 10 results as a guess at its query's class. Queries
are strictly outside the gallery; scores that end in /leaky are of a gallery that holds them, too.
`accuracy` is that of the classifier where there is one, else of a vote of the first 10 results.
"""

import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import Any

import harness
import report
import runs
import search_photos
import train_autoencoder
import train_classifier
import training
import vectors
from harness import flag

OF_TRUNK = ("trunk", "two-stage")
# flags that only a classifier's methods read
CLASSIFIER_FLAGS = ("channels", "dense", "trunk_epochs", "trunk_learning_rate", "clean_statistics",
                    "ema")  # fmt: skip
PRETRAINED = ("features", "features-autoencoder", "photo", "labels")
LEARNING = (*PRETRAINED[1:], "last-blocks")  # from features or maps
METHODS = ("pixels", "end-to-end", *OF_TRUNK, *PRETRAINED, "last-blocks")
FEATURES = "efficientnet-lite0@96"
MAPS = ("efficientnet-lite0@160-block12", "efficientnet-lite0@224-block12")
PUBLISHED = train_classifier.CONFIG.defaults()  # of the classifier
ADVICE = ("--method=labels",)
VERSION = 1  # grows when the same flags compute something else
K = 10  # results that are guesses


@dataclasses.dataclass(frozen=True)
class TwoStageConfig(harness.Config):
    """Flags."""

    dataset: str = flag("cifar4", "Read cifar4 or any other data set by name.", topic="data")
    method: str = flag("labels", "Make codes in this way.", METHODS, "model")
    features: str = flag(
        FEATURES, "Take these features of the pretrained network, a key of jaxret.FEATURES, for "
        "features, features-autoencoder, photo and labels.", topic="data",
    )  # fmt: skip
    maps: str = flag(
        MAPS[0], "Train last-blocks on these maps of the pretrained network.", MAPS, "data"
    )
    mirror: bool = flag(
        False, "Train on features or maps of mirrored training images, too, for "
        "features-autoencoder, photo, labels and last-blocks.", topic="augmentation",
    )  # fmt: skip
    both_views: bool = flag(
        False, "Search codes that are the mean of an image's and its mirror image's, taken before "
        "bits are made of them, for the methods of --mirror. No encoder is kept.",
        topic="codes and scores",
    )  # fmt: skip
    dims: int = flag(64, "Give autoencoders' codes this many numbers.", topic="model")
    bits: int = flag(
        64, "Give codes of `photo`, `labels` and `last-blocks` this many bits.", topic="model"
    )
    steps: int = flag(
        1500, "Train the hash layer of `labels` for this many steps.", topic="training"
    )
    epochs: int = flag(
        20, "Pass this many times over the training images, in the training of an autoencoder or "
        "of last blocks.",
        topic="training",
    )  # fmt: skip
    batch_size: int = flag(128, "Use this many images per step.", topic="training")
    learning_rate: float = flag(1e-4, "Use this learning rate of Adam.", topic="training")
    trunk_epochs: int = flag(
        50,
        "Pass this many times over the training images, in the classifier's training.",
        topic="training",
    )
    trunk_learning_rate: float = flag(
        PUBLISHED["learning_rate"],
        "Use this learning rate of Adam in the classifier's training.",
        topic="training",
    )
    channels: str = flag(
        PUBLISHED["channels"],
        "Give both convolutions of each of the classifier's blocks these channels.",
        topic="model",
    )
    dense: str = flag(
        PUBLISHED["dense"], "Give the classifier's dense layers these widths.", topic="model"
    )
    clean_statistics: bool = flag(
        False, "Measure the classifier's batch statistics without dropout.", topic="training"
    )
    ema: float = flag(
        0.0, "Take an exponential moving average of the classifier's weights, which keeps this "
        "share of itself each step.",
        topic="training",
    )  # fmt: skip
    trunk: str = flag(
        "", "Keep the classifier's run in this folder; the default is one in the work folder, each "
        "classifier its own. A stopped or shorter run goes on.",
    )  # fmt: skip
    baselines: bool = flag(False, "Score raw pixels, and ITQ or PCA, beside this method.")
    eval_k: int = flag(
        1000, "Report map@K/retrieved and precision@K at this K.", topic="codes and scores"
    )

    EVALUATION = ("eval_k",)
    ELSEWHERE = (*harness.Config.ELSEWHERE, "trunk")
    ADDED = harness.Config.ADDED | {
        "features": FEATURES,
        "maps": MAPS[0],
        "mirror": False,
        "both_views": False,
        "channels": PUBLISHED["channels"],
        "dense": PUBLISHED["dense"],
        "trunk_learning_rate": PUBLISHED["learning_rate"],
        "clean_statistics": False,
        "ema": 0.0,
    }

    def check(self) -> None:
        """See options.Config."""
        super().check()
        for name in ("dims", "bits", "steps", "trunk_epochs", "eval_k"):
            harness.at_least(self, name, 1)
        vectors.check_features(self.features)
        blocks = PUBLISHED["channels"].count(",")  # each has its share of dropout
        if self.channels.count(",") != blocks:
            raise ValueError(
                f"--channels must be {blocks + 1} whole numbers such as {PUBLISHED['channels']}, "
                f"got {self.channels!r}"
            )
        for name in ("mirror", "both_views"):
            if getattr(self, name) and self.method not in LEARNING:
                raise ValueError(
                    f"--{name} is for --method={', '.join(LEARNING)}, got --method={self.method}"
                )
        if self.both_views and self.baselines:
            raise ValueError("--baselines see one view of an image: leave out --both_views or them")
        if self.maps != MAPS[0] and self.method != "last-blocks":
            raise ValueError(f"--maps is for --method=last-blocks, got --method={self.method}")
        if self.method in OF_TRUNK:
            classifier(self).check()
            return
        for name in CLASSIFIER_FLAGS:
            if getattr(self, name) != self.defaults()[name]:
                raise ValueError(
                    f"--{name} is for --method={', '.join(OF_TRUNK)}, got --method={self.method}"
                )

    def extractor(self) -> str:
        """See options.Config."""
        if self.method == "last-blocks":
            return self.maps
        return self.features if self.method in PRETRAINED else ""

    def mirrors(self) -> bool:
        """See options.Config."""
        return self.mirror

    def sees_both(self) -> bool:
        """See options.Config."""
        return self.both_views


CONFIG = TwoStageConfig


def builds_on(config: TwoStageConfig) -> dict[str, int]:
    """See runs.kept_at."""
    if config.method == "end-to-end":
        return {"train_autoencoder": train_autoencoder.VERSION}
    return {"train_classifier": train_classifier.VERSION} if config.method in OF_TRUNK else {}


def hasher(config: TwoStageConfig, protocol: Any) -> Any:
    """Return the hasher of a method, for a protocol's images or vectors."""
    made = _hasher(config, protocol)
    return of_both_views(made) if config.both_views else made


def of_both_views(hasher: Any) -> Any:
    """Return a hasher that encodes two vectors, one after the other: the mean of their codes."""

    def encode(params, x):
        half = x.shape[1] // 2
        return (hasher.encode(params, x[:, :half]) + hasher.encode(params, x[:, half:])) / 2

    return hasher._replace(encode=encode, spec=None)


def _hasher(config: TwoStageConfig, protocol: Any) -> Any:
    from jaxret import features, hashers
    from jaxret.hashers import recipes

    if config.method == "end-to-end":
        return train_autoencoder.hasher(_end_to_end(config), protocol)
    if config.method in ("pixels", "trunk"):
        pixels = features.FEATURES["pixels"]
        extractor = trunk(config) if config.method == "trunk" else pixels()
        return search_photos.extracted(extractor, "euclidean")
    if config.method == "features":
        return hashers.Hasher(lambda *_, **__: ({}, {}), lambda params, x: x, "cosine")
    names = ("learning_rate", "epochs", "batch_size")
    learning = {name: getattr(config, name) for name in names}
    if config.method == "last-blocks":
        recipe, images = recipes.on_maps("dlbhc", **learning), protocol.train
        sizes = config.bits, len(images.class_names), images.images.shape[1:]
        return hashers.method_hasher(recipe.hasher, *sizes, **recipe.settings)
    given = {"features": config.features}
    if config.method == "photo":
        return hashers.photo_hasher(config.bits, **given)
    if config.method == "labels":
        return hashers.labels_hasher(config.bits, steps=config.steps, **given)
    made = hashers.feature_autoencoder_hasher(config.dims, **given, **learning)
    return search_photos.on_features(made, trunk(config)) if config.method in OF_TRUNK else made


def _end_to_end(config: TwoStageConfig) -> Any:
    names = ("dataset", "epochs", "batch_size", "seed", "workdir", "learning_rate")
    return train_autoencoder.CONFIG(
        **{name: getattr(config, name) for name in names},
        model="conv_dense_up",
        channels="16,32,64,128",
        batch_norm=True,
        latent_dim=config.dims,
    )


def classifier(config: TwoStageConfig) -> train_classifier.ClassifierConfig:
    """Return the flags of the classifier's run."""
    names = ("dataset", "protocol", "data_dir", "seed", "channels", "dense", "clean_statistics",
             "ema")  # fmt: skip
    wanted = train_classifier.CONFIG(
        **{name: getattr(config, name) for name in names},
        epochs=config.trunk_epochs,
        learning_rate=config.trunk_learning_rate,
        workdir=config.trunk or config.workdir,
        resume=True,
        watch=True,
        baselines=False,
    )
    if config.trunk:
        return wanted
    # Named by all flags but how long it trains: a longer run goes on with a shorter one.
    digest = runs.kept_at("train_classifier", dataclasses.replace(wanted, epochs=1)).stem
    own = Path(config.workdir) / f"classifier-{digest}"
    return dataclasses.replace(wanted, workdir=str(own))


@functools.cache
def trunk(config: TwoStageConfig) -> Any:
    """Return the trained classifier as an extractor; train it, or go on, if need be."""
    import jaxret
    from jaxret.features import Extractor

    wanted = classifier(config)
    folder = Path(wanted.workdir)
    if not _is_finished(wanted):
        training.main(wanted, train_classifier)
    kept = jaxret.load_encoder(folder / "encoder")
    name, side = f"classifier {kept.digest}", kept.image_size[0]
    return Extractor(name, kept.hasher.encode, side, {}, lambda: kept.params)


def _is_finished(wanted: train_classifier.ClassifierConfig) -> bool:
    """Return whether the run's folder holds it, whole."""
    try:
        kept = json.loads((Path(wanted.workdir) / "metrics.json").read_text())["config"]
    except FileNotFoundError:
        return False
    return train_classifier.CONFIG.from_kept(kept).identity() == wanted.identity()


def positives(config: TwoStageConfig, images: Any) -> None:
    """Return None: nothing here compares images while it learns."""
    del config, images


def score(
    config: TwoStageConfig, hasher: Any, params: Any, protocol: Any, overlap: int
) -> dict[str, float]:
    """Return agreement of the first results with the query's class, and retrieval scores."""
    import numpy as np

    from jaxret.evaluate import encode_in_batches

    query, gallery = (
        np.asarray(encode_in_batches(hasher.encode, params, part.images))
        for part in (protocol.query, protocol.gallery)
    )
    labels = protocol.query.labels, protocol.gallery.labels
    scores = guesses(query, gallery, *labels, hasher.distance)
    everything = np.concatenate([gallery, query]), np.concatenate(labels[::-1])
    leaky = guesses(query, everything[0], labels[0], everything[1], hasher.distance)
    scores |= {f"{name}/leaky": value for name, value in leaky.items()}
    scores["accuracy"] = scores["vote"]
    if config.method == "trunk":
        folder = Path(classifier(config).workdir)
        kept = json.loads((folder / "metrics.json").read_text())["metrics"]
        scores["accuracy"] = kept["accuracy"]
    size = query.shape[1] / 8 if hasher.distance == "hamming" else 4 * query.shape[1]
    scores["megabytes"] = len(gallery) * size / 1e6
    parts = zip((protocol.query, protocol.gallery), (query, gallery), strict=True)
    coded = dict(zip(("query", "gallery"), (p._replace(images=z) for p, z in parts), strict=True))
    as_it_is = hasher._replace(encode=lambda params, z: z)  # each image is encoded once
    protocol = protocol._replace(**coded)
    return report.retrieval(config, as_it_is, params, protocol, overlap) | scores


def guesses(
    query: Any, gallery: Any, query_labels: Any, labels: Any, distance: str
) -> dict[str, float]:
    """Return precision, recall and F1 of the first results as guesses, and a vote's accuracy.

    Args:
        query: codes.
        gallery: codes.
        query_labels: classes of the queries.
        labels: classes of the gallery.
        distance: how codes are compared.
    """
    import numpy as np

    from jaxret import metrics
    from jaxret.evaluate import nearest

    found = labels[np.asarray(nearest(query, gallery, K, distance).indices)]
    scores = metrics.label_scores(np.repeat(query_labels, K), found.reshape(-1))
    voted = np.asarray(metrics.majority_label(found))
    names = ("precision", "recall", "f1")
    return {name: scores[name] for name in names} | {"vote": float(np.mean(voted == query_labels))}


if __name__ == "__main__":
    training.run(sys.modules[__name__])
