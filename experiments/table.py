"""Tables of papers: rows of settings, run with several seeds, written beside what was published.

This is a module. The command that runs tables is experiments/reproduce.py.
"""

import dataclasses
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import harness
import runs
from runs import Config


class Row(NamedTuple):
    """One row: what was published, and the settings that differ from the script's defaults.

    A row of a paper has settings as published. One of a question that the paper left open has only
    ours; one of a method that is not run has neither. Settings may name a protocol other than the
    table's: the cell then names it.
    """

    name: str
    published: float | None
    settings: Mapping[str, Any] | None
    ours: Mapping[str, Any] | None = None  # settings of the best that we do of the same task
    # In a few words, what ours is; {epochs} and the like become the flags that a run really had.
    description: str | None = None
    x: float | None = None  # where the row stands in the table's chart
    series: str = ""  # the chart's curve that it belongs to
    script: str = ""  # the experiment that runs it; the default is the table's


BY_PROTOCOL = "by protocol"  # the metric of a table: of each cell that by which others publish


class Table(NamedTuple):
    """A table of a paper."""

    title: str
    rows: tuple[Row, ...]
    axis: str = ""  # what the chart's x is, which may be an extra metric; no chart without it
    dataset: str = "mnist"  # what was published is of this one
    protocol: str = "test"  # and of these queries and gallery
    script: str = "train_vae"  # the experiment that runs the rows; see runs
    metric: str = "map@{eval_k}/retrieved"  # with each row's eval_k, another's name, or BY_PROTOCOL
    lower: bool = False  # whether less of it is better
    extra_metrics: tuple[str, ...] = ()  # shown as means beside the table's own

    def metrics(self, config: Config) -> tuple[str, ...]:
        """Return the names of the metrics that a run of the table must have."""
        return self.metric_of(config.protocol, config.eval_k), *self.extra_metrics

    def metric_of(self, protocol: str, eval_k: int) -> str:
        """Return the name of the metric of a run under a protocol."""
        if self.metric != BY_PROTOCOL:
            return self.metric.format(eval_k=eval_k)
        from jaxret.data import BENCHMARKS

        return BENCHMARKS[protocol].metric

    def of_row(self, row: Row) -> "Table":
        """Return the table with the script that runs a row."""
        return self._replace(script=row.script or self.script)


def flags(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a hasher's settings as flags of its script: a list becomes numbers with commas."""
    return {
        name: ",".join(map(str, value)) if isinstance(value, tuple) else value
        for name, value in settings.items()
    }


def flags_of(recipe: Any) -> dict[str, Any]:
    """Return a recipe of jaxret.hashers.recipes as flags of its hasher's script."""
    settings = flags(recipe.settings)
    if settings.get("latent") == "gumbel":  # whose size two other flags give
        del settings["latent_dim"]
    return settings | ({"knn_positives": recipe.knn_positives} if recipe.knn_positives else {})


COLUMNS = ("as_published", "ours")
Job = tuple[str, str]  # a row's name and a column


def run_tables(
    tables: Mapping[str, Table],
    base: Callable[[Table], Config],
    seeds: int,
    vmap_runs: int,
    chosen: Callable[[str], Any] = lambda name: True,
    columns: Iterable[str] = COLUMNS,
    overrides: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run the rows that the work folder does not hold yet, and gather each table.

    Runs that differ only in seeds and scalars train in one vmapped program; rows of any of the
    tables that need the same training share it. Each run's scores are kept in workdir/rows, so that
    a stopped command continues where it was. Kept runs of rows and columns that are not chosen are
    shown; a metric that they lack is named on standard error.

    Args:
        tables: tables by name.
        base: gives the settings that all rows of a table share.
        seeds: runs of each row.
        vmap_runs: how many runs may train in one program, at most.
        chosen: whether a row, by its name, is run.
        columns: those of COLUMNS that are run.
        overrides: settings that win over a row's own.
    """
    jobs = {name: _jobs(table, base, seeds, overrides) for name, table in tables.items()}
    wanted: dict[str, dict[Config, set[str]]] = {}
    for name, table in tables.items():
        scripts = {row.name: table.of_row(row).script for row in table.rows}
        for (row, column), configs in jobs[name].items():
            if chosen(row) and column in columns:
                of_script = wanted.setdefault(scripts[row], {})
                for config in configs:
                    of_script.setdefault(config, set()).update(table.metrics(config))
    for script, metrics in wanted.items():
        runs.complete(script, metrics, vmap_runs)
    for name, table in tables.items():
        yield name, _gathered(name, table, base(table), jobs[name], overrides)


def _jobs(
    table: Table, base: Callable[[Table], Config], seeds: int, overrides: Mapping[str, Any]
) -> dict[Job, list[Config]]:
    """Return the configurations of each row and column, one for each seed."""
    return {
        (row.name, column): [
            dataclasses.replace(base(table.of_row(row)), **{**settings, **overrides, "seed": seed})
            for seed in range(seeds)
        ]
        for row in table.rows
        for column, settings in zip(COLUMNS, (row.settings, row.ours), strict=True)
        if settings is not None
    }


def _gathered(
    name: str,
    table: Table,
    base: Config,
    jobs: Mapping[Job, list[Config]],
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    """Return table.json of what is kept."""
    scripts = {row.name: table.of_row(row).script for row in table.rows}
    kept = {
        job: [run for config in configs if (run := runs.kept(scripts[job[0]], config))]
        for job, configs in jobs.items()
    }
    lacking = _lacking(table, jobs, kept)
    if lacking:
        print(f"{name}: {lacking}; left empty", file=sys.stderr)
    protocol = _protocol(base, kept.values())
    rows = [_row(row, table, base, jobs, kept, protocol) for row in table.rows]
    distinct = {json.dumps(run["config"]): run for found in kept.values() for run in found}
    done = distinct.values()
    ks = sorted({run["config"]["eval_k"] for run in done})
    metric = table.metric + (" (lower is better)" if table.lower else "")
    if table.metric == BY_PROTOCOL:
        names = {run["protocol"]: _metric(table, run) for run in done}
        metric = "; ".join(f"{names[n]} of {n}" for n in sorted(names)) or BY_PROTOCOL
    if "{eval_k}" in metric:
        metric = metric.format(eval_k="K") + (", K = " + ", ".join(map(str, ks)) if ks else "")
    return {
        "table": name,
        "title": table.title,
        "protocol": protocol,
        "metric": metric,
        "device": "; ".join(sorted({run["environment"]["device"] for run in done})),
        "seconds": round(sum(run["seconds"] for run in done), 1),
        "vmap_runs": max((run["vmap_runs"] for run in done), default=0),
        "rows": rows,
        **({"lower": True} if table.lower else {}),
        **({"extra_metrics": list(table.extra_metrics)} if table.extra_metrics else {}),
        **({"overrides": dict(overrides)} if overrides else {}),
    }


def _row(row, table, base, jobs, kept, protocol) -> dict[str, Any]:
    """Return one of table.json's rows."""
    found = {column: kept.get((row.name, column), []) for column in COLUMNS}
    as_published, ours = (_summary(table, found[column]) for column in COLUMNS)
    places = {column: {run["protocol"] for run in found[column]} for column in COLUMNS}
    if as_published and ours and places["as_published"] != places["ours"]:
        for column, scores in zip(COLUMNS, (as_published, ours), strict=True):
            scores["protocol"] = ", ".join(sorted(places[column]))
    if ours:
        flags = dataclasses.asdict(jobs[row.name, "ours"][0])
        ours["how"] = row.description.format_map(flags)
    result = {
        "name": row.name,
        "published": row.published if base.dataset == table.dataset else None,
        "as_published": as_published,
        "ours": ours,
    }
    if table.extra_metrics:
        result["metrics"] = {c: _means(found[c], table.extra_metrics) for c in COLUMNS}
    of_row = set().union(*places.values()) - {protocol}
    return result | ({"protocol": ", ".join(sorted(of_row))} if of_row else {})


def _protocol(base: Config, kept: Iterable[list[Mapping[str, Any]]]) -> str:
    """Return the name of a table's protocol; the images are read only if no run tells it."""
    for run in itertools.chain.from_iterable(kept):
        if all(run["config"][n] == getattr(base, n) for n in ("dataset", "protocol")):
            return run["protocol"]
    return harness.load_data(base)[0].name


def _lacking(table, jobs, kept) -> str:
    """Return which rows lack a metric of the table in some run, "" for none."""
    rows: dict[str, list[str]] = {}
    for (row, column), configs in jobs.items():
        needed = table.metrics(configs[0])
        if any(not set(needed) <= run["metrics"].keys() for run in kept[row, column]):
            absent = {n for run in kept[row, column] for n in needed if n not in run["metrics"]}
            rows.setdefault(", ".join(sorted(absent)), []).append(f"{row} ({column})")
    return "; ".join(f"no {metrics} of {', '.join(names)}" for metrics, names in rows.items())


def _metric(table: Table, run: Mapping[str, Any]) -> str:
    return table.metric_of(run["config"]["protocol"], run["config"]["eval_k"])


def _summary(table: Table, found: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return mean, standard deviation and number of the runs that have the table's metric."""
    scores = [run["metrics"].get(_metric(table, run)) for run in found]
    scores = [score for score in scores if score is not None]
    if not scores:
        return None
    sd = statistics.stdev(scores) if len(scores) > 1 else None
    return {"mean": statistics.fmean(scores), "sd": sd, "seeds": len(scores)}


def _means(found: list[Mapping[str, Any]], names: Iterable[str]) -> dict[str, float]:
    """Return the means of the metrics that every run has."""
    values = {name: [run["metrics"].get(name) for run in found] for name in names if found}
    return {n: statistics.fmean(several) for n, several in values.items() if None not in several}


def chart(table: Table, result: Mapping[str, Any]) -> Any:
    """Return a figure of a table's scores against its axis: published, as published and ours."""
    from jaxret import viz

    curves: dict[tuple[str, str], list[Any]] = {}
    for column in ("published", *COLUMNS):
        for row, scores in zip(table.rows, result["rows"], strict=True):
            value = scores[column]
            x = row.x
            if table.axis in table.extra_metrics:
                x = scores["metrics"].get(column, {}).get(table.axis)
            if value is not None and x is not None:
                mean, sd = (value, 0.0) if column == "published" else (value["mean"], value["sd"])
                # A series whose rows have one score each, or lie anywhere on the axis, is a curve.
                alone = row.series and (row.published is None or table.axis in table.extra_metrics)
                label = column.replace("_", " ")
                name = row.series, "" if alone else label
                point = (float(x), mean, sd or 0.0, *((label,) if alone else ()))
                curves.setdefault(name, []).append(point)
    metric = table.metric.format(eval_k="K")
    title = f"{result['table']} ({result['protocol']})"
    return viz.score_curves(curves, table.axis, metric, title, table.title)


def markdown(table: Mapping[str, Any]) -> str:
    """Return table.json for people.

    A cell of an extra metric holds the numbers as published and ours, with a comma. A question that
    no paper answers has no columns for the paper.
    """
    extra, form = table.get("extra_metrics", []), ".4g" if table.get("lower") else ".4f"
    of_a_paper = any(row["published"] is not None or row["as_published"] for row in table["rows"])
    paper = ["published", "as published"] if of_a_paper else []
    by_row = any("protocol" in row and not _by_cell(row) for row in table["rows"])
    own_protocol = ["protocol"] if by_row else []
    lines = [
        f"**{table['table']}**: {table['title']}. {table['metric']}; {table['protocol']}; "
        f"{_spent(table)}.",
        "",
        "| " + " | ".join(["row", *paper, "ours", "description", *extra, *own_protocol]) + " |",
        "|---" * (3 + len(paper) + len(extra) + len(own_protocol)) + "|",
    ]
    for row in table["rows"]:
        ours = row["ours"]
        cells = [
            row["name"],
            *([_published(row["published"]), cell(row["as_published"], form)] if paper else []),
            cell(ours, form),
            ours["how"] if ours else "",
            *(_both(row["metrics"], name) for name in extra),
            *(row.get("protocol", table["protocol"]) for _ in own_protocol),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _by_cell(row: Mapping[str, Any]) -> bool:
    """Return whether a row's columns have different protocols, which its cells then name."""
    return any("protocol" in (row[column] or {}) for column in COLUMNS)


def summary_line(table: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return a line of the scores of a table's rows by name, for beside another table."""
    rows = {row["name"]: row for row in table["rows"]}
    unknown = [name for name in names if name not in rows]
    if unknown:
        raise ValueError(f"{table['table']} has no row {unknown[0]!r}")
    form = ".4g" if table.get("lower") else ".4f"
    scores = []
    for name in names:
        extra = rows[name].get("metrics", {}).get("ours", {})
        more = "".join(f", {metric} {value:.4g}" for metric, value in extra.items())
        score = cell(rows[name]["ours"], form) or "not run"
        scores.append(f"{name} {score}{more}")
    protocols = {rows[name].get("protocol", table["protocol"]) for name in names}
    where = f"{table['table']}; {', '.join(sorted(protocols))}; {table['metric']}"
    return f"*Baselines without learning* ({where}): {'; '.join(scores)}.\n"


def _spent(table: Mapping[str, Any]) -> str:
    if not table["device"]:
        return "not run"
    program = f"up to {table['vmap_runs']} runs in one program"
    program = program if table["vmap_runs"] > 1 else "one run at a time"
    changed = "".join(f", --{name}={v}" for name, v in table.get("overrides", {}).items())
    return f"{table['seconds']:.0f} s on {table['device']}, {program}{changed}"


def _published(figure: float | None) -> str:
    return f"{figure:.6g}" if figure is not None else ""


def cell(summary: Mapping[str, Any] | None, form: str = ".4f") -> str:
    """Return mean, spread and number of seeds, and the protocol where a row has several.

    Scores that no seed changes are called equal.
    """
    if not summary:
        return ""
    mean, seeds = f"{summary['mean']:{form}}", summary["seeds"]
    own = f"; {summary['protocol']}" if "protocol" in summary else ""
    if seeds == 1:
        return f"{mean} (1 seed{own})"
    if summary["sd"] == 0:
        return f"{mean} ({seeds} seeds, equal{own})"
    return f"{mean} ± {summary['sd']:{form}} ({seeds} seeds{own})"


def _both(metrics: Mapping[str, Any], name: str) -> str:
    return ", ".join(f"{metrics[c][name]:.4g}" for c in COLUMNS if name in metrics[c])


if __name__ == "__main__":
    print("table.py is a module; the command is: python experiments/reproduce.py --help")
