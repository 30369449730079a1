"""Variational autoencoders as hashers: Torres 2018 and its relatives."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PRNGKeyArray, UInt8

from jaxret import augment, losses, relax, train
from jaxret.models import Autoencoder, dense_autoencoder
from jaxret.models.layers import check_choice

from . import network
from .base import (
    Hasher,
    Jitted,
    OfImages,
    check_numbers,
    check_whole,
    image_shape_of,
    settings_from,
    trained,
    with_ends,
)
from .latents import BIT_GRADIENTS, LATENTS, SIGN_GRADIENTS, Latent
from .objective import Term, select, weighted_sum
from .pixels import Images, pixel_errors, scale

Augment = Callable[[PRNGKeyArray, Float[Array, "n h w c"]], Float[Array, "n h w c"]]

# name -> (negative log-likelihood of scaled images, link from the decoder's output to pixels)
LIKELIHOODS = {
    "bernoulli": (losses.bernoulli_nll, jax.nn.sigmoid),
    "gaussian": (losses.gaussian_nll, lambda mean: mean),
    # Variance 1/2 around the sigmoid, without its constant: the squared error itself.
    "squared": (lambda y, x: losses.squared_error(jax.nn.sigmoid(y), x), jax.nn.sigmoid),
}
# Distances between posteriors instead of codes, and the latents that have them.
POSTERIOR_DISTANCES = {
    "mahalanobis": ("gaussian",),
    "symmetric_kl": ("gaussian",),
    "expected_hamming": ("bernoulli",),
}


class Outputs(NamedTuple):
    """What an objective is computed from, for one batch."""

    nll: Float[Array, " n"]  # of each image, nats
    kl: Float[Array, " n"]  # of each posterior, nats
    parameters: Float[Array, "n p"]  # of the posteriors
    sample: Float[Array, "n b"]  # of the posteriors, at the temperature of training
    latent: Latent


TERMS: dict[str, Term] = {
    "nll": lambda outputs, hyper: jnp.mean(outputs.nll),
    # Weight 1 makes nll + kl the negative evidence lower bound (Kingma 2014, eq. 10); other weights
    # are the beta of Higgins 2017.
    "kl": lambda outputs, hyper: jnp.mean(outputs.kl),
    # A price for bits and categories that all images share, so that they do not saturate before
    # they have learnt anything when the weight of kl is small.
    "marginal_kl": lambda outputs, hyper: outputs.latent.marginal_kl(outputs.parameters),
    # The batch holds anchors, then a positive of each (train.Batches).
    "ntxent": lambda outputs, hyper: jnp.mean(losses.ntxent(outputs.sample)),
}


@dataclasses.dataclass(frozen=True)
class VaeSettings:
    """Settings of `vae_hasher`; the defaults are those of Torres 2018 where it states them."""

    latent: str = "gaussian"  # one of LATENTS
    hidden: tuple[int, ...] = (500, 100)  # widths of the encoder's layers, mirrored by the decoder
    likelihood: str = "bernoulli"  # of a pixel: "bernoulli" or "gaussian"
    sign_gradient: str = "clipped"  # see latents.sign
    bit_gradient: str = "straight_through"  # see latents.bernoulli
    num_classes: int = 10  # N_c, see latents.gumbel
    num_distributions: int = 10  # N_d
    gumbel_hard: bool = False
    gumbel_codes: str = "one_hot"
    temperature: float = 1.0  # of relaxed samples
    temperature_end: float = 0.0  # where it goes, geometrically; 0: it stays
    beta: float = 1.0  # weight of the KL divergence
    beta_end: float = 0.0
    balance: float = 0.0  # weight of the KL divergence of the batch's mean posterior
    contrastive_weight: float = 0.0  # weight of NT-Xent between anchors and positives
    shift: float = 0.0  # augmentation of what the encoder sees, see augment.affine: pixels
    degrees: float = 0.0
    zoom: float = 0.0
    features: str = "mean"  # a code is the posterior's "mean" or one "sample" of it
    distance: str = ""  # how codes are compared; none: as the latent has it
    quantise_levels: int = 0  # levels per number after training; 0: none
    learning_rate: float = 1e-3  # of Adam
    learning_rate_end: float = 0.0
    epochs: int = 75
    batch_size: int = 100

    def check(self) -> None:
        """Raise ValueError with the rule and the value for settings that make no sense."""
        check_choice("latent", self.latent, LATENTS)
        check_choice("likelihood", self.likelihood, ("bernoulli", "gaussian"))
        check_choice("sign_gradient", self.sign_gradient, SIGN_GRADIENTS)
        check_choice("bit_gradient", self.bit_gradient, BIT_GRADIENTS)
        check_choice("features", self.features, ("mean", "sample"))
        check_numbers(self, ("num_distributions", "epochs", "batch_size"), 1)
        check_numbers(self, ("num_classes",), 2)
        check_numbers(self, ("learning_rate", "temperature"), 0, strict=True)
        check_numbers(
            self, ("beta", "balance", "contrastive_weight", "shift", "degrees", "zoom"), 0
        )
        check_numbers(self, ("beta_end", "temperature_end", "learning_rate_end"), 0)
        if self.beta_end and not self.beta:
            raise ValueError("beta_end needs beta above 0, got 0")
        if self.balance and self.latent not in ("bernoulli", "gumbel"):
            raise ValueError(f"balance is for bernoulli and gumbel latents, not {self.latent}")
        self._check_codes()

    def _check_codes(self) -> None:
        if self.quantise_levels and self.latent not in ("gaussian", "clipped"):
            raise ValueError(f"quantise_levels is for continuous latents, not {self.latent}")
        if self.quantise_levels not in (0, *relax.QUANTISER_LEVELS):
            levels = ", ".join(map(str, (0, *relax.QUANTISER_LEVELS)))
            raise ValueError(f"quantise_levels must be one of {levels}, got {self.quantise_levels}")
        latents = POSTERIOR_DISTANCES | {"cosine": ("gaussian", "clipped")}
        if self.distance and self.distance not in latents:
            raise ValueError(
                f"distance must be one of {', '.join(latents)}, or none for the latent's own, "
                f"got {self.distance!r}"
            )
        if self.distance and self.latent not in latents[self.distance]:
            raise ValueError(
                f"distance={self.distance} is for {' and '.join(latents[self.distance])} latents, "
                f"not {self.latent}"
            )
        sampled = self.features == "sample"
        if self.distance in POSTERIOR_DISTANCES and (sampled or self.quantise_levels):
            raise ValueError(f"distance={self.distance} compares posteriors, not samples or levels")
        if sampled and self.latent == "gumbel" and self.gumbel_codes == "log_ratios":
            raise ValueError("features=sample is one-hot, which has no log ratios")

    def hyper(self) -> dict[str, float]:
        """The scalars of training."""
        hyper = {
            "learning_rate": self.learning_rate, "kl": self.beta, "temperature": self.temperature,
        }  # fmt: skip
        optional = {"marginal_kl": self.balance, "ntxent": self.contrastive_weight}
        return with_ends(
            hyper | {name: weight for name, weight in optional.items() if weight},
            learning_rate=self.learning_rate_end, kl=self.beta_end,
            temperature=self.temperature_end,
        )  # fmt: skip


def make_latent(latent_dim: int, settings: VaeSettings) -> Latent:
    """Make the latent that settings name."""
    options = {
        "sign": {"sign_gradient": settings.sign_gradient},
        "bernoulli": {"bit_gradient": settings.bit_gradient},
    }
    if settings.latent == "gumbel":
        return LATENTS["gumbel"](
            settings.num_distributions,
            settings.num_classes,
            settings.gumbel_hard,
            settings.gumbel_codes,
        )
    return LATENTS[settings.latent](latent_dim, **options.get(settings.latent, {}))


def vae_hasher(latent_dim: int, image_shape: tuple[int, int, int], **settings: Any) -> Hasher:
    """Make a dense variational autoencoder whose posteriors are codes (Torres 2018).

    Args:
        latent_dim: Numbers or bits per code; a Gumbel latent has num_distributions * num_classes.
        image_shape: Height, width and channels of the images.
        **settings: Fields of `VaeSettings`.

    Raises:
        ValueError: A setting is unknown or makes no sense, with the rule and the value.
    """
    chosen = settings_from(VaeSettings, settings)
    check_whole("latent_dim", latent_dim)
    image_shape = image_shape_of(image_shape)
    latent = make_latent(latent_dim, chosen)
    model = dense_autoencoder(image_shape, latent.head_size, chosen.hidden)
    arguments = {"latent_dim": latent_dim, "image_shape": image_shape}
    return variational(
        model,
        latent,
        image_shape,
        chosen,
        likelihood=chosen.likelihood,
        augmentation=affine_augmentation(chosen),
        spec={"name": "vae", "settings": arguments | dataclasses.asdict(chosen)},
    )


def affine_augmentation(settings: Any) -> Augment | None:
    """The shifts, rotations and zooms that settings ask for, None if they ask for none."""
    amounts = {name: getattr(settings, name) for name in ("shift", "degrees", "zoom")}
    return partial(augment.affine, **amounts) if any(amounts.values()) else None


def adam(hyper: train.Hyper) -> optax.GradientTransformation:
    """Return Adam with the learning rate that is among the scalars of training."""
    return optax.adam(hyper["learning_rate"])


def variational(
    model: Autoencoder,
    latent: Latent,
    image_shape: tuple[int, int, int],
    settings: VaeSettings,
    *,
    likelihood: str = "bernoulli",
    optimizer: Callable[[train.Hyper], optax.GradientTransformation] = adam,
    augmentation: Augment | None = None,
    scan: bool = True,
    options: dict[str, str] | None = None,
    spec: dict[str, Any] | None = None,
) -> Hasher:
    """Join a network and a latent into a hasher.

    Training minimises a weighted sum of TERMS. With augmentation the encoder sees changed images
    and the decoder rebuilds the images as they were, so that a code need not tell what augmentation
    changes (denoising: Vincent 2008; Im 2017).

    Args:
        model: Encoder, head and decoder.
        latent: What the head's numbers mean.
        image_shape: Height, width and channels of the images.
        settings: Weights, features and length of the training.
        likelihood: One of LIKELIHOODS.
        optimizer: From the scalars of training.
        augmentation: (key, scaled images) -> changed images.
        scan: Whether an epoch is one program (see train.make_epoch_loop).
        options: Compiler options of encode.
        spec: See `Hasher`.
    """
    hyper = settings.hyper()
    weights = ("marginal_kl", "ntxent")
    terms = select(TERMS, ("nll", "kl", *(name for name in weights if name in hyper)))
    functions = _functions(model, latent, likelihood)
    loss = _loss(model, latent, likelihood, terms, augmentation)
    init = partial(_init, model, latent, image_shape)
    jax.eval_shape(init, jax.random.key(0))  # refuses what does not fit
    encode, decode = _coding(functions, settings)
    training = train.Training(
        trainer=train.make_trainer(init, loss, optimizer),
        hyper=hyper,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        scan=scan,
        pairs="ntxent" in terms,
        needs_positives="ntxent" in terms and augmentation is None,
        horizon=any(name.endswith("_end") for name in hyper),
        image_shape=image_shape,
    )
    return trained(
        training,
        OfImages(encode, shape=image_shape, options=options),
        settings.distance or latent.distance,
        decode=Jitted(decode, options),
        measure=OfImages(functions["measure"], 2, shape=image_shape, options=options),
        generate=functions["generate"],
        spec=spec,
    )


def _coding(functions, settings):
    """Encode and decode: of codes, quantised or not, or of whole posteriors."""
    if settings.distance in POSTERIOR_DISTANCES:
        return functions["parameters"], functions["decode_parameters"]
    encode = functions[settings.features]
    if settings.quantise_levels:
        encode = quantised(encode, settings.quantise_levels)
    return encode, functions["decode"]


def _init(model, latent, image_shape, key):
    return network.initial(model, key, image_shape, lambda _: jnp.zeros((1, latent.code_size)))


def _loss(model, latent, likelihood, terms, augmentation):
    negative_log_likelihood, _ = LIKELIHOODS[likelihood]

    def loss(params, model_state, key, images, labels, hyper):
        del labels  # unsupervised
        x = seen = scale(images)
        if augmentation is not None:
            key, augment_key = jax.random.split(key)
            seen = augmentation(augment_key, x)
        # Dropout has a key of its own; the latent's noise is the key's.
        (parameters, pixels), model_state = network.run_training(
            model,
            params,
            model_state,
            jax.random.fold_in(key, 1),
            seen,
            lambda p: latent.sample(key, p, hyper["temperature"]),
        )
        outputs = Outputs(
            nll=negative_log_likelihood(pixels, x),
            kl=latent.kl(parameters),
            parameters=parameters,
            sample=latent.sample(key, parameters, hyper["temperature"]),
            latent=latent,
        )
        value, told = weighted_sum(terms, outputs, hyper)
        return value, (model_state, told)

    return loss


def _functions(model: Autoencoder, latent: Latent, likelihood: str) -> dict[str, Callable]:
    """What a trained model can do, as functions of its params."""
    negative_log_likelihood, link = LIKELIHOODS[likelihood]

    def pixels(params, z):
        return network.apply(model, params, z, "decode")

    def parameters_of(params, images):
        return network.apply(model, params, scale(images), "encode")

    def draw(key, images, parameters):
        draws = jax.vmap(lambda key, row: latent.draw(key, row[None])[0])
        return draws(image_keys(key, images), parameters)

    def mean(params, images):
        return latent.code(latent.mean(parameters_of(params, images)))

    def sample(params, images):
        parameters = parameters_of(params, images)
        return latent.code(draw(jax.random.key(0), images, parameters))

    def measure(params, key, images, labels=None):
        del labels
        x, parameters = scale(images), parameters_of(params, images)
        drawn = pixels(params, draw(key, images, parameters))
        nll, kl = negative_log_likelihood(drawn, x), latent.kl(parameters)
        squared = pixel_errors(images, link(drawn))["mse"]
        rebuilt = link(pixels(params, latent.mean(parameters)))
        return {
            "negative_elbo_nats": nll + kl,
            "nll_nats": nll,
            "kl_nats": kl,
            "mse784_plus_kl": 784 * squared + kl,
            **pixel_errors(images, rebuilt),
        }

    def generate(params, key, count):
        prior = jnp.zeros((count, latent.head_size))  # in every latent, parameters of 0
        return link(pixels(params, latent.draw(key, prior)))

    return {
        "parameters": parameters_of,
        "mean": mean,
        "sample": sample,
        "measure": measure,
        "generate": generate,
        "decode": lambda params, code: link(pixels(params, latent.uncode(code))),
        "decode_parameters": lambda params, code: link(pixels(params, latent.mean(code))),
    }


def image_keys(key: PRNGKeyArray, images: UInt8[Array, "n h w c"]) -> Key[Array, " n"]:
    """A key for each image, from its content.

    Noise drawn with it does not depend on the batch in which the image stands, and two images share
    their noise only if they are the same image (64 bits tell them apart).
    """
    flat = images.reshape(len(images), -1).astype(jnp.uint32)
    place = jnp.arange(flat.shape[1], dtype=jnp.uint32)

    def digest(salt: int):
        # An odd multiplier for each place, its bits mixed as in MurmurHash3; sums modulo 2^32.
        mixed = (place + jnp.uint32(salt)) * jnp.uint32(2654435761)
        mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
        mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
        odd = (mixed ^ (mixed >> 16)) | jnp.uint32(1)
        return jnp.sum(flat * odd[None], axis=1, dtype=jnp.uint32)

    def fold(first, second):
        return jax.random.fold_in(jax.random.fold_in(key, first), second)

    return jax.vmap(fold)(digest(1), digest(0x9E3779B9))


def quantised(
    encode: Callable[[Any, Images], Float[Array, "n b"]], levels: int
) -> Callable[[Any, Images], Float[Array, "n b"]]:
    """Quantise codes after training (Torres 2018, section 3.3.4)."""
    return lambda params, images: relax.quantise_uniform(encode(params, images), levels)
