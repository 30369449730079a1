"""Code books: a fixed code of -1 and 1 for each class, which hashers learn to give its images.

A function of (labels, num_classes, bits) returns one. `losses.hash_centres` makes those of CSQ.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxret import losses

DRAWS = 1000  # of codes at random, before a smaller distance is accepted
SWEEPS = 10


def central_book(labels: Any, num_classes: int, bits: int) -> Float[np.ndarray, "k b"]:
    """Return codes that are far from each other (Yuan 2020, CSQ)."""
    del labels
    return losses.hash_centres(num_classes, bits)


def random_book(
    labels: Any, num_classes: int, bits: int, seed: int = 0
) -> Float[np.ndarray, "k b"]:
    """Return codes of fair coins (Fan 2020, DPN; Hoe 2021, OrthoHash), no two close to each other.

    Of short codes most draws hold two that are nearly equal. A draw with two codes closer than a
    quarter of the bits is drawn again, up to 1,000 times for each distance, which then shrinks.

    Raises ValueError if the bits are too few to tell the classes apart.
    """
    del labels
    random = np.random.RandomState(seed)  # NumPy will not change the numbers that it gives
    for least in range(max(1, bits // 4), 0, -1):
        for _ in range(DRAWS):
            book = random.choice([-1, 1], (num_classes, bits)).astype(np.float32)
            agreement = book @ book.T - bits * np.eye(num_classes)
            if num_classes == 1 or bits - agreement.max() >= 2 * least:
                return book
    raise ValueError(f"{bits} bits are too few for codes of {num_classes} classes")


def similarity_book(
    labels: Any, num_classes: int, bits: int, seed: int = 0
) -> Float[np.ndarray, "k b"]:
    """Return the codes that the first stage of CNNH (Xia 2014) finds for the labels.

    The signs of `factorise_similarity` agree within a class but for a few images; the code of the
    class is that of most.
    """
    labels = np.asarray(labels, np.int32)
    h, _ = factorise_similarity(jax.random.key(seed), labels, num_classes, bits)
    signs = np.where(np.asarray(h) >= 0, 1.0, -1.0)
    votes = np.zeros((num_classes, bits))
    np.add.at(votes, labels, signs)
    return np.where(votes >= 0, 1.0, -1.0).astype(np.float32)


def factorise_similarity(
    key: Array, labels: Int[Any, " n"], num_classes: int, bits: int, sweeps: int = SWEEPS
) -> tuple[Float[Array, "n b"], Float[Array, " s"]]:
    """Return codes H in [-1, 1] that minimise |S - H H^T / b|^2, S_ij = 1 in a class, else -1.

    Coordinate descent (Xia 2014, CNNH; Jimenez 2017, eq. 3.7): a sweep visits the images in random
    order and the bits of each in random order, and takes one Newton step for each number, clipped
    to the box. S is never made: products with it are sums over classes, so a step costs O(b) and
    not O(n).

    Args:
        key: draws the first H, uniform in the box, and the order.
        labels: the class of each image.
        num_classes: labels are 0 to num_classes - 1.
        bits: b.
        sweeps: how many at most; one that does not lower the loss is undone and is the last.

    Returns:
        H, and the loss over n^2 before the first sweep and after each.
    """
    start, order = jax.random.split(key)
    h = jax.random.uniform(start, (len(labels), bits), minval=-1.0)
    labels = jnp.asarray(labels)
    found = [similarity_loss(h, labels, num_classes)]
    for number in range(sweeps):
        visited, _ = _sweep(jax.random.fold_in(order, number), h, labels, num_classes)
        loss = similarity_loss(visited, labels, num_classes)
        if not loss < found[-1]:
            break
        h = visited
        found.append(loss)
    return h, jnp.stack(found)


@partial(jax.jit, static_argnames="num_classes")
def _sweep(key, h, labels, num_classes):
    """H after a sweep, and what the steps kept of it: H^T H and the sums of classes."""
    rows_key, bits_key = jax.random.split(key)
    images = jax.random.permutation(rows_key, len(h))
    bits = jnp.argsort(jax.random.uniform(bits_key, h.shape), axis=1)

    def visit(carry, image):
        row, label, order = image
        step = partial(_newton, label=label, order=order)
        row, *carry = lax.fori_loop(0, len(row), step, (row, *carry))
        return tuple(carry), row

    carry = jnp.dot(h.T, h), _sums(h, labels, num_classes)
    carry, rows = lax.scan(visit, carry, (h[images], labels[images], bits))
    return jnp.zeros_like(h).at[images].set(rows), carry


def _newton(number, state, *, label, order):
    """One number of an image's row moved by its Newton step; H^T H and the class sums follow."""
    row, gram, sums = state
    bits, j = len(row), order[number]
    similar = 2 * sums[label, j] - jnp.sum(sums[:, j])  # (S h_j)_i
    slope = jnp.dot(row, gram[:, j]) - bits * similar  # a quarter of the first derivative
    curve = gram[j, j] + row[j] ** 2 + jnp.dot(row, row) - bits
    newton = jnp.where(curve > 0, -slope / curve, -2 * jnp.sign(slope))
    change = jnp.clip(newton, -1 - row[j], 1 - row[j])
    gram = gram.at[:, j].add(change * row).at[j].add(change * row).at[j, j].add(change**2)
    return row.at[j].add(change), gram, sums.at[label, j].add(change)


def _sums(h, labels, num_classes):
    return jax.ops.segment_sum(h, labels, num_classes)


def similarity_loss(
    h: Float[Any, "n b"], labels: Int[Any, " n"], num_classes: int
) -> Float[Array, ""]:
    """Return |S - H H^T / b|^2 / n^2.

    For large n and classes of equal size it is at least (1 - 1/C) (1 - 1/(C - 1))^2, the value of
    class codes that are a simplex, and about 1 + 1/b for random codes.
    """
    n, bits = h.shape
    sums = _sums(h, labels, num_classes) / n
    gram = jnp.dot(h.T, h) / n
    product = 2 * jnp.sum(sums**2) - jnp.sum(jnp.sum(sums, axis=0) ** 2)  # tr(H^T S H) / n^2
    return 1 - 2 * product / bits + jnp.sum(gram**2) / bits**2
