"""Figures of trained hashing networks, from the work folders that train_hasher left.

    python experiments/figures.py --runs=runs/drhn15-48,runs/drhn15-12 --workdir=figures

For each run, in a folder of its name: codes.png, confusion.png, first_layer.png (Jimenez 2017,
figures 4.4, 5.4 and 4.3). For all: precision.png (figure 5.6), precision-published.png where a run
has 48 bits of CIFAR-10 (figure 5.5), and where runs differ only so, the first ten results by bits
(figure 5.7) and by depth (figure 5.9). Loss, accuracy and each run's own results are in its plots/.
"""

import collections
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import harness
import numpy as np
import train_hasher
from harness import flag
from jimenez2017.tables import PRECISION, PRECISION_KS

KS = (1, *range(50, 1001, 50))
SHOWN = ("ship", "frog", "horse", "airplane")  # classes whose first query is shown
CODES = 8  # shown of each class


@dataclasses.dataclass(frozen=True)
class FiguresConfig:
    """Flags."""

    runs: str = flag("", "work folders of finished runs of train_hasher, between commas; required")
    workdir: str = flag("", "where the figures go; required")
    data_dir: str = flag("", "where the raw files of the data sets lie [JAXRET_DATA_DIR]")

    def check(self) -> None:
        """See harness.Config."""
        for name in ("runs", "workdir"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is required")
        folders = self.folders()
        for folder in folders:
            if not (folder / "metrics.json").exists():
                raise ValueError(f"--runs: {folder} holds no finished run (no metrics.json)")
        if len({folder.name for folder in folders}) < len(folders):
            raise ValueError(f"--runs must have different last names, got {self.runs!r}")

    def folders(self) -> list[Path]:
        """Of the runs."""
        return [Path(run).resolve() for run in self.runs.split(",")]


class Run(NamedTuple):
    """What the figures of several runs are made of."""

    name: str
    dataset: str
    depth: int
    bits: int
    precision: Any  # at KS
    queries: Any  # images of SHOWN
    found: Any  # their first ten
    right: Any
    distances: Any


@functools.cache
def protocol_of(name: str, dataset: str, data_dir: str, image_size: int):
    """Loaded once for all runs."""
    from jaxret import data

    return data.load_protocol(name, dataset, data_dir or None, image_size)


def restored(folder: Path, data_dir: str):
    """A finished run's configuration, images, network and weights."""
    import jax

    from jaxret import hashers
    from jaxret.checkpoint import Checkpoints

    flags = json.loads((folder / "metrics.json").read_text())["config"]
    config = train_hasher.HasherConfig(**flags | {"data_dir": data_dir})
    protocol = protocol_of(config.protocol, config.dataset, data_dir, config.image_size)
    mean = hashers.mean_image(protocol.train.images)
    model = train_hasher.build(config, mean, len(protocol.train.class_names))
    like = model.trainer.init(jax.random.key(config.seed), config.hyper())
    checkpoints = Checkpoints(folder / "checkpoints", config.identity())
    state = checkpoints.restore(like)
    checkpoints.close()
    return config, protocol, model, hashers.weights(state)


def drawn(folder: Path, into: Path, data_dir: str) -> Run:
    """Draw a run's own figures."""
    import jax

    from jaxret import metrics, viz
    from jaxret.evaluate import encode_in_batches, nearest

    config, protocol, model, params = restored(folder, data_dir)
    encode = train_hasher.make_encode(config, model)
    gallery = encode_in_batches(encode, params, protocol.gallery.images)
    query = encode_in_batches(encode, params, protocol.query.images)
    images, labels, names = protocol.query
    into = into / folder.name

    logits = np.asarray(encode_in_batches(jax.jit(model.classify), params, images))
    counts = metrics.confusion_counts(labels, np.argmax(logits, axis=1), len(names))
    harness.save_figure(into / "confusion.png", viz.confusion_matrix(counts, names))
    few = {name: np.flatnonzero(labels == i)[:CODES] for i, name in enumerate(names[:10])}
    least = min(map(len, few.values()))
    codes = np.asarray(query)[[rows[:least] for rows in few.values()]] >= 0
    harness.save_figure(into / "codes.png", viz.code_strips(codes, list(few)))
    shown = few.get(SHOWN[0], few[names[0]])[0]
    filters = params.get("average", params)["params"]["trunk"]["Conv_0"]["kernel"]
    maps = model.maps(params, jax.numpy.asarray(images[shown : shown + 1]))[0][0]
    figure = viz.first_layer(images[shown], *(np.asarray(a, np.float32) for a in (filters, maps)))
    harness.save_figure(into / "first_layer.png", figure)

    found = nearest(query, gallery, min(KS[-1], len(gallery)), "hamming")
    rows = np.asarray(found.indices)
    right = np.asarray(metrics.same_label(labels, protocol.gallery.labels[rows]))
    ks = [k for k in KS if k <= rows.shape[1]]
    precision = np.asarray(metrics.precision_at(jax.numpy.asarray(right), ks)).mean(axis=0)
    some = [few[name][0] for name in (SHOWN if SHOWN[0] in few else list(few)[: len(SHOWN)])]
    first = rows[some, :10]
    return Run(
        folder.name,
        config.dataset,
        config.depth,
        config.bits,
        (np.asarray(ks), precision),
        images[some],
        protocol.gallery.images[first],
        right[some, :10],
        np.asarray(found.distances)[some, :10],
    )


def named(runs: list[Run]) -> dict[str, Run]:
    """By depth, and by the folder's name where that does not tell them apart."""
    times = collections.Counter((run.depth, run.bits) for run in runs)

    def name(run):
        alone = times[run.depth, run.bits] == 1
        return f"DRHN-{run.depth}" if alone else f"DRHN-{run.depth}, {run.name}"

    return {name(run): run for run in runs}


def grid(runs: list[Run], queries: slice, name_of) -> Any:
    """The first ten results of several runs, all of a query's together."""
    from jaxret import viz

    columns = [
        np.stack([getattr(run, field)[queries] for run in runs], axis=1)
        for field in ("queries", "found", "right", "distances")
    ]
    columns = [column.reshape(-1, *column.shape[2:]) for column in columns]
    names = [name_of(run) for run in runs] * (len(columns[0]) // len(runs))
    return viz.retrieval_grid(*columns, names)


def draw_together(runs: list[Run], into: Path) -> None:
    """The figures that compare runs."""
    from jaxret import viz

    panels: dict[str, dict[str, Any]] = {}
    for bits in sorted({run.bits for run in runs}):
        of_bits = named([run for run in runs if run.bits == bits])
        panels[f"{bits} bits"] = {name: run.precision for name, run in of_bits.items()}
    harness.save_figure(into / "precision.png", viz.precision_curves(panels, {}))
    if any(run.dataset == "cifar10" and run.bits == 48 for run in runs):
        published = {
            name: (np.asarray(PRECISION_KS), np.asarray(points))
            for name, points in PRECISION.items()
        }
        figure = viz.precision_curves({"48 bits": panels["48 bits"]}, published)
        harness.save_figure(into / "precision-published.png", figure)

    # Of runs of the same network the first is shown.
    networks = {(run.depth, run.bits): run for run in reversed(runs)}
    in_order = [networks[key] for key in sorted(networks)]
    for depth in {run.depth for run in in_order}:
        some = [run for run in in_order if run.depth == depth]
        if len(some) > 1:
            figure = grid(some, slice(None), lambda run: f"{run.bits} bits")
            harness.save_figure(into / f"by-bits-drhn{depth}.png", figure)
    for bits in {run.bits for run in in_order}:
        some = [run for run in in_order if run.bits == bits]
        if len(some) > 1:
            figure = grid(some, slice(1), lambda run: f"DRHN-{run.depth}")
            harness.save_figure(into / f"by-depth-{bits}bits.png", figure)


def main(config: FiguresConfig) -> None:
    """Draw each run, then all."""
    into = Path(config.workdir)
    runs = [drawn(folder, into, config.data_dir) for folder in config.folders()]
    draw_together(runs, into)
    for path in sorted(into.rglob("*.png")):
        print(path)


if __name__ == "__main__":
    harness.run(FiguresConfig, main)
