"""Codes that need no gradient descent, which learned codes must beat: a row of the baselines.

    python experiments/baseline.py --method=itq --bits=32 --dataset=mnist --workdir=runs/itq-32

The methods are jaxret.HASHERS without a training: raw pixels and principal components compared by
Euclidean distance, and bits.
"""

import dataclasses
import sys

import harness
import report
import training
from harness import flag

ADVICE = "try another --method or more --bits"
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
    baselines: bool = flag(False, "Score raw pixels, and ITQ or PCA, beside this method.")
    eval_k: int = flag(
        2, "Report map@K/retrieved and precision@K at this K.", topic="codes and scores"
    )

    SCALARS = ()
    EVALUATION = ("eval_k",)
    ADDED = {**harness.Config.ADDED, "bits": 32}  # noqa: RUF012

    def check(self) -> None:
        """See options.Config."""
        super().check()
        for name in ("dim", "bits", "eval_k"):
            harness.at_least(self, name, 1)


CONFIG = BaselineConfig


def hasher(config: BaselineConfig, protocol):
    """Return the hasher that the flags name.

    Raises ValueError for a method that is none of HASHERS, or one that is trained.
    """
    import inspect

    from jaxret import hashers

    del protocol
    known = {
        name: tuple(inspect.signature(make).parameters)[:1]
        for name, make in hashers.HASHERS.items()
        if "image_shape" not in inspect.signature(make).parameters
    }
    if config.method not in known:
        raise ValueError(f"--method must be one of {', '.join(known)}, got {config.method!r}")
    size = {"bits": config.bits, "dims": config.dim}
    return hashers.HASHERS[config.method](*(size[name] for name in known[config.method]))


def positives(config: BaselineConfig, images):
    """Return None: nothing here compares images while it learns."""
    del config, images


def score(config: BaselineConfig, hasher, params, protocol, overlap: int) -> dict[str, float]:
    """Return retrieval scores."""
    return report.retrieval(config, hasher, params, protocol, overlap)


if __name__ == "__main__":
    training.run(sys.modules[__name__])
