"""Draw query images and their reconstructions by finished autoencoders: a row for each run.

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

    runs: str = flag(
        "", "Draw these finished runs of train_autoencoder.py: work folders (required)."
    )
    names: str = flag("", "Name the rows so; the default is the names of the folders.")
    out: str = flag("", "Write the picture to this PNG file (required).")
    images: int = flag(10, "Draw this many query images, spread over the classes.", topic="data")
    seed: int = flag(0, "Draw the images of each class by this seed.", topic="data")
    data_dir: str = flag(
        "", "Look for the raw files of the data sets in this folder; the default is the "
        "environment variable JAXRET_DATA_DIR.", topic="data",
    )  # fmt: skip

    def check(self) -> None:
        """See options.Config."""
        for name in ("runs", "out"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is required")
        harness.at_least(self, "images", 1)
        if self.names and len(self.names.split(",")) != len(self.runs.split(",")):
            raise ValueError(f"--names must name each of --runs, got {self.names!r}")


def main(config: ReconstructionsConfig) -> None:
    """Draw the picture."""
    import drawing
    import numpy as np
    import train_autoencoder
    import training

    from jaxret import viz

    folders = [Path(run) for run in config.runs.split(",")]
    rebuilt, columns, images, protocol = [], [], None, ""
    for folder in folders:
        _, loaded, hasher, params = training.finished(train_autoencoder, folder, config.data_dir)
        if protocol not in ("", loaded.name):
            raise ValueError(f"--runs must be of {protocol}, {folder} is of {loaded.name}")
        protocol = loaded.name
        labels = drawing.first_classes(loaded.query)
        rows = viz.rows_across_classes(labels, config.images, config.seed)
        images, columns = loaded.query.images[rows], drawing.class_names(loaded.query, rows)
        rebuilt.append(np.asarray(hasher.decode(params, hasher.encode(params, images))))
    names = config.names.split(",") if config.names else [folder.name for folder in folders]
    figure = viz.reconstructions(images, *rebuilt, names=names, columns=columns, title=protocol)
    harness.save_figure(Path(config.out), figure)
    print(f"written to {config.out}")


if __name__ == "__main__":
    harness.run(ReconstructionsConfig, main)
