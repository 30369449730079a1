"""Training: a step, an epoch of steps as one program, many runs side by side.

Nothing here reads files or prints. A run is a pure function of its first state: the order of the
images and all noise come from state.key and state.step, so a run that is stopped after any epoch
and continued from the saved state ends in the same parameters, bit for bit.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, UInt8

PyTree = Any
# (params, model_state, key, images, labels, hyper) -> (loss, (model_state, terms)); terms are named
# means over the batch, hyper a dictionary of scalars that a sweep may vary.
Loss = Callable[..., tuple[Float[Array, ""], tuple[PyTree, dict[str, Float[Array, ""]]]]]
# Scalars; in a sweep, one value per run. Where there is an x_end, x goes from its value to that one
# over the run, by the same factor at each step. `fit` adds steps, how many the run has, and each
# step adds step, how many are done, so that an optimizer may follow a schedule.
Hyper = dict[str, Float[Array, "..."] | float]


class TrainState(NamedTuple):
    """All that a run carries from step to step."""

    step: Int[Array, "*runs"]
    params: PyTree
    model_state: PyTree  # batch statistics; empty where a model has none
    opt_state: PyTree
    key: PRNGKeyArray  # the run's root key: never changed, folded with the step where used


class EpochInfo(NamedTuple):
    """What an epoch's listener is told."""

    epoch: int  # counted from 1
    steps: int  # done since the start of the run
    terms: dict[str, np.ndarray]  # mean over the epoch; one value per run in a sweep
    images_per_second: float
    seconds: float  # compilation included, where there was one


class TrainingError(FloatingPointError):
    """Training produced a number that is not finite."""


class Trainer(NamedTuple):
    """A model's training as pure functions; init and epoch may be vmapped.

    The optimizer is a function of hyper, such as lambda h: optax.adam(h["learning_rate"]), so
    that a sweep can vary its numbers.
    """

    init: Callable[[PRNGKeyArray, Hyper], TrainState]
    step: Callable[..., tuple[TrainState, dict[str, Float[Array, ""]]]]


def make_trainer(
    init: Callable[[PRNGKeyArray], tuple[PyTree, PyTree]],
    loss: Loss,
    optimizer: Callable[[Hyper], optax.GradientTransformation],
) -> Trainer:
    """Join a model's init, its loss and an optimizer.

    init gives (params, model_state) from a key.
    """

    def start(key, hyper):
        init_key, run_key = jax.random.split(key)
        params, model_state = init(init_key)
        opt_state = optimizer(hyper | {"step": 0.0, "steps": 1.0}).init(params)
        return TrainState(jnp.zeros((), jnp.int32), params, model_state, opt_state, run_key)

    def step(state, hyper, images, labels):
        hyper = _annealed(hyper, state.step)
        noise_key, _ = _keys_of_step(state)
        gradients, (model_state, terms) = jax.grad(loss, has_aux=True)(
            state.params, state.model_state, noise_key, images, labels, hyper
        )
        updates, opt_state = optimizer(hyper).update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, model_state, opt_state, state.key), terms

    return Trainer(start, step)


def _annealed(hyper: Hyper, step: Int[Array, ""]) -> Hyper:
    """The scalars at a step."""
    hyper = hyper | {"step": step.astype(jnp.float32)}

    def now(name):
        start, end = hyper[name], hyper[f"{name}_end"]
        return start * (end / start) ** (hyper["step"] / hyper["steps"])

    return hyper | {name: now(name) for name in hyper if f"{name}_end" in hyper}


def _keys_of_step(state: TrainState) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """Keys for a step's noise and, at the first step of an epoch, for the order of images."""
    noise, order = jax.random.split(jax.random.fold_in(state.key, state.step))
    return noise, order


def make_epoch(
    step: Callable[..., tuple[TrainState, dict]], num_images: int, batch_size: int
) -> Callable[..., tuple[TrainState, dict[str, Float[Array, " steps"]]]]:
    """One pass over the images in a new random order, as one lax.scan.

    The images stay where they are (on the device, as uint8). The last images of the order, too few
    for a batch, wait for a later epoch. partners: as in `fit`.
    """
    steps = steps_per_epoch(num_images, batch_size)

    def epoch(state, hyper, images, labels, partners=None):
        def body(state, rows):
            rows = _with_partners(state, rows, partners)
            return step(state, hyper, images[rows], labels[rows])

        return lax.scan(body, state, _order(state, num_images, steps, batch_size))

    return epoch


def _order(state: TrainState, num_images: int, steps: int, batch_size: int) -> Int[Array, "s b"]:
    _, key = _keys_of_step(state)
    order = jax.random.permutation(key, num_images)
    return order[: steps * batch_size].reshape(steps, batch_size)


def _with_partners(
    state: TrainState, rows: Int[Array, " b"], partners: Int[Array, "n m"] | None
) -> Int[Array, " c"]:
    """The rows, then a partner of each."""
    if partners is None:
        return rows
    _, key = _keys_of_step(state)
    which = jax.random.randint(jax.random.fold_in(key, 1), rows.shape, 0, partners.shape[1])
    return jnp.concatenate([rows, partners[rows, which]])


@functools.cache
def convolution_options() -> dict[str, str] | None:
    """Compiler options of jax.jit for a program that convolves, None where none are needed.

    On CPU XLA gives convolutions to a library that has one thread for each; its own have all. On 2
    cores a training step of DRHN-1 takes 0.8 of the time with them, an encoding 0.7.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # a release of XLA that has no such option
        return None
    return options


def make_epoch_loop(
    step: Callable[..., tuple[TrainState, dict]], num_images: int, batch_size: int
) -> Callable[..., tuple[TrainState, dict[str, Float[Array, " steps"]]]]:
    """As make_epoch, by a Python loop over the jitted step.

    For convolutions on CPU, where XLA is some 50 times slower inside a scan (jax issue 12868).
    """
    steps = steps_per_epoch(num_images, batch_size)
    order_of = jax.jit(lambda state: _order(state, num_images, steps, batch_size))

    @functools.partial(jax.jit, compiler_options=convolution_options())
    def take(state, hyper, images, labels, partners, rows):
        rows = _with_partners(state, rows, partners)
        return step(state, hyper, images[rows], labels[rows])

    def epoch(state, hyper, images, labels, partners=None):
        order, terms = order_of(state), []
        for rows in order:
            state, terms_of_step = take(state, hyper, images, labels, partners, rows)
            terms.append(terms_of_step)
        return state, jax.tree.map(lambda *values: jnp.stack(values), *terms)

    return epoch


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Whole batches in one pass."""
    if not 1 <= batch_size <= num_images:
        raise ValueError(
            f"batch_size must lie between 1 and the number of training images, {num_images}, "
            f"got {batch_size}"
        )
    return num_images // batch_size


def fit(
    trainer: Trainer,
    state: TrainState,
    hyper: Hyper,
    images: UInt8[np.ndarray | Array, "n h w c"],
    labels: Int[np.ndarray | Array, " n"],
    *,
    epochs: int,
    batch_size: int,
    partners: Int[np.ndarray | Array, "rows m"] | None = None,
    scan: bool = True,
    mesh: Mesh | None = None,
    on_epoch: Callable[[TrainState, EpochInfo], None] = lambda state, info: None,
) -> TrainState:
    """Train until the state has seen this many epochs, those before a resume included.

    A state with a leading axis on every leaf (from sweep_init) trains as many runs at once, and
    hyper's scalars then have that axis too. Where each image has partners, rows of others, a step
    sees a batch of images and then, in their order, one partner of each, at random. With a mesh of
    one axis each batch is split over its devices; the state and the images are on every one.
    on_epoch hears of each epoch: it logs, draws progress and saves. Raises TrainingError, with the
    step, at the first loss that is not finite.
    """
    num_images = len(images)
    steps = steps_per_epoch(num_images, batch_size)
    runs = state.step.shape
    if runs and not scan:
        raise ValueError("a sweep trains by scan; pass scan=True")
    step = trainer.step if mesh is None else _split_over(mesh, trainer.step, batch_size)
    if scan:
        run_epoch = make_epoch(step, num_images, batch_size)
        run_epoch = jax.jit(jax.vmap(run_epoch, (0, 0, *[None] * 3)) if runs else run_epoch)
    else:
        run_epoch = make_epoch_loop(step, num_images, batch_size)
    if partners is not None and len(partners) != num_images:
        raise ValueError(
            f"partners must have a row for each of {num_images} images, got {np.shape(partners)}"
        )
    data = jnp.asarray(images), jnp.asarray(labels)
    data += (None if partners is None else jnp.asarray(partners),)
    hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
    hyper["steps"] = jnp.full(runs, epochs * steps, jnp.float32)
    if mesh is not None:
        everywhere = NamedSharding(mesh, PartitionSpec())
        state, hyper, data = jax.device_put((state, hyper, data), everywhere)
    waiting = time.perf_counter()
    if scan:  # compiled ahead, so that the first epoch's rate is a rate of training
        run_epoch = run_epoch.lower(state, hyper, *data).compile()

    done = int(state.step.max()) // steps
    for epoch in range(done + 1, epochs + 1):
        start = time.perf_counter()
        state, terms = run_epoch(state, hyper, *data)
        terms = jax.device_get(terms)
        now = time.perf_counter()
        _check_finite(terms, (epoch - 1) * steps)
        rate = steps * batch_size * max(1, int(np.prod(runs))) / (now - start)
        means = {name: value.mean(axis=-1) for name, value in terms.items()}
        on_epoch(state, EpochInfo(epoch, epoch * steps, means, rate, now - waiting))
        waiting = time.perf_counter()
    return state


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
    """First states of several runs: one key, and one value of each hyper scalar, per run.

    fit then trains them in one vmapped program.
    """
    hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
    for name, values in hyper.items():
        if values.shape != keys.shape[:1]:
            raise ValueError(
                f"{name} needs one value for each of {keys.shape[0]} runs, got shape {values.shape}"
            )
    return jax.vmap(trainer.init)(keys, hyper)


def unstack(state: TrainState, run: int) -> TrainState:
    """One run's state out of a sweep's."""
    return jax.tree.map(lambda leaf: leaf[run], state)
