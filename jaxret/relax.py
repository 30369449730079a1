"""Relaxations: discrete values forward, a useful gradient backward.

The docstring of each function says what goes forward and what comes back. Noise is an argument, so
each is a plain function of arrays.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

# Torres 2018, table 3.1: every quantiser covers [-4, 4], except that of 2 levels, whose values are
# -1 and 1. To a nearest-neighbour search, that is the same up to scale.
QUANTISER_LEVELS = {
    2: (-1.0, 1.0),
    **{
        levels: tuple(float(v) for v in -4 + (np.arange(levels) + 0.5) * 8 / levels)
        for levels in (4, 8, 16, 32)
    },
}


def _signs(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.where(z >= 0, 1.0, -1.0).astype(z.dtype)  # never 0: a bit is +1 or -1


@jax.custom_vjp
def sign_ste(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Sign forward; backward passes the gradient where |z| <= 1.

    The straight-through estimator (Bengio 2013) with the saturation of Hubara 2016, eq. 4.
    """
    return _signs(z)


sign_ste.defvjp(
    lambda z: (_signs(z), z),
    lambda z, g: (jnp.where(jnp.abs(z) <= 1, g, 0.0),),
)


@jax.custom_vjp
def sign_identity(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Sign forward; backward passes the whole gradient (Bengio 2013)."""
    return _signs(z)


sign_identity.defvjp(lambda z: (_signs(z), None), lambda _, g: (g,))


@jax.custom_vjp
def half_signs(
    z: Float[Array, "n b"], weight: Float[Array, ""] | float = 0.0
) -> Float[Array, "n b"]:
    """Forward the upper half of each column becomes 1, the rest -1: bits of maximal entropy.

    Of an odd number of rows one more becomes -1; equal numbers are ranked by row. Backward the
    whole gradient passes, plus weight (z - bits) / size, which pulls z to its bits (Li 2021,
    BiHalf, whose weight is 6).
    """
    n = len(z)
    ranks = jnp.argsort(jnp.argsort(-z, axis=0, stable=True), axis=0)
    return jnp.where(ranks < n // 2, 1.0, -1.0).astype(z.dtype)


def _half_forward(z, weight=0.0):
    bits = half_signs(z, weight)
    return bits, (weight * (z - bits) / z.size, jnp.zeros_like(jnp.asarray(weight)))


def _half_backward(residuals, g):
    pull, nothing = residuals
    return g + pull, nothing


half_signs.defvjp(_half_forward, _half_backward)


@jax.custom_vjp
def sign_zero_gradient(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Sign forward; no gradient backward (Torres 2018, eq. 3.1).

    The derivative of the sign is 0 wherever it exists, so the layers before it do not learn to
    reconstruct. It is here to reproduce that published result.
    """
    return _signs(z)


sign_zero_gradient.defvjp(lambda z: (_signs(z), None), lambda _, g: (jnp.zeros_like(g),))


@jax.custom_vjp
def clip_ste(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Clip to [-1, 1] forward; backward passes the gradient where |z| < 1.

    Torres 2018, eq. 3.2, calls it app (after Song 2018, BGAN).
    """
    return jnp.clip(z, -1.0, 1.0)


clip_ste.defvjp(
    lambda z: (jnp.clip(z, -1.0, 1.0), z),
    lambda z, g: (jnp.where(jnp.abs(z) < 1, g, 0.0),),
)


@jax.custom_vjp
def bernoulli_ste(
    logits: Float[Array, "*shape"], uniform: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Random bits forward, -1 or +1: +1 with probability p = sigmoid(logit).

    `uniform` is noise from [0, 1). Backward passes the gradient times 2 p (1 - p), that of the
    expected bit: a straight-through estimator on the probability (Bengio 2013, section 4).
    """
    return _signs(jax.nn.sigmoid(logits) - uniform)


def _bernoulli_forward(logits, uniform):
    return bernoulli_ste(logits, uniform), jax.nn.sigmoid(logits)


def _bernoulli_backward(p, g):
    return 2 * p * (1 - p) * g, jnp.zeros_like(g)


bernoulli_ste.defvjp(_bernoulli_forward, _bernoulli_backward)


def binary_concrete(
    logits: Float[Array, "*shape"],
    noise: Float[Array, "*shape"],
    temperature: Float[Array, ""] | float,
) -> Float[Array, "*shape"]:
    """Relaxed random bits between -1 and +1 (Maddison 2017, appendix B).

    2 sigmoid((logit + noise) / temperature) - 1, where noise is standard logistic. This is
    `gumbel_softmax` of two classes. As the temperature goes to 0, it becomes a bit that is +1 with
    probability sigmoid(logit).
    """
    return jnp.tanh((logits + noise) / (2 * temperature))


def gumbel_noise(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard Gumbel noise, -log(-log(u))."""
    return jax.random.gumbel(key, shape)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def gumbel_softmax(
    logits: Float[Array, "*shape c"],
    noise: Float[Array, "*shape c"],
    temperature: Float[Array, ""] | float,
    hard: bool = False,
) -> Float[Array, "*shape c"]:
    """Relaxed samples of categorical variables of c classes (Jang 2017, eq. 2).

    softmax((log_softmax(logits) + noise) / temperature).

    Args:
        logits: unnormalised log-probabilities of the classes.
        noise: standard Gumbel noise, from `gumbel_noise`. Its gradient is 0.
        temperature: above 0; the lower, the closer a sample is to one-hot. Its gradient is 0.
        hard: pass the one-hot vector of the largest entry forward. The gradient is still that of
            the soft sample (straight-through Gumbel-Softmax).

    Returns:
        Samples that sum to 1 over the classes.
    """
    return _gumbel_forward(logits, noise, temperature, hard)[0]


def _gumbel_forward(logits, noise, temperature, hard):
    soft = jax.nn.softmax((jax.nn.log_softmax(logits) + noise) / temperature)
    sample = jax.nn.one_hot(jnp.argmax(soft, axis=-1), soft.shape[-1], dtype=soft.dtype)
    return (sample if hard else soft), (soft, noise, temperature)


def _gumbel_backward(hard, residuals, g):
    del hard
    soft, noise, temperature = residuals
    # The Jacobian of the softmax. That of log_softmax changes nothing: it shifts all classes alike,
    # and a shift does not change the softmax.
    inner = jnp.sum(g * soft, axis=-1, keepdims=True)
    return soft * (g - inner) / temperature, jnp.zeros_like(noise), jnp.zeros_like(temperature)


gumbel_softmax.defvjp(_gumbel_forward, _gumbel_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def quantise_uniform(z: Float[Array, "*shape"], levels: int) -> Float[Array, "*shape"]:
    """The nearest level forward (Torres 2018, table 3.1); a value midway goes up.

    Backward passes the gradient where z lies within the quantised range, else 0.

    Raises ValueError if `levels` is not a key of QUANTISER_LEVELS.
    """
    return _quantise_forward(z, levels)[0]


def _quantise_forward(z, levels):
    if levels not in QUANTISER_LEVELS:
        raise ValueError(f"levels must be one of {sorted(QUANTISER_LEVELS)}, got {levels}")
    values = jnp.asarray(QUANTISER_LEVELS[levels], z.dtype)
    step = QUANTISER_LEVELS[levels][1] - QUANTISER_LEVELS[levels][0]
    index = jnp.clip(jnp.floor((z - values[0]) / step + 0.5), 0, levels - 1)
    return values[index.astype(jnp.int32)], (z, values[-1] + step / 2)


def _quantise_backward(levels, residuals, g):
    del levels
    z, limit = residuals
    return (jnp.where(jnp.abs(z) <= limit, g, 0.0),)


quantise_uniform.defvjp(_quantise_forward, _quantise_backward)
