"""Tables of papers: rows of settings, run with several seeds, written beside what was published."""

import dataclasses
import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import harness


class Row(NamedTuple):
    """One row: what was published, and the settings that differ from the script's defaults."""

    name: str
    published: float | None
    settings: Mapping[str, Any]
    ours: Mapping[str, Any] | None = None  # settings of the best that we do of the same task
    how: str | None = None  # in a few words


class Table(NamedTuple):
    """A table of a paper; its metric is map@K/retrieved with each row's eval_k."""

    title: str
    rows: tuple[Row, ...]


COLUMNS = ("as_published", "ours")


def run_table(
    table: Table, name: str, base: harness.Config, seeds: int, script: Any, workdir: Path
) -> dict[str, Any]:
    """Run every row that workdir does not hold yet, and gather the table.

    script builds and encodes (train_vae). base has the settings that all rows share. Rows whose
    training differs only in scalars train in one vmapped program, all seeds at once; rows whose
    training is the same share it. Each row's scores are kept in workdir/rows, so that a stopped
    table goes on where it was.
    """
    protocol, overlap = harness.load_data(base)
    jobs = {
        (row.name, column): dataclasses.replace(base, **settings)
        for row in table.rows
        for column, settings in zip(COLUMNS, (row.settings, row.ours), strict=True)
        if settings is not None
    }
    kept = {job: _kept_at(workdir, config, seeds) for job, config in jobs.items()}
    missing = {job: config for job, config in jobs.items() if not kept[job].exists()}
    for group in _grouped(missing.values()):
        _run_group(group, protocol, overlap, seeds, script, workdir)

    results = {job: json.loads(path.read_text()) for job, path in kept.items()}
    rows = []
    for row in table.rows:
        as_published, ours = (results.get((row.name, column)) for column in COLUMNS)
        rows.append(
            {
                "name": row.name,
                "published": row.published,
                "as_published": _summary(as_published),
                "ours": _summary(ours) | {"how": row.how} if ours else None,
            }
        )
    distinct = {path: json.loads(path.read_text()) for path in kept.values()}
    return {
        "table": name,
        "title": table.title,
        "protocol": protocol.name,
        "metric": "map@K/retrieved, K = " + ", ".join(map(str, _distinct_ks(jobs.values()))),
        "device": harness.environment()["device"],
        "seconds": round(sum(result["seconds"] for result in distinct.values()), 1),
        "rows": rows,
    }


def markdown(table: Mapping[str, Any]) -> str:
    """table.json for people."""
    lines = [
        f"**{table['table']}**: {table['title']}. {table['metric']}; {table['protocol']}; "
        f"{table['seconds']:.0f} s on {table['device']}.",
        "",
        "| row | published | as published | ours | how |",
        "|---|---|---|---|---|",
    ]
    for row in table["rows"]:
        ours = row["ours"]
        cells = [
            row["name"],
            f"{row['published']:.5g}" if row["published"] is not None else "",
            _cell(row["as_published"]),
            _cell(ours),
            ours["how"] if ours else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return "not run"
    seeds = summary["seeds"]
    spread = f" ± {summary['sd']:.4f}" if seeds > 1 else ""
    return f"{summary['mean']:.4f}{spread} ({seeds} seed{'s' if seeds > 1 else ''})"


def _summary(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if result is None:
        return None
    scores = result["scores"]
    return {
        "mean": statistics.fmean(scores),
        "sd": statistics.stdev(scores) if len(scores) > 1 else None,
        "seeds": len(scores),
    }


def _distinct_ks(configs: Iterable[harness.Config]) -> list[int]:
    return sorted({config.eval_k for config in configs})


def _kept_at(workdir: Path, config: harness.Config, seeds: int) -> Path:
    identity = json.dumps([config.identity(), seeds], sort_keys=True)
    return workdir / "rows" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"


# What only concerns the codes of a trained model, and what a sweep varies.
EVALUATION = ("features", "quantise_levels", "eval_k")


def _training(config: harness.Config) -> str:
    """What must be equal for two configurations to train in one program."""
    varied = (*EVALUATION, *config.hyper(), "seed")
    identity = {name: value for name, value in config.identity().items() if name not in varied}
    return json.dumps(identity, sort_keys=True)


def _grouped(configs: Iterable[harness.Config]) -> list[list[harness.Config]]:
    distinct = sorted(set(configs), key=_training)
    return [list(group) for _, group in itertools.groupby(distinct, key=_training)]


def _run_group(configs, protocol, overlap, seeds, script, workdir) -> None:
    """Train the distinct models of a group in one program, then score each configuration."""
    import jax
    import jax.numpy as jnp
    import report

    from jaxret import train

    first = configs[0]
    vae, distance = script.build(first, protocol.train.images.shape[1:])
    hypers = sorted({tuple(config.hyper().items()) for config in configs})
    runs = [(dict(hyper), seed) for hyper in hypers for seed in range(seeds)]
    hyper = {name: jnp.asarray([values[name] for values, _ in runs]) for name in runs[0][0]}
    keys = jax.vmap(jax.random.key)(jnp.asarray([seed for _, seed in runs]))
    start = time.perf_counter()
    steps = train.steps_per_epoch(len(protocol.train.images), first.batch_size)
    progress = harness.Progress(steps * first.batch_size * len(runs), first.epochs)

    def on_epoch(state, info):
        del state
        terms = {name: float(value.mean()) for name, value in info.terms.items()}
        progress(info.epoch, terms, info.images_per_second)

    try:
        states = train.fit(
            vae.trainer,
            train.sweep_init(vae.trainer, keys, hyper),
            hyper,
            protocol.train.images,
            protocol.train.labels,
            epochs=first.epochs,
            batch_size=first.batch_size,
            on_epoch=on_epoch,
        )
    finally:
        progress.close()
    training_seconds = (time.perf_counter() - start) / len(configs)

    for config in configs:
        start = time.perf_counter()
        encode = script.make_encode(config, vae)
        scores = []
        for i, (values, _) in enumerate(runs):
            if values == config.hyper():
                params = train.unstack(states, i).params
                trained = report.Trained(protocol, overlap, encode, params, distance)
                scores.append(report.score(trained, config.eval_k))
        metric = f"map@{config.eval_k}/retrieved"
        result = {
            "config": config.identity(),
            "scores": [score[metric] for score in scores],
            "metrics": scores,
            "seconds": training_seconds + time.perf_counter() - start,
            "environment": harness.environment(),
        }
        path = _kept_at(workdir, config, seeds)
        path.parent.mkdir(parents=True, exist_ok=True)
        harness.write_whole(path, json.dumps(result, indent=1) + "\n")
