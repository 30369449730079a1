"""A training step, and an epoch of steps."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

PyTree = Any
# (params, model_state, key, images, labels, hyper) -> (loss, (model_state, terms)); terms are named
# means over the batch, hyper a dictionary of scalars that a sweep may vary.
Loss = Callable[..., tuple[Float[Array, ""], tuple[PyTree, dict[str, Float[Array, ""]]]]]
# Scalars; in a sweep, one value per run. If hyper holds x_end, x goes from its value to x_end over
# the run, by the same factor at each step. `fit` adds `steps`, the length of the run, and each step
# adds `step`, its number, so that an optimizer can follow a schedule.
Hyper = Mapping[str, Any]


class TrainState(NamedTuple):
    """All that a run carries from step to step."""

    step: Int[Array, "*runs"]
    params: PyTree
    model_state: PyTree  # batch statistics; empty where a model has none
    opt_state: PyTree
    key: PRNGKeyArray  # the run's root key: never changed, folded with the step where used


class Batches(NamedTuple):
    """How the batch of a step is drawn.

    An epoch visits the images in random order, `size` at a time; those that do not fill a batch are
    left out of this epoch. With positives (for each image the rows of others that count as similar)
    a batch holds 2 * size images: first the anchors, then one random positive of each.
    """

    size: int
    positives: Int[np.ndarray | Array, "n m"] | None = None


class Trainer(NamedTuple):
    """A model's training as two pure functions, which may be vmapped."""

    init: Callable[[PRNGKeyArray, Hyper], TrainState]
    step: Callable[..., tuple[TrainState, dict[str, Float[Array, ""]]]]


def make_trainer(
    init: Callable[[PRNGKeyArray], tuple[PyTree, PyTree]],
    loss: Loss,
    optimizer: Callable[[Hyper], optax.GradientTransformation],
) -> Trainer:
    """Join a model's init, its loss and an optimizer.

    `init` gives (params, model_state) from a key. The optimizer is a function of hyper, such as
    `lambda hyper: optax.adam(hyper["learning_rate"])`, so that a sweep can vary its numbers.
    """

    def start(key, hyper):
        init_key, run_key = jax.random.split(key)
        params, model_state = init(init_key)
        opt_state = optimizer({**hyper, "step": 0.0, "steps": 1.0}).init(params)
        return TrainState(jnp.zeros((), jnp.int32), params, model_state, opt_state, run_key)

    def step(state, hyper, images, labels):
        hyper = _annealed(hyper, state.step)
        noise_key, _ = _keys_of_step(state)
        gradients, (model_state, terms) = jax.grad(loss, has_aux=True)(
            state.params, state.model_state, noise_key, images, labels, hyper
        )
        updates, opt_state = optimizer(hyper).update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, model_state, opt_state, state.key), terms

    return Trainer(start, step)


def _annealed(hyper: Hyper, step: Int[Array, ""]) -> Hyper:
    """The scalars at a step."""
    hyper = {**hyper, "step": step.astype(jnp.float32)}

    def now(name):
        start, end = hyper[name], hyper[f"{name}_end"]
        return start * (end / start) ** (hyper["step"] / hyper["steps"])

    return {**hyper} | {name: now(name) for name in hyper if f"{name}_end" in hyper}


def _keys_of_step(state: TrainState) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """Keys for a step's noise and, at the first step of an epoch, for the order of images."""
    noise, order = jax.random.split(jax.random.fold_in(state.key, state.step))
    return noise, order


def make_epoch(
    step: Callable[..., tuple[TrainState, dict]], num_images: int, batch_size: int
) -> Callable[..., tuple[TrainState, dict[str, Float[Array, " steps"]]]]:
    """One pass over the images in a new random order, as one lax.scan.

    The images stay on the device as uint8. The epoch takes (state, hyper, images, labels) and the
    positives of `Batches`, if there are any.
    """
    steps = steps_per_epoch(num_images, batch_size)
    take = _step_on_rows(step)

    def epoch(state, hyper, images, labels, positives=None):
        def body(state, rows):
            return take(state, hyper, images, labels, positives, rows)

        return lax.scan(body, state, _order(state, num_images, steps, batch_size))

    return epoch


def _order(state: TrainState, num_images: int, steps: int, batch_size: int) -> Int[Array, "s b"]:
    _, key = _keys_of_step(state)
    order = jax.random.permutation(key, num_images)
    return order[: steps * batch_size].reshape(steps, batch_size)


def _with_positives(
    state: TrainState, rows: Int[Array, " b"], positives: Int[Array, "n m"] | None
) -> Int[Array, " c"]:
    """The rows, followed by one random positive of each."""
    if positives is None:
        return rows
    _, key = _keys_of_step(state)
    column = jax.random.randint(jax.random.fold_in(key, 1), rows.shape, 0, positives.shape[1])
    return jnp.concatenate([rows, positives[rows, column]])


def _step_on_rows(step: Callable) -> Callable:
    """The step on a batch that is given as rows of the images."""

    def take(state, hyper, images, labels, positives, rows):
        rows = _with_positives(state, rows, positives)
        return step(state, hyper, images[rows], labels[rows])

    return take


def convolution_options() -> dict[str, Any] | None:
    """Compiler options of jax.jit for a program with convolutions; None if none are needed.

    On CPU, XLA hands each convolution to a library that runs it on one thread, while XLA's own
    kernels use all. On 2 cores these options cut a training step of DRHN-1 to 0.8 of its time and
    an encoding to 0.7.
    """
    return _known_on_cpu(xla_cpu_experimental_ynn_fusion_type="LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT")


def run_once(function: Callable, *arguments: Any) -> Any:
    """Return what a function gives, by a program that is compiled quickly, for this call alone.

    On CPU, XLA takes seconds to optimise how one array of normal numbers is drawn. Without that the
    first parameters of DRHN-1 take 4 seconds of processor time, not 22 as one program and 28 as
    many. Under jit the function becomes a part of the program around it.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments)):
        return function(*arguments)
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function, compiler_options=_known_on_cpu(**quick))(*arguments)


@functools.cache
def _known_on_cpu(**options: Any) -> dict[str, Any] | None:
    """The options, where a CPU runs programs and its compiler knows them."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options


def make_epoch_loop(
    step: Callable[..., tuple[TrainState, dict]], num_images: int, batch_size: int
) -> Callable[..., tuple[TrainState, dict[str, Float[Array, " steps"]]]]:
    """The same epoch as a Python loop over the jitted step.

    For convolutions on CPU, where XLA is about 50 times slower inside a scan (jax issue 12868).
    """
    steps = steps_per_epoch(num_images, batch_size)
    order_of = jax.jit(lambda state: _order(state, num_images, steps, batch_size))
    copied = jax.jit(lambda state: jax.tree.map(jnp.copy, state))
    take = jax.jit(
        _step_on_rows(step), compiler_options=convolution_options(), donate_argnames="state"
    )

    def epoch(state, hyper, images, labels, positives=None):
        order, terms = order_of(state), []
        state = copied(state)  # a step writes over the state that it is given
        for rows in order:
            state, step_terms = take(state, hyper, images, labels, positives, rows)
            terms.append(step_terms)
        return state, jax.tree.map(lambda *values: jnp.stack(values), *terms)

    return epoch


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """The number of whole batches in one pass."""
    if not 1 <= batch_size <= num_images:
        raise ValueError(
            f"batch_size must lie between 1 and the number of training images, {num_images}, "
            f"got {batch_size}"
        )
    return num_images // batch_size
