"""A dense autoencoder of fixed features: the second stage of Sahu n.d., section 3.4."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxret import train
from jaxret.models import Autoencoder, DenseDecoder, DenseEncoder

from . import network
from .base import check_numbers, check_whole

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class FeatureAutoencoderSettings:
    """How an autoencoder of features is built and trained; the rate and batch were published."""

    hidden: tuple[int, ...] = (1024, 512)  # between features and code, mirrored by the decoder
    learning_rate: float = 1e-4  # of Adam
    epochs: int = 50
    batch_size: int = 128

    def check(self) -> None:
        """Raise ValueError for a value out of its range."""
        for width in self.hidden:
            check_whole("hidden", width)
        check_numbers(self, ("epochs", "batch_size"), 1)
        check_numbers(self, ("learning_rate",), 0, strict=True)


def fit_feature_autoencoder(
    key: PRNGKeyArray,
    x: Float[np.ndarray, "n d"],
    latent_dim: int,
    settings: FeatureAutoencoderSettings,
    on_epoch: Callable | None = None,
) -> tuple[Params, dict[str, float]]:
    """Learn to rebuild features from a few numbers; the loss is the squared error of a feature.

    Args:
        key: of the first weights and the order of images.
        x: features.
        latent_dim: numbers per code.
        settings: of the layers and their training.
        on_epoch: called after each epoch with the state and `train.EpochInfo`.

    Returns:
        The params, which `embed` takes, and what `train.run` tells.
    """
    model = _model(x.shape[1], latent_dim, settings.hidden)

    def init(key):
        return network.initial(model, key, (1, 1, x.shape[1]), _unchanged)

    def loss(params, model_state, key, images, labels, hyper):
        del labels, hyper  # unsupervised; the learning rate is the optimizer's
        seen = images[:, None, None]
        (_, rebuilt), model_state = network.run_training(
            model, params, model_state, key, seen, _unchanged
        )
        mean = jnp.mean((rebuilt - seen) ** 2)
        return mean, (model_state, {"mse": mean})

    training = train.Training(
        trainer=train.make_trainer(init, loss, lambda hyper: optax.adam(hyper["learning_rate"])),
        hyper={"learning_rate": settings.learning_rate},
        epochs=settings.epochs,
        batch_size=min(settings.batch_size, len(x)),
    )
    state, info = train.run(training, key, x, on_epoch=on_epoch or (lambda state, info: None))
    return {"encoder": state.params["encoder"], "head": state.params["head"]}, info


def embed(params: Params, x: Float[Array | np.ndarray, "n d"]) -> Float[Array, "n b"]:
    """Return the codes of features."""
    layers = params["encoder"]
    hidden = tuple(layers[f"Dense_{i}"]["bias"].shape[0] for i in range(len(layers)))
    model = _model(x.shape[1], params["head"]["bias"].shape[0], hidden)
    kept = {"encoder": layers, "head": params["head"]}
    return network.apply(model, kept, jnp.asarray(x)[:, None, None], "encode")


def _model(size: int, latent_dim: int, hidden: tuple[int, ...]) -> Autoencoder:
    decoder = DenseDecoder(tuple(reversed(hidden)), (1, 1, size))
    return Autoencoder(DenseEncoder(tuple(hidden)), decoder, latent_dim)


def _unchanged(code):
    return code
