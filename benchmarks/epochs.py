"""One epoch of training as a function to time. This module is no command."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def one_epoch(
    trainings: Sequence[Any],
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    scan: bool | None = None,
) -> Callable[[], float]:
    """Return a function that trains one epoch, waits for it, and gives the mean loss at its end.

    Args:
        trainings: jaxret.train.Training of one run, or of several that differ only in scalars and
            train in one vmapped program, each from its own seed.
        images: training images, u8[n h w c]; they stay on the device.
        labels: their classes, i32[n]; None: all 0.
        scan: whether an epoch is one program; None: as the training has it.
    """
    import jax
    import jax.numpy as jnp

    from jaxret import train

    first, runs = trainings[0], len(trainings)
    scan = first.scan if scan is None else scan
    labels = np.zeros(len(images), np.int32) if labels is None else labels
    make = train.make_epoch if scan else train.make_epoch_loop
    epoch = make(first.trainer.step, len(images), first.batch_size)
    steps = first.epochs * train.steps_per_epoch(len(images), first.batch_size)
    scalars = [{**training.hyper, "steps": float(steps)} for training in trainings]
    hyper = {name: jnp.float32([one[name] for one in scalars]) for name in scalars[0]}
    if runs == 1:
        hyper = {name: value[0] for name, value in hyper.items()}
        state = jax.jit(lambda key: train.start(first, key, images))(jax.random.key(0))
    else:
        state = train.sweep_init(first.trainer, jax.random.split(jax.random.key(0), runs), hyper)
        epoch = jax.vmap(epoch, (0, 0, None, None))
    epoch = jax.jit(epoch, donate_argnums=0) if scan else epoch
    images, labels = jnp.asarray(images), jnp.asarray(labels)

    def run():
        nonlocal state
        state, terms = epoch(state, hyper, images, labels)
        jax.block_until_ready((state.params, terms))
        loss = terms["loss"] if "loss" in terms else next(iter(terms.values()))
        return float(loss[..., -50:].mean())

    return run


if __name__ == "__main__":
    import timing

    timing.no_command(__file__, "train.py and train_device.py")
