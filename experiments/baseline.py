"""The floors that learnt codes must beat: raw pixels, principal components; no training.

python experiments/baseline.py --method=pca --dim=10 --dataset=mnist --workdir=runs/pca-10
"""

import dataclasses
import time

import harness
import report
from harness import flag


@dataclasses.dataclass(frozen=True)
class BaselineConfig(harness.Config):
    """Flags."""

    method: str = flag("pixels", "pixels as they are, or their principal components",
                       ("pixels", "pca"))  # fmt: skip
    dim: int = flag(10, "numbers per code (pca)")
    eval_k: int = flag(2, "K of map@K/retrieved and precision@K")

    def check(self) -> None:
        """See harness.Config."""
        super().check()
        harness.at_least(self, "dim", 1)
        harness.at_least(self, "eval_k", 1)

    def hyper(self) -> dict[str, float]:
        """Nothing is trained."""
        return {}


def fit(config: BaselineConfig, protocol, overlap: int) -> report.Trained:
    """The hasher that the flags describe."""
    import jax

    from jaxret import hashers

    hasher = {
        "pixels": hashers.pixels_hasher,
        "pca": lambda: hashers.pca_hasher(config.dim),
    }[config.method]()
    params, _ = hasher.fit(jax.random.key(config.seed), protocol.train.images, None)
    return report.Trained(protocol, overlap, hasher.encode, params, hasher.distance)


def run_rows(configs, protocol, overlap, together):
    """A table's rows."""
    del together  # nothing is trained
    for config in configs:
        start = time.perf_counter()
        metrics = report.score(fit(config, protocol, overlap), config.eval_k)
        yield (
            config,
            {
                "metrics": metrics,
                "together": 1,
                "seconds": time.perf_counter() - start,
            },
        )


CONFIG = BaselineConfig


def main(config: BaselineConfig) -> None:
    """One run."""
    protocol, overlap = harness.load_data(config)
    workdir = harness.Workdir(config)
    start = time.perf_counter()
    trained = fit(config, protocol, overlap)
    seconds = time.perf_counter() - start
    record = {"epochs": 0, "steps": 0, "seconds": seconds, "images_per_second": None}
    report.draw(workdir, trained, [])
    report.finish(workdir, config, trained, report.score(trained, config.eval_k), record)


if __name__ == "__main__":
    harness.run(BaselineConfig, main)
