"""Batch normalisation of maps, a layer that a CPU trains in less than half the time of Flax's."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Float32

from .layers import sum_of_pixels


class BatchNorm(nn.Module):
    """Equal to nn.BatchNorm of maps but for rounding, with the same variables.

    Its sums are products of matrices on CPU (see `sum_of_pixels`); the backward pass has two.
    """

    use_running_average: bool = False
    momentum: float = 0.99
    epsilon: float = 1e-5
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        channels = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        wide = x.astype(jnp.float32)
        if self.use_running_average:
            y = _scaled(wide - _row(mean.value), var.value, scale, self.epsilon) + _row(bias)
        else:
            y, here, spread = normalised(wide, scale, bias, self.epsilon)
            if not self.is_initializing():
                mean.value = self.momentum * mean.value + (1 - self.momentum) * here
                var.value = self.momentum * var.value + (1 - self.momentum) * spread
        return y.astype(self.dtype or jnp.float32)


def _normalised(
    x: Float32[Array, "n h w c"],
    scale: Float32[Array, " c"],
    bias: Float32[Array, " c"],
    epsilon: float,
) -> tuple[Float32[Array, "n h w c"], Float32[Array, " c"], Float32[Array, " c"]]:
    """Return x normalised by channel, and the means and variances, which have no gradient here."""
    count = x.size // x.shape[-1]
    mean = sum_of_pixels(x) / count
    centred = x - _row(mean)
    var = sum_of_pixels(centred * centred) / count
    return _scaled(centred, var, scale, epsilon) + _row(bias), mean, var


def _forward(x, scale, bias, epsilon):
    y, mean, var = _normalised(x, scale, bias, epsilon)
    return (y, mean, var), (x, scale, mean, var)


def _backward(epsilon, residuals, gradients):
    (x, scale, mean, var), (g, *_) = residuals, gradients
    count = x.size // x.shape[-1]
    centred, factor = x - _row(mean), lax.rsqrt(var + epsilon)
    of_bias = sum_of_pixels(g)
    of_scale = sum_of_pixels(g * centred) * factor
    shared = _row(of_bias / count) + centred * _row(factor * of_scale / count)
    return _scaled(g - shared, var, scale, epsilon), of_scale, of_bias


normalised = jax.custom_vjp(_normalised, nondiff_argnums=(3,))
normalised.defvjp(_forward, _backward)


def _scaled(x, var, scale, epsilon):
    return x * _row(lax.rsqrt(var + epsilon) * scale)


def _row(values):
    """One number for each channel of a map."""
    return values[None, None, None]
