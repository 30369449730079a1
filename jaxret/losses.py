"""Losses: one value per example, in nats where they are likelihoods or divergences."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def bernoulli_nll(
    logits: Float[Array, "n *shape"], images: Float[Array, "n *shape"]
) -> Float[Array, " n"]:
    """Bernoulli negative log-likelihood, summed over pixels.

    -sum x log p + (1 - x) log(1 - p), p = sigmoid(logits): the cross-entropy for pixels x in
    [0, 1] (Kingma 2014, appendix C.1). Computed from logits, so no epsilon is needed.
    """
    nll = jax.nn.softplus(logits) - images * logits
    return jnp.sum(nll.reshape(len(nll), -1), axis=1)


def gaussian_nll(
    mean: Float[Array, "n *shape"], images: Float[Array, "n *shape"], log_variance: float = 0.0
) -> Float[Array, " n"]:
    """Negative log-likelihood of a Gaussian of one fixed variance, summed over pixels.

    Torres 2018, eq. 2.21 with a constant sigma: half the squared error over the variance, plus
    the normaliser log(2 pi sigma^2) / 2 per pixel.
    """
    squared = (images - mean) ** 2 * jnp.exp(-log_variance)
    nll = 0.5 * (squared + log_variance + jnp.log(2 * jnp.pi))
    return jnp.sum(nll.reshape(len(nll), -1), axis=1)


def squared_error(
    mean: Float[Array, "n *shape"], images: Float[Array, "n *shape"]
) -> Float[Array, " n"]:
    """Squared error, summed over pixels."""
    return jnp.sum(((images - mean) ** 2).reshape(len(images), -1), axis=1)


def gaussian_kl(mean: Float[Array, "n d"], log_variance: Float[Array, "n d"]) -> Float[Array, " n"]:
    """KL(N(mean, variance) || N(0, 1)), summed over dimensions (Kingma 2014, appendix B)."""
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - log_variance - 1, axis=1)


def bernoulli_kl(logits: Float[Array, "n b"]) -> Float[Array, " n"]:
    """KL(Bernoulli(sigmoid(logit)) || Bernoulli(1/2)), summed over bits.

    p log p + (1 - p) log(1 - p) + log 2 for each bit.
    """
    p = jax.nn.sigmoid(logits)
    kl = p * jax.nn.log_sigmoid(logits) + (1 - p) * jax.nn.log_sigmoid(-logits) + jnp.log(2.0)
    return jnp.sum(kl, axis=1)


def categorical_kl(logits: Float[Array, "n g c"]) -> Float[Array, " n"]:
    """KL(Categorical(softmax(logits)) || uniform over c classes), summed over g groups.

    Torres 2018, eq. 3.5.
    """
    log_p = jax.nn.log_softmax(logits)
    kl = jnp.exp(log_p) * (log_p + jnp.log(float(logits.shape[-1])))
    return jnp.sum(kl, axis=(1, 2))
