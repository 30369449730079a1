"""Regenerate a paper's table: what was published beside what its settings give here, and ours.

    python experiments/reproduce.py --list
    python experiments/reproduce.py --table=torres2018:4.2 --workdir=runs/tables/4.2

Leaves table.json and table.md in the work folder. A table that was stopped goes on, row by row.
"""

import dataclasses
import json
from pathlib import Path

import harness
import train_vae
from harness import flag
from table import Table, markdown, run_table


@dataclasses.dataclass(frozen=True)
class ReproduceConfig:
    """Flags."""

    table: str = flag("", "paper:table, such as torres2018:4.2; --list names them all")
    list: bool = flag(False, "name every table and stop")
    workdir: str = flag("", "where table.json and table.md go; required")
    dataset: str = flag("mnist", "the data set; a paper's tables are of the one it used")
    protocol: str = flag("test", "test, or validation (for making choices)")
    data_dir: str = flag("", "where the raw files of the data sets lie [JAXRET_DATA_DIR]")
    seeds: int = flag(3, "runs of each row")
    epochs: int = flag(0, "passes over the training images; 0: as published")

    def check(self) -> None:
        """See harness.Config."""
        if self.list:
            return
        if self.table not in tables():
            known = ", ".join(tables())
            raise ValueError(f"--table must be one of {known}, got {self.table!r}")
        if not self.workdir:
            raise ValueError("--workdir is required: a folder for the table")
        harness.at_least(self, "seeds", 1)
        harness.at_least(self, "epochs", 0)


def tables() -> dict[str, Table]:
    """Every table by its name, paper:table."""
    from torres2018.tables import TABLES

    return {f"torres2018:{name}": table for name, table in TABLES.items()}


def main(config: ReproduceConfig) -> None:
    """List, or run one table."""
    if config.list:
        for name, table in tables().items():
            print(f"{name:16} {table.title}, {len(table.rows)} rows")
        return
    shared = {name: getattr(config, name) for name in ("dataset", "protocol", "data_dir")}
    if config.epochs:
        shared["epochs"] = config.epochs
    base = train_vae.VaeConfig(workdir=config.workdir, **shared)
    workdir = Path(config.workdir)
    result = run_table(tables()[config.table], config.table, base, config.seeds, train_vae, workdir)
    harness.write_whole(workdir / "table.json", json.dumps(result, indent=1) + "\n")
    harness.write_whole(workdir / "table.md", markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    harness.run(ReproduceConfig, main)
