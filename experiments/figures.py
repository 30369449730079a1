"""Draw figures of trained hash networks, from the work folders that train_hasher.py left.

    python experiments/figures.py --runs=runs/drhn15-48,runs/drhn15-12 --workdir=figures

For each run, in a folder of its name: codes.png, confusion.png, first_layer.png (Jimenez 2017,
figures 4.4, 5.4 and 4.3). For all runs: precision.png (figure 5.6), precision-published.png if a
run has 48 bits of CIFAR-10 (figure 5.5), and the first ten results by bits (figure 5.7) and by
depth (figure 5.9) of runs that differ only in these. Loss, accuracy and each run's own results are
in its plots/. --curves adds other methods to figure 5.5, or draws it without a run.
"""

import collections
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import harness
import train_hasher
import training
from harness import flag
from jimenez2017.published import PRECISION, PRECISION_KS

if TYPE_CHECKING:
    import numpy as np  # --help does without

KS = (1, *range(50, 1001, 50))
SHOWN = ("ship", "frog", "horse", "airplane")  # classes whose first query is shown
CODES = 8  # drawn per class
CLASSES = 10  # the first ones, drawn in codes.png
RESULTS = 10  # drawn per query


@dataclasses.dataclass(frozen=True)
class FiguresConfig:
    """Flags."""

    runs: str = flag("", "Draw these finished runs of train_hasher.py: work folders.")
    curves: str = flag(
        "", "Draw the curves of this table.json: of reproduce.py --table=jimenez2017:curves over "
        "the published points of figure 5.5, or of --table=hashing:cifar100-curves. This or --runs "
        "is required.",
    )  # fmt: skip
    workdir: str = flag("", "Write the figures into this folder (required).")
    data_dir: str = flag(
        "", "Look for the raw files of the data sets in this folder; the default is the "
        "environment variable JAXRET_DATA_DIR.", topic="data",
    )  # fmt: skip

    def check(self) -> None:
        """See options.Config."""
        if not self.workdir:
            raise ValueError("--workdir is required")
        if not (self.runs or self.curves):
            raise ValueError("--runs is required, or --curves")
        if self.curves and not Path(self.curves).is_file():
            raise ValueError(f"--curves: {self.curves} is no file")
        folders = self.folders()
        for folder in folders:
            if not (folder / "metrics.json").exists():
                raise ValueError(f"--runs: {folder} holds no finished run (no metrics.json)")
        if len({folder.name for folder in folders}) < len(folders):
            raise ValueError(f"--runs must have different last names, got {self.runs!r}")

    def folders(self) -> list[Path]:
        """Return the runs' work folders."""
        return [Path(run).resolve() for run in self.runs.split(",") if run]


class Run(NamedTuple):
    """What figures of several runs are made of."""

    name: str
    dataset: str
    depth: int
    bits: int
    precision: Any  # (KS, precision of the first K results)
    queries: Any  # the first query of each class of SHOWN
    found: Any  # their first RESULTS results
    right: Any  # whether these have the query's class
    distances: Any
    classes: Sequence[str] = ()  # of the queries


def draw_run(folder: Path, into: Path, data_dir: str) -> Run:
    """Draw a run's own figures, and return what figures of several runs need of it."""
    import numpy as np

    from jaxret.evaluate import encode_in_batches

    config, protocol, hasher, params = training.finished(train_hasher, folder, data_dir)
    query = encode_in_batches(hasher.encode, params, protocol.query.images)
    gallery = encode_in_batches(hasher.encode, params, protocol.gallery.images)
    title = f"{protocol.name}, {folder.name}"
    _draw_network(into / folder.name, hasher, params, protocol.query, np.asarray(query), title)
    first = _rows_by_class(protocol.query)
    names = SHOWN if SHOWN[0] in first else list(first)[: len(SHOWN)]
    shown = [first[name][0] for name in names]
    precision, rows, right, distances = _search(query, gallery, protocol, hasher.distance)
    return Run(
        folder.name,
        config.dataset,
        config.depth,
        config.bits,
        precision,
        protocol.query.images[shown],
        protocol.gallery.images[rows[shown, :RESULTS]],
        right[shown, :RESULTS],
        distances[shown, :RESULTS],
        names,
    )


def _rows_by_class(images: Any) -> "dict[str, np.ndarray]":
    """Return the first rows of each of the first classes."""
    import numpy as np

    names = images.class_names[:CLASSES]
    return {name: np.flatnonzero(images.labels == i)[:CODES] for i, name in enumerate(names)}


def _search(query, gallery, protocol, distance) -> "tuple[Any, np.ndarray, np.ndarray, np.ndarray]":
    """Return precision at KS, and of each query the nearest rows, if right, and distances."""
    import numpy as np

    from jaxret import metrics
    from jaxret.evaluate import nearest

    found = nearest(query, gallery, min(KS[-1], len(gallery)), distance)
    rows = np.asarray(found.indices)
    right = np.asarray(metrics.same_label(protocol.query.labels, protocol.gallery.labels[rows]))
    ks = [k for k in KS if k <= rows.shape[1]]
    precision = np.asarray(metrics.precision_at(right, ks)).mean(axis=0)
    return (np.asarray(ks), precision), rows, right, np.asarray(found.distances)


def _draw_network(into: Path, hasher, params, query, codes: "np.ndarray", title: str) -> None:
    """Draw confusion.png, codes.png and first_layer.png."""
    import jax
    import numpy as np

    from jaxret import metrics, viz
    from jaxret.evaluate import encode_in_batches
    from jaxret.hashers.deep import functions_of

    functions, names = functions_of(hasher), query.class_names
    logits = np.asarray(encode_in_batches(jax.jit(functions.classify), params, query.images))
    counts = metrics.confusion_counts(query.labels, np.argmax(logits, axis=1), len(names))
    figure = viz.confusion_matrix(counts, names, title=title)
    harness.save_figure(into / "confusion.png", figure)

    first = _rows_by_class(query)
    least = min(map(len, first.values()))
    bits = codes[[rows[:least] for rows in first.values()]] >= 0
    harness.save_figure(into / "codes.png", viz.code_strips(bits, list(first), title=title))

    image = query.images[first.get(SHOWN[0], first[names[0]])[0]]
    filters = params.get("average", params)["params"]["trunk"]["Conv_0"]["kernel"]
    maps = functions.maps(params, image[None])[0][0]
    layer = [np.asarray(values, np.float32) for values in (filters, maps)]
    harness.save_figure(into / "first_layer.png", viz.first_layer(image, *layer, title=title))


def named(runs: list[Run]) -> dict[str, Run]:
    """Return runs by depth, and by the folder's name where several have one depth and length."""
    times = collections.Counter((run.depth, run.bits) for run in runs)

    def name(run):
        alone = times[run.depth, run.bits] == 1
        return f"DRHN-{run.depth}" if alone else f"DRHN-{run.depth}, {run.name}"

    return {name(run): run for run in runs}


def grid(runs: list[Run], queries: slice, name_of: Callable[[Run], str]) -> Any:
    """Return a figure of the first results of several runs, those of a query below each other."""
    import numpy as np

    from jaxret import viz

    columns = [
        np.stack([getattr(run, field)[queries] for run in runs], axis=1)
        for field in ("queries", "found", "right", "distances")
    ]
    columns = [column.reshape(-1, *column.shape[2:]) for column in columns]
    rows = [name_of(run) for run in runs] * (len(columns[0]) // len(runs))
    classes = [name for name in runs[0].classes[queries] for _ in runs]
    title = _title(runs)
    return viz.retrieval_grid(*columns, rows, classes=classes, distance="hamming", title=title)


def _title(runs: list[Run]) -> str:
    datasets = sorted({run.dataset for run in runs})
    return f"{', '.join(datasets)}: {', '.join(run.name for run in runs)}"


def curves_of(path: Path) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
    """Return precision of the first K of each row of a table.json that was run."""
    import numpy as np

    curves = {}
    try:
        for row in json.loads(path.read_text())["rows"]:
            for column in ("as_published", "ours"):
                if row[column]:
                    at = row["metrics"][column]
                    first = (at[f"precision@{k}"] for k in PRECISION_KS[:-1])
                    points = np.asarray([*first, row[column]["mean"]])
                    curves[row["name"]] = np.asarray(PRECISION_KS), points
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--curves: {path} is not the table.json of reproduce.py --table=jimenez2017:curves or "
            "--table=hashing:cifar100-curves"
        ) from error
    return curves


def draw_curves(curves: "dict[str, tuple[np.ndarray, np.ndarray]]", into: Path, title: str) -> None:
    """Draw precision-published.png: curves at 48 bits over the published points."""
    import numpy as np

    from jaxret import viz

    published = {
        name: (np.asarray(PRECISION_KS), np.asarray(points)) for name, points in PRECISION.items()
    }
    figure = viz.precision_curves({"48 bits": curves}, published, title=title)
    harness.save_figure(into / "precision-published.png", figure)


def draw_table(path: Path, into: Path) -> None:
    """Draw the curves of a table.json: of CIFAR-10 over the published points, else alone."""
    from jaxret import viz

    curves, table = curves_of(path), json.loads(path.read_text())
    if table["protocol"].startswith("cifar10-"):
        draw_curves(curves, into, "cifar10: methods run by us, and as published")
        return
    figure = viz.precision_curves({table["title"]: curves}, {}, title=table["protocol"])
    harness.save_figure(into / "precision.png", figure)


def draw_together(runs: list[Run], into: Path, curves: "dict[str, Any]") -> None:
    """Draw the figures that compare runs; curves are of methods that were run elsewhere."""
    from jaxret import viz

    panels: dict[str, dict[str, Any]] = {}
    for bits in sorted({run.bits for run in runs}):
        same = named([run for run in runs if run.bits == bits])
        panels[f"{bits} bits"] = {name: run.precision for name, run in same.items()}
    figure = viz.precision_curves(panels, {}, title=_title(runs))
    harness.save_figure(into / "precision.png", figure)
    if any(run.dataset == "cifar10" and run.bits == 48 for run in runs):
        title = _title([run for run in runs if run.bits == 48])
        draw_curves(panels["48 bits"] | curves, into, title)

    # Of runs of the same network the first is shown.
    networks = {(run.depth, run.bits): run for run in reversed(runs)}
    in_order = [networks[key] for key in sorted(networks)]
    for depth in {run.depth for run in in_order}:
        same = [run for run in in_order if run.depth == depth]
        if len(same) > 1:
            figure = grid(same, slice(None), lambda run: f"{run.bits} bits")
            harness.save_figure(into / f"by-bits-drhn{depth}.png", figure)
    for bits in {run.bits for run in in_order}:
        same = [run for run in in_order if run.bits == bits]
        if len(same) > 1:
            figure = grid(same, slice(1), lambda run: f"DRHN-{run.depth}")
            harness.save_figure(into / f"by-depth-{bits}bits.png", figure)


def main(config: FiguresConfig) -> None:
    """Draw each run, then all."""
    into = Path(config.workdir)
    runs = [draw_run(folder, into, config.data_dir) for folder in config.folders()]
    if runs:
        draw_together(runs, into, curves_of(Path(config.curves)) if config.curves else {})
    else:
        draw_table(Path(config.curves), into)
    for path in sorted(into.rglob("*.png")):
        print(path)


if __name__ == "__main__":
    harness.run(FiguresConfig, main)
