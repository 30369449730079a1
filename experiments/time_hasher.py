"""Time a deep residual hashing network: an epoch of its training, or one image's way to its code.

    python experiments/reproduce.py --table=jimenez2017:5.4 --rows='DRHN-1 ' --workdir=runs/times

seconds_per_epoch is of an epoch of Jimenez 2017: 781 steps of 128 images for CIFAR-10, which are
50,000 images and their mirror images. Where an epoch would take minutes some of its steps are timed
and the rest is counted. seconds_per_code goes from one image's bytes on the host to its code on the
host; codes_per_second is of batches of 1,000. All are medians; compilation is not counted, and the
weights, which do not matter, are the first ones.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable

import harness
import train_hasher
from harness import flag

PASSES = 2  # over the training images, in an epoch of the thesis
BATCH = 1000


@dataclasses.dataclass(frozen=True)
class TimingConfig(train_hasher.HasherConfig):
    """Flags."""

    what: str = flag("epoch", "an epoch of training, or a code", ("epoch", "code"))
    steps: int = flag(0, "how many are timed together; 0: a whole epoch, on a CPU 3")
    repeats: int = flag(5, "times that an epoch's steps, or a batch's codes, are timed")

    def check(self) -> None:
        """See harness.Config."""
        super().check()
        harness.at_least(self, "steps", 0)
        harness.at_least(self, "repeats", 1)


CONFIG = TimingConfig


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Of so many runs, after one that is not counted; a run waits for what it computes."""
    run()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def of_epoch(config: TimingConfig, model, images) -> dict[str, float]:
    """How long an epoch of training takes."""
    import jax
    import jax.numpy as jnp

    from jaxret import train

    per_pass = train.steps_per_epoch(len(images.images), config.batch_size)
    scan = train_hasher.by_scan(config)
    steps = min(config.steps or (per_pass if scan else 3), per_pass)
    some = jnp.asarray(images.images), jnp.asarray(images.labels)
    some = [array[: steps * config.batch_size] for array in some]
    make = train.make_epoch if scan else train.make_epoch_loop
    epoch = make(model.trainer.step, steps * config.batch_size, config.batch_size)
    epoch = jax.jit(epoch) if scan else epoch
    hyper = {name: jnp.float32(value) for name, value in config.hyper().items()}
    hyper["steps"] = jnp.float32(config.epochs * per_pass)
    state = model.trainer.init(jax.random.key(config.seed), hyper)

    def run():
        nonlocal state
        state, terms = epoch(state, hyper, *some)
        jax.block_until_ready((state.params, terms))

    of_steps = median_seconds(run, config.repeats)
    whole = PASSES * len(images.images) // config.batch_size
    return {"seconds_per_epoch": of_steps * whole / steps, "steps_timed": steps}


def of_code(config: TimingConfig, model, images) -> dict[str, float]:
    """How long an image takes to become a code, alone and among many."""
    import jax
    import numpy as np

    from jaxret import hashers

    state = model.trainer.init(jax.random.key(config.seed), config.hyper())
    params = hashers.weights(state)
    encode = train_hasher.make_encode(config, model)
    one, many = (images.images[:n] for n in (1, BATCH))
    alone = median_seconds(lambda: np.asarray(encode(params, one)), 20 * config.repeats)
    batch = median_seconds(lambda: np.asarray(encode(params, many)), config.repeats)
    return {"seconds_per_code": alone, "codes_per_second": len(many) / batch}


def run_rows(configs, protocol, overlap, together):
    """A table's rows."""
    from jaxret.hashers import mean_image

    del overlap, together  # nothing is searched, and a time is of one network
    mean = mean_image(protocol.train.images)
    for config in configs:
        start = time.perf_counter()
        model = train_hasher.build(config, mean, len(protocol.train.class_names))
        timed = {"epoch": of_epoch, "code": of_code}[config.what](config, model, protocol.train)
        yield (
            config,
            {"metrics": timed, "together": 1, "seconds": time.perf_counter() - start},
        )
