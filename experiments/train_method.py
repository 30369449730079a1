"""Learn codes by any hasher of jaxret.HASHERS, of images or of their features; score the search.

    python experiments/train_method.py --method=dhn --bits=48 --dataset=cifar10 \
        --features=efficientnet-lite0@96 --protocol=cifar10-full@1000 --workdir=runs/dhn

The methods of jaxret.hashers.METHODS share one trainer; settings that a flag leaves at its default
are the method's. Hashers without training, such as itq, stand beside them. metrics.json also has
how even the bits are (balance, 0 is even), how many codes the gallery has (distinct_codes), and the
seconds that encoding the gallery takes.
"""

import dataclasses
import inspect
import sys
import time

import harness
import report
import training
import vectors
from harness import flag

ADVICE = ("more --epochs", "another --method")
VERSION = 1  # grows when the same flags compute something else
COMPONENTS = 128  # of the space in which positives are sought


@dataclasses.dataclass(frozen=True)
class MethodConfig(harness.Config):
    """Flags."""

    method: str = flag("dhn", "Learn by this hasher of jaxret.HASHERS.", topic="model")
    bits: int = flag(48, "Give codes this many bits.", topic="model")
    features: str = flag(
        "", "Learn from these features of the images, a key of jaxret.FEATURES; the default is the "
        "images themselves.", topic="data",
    )  # fmt: skip
    trunk: str = flag(
        "", "Put the hash layer on this network: dense (default for features), residual (DRHN-1, "
        "default for images), conv, or efficientnet-lite0-block12: the last blocks of the "
        "pretrained network, trained further on --features=efficientnet-lite0@160-block12.",
        ("", "dense", "residual", "conv", "efficientnet-lite0-block12"), "model",
    )  # fmt: skip
    hidden: str = flag(
        "", "Give a dense trunk layers of these widths, such as 1024,512, none for no layer; the "
        "default is the method's.", topic="model",
    )  # fmt: skip
    components: int = flag(
        0, "Show the network this many principal components of the features; 0 shows the features.",
        topic="model",
    )  # fmt: skip
    unit: bool = flag(
        False, "Scale what the network sees of the features to unit length.", topic="model"
    )
    dropout: float = flag(0.3, "Drop this share of what a dense layer sees.", topic="training")
    mirror: bool = flag(
        True, "Mirror training images at random, where a network sees images.",
        topic="augmentation",
    )  # fmt: skip
    scalars: str = flag(
        "", "Set numbers of the method, such as temperature=0.2,agreement=0.", topic="training"
    )
    optimizer: str = flag("adam", "Descend by this optimizer.", ("adam", "sgd"), "training")
    warmup: float = flag(
        0.0, "Raise the learning rate for this share of the run; then it falls along a cosine.",
        topic="training",
    )  # fmt: skip
    weight_decay: float = flag(0.0, "Let weights decay by this much.", topic="training")
    epochs: int = flag(10, "Pass this many times over the training images.", topic="training")
    batch_size: int = flag(128, "Use this many images per step.", topic="training")
    learning_rate: float = flag(1e-3, "Use this learning rate, at its highest.", topic="training")
    knn_positives: int = flag(
        0, "Give each image this many nearest neighbors as positives, found without labels; for "
        "methods that compare pairs.", topic="training",
    )  # fmt: skip
    baselines: bool = flag(False, "Score raw pixels, and ITQ, beside this method.")
    eval_k: int = flag(
        1000, "Report map@K/retrieved and precision@K at this K.", topic="codes and scores"
    )

    curve: bool = flag(
        False, "Also report precision@K at 100, 200, 400, 600 and 800.", topic="codes and scores"
    )

    fine: bool = flag(
        False, "Also score coarse-to-fine search (Lin 2015): of the images whose codes are nearest "
        "to the query's, those first whose features are nearest.", topic="codes and scores",
    )  # fmt: skip

    SCALARS = ("learning_rate", "weight_decay")
    EVALUATION = ("eval_k", "curve", "fine")
    ADDED = harness.Config.ADDED | {"curve": False, "mirror": True, "fine": False}

    def check(self) -> None:
        """See options.Config."""
        super().check()
        for name in ("bits", "eval_k"):
            harness.at_least(self, name, 1)
        harness.at_least(self, "knn_positives", 0)
        vectors.check_features(self.features)
        if self.fine and not self.features:
            raise ValueError("--fine needs --features, by which the nearest codes are ordered")
        self.settings()

    def extractor(self) -> str:
        """See options.Config."""
        return self.features

    def settings(self) -> dict:
        """Return the settings of the method that flags give."""
        names = (
            "trunk", "components", "unit", "dropout", "optimizer", "warmup", "weight_decay",
            "mirror", "epochs", "batch_size", "learning_rate",
        )  # fmt: skip
        given = {name: getattr(self, name) for name in names}
        if self.hidden:
            widths = "" if self.hidden == "none" else self.hidden
            given["hidden"] = harness.positive_integers("hidden", widths) if widths else ()
        for part in filter(None, self.scalars.split(",")):
            name, _, value = part.partition("=")
            try:
                given[name.strip()] = float(value)
            except ValueError:
                raise ValueError(f"--scalars must be name=number, got {part!r}") from None
        return given


CONFIG = MethodConfig


def hasher(config: MethodConfig, protocol):
    """Return the hasher that the flags name, for a protocol's images or vectors.

    Raises ValueError for a method that is not known or needs other arguments than bits.
    """
    from jaxret import hashers

    if config.method in hashers.METHODS:
        images = protocol.train
        arguments = config.bits, len(images.class_names), images.images.shape[1:]
        return hashers.method_hasher(config.method, *arguments, **config.settings())
    if config.method not in hashers.HASHERS:
        known = ", ".join(hashers.HASHERS)
        raise ValueError(f"--method must be one of {known}, got {config.method!r}")
    constructor = hashers.HASHERS[config.method]
    try:
        inspect.signature(constructor).bind(config.bits)
    except TypeError:  # it needs more than bits
        made = None
    else:
        made = constructor(config.bits)
    if made is None or made.training is not None:
        raise ValueError(f"--method={config.method} has a script of its own")
    return made


def positives(config: MethodConfig, images):
    """Return the nearest neighbors of each image, where flags ask for them."""
    import jaxret

    if not config.knn_positives:
        return None
    return jaxret.knn_positives(images, config.knn_positives, COMPONENTS, cosine=True)


def score(config: MethodConfig, hasher, params, protocol, overlap: int) -> dict[str, float]:
    """Return retrieval scores, and what the codes of the gallery are like."""
    import numpy as np

    from jaxret import pack
    from jaxret.evaluate import encode_in_batches

    def codes(part):
        return np.asarray(encode_in_batches(hasher.encode, params, part.images))

    query = protocol.query._replace(images=codes(protocol.query))  # compiles
    start = time.perf_counter()
    z = codes(protocol.gallery)
    seconds = time.perf_counter() - start
    # Codes in the place of images, so that each image is encoded once.
    coded = protocol._replace(query=query, gallery=protocol.gallery._replace(images=z))
    as_it_is = hasher._replace(encode=lambda params, z: z)
    scores = report.retrieval(config, as_it_is, params, coded, overlap)
    if config.fine:
        scores |= fine_scores(config, coded, protocol)
    return scores | {
        "balance": float(np.mean(np.abs(2 * np.mean(z >= 0, axis=0) - 1))),
        "distinct_codes": float(len(np.unique(np.asarray(pack(z)), axis=0))),
        "encode_seconds": seconds,
    }


def fine_scores(config: MethodConfig, coded, protocol) -> dict[str, float]:
    """Return scores of coarse-to-fine search.

    Args:
        config: the run's flags.
        coded: the protocol with codes in the place of images, real numbers whose signs are bits.
        protocol: the same with the features of images.
    """
    import numpy as np

    from jaxret import metrics, pack, search

    def parts(name):
        codes, x = (getattr(one, name).images for one in (coded, protocol))
        x = np.asarray(x, np.float32).reshape(len(x), -1)
        if config.unit:
            x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return np.asarray(pack(codes)), x

    k, labels = config.eval_k, protocol.gallery.labels
    found = search.coarse_to_fine_topk(*parts("query"), *parts("gallery"), k).indices
    relevant = metrics.same_label(protocol.query.labels, labels[found])
    everything = np.bincount(labels)[protocol.query.labels]
    return {
        f"map@{k}/retrieved/fine": float(metrics.mean_average_precision(relevant, everything)),
        f"precision@{k}/fine": float(np.mean(np.asarray(relevant))),
    }


if __name__ == "__main__":
    training.run(sys.modules[__name__])
