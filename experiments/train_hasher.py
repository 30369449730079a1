"""Train a deep residual hashing network; search by the Hamming distance of its codes; score it.

    python experiments/train_hasher.py --dataset=cifar10 --workdir=runs/drhn1

DRHN-n of Jimenez 2017. The defaults are the published recipe, for one block per group; its flagfile
and ours are in experiments/jimenez2017. Beside the retrieval scores metrics.json has the
classifier's accuracy on the queries, and on a fixed random sample of the training images as
accuracy/train.
"""

import dataclasses
import sys

import harness
import report
import training
from harness import flag

# Terms of the objective; each is a flag, its weight.
TERMS = ("classification", "quantisation", "cubic", "balance", "pairwise", "central")
ADVICE = ("more --epochs", "our recipe in experiments/jimenez2017/ours.flags")
WATCHED = 2000  # training images that are judged after each epoch
VERSION = 2  # grows when the same flags compute something else


@dataclasses.dataclass(frozen=True)
class HasherConfig(harness.Config):
    """Flags; the defaults are the settings of Jimenez 2017 and of the recipe it was built on."""

    epochs: int = flag(
        86, "Pass this many times over the training images; two are one epoch of the thesis.",
        topic="training",
    )  # fmt: skip
    batch_size: int = flag(128, "Use this many images per step.", topic="training")
    learning_rate: float = flag(
        0.1, "Use this learning rate, at its highest, of gradient descent with momentum 0.9.",
        topic="training",
    )  # fmt: skip
    depth: int = flag(
        1, "Use this many residual blocks per group, n of DRHN-n, 1 to 16.", topic="model"
    )
    bits: int = flag(48, "Give codes this many bits.", topic="model")
    bn_order: str = flag(
        "natural", "Order blocks as conv-BN-ReLU with ReLU after each sum (natural), or as "
        "equation 4.4 of the thesis has it (paper).", ("natural", "paper"), "model",
    )  # fmt: skip
    relaxation: str = flag(
        "sigmoid", "Show the classifier the sigmoid of the hash layer, or its sign (with the "
        "gradient passed through, as in GreedyHash).", ("sigmoid", "sign"), "model",
    )  # fmt: skip
    classification: float = flag(1.0, "Weight the classifier's cross-entropy.", topic="training")
    quantisation: float = flag(
        0.0, "Weight log cosh(|u| - 1) of each unit u in [-1, 1] of the code (DHN).",
        topic="training",
    )  # fmt: skip
    cubic: float = flag(
        0.0, "Weight ||u| - 1|^3 (GreedyHash, with --relaxation=sign).", topic="training"
    )
    balance: float = flag(
        0.0, "Weight the square of each bit's mean over the batch.", topic="training"
    )
    pairwise: float = flag(
        0.0, "Weight the negative log-likelihood of which pairs have the same class (DHN).",
        topic="training",
    )  # fmt: skip
    central: float = flag(
        0.0, "Weight the cross-entropy with the hash centre of the class (CSQ).", topic="training"
    )
    label_smoothing: float = flag(
        0.0, "Give this share of the label to all classes alike.", topic="training"
    )
    weight_decay: float = flag(
        2e-4, "Add this much of weights and of batch normalisation's factors to the gradient.",
        topic="training",
    )  # fmt: skip
    nesterov: bool = flag(False, "Use Nesterov's momentum.", topic="training")
    schedule: str = flag(
        "drops", "Divide the learning rate by 10 at --drops, raise and lower it in straight lines "
        "(one_cycle), raise it and lower it by a cosine, or keep it constant, so that a run can be "
        "trained longer.", ("drops", "one_cycle", "cosine", "constant"), "training",
    )  # fmt: skip
    drops: str = flag(
        "82,122", "Divide the learning rate by 10 after these epochs (drops).", topic="training"
    )
    warmup: float = flag(
        0.2, "Raise the learning rate for this share of the run (one_cycle, cosine).",
        topic="training",
    )  # fmt: skip
    ema: float = flag(
        0.0, "Encode by the mean of weights that keeps this much each step; 0 encodes by the last.",
        topic="training",
    )  # fmt: skip
    dtype: str = flag(
        "float32", "Compute convolutions in this type; weights and statistics are float32.",
        ("float32", "bfloat16"), "training",
    )  # fmt: skip
    mirror: bool = flag(True, "Mirror training images at random.", topic="augmentation")
    crop: float = flag(
        0.125, "Move training images by up to this share of their side (4 pixels of 32), filling "
        "with 0.", topic="augmentation",
    )  # fmt: skip
    cutout: float = flag(
        0.0, "Set a square of this share of the side of training images to 0.", topic="augmentation"
    )
    data_parallel: bool = flag(False, "Split each batch over all devices.")
    watch: bool = flag(
        False, "After each epoch log (and at the end draw) the classifier's loss and accuracy on "
        f"the queries and on {WATCHED:,} of the training images.",
    )  # fmt: skip
    eval_k: int = flag(
        1000, "Report map@K/retrieved and precision@K at this K.", topic="codes and scores"
    )

    # Each weight that is 0 leaves its term out, so that runs may differ in those that are not.
    SCALARS = ("learning_rate", "weight_decay", "label_smoothing", *TERMS, "ema")
    EVALUATION = ("eval_k",)
    # How many devices share the work is no more part of what is computed than where it is written.
    ELSEWHERE = (*harness.Config.ELSEWHERE, "data_parallel", "watch")

    def check(self) -> None:
        """See options.Config."""
        super().check()
        for name in ("depth", "bits", "eval_k"):
            harness.at_least(self, name, 1)
        if self.depth > 16:
            raise ValueError(f"--depth must lie between 1 and 16, got {self.depth}")
        if not any(getattr(self, name) for name in TERMS):
            raise ValueError(f"one of --{', --'.join(TERMS)} must be above 0")
        harness.check_settings(lambda: self.settings().check())

    def settings(self):
        """Return the hasher's settings: the flags of the same names."""
        from jaxret.hashers.deep import DeepSettings

        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(DeepSettings)}
        return DeepSettings(**values | {"drops": harness.positive_integers("drops", self.drops)})


CONFIG = HasherConfig


def hasher(config: HasherConfig, protocol):
    """Return the hasher that the flags describe, for a protocol's images.

    Raises DataError if the training images have no labels.
    """
    from jaxret import data, hashers

    images = protocol.train
    data.require_labels(images, "a hash network")
    return hashers.deep_hasher(
        config.bits,
        len(images.class_names),
        images.images.shape[1:],
        config.depth,
        **dataclasses.asdict(config.settings()),
    )


def positives(config: HasherConfig, images):
    """Return None: pairs come from labels."""
    del config, images


def watch(config: HasherConfig, hasher, protocol):
    """Return the function of params that gives further numbers of an epoch, or None.

    They are of WATCHED training images, those at the end of a run of report.MEASURED.
    """
    if not config.watch:
        return None
    return lambda params: classified(hasher, params, protocol, config.seed, WATCHED)


def classified(
    hasher, params, protocol, seed: int, count: int = report.MEASURED
) -> dict[str, float]:
    """Return loss and accuracy of the classifier on `count` training images and on the queries."""
    parts = {"train": report.sample(protocol.train, count), "test": protocol.query}
    means = {part: report.measured(hasher, params, images, seed) for part, images in parts.items()}
    return {f"{name}/{part}": means[part][name] for name in ("loss", "accuracy") for part in parts}


def score(config: HasherConfig, hasher, params, protocol, overlap: int) -> dict[str, float]:
    """Return retrieval scores and the classifier's accuracy."""
    judged = classified(hasher, params, protocol, config.seed)
    return report.retrieval(config, hasher, params, protocol, overlap) | {
        "accuracy": judged["accuracy/test"],
        "accuracy/train": judged["accuracy/train"],
    }


if __name__ == "__main__":
    training.run(sys.modules[__name__])
