"""A plain autoencoder as a hasher: its code is what its encoder says, with no noise in between."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt8

from jaxret import train
from jaxret.models import Autoencoder

from . import network
from .vae import LIKELIHOODS, View, scale

Images = UInt8[Array, "n h w c"]

# name -> likelihood whose negative logarithm, divided by the number of pixels, is the loss
LOSSES = {"bce": "bernoulli", "mse": "squared"}

# name -> optimizer of hyper. Adadelta as in Keras 2, whose rate is 1 (Zeiler 2012 has none).
OPTIMIZERS = {
    "adam": lambda hyper: optax.adam(hyper["learning_rate"]),
    "adadelta": lambda hyper: optax.adadelta(hyper["learning_rate"], rho=0.95, eps=1e-7),
}


class PlainAutoencoder(NamedTuple):
    """An autoencoder as pure functions of its params (see `network.weights`)."""

    trainer: train.Trainer
    code_size: int
    encode: Callable[[train.PyTree, Images], Float[Array, "n b"]]
    decode: Callable[[train.PyTree, Float[Array, "n b"]], Float[Array, "n h w c"]]  # in [0, 1]
    reconstruct: Callable[[train.PyTree, Images], Float[Array, "n h w c"]]


def make_autoencoder(
    model: Autoencoder,
    image_shape: tuple[int, int, int],
    loss: str = "bce",
    optimizer: Callable[[train.Hyper], optax.GradientTransformation] = OPTIMIZERS["adam"],
    view: View | None = None,
) -> PlainAutoencoder:
    """Train a network to rebuild images (Hinton 2006): mean over pixels of a loss.

    "bce" is the cross-entropy of pixels as probabilities, "mse" the squared error; both put a
    sigmoid on what the decoder gives. hyper holds learning_rate. With a view the encoder is trained
    on changed images and the decoder rebuilds them as they were (Vincent 2008).
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    nll_of, link = LIKELIHOODS[LOSSES[loss]]

    def draw(code):
        return code

    def init(key):
        return network.initial(model, key, image_shape, draw)

    def value(params, model_state, key, images, labels, hyper):
        del labels, hyper  # unsupervised; the rate is the optimizer's
        view_key, dropout_key = jax.random.split(key)
        x = seen = scale(images)
        if view is not None:
            seen = view(view_key, x)
        (_, pixels), model_state = network.run_training(
            model, params, model_state, dropout_key, seen, draw
        )
        mean = jnp.mean(nll_of(pixels, x)) / x[0].size
        return mean, (model_state, {loss: mean})

    def encode(params, images):
        return model.apply(network.variables(params), scale(images), method="encode")

    def decode(params, z):
        return link(model.apply(network.variables(params), z, method="decode"))

    def reconstruct(params, images):
        return decode(params, encode(params, images))

    params, model_state = jax.eval_shape(init, jax.random.key(0))  # refuses what does not fit
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)
    code = jax.eval_shape(encode, {"params": params, **model_state}, image)
    return PlainAutoencoder(
        trainer=train.make_trainer(init, value, optimizer),
        code_size=code.shape[1],
        encode=encode,
        decode=decode,
        reconstruct=reconstruct,
    )


def pixel_errors(
    images: UInt8[Array, "n h w c"], rebuilt: Float[Array, "n h w c"]
) -> dict[str, Float[Array, " n"]]:
    """Squared error and binary cross-entropy of each image, means over its pixels.

    Probabilities are kept 1e-7 from 0 and 1, as Keras does: the published figures are of its
    making.
    """
    x, p = scale(images), jnp.clip(rebuilt, 1e-7, 1 - 1e-7)
    entropy = -x * jnp.log(p) - (1 - x) * jnp.log1p(-p)
    return {
        "mse": jnp.mean((x - rebuilt) ** 2, axis=(1, 2, 3)),
        "bce": jnp.mean(entropy, axis=(1, 2, 3)),
    }
