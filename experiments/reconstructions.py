"""Query images and what the autoencoders of finished runs make of them: a row for each run.

    python experiments/reconstructions.py --runs=runs/A,runs/B,runs/C --out=figure2.png

Of the runs of sahu/{A,B,C}.flags this is figure 2 of Sahu et al.
"""

import dataclasses
from pathlib import Path

import harness
from harness import flag


@dataclasses.dataclass(frozen=True)
class ReconstructionsConfig:
    """Flags."""

    runs: str = flag("", "work folders of train_autoencoder.py, between commas; required")
    names: str = flag("", "what their rows are called; none: the folders' names")
    out: str = flag("", "the picture, a PNG file; required")
    images: int = flag(10, "how many images, the first of each class before others")
    data_dir: str = flag("", "where the raw files of the data sets lie [JAXRET_DATA_DIR]")

    def check(self) -> None:
        """See harness.Config."""
        for name in ("runs", "out"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is required")
        harness.at_least(self, "images", 1)
        if self.names and len(self.names.split(",")) != len(self.runs.split(",")):
            raise ValueError(f"--names must name each of --runs, got {self.names!r}")


def main(config: ReconstructionsConfig) -> None:
    """Draw."""
    import jax
    import numpy as np
    import train_autoencoder

    from jaxret import viz

    runs, rebuilt, shown, source = config.runs.split(","), [], None, None
    for run in runs:
        flags, model, params, protocol = train_autoencoder.finished(run, config.data_dir)
        if source not in (None, (flags.dataset, flags.protocol)):
            raise ValueError(f"runs must be of the same images, {run} is of {flags.dataset}")
        source = flags.dataset, flags.protocol
        first = np.unique(protocol.query.labels, return_index=True)[1]
        others = np.setdiff1d(np.arange(len(protocol.query.labels)), first)
        shown = protocol.query.images[np.append(first, others)[: config.images]]
        rebuilt.append(np.asarray(jax.jit(model.reconstruct)(params, shown)))
    names = config.names.split(",") if config.names else [Path(run).name for run in runs]
    harness.save_figure(Path(config.out), viz.reconstructions(shown, *rebuilt, names=names))
    print(f"written to {config.out}")


if __name__ == "__main__":
    harness.run(ReconstructionsConfig, main)
