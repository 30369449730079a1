"""Autoencoders of every family as hashers: plain, or with a latent between encoder and decoder."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxret import train
from jaxret.models import MODELS, SIZED_MODELS, Autoencoder
from jaxret.models.layers import check_choice

from . import network
from .base import (
    Hasher,
    Jitted,
    OfImages,
    check_numbers,
    image_shape_of,
    settings_from,
    trained,
    with_ends,
)
from .pixels import pixel_errors, scale
from .vae import (
    LIKELIHOODS,
    Augment,
    VaeSettings,
    adam,
    affine_augmentation,
    make_latent,
    variational,
)

# name -> likelihood; a plain autoencoder's loss is its negative logarithm per pixel
LOSSES = {"bce": "bernoulli", "mse": "squared"}

# name -> optimizer, from the scalars of training. Adadelta as in Keras 2, whose learning rate is 1
# (Zeiler 2012 has none).
OPTIMIZERS: dict[str, Callable[[train.Hyper], optax.GradientTransformation]] = {
    "adam": adam,
    "adadelta": lambda hyper: optax.adadelta(hyper["learning_rate"], rho=0.95, eps=1e-7),
}
VARIATIONAL = ("gaussian", "clipped", "bernoulli")


@dataclasses.dataclass(frozen=True)
class AutoencoderSettings:
    """Settings of `autoencoder_hasher`."""

    model: str = "dense"  # one of MODELS or SIZED_MODELS
    variational: bool = False  # whether the code is a latent variable with a prior
    latent: str = "gaussian"  # of a variational autoencoder: gaussian, clipped or bernoulli
    bit_gradient: str = "straight_through"  # see latents.bernoulli
    hidden: tuple[int, ...] = ()  # widths of dense or recurrent layers; none: the model's own
    channels: tuple[int, ...] = (16, 8, 8)  # conv: of the encoder's blocks, mirrored by the decoder
    pool: str = "max"  # conv: "max" or "average"
    batch_norm: bool = False  # conv: whether blocks are normalised by batch statistics
    dropout: float = 0.0  # conv: share of the encoder's numbers that training drops
    patch: tuple[int, ...] = (4, 4)  # attention: height and width of a patch in pixels
    width: int = 32  # attention: numbers per patch
    depth: int = 2  # attention: blocks on either side
    loss: str = "bce"  # of a pixel: cross-entropy or squared error
    optimizer: str = "adam"  # or "adadelta", with a learning rate of 1
    beta: float = 1.0  # variational: weight of the KL divergence
    shift: float = 0.0  # augmentation of what the encoder sees, see augment.affine
    degrees: float = 0.0
    zoom: float = 0.0
    learning_rate: float = 1e-3
    learning_rate_end: float = 0.0  # where it goes, geometrically; 0: it stays
    epochs: int = 75
    batch_size: int = 100

    def check(self) -> None:
        """Raise ValueError with the rule and the value for settings that make no sense."""
        check_choice("model", self.model, [*MODELS, *SIZED_MODELS])
        check_choice("latent", self.latent, VARIATIONAL)
        check_choice("loss", self.loss, LOSSES)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_numbers(self, ("width", "depth", "epochs", "batch_size"), 1)
        check_numbers(self, ("learning_rate",), 0, strict=True)
        check_numbers(self, ("beta", "learning_rate_end", "shift", "degrees", "zoom"), 0)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie from 0 to below 1, got {self.dropout}")
        if len(self.patch) != 2:
            raise ValueError(f"patch must be a height and a width, got {self.patch}")

    def hyper(self) -> dict[str, float]:
        """The scalars of training."""
        return with_ends(
            {"learning_rate": self.learning_rate}, learning_rate=self.learning_rate_end
        )

    def model_options(self) -> dict[str, Any]:
        """What the constructor of MODELS takes beside the image shape and the head."""
        options: dict[str, Any] = {"hidden": self.hidden} if self.hidden else {}
        if self.model.startswith("conv"):
            options |= {"channels": self.channels, "pool": self.pool}
            options |= {"batch_norm": self.batch_norm, "dropout": self.dropout}
        if self.model in SIZED_MODELS:
            options = {}
        if self.model == "attention":
            options = {"patch": self.patch, "width": self.width, "depth": self.depth}
        return options


def autoencoder_hasher(
    latent_dim: int,
    image_shape: tuple[int, int, int],
    *,
    own_model: Callable[..., Autoencoder] | None = None,
    **settings: Any,
) -> Hasher:
    """Make an autoencoder whose code is what its encoder gives, or a latent variable of it.

    Args:
        latent_dim: Numbers per code, from a linear layer after the encoder. 0: no such layer; the
            code is the encoder's last layer or map, as conv_up and conv_transposed need.
        image_shape: Height, width and channels of the images.
        own_model: A model of one's own instead of one of MODELS: (image_shape, head_size) ->
            Autoencoder. A hasher of it has no spec.
        **settings: Fields of `AutoencoderSettings`.

    Raises:
        ValueError: A setting is unknown or makes no sense, with the rule and the value.
    """
    chosen = settings_from(AutoencoderSettings, settings)
    if latent_dim < (1 if chosen.variational else 0):
        least = "1 for a variational autoencoder" if chosen.variational else "0"
        raise ValueError(f"latent_dim must be at least {least}, got {latent_dim}")
    image_shape = image_shape_of(image_shape)
    arguments = {"latent_dim": latent_dim, "image_shape": image_shape}
    spec = {"name": "autoencoder", "settings": arguments | dataclasses.asdict(chosen)}
    make = own_model or partial((MODELS | SIZED_MODELS)[chosen.model], **chosen.model_options())
    # Convolutions train step by step on CPU (see train.make_epoch_loop); one's own may have some.
    scan = jax.default_backend() != "cpu" or not (
        own_model or chosen.model.startswith("conv") or chosen.model in SIZED_MODELS
    )
    parts = {
        "optimizer": OPTIMIZERS[chosen.optimizer],
        "augmentation": affine_augmentation(chosen),
        "scan": scan,
        "options": None if scan else train.convolution_options(),
        "spec": None if own_model else spec,
    }
    if not chosen.variational:
        return plain(make(image_shape, latent_dim or None), image_shape, chosen, **parts)
    shared = {field.name for field in dataclasses.fields(VaeSettings)} - {"hidden"}
    of_vae = {n: v for n, v in dataclasses.asdict(chosen).items() if n in shared}
    vae_settings = settings_from(VaeSettings, of_vae)
    latent = make_latent(latent_dim, vae_settings)
    model = make(image_shape, latent.head_size)
    likelihood = LOSSES[chosen.loss]
    return variational(model, latent, image_shape, vae_settings, likelihood=likelihood, **parts)


def plain(
    model: Autoencoder,
    image_shape: tuple[int, int, int],
    settings: AutoencoderSettings,
    *,
    optimizer: Callable[[train.Hyper], optax.GradientTransformation] = adam,
    augmentation: Augment | None = None,
    scan: bool = True,
    options: dict[str, str] | None = None,
    spec: dict[str, Any] | None = None,
) -> Hasher:
    """Make a hasher of an autoencoder that learns to rebuild images (Hinton 2006).

    Its loss is the mean over pixels. With augmentation the encoder sees changed images and the
    decoder rebuilds them as they were (Vincent 2008).

    Args:
        model: Encoder, head and decoder.
        image_shape: Height, width and channels of the images.
        settings: The loss and the length of the training.
        optimizer: From the scalars of training.
        augmentation: (key, scaled images) -> changed images.
        scan: Whether an epoch is one program (see train.make_epoch_loop).
        options: Compiler options of encode.
        spec: See `Hasher`.
    """
    _, link = LIKELIHOODS[LOSSES[settings.loss]]

    def init(key):
        return network.initial(model, key, image_shape, _unchanged)

    def encode(params, images):
        return network.apply(model, params, scale(images), "encode")

    def decode(params, z):
        return link(network.apply(model, params, z, "decode"))

    def measure(params, key, images, labels=None):
        del key, labels
        return pixel_errors(images, decode(params, encode(params, images)))

    jax.eval_shape(init, jax.random.key(0))  # refuses what does not fit
    hyper = settings.hyper()
    training = train.Training(
        trainer=train.make_trainer(init, _loss(model, settings.loss, augmentation), optimizer),
        hyper=hyper,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        scan=scan,
        horizon="learning_rate_end" in hyper,
        image_shape=image_shape,
    )
    return trained(
        training,
        OfImages(encode, shape=image_shape, options=options),
        "euclidean",
        decode=Jitted(decode, options),
        measure=OfImages(measure, 2, shape=image_shape, options=options),
        spec=spec,
    )


def _unchanged(code):
    return code


def _loss(model, loss_name, augmentation):
    """The mean over pixels of a loss of LOSSES, between the decoder's images and the originals."""
    negative_log_likelihood, _ = LIKELIHOODS[LOSSES[loss_name]]

    def loss(params, model_state, key, images, labels, hyper):
        del labels, hyper  # unsupervised; the learning rate is the optimizer's
        augment_key, dropout_key = jax.random.split(key)
        x = seen = scale(images)
        if augmentation is not None:
            seen = augmentation(augment_key, x)
        (_, pixels), model_state = network.run_training(
            model, params, model_state, dropout_key, seen, _unchanged
        )
        mean = jnp.mean(negative_log_likelihood(pixels, x)) / x[0].size
        return mean, (model_state, {loss_name: mean})

    return loss
