"""A hash layer on fixed features: it learns from labels, in seconds, and is scored first."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Int32, PRNGKeyArray

from jaxret import losses, relax, train

from .base import check_numbers, labelled

Params = dict[str, Any]
HELD_OUT = 0.2  # share of each class
K = 5  # results that are scored
QUERIES = 1024  # at once


@dataclasses.dataclass(frozen=True)
class HashLayerSettings:
    """How a hash layer is built and trained."""

    hidden: int = 512  # width of the layer below the bits; 0: none
    dropout: float = 0.3  # of the features and of the hidden layer
    steps: int = 400
    batch_size: int = 128  # at most
    learning_rate: float = 2e-3  # of Adam, falling to 0 along a cosine

    def check(self) -> None:
        """Raise ValueError for a value out of its range."""
        check_numbers(self, ("hidden",), 0)
        check_numbers(self, ("steps", "batch_size"), 1)
        check_numbers(self, ("learning_rate",), 0, strict=True)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie between 0 and 1, got {self.dropout}")


def fit_hash_layer(
    key: PRNGKeyArray,
    x: Float[np.ndarray, "n d"],
    labels: Any,
    bits: int,
    settings: HashLayerSettings,
    unsupervised: Callable[..., Callable],
) -> tuple[Params, dict[str, float]]:
    """Learn a hash layer from labels: a softmax on the signs of its units (Su 2018).

    Backward the sign is a tanh. First a fifth of each class is held out, queries for scores.

    Args:
        key: of the split, the first weights, the order and dropout.
        x: features.
        labels: classes i32[n]; images of class -1 are left out.
        bits: length of a code.
        settings: of the layer and its training.
        unsupervised: (key, x, bits) -> (x -> codes): another hasher, scored on the same images.

    Returns:
        The params, which `units` takes, and `precision@5/labels`, `precision@5/photo`, `held_out`
        (how many images), `classes`, `images` and `loss`.

    Raises:
        ValueError: without labels, or without two classes of at least two images each.
    """
    x, labels = labelled(x, labels)
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)).astype(np.uint32))
    held_out = _held_out(draw, labels)
    query, gallery = (x[held_out], labels[held_out]), (x[~held_out], labels[~held_out])
    score_key, fit_key = jax.random.split(key)
    learn = _learner(x, labels, bits, settings)
    batch_size = min(settings.batch_size, len(gallery[0]))
    everything = np.arange(len(x))
    layer, _ = learn(score_key, _batches(draw, everything[~held_out], batch_size, settings.steps))
    codes = {
        "labels": jax.jit(lambda x: units(layer, x)),
        "photo": unsupervised(score_key, gallery[0], bits),
    }
    scores = {f"precision@{K}/{name}": _precision(f, query, gallery) for name, f in codes.items()}
    params, loss = learn(fit_key, _batches(draw, everything, batch_size, settings.steps))
    counts = {"held_out": held_out.sum(), "classes": labels.max() + 1, "images": len(x)}
    return params, {n: float(v) for n, v in {**scores, **counts, "loss": loss}.items()}


def units(params: Params, x: Float[Array | np.ndarray, "n d"]) -> Float[Array, "n b"]:
    """Return the hash layer's units: a bit is 1 where its unit is at least 0."""
    return _units(params, x, lambda x: x)


def _units(params, x, drop):
    x = drop((x - params["mean"][None]) / params["scale"])
    if "hidden" in params:
        x = drop(jax.nn.relu(_dense(params["hidden"], x)))
    return _dense(params["hash"], x)


def _dense(layer, x):
    return jnp.dot(x, layer["kernel"], precision=lax.Precision.HIGHEST) + layer["bias"][None]


def _held_out(draw: np.random.Generator, labels: Int[np.ndarray, " n"]) -> np.ndarray:
    """Which images are held out: a fifth of each class, drawn; all classes keep one image."""
    held_out = np.zeros(len(labels), bool)
    order = draw.permutation(len(labels))
    for label in range(labels.max() + 1):
        rows = order[labels[order] == label]
        count = max(1, round(HELD_OUT * len(rows))) if len(rows) > 1 else 0
        held_out[rows[:count]] = True
    return held_out


def _batches(
    draw: np.random.Generator, rows: Int[np.ndarray, " m"], size: int, steps: int
) -> Int32[np.ndarray, "steps size"]:
    """Rows of each step: all in a new random order, again and again."""
    epochs = -(-steps * size // len(rows))
    order = np.concatenate([draw.permutation(rows) for _ in range(epochs)])
    return order[: steps * size].reshape(steps, size).astype(np.int32)


def _precision(encode, query, gallery) -> float:
    """Mean share of the K nearest codes that are of the query's class; ties by row."""
    codes = [np.where(np.asarray(encode(x)) >= 0, 1.0, -1.0) for x in (query[0], gallery[0])]
    count = min(K, len(gallery[1]))
    nearest = jax.jit(lambda q, g: lax.top_k(q @ g.T, count)[1])
    hits = 0
    for start in range(0, len(codes[0]), QUERIES):
        rows = slice(start, start + QUERIES)
        found = np.asarray(nearest(codes[0][rows], codes[1]))
        hits += int(np.sum(gallery[1][found] == query[1][rows][:, None]))
    return hits / (len(codes[0]) * count)


def _learner(
    x: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    bits: int,
    settings: HashLayerSettings,
) -> Callable[..., tuple[Params, float]]:
    """Return (key, rows of each step) -> the params of a trained layer, and the mean loss.

    Both trainings, on a part of the images and on all, are one compiled program.
    """
    num_classes = int(labels.max()) + 1
    widths = [x.shape[1], *([settings.hidden] if settings.hidden else []), bits, num_classes]
    names = [*(["hidden"] if settings.hidden else []), "hash", "classifier"]
    hyper = {"learning_rate": settings.learning_rate, "steps": settings.steps}
    hyper = {name: np.float32(value) for name, value in hyper.items()}

    def init(key):
        keys = jax.random.split(key, len(names))
        make = jax.nn.initializers.glorot_uniform()
        return {
            name: {"kernel": make(k, (a, b)), "bias": jnp.zeros(b)}
            for name, k, a, b in zip(names, keys, widths[:-1], widths[1:], strict=True)
        }, {}

    def optimizer(hyper):
        falling = 0.5 * (1 + jnp.cos(jnp.pi * hyper["step"] / hyper["steps"]))
        return optax.adam(hyper["learning_rate"] * falling)

    @jax.jit
    def fit(key, measured, x, labels, order):
        loss = functools.partial(_loss, measured, bits, settings)
        trainer = train.make_trainer(init, loss, optimizer)

        def step(state, rows):
            return trainer.step(state, hyper, x[rows], labels[rows])

        state, terms = lax.scan(step, trainer.init(key, hyper), order)
        return state.params, jnp.mean(terms["loss"])

    def learn(key, order):
        own = x[np.unique(order)]
        measured = {"mean": own.mean(axis=0), "scale": np.maximum(own.std(), np.float32(1e-6))}
        params, loss = fit(key, measured, x, labels, order)
        kept = {name: params[name] for name in names if name != "classifier"}
        return kept | measured, float(loss)

    return learn


def _loss(measured, bits, settings, params, model_state, key, x, labels, hyper):
    """The softmax's cross-entropy on the signs of the units; see `train.Loss`."""
    del hyper
    share = 1 - settings.dropout

    def drop(x):
        if not settings.dropout:
            return x
        own_key = jax.random.fold_in(key, x.shape[1])
        kept = jax.random.bits(own_key, x.shape, jnp.uint8) < round(256 * share)
        return jnp.where(kept, x / share, 0.0)

    z = _units(params | measured, x, drop)
    code = relax.sign_identity(jnp.tanh(z)) / math.sqrt(bits)
    logits = _dense(params["classifier"], code)
    mean = jnp.mean(losses.softmax_cross_entropy(logits, labels))
    return mean, (model_state, {"loss": mean})
