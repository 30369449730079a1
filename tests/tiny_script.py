"""A script of one trained number, and tables of it, so that tests of tables take no time."""

import dataclasses

import harness
import jax
import jax.numpy as jnp
import optax
import table
from harness import flag

from jaxret import train
from jaxret.hashers.base import trained

VERSION = 1


@dataclasses.dataclass(frozen=True)
class TinyConfig(harness.Config):
    """Flags."""

    epochs: int = flag(2, "Pass this many times over the training images.")
    steepness: float = flag(1.0, "A scalar of the training.")
    width: int = flag(3, "What is another program.")
    levels: int = flag(0, "What concerns codes only.")
    eval_k: int = flag(2, "K of map@K/retrieved.")

    SCALARS = ("learning_rate", "steepness")
    EVALUATION = ("levels", "eval_k")


CONFIG = TinyConfig


def hasher(config, protocol):
    """Return a hasher that draws a number, then moves it by a gradient of its steepness."""
    del protocol

    def loss(params, model_state, key, images, labels, hyper):
        value = hyper["steepness"] * jnp.square(params["x"] - 1).mean()
        return value, (model_state, {"loss": value})

    trainer = train.make_trainer(
        lambda key: ({"x": jax.random.uniform(key, (config.width,))}, {}),
        loss,
        lambda hyper: optax.sgd(hyper["learning_rate"]),
    )
    hyper = {"learning_rate": config.learning_rate, "steepness": config.steepness}
    training = train.Training(trainer, hyper, config.epochs, config.batch_size)
    return trained(training, lambda params, images: params["x"][None], "euclidean")


def positives(config, images):
    """Return None."""
    del config, images


def score(config, hasher, params, protocol, overlap):
    """Return numbers of the one that was trained."""
    del protocol, overlap
    value = float(jnp.asarray(hasher.encode(params, None)).mean())
    value = round(value * config.levels) / config.levels if config.levels else value
    return {f"map@{config.eval_k}/retrieved": value, "code_size": config.width}


def small(*rows, **about):
    """A table of the embedded digits."""
    return table.Table("title", rows, **{"dataset": "digits", "script": "tiny_script"} | about)


TWO = (
    table.Row("two levels", 0.7, {"levels": 2}),
    table.Row("mean", 0.9, {}, {"steepness": 0.1}, "flat, {epochs} epochs", x=1.0),
)
