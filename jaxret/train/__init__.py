"""Training: a step, an epoch of steps as one program, many runs in one vmapped program.

Nothing here reads files or prints. A run is a pure function of its first state: the order of the
images and all noise come from state.key and state.step, so a run that is stopped after any epoch
and continued from the saved state ends in the same parameters, bit for bit.
"""

from jaxret.train.loop import EpochInfo, TrainingError, fit, sweep_init, unstack
from jaxret.train.runs import Training, run, run_all, start
from jaxret.train.steps import (
    Batches,
    Hyper,
    Loss,
    Trainer,
    TrainState,
    convolution_options,
    make_epoch,
    make_epoch_loop,
    make_trainer,
    steps_per_epoch,
)

__all__ = [
    "Batches",
    "EpochInfo",
    "Hyper",
    "Loss",
    "TrainState",
    "Trainer",
    "Training",
    "TrainingError",
    "convolution_options",
    "fit",
    "make_epoch",
    "make_epoch_loop",
    "make_trainer",
    "run",
    "run_all",
    "start",
    "steps_per_epoch",
    "sweep_init",
    "unstack",
]
