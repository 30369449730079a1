"""Epochs until a run, or several vmapped ones, has seen them all."""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key

from jaxret.inputs import Inputs
from jaxret.train.steps import (
    Batches,
    Hyper,
    Trainer,
    TrainState,
    make_epoch,
    make_epoch_loop,
    run_once,
    steps_per_epoch,
)


class EpochInfo(NamedTuple):
    """What `on_epoch` is told about an epoch."""

    epoch: int  # counted from 1
    steps: int  # since the start of the run
    terms: dict[str, np.ndarray]  # mean over the epoch; one value per run in a sweep
    images_per_second: float
    seconds: float  # of this epoch, with compilation if it was compiled


class TrainingError(FloatingPointError):
    """Training produced a number that is not finite."""


def fit(
    trainer: Trainer,
    state: TrainState,
    hyper: Hyper,
    images: Inputs,
    labels: Int[np.ndarray | Array, " n"],
    *,
    epochs: int,
    batches: Batches,
    scan: bool = True,
    mesh: Mesh | None = None,
    settle: Callable[[TrainState, Array], TrainState] | None = None,
    on_epoch: Callable[[TrainState, EpochInfo], None] = lambda state, info: None,
) -> TrainState:
    """Train until the state has seen `epochs` epochs, those before a resume included.

    Args:
        trainer: The model's init and step.
        state: Where to start. A leading axis on every leaf (from `sweep_init`) trains as many runs
            in one vmapped program; the scalars of hyper then have that axis too.
        hyper: The scalars of training.
        images: Training images, kept on the device as bytes, or vectors.
        labels: Their classes; a loss without labels ignores them.
        epochs: Passes over the images in all.
        batches: How each step's batch is drawn.
        scan: Whether an epoch is one program (see `make_epoch_loop`).
        mesh: With a mesh of one axis each batch is split over its devices; the state and the images
            are on every one.
        settle: See `Training`.
        on_epoch: Called after each epoch, to log, draw progress and save.

    Raises:
        ValueError: The batch size or the positives do not fit the images; a sweep without scan.
        TrainingError: A term of the loss is not finite; the message names the step.
    """
    num_images, runs = len(images), state.step.shape
    steps = steps_per_epoch(num_images, batches.size)
    _check_positives(batches.positives, num_images)
    run_epoch = _epoch_runner(trainer, num_images, batches.size, runs, scan, mesh)
    data = tuple(x if x is None else jnp.asarray(x) for x in (images, labels, batches.positives))
    hyper = {**hyper, "steps": np.full(runs, epochs * steps)}
    hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
    if mesh is not None:
        everywhere = NamedSharding(mesh, PartitionSpec())
        state, hyper, data = jax.device_put((state, hyper, data), everywhere)
    waiting = time.perf_counter()
    if scan:  # compiled ahead, so that the first epoch's rate is a rate of training
        run_epoch = run_epoch.lower(state, hyper, *data).compile()

    for epoch in range(int(state.step.max()) // steps + 1, epochs + 1):
        start = time.perf_counter()
        state, terms = run_epoch(state, hyper, *data)
        terms = jax.device_get(terms)
        rate = steps * batches.size * max(1, int(np.prod(runs))) / (time.perf_counter() - start)
        _check_finite(terms, (epoch - 1) * steps)
        state = _settled(settle, state, data[0])
        means = {name: value.mean(axis=-1) for name, value in terms.items()}
        on_epoch(state, EpochInfo(epoch, epoch * steps, means, rate, time.perf_counter() - waiting))
        waiting = time.perf_counter()
    return state


def _settled(settle, state, images):
    if settle is None:
        return state
    settle = jax.vmap(settle, (0, None)) if state.step.ndim else settle
    return jax.block_until_ready(settle(state, images))


def _check_positives(positives, num_images):
    if positives is not None and len(positives) != num_images:
        raise ValueError(
            f"positives must have a row for each of {num_images} images, got {np.shape(positives)}"
        )


@functools.lru_cache(maxsize=8)  # the next run of the same training compiles nothing again
def _epoch_runner(trainer, num_images, batch_size, runs, scan, mesh):
    """The function that runs one epoch: compiled whole by scan, or step by step."""
    if runs and not scan:
        raise ValueError("a sweep trains by scan; pass scan=True")
    step = trainer.step if mesh is None else _split_over(mesh, trainer.step, batch_size)
    if not scan:
        return make_epoch_loop(step, num_images, batch_size)
    epoch = make_epoch(step, num_images, batch_size)
    return jax.jit(jax.vmap(epoch, (0, 0, *[None] * 3)) if runs else epoch)


def _split_over(mesh: Mesh, step: Callable, batch_size: int) -> Callable:
    """A step that computes each device's share of the batch there.

    What is a mean over the batch, statistics included, stays a mean over the whole batch.
    """
    (axis,) = mesh.axis_names
    if batch_size % mesh.size:
        raise ValueError(f"batch_size must be a multiple of {mesh.size} devices, got {batch_size}")

    def split(state, hyper, images, labels):
        shares = NamedSharding(mesh, PartitionSpec(axis))
        return step(state, hyper, *lax.with_sharding_constraint((images, labels), shares))

    return split


def _check_finite(terms: dict[str, np.ndarray], steps_before: int) -> None:
    for name, values in terms.items():
        bad = ~np.isfinite(values)
        if bad.any():
            *run, first = np.argwhere(bad)[np.argmin(np.argwhere(bad)[:, -1])]
            where = f" of run {run[0]}" if run else ""
            raise TrainingError(
                f"{name} became {values[(*run, first)]} at step "
                f"{steps_before + first + 1}{where}; try a smaller learning_rate"
            )


def sweep_init(trainer: Trainer, keys: Key[Array, " runs"], hyper: Hyper) -> TrainState:
    """First states of several runs: one key and one value of each scalar per run.

    `fit` then trains them in one vmapped program.
    """
    scalars = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
    for name, values in scalars.items():
        if values.shape != keys.shape[:1]:
            raise ValueError(
                f"{name} needs one value for each of {keys.shape[0]} runs, got shape {values.shape}"
            )
    return run_once(jax.vmap(trainer.init), keys, scalars)


def unstack(state: TrainState, run: int) -> TrainState:
    """One run's state out of a sweep's."""
    return jax.tree.map(lambda leaf: leaf[run], state)
