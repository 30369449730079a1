"""Tables of papers: rows of settings, run with several seeds, written beside what was published."""

import dataclasses
import hashlib
import importlib
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import harness
import report


class Row(NamedTuple):
    """One row: what was published, and the settings that differ from the script's defaults.

    A row of a paper has settings as published; one of a question that the paper left open has
    only ours; one that the paper compares itself with has none, and is never run.
    """

    name: str
    published: float | None
    settings: Mapping[str, Any] | None
    ours: Mapping[str, Any] | None = None  # settings of the best that we do of the same task
    how: str | None = None  # in a few words
    x: float | None = None  # where the row stands in the table's chart
    series: str = ""  # the chart's curve that it belongs to


class Table(NamedTuple):
    """A table of a paper; its metric is map@K/retrieved with each row's eval_k, or another's name.

    script is the experiment that runs its rows: a module with `CONFIG` and `run_rows`. beside
    names further metrics, whose means are shown beside the table's own; axis may be one of them.
    """

    title: str
    rows: tuple[Row, ...]
    axis: str = ""  # what the chart's x is; no chart without it
    dataset: str = "mnist"  # what was published is of this one
    protocol: str = "test"  # and of these queries and gallery
    script: str = "train_vae"
    metric: str = "map@{eval_k}/retrieved"
    lower: bool = False  # whether less of it is better
    beside: tuple[str, ...] = ()


COLUMNS = ("as_published", "ours")


def run_tables(
    tables: Mapping[str, Table],
    base: Callable[[Table], harness.Config],
    seeds: int,
    together: int,
    chosen: Callable[[str], Any] = lambda name: True,
    columns: tuple[str, ...] = COLUMNS,
    over: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run the rows that the work folder does not hold yet, and gather each table.

    base gives the settings that all of a table's rows share, over what wins over a row's own. Runs
    that differ only in seeds and scalars train side by side, up to so many together in one vmapped
    program; rows of any of the tables whose training is the same share it. Each run's scores are
    kept in workdir/rows, so what was stopped goes on where it was. Rows that are not chosen by
    name, and columns that are not asked for, are not run; what was kept of them is shown.
    """
    jobs = {
        name: {
            (row.name, column): [
                dataclasses.replace(base(table), **(settings | over), seed=seed)
                for seed in range(seeds)
            ]
            for row in table.rows
            for column, settings in zip(COLUMNS, (row.settings, row.ours), strict=True)
            if settings is not None
        }
        for name, table in tables.items()
    }
    wanted: dict[str, list[harness.Config]] = {}
    for name, table in tables.items():
        for (row, column), configs in jobs[name].items():
            if chosen(row) and column in columns:
                wanted.setdefault(table.script, []).extend(configs)
    protocol, overlap = harness.load_data(base(next(iter(tables.values()))))
    for script, configs in wanted.items():
        for group in _grouped(configs):
            # Looked up when its turn comes: another process may work in the same folder.
            missing = [config for config in group if not kept_at(config).exists()]
            if missing:
                for config, result in importlib.import_module(script).run_rows(
                    missing, protocol, overlap, together
                ):
                    keep(config, result)

    for name, table in tables.items():
        runs = {
            job: [json.loads(path.read_text()) for path in map(kept_at, configs) if path.exists()]
            for job, configs in jobs[name].items()
        }
        yield name, _gathered(table, name, base(table), runs, protocol.name)


def keep(
    config: harness.Config,
    result: Mapping[str, Any],
    environment: Mapping[str, Any] | None = None,
) -> None:
    """Put a run's metrics, its seconds and how many trained together where a table finds them.

    environment is that of the run, none: this one.
    """
    path = kept_at(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = environment or harness.environment()
    content = {"config": config.identity(), **result, "environment": environment}
    harness.write_whole(path, json.dumps(content, indent=1) + "\n")


def _gathered(table, name, base, runs, protocol) -> dict[str, Any]:
    rows = []
    for row in table.rows:
        as_published, ours = (
            _summary(runs.get((row.name, column), []), table.metric) for column in COLUMNS
        )
        rows.append(
            {
                "name": row.name,
                "published": row.published if base.dataset == table.dataset else None,
                "as_published": as_published,
                "ours": ours | {"how": row.how} if ours else None,
            }
        )
        if table.beside:
            rows[-1]["beside"] = {
                column: _means(runs.get((row.name, column), []), table.beside) for column in COLUMNS
            }
    distinct = {json.dumps(run["config"]): run for several in runs.values() for run in several}
    done = distinct.values()
    ks = sorted({run["config"]["eval_k"] for run in done})
    metric = table.metric + (" (lower is better)" if table.lower else "")
    if "{eval_k}" in metric:
        metric = metric.format(eval_k="K") + (", K = " + ", ".join(map(str, ks)) if ks else "")
    return {
        "table": name,
        "title": table.title,
        "protocol": protocol,
        "metric": metric,
        "device": "; ".join(sorted({run["environment"]["device"] for run in done})),
        "seconds": round(sum(run["seconds"] for run in done), 1),
        "together": max((run["together"] for run in done), default=0),
        "rows": rows,
        **({"lower": True} if table.lower else {}),
        **({"beside": list(table.beside)} if table.beside else {}),
    }


def chart(table: Table, result: Mapping[str, Any]) -> Any:
    """A figure of a table's scores against its axis: published, as published and ours."""
    from jaxret import viz

    curves: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for column in ("published", *COLUMNS):
        for row, scores in zip(table.rows, result["rows"], strict=True):
            value = scores[column]
            x = row.x
            if table.axis in table.beside:
                x = scores["beside"].get(column, {}).get(table.axis)
            if value is not None and x is not None:
                mean, sd = (value, 0.0) if column == "published" else (value["mean"], value["sd"])
                # A series whose rows have one score each, or lie anywhere on the axis, is a curve.
                alone = row.series and (row.published is None or table.axis in table.beside)
                name = row.series, "" if alone else column.replace("_", " ")
                curves.setdefault(name, []).append((float(x), mean, sd or 0.0))
    metric = table.metric.format(eval_k="K")
    return viz.score_curves(curves, table.axis, metric, table.title)


def markdown(table: Mapping[str, Any]) -> str:
    """table.json for people; beside its metric, others as published and ours, with a comma.

    A question that no paper answers has no columns for it.
    """
    beside, form = table.get("beside", []), ".4g" if table.get("lower") else ".4f"
    of_a_paper = any(row["published"] is not None or row["as_published"] for row in table["rows"])
    paper = ["published", "as published"] if of_a_paper else []
    spent = f"{table['seconds']:.0f} s on {table['device']}, {_side_by_side(table['together'])}"
    lines = [
        f"**{table['table']}**: {table['title']}. {table['metric']}; {table['protocol']}; "
        f"{spent if table['device'] else 'not run'}.",
        "",
        "| " + " | ".join(["row", *paper, "ours", "how", *beside]) + " |",
        "|---" * (3 + len(paper) + len(beside)) + "|",
    ]
    for row in table["rows"]:
        ours = row["ours"]
        cells = [
            row["name"],
            *([_published(row["published"]), _cell(row["as_published"], form)] if paper else []),
            _cell(ours, form),
            ours["how"] if ours else "",
            *(_both(row["beside"], name) for name in beside),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _side_by_side(together: int) -> str:
    return f"up to {together} runs in one program" if together > 1 else "one run at a time"


def _published(figure: float | None) -> str:
    return f"{figure:.6g}" if figure is not None else ""


def _cell(summary: Mapping[str, Any] | None, form: str) -> str:
    if summary is None:
        return ""
    seeds = summary["seeds"]
    spread = f" ± {summary['sd']:{form}}" if seeds > 1 else ""
    return f"{summary['mean']:{form}}{spread} ({seeds} seed{'s' if seeds > 1 else ''})"


def _both(beside: Mapping[str, Any], name: str) -> str:
    return ", ".join(f"{beside[column][name]:.4g}" for column in COLUMNS if beside[column])


def _means(runs: list[Mapping[str, Any]], names: tuple[str, ...]) -> dict[str, float]:
    if not runs:
        return {}
    return {name: statistics.fmean(run["metrics"][name] for run in runs) for name in names}


def _summary(runs: list[Mapping[str, Any]], metric: str) -> dict[str, Any] | None:
    if not runs:
        return None
    scores = [run["metrics"][metric.format(eval_k=run["config"]["eval_k"])] for run in runs]
    return {
        "mean": statistics.fmean(scores),
        "sd": statistics.stdev(scores) if len(scores) > 1 else None,
        "seeds": len(scores),
    }


def kept_at(config: harness.Config) -> Path:
    """Where the scores of a run are kept, by all that it does not leave at its default.

    So a new flag, as long as its default changes nothing, leaves what is kept valid.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    chosen = {name: v for name, v in config.identity().items() if v != defaults[name]}
    identity = json.dumps([type(config).__name__, chosen], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return Path(config.workdir) / "rows" / f"{digest}.json"


# What only concerns the codes of a trained model, and what a sweep varies.
EVALUATION = ("features", "quantise_levels", "eval_k", "distance", "gumbel_codes")


def _training(config: harness.Config) -> str:
    """What must be equal for two configurations to train in one program."""
    varied = (*EVALUATION, *config.hyper(), "seed")
    identity = {name: value for name, value in config.identity().items() if name not in varied}
    return json.dumps(identity, sort_keys=True)


def _grouped(configs: Iterable[harness.Config]) -> list[list[harness.Config]]:
    distinct = sorted(set(configs), key=_training)
    return [list(group) for _, group in itertools.groupby(distinct, key=_training)]


def train_rows(
    configs: list[harness.Config],
    protocol: Any,
    overlap: int,
    together: int,
    *,
    build: Callable[..., tuple[Any, str]],
    make_encode: Callable,
    score: Callable[..., dict[str, float]] = lambda config, model, trained: report.score(
        trained, config.eval_k
    ),
    by_scan: Callable[[harness.Config], bool] = lambda config: True,
    partners: Callable[[harness.Config, Any], Any] = lambda config, images: None,
) -> Iterator[tuple[harness.Config, dict[str, Any]]]:
    """Train the distinct models of a group, side by side, and score each configuration.

    build gives a model that has a trainer, and the distance of its codes, for a configuration.
    The distance, like the code, may differ between configurations of a group. What does not train
    by_scan trains one run at a time. partners gives train.fit's, for the training images.
    """
    scan = by_scan(configs[0])
    together = together if scan else 1
    image_shape = protocol.train.images.shape[1:]
    model, _ = build(configs[0], image_shape)
    near = partners(configs[0], protocol.train.images)
    of_run: dict[tuple, list[harness.Config]] = {}
    for config in configs:
        of_run.setdefault((tuple(config.hyper().items()), config.seed), []).append(config)
    runs = sorted(of_run)
    for first in range(0, len(runs), together):
        some, start = runs[first : first + together], time.perf_counter()
        trained = _train(configs[0], model.trainer, some, protocol, scan, near)
        each = (time.perf_counter() - start) / sum(len(of_run[run]) for run in some)
        for run, params in zip(some, trained, strict=True):
            for config in of_run[run]:
                start = time.perf_counter()
                own, distance = build(config, image_shape)
                encode = make_encode(config, own)
                found = report.Trained(protocol, overlap, encode, params, distance)
                yield (
                    config,
                    {
                        "metrics": score(config, own, found),
                        "together": len(some),
                        "seconds": each + time.perf_counter() - start,
                    },
                )


def _train(
    config: harness.Config, trainer: Any, runs: list, protocol: Any, scan: bool, partners: Any
) -> list[Any]:
    """The weights of runs, each its scalars and a seed, trained in one program."""
    import jax
    import jax.numpy as jnp

    from jaxret import hashers, train

    scalars = [dict(values) for values, _ in runs]
    hyper = {name: jnp.asarray([values[name] for values in scalars]) for name in scalars[0]}
    keys = jax.vmap(jax.random.key)(jnp.asarray([seed for _, seed in runs]))
    steps = train.steps_per_epoch(len(protocol.train.images), config.batch_size)
    progress = harness.Progress(steps * config.batch_size * len(runs), config.epochs)

    def on_epoch(state, info):
        del state
        terms = {name: float(value.mean()) for name, value in info.terms.items()}
        progress(info.epoch, terms, info.images_per_second)

    if len(runs) == 1:
        hyper = {name: value[0] for name, value in hyper.items()}
        state = trainer.init(keys[0], hyper)
    else:
        state = train.sweep_init(trainer, keys, hyper)
    try:
        state = train.fit(
            trainer,
            state,
            hyper,
            protocol.train.images,
            protocol.train.labels,
            epochs=config.epochs,
            batch_size=config.batch_size,
            partners=partners,
            scan=scan,
            on_epoch=on_epoch,
        )
    finally:
        progress.close()
    if len(runs) == 1:
        return [hashers.weights(state)]
    return [hashers.weights(train.unstack(state, i)) for i in range(len(runs))]
