"""A residual network as a hasher: Jimenez 2017, and losses that shape its bits.

SCHEDULES, RELAXATIONS and TERMS name what a recipe is made of.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from jaxret import losses, relax, train
from jaxret.models import HashNet

from . import network
from .vae import View, scale

Images = UInt8[Array, "n h w c"]
# From the share of a run that is done, 0 to 1, to a factor of its learning rate.
Schedule = Callable[[Float[Array, ""]], Float[Array, ""]]
MOMENTUM = 0.9


def drops(*places: float) -> Schedule:
    """A tenth of what it was, from each of these shares of the run on."""
    return lambda done: 0.1 ** sum(jnp.where(done >= place, 1.0, 0.0) for place in places)


def one_cycle(warmup: float) -> Schedule:
    """Straight up from 0 to 1 in a share of the run, then straight down to 0 (Smith 2018)."""
    return lambda done: _rising(done, warmup) * (1 - _falling(done, warmup))


def cosine(warmup: float) -> Schedule:
    """Straight up from 0 to 1 in a share of the run, then half a cosine to 0 (Loshchilov 2017)."""
    return lambda done: _rising(done, warmup) * (1 + jnp.cos(math.pi * _falling(done, warmup))) / 2


def _rising(done, warmup):
    return jnp.minimum(done / warmup, 1.0) if warmup else 1.0


def _falling(done, warmup):
    return jnp.maximum(done - warmup, 0.0) / (1 - warmup)


# name -> what the classifier sees of the hash layer, and the code of numbers that losses shape
RELAXATIONS = {
    "sigmoid": (jax.nn.sigmoid, lambda z: jnp.tanh(z / 2)),  # 2 sigmoid(z) - 1
    "sign": (relax.sign_identity, lambda z: z),  # Su 2018, GreedyHash
}


class Outputs(NamedTuple):
    """What a loss may be made of, for one batch."""

    z: Float[Array, "n b"]  # the hash layer's units
    code: Float[Array, "n b"]
    logits: Float[Array, "n k"]
    labels: Int[Array, " n"]
    centres: Float[Array, "n b"] | None  # each image's, by its label, for "central"


# name -> (outputs, hyper) -> mean over the batch, or over its pairs
TERMS: dict[str, Callable[[Outputs, train.Hyper], Float[Array, ""]]] = {
    "classification": lambda of, hyper: jnp.mean(
        losses.softmax_cross_entropy(of.logits, of.labels, hyper["label_smoothing"])
    ),
    "quantisation": lambda of, hyper: jnp.mean(losses.quantisation(of.code)),
    "cubic": lambda of, hyper: jnp.mean(losses.cubic_quantisation(of.code)),
    "balance": lambda of, hyper: losses.bit_balance(of.code),
    "pairwise": lambda of, hyper: losses.pairwise_likelihood(of.code, of.labels),
    "central": lambda of, hyper: jnp.mean(losses.central_similarity(of.z, of.centres)),
}


class DeepHash(NamedTuple):
    """A hashing network as pure functions of its params (see `network.weights`)."""

    trainer: train.Trainer
    encode: Callable[[train.PyTree, Images], Float[Array, "n b"]]  # bit = (value >= 0)
    classify: Callable[[train.PyTree, Images], Float[Array, "n k"]]  # logits
    classify_codes: Callable[[train.PyTree, Float[Array, "n b"]], Float[Array, "n k"]]  # encode's
    # the first convolution's channels and those of each group
    maps: Callable[[train.PyTree, Images], list[Float[Array, "n _ _ _"]]]


def make_hashnet(
    model: HashNet,
    mean: Float[np.ndarray | Array, "h w c"],
    *,
    relaxation: str = "sigmoid",
    terms: Sequence[str] = ("classification",),
    schedule: Schedule = lambda done: jnp.ones_like(done),
    nesterov: bool = False,
    view: View | None = None,
    average: bool = False,
) -> DeepHash:
    """Train a network so that the signs of its hash layer find images of the same class.

    Training minimises the terms, each times its weight in hyper, by stochastic gradient descent
    with momentum. hyper also holds learning_rate, which follows the schedule, weight_decay, and
    label_smoothing. mean (see `mean_image`) is subtracted from images and kept beside the
    parameters. With a view the network is trained on changed images.

    With average the network that encodes has the exponential mean of the weights that the steps
    began with, and of their batch statistics: hyper["ema"] of it stays at each step, and less of it
    in the first steps.
    """
    for name in terms:
        if name not in TERMS:
            raise ValueError(f"terms must be among {', '.join(TERMS)}, got {name!r}")
    if relaxation not in RELAXATIONS:
        raise ValueError(f"relaxation must be one of {', '.join(RELAXATIONS)}, got {relaxation!r}")
    seen, code_of = RELAXATIONS[relaxation]
    centres = None
    if "central" in terms:  # which needs bits enough to tell the classes apart
        centres = jnp.asarray(losses.hash_centres(model.num_classes, model.bits))

    def normal(mean, images):
        return scale(images) - mean[None]

    def init(key):
        params, model_state = network.initial(model, key, mean.shape, seen)
        if average:
            model_state["average"] = {"params": params, **model_state}
        return params, model_state | {"mean": jnp.asarray(mean, jnp.float32)}

    def loss(params, model_state, key, images, labels, hyper):
        view_key, dropout_key = jax.random.split(key)
        x = normal(model_state["mean"], images)
        if view is not None:
            x = view(view_key, x)
        statistics = {"batch_stats": model_state["batch_stats"]}
        (z, logits), statistics = network.run_training(
            model, params, statistics, dropout_key, x, seen
        )
        wanted = None if centres is None else centres[labels]
        of = Outputs(z, code_of(z), logits, labels, wanted)
        found = {name: TERMS[name](of, hyper) for name in terms}
        value = sum(hyper[name] * term for name, term in found.items())
        right = jnp.mean(jnp.argmax(logits, axis=1) == labels)
        model_state = model_state | statistics
        if average:
            new = {"params": params, **statistics}
            model_state["average"] = _averaged(model_state["average"], new, hyper)
        return value, (model_state, {"loss": value, **found, "accuracy": right})

    def run(params, method, x):
        kept = params.get("average", params)
        variables = {name: kept[name] for name in ("params", "batch_stats")}
        return model.apply(variables, x, method=method)

    def encode(params, images):
        return run(params, "encode", normal(params["mean"], images))

    def classify_codes(params, z):
        return run(params, "classify", seen(z))

    jax.eval_shape(init, jax.random.key(0))  # refuses what does not fit
    return DeepHash(
        trainer=train.make_trainer(init, loss, descent(schedule, nesterov)),
        encode=encode,
        classify=lambda params, images: classify_codes(params, encode(params, images)),
        classify_codes=classify_codes,
        maps=lambda params, images: run(params, "maps", normal(params["mean"], images)),
    )


def mean_image(images: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, "h w c"]:
    """Each pixel's mean over images, in [0, 1]."""
    return (np.mean(images, axis=0, dtype=np.float64) / 255).astype(np.float32)


def _averaged(old, new, hyper):
    # The first weights are noise: the mean forgets them as fast as its first steps can.
    keep = jnp.minimum(hyper["ema"], (1 + hyper["step"]) / (10 + hyper["step"]))
    return jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, old, new)


def descent(schedule: Schedule, nesterov: bool) -> Callable[..., optax.GradientTransformation]:
    """Descent whose velocity holds the learning rate of the steps it is made of, as in Lasagne."""

    def of(hyper):
        rate = hyper["learning_rate"] * schedule(hyper["step"] / hyper["steps"])
        return optax.chain(
            optax.add_decayed_weights(hyper["weight_decay"], mask=_decayed),
            optax.scale(-rate),
            optax.trace(MOMENTUM, nesterov),
        )

    return of


def _decayed(params):
    """Weights and the factors of batch normalisation; neither biases nor its shifts."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key in ("kernel", "scale"), params)
