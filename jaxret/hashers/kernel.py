"""Bits of a kernel with random anchors that learn from labels: KSH and supervised discrete hashing.

A bit is the sign of a weighted sum of exp(-|x - anchor|^2 / (2 s)), each minus its mean over the
training images, where s is the mean squared distance between images and anchors.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxret import inputs

from .base import Hasher, OfImages, check_whole, labelled
from .shallow import blocks, check_size, flatten

_dot = partial(jnp.dot, precision=lax.Precision.HIGHEST)
RIDGE = 1e-6  # of the mean diagonal, added to near-singular products of kernels
TOLERANCE = 1e-2  # change of the objective per image at which a bit is found


def ksh_hasher(bits: int, *, anchors: int = 300, sample: int = 5000, steps: int = 500) -> Hasher:
    """Return supervised hashing with kernels (Liu 2012): inner products of codes follow classes.

    See `ksh_weights`. The info of `fit` has `images`, those that the bits were fitted to, and
    `residue`, |b S - H H'| / images, which is `bits` before the first bit.

    Args:
        bits: length of a code. Shorter codes are no beginnings of longer ones.
        anchors: images of the kernel, drawn at random.
        sample: labelled images, drawn at random, whose pairs the bits are fitted to.
        steps: of the gradient, at most, for each bit.
    """
    check_whole("steps", steps, 0)

    def learn(key, kernel, classes):
        fitted = ksh_weights(kernel, classes, bits, steps)
        return fitted.weights, {"residue": float(fitted.residues[-1]), "steps": float(steps)}

    settings = {"bits": bits, "anchors": anchors, "sample": sample, "steps": steps}
    return _hasher("ksh", learn, settings)


class Fitted(NamedTuple):
    """What `ksh_weights` finds.

    weights: of the anchors, a column per bit.
    spectral: y' R y of each bit where the gradient starts.
    gains: the same of the bit that is kept.
    residues: |R| / l before the first bit and after each.
    """

    weights: Float[Array, "m b"]
    spectral: Float[Array, " b"]
    gains: Float[Array, " b"]
    residues: Float[Array, " _"]


@partial(jax.jit, static_argnames=("bits", "steps"))
def ksh_weights(
    kernel: Float[Array, "l m"], classes: Float[Array, "l c"], bits: int, steps: int
) -> Fitted:
    """Return weights that bring H H' near b S, bit after bit.

    S is 1 for images of one class and -1 for others, H the codes of l images in -1 and 1. With
    R = b S - (h h' of the bits before), a bit maximises y' R y: first relaxed to the spectral
    problem K' R K a = v K' K a, then with tanh(K a / 2) for the sign, by Nesterov's gradient. The
    better of both is kept. R has a rank of at most c + 1 + b, so that no matrix of l x l is made.

    Args:
        kernel: centred kernel of images and anchors.
        classes: a row for each image, zeros and a one.
        bits: length of a code.
        steps: of the gradient, at most, for each bit.
    """
    length = len(kernel)
    gram, lower = _factored(_dot(kernel.T, kernel))
    by_class, in_all = _dot(kernel.T, classes), jnp.sum(kernel, axis=0)

    def bit(codes, place):
        residue = partial(_residue, classes, codes, bits)
        projected = _dot(kernel.T, codes)
        matrix = bits * (2 * _dot(by_class, by_class.T) - jnp.outer(in_all, in_all))
        start = _top(lower, matrix - _dot(projected, projected.T))
        start = start * jnp.sqrt(length / _dot(start, _dot(gram, start)))
        moved = _ascend(kernel, residue, start, steps)
        both = jnp.stack([start, moved])
        y = jnp.where(_dot(both, kernel.T) >= 0, 1.0, -1.0)
        gains = jax.vmap(lambda y: _dot(y, residue(y)))(y)
        better = jnp.argmax(gains)
        return codes.at[:, place].set(y[better]), (both[better], gains[0], gains[better])

    found = lax.scan(bit, jnp.zeros((length, bits)), jnp.arange(bits))[1]
    weights, spectral, gains = found
    # |R - y y'|^2 = |R|^2 - 2 y' R y + l^2
    changes = 1 - 2 * gains / length**2
    squares = jnp.cumsum(jnp.concatenate([jnp.array([float(bits) ** 2]), changes]))
    return Fitted(weights.T, spectral, gains, jnp.sqrt(jnp.maximum(squares, 0)))


def _factored(gram):
    """Return the matrix with a ridge, and its Cholesky factor.

    A kernel of as many anchors as images, or of vectors that are alike, has directions of no more
    than rounding errors: then there is no factor but with a larger ridge.
    """
    diagonal = jnp.trace(gram) / len(gram) + jnp.finfo(gram.dtype).tiny

    def with_ridge(ridge):
        return gram + (ridge * diagonal) * jnp.eye(len(gram))

    def fails(ridge):
        return ~jnp.all(jnp.isfinite(jnp.linalg.cholesky(with_ridge(ridge)))) & (ridge < 1)

    ridge = lax.while_loop(fails, lambda ridge: 10 * ridge, RIDGE)
    return with_ridge(ridge), jnp.linalg.cholesky(with_ridge(ridge))


def _residue(classes, codes, bits, v):
    """Return R v; columns of codes that are not found yet are zeros."""
    similar = 2 * _dot(classes, _dot(classes.T, v)) - jnp.sum(v)
    return bits * similar - _dot(codes, _dot(codes.T, v))


def _top(lower, matrix):
    """Return the first vector of the generalised problem matrix a = v lower lower' a."""
    half = jax.scipy.linalg.solve_triangular(lower, matrix, lower=True)
    whole = jax.scipy.linalg.solve_triangular(lower, half.T, lower=True)
    vectors = jnp.linalg.eigh((whole + whole.T) / 2)[1]
    return jax.scipy.linalg.solve_triangular(lower.T, vectors[:, -1], lower=False)


def _ascend(kernel, residue: Callable, start: Float[Array, " m"], steps: int):
    """Raise phi' R phi, phi = tanh(K a / 2), by accelerated gradients with a growing bound."""
    length = len(kernel)

    def cost(a):
        phi = jnp.tanh(_dot(kernel, a) / 2)
        return -_dot(phi, residue(phi)) / length

    slope = jax.value_and_grad(cost)

    def step(state):
        count, a, before, momentum, bound, old, _ = state
        later = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        v = a + (momentum - 1) / later * (a - before)
        value, gradient = slope(v)
        square = jnp.sum(gradient**2)
        # Equal up to the rounding of sums over all images, or the bound would never stop growing.
        slack = 1e-6 * jnp.abs(value)

        def too_low(bound):
            reached = cost(v - gradient / bound)
            return (reached > value - square / (2 * bound) + slack) & (bound < 1e30)

        bound = lax.while_loop(too_low, lambda bound: 2 * bound, bound)
        moved = v - gradient / bound
        new = cost(moved)
        return count + 1, moved, a, later, bound, new, jnp.abs(new - old)

    def goes_on(state):
        return (state[0] < steps) & (state[-1] > TOLERANCE)

    start_cost = cost(start)
    first = 0, start, start, 1.0, 1.0 / length, start_cost, jnp.inf
    return lax.while_loop(goes_on, step, jax.tree.map(jnp.asarray, first))[1]


def sdh_hasher(
    bits: int,
    *,
    anchors: int = 1000,
    sample: int = 5000,
    iterations: int = 5,
    weight: float = 1.0,
    fitting: float = 1e-5,
) -> Hasher:
    """Return supervised discrete hashing (Shen 2015): codes from which a linear map tells classes.

    See `sdh_codes`. Its weights are the least-squares fit of the kernel to those codes. The info of
    `fit` has `loss`, of an image, and `images`.

    Args:
        bits: length of a code.
        anchors: images of the kernel, drawn at random.
        sample: labelled images, drawn at random, that it learns from.
        iterations: of the three steps: classifier, codes, weights.
        weight: of the square of the classifier.
        fitting: how much codes mind what the kernel can fit.
    """
    check_whole("iterations", iterations)

    def learn(key, kernel, classes):
        weights, losses = sdh_codes(key, kernel, classes, bits, iterations, (weight, fitting))
        return weights, {"loss": float(losses[-1]) / len(kernel)}

    settings = {"bits": bits, "anchors": anchors, "sample": sample, "iterations": iterations}
    return _hasher("sdh", learn, settings | {"weight": weight, "fitting": fitting})


@partial(jax.jit, static_argnames=("bits", "iterations"))
def sdh_codes(
    key: PRNGKeyArray,
    kernel: Float[Array, "l m"],
    classes: Float[Array, "l c"],
    bits: int,
    iterations: int,
    scales: Any,
) -> tuple[Float[Array, "m b"], Float[Array, " _"]]:
    """Return the kernel's weights P, and the objective after each step.

    The objective is |Y - B W|^2 + weight |W|^2 + fitting |B - K P|^2 with B in -1 and 1. Each
    iteration solves for W, then for B column after column, which are exact, then for P.

    Args:
        key: draws the first codes.
        kernel: centred kernel of images and anchors.
        classes: Y, a row for each image, zeros and a one.
        bits: length of a code.
        iterations: of the three steps.
        scales: weight and fitting, two numbers.
    """
    weight, fitting = scales
    anchors = kernel.shape[1]
    gram = _dot(kernel.T, kernel)
    # A kernel of vectors that are alike has directions of no more than rounding errors, and that of
    # equal vectors no other: a Cholesky factor would not exist.
    values, vectors = jnp.linalg.eigh(gram)
    least = jnp.finfo(values.dtype).eps * values[-1] + jnp.finfo(values.dtype).tiny
    values = jnp.maximum(values, 0) + RIDGE * jnp.trace(gram) / anchors + least

    def fit(b):
        return _dot(vectors / values[None], _dot(vectors.T, _dot(kernel.T, b)))

    def loss(b, w, p):
        return (
            jnp.sum((classes - _dot(b, w)) ** 2)
            + weight * jnp.sum(w**2)
            + fitting * jnp.sum((b - _dot(kernel, p)) ** 2)
        )

    def iteration(state, _):
        b, p = state
        w = jnp.linalg.solve(_dot(b.T, b) + weight * jnp.eye(bits), _dot(b.T, classes))
        target = _dot(classes, w.T) + fitting * _dot(kernel, p)

        def column(b, place):
            others = _dot(b, w) - jnp.outer(b[:, place], w[place])
            wanted = target[:, place] - _dot(others, w[place])
            return b.at[:, place].set(jnp.where(wanted >= 0, 1.0, -1.0)), None

        after_w = loss(b, w, p)
        b, _ = lax.scan(column, b, jnp.arange(bits))
        after_b = loss(b, w, p)
        p = fit(b)
        return (b, p), jnp.stack([after_w, after_b, loss(b, w, p)])

    b = jnp.where(jax.random.normal(key, (len(kernel), bits)) >= 0, 1.0, -1.0)
    (_, p), losses = lax.scan(iteration, (b, fit(b)), length=iterations)
    return p, losses.reshape(-1)


def _hasher(name: str, learn: Callable[..., Any], settings: dict[str, Any]) -> Hasher:
    """A hasher of the kernel; learn(key, kernel, classes) gives weights of its anchors.

    Its params are anchors, scale (s), mean (of the kernel) and projection.
    """
    for size in ("bits", "anchors", "sample"):
        check_whole(size, settings[size])

    def fit(key, images, labels=None, *, on_epoch=None):
        del on_epoch
        images = inputs.accept(images)
        images, labels = labelled(images, labels)
        keys = jax.random.split(key, 3)
        n = len(images)
        drawn = jax.random.choice(keys[0], n, (min(n, settings["anchors"]),), replace=False)
        anchors = flatten(images[np.sort(np.asarray(drawn))])
        params = {"anchors": anchors} | _kernel_statistics(images, anchors)
        rows = jax.random.choice(keys[1], n, (min(n, settings["sample"]),), replace=False)
        rows = np.sort(np.asarray(rows))
        classes = jnp.asarray(np.eye(labels.max() + 1, dtype=np.float32)[labels[rows]])
        weights, info = learn(keys[2], _kernel(params, flatten(images[rows])), classes)
        return params | {"projection": weights}, info | {"images": float(len(rows))}

    def encode(params, images):
        check_size(name, images, params["anchors"].shape[1:])
        return _dot(_kernel(params, flatten(images)), params["projection"])

    return Hasher(fit, OfImages(encode), "hamming", spec={"name": name, "settings": settings})


def _kernel_statistics(images, anchors) -> dict[str, Any]:
    """Return the scale of the kernel, and its mean over all images."""
    parts = [jnp.sum(_squares(flatten(block), anchors)) for block in blocks(images)]
    scale = sum(parts) / (len(images) * len(anchors))
    params = {"scale": jnp.maximum(scale, jnp.finfo(jnp.float32).tiny)}
    total = sum(_total(flatten(block), anchors, params["scale"]) for block in blocks(images))
    return params | {"mean": total / len(images)}


@jax.jit
def _squares(x, anchors):
    lengths = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(anchors**2, axis=1)[None]
    return jnp.maximum(lengths - 2 * _dot(x, anchors.T), 0)


@jax.jit
def _total(x, anchors, scale):
    return jnp.sum(jnp.exp(-_squares(x, anchors) / (2 * scale)), axis=0)


@jax.jit
def _kernel(params, x):
    near = jnp.exp(-_squares(x, params["anchors"]) / (2 * params["scale"]))
    return near - params["mean"][None]
