"""How a model is run: with its variables, in training and after.

Functions of a trained model take params. For a model with batch statistics that is the dictionary
of all its variables; `weights` gives the one or the other.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from jaxret import train

PyTree = Any


def weights(state: train.TrainState) -> PyTree:
    """What the functions of a trained model take as params."""
    if not state.model_state:
        return state.params
    return {"params": state.params, **state.model_state}


def variables(params: PyTree) -> PyTree:
    """What Flax takes: the parameters under their name, beside them any batch statistics."""
    return params if "params" in params else {"params": params}


def apply(model: nn.Module, params: PyTree, x: Any, method: str) -> Any:
    """What a method of a trained model gives, without noise."""
    return model.apply(variables(params), x, method=method)


def initial(
    model: nn.Module, key: PRNGKeyArray, image_shape: tuple[int, ...], draw: Callable
) -> tuple[PyTree, PyTree]:
    """First parameters and model_state."""
    model_state = dict(model.init(key, jnp.zeros((1, *image_shape)), draw))
    return model_state.pop("params"), model_state


def encoding(params: PyTree) -> PyTree:
    """The variables that a trained model encodes by: averaged ones, if its training kept them."""
    kept = params.get("average", params)
    return {name: kept[name] for name in ("params", "batch_stats")}


def with_average(loss: train.Loss) -> train.Loss:
    """A loss that also keeps an exponential moving average of parameters and batch statistics.

    It is model_state["average"], at first that of `with_first_average`; hyper["ema"] is the share
    that it keeps at each step.
    """

    def averaging(params, model_state, key, images, labels, hyper):
        value, (model_state, told) = loss(params, model_state, key, images, labels, hyper)
        average = _averaged(model_state["average"], _averages(params, model_state), hyper)
        return value, (model_state | {"average": average}, told)

    return averaging


def with_first_average(params: PyTree, model_state: PyTree) -> PyTree:
    """The first model_state with the average of the first weights."""
    return {**model_state, "average": _averages(params, model_state)}


def _averages(params, model_state):
    return {"params": params, "batch_stats": model_state["batch_stats"]}


def _averaged(old, new, hyper):
    # The first weights are noise: the mean forgets them as fast as its first steps can.
    keep = jnp.minimum(hyper["ema"], (1 + hyper["step"]) / (10 + hyper["step"]))
    return jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, old, new)


def run_training(
    model: nn.Module,
    params: PyTree,
    model_state: PyTree,
    key: PRNGKeyArray,
    x: Float[Array, "n *shape"],
    draw: Callable,
) -> tuple[tuple[Float[Array, "n p"], Float[Array, "n *made"]], PyTree]:
    """The latent's parameters and what the model makes of them, then the new model_state.

    Dropout is by the key.
    """
    return model.apply(
        {"params": params, **model_state},
        x,
        draw,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": key},
    )
