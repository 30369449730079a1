"""Regenerate a paper's table: what was published beside what its settings give here, and ours.

    python experiments/reproduce.py --list
    python experiments/reproduce.py --table=torres2018:4.2 --workdir=runs/tables/4.2

Leaves table.json, table.md and plots/table.png in the work folder; several tables each have a
folder in it. What was stopped goes on, row by row.
"""

import dataclasses
import importlib
import itertools
import json
import re
from pathlib import Path

import harness
from harness import flag
from table import COLUMNS, Table, chart, markdown, run_tables

PAPERS = ("torres2018", "sahu", "gamal", "jimenez2017")  # folders with a tables.py


@dataclasses.dataclass(frozen=True)
class ReproduceConfig:
    """Flags."""

    table: str = flag("", "paper:table, such as torres2018:4.2, several between commas, or a paper "
                      "alone for all of its tables; --list names them")  # fmt: skip
    list: bool = flag(False, "name every table and stop; with --table, those and their rows")
    rows: str = flag("", "run only the rows whose names match this regular expression")
    column: str = flag("", "run only this column of each row; none: both",
                       ("", *COLUMNS))  # fmt: skip
    gather: bool = flag(False, "run nothing: write the tables of the runs that are kept")
    workdir: str = flag("", "where table.json and table.md go; required")
    dataset: str = flag("", "the data set; none: the one that each table was published of")
    protocol: str = flag("", "test, validation (for making choices) or another that --protocol of "
                         "the scripts names; none: what each table was published of")  # fmt: skip
    data_dir: str = flag("", "where the raw files of the data sets lie [JAXRET_DATA_DIR]")
    seeds: int = flag(3, "runs of each row")
    together: int = flag(0, "runs that train side by side in one vmapped program, at most; 0: one "
                         "on a CPU, where more gain nothing, else 8")  # fmt: skip
    epochs: int = flag(0, "passes over the training images; 0: as published")

    def check(self) -> None:
        """See harness.Config."""
        if self.list and not self.table:
            return
        self.chosen()
        if not self.workdir and not self.list:
            raise ValueError("--workdir is required: a folder for the table")
        harness.at_least(self, "seeds", 1)
        harness.at_least(self, "together", 0)
        harness.at_least(self, "epochs", 0)
        try:
            matching = re.compile(self.rows)
        except re.error as error:
            raise ValueError(
                f"--rows must be a regular expression, got {self.rows!r}: {error}"
            ) from error
        if not any(matching.search(row.name) for t in self.chosen().values() for row in t.rows):
            raise ValueError(f"--rows matches no row of {self.table}, got {self.rows!r}")

    def chosen(self) -> dict[str, Table]:
        """The tables asked for, by name."""
        every, chosen = tables(), {}
        for asked in self.table.split(","):
            found = {n: t for n, t in every.items() if asked in (n, n.split(":")[0])}
            if not found:
                known = ", ".join(every)
                raise ValueError(f"--table must be one of {known}, got {asked!r}")
            chosen |= found
        return chosen


def tables() -> dict[str, Table]:
    """Every table by its name, paper:table."""
    return {
        f"{paper}:{name}": table
        for paper in PAPERS
        for name, table in importlib.import_module(f"{paper}.tables").TABLES.items()
    }


def main(config: ReproduceConfig) -> None:
    """List, or run tables."""
    if config.list:
        named = config.chosen() if config.table else tables()
        width = max(map(len, named))
        for name, table in named.items():
            print(f"{name:{width}}  {table.title}, {len(table.rows)} rows")
            rows = [row.name for row in table.rows if re.search(config.rows, row.name)]
            print("".join(f"    {row}\n" for row in rows if config.table), end="")
        return
    import jax

    names = ("workdir", "data_dir")
    shared = {name: getattr(config, name) for name in names}
    over = {"epochs": config.epochs} if config.epochs else {}
    together = config.together or (1 if jax.default_backend() == "cpu" else 8)

    def base(table: Table) -> harness.Config:
        name = {n: getattr(config, n) or getattr(table, n) for n in ("dataset", "protocol")}
        return importlib.import_module(table.script).CONFIG(**shared, **name)

    chosen = config.chosen()
    matching = (lambda name: False) if config.gather else re.compile(config.rows).search
    of_images: dict[tuple[str, str], dict[str, Table]] = {}
    for name, table in chosen.items():
        images = base(table).dataset, base(table).protocol
        of_images.setdefault(images, {})[name] = table
    columns = (config.column,) if config.column else COLUMNS
    results = (
        run_tables(some, base, config.seeds, together, matching, columns, over)
        for some in of_images.values()
    )
    for name, result in itertools.chain.from_iterable(results):
        folder = Path(config.workdir)
        if len(chosen) > 1:
            folder = folder / name.split(":")[1]
        folder.mkdir(parents=True, exist_ok=True)
        harness.write_whole(folder / "table.json", json.dumps(result, indent=1) + "\n")
        harness.write_whole(folder / "table.md", markdown(result))
        if chosen[name].axis:
            harness.save_figure(folder / "plots" / "table.png", chart(chosen[name], result))
        print(markdown(result))


if __name__ == "__main__":
    harness.run(ReproduceConfig, main)
