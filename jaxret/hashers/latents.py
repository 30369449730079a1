"""What stands between encoder and decoder: how a latent is sampled, its mean, its divergence.

A new treatment is one function here and one line in LATENTS (name -> constructor).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxret import losses, relax
from jaxret.models.layers import check_choice

Parameters = Float[Array, "n p"]
Code = Float[Array, "n b"]


class Latent(NamedTuple):
    """A latent variable as pure functions of its parameters, the numbers that the head gives."""

    head_size: int  # p, parameters per image
    code_size: int  # b, numbers per code
    # A sample to train with, relaxed at a temperature where the latent is discrete.
    sample: Callable[[PRNGKeyArray, Parameters, Float[Array, ""] | float], Code]
    draw: Callable[[PRNGKeyArray, Parameters], Code]  # a true sample of the posterior
    mean: Callable[[Parameters], Code]  # the posterior's centre, without noise
    kl: Callable[[Parameters], Float[Array, " n"]]  # from the posterior to the prior, nats
    distance: str  # how its codes are compared: "euclidean", or "hamming" of their signs
    code: Callable[[Code], Code] = lambda z: z  # a sample or the mean as a retrieval code
    uncode: Callable[[Code], Code] = lambda z: z  # a retrieval code as the decoder takes it
    # from the batch's mean posterior to the prior, nats; None if it has no closed form
    marginal_kl: Callable[[Parameters], Float[Array, ""]] | None = None


def gaussian(latent_dim: int, squash: Callable[[Code], Code] = lambda z: z) -> Latent:
    """A Gaussian z = mu + sigma epsilon with prior N(0, 1) (Kingma 2014; Torres 2018, eq. 2.18).

    `squash` is applied to samples and to the mean; the divergence is that of the Gaussian before
    it.
    """

    def split(parameters):
        mean, log_variance = jnp.split(parameters, 2, axis=1)
        return mean, log_variance

    def draw(key, parameters):
        mean, log_variance = split(parameters)
        return squash(mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape))

    return Latent(
        head_size=2 * latent_dim,
        code_size=latent_dim,
        sample=lambda key, parameters, temperature: draw(key, parameters),
        draw=draw,
        mean=lambda parameters: squash(split(parameters)[0]),
        kl=lambda parameters: losses.gaussian_kl(*split(parameters)),
        distance="euclidean",
    )


def clipped(latent_dim: int) -> Latent:
    """A Gaussian latent in the range [-1, 1]: Torres 2018, section 3.3.3 and eq. 3.2."""
    return gaussian(latent_dim, relax.clip_ste)


SIGN_GRADIENTS = {
    "clipped": relax.sign_ste,
    "identity": relax.sign_identity,
    "zero": relax.sign_zero_gradient,
}


def sign(latent_dim: int, sign_gradient: str = "clipped") -> Latent:
    """The sign of a Gaussian latent: the embedded binarisation of Torres 2018, section 3.3.2.

    `sign_gradient` names the gradient of the sign, one of SIGN_GRADIENTS; the thesis trained with
    "zero".
    """
    check_choice("sign_gradient", sign_gradient, SIGN_GRADIENTS)
    return gaussian(latent_dim, SIGN_GRADIENTS[sign_gradient])._replace(distance="hamming")


def _bits(key, logits):
    return relax.bernoulli_ste(logits, jax.random.uniform(key, logits.shape))


def _concrete(key, logits, temperature):
    return relax.binary_concrete(logits, jax.random.logistic(key, logits.shape), temperature)


# name -> (key, logits, temperature) -> bits to train with
BIT_GRADIENTS = {
    "straight_through": lambda key, logits, temperature: _bits(key, logits),
    "concrete": _concrete,
}


def bernoulli(latent_dim: int, bit_gradient: str = "straight_through") -> Latent:
    """Random bits of -1 and +1 with prior 1/2 each; the mean code is the likelier bit.

    Training samples bits and passes the gradient of their expectation ("straight_through"), or
    samples relaxed bits at a temperature ("concrete", Maddison 2017).
    """
    check_choice("bit_gradient", bit_gradient, BIT_GRADIENTS)
    return Latent(
        head_size=latent_dim,
        code_size=latent_dim,
        sample=BIT_GRADIENTS[bit_gradient],
        draw=_bits,
        mean=relax.sign_ste,
        kl=losses.bernoulli_kl,
        distance="hamming",
        marginal_kl=losses.marginal_bernoulli_kl,
    )


# Numbers of categorical distributions over num_classes each, one after the other: [n p] -> [n p].


def _grouped(z, num_classes):
    """The numbers with an axis for the distributions and one for the classes."""
    return z.reshape(len(z), z.shape[1] // num_classes, num_classes)


def _one_hot(z, num_classes):
    largest = jnp.argmax(_grouped(z, num_classes), axis=2)
    return jax.nn.one_hot(largest, num_classes, dtype=z.dtype).reshape(z.shape)


def _probabilities(logits, num_classes):
    return jax.nn.softmax(_grouped(logits, num_classes)).reshape(logits.shape)


def _log_ratios(z, num_classes):
    """Centred log ratios of probabilities (Aitchison 1982)."""
    logs = jnp.log(jnp.maximum(_grouped(z, num_classes), jnp.finfo(z.dtype).tiny))
    return (logs - logs.mean(axis=2, keepdims=True)).reshape(z.shape)


def gumbel(
    num_distributions: int, num_classes: int, hard: bool = False, codes: str = "one_hot"
) -> Latent:
    """Categorical latents with a uniform prior, sampled by Gumbel-Softmax (Jang 2017).

    Torres 2018, section 3.3.5, with N_d distributions over N_c classes.

    Args:
        num_distributions: N_d.
        num_classes: N_c.
        hard: Train with one-hot samples forward and the soft sample's gradient backward.
        codes: An image's code. "one_hot": the likeliest class of each distribution as -1 and +1;
            the Hamming distance of two codes is twice the number of distributions that differ, so a
            distribution that says nothing of the image weighs as much as any other.
            "probabilities": the categorical posterior. "log_ratios": its centred log ratios
            (Aitchison 1982), the logits less their mean, which tell images apart whose likeliest
            class has nearly all of the probability. Euclidean distance compares the last two.
    """
    size = num_distributions * num_classes
    grouped, one_hot, probabilities, log_ratios = (
        partial(function, num_classes=num_classes)
        for function in (_grouped, _one_hot, _probabilities, _log_ratios)
    )

    def noisy(key, parameters):
        logits = grouped(parameters)
        return logits, relax.gumbel_noise(key, logits.shape)

    def sample(key, parameters, temperature):
        logits, noise = noisy(key, parameters)
        soft = relax.gumbel_softmax(logits, noise, temperature, hard)
        return jnp.asarray(soft).reshape(parameters.shape)

    def draw(key, parameters):
        # The largest of logits plus Gumbel noise is a sample of the categorical distribution.
        logits, noise = noisy(key, parameters)
        return one_hot((logits + noise).reshape(parameters.shape))

    latent = Latent(
        head_size=size,
        code_size=size,
        sample=sample,
        draw=draw,
        mean=one_hot,
        kl=lambda parameters: losses.categorical_kl(grouped(parameters)),
        distance="hamming",
        code=lambda z: 2 * one_hot(z) - 1,
        uncode=lambda code: (code + 1) / 2,
        marginal_kl=lambda parameters: losses.marginal_categorical_kl(grouped(parameters)),
    )
    soft = latent._replace(
        mean=probabilities, distance="euclidean", code=lambda z: z, uncode=lambda code: code
    )
    kinds = {
        "one_hot": latent,
        "probabilities": soft,
        "log_ratios": soft._replace(code=log_ratios, uncode=probabilities),
    }
    check_choice("codes", codes, kinds)
    return kinds[codes]


LATENTS = {
    "gaussian": gaussian,
    "clipped": clipped,
    "sign": sign,
    "bernoulli": bernoulli,
    "gumbel": gumbel,
}
