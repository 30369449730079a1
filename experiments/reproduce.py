"""Regenerate a paper's table: what was published, what its settings give here, and ours.

    python experiments/reproduce.py --list
    python experiments/reproduce.py --table=torres2018:4.2 --workdir=runs/tables/4.2

The work folder gets table.json, table.md and plots/table.png. Several tables, or all of a paper,
get a folder each in it, tables of several papers PAPER/TABLE. A stopped command continues where it
was, row by row.
"""

import dataclasses
import difflib
import importlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import harness
from harness import Config, flag
from table import COLUMNS, Table, chart, markdown, run_tables

PAPERS = (
    "torres2018",
    "sahu",
    "gamal",
    "jimenez2017",
    "photos",
    "hashing",
    "landmarks",
)  # folders with a tables.py


@dataclasses.dataclass(frozen=True)
class ReproduceConfig:
    """Flags."""

    table: str = flag(
        "", "Run these tables: paper:table, such as torres2018:4.2, several between commas, or a "
        "paper alone for all of its tables. --list names them all.",
    )  # fmt: skip
    list: bool = flag(False, "Name every table and stop; with --table, name its rows too.")
    rows: str = flag("", "Run only the rows whose names match this regular expression.")
    column: str = flag("", "Run only this column of each row; the default is both.", ("", *COLUMNS))
    gather: bool = flag(False, "Run nothing: write the tables from the runs that are kept.")
    workdir: str = flag("", "Write the tables and keep the runs in this folder (required).")
    dataset: str = flag(
        "", "Use this data set; the default is the one that each table was published of.",
        topic="data",
    )  # fmt: skip
    protocol: str = flag(
        "", "Use this protocol: test, validation (to make choices), or another that --protocol of "
        "the scripts names; the default is the one that each table was published of.", topic="data",
    )  # fmt: skip
    data_dir: str = flag(
        "", "Look for the raw files of the data sets in this folder; the default is the "
        "environment variable JAXRET_DATA_DIR.", topic="data",
    )  # fmt: skip
    seeds: int = flag(3, "Run each row with this many seeds.")
    vmap_runs: int = flag(
        0, "Train at most this many runs in one vmapped program; 0 means 1 on a CPU, where more "
        "gain nothing, and 8 elsewhere.", topic="training",
    )  # fmt: skip
    epochs: int = flag(
        0, "Pass this many times over the training images; 0 means as each row says.",
        topic="training",
    )  # fmt: skip

    RENAMED: ClassVar[dict[str, str]] = {"together": "vmap_runs"}

    def check(self) -> None:
        """Raise ValueError, with the flag, the rule and the value, if a flag breaks a rule."""
        try:
            matching = re.compile(self.rows)
        except re.error as error:
            raise ValueError(
                f"--rows must be a regular expression, got {self.rows!r}: {error}"
            ) from None
        chosen = self.chosen() if self.table or not self.list else tables()
        if not self.workdir and not self.list:
            raise ValueError("--workdir is required: a folder for the table")
        harness.at_least(self, "seeds", 1)
        harness.at_least(self, "vmap_runs", 0)
        harness.at_least(self, "epochs", 0)
        if not any(matching.search(row.name) for table in chosen.values() for row in table.rows):
            raise ValueError(f"--rows matches no row of {self.table}, got {self.rows!r}")

    def chosen(self) -> dict[str, Table]:
        """Return the tables that --table names."""
        known, chosen = tables(), {}
        for name in self.table.split(","):
            found = {n: t for n, t in known.items() if name in (n, n.split(":")[0])}
            if not found:
                raise ValueError(f"--table: {_unknown(name, known)} --list names all")
            chosen |= found
        return chosen

    def names_one(self) -> bool:
        """Return whether --table is one table and not a list or a paper."""
        return "," not in self.table and ":" in self.table


def _unknown(name: str, known: Iterable[str]) -> str:
    """Return a message about a table that does not exist, with the names that come closest."""
    if not name:
        return "name a table, such as torres2018:4.2;"
    short = sorted({table.split(":")[1] for table in known})
    close = difflib.get_close_matches(name, [*PAPERS, *known], n=3)
    for found in difflib.get_close_matches(name, short, n=1):
        close += [table for table in known if table.split(":")[1] == found]
    close = list(dict.fromkeys(close))[:3]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"no table is named {name!r}.{hint}"


def tables() -> dict[str, Table]:
    """Return every table by its name, paper:table."""
    return {
        f"{paper}:{name}": table
        for paper in PAPERS
        for name, table in importlib.import_module(f"{paper}.tables").TABLES.items()
    }


def main(config: ReproduceConfig) -> None:
    """List, or run tables."""
    if config.list:
        _list(config)
        return
    import jax

    def base(table: Table) -> Config:
        of_images = {n: getattr(config, n) or getattr(table, n) for n in ("dataset", "protocol")}
        places = {name: getattr(config, name) for name in ("workdir", "data_dir")}
        return importlib.import_module(table.script).CONFIG(**of_images, **places)

    chosen = config.chosen()
    papers = {name.split(":")[0] for name in chosen}
    names = ("dataset", "protocol", "epochs")
    results = run_tables(
        chosen,
        base,
        config.seeds,
        config.vmap_runs or (1 if jax.default_backend() == "cpu" else 8),
        (lambda name: False) if config.gather else re.compile(config.rows).search,
        (config.column,) if config.column else COLUMNS,
        {name: getattr(config, name) for name in names if getattr(config, name)},
    )
    for name, result in results:
        paper, table = name.split(":")
        folder = Path(config.workdir)
        if len(papers) > 1:  # two papers may have tables of one name
            folder = folder / paper
        if not config.names_one():
            folder = folder / table
        harness.write_whole(folder / "table.json", json.dumps(result, indent=1) + "\n")
        harness.write_whole(folder / "table.md", markdown(result))
        columns = ("published", *COLUMNS)
        known = any(row[column] is not None for row in result["rows"] for column in columns)
        if chosen[name].axis and known:
            harness.save_figure(folder / "plots" / "table.png", chart(chosen[name], result))
        print(markdown(result))


def _list(config: ReproduceConfig) -> None:
    """Print every table; with --table, those and the rows that match."""
    named = config.chosen() if config.table else tables()
    width = max(map(len, named))
    for name, table in named.items():
        print(f"{name:{width}}  {table.title}, {len(table.rows)} rows")
        if config.table:
            for row in table.rows:
                if re.search(config.rows, row.name):
                    print(f"    {row.name}")


if __name__ == "__main__":
    harness.run(ReproduceConfig, main)
