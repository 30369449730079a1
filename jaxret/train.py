"""Training: a step, an epoch of steps as one program, many runs in one vmapped program.

Nothing here reads files or prints. A run is a pure function of its first state: the order of the
images and all noise come from state.key and state.step, so a run that is stopped after any epoch
and continued from the saved state ends in the same parameters, bit for bit.
"""

import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, UInt8

from jaxret import inputs

PyTree = Any
# (params, model_state, key, images, labels, hyper) -> (loss, (model_state, terms)); terms are named
# means over the batch, hyper a dictionary of scalars that a sweep may vary.
Loss = Callable[..., tuple[Float[Array, ""], tuple[PyTree, dict[str, Float[Array, ""]]]]]
# Scalars; in a sweep, one value per run. If hyper holds x_end, x goes from its value to x_end over
# the run, by the same factor at each step. `fit` adds `steps`, the length of the run, and each step
# adds `step`, its number, so that an optimizer can follow a schedule.
Hyper = Mapping[str, Any]


class TrainState(NamedTuple):
    """All that a run carries from step to step."""

    step: Int[Array, "*runs"]
    params: PyTree
    model_state: PyTree  # batch statistics; empty where a model has none
    opt_state: PyTree
    key: PRNGKeyArray  # the run's root key: never changed, folded with the step where used


class EpochInfo(NamedTuple):
    """What `on_epoch` is told about an epoch."""

    epoch: int  # counted from 1
    steps: int  # since the start of the run
    terms: dict[str, np.ndarray]  # mean over the epoch; one value per run in a sweep
    images_per_second: float
    seconds: float  # of this epoch, with compilation if it was compiled


class TrainingError(FloatingPointError):
    """Training produced a number that is not finite."""


class Batches(NamedTuple):
    """How the batch of a step is drawn.

    An epoch visits the images in random order, `size` at a time; those that do not fill a batch are
    left out of this epoch. With positives (for each image the rows of others that count as similar)
    a batch holds 2 * size images: first the anchors, then one random positive of each.
    """

    size: int
    positives: Int[np.ndarray | Array, "n m"] | None = None


class Trainer(NamedTuple):
    """A model's training as two pure functions, which may be vmapped."""

    init: Callable[[PRNGKeyArray, Hyper], TrainState]
    step: Callable[..., tuple[TrainState, dict[str, Float[Array, ""]]]]


def make_trainer(
    init: Callable[[PRNGKeyArray], tuple[PyTree, PyTree]],
    loss: Loss,
    optimizer: Callable[[Hyper], optax.GradientTransformation],
) -> Trainer:
    """Join a model's init, its loss and an optimizer.

    `init` gives (params, model_state) from a key. The optimizer is a function of hyper, such as
    `lambda hyper: optax.adam(hyper["learning_rate"])`, so that a sweep can vary its numbers.
    """

    def start(key, hyper):
        init_key, run_key = jax.random.split(key)
        params, model_state = init(init_key)
        opt_state = optimizer({**hyper, "step": 0.0, "steps": 1.0}).init(params)
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
    hyper = {**hyper, "step": step.astype(jnp.float32)}

    def now(name):
        start, end = hyper[name], hyper[f"{name}_end"]
        return start * (end / start) ** (hyper["step"] / hyper["steps"])

    return {**hyper} | {name: now(name) for name in hyper if f"{name}_end" in hyper}


def _keys_of_step(state: TrainState) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """Keys for a step's noise and, at the first step of an epoch, for the order of images."""
    noise, order = jax.random.split(jax.random.fold_in(state.key, state.step))
    return noise, order


def make_epoch(
    step: Callable[..., tuple[TrainState, dict]], num_images: int, batch_size: int
) -> Callable[..., tuple[TrainState, dict[str, Float[Array, " steps"]]]]:
    """One pass over the images in a new random order, as one lax.scan.

    The images stay on the device as uint8. The epoch takes (state, hyper, images, labels) and the
    positives of `Batches`, if there are any.
    """
    steps = steps_per_epoch(num_images, batch_size)
    take = _step_on_rows(step)

    def epoch(state, hyper, images, labels, positives=None):
        def body(state, rows):
            return take(state, hyper, images, labels, positives, rows)

        return lax.scan(body, state, _order(state, num_images, steps, batch_size))

    return epoch


def _order(state: TrainState, num_images: int, steps: int, batch_size: int) -> Int[Array, "s b"]:
    _, key = _keys_of_step(state)
    order = jax.random.permutation(key, num_images)
    return order[: steps * batch_size].reshape(steps, batch_size)


def _with_positives(
    state: TrainState, rows: Int[Array, " b"], positives: Int[Array, "n m"] | None
) -> Int[Array, " c"]:
    """The rows, followed by one random positive of each."""
    if positives is None:
        return rows
    _, key = _keys_of_step(state)
    column = jax.random.randint(jax.random.fold_in(key, 1), rows.shape, 0, positives.shape[1])
    return jnp.concatenate([rows, positives[rows, column]])


def _step_on_rows(step: Callable) -> Callable:
    """The step on a batch that is given as rows of the images."""

    def take(state, hyper, images, labels, positives, rows):
        rows = _with_positives(state, rows, positives)
        return step(state, hyper, images[rows], labels[rows])

    return take


@functools.cache
def convolution_options() -> dict[str, str] | None:
    """Compiler options of jax.jit for a program with convolutions; None if none are needed.

    On CPU, XLA hands each convolution to a library that runs it on one thread, while XLA's own
    kernels use all. On 2 cores these options cut a training step of DRHN-1 to 0.8 of its time and
    an encoding to 0.7.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # this release of XLA does not know the option
        return None
    return options


def make_epoch_loop(
    step: Callable[..., tuple[TrainState, dict]], num_images: int, batch_size: int
) -> Callable[..., tuple[TrainState, dict[str, Float[Array, " steps"]]]]:
    """The same epoch as a Python loop over the jitted step.

    For convolutions on CPU, where XLA is about 50 times slower inside a scan (jax issue 12868).
    """
    steps = steps_per_epoch(num_images, batch_size)
    order_of = jax.jit(lambda state: _order(state, num_images, steps, batch_size))
    take = jax.jit(_step_on_rows(step), compiler_options=convolution_options())

    def epoch(state, hyper, images, labels, positives=None):
        order, terms = order_of(state), []
        for rows in order:
            state, step_terms = take(state, hyper, images, labels, positives, rows)
            terms.append(step_terms)
        return state, jax.tree.map(lambda *values: jnp.stack(values), *terms)

    return epoch


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """The number of whole batches in one pass."""
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
    batches: Batches,
    scan: bool = True,
    mesh: Mesh | None = None,
    on_epoch: Callable[[TrainState, EpochInfo], None] = lambda state, info: None,
) -> TrainState:
    """Train until the state has seen `epochs` epochs, those before a resume included.

    Args:
        trainer: The model's init and step.
        state: Where to start. A leading axis on every leaf (from `sweep_init`) trains as many runs
            in one vmapped program; the scalars of hyper then have that axis too.
        hyper: The scalars of training.
        images: Training images, kept on the device as bytes.
        labels: Their classes; a loss without labels ignores them.
        epochs: Passes over the images in all.
        batches: How each step's batch is drawn.
        scan: Whether an epoch is one program (see `make_epoch_loop`).
        mesh: With a mesh of one axis each batch is split over its devices; the state and the images
            are on every one.
        on_epoch: Called after each epoch, to log, draw progress and save.

    Raises:
        ValueError: The batch size or the positives do not fit the images, or a sweep without scan.
        TrainingError: A term of the loss is not finite; the message names the step.
    """
    num_images, runs = len(images), state.step.shape
    steps = steps_per_epoch(num_images, batches.size)
    positives = batches.positives
    if positives is not None and len(positives) != num_images:
        raise ValueError(
            f"positives must have a row for each of {num_images} images, got {np.shape(positives)}"
        )
    run_epoch = _epoch_runner(trainer, num_images, batches.size, runs, scan, mesh)
    data = jnp.asarray(images), jnp.asarray(labels)
    data += (None if positives is None else jnp.asarray(positives),)
    hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
    hyper["steps"] = jnp.full(runs, epochs * steps, jnp.float32)
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
        now = time.perf_counter()
        _check_finite(terms, (epoch - 1) * steps)
        rate = steps * batches.size * max(1, int(np.prod(runs))) / (now - start)
        means = {name: value.mean(axis=-1) for name, value in terms.items()}
        on_epoch(state, EpochInfo(epoch, epoch * steps, means, rate, now - waiting))
        waiting = time.perf_counter()
    return state


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
    return jax.vmap(trainer.init)(keys, scalars)


def unstack(state: TrainState, run: int) -> TrainState:
    """One run's state out of a sweep's."""
    return jax.tree.map(lambda leaf: leaf[run], state)


class Training(NamedTuple):
    """A run, apart from its images and its key."""

    trainer: Trainer
    hyper: dict[str, float]
    epochs: int
    batch_size: int
    scan: bool = True  # whether an epoch is one program; see make_epoch_loop
    pairs: bool = False  # whether the loss compares each image with a positive
    needs_positives: bool = False  # whether two copies of an image are no pair, for want of noise
    horizon: bool = False  # whether a schedule depends on the number of epochs
    # What is measured on the training images before the first step and kept in model_state.
    prepare: Callable[[Any], dict[str, np.ndarray]] = lambda images: {}
    # Raises ValueError for images and labels that the loss cannot learn from.
    check: Callable[[Any, Any], None] = lambda images, labels: None
    image_shape: tuple[int, int, int] | None = None  # of the images; None: any


def start(training: Training, key: PRNGKeyArray, images: Any) -> TrainState:
    """The first state of a run on these images."""
    images = inputs.accept(images, training.image_shape)
    state = training.trainer.init(key, training.hyper)
    return _prepared(state, training.prepare(images))


def _prepared(state: TrainState, measured: dict[str, np.ndarray]) -> TrainState:
    if not measured:
        return state
    runs = state.step.shape
    kept = {n: jnp.broadcast_to(jnp.asarray(v), (*runs, *v.shape)) for n, v in measured.items()}
    return state._replace(model_state={**state.model_state, **kept})


def run(
    training: Training,
    key: PRNGKeyArray,
    images: Any,
    labels: Any = None,
    *,
    positives: Int[np.ndarray | Array, "n m"] | None = None,
    state: TrainState | None = None,
    mesh: Mesh | None = None,
    on_epoch: Callable[[TrainState, EpochInfo], None] = lambda state, info: None,
) -> tuple[TrainState, dict[str, float]]:
    """Train one run to its end.

    Args:
        training: What to train, and how.
        key: Of the first parameters, the order of the images and all noise.
        images: Training images; see `inputs`.
        labels: Their classes i32[n], if the loss needs them; training.check refuses others.
        positives: For each image the rows of similar ones. A loss of pairs without positives sees
            two augmented copies of each image.
        state: A state of the same run to go on from.
        mesh: See `fit`.
        on_epoch: See `fit`.

    Returns:
        The last state, and what the run tells: the last epoch's terms, `epochs`, `steps`, `seconds`
        and the median of `images_per_second`.
    """
    images = inputs.accept(images, training.image_shape)
    training.check(images, labels)
    state = start(training, key, images) if state is None else state
    hyper = training.hyper
    state, told = _trained(training, state, hyper, images, labels, positives, mesh, on_epoch)
    return state, {name: float(value) for name, value in told.items()}


def run_all(
    trainings: Sequence[Training],
    keys: Sequence[PRNGKeyArray],
    images: Any,
    labels: Any = None,
    *,
    positives: Int[np.ndarray | Array, "n m"] | None = None,
    on_epoch: Callable[[TrainState, EpochInfo], None] = lambda state, info: None,
) -> list[tuple[TrainState, dict[str, float]]]:
    """Train runs that differ only in their key and their scalars, in one vmapped program.

    Args:
        trainings: One per run; trainer, epochs and batch size are those of the first.
        keys: One per run.
        images: Training images, the same for all.
        labels: Their classes i32[n], if the loss needs them; training.check refuses others.
        positives: See `run`.
        on_epoch: See `fit`; the terms have one value per run.

    Returns:
        What `run` gives, for each run.

    Raises:
        ValueError: The runs have different scalars, or do not train by scan.
    """
    images = inputs.accept(images, trainings[0].image_shape)
    trainings[0].check(images, labels)
    first, names = trainings[0], {name for training in trainings for name in training.hyper}

    def scalar(training, name):
        # A scalar without an end stays: it ends where it starts.
        start = name.removesuffix("_end") if name not in training.hyper else name
        if start not in training.hyper:
            raise ValueError(f"runs of one program need the same scalars; one has no {name}")
        return training.hyper[start]

    hyper = {name: jnp.array([scalar(t, name) for t in trainings], jnp.float32) for name in names}
    state = _prepared(sweep_init(first.trainer, jnp.stack(keys), hyper), first.prepare(images))
    state, told = _trained(first, state, hyper, images, labels, positives, None, on_epoch)
    return [
        (unstack(state, i), {n: float(np.broadcast_to(v, len(keys))[i]) for n, v in told.items()})
        for i in range(len(keys))
    ]  # fmt: skip


def _trained(training, state, hyper, images, labels, positives, mesh, on_epoch):
    """The last state and what the run tells."""
    told, rates, seconds = {}, [], 0.0

    def listen(state, info):
        nonlocal seconds
        seconds += info.seconds
        rates.append(info.images_per_second)
        told.update(info.terms, epochs=info.epoch, steps=info.steps)
        on_epoch(state, info)

    if labels is None:
        labels = np.zeros(len(images), np.int32)
    if training.needs_positives and positives is None:
        raise ValueError(
            "a contrastive loss needs augmentation or positives, such as those that "
            "jaxret.knn_positives(images, count) gives; fit got neither"
        )
    if training.pairs and positives is None:  # each image is its own: two augmented copies
        positives = np.arange(len(images), dtype=np.int32)[:, None]
    state = fit(
        training.trainer,
        state,
        hyper,
        images,
        labels,
        epochs=training.epochs,
        batches=Batches(training.batch_size, positives if training.pairs else None),
        scan=training.scan,
        mesh=mesh,
        on_epoch=listen,
    )
    if rates:
        told |= {"seconds": seconds, "images_per_second": statistics.median(rates)}
    return state, told
