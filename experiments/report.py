"""What a run leaves behind: scores, a kept encoder, metrics.json, a summary to read, pictures."""

import dataclasses
import functools
import re
import shutil
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import baselines
import drawing
import harness

BATCH = 1000  # images that are measured at once
CURVE = (100, 200, 400, 600, 800, 1000)  # K of precision@K where flags ask for a curve
MEASURED = 10_000  # training images that stand for all where a classifier is judged
FLAG = re.compile(r"--(\w+)(?:=(\S+))?")
WORDS = {"hamming": "bits, by Hamming distance", "euclidean": "numbers, by Euclidean distance"}


def retrieval(
    config: harness.Config, hasher: Any, params: Any, protocol: Any, overlap: int
) -> dict[str, float]:
    """Return the scores of searching the whole gallery; none where images have no labels.

    Of CIFAR-100 scores that end in /coarse are of its 20 coarse classes.
    """
    from jaxret import data
    from jaxret.evaluate import encode_in_batches, evaluate

    parts = {"gallery": protocol.gallery, "query": protocol.query}
    if not all(map(data.has_labels, parts.values())):
        return {}
    coded = {
        name: part._replace(images=encode_in_batches(hasher.encode, params, part.images))
        for name, part in parts.items()
    }

    def scores(labelled):
        own = protocol._replace(**labelled)
        options = {"distance": hasher.distance, "ks": _ks(config), "overlap": overlap}
        return evaluate(lambda params, codes: codes, None, own, **options)

    coarse = {name: data.with_coarse_labels(part) for name, part in coded.items()}
    if None in coarse.values():
        return scores(coded)
    names = f"map@{config.eval_k}/retrieved", "map@all/all", f"precision@{config.eval_k}"
    of_coarse = scores(coarse)
    return scores(coded) | {f"{n}/coarse": of_coarse[n] for n in names if n in of_coarse}


def _ks(config: harness.Config) -> tuple[int, ...]:
    curve = CURVE if getattr(config, "curve", False) else ()
    return tuple(sorted({1, 10, config.eval_k, 1000, *curve}))


def measured(hasher: Any, params: Any, images: Any, seed: int) -> dict[str, float]:
    """Return the means over images of what a hasher measures of each, {} if it measures nothing.

    Args:
        hasher: a Hasher.
        params: what it learned.
        images: an ImageSet.
        seed: of the noise of what is drawn, such as one sample of each posterior.
    """
    import jax
    import numpy as np

    if hasher.measure is None:
        return {}
    n = len(images.images)
    size, parts = min(BATCH, n), []
    for start in range(0, n, size):
        rows = np.minimum(np.arange(start, start + size), n - 1)  # each batch of one size
        key = jax.random.fold_in(jax.random.key(seed), start)
        values = hasher.measure(params, key, images.images[rows], images.labels[rows])
        parts.append({name: np.asarray(value)[: n - start] for name, value in values.items()})
    return {
        name: float(np.mean(np.concatenate([part[name] for part in parts]), dtype=np.float64))
        for name in parts[0]
    }


def sample(images: Any, count: int = MEASURED) -> Any:
    """Return a fixed random sample of an ImageSet, all of it if it is not larger."""
    from jaxret import data
    from jaxret.data.sets import take

    return take(images, data.sample_rows(len(images.images), count))


def finish(
    workdir: harness.Workdir,
    config: harness.Config,
    script: ModuleType,
    hasher: Any,
    params: Any,
    protocol: Any,
    overlap: int,
    history: list[dict[str, Any]],
    record: dict[str, Any],
) -> None:
    """Score a fitted hasher and write all that a run leaves; say the main numbers.

    The encoder comes first and the pictures last: a run whose pictures fail is whole.

    Args:
        workdir: the run's folder.
        config: its flags.
        script: the module that it is a run of; see training.
        hasher: what was fitted.
        params: what it learned.
        protocol: a data.Protocol.
        overlap: query images that stand in the gallery.
        history: the log's lines; none for what does not learn in epochs.
        record: "train" of metrics.json, but for the bound on the likelihood.
    """
    from jaxret.evaluate import describe

    parts = {"metrics.json": True, "log.jsonl": history, "checkpoints/": hasher.training}
    parts |= {"encoder/": _keep_encoder(workdir, config, hasher, params, protocol)}
    left = [name for name, part in parts.items() if part]
    beside = ", and baselines" if config.baselines else ""
    print(f"scoring the search{beside}, then drawing ...", flush=True)
    metrics = script.score(config, hasher, params, protocol, overlap)
    size = int(hasher.encode(params, protocol.query.images[:1]).shape[1])
    baseline_scores = {}
    if config.baselines and metrics.get("map@1/retrieved") is not None:
        baseline_scores = baselines.scores(size, hasher.distance, protocol, overlap, _ks(config))
    workdir.write_json(
        "metrics.json",
        {
            "schema": 1,
            "dataset": config.dataset,
            "protocol": describe(protocol, overlap),
            "config": dataclasses.asdict(config),
            "metrics": metrics,
            "baselines": baseline_scores,
            "train": record | _bound(config, script, hasher, params, protocol),
            "environment": harness.environment(),
        },
    )
    advice = advice_for(config, script.ADVICE)
    print(summary(metrics, baseline_scores, protocol, size, hasher.distance, advice))
    title = f"{protocol.name}, {workdir.path.name}"
    images = functools.partial(_images, config, protocol)
    pictures = drawing.common(hasher, params, protocol, history, title, images)
    if hasattr(script, "pictures"):
        pictures = {**pictures, **script.pictures(config, hasher, params, protocol, title)}
    drawing.save(workdir, pictures)
    print(f"written to {workdir.path}: {', '.join(left)}, plots/*.png, args.flags")


def _images(config: harness.Config, protocol: Any) -> Any:
    """Return the protocol with the images that vectors are of."""
    return harness.load_images(config)[0] if config.extractor() else protocol


def _keep_encoder(workdir, config, hasher, params, protocol) -> bool:
    """Write encoder/, if the hasher can be made again from a name and settings.

    If not, that of an earlier run goes: the scores beside it would not be of its codes.
    """
    import jaxret

    if hasher.spec is None:
        shutil.rmtree(workdir.path / "encoder", ignore_errors=True)
        print("no encoder/ is kept: this hasher cannot be made again from a name and settings")
        return False
    jaxret.save_encoder(
        workdir.path / "encoder",
        hasher,
        params,
        image_size=protocol.train.images.shape[1:],
        class_names=protocol.train.class_names,
        origin={"dataset": config.dataset, "protocol": protocol.name, "seed": config.seed}
        | {"commit": harness.environment()["commit"]},
    )
    return True


def _bound(config, script, hasher, params, protocol) -> dict[str, float]:
    """The evidence lower bound of the training images, if the model has a likelihood.

    Of the trained model and the images as they are: what training adds up is of the weights on the
    way, and with augmentation or relaxed bits it bounds nothing.
    """
    if hasher.generate is None or not getattr(script, "bounds", lambda config: True)(config):
        return {}
    means = measured(hasher, params, protocol.train, config.seed)
    return {"elbo_nats": -(means["nll_nats"] + means["kl_nats"])}


def advice_for(config: harness.Config, pieces: Sequence[str]) -> str:
    """Return "try a, b or c", of the pieces of a script's advice that a run did not follow.

    A piece's flags are named as on the command line. One with a value that the run had, or more,
    is left out, and so is a switch that was on.
    """
    left = []
    for piece in pieces:
        new = FLAG.sub(lambda found: "" if _had(config, *found.groups()) else found[0], piece)
        if new == piece or FLAG.search(new):
            left.append(" ".join(new.split()))
    if not left:
        return ""
    *first, last = left
    return f"try {', '.join(first)} or {last}" if first else f"try {last}"


def _had(config: harness.Config, name: str, value: str | None) -> bool:
    own = getattr(config, name)
    if value is None:
        return own is True
    return own >= float(value) if isinstance(own, int | float) else own == value


def summary(
    metrics: Mapping[str, float],
    baseline_scores: Mapping[str, Mapping[str, Any]],
    protocol: Any,
    size: int,
    distance: str,
    advice: str,
) -> str:
    """Return the lines that a run says: headline scores beside the baselines', then other numbers.

    Args:
        metrics: the run's, by name.
        baseline_scores: see baselines.scores.
        protocol: a data.Protocol.
        size: numbers per code.
        distance: how codes are compared.
        advice: what to try if a baseline retrieves better, "" for nothing.
    """
    queries, gallery = len(protocol.query.images), len(protocol.gallery.images)
    kind = WORDS.get(distance, f"numbers, by {distance} distance")
    lines = [f"{protocol.name}: {queries:,} queries, {gallery:,} gallery images; {size} {kind}"]
    columns = {"this run": metrics} | {b["name"]: b["metrics"] for b in baseline_scores.values()}
    rows = [(key, words) for key, words in baselines.HEADLINES.items() if key in metrics]
    if rows:
        width = max(len(words) for _, words in rows)
        lines.append("  ".join([" " * width, *columns]))
        for key, words in rows:
            cells = (
                f"{values[key]:.4f}".rjust(len(name)) if key in values else " " * len(name)
                for name, values in columns.items()
            )
            lines.append("  ".join([words.ljust(width), *cells]))
    else:
        lines.append("no labels, so nothing says which results are right: no retrieval scores")
    fewer = {b["queries"] for b in baseline_scores.values()} - {queries}
    if fewer:
        lines.append(f"baselines: on {min(fewer):,} of the queries, drawn at random")
    better = baselines.better(metrics, baseline_scores)
    if better:
        named = "; ".join(f"{name} ({', '.join(scores)})" for name, scores in better.items())
        lines.append(f"a baseline retrieves better: {named}" + (f"; {advice}" if advice else ""))
    alone = metrics.get("queries_without_relevant", 0)
    if alone:
        lines.append(f"{alone:.0f} queries have a class that the gallery lacks, and score 0")
    retrieval = ("map@", "precision@", "empty@", "queries_without")
    own = {name: value for name, value in metrics.items() if not name.startswith(retrieval)}
    if own:
        lines.append(", ".join(f"{name} {value:.5g}" for name, value in own.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    print(__doc__)
