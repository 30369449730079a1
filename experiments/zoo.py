"""Does better reconstruction mean better retrieval? Every model of some tables, as one chart.

    python experiments/zoo.py --tables=runs/sahu,runs/gamal --out=zoo.png

The tables are the work folders that reproduce.py filled; those of another protocol are left
out. The rank correlation (Spearman) of error and score is printed and drawn.
"""

import dataclasses
import json
from pathlib import Path

import harness
from harness import flag
from table import COLUMNS


@dataclasses.dataclass(frozen=True)
class ZooConfig:
    """Flags."""

    tables: str = flag("", "folders with a table.json each, or with such folders; required")
    out: str = flag("", "the picture, a PNG file; required")
    protocol: str = flag("mnist-test", "what the tables that count are of, as they say")
    error: str = flag("mse/test", "a metric that the tables have beside their own, drawn across")
    score: str = flag("map@2/retrieved", "another, drawn upwards")
    code_size: int = flag(0, "only models whose code is so many numbers; 0: of all sizes")

    def check(self) -> None:
        """See harness.Config."""
        for name in ("tables", "out"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is required")


def points_of(config: ZooConfig) -> dict[str, dict[str, tuple[float, float]]]:
    """(error, score) of every row that was run, by name, with its table's, and column."""
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
                    found = row.get("beside", {}).get(column, {})
                    if config.code_size not in (0, found.get("code_size")):
                        continue
                    if {config.error, config.score} <= found.keys():
                        place = found[config.error], found[config.score]
                        name = f"{row['name']} ({table['table']})"
                        points.setdefault(name, {})[column.replace("_", " ")] = place
    return points


def main(config: ZooConfig) -> None:
    """Draw, and print the correlation."""
    from scipy import stats

    from jaxret import viz

    points = points_of(config)
    every = [place for by_column in points.values() for place in by_column.values()]
    if len(every) < 3:
        raise ValueError(f"--tables must have 3 results of {config.protocol}, got {len(every)}")
    correlation = stats.spearmanr(*zip(*every, strict=True)).statistic
    size = f", codes of {config.code_size}" if config.code_size else ""
    said = f"{len(every)} models of {config.protocol}{size}: rank correlation {correlation:.2f}"
    figure = viz.numbered_points(points, config.error, config.score, said)
    harness.save_figure(Path(config.out), figure)
    print(f"{said} between {config.error} and {config.score}; written to {config.out}")


if __name__ == "__main__":
    harness.run(ZooConfig, main)
