"""Draw every model of some tables as a point: does better reconstruction mean better retrieval?

    python experiments/zoo.py --tables=runs/sahu,runs/gamal --out=zoo.png

The tables are work folders that reproduce.py filled; tables of another protocol are left out. The
rank correlation (Spearman) of error and score is printed and drawn.
"""

import dataclasses
import json
from pathlib import Path

import harness
from harness import flag
from table import COLUMNS

MEANINGS = {"mse": "squared error per pixel", "bce": "binary cross-entropy, nats per pixel"}


@dataclasses.dataclass(frozen=True)
class ZooConfig:
    """Flags."""

    tables: str = flag(
        "", "Read the table.json of these folders and of the folders in them (required)."
    )
    out: str = flag("", "Write the picture to this PNG file (required).")
    protocol: str = flag("mnist-test", "Count only tables of this protocol.", topic="data")
    error: str = flag(
        "mse/test", "Draw this extra metric of the tables across.", topic="codes and scores"
    )
    score: str = flag(
        "map@2/retrieved", "Draw this extra metric upwards.", topic="codes and scores"
    )
    code_size: int = flag(
        0, "Draw only models whose code is this many numbers; 0: all.", topic="codes and scores"
    )

    def check(self) -> None:
        """See options.Config."""
        for name in ("tables", "out"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is required")


def points_of(config: ZooConfig) -> dict[str, dict[str, tuple[float, float]]]:
    """Return (error, score) of every row that was run, by its and its table's name, and column."""
    points: dict[str, dict[str, tuple[float, float]]] = {}
    for folder in config.tables.split(","):
        files = sorted([*Path(folder).glob("table.json"), *Path(folder).glob("*/table.json")])
        if not files:
            raise ValueError(f"--tables: no table.json in {folder}")
        for table in (json.loads(file.read_text()) for file in files):
            if table["protocol"] != config.protocol:
                continue
            for row in table["rows"]:
                for column in COLUMNS:
                    metrics = row.get("metrics", {}).get(column, {})
                    if config.code_size not in (0, metrics.get("code_size")):
                        continue
                    if {config.error, config.score} <= metrics.keys():
                        place = metrics[config.error], metrics[config.score]
                        name = f"{row['name']} ({table['table']})"
                        points.setdefault(name, {})[column.replace("_", " ")] = place
    return points


def main(config: ZooConfig) -> None:
    """Draw the points, and print the correlation."""
    from scipy import stats

    from jaxret import viz

    points = points_of(config)
    places = [place for columns in points.values() for place in columns.values()]
    if len(places) < 3:
        raise ValueError(f"--tables must have 3 results of {config.protocol}, got {len(places)}")
    correlation = stats.spearmanr(*zip(*places, strict=True)).statistic
    size = f", codes of {config.code_size}" if config.code_size else ""
    summary = f"{len(places)} models of {config.protocol}{size}: rank correlation {correlation:.2f}"
    meaning = MEANINGS.get(config.error.partition("/")[0])
    figure = viz.numbered_points(
        points,
        f"{config.error}: {meaning}" if meaning else config.error,
        config.score,
        f"Reconstruction error and retrieval of {summary}",
        "Each point is a model: left is better reconstruction, up is better retrieval",
    )
    harness.save_figure(Path(config.out), figure)
    print(f"{summary} between {config.error} and {config.score}; written to {config.out}")


if __name__ == "__main__":
    harness.run(ZooConfig, main)
