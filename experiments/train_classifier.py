"""Train a convolutional classifier, whose last map is then the code; search it; score it.

    python experiments/train_classifier.py --dataset=cifar4 --workdir=runs/classifier

The network is figure 3 of Sahu n.d.: four blocks of two convolutions, then 4096.4096. The defaults
are the published settings, but for the number of epochs, which was not published. A kept run is
what the second stage starts from: see search_cifar4.py.
"""

import dataclasses
import sys

import harness
import training
from harness import flag
from train_hasher import WATCHED, positives, score, watch  # of any classifier

__all__ = ["positives", "score", "watch"]

ADVICE = ("more --epochs", "--mirror")
VERSION = 2  # grows when the same flags compute something else


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(harness.Config):
    """Flags; the defaults are the settings of Sahu n.d., section 3.3."""

    dataset: str = flag(
        "cifar4", "Read cifar4, any other data set by name, or folder:PATH, a folder of images "
        "with one sub-folder per class.", topic="data",
    )  # fmt: skip
    epochs: int = flag(50, "Pass this many times over the training images.", topic="training")
    batch_size: int = flag(128, "Use this many images per step.", topic="training")
    learning_rate: float = flag(1e-4, "Use this learning rate of Adam.", topic="training")
    decay: float = flag(
        1e-6, "Divide the learning rate by 1 plus this times the steps done.", topic="training"
    )
    channels: str = flag(
        "64,128,256,512", "Give both convolutions of each block these channels.", topic="model"
    )
    dropout: str = flag(
        "0.25,0.25,0.5,0.5", "Drop these shares of the numbers after each block in training.",
        topic="training",
    )  # fmt: skip
    dense: str = flag(
        "4096,4096", "Give the dense layers before the classes these widths.", topic="model"
    )
    mirror: bool = flag(False, "Mirror training images at random.", topic="augmentation")
    crop: float = flag(
        0.0, "Move training images by up to this share of their side, filling with 0.",
        topic="augmentation",
    )  # fmt: skip
    clean_statistics: bool = flag(
        False, "After each epoch measure the statistics of batch normalisation, by which images "
        "are encoded, without dropout.", topic="training",
    )  # fmt: skip
    ema: float = flag(
        0.0, "Encode by an exponential moving average of the weights, which keeps this share of "
        "itself each step; 0 encodes by the last weights.", topic="training",
    )  # fmt: skip
    watch: bool = flag(
        False, "After each epoch log (and at the end draw) loss and accuracy on the queries and on "
        f"{WATCHED:,} of the training images.",
    )  # fmt: skip
    eval_k: int = flag(
        10, "Report map@K/retrieved and precision@K at this K.", topic="codes and scores"
    )

    SCALARS = ("learning_rate", "decay", "ema")
    EVALUATION = ("eval_k",)
    ELSEWHERE = (*harness.Config.ELSEWHERE, "watch")
    ADDED = harness.Config.ADDED | {"clean_statistics": False, "ema": 0.0}

    def check(self) -> None:
        """See options.Config."""
        super().check()
        harness.at_least(self, "eval_k", 1)
        settings = self.settings()
        harness.check_settings(settings.check)

    def settings(self):
        """Return the hasher's settings: the flags of the same names."""
        from jaxret.hashers import ClassifierSettings

        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(ClassifierSettings)}
        for name in ("channels", "dense"):
            values[name] = harness.positive_integers(name, values[name])
        try:
            values["dropout"] = tuple(map(float, self.dropout.split(",")))
        except ValueError:
            raise ValueError(
                f"--dropout must be shares such as 0.25,0.5, got {self.dropout!r}"
            ) from None
        return ClassifierSettings(**values)


CONFIG = ClassifierConfig


def hasher(config: ClassifierConfig, protocol):
    """Return the classifier that the flags describe, for a protocol's images.

    Raises DataError if the training images have no labels.
    """
    from jaxret import data, hashers

    images = protocol.train
    data.require_labels(images, "a classifier")
    shape, settings = images.images.shape[1:], dataclasses.asdict(config.settings())
    return hashers.classifier_hasher(len(images.class_names), shape, **settings)


if __name__ == "__main__":
    training.run(sys.modules[__name__])
