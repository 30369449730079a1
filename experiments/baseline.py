"""Codes that need no gradient descent, which learned codes must beat: a row of the baselines.

    python experiments/baseline.py --method=itq --bits=32 --dataset=mnist --workdir=runs/itq-32
    python experiments/baseline.py --method=ksh --bits=48 --features=gist --dataset=cifar10 \
        --protocol=cifar10-59k@all --workdir=runs/ksh-48

The methods are jaxret.HASHERS without a training: raw pixels and principal components compared by
Euclidean distance, and bits, some of which learn from labels.
"""

import dataclasses
import json
import sys
from typing import Any

import harness
import report
import training
import vectors
from harness import flag

ADVICE = ("another --method", "more --bits")
VERSION = 2  # grows when the same flags compute something else


@dataclasses.dataclass(frozen=True)
class BaselineConfig(harness.Config):
    """Flags."""

    method: str = flag(
        "pixels", "Make codes by this hasher of jaxret.HASHERS: pixels, pca, lsh, pcah, itq or any "
        "other without training.", topic="model",
    )  # fmt: skip
    dim: int = flag(10, "Give real-valued codes (pca) this many numbers.", topic="model")
    bits: int = flag(32, "Give binary codes (lsh, pcah, itq) this many bits.", topic="model")
    settings: str = flag(
        "", "Give the method these settings of its own: name=value, several between commas, such "
        "as centred=false.", topic="model",
    )  # fmt: skip
    features: str = flag(
        "", "Hash these features of the images, a name of jaxret.features.FEATURES such as gist; "
        "the default is the pixels.", topic="model",
    )  # fmt: skip
    baselines: bool = flag(False, "Score raw pixels, and ITQ or PCA, beside this method.")
    eval_k: int = flag(
        2, "Report map@K/retrieved and precision@K at this K.", topic="codes and scores"
    )

    curve: bool = flag(
        False, "Also report precision@K at 100, 200, 400, 600 and 800.", topic="codes and scores"
    )

    SCALARS = ()
    EVALUATION = ("eval_k", "curve")
    ADDED = harness.Config.ADDED | {"bits": 32, "settings": "", "features": "", "curve": False}

    def check(self) -> None:
        """See options.Config."""
        super().check()
        for name in ("dim", "bits", "eval_k"):
            harness.at_least(self, name, 1)
        self.own_settings()
        vectors.check_features(self.features)

    def extractor(self) -> str:
        """See options.Config."""
        return self.features

    def own_settings(self) -> dict[str, Any]:
        """Return what --settings gives, as arguments of the method's constructor."""
        pairs = [part.partition("=") for part in self.settings.split(",") if part.strip()]
        if not all(name.strip().isidentifier() and value for name, _, value in pairs):
            raise ValueError(f"--settings must be name=value,..., got {self.settings!r}")
        return {name.strip(): _value(value.strip()) for name, _, value in pairs}


def _value(text: str) -> Any:
    """Return a number, true, false or null as such, and anything else as text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


CONFIG = BaselineConfig


def hasher(config: BaselineConfig, protocol):
    """Return the hasher that the flags name.

    Raises ValueError for a method that is none of HASHERS, or one that is trained.
    """
    import inspect

    from jaxret import hashers

    del protocol
    known = {
        name: tuple(inspect.signature(make).parameters)
        for name, make in hashers.HASHERS.items()
        if "image_shape" not in inspect.signature(make).parameters
    }
    if config.method not in known:
        raise ValueError(f"--method must be one of {', '.join(known)}, got {config.method!r}")
    names, settings = known[config.method], config.own_settings()
    size = {"bits": config.bits, "dims": config.dim}
    size = {name: size[name] for name in names[:1]}
    if "settings" not in names and (unknown := settings.keys() - (set(names) - size.keys())):
        own = ", ".join(names[1:]) or "none"
        raise ValueError(
            f"--settings: {min(unknown)} is no setting of {config.method}; there are {own}"
        )
    return hashers.HASHERS[config.method](**size, **settings)


def positives(config: BaselineConfig, images):
    """Return None: nothing here compares images while it learns."""
    del config, images


def score(config: BaselineConfig, hasher, params, protocol, overlap: int) -> dict[str, float]:
    """Return retrieval scores."""
    return report.retrieval(config, hasher, params, protocol, overlap)


if __name__ == "__main__":
    training.run(sys.modules[__name__])
