"""Linear bits that learn from pairs of images: BRE and minimal loss hashing."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .base import Hasher, check_whole
from .correlation import check_positive
from .shallow import flatten, linear_hasher

_dot = partial(jnp.dot, precision=lax.Precision.HIGHEST)


def bre_hasher(
    bits: int,
    *,
    sample: int = 1000,
    anchors: int = 20,
    partners: float = 0.05,
    sweeps: int = 100,
) -> Hasher:
    """Return binary reconstructive embeddings (Kulis 2009) of classes, by coordinate descent.

    Hamming distances of drawn pairs, over `bits`, follow a target: 0 within a class and 1 across.
    A bit is the sign of a weighted sum of inner products with its own anchors, rows of unit length
    about the mean; the weights are found by `bre_weights`. The info of `fit` has `loss`, the mean
    over pairs.

    Args:
        bits: length of a code.
        sample: labelled images, drawn at random, whose pairs are fitted.
        anchors: images of the sample that each bit is a sum over.
        partners: share of the sample that each image is paired with.
        sweeps: over the bits, one weight of each; fewer if nothing is gained any more.
    """
    sizes = {"bits": bits, "sample": sample, "anchors": anchors, "sweeps": sweeps}
    for name, size in sizes.items():
        check_whole(name, size)
    if not 0 < partners <= 1:
        raise ValueError(f"partners must be above 0 and at most 1, got {partners}")

    def learn(key, images, mean, labels):
        draw = generator(key)
        rows = np.sort(draw.permutation(len(images))[:sample])
        x = np.asarray(flatten(images[rows]), np.float64) - np.asarray(mean).reshape(1, -1)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        pairs = drawn_pairs(draw, len(x), partners)
        target = (labels[rows][pairs[0]] != labels[rows][pairs[1]]).astype(np.float64)
        count = min(anchors, len(x))
        chosen = np.stack([draw.permutation(len(x))[:count] for _ in range(bits)])
        kernels = np.stack([x @ x[of_bit].T for of_bit in chosen])
        weights, losses = bre_weights(draw, kernels, pairs, target, sweeps)
        projection = np.stack([x[a].T @ w for a, w in zip(chosen, weights, strict=True)], axis=1)
        info = {"loss": losses[-1] / len(target), "sweeps": float(len(losses) - 1)}
        return jnp.asarray(projection, jnp.float32), info

    settings = sizes | {"partners": partners}
    return linear_hasher("bre", bits, learn, settings=settings, supervised=True)


def generator(key: Array) -> np.random.Generator:
    """Return NumPy's generator of a key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).astype(np.uint32))


def drawn_pairs(
    draw: np.random.Generator, count: int, partners: float
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Return pairs of rows: each of count rows with a share of the others, drawn at random."""
    each = max(1, min(count - 1, round(partners * count)))
    first = np.repeat(np.arange(count), each)
    second = np.concatenate([draw.permutation(count - 1)[:each] for _ in range(count)])
    return first, second + (second >= first)  # a row is not its own partner


class _Path(NamedTuple):
    """How bits of one hash function change as one of its weights goes from -inf to inf."""

    weights: Float[np.ndarray, " t"]  # one within each interval
    codes: Bool[np.ndarray, " n"]  # bits in the first interval
    turn: Int[np.ndarray, " n"]  # the interval in which a row's bit has flipped
    width: Float[np.ndarray, " t"]


def bre_weights(
    draw: np.random.Generator,
    kernels: Float[np.ndarray, "b n s"],
    pairs: tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]],
    target: Float[np.ndarray, " p"],
    sweeps: int,
) -> tuple[Float[np.ndarray, "b s"], list[float]]:
    """Return weights that minimise sum (target - Hamming / b)^2 over pairs, one at a time, exactly.

    As one weight grows, each row's bit flips once, at w - (K w) / K_row. Between these thresholds
    nothing changes, so that the objective of every interval is one running sum over pairs. The best
    interval is taken; the objective never rises.

    Args:
        draw: draws the first weights, and which weight of a bit moves.
        kernels: of each bit, inner products of rows and its anchors.
        pairs: rows of each pair.
        target: distance of each pair, from 0 to 1.
        sweeps: over the bits, at most.

    Returns:
        The weights, and the objective at the start and after each sweep.
    """
    bits, _, size = kernels.shape
    weights = 0.001 * draw.normal(size=(bits, size))
    codes = np.einsum("bns,bs->bn", kernels, weights) >= 0
    differ = codes[:, pairs[0]] != codes[:, pairs[1]]
    hamming = differ.sum(axis=0)
    losses = [float(np.sum((target - hamming / bits) ** 2))]
    for _ in range(sweeps):
        for bit in range(bits):
            place = draw.integers(size)
            path = _path(kernels[bit], weights[bit], place)
            others = hamming - differ[bit]
            best, loss = _best(path, pairs, target, others, bits)
            current = float(np.sum((target - hamming / bits) ** 2))
            if loss < current * (1 - 1e-12):
                weights[bit, place] = path.weights[best]
                own = path.codes ^ (path.turn <= best)
                differ[bit] = own[pairs[0]] != own[pairs[1]]
                hamming = others + differ[bit]
        losses.append(float(np.sum((target - hamming / bits) ** 2)))
        if len(losses) > PATIENCE and losses[-1] > (1 - GAIN) * losses[-1 - PATIENCE]:
            break
    return weights, losses


PATIENCE, GAIN = 10, 1e-3  # sweeps that must lower the objective by this share of it, or it ends


def _path(kernel, weights, place) -> _Path:
    column = kernel[:, place]
    rest = kernel @ weights - column * weights[place]
    moves = column != 0
    with np.errstate(divide="ignore", invalid="ignore"):
        thresholds = np.where(moves, -rest / column, np.inf)
    order = np.argsort(thresholds, kind="stable")
    turn = np.empty(len(order), np.int64)
    turn[order] = np.arange(1, len(order) + 1)
    ends = thresholds[order][: moves.sum()]
    turn[~moves] = len(order) + 1
    if len(ends) == 0:
        ends = np.zeros(1)
    bounds = np.concatenate([ends[:1] - 1, ends, ends[-1:] + 1])
    codes = np.where(moves, column < 0, rest >= 0)
    return _Path((bounds[:-1] + bounds[1:]) / 2, codes, turn, np.diff(bounds))


def _best(path: _Path, pairs, target, others, bits) -> tuple[int, float]:
    """Return the interval with the least objective, and that objective."""
    equal, unequal = (target - others / bits) ** 2, (target - (others + 1) / bits) ** 2
    differ = path.codes[pairs[0]] != path.codes[pairs[1]]
    change = np.where(differ, equal - unequal, unequal - equal)
    early, late = np.sort(np.stack([path.turn[pairs[0]], path.turn[pairs[1]]]), axis=0)
    count = len(path.weights)
    steps = np.bincount(early, change, len(path.turn) + 2)
    steps -= np.bincount(late, change, len(path.turn) + 2)
    losses = np.sum(np.where(differ, unequal, equal)) + np.cumsum(steps[:count])
    losses = np.where(path.width > 0, losses, np.inf)
    best = int(np.argmin(losses))
    return best, float(losses[best])


def mlh_hasher(
    bits: int,
    *,
    radius: int | None = None,
    steps: int = 20_000,
    batch_size: int = 100,
    learning_rate: float = 0.1,
    decay: float = 1e-3,
) -> Hasher:
    """Return minimal loss hashing (Norouzi 2011): a hinge on the Hamming distance of pairs.

    The loss of a pair at m bits is max(m - radius + 1, 0) within a class and max(radius - m + 1, 0)
    across, each divided by its greatest value. `mlh_surrogate` bounds it from above. Half of a
    batch's pairs are within a class. Images are centred, and scaled to a mean squared length of 1
    while it learns. The info of `fit` has `loss`, the mean of the last tenth of the steps.

    Args:
        bits: length of a code.
        radius: bits within which images of a class should lie; None: 0.35 of the bits, rounded.
        steps: of gradient descent with momentum 0.9.
        batch_size: pairs of a step.
        learning_rate: at the start; it falls to 0 along a line.
        decay: of the square of the weights.
    """
    sizes = {"bits": bits, "steps": steps, "batch_size": batch_size}
    for name, size in sizes.items():
        check_whole(name, size)
    check_positive("learning_rate", learning_rate)
    if radius is not None and not 0 <= radius <= bits:
        raise ValueError(f"radius must lie between 0 and {bits}, the bits, got {radius}")
    if not 0 <= decay < float("inf"):
        raise ValueError(f"decay must be at least 0, got {decay}")
    near = max(1, math.floor(0.35 * bits + 0.5)) if radius is None else radius

    def learn(key, images, mean, labels):
        x = flatten(images) - mean.reshape(1, -1)
        x = x / jnp.maximum(jnp.sqrt(jnp.mean(jnp.sum(x**2, axis=1))), jnp.finfo(x.dtype).tiny)
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels)
        classes = tuple(jnp.asarray(part) for part in (labels, order, counts))
        rates = learning_rate, decay
        weights, losses = _learn_mlh(key, x, classes, rates, bits, near, steps, batch_size)
        return weights.T, {"loss": float(jnp.mean(losses[-max(1, steps // 10) :]))}

    settings = sizes | {"radius": radius, "learning_rate": learning_rate, "decay": decay}
    return linear_hasher("mlh", bits, learn, settings=settings, supervised=True)


@partial(jax.jit, static_argnames=("bits", "radius", "steps", "batch_size"))
def _learn_mlh(key, x, classes, rates, bits, radius, steps, batch_size):
    """Return W, b x d, and the loss of each step's pairs."""
    labels, order, counts = classes
    learning_rate, decay = rates
    starts = jnp.cumsum(counts) - counts
    n, d = x.shape
    similar = jnp.arange(batch_size) < (batch_size + 1) // 2
    table = jnp.stack([hinge(bits, radius, same) for same in (False, True)])

    def pairs(key):
        first, second = jax.random.split(key)
        i = jax.random.randint(first, (batch_size,), 0, n)
        start, count = starts[labels[i]], counts[labels[i]]
        u = jax.random.uniform(second, (batch_size,))
        within = start + (u * count).astype(jnp.int32)
        across = (u * (n - count)).astype(jnp.int32)
        across = across + jnp.where(across >= start, count, 0)
        place = jnp.clip(jnp.where(similar, within, across), 0, n - 1)
        return i, order[place]

    def step(state, number):
        w, velocity = state
        i, j = pairs(jax.random.fold_in(key, number))
        a, c = _dot(x[i], w.T), _dot(x[j], w.T)
        b, e = _signs(a), _signs(c)
        g, h = mlh_inference(a, c, table[similar.astype(jnp.int32)])
        loss = jnp.take_along_axis(
            table[similar.astype(jnp.int32)], _hamming(b, e)[:, None], axis=1
        )
        gradient = (_dot((g - b).T, x[i]) + _dot((h - e).T, x[j])) / batch_size + decay * w
        velocity = 0.9 * velocity + gradient
        w = w - learning_rate * (1 - number / steps) * velocity
        return (w, velocity), jnp.mean(loss)

    first = 0.1 * jax.random.normal(jax.random.fold_in(key, steps), (bits, d))
    (w, _), losses = lax.scan(step, (first, jnp.zeros_like(first)), jnp.arange(steps))
    return w, losses


def _signs(z):
    return jnp.where(z >= 0, 1.0, -1.0)


def _hamming(b, c):
    return jnp.sum(b != c, axis=1)


def hinge(bits: int, radius: int, similar: bool) -> Float[Array, " m"]:
    """Return the loss of a pair at 0 to `bits` bits, divided by its greatest value."""
    m = jnp.arange(bits + 1)
    if similar:
        return jnp.maximum(m - radius + 1, 0) / (bits - radius + 1)
    return jnp.maximum(radius - m + 1, 0) / (radius + 1)


def mlh_inference(
    a: Float[Array, "n b"], c: Float[Array, "n b"], loss: Float[Array, "n m"]
) -> tuple[Float[Array, "n b"], Float[Array, "n b"]]:
    """Return the codes g and h that maximise loss(Hamming(g, h)) + <g, a> + <h, c>, exactly.

    Where bits agree both are the sign of a + c, where they differ g is that of a - c. That a bit
    differs costs |a + c| - |a - c|; the m cheapest bits differ, and m is the best of all.

    Args:
        a: what the first images of pairs give before the sign.
        c: the same of the second images.
        loss: of each pair, at 0 to b bits.
    """
    gain = jnp.abs(a - c) - jnp.abs(a + c)
    order = jnp.argsort(-gain, axis=1)
    sums = jnp.cumsum(jnp.take_along_axis(gain, order, axis=1), axis=1)
    sums = jnp.concatenate([jnp.zeros_like(sums[:, :1]), sums], axis=1)
    best = jnp.argmax(loss + sums, axis=1)
    rank = jnp.argsort(order, axis=1)
    differs = rank < best[:, None]
    g = jnp.where(differs, _signs(a - c), _signs(a + c))
    return g, jnp.where(differs, -g, g)


def mlh_surrogate(
    a: Float[Array, "n b"], c: Float[Array, "n b"], loss: Float[Array, "n m"]
) -> Float[Array, " n"]:
    """Return the bound on the loss that learning lowers; arguments as of `mlh_inference`."""
    g, h = mlh_inference(a, c, loss)
    at = jnp.take_along_axis(loss, _hamming(g, h)[:, None], axis=1)[:, 0]
    adjusted = at + jnp.sum(g * a + h * c, axis=1)
    return adjusted - jnp.sum(jnp.abs(a) + jnp.abs(c), axis=1)
