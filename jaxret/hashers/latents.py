"""What stands between encoder and decoder: how a latent is drawn, its mean, its divergence.

A new treatment is one more function here and one more line in LATENTS.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxret import losses, relax

Parameters = Float[Array, "n p"]
Code = Float[Array, "n b"]


class Latent(NamedTuple):
    """A latent variable as pure functions of its parameters, the numbers that the head gives."""

    head_size: int  # p, parameters per image
    code_size: int  # b, numbers per code
    sample: Callable[[PRNGKeyArray, Parameters, Float[Array, ""] | float], Code]  # at a temperature
    mean: Callable[[Parameters], Code]  # the posterior's centre, without noise
    kl: Callable[[Parameters], Float[Array, " n"]]  # from the posterior to the prior, nats
    distance: str  # how its codes are compared: "euclidean", or "hamming" of their signs
    code: Callable[[Code], Code] = lambda z: z  # what is drawn, or the mean, as a retrieval code
    # from the batch's mean posterior to the prior, nats; None where it has no closed form
    marginal_kl: Callable[[Parameters], Float[Array, ""]] | None = None


def gaussian(latent_dim: int, squash: Callable[[Code], Code] = lambda z: z) -> Latent:
    """Drawn as z = mu + sigma epsilon, with prior N(0, 1) (Kingma 2014; Torres 2018, eq. 2.18).

    squash is applied to what is drawn and to the mean; the divergence is that of the Gaussian
    before it.
    """

    def split(parameters):
        mean, log_variance = jnp.split(parameters, 2, axis=1)
        return mean, log_variance

    def sample(key, parameters, temperature):
        del temperature
        mean, log_variance = split(parameters)
        return squash(mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape))

    return Latent(
        head_size=2 * latent_dim,
        code_size=latent_dim,
        sample=sample,
        mean=lambda parameters: squash(split(parameters)[0]),
        kl=lambda parameters: losses.gaussian_kl(*split(parameters)),
        distance="euclidean",
    )


def clipped(latent_dim: int) -> Latent:
    """A Gaussian latent in the range [-1, 1]: Torres 2018, section 3.3.3 and eq. 3.2."""
    return gaussian(latent_dim, relax.app)


SIGN_GRADIENTS = {
    "clipped": relax.sign_ste,
    "identity": relax.sign_identity,
    "zero": relax.sign_plain,
}


def sign(latent_dim: int, sign_gradient: str = "clipped") -> Latent:
    """The sign of a Gaussian latent: the embedded binarisation of Torres 2018, section 3.3.2.

    sign_gradient says what goes back through the sign; "zero" is what the thesis trained with.
    """
    return gaussian(latent_dim, SIGN_GRADIENTS[sign_gradient])._replace(distance="hamming")


def _straight_through(key, logits, temperature):
    del temperature
    return relax.bernoulli_ste(logits, jax.random.uniform(key, logits.shape))


def _concrete(key, logits, temperature):
    return relax.binary_concrete(logits, jax.random.logistic(key, logits.shape), temperature)


# name -> (key, logits, temperature) -> bits drawn in training
BIT_GRADIENTS = {"straight_through": _straight_through, "concrete": _concrete}


def bernoulli(latent_dim: int, bit_gradient: str = "straight_through") -> Latent:
    """Random bits of -1 and +1 with prior 1/2 each; the mean code is the likelier bit.

    In training they are drawn as bits whose expectation passes the gradient, or, "concrete",
    relaxed at a temperature, with the gradient of what is drawn.
    """
    return Latent(
        head_size=latent_dim,
        code_size=latent_dim,
        sample=BIT_GRADIENTS[bit_gradient],
        mean=relax.sign_ste,
        kl=losses.bernoulli_kl,
        distance="hamming",
        marginal_kl=losses.marginal_bernoulli_kl,
    )


def gumbel(
    num_distributions: int, num_classes: int, hard: bool = False, codes: str = "one_hot"
) -> Latent:
    """Categorical latents with a uniform prior, drawn by Gumbel-Softmax (Jang 2017).

    Torres 2018, section 3.3.5, with N_d distributions over N_c classes. With codes "one_hot" an
    image's code is the largest entry of each distribution, one-hot as -1 and +1: the Hamming
    distance of two codes is twice the number of distributions in which they differ. That gives a
    distribution that says nothing of the image as much weight as any other. With "probabilities"
    the code is the mean of the categorical posterior, with "log_ratios" that mean's centred log
    ratios (Aitchison 1982), which are the logits less their average; Euclidean distance compares
    both. The ratios tell images apart whose likeliest class has nearly all of the probability.
    """

    def grouped(z):
        return z.reshape(len(z), num_distributions, num_classes)

    def one_hot(z):
        largest = jnp.argmax(grouped(z), axis=2)
        return jax.nn.one_hot(largest, num_classes, dtype=z.dtype).reshape(z.shape)

    def sample(key, parameters, temperature):
        logits = grouped(parameters)
        noise = relax.gumbel_noise(key, logits.shape)
        return relax.gumbel_softmax(logits, noise, temperature, hard).reshape(parameters.shape)

    def probabilities(parameters):
        return jax.nn.softmax(grouped(parameters)).reshape(parameters.shape)

    def log_ratios(z):
        logs = jnp.log(jnp.maximum(grouped(z), jnp.finfo(z.dtype).tiny))
        return (logs - logs.mean(axis=2, keepdims=True)).reshape(z.shape)

    size = num_distributions * num_classes
    latent = Latent(
        head_size=size,
        code_size=size,
        sample=sample,
        mean=one_hot,
        kl=lambda parameters: losses.categorical_kl(grouped(parameters)),
        distance="hamming",
        code=lambda z: 2 * one_hot(z) - 1,
        marginal_kl=lambda parameters: losses.marginal_categorical_kl(grouped(parameters)),
    )
    soft = latent._replace(mean=probabilities, distance="euclidean", code=lambda z: z)
    return {
        "one_hot": latent,
        "probabilities": soft,
        "log_ratios": soft._replace(code=log_ratios),
    }[codes]


# name -> constructor from anything that has the options as fields, such as an experiment's flags
LATENTS = {
    "gaussian": lambda options: gaussian(options.latent_dim),
    "clipped": lambda options: clipped(options.latent_dim),
    "sign": lambda options: sign(options.latent_dim, options.sign_gradient),
    "bernoulli": lambda options: bernoulli(options.latent_dim, options.bit_gradient),
    "gumbel": lambda options: gumbel(
        options.num_distributions,
        options.num_classes,
        options.gumbel_hard,
        options.gumbel_codes,
    ),
}
