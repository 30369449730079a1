"""Runs of a table's rows: trained, scored, and kept by everything that their scores depend on.

A script is a module with CONFIG (the dataclass of its flags), VERSION (a number that grows when the
script computes something else for the same flags), and the functions hasher, positives and score;
builds_on, where its runs build on another script's (see `kept_at`). Nothing here knows more of a
model.
"""

import hashlib
import importlib
import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import harness

Config = Any  # an instance of a script's CONFIG
Result = dict[str, Any]  # metrics, protocol, vmap_runs, seconds


def kept_at(script: str, config: Config) -> Path:
    """Return the file of a run: a digest of script, version and the values of all flags.

    Values and not only changes, because a default may change; the version, because the code may. A
    flag that was added after results were kept would make all of them stale: CONFIG.ADDED gives for
    such flags the value at which the script computes what it did before, which is left out. A
    script whose runs build on those of others has a function builds_on of a run's flags, which
    returns the versions of these by name.
    """
    added = getattr(type(config), "ADDED", {})
    values = {n: v for n, v in config.identity().items() if n not in added or v != added[n]}
    module = importlib.import_module(script)
    others = module.builds_on(config) if hasattr(module, "builds_on") else {}
    identity = [script, module.VERSION, values, *([others] if others else [])]
    identity = json.dumps(identity, sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return Path(config.workdir) / "rows" / f"{digest}.json"


def keep(
    script: str,
    config: Config,
    result: Mapping[str, Any],
    environment: Mapping[str, Any] | None = None,
) -> None:
    """Write a run where tables find it.

    Args:
        script: name of the module that ran it, such as "train_vae".
        config: the run's flags; its workdir is where the run is kept.
        result: "metrics" (name -> number, or None where the run has no such metric), "protocol"
            (its name), "vmap_runs" (how many runs trained in one program), "seconds".
        environment: device and versions of the run; None: those of this process.
    """
    path = kept_at(script, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = environment or harness.environment()
    version = importlib.import_module(script).VERSION
    content = {"script": script, "version": version, "config": config.identity(), **result}
    content = json.dumps(content | {"environment": environment}, indent=1)
    harness.write_whole(path, content + "\n")


def kept(script: str, config: Config) -> dict[str, Any] | None:
    """Return a run as it was kept, or None."""
    try:
        return json.loads(kept_at(script, config).read_text())
    except FileNotFoundError:
        return None


def complete(script: str, wanted: Mapping[Config, Iterable[str]], vmap_runs: int) -> None:
    """Run what is not kept with the metrics that are wanted of it, and keep it.

    Args:
        script: name of the module that runs the configurations.
        wanted: configuration -> names of the metrics wanted of it.
        vmap_runs: how many runs may train in one vmapped program, at most.
    """

    def is_missing(config):
        run = kept(script, config)
        return run is None or not set(wanted[config]) <= run["metrics"].keys()

    module = importlib.import_module(script)
    told = _Told(list(filter(is_missing, wanted)))
    for same_images in _groups(wanted, _images):
        protocol = None
        for group in _groups(same_images, _training):
            # Looked up when its turn comes: another process may work in the same folder.
            missing = list(filter(is_missing, group))
            if not missing:
                continue
            if protocol is None:
                protocol, overlap = harness.load_data(missing[0])
            for config, result in train_and_score(module, missing, protocol, overlap, vmap_runs):
                nothing = dict.fromkeys(wanted[config])  # so that it is not run for them again
                result["metrics"] = nothing | result["metrics"]
                keep(script, config, result | {"protocol": protocol.name})
                told.done(config)


class _Told:
    """Says after each run how many are done, and about how long the others take."""

    def __init__(self, missing: list[Config]):
        self._total, self._done, self._begun = len(missing), 0, time.monotonic()
        each = [config.identity() for config in missing]
        names = each[0] if each else ()
        self._names = [name for name in names if len({str(one[name]) for one in each}) > 1]

    def done(self, config: Config) -> None:
        """Say that a run is done and kept."""
        self._done += 1
        if self._total < 2:
            return
        values = config.identity()
        which = " ".join(f"--{name}={values[name]}" for name in self._names)
        left = (time.monotonic() - self._begun) / self._done * max(0, self._total - self._done)
        rest = f"about {left / 60:.0f} min left" if left else "all done"
        print(f"run {self._done} of {self._total}, {rest}: {which}", file=sys.stderr, flush=True)


def _images(config: Config) -> tuple[Any, ...]:
    names = config.dataset, config.protocol, config.data_dir, config.image_size
    return *names, config.extractor(), config.mirrors(), config.sees_both()


def _training(config: Config) -> str:
    """Return what must be equal for configurations to train in one program.

    A scalar that is 0 switches its term off, which may be another program.
    """
    varied = {*config.EVALUATION, *config.SCALARS, "seed"}
    values = {name: v for name, v in config.identity().items() if name not in varied}
    used = {name: bool(getattr(config, name)) for name in config.SCALARS}
    return json.dumps([values, used], sort_keys=True)


def _run(config: Config) -> tuple[Any, ...]:
    """Return what must be equal, beside _training, for configurations to be one trained run."""
    return *(getattr(config, name) for name in config.SCALARS), config.seed


def _groups(configs: Iterable[Config], key: Any) -> list[list[Config]]:
    ordered = sorted(dict.fromkeys(configs), key=key)
    return [list(group) for _, group in itertools.groupby(ordered, key=key)]


def train_and_score(
    module: ModuleType, configs: list[Config], protocol: Any, overlap: int, vmap_runs: int
) -> Iterator[tuple[Config, Result]]:
    """Train the distinct runs of configurations that share a program, and score each.

    Args:
        module: the script.
        configs: configurations that differ only in scalars, seed and what concerns codes.
        protocol: the images.
        overlap: how many queries are in the gallery.
        vmap_runs: how many runs may train in one vmapped program, at most.
    """
    began = time.perf_counter()  # to make a hasher may be to train what it builds on
    runs = _groups(configs, _run)
    training = module.hasher(configs[0], protocol).training
    width = vmap_runs if training is not None and training.scan else 1
    positives = module.positives(configs[0], protocol.train.images)
    for start in range(0, len(runs), width):
        side_by_side = runs[start : start + width]
        params = _fit(module, [run[0] for run in side_by_side], protocol, positives)
        each = (time.perf_counter() - began) / sum(map(len, side_by_side))
        for run, own in zip(side_by_side, params, strict=True):
            for config in run:
                scored = time.perf_counter()
                hasher = module.hasher(config, protocol)
                metrics = module.score(config, hasher, own, protocol, overlap)
                metrics |= {"fit_seconds": each}
                seconds = each + time.perf_counter() - scored
                yield (
                    config,
                    {"metrics": metrics, "vmap_runs": len(side_by_side), "seconds": seconds},
                )
        began = time.perf_counter()


def _fit(module: ModuleType, configs: list[Config], protocol: Any, positives: Any) -> list[Any]:
    """Return the params of configurations that train in one program, or one that fits."""
    import jax
    import numpy as np

    from jaxret import hashers, train

    images, labels = protocol.train.images, protocol.train.labels
    config, made = configs[0], [module.hasher(config, protocol) for config in configs]
    keys = [jax.random.key(config.seed) for config in configs]
    if made[0].training is None:
        return [params for params, _ in hashers.fit_all(made, keys, images, labels)]
    steps = train.steps_per_epoch(len(images), config.batch_size)
    progress = harness.Progress(steps * config.batch_size * len(configs), config.epochs)

    def on_epoch(state, info):
        del state
        terms = {name: float(np.mean(value)) for name, value in info.terms.items()}
        progress(info.epoch, terms, info.images_per_second)

    try:
        fitted = hashers.fit_all(made, keys, images, labels, positives=positives, on_epoch=on_epoch)
    finally:
        progress.close()
    return [params for params, _ in fitted]


if __name__ == "__main__":
    print("runs.py is a module; the command is: python experiments/reproduce.py --help")
