"""Time a deep residual hashing network: an epoch of its training, or one image's way to its code.

    python experiments/reproduce.py --table=jimenez2017:5.4 --rows='DRHN-1 ' --workdir=runs/times

seconds_per_epoch is of an epoch of Jimenez 2017: 781 steps of 128 images for CIFAR-10, which are
50,000 images and their mirror images. If an epoch would take minutes, some of its steps are timed
and the rest is extrapolated. seconds_per_code goes from one image's bytes on the host to its code
on the host; codes_per_second is of batches of 1,000. All are medians without compilation. The
weights, which do not matter, are the first ones: nothing is trained.

This is a module. The command that runs it is experiments/reproduce.py.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import harness
import train_hasher
from harness import flag

VERSION = train_hasher.VERSION  # grows when the same flags compute something else
PASSES = 2  # over the training images, in an epoch of the thesis
BATCH = 1000


@dataclasses.dataclass(frozen=True)
class TimingConfig(train_hasher.HasherConfig):
    """Flags."""

    what: str = flag("epoch", "Time an epoch of training, or a code.", ("epoch", "code"))
    steps: int = flag(0, "Time this many steps; 0 means a whole epoch, on a CPU 3.")
    repeats: int = flag(5, "Time an epoch's steps, or a batch's codes, this many times.")

    SCALARS = ()  # a time is of one network
    EVALUATION = ()

    def check(self) -> None:
        """See options.Config."""
        super().check()
        harness.at_least(self, "steps", 0)
        harness.at_least(self, "repeats", 1)


CONFIG = TimingConfig


def hasher(config: TimingConfig, protocol: Any) -> Any:
    """Return the network as a hasher whose fit gives the first weights."""
    import jax

    from jaxret import train
    from jaxret.hashers import weights

    network = train_hasher.hasher(config, protocol)

    def fit(key: jax.Array, images: Any, labels: Any = None, *, on_epoch: Any = None) -> Any:
        del labels, on_epoch
        return weights(train.start(network.training, key, images)), {}

    return network._replace(fit=fit, training=None)


def positives(config: TimingConfig, images: Any) -> None:
    """Return None: no batch of the timed steps holds positives."""
    del config, images


def score(
    config: TimingConfig, hasher: Any, params: Any, protocol: Any, overlap: int
) -> dict[str, float]:
    """Return what --what names, in seconds; nothing is searched."""
    del overlap
    if config.what == "code":
        return seconds_of_code(config, hasher.encode, params, protocol.train)
    return seconds_of_epoch(config, train_hasher.hasher(config, protocol).training, protocol.train)


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the median time of a run that waits for what it computes; the first is left out."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def seconds_of_epoch(config: TimingConfig, training: Any, images: Any) -> dict[str, float]:
    """Return how long an epoch of training takes."""
    import jax
    import jax.numpy as jnp

    from jaxret import train

    per_pass = train.steps_per_epoch(len(images.images), config.batch_size)
    steps = min(config.steps or (per_pass if training.scan else 3), per_pass)
    batches = [
        jnp.asarray(array[: steps * config.batch_size]) for array in (images.images, images.labels)
    ]
    make = train.make_epoch if training.scan else train.make_epoch_loop
    epoch = make(training.trainer.step, steps * config.batch_size, config.batch_size)
    epoch = jax.jit(epoch) if training.scan else epoch
    hyper = {name: jnp.float32(value) for name, value in training.hyper.items()}
    hyper["steps"] = jnp.float32(config.epochs * per_pass)
    state = train.start(training, jax.random.key(config.seed), images.images)

    def run():
        nonlocal state
        state, terms = epoch(state, hyper, *batches)
        jax.block_until_ready((state.params, terms))

    seconds = median_seconds(run, config.repeats)
    whole = PASSES * len(images.images) // config.batch_size
    return {"seconds_per_epoch": seconds * whole / steps, "steps_timed": steps}


def seconds_of_code(
    config: TimingConfig, encode: Callable, params: Any, images: Any
) -> dict[str, float]:
    """Return how long an image takes to become a code, alone and among many."""
    import numpy as np

    one, many = (images.images[:n] for n in (1, BATCH))
    alone = median_seconds(lambda: np.asarray(encode(params, one)), 20 * config.repeats)
    batch = median_seconds(lambda: np.asarray(encode(params, many)), config.repeats)
    return {"seconds_per_code": alone, "codes_per_second": len(many) / batch}


if __name__ == "__main__":
    print("time_hasher.py is a module; the command is: python experiments/reproduce.py --help")
