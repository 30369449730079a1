"""A run from its first state to its end, and many runs in one program."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, PRNGKeyArray

from jaxret import inputs
from jaxret.train.loop import EpochInfo, fit, sweep_init, unstack
from jaxret.train.steps import Batches, Trainer, TrainState, run_once


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
    # What is measured on the training images and labels before the first step and kept in
    # model_state.
    prepare: Callable[[Any, Any], dict[str, np.ndarray]] = lambda images, labels: {}
    # Returns parameters that do not start from chance, a part of the tree: pretrained weights.
    pretrained: Callable[[], dict[str, Any]] = dict
    # Raises ValueError for images and labels that the loss cannot learn from.
    check: Callable[[Any, Any], None] = lambda images, labels: None
    image_shape: tuple[int, ...] | None = None  # of an image or a vector; None: any
    # (state, training images) -> the same state after an epoch, but for what only encoding uses.
    settle: Callable[[TrainState, Array], TrainState] | None = None


def start(training: Training, key: PRNGKeyArray, images: Any, labels: Any = None) -> TrainState:
    """Return the first state of a run.

    Args:
        training: how the run trains.
        key: what its parameters are drawn by.
        images: those that it will train on, [n h w c] or [n d].
        labels: their classes, i32[n], where it learns from them.

    Returns:
        The state, with what was measured of the images and pretrained weights.

    Raises:
        ValueError: images are not what `jaxret.inputs` accepts.
    """
    images = inputs.accept(images, training.image_shape)
    state = run_once(training.trainer.init, key, training.hyper)
    return _prepared(state, training.prepare(images, labels), training.pretrained())


def _prepared(
    state: TrainState, measured: dict[str, np.ndarray], pretrained: dict[str, Any]
) -> TrainState:
    """The state with what was measured in its model_state, and pretrained weights."""
    runs = state.step.shape
    if pretrained:
        state = state._replace(params=_replaced(state.params, pretrained, runs))
    if measured:
        state = state._replace(model_state=_replaced(dict(state.model_state), measured, runs))
    return state


def _replaced(tree: Any, part: Any, runs: tuple[int, ...]) -> Any:
    """A tree with the leaves of a part in their places, the same in each run."""
    if not isinstance(part, dict):
        return jnp.broadcast_to(jnp.asarray(part), (*runs, *np.shape(part)))
    own = {name: _replaced(tree.get(name, {}), leaf, runs) for name, leaf in part.items()}
    return {**tree, **own}


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
    state = start(training, key, images, labels) if state is None else state
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
    measured = first.prepare(images, labels)
    state = sweep_init(first.trainer, jnp.stack(keys), hyper)
    state = _prepared(state, measured, first.pretrained())
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
        settle=training.settle,
        on_epoch=listen,
    )
    if rates:
        told |= {"seconds": seconds, "images_per_second": statistics.median(rates)}
    return state, told
