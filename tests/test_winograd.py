"""Convolutions with fewer multiplications against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxret.models import layers, winograd


def by_xla(x, kernel):
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=axes)


def drawn(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), jnp.float32)


def assert_close(found, wanted):
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * float(jnp.abs(wanted).max()))


SIZES = ((4, 4), (8, 8), (3, 3), (1, 1), (5, 12), (16, 4), (7, 9), (2, 13))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize(("n", "channels", "features"), [(3, 5, 7), (1, 1, 2)])
def test_map_and_both_gradients_are_those_of_xla(size, n, channels, features):
    x, kernel = drawn(n, *size, channels), drawn(3, 3, channels, features)
    y, pull = jax.vjp(winograd.convolve, x, kernel)
    wanted, pull_wanted = jax.vjp(by_xla, x, kernel)
    assert_close(y, wanted)
    for found, gradient in zip(pull(2 * y + 1), pull_wanted(2 * y + 1), strict=True):
        assert_close(found, gradient)


@pytest.mark.parametrize("maps", ["each run's own", "the same"])
def test_it_may_be_compiled_and_mapped_over_runs(maps):
    kernels = drawn(4, 3, 3, 3, 5)
    x, axis = (drawn(2, 8, 8, 3), None) if maps == "the same" else (drawn(4, 2, 8, 8, 3), 0)

    def gradients(convolve):
        both = jax.grad(lambda x, kernel: jnp.sum(convolve(x, kernel) ** 2), (0, 1))
        return jax.jit(jax.vmap(both, (axis, 0)))(x, kernels)

    for found, wanted in zip(gradients(winograd.convolve), gradients(by_xla), strict=True):
        assert_close(found, wanted)


@pytest.mark.parametrize(
    ("x_shape", "features", "pays"),
    [
        ((128, 4, 4, 512), 512, True),
        ((128, 8, 8, 128), 256, True),
        ((128, 16, 16, 128), 128, True),
        ((128, 16, 16, 64), 128, False),  # the transforms of few channels cost more
        ((1, 4, 4, 512), 512, False),  # and so does that of the kernel for one small map
        ((128, 1, 1, 512), 512, False),  # of a tile of 16 pixels one is wanted
        ((0, 4, 4, 512), 512, False),
    ],
)
def test_it_is_chosen_where_multiplications_are_much_fewer(x_shape, features, pays):
    assert winograd.pays(x_shape, (3, 3, x_shape[3], features)) == pays


def test_the_layer_trains_by_it_for_many_channels(monkeypatch):
    taken = []
    own = winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *given: taken.append(1) or own(*given))
    layer, x = layers.Conv(256, use_bias=False), drawn(16, 8, 8, 128)
    params = layer.init(jax.random.key(0), x)
    wanted = by_xla(x, params["params"]["kernel"])
    assert_close(layer.apply(params, x, train=True), wanted)
    assert taken
    taken.clear()
    assert_close(layer.apply(params, x), wanted)
    assert not taken  # a code does not depend on how many images are encoded at once
