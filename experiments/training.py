"""A run of a training script from its flags to its results: the one main that all scripts share.

A script is a module with

    CONFIG                                       its flags, an options.Config
    VERSION                                      grows when the same flags compute something else
    ADVICE                                       what to try if a baseline retrieves better, a tuple
    hasher(config, protocol)                     -> jaxret.hashers.Hasher
    positives(config, images)                    -> rows of similar images, or None
    score(config, hasher, params, protocol, overlap)   -> named numbers
    pictures(config, hasher, params, protocol)   -> name -> function that gives a figure  (may lack)
    watch(config, hasher, protocol)              -> (params -> numbers of an epoch)       (may lack)
    bounds(config)                               -> whether nll_nats is of a likelihood   (may lack)
    builds_on(config)                            -> script -> VERSION of what it calls    (may lack)
"""

import functools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import harness
import report


def run(script: ModuleType) -> None:
    """Run a script from the command line."""
    harness.run(script.CONFIG, lambda config: main(config, script))


def main(config: harness.Config, script: ModuleType) -> None:
    """Load, train, score, and leave the results in the work folder."""
    from jaxret import data

    checkpoint_seconds()  # refuse before writing
    protocol, overlap = harness.load_data(config)
    print(*data.describe(protocol), sep="\n", flush=True)
    given, config = config, harness.with_batches_of(config, protocol.train)
    hasher = script.hasher(config, protocol)
    learns = hasher.training is not None
    if learns and config is not given:
        print(f"batch size: {config.batch_size}, all training images ({given.batch_size} are the "
              "default)", flush=True)  # fmt: skip
    positives = script.positives(config, protocol.train.images)
    if learns:
        hasher.training.check(protocol.train.images, protocol.train.labels)
    start = initial_state(config, hasher, protocol.train) if learns else None
    with harness.Workdir(config, protocol.train, learns and hasher.training.horizon) as workdir:
        if learns:
            watch = script.watch(config, hasher, protocol) if hasattr(script, "watch") else None
            params, history, record = train(
                workdir, config, hasher, start, protocol.train, positives, watch
            )
        else:
            params, history, record = _fit_at_once(workdir, config, hasher, protocol)
        report.finish(workdir, config, script, hasher, params, protocol, overlap, history, record)


def checkpoint_seconds() -> float:
    """Return how much work a kill may lose beside one epoch's: JAXRET_CHECKPOINT_SECONDS, or 10."""
    text = os.environ.get("JAXRET_CHECKPOINT_SECONDS", "10")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise ValueError(f"JAXRET_CHECKPOINT_SECONDS must be a number of seconds, got {text!r}")
    return seconds


def _fit_at_once(
    workdir: harness.Workdir, config: harness.Config, hasher: Any, protocol: Any
) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    """Fit a hasher that cannot be stopped and resumed; it may learn in epochs nevertheless."""
    import jax

    images, since, start = protocol.train, time.time(), time.perf_counter()
    history = workdir.history(until_step=0)  # lines of an earlier try go
    # Made by the first epoch: most hashers have none.
    progress = functools.cache(
        lambda: harness.Progress(len(images.images), config.epochs, since=since)
    )
    record = _recorder(workdir, history, lambda *epoch: progress()(*epoch))
    try:
        params, info = hasher.fit(
            jax.random.key(config.seed), images.images, images.labels, on_epoch=record
        )
    finally:
        if history:
            progress().close()
    told = {"epochs": len(history), "steps": history[-1]["steps"] if history else 0}
    told |= {"seconds": time.perf_counter() - start, "images_per_second": _rate(history)}
    return params, history, info | told


def train(
    workdir: harness.Workdir,
    config: harness.Config,
    hasher: Any,
    state: Any,
    images: Any,
    positives: Any,
    watch: Any = None,
) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    """Fit a hasher in a work folder: resume, show progress, log, save.

    Args:
        workdir: where checkpoints and the log are.
        config: the run's flags.
        hasher: one with a training.
        state: where training starts if the folder holds no checkpoint.
        images: the training images, an ImageSet.
        positives: rows of similar images, or None.
        watch: params -> further numbers of each epoch, or None.

    Returns:
        The params, the log, and "train" of metrics.json.
    """
    import jax

    from jaxret import train
    from jaxret.hashers import weights

    steps = train.steps_per_epoch(len(images.images), config.batch_size)
    state, history = _latest(workdir, state)
    done = int(state.step) // steps
    _check_epochs(workdir, done, config.epochs)
    progress = harness.Progress(steps * config.batch_size, config.epochs, done)
    record, save = _recorder(workdir, history, progress, watch), _saver(workdir, config.epochs)
    latest = state

    def on_epoch(state, info):
        nonlocal latest
        latest = state
        record(state, info)
        save(state, info)

    try:
        if done < config.epochs:
            hasher.fit(
                jax.random.key(config.seed),
                images.images,
                images.labels,
                positives=positives,
                state=state,
                mesh=_mesh(config),
                on_epoch=on_epoch,
            )
    finally:
        progress.close()
        workdir.checkpoints.close()
    told = {"epochs": config.epochs, "steps": config.epochs * steps}
    return weights(latest), history, told | _times(history, workdir.earlier_record())


def _latest(workdir: harness.Workdir, state: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The newest checkpoint, or the given state if there is none, and the log up to it."""
    if workdir.checkpoints.latest_step() is not None:
        state = workdir.checkpoints.restore(state)
    return state, workdir.history(until_step=int(state.step))


def _check_epochs(workdir: harness.Workdir, done: int, epochs: int) -> None:
    """Raise ValueError if a run is to have fewer epochs than its folder holds."""
    if done > epochs:
        raise ValueError(
            f"{workdir.path} holds a run of {done} epochs, which --epochs={epochs} cannot "
            "shorten; choose another --workdir"
        )


def _recorder(
    workdir: harness.Workdir,
    history: list[dict[str, Any]],
    progress: Callable[[int, dict[str, float], float], None],
    watch: Any = None,
) -> Callable[[Any, Any], None]:
    """The function that hears of each epoch, shows it and logs it."""
    from jaxret.hashers import weights

    seconds = history[-1]["seconds"] if history else 0.0

    def record(state, info):
        nonlocal seconds
        seconds += info.seconds
        terms = {name: float(value) for name, value in info.terms.items()}
        terms |= watch(weights(state)) if watch else {}
        progress(info.epoch, terms, info.images_per_second)
        rate = round(info.images_per_second, 1)
        line = {"epoch": info.epoch, "steps": info.steps, **terms, "images_per_second": rate}
        history.append(line | {"seconds": round(seconds, 3)})
        workdir.log(history[-1])

    return record


def _saver(workdir: harness.Workdir, epochs: int) -> Callable[[Any, Any], None]:
    """The function that keeps the state after an epoch, if the last kept one is old enough."""
    saved = time.monotonic()

    def save(state, info):
        nonlocal saved
        if info.epoch == epochs or time.monotonic() - saved > checkpoint_seconds():
            workdir.checkpoints.save(info.steps, state)
            saved = time.monotonic()

    return save


def _times(history: list[dict[str, Any]], earlier: dict[str, Any]) -> dict[str, Any]:
    """Seconds, and the median rate over epochs; of an earlier metrics.json if the log is gone."""
    if not history:
        return {name: earlier.get(name) for name in ("seconds", "images_per_second")}
    return {"seconds": history[-1]["seconds"], "images_per_second": _rate(history)}


def _rate(history: list[dict[str, Any]]) -> float | None:
    """The median rate over epochs."""
    return statistics.median(line["images_per_second"] for line in history) if history else None


def _mesh(config: harness.Config) -> Any:
    """All devices, where the flags say that a batch is split over them."""
    import jax

    if not getattr(config, "data_parallel", False):
        return None
    axis_types = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((jax.device_count(),), ("images",), axis_types=axis_types)


def initial_state(config: harness.Config, hasher: Any, images: Any) -> Any:
    """Return the state that training starts from: drawn by the seed, or with --init_from's weights.

    A run that is resumed has its own weights by now: those of another are not read again.

    Raises ValueError if those weights are not of this model.
    """
    import jax

    from jaxret import train
    from jaxret.hashers import weights

    key = jax.random.key(config.seed)
    state = train.start(hasher.training, key, images.images, images.labels)
    resumed = config.resume and any(Path(config.workdir).glob("checkpoints/[0-9]*"))
    if not config.init_from or resumed:
        return state
    own, there = weights(state), _weights_of(Path(config.init_from), state)
    differing = _differences(own, there)
    if differing:
        raise ValueError(
            f"--init_from={config.init_from} is of another model: {differing[0]}"
            + (f", and {len(differing) - 1} more differences" if len(differing) > 1 else "")
        )
    named = dict(jax.tree_util.tree_leaves_with_path(there))
    flat, tree = jax.tree_util.tree_flatten_with_path(own)
    taken = jax.tree.unflatten(tree, [jax.numpy.asarray(named[path]) for path, _ in flat])
    if not state.model_state:
        return state._replace(params=taken)
    return state._replace(params=taken.pop("params"), model_state=taken)


def _weights_of(run: Path, like: Any) -> Any:
    """The weights of a kept encoder, of a run's, or of a run's newest checkpoint."""
    from jaxret import checkpoint, encoder
    from jaxret.hashers import weights

    for folder in (run / "encoder", run):
        if (folder / encoder.HEADER).exists():
            return encoder.read(folder)[1]
    if not (run / "checkpoints").is_dir():
        raise ValueError(f"--init_from={run} is neither a run's folder nor a kept encoder")
    with checkpoint.Checkpoints(run / "checkpoints", None) as checkpoints:
        return weights(checkpoints.restore(like))


def _differences(own: Any, there: Any) -> list[str]:
    """Say how two trees of arrays differ in names and shapes."""
    import jax

    def shapes(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}

    here, there = shapes(own), shapes(there)
    return [
        f"{name} is {there.get(name, 'absent')} there, {here.get(name, 'absent')} here"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    ]


def finished(script: ModuleType, run: Path, data_dir: str = "") -> tuple[Any, Any, Any, Any]:
    """Return a finished run's configuration, protocol, hasher and params.

    Args:
        script: the module that it is a run of.
        run: its work folder.
        data_dir: where the raw files of data sets lie.
    """
    import jax

    from jaxret import train
    from jaxret.checkpoint import Checkpoints
    from jaxret.hashers import weights

    kept = json.loads((run / "metrics.json").read_text())["config"]
    config = script.CONFIG.from_kept(kept, data_dir=data_dir)
    protocol, _ = harness.load_data(config)
    hasher = script.hasher(config, protocol)
    images, labels = protocol.train.images, protocol.train.labels
    like = train.start(hasher.training, jax.random.key(config.seed), images, labels)
    with Checkpoints(run / "checkpoints", None) as checkpoints:
        return config, protocol, hasher, weights(checkpoints.restore(like))


if __name__ == "__main__":
    print(__doc__)
