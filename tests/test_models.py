"""Networks and their composition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret import models


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (32, 32, 3)])
@pytest.mark.parametrize("hidden", [(500, 100), (64,), (50, 40, 30)])
def test_a_dense_autoencoder_gives_parameters_and_pixels(image_shape, hidden):
    model = models.MODELS["dense"](image_shape, 20, hidden)
    images = jnp.zeros((3, *image_shape))
    (parameters, pixels), _ = model.init_with_output(jax.random.key(0), images, lambda p: p[:, :10])
    assert parameters.shape == (3, 20)
    assert pixels.shape == images.shape


def test_the_thesis_network_has_its_number_of_parameters():
    model = models.dense_autoencoder((28, 28, 1), 20)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), lambda p: p[:, :10])
    counted = sum(leaf.size for leaf in jax.tree.leaves(variables))
    encoder = 784 * 500 + 500 + 500 * 100 + 100 + 100 * 20 + 20
    decoder = 10 * 100 + 100 + 100 * 500 + 500 + 500 * 784 + 784
    assert counted == encoder + decoder


def test_weights_start_by_xavier_and_biases_at_zero():
    model = models.dense_autoencoder((28, 28, 1), 20)
    params = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), lambda p: p[:, :10])["params"]
    first = params["encoder"]["Dense_0"]
    limit = np.sqrt(6 / (784 + 500))
    assert 0.99 * limit < np.abs(first["kernel"]).max() <= limit
    np.testing.assert_array_equal(first["bias"], np.zeros(500))


def test_whole_equals_encoding_drawing_and_decoding_in_turn():
    model = models.dense_autoencoder((4, 4, 1), 6, (8,))
    images = jax.random.uniform(jax.random.key(1), (5, 4, 4, 1))
    draw = lambda p: jnp.tanh(p[:, :3])  # noqa: E731
    variables = model.init(jax.random.key(0), images, draw)
    parameters, pixels = model.apply(variables, images, draw)
    alone = model.apply(variables, images, method="encode")
    np.testing.assert_allclose(alone, parameters, rtol=1e-6)
    decoded = model.apply(variables, draw(alone), method="decode")
    np.testing.assert_allclose(decoded, pixels, rtol=1e-5, atol=1e-6)


def test_the_last_relu_can_be_left_out():
    images = jax.random.uniform(jax.random.key(0), (20, 4, 4, 1))
    features = {
        last_relu: models.DenseEncoder((8, 6), last_relu).init_with_output(
            jax.random.key(1), images
        )[0]
        for last_relu in (True, False)
    }
    assert (features[False] < 0).any()
    np.testing.assert_array_equal(features[True], np.maximum(features[False], 0))
