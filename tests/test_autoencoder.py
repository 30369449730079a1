"""Autoencoders: their losses, and models with batch statistics and dropout in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import soak

from jaxret import hashers, losses, models, train
from jaxret.hashers import autoencoder, latents, vae
from jaxret.hashers.pixels import pixel_errors, scale

SHAPE = (6, 7, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
LABELS = np.zeros(40, int)


def noisy_model(image_shape, head_size):
    """A network with all that is different in training."""
    return models.conv_autoencoder(image_shape, head_size, (3, 2), (), batch_norm=True, dropout=0.3)


def make(latent_dim=5, **settings):
    return hashers.autoencoder_hasher(latent_dim, SHAPE, **{"hidden": (12,)} | settings)


def first(hasher):
    return train.start(hasher.training, jax.random.key(0), IMAGES)


def step(hasher, state):
    """One step on all images, and its terms."""
    hyper = hasher.training.hyper | {"steps": 1.0}
    return jax.jit(hasher.training.trainer.step)(state, hyper, jnp.asarray(IMAGES), LABELS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "optimizer"),
    [pytest.param("bce", "adam", marks=pytest.mark.soak), ("mse", "adadelta")],
)
def test_training_lowers_the_loss_that_it_is_told_to(loss, optimizer):
    rate = {"adam": 0.01, "adadelta": 1.0}[optimizer]
    hasher = make(loss=loss, optimizer=optimizer, learning_rate=rate, epochs=40, batch_size=20)
    told = []
    _, info = hasher.fit(
        jax.random.key(0), IMAGES, on_epoch=lambda _, info: told.append(info.terms)
    )
    assert told[0].keys() == {loss}
    assert info[loss] < 0.98 * told[0][loss]
    assert (info["epochs"], info["steps"]) == (40, 80)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_the_loss_is_the_error_of_the_reconstruction(loss):
    hasher = make(loss=loss)
    state, images = first(hasher), jnp.asarray(IMAGES)
    _, terms = step(hasher, state)
    errors = hasher.measure(state.params, None, images, None)
    assert terms[loss] == pytest.approx(float(errors[loss].mean()), rel=1e-5)
    rebuilt = hasher.decode(state.params, hasher.encode(state.params, images))
    np.testing.assert_allclose(pixel_errors(images, rebuilt)[loss], errors[loss], rtol=1e-4)
    assert ((rebuilt >= 0) & (rebuilt <= 1)).all()


def test_pixel_errors_are_their_definitions():
    images = jnp.asarray([[[[0], [255]], [[51], [102]]]], jnp.uint8)
    rebuilt = jnp.asarray([[[[0.0], [0.5]], [[0.2], [0.8]]]])
    errors = pixel_errors(images, rebuilt)
    assert errors["mse"][0] == pytest.approx((0.25 + 0.16) / 4)
    mixed = 0.4 * np.log(0.8) + 0.6 * np.log(0.2) + 0.2 * np.log(0.2) + 0.8 * np.log(0.8)
    assert errors["bce"][0] == pytest.approx((np.log(2) - mixed) / 4, rel=1e-5)


def test_pixel_errors_are_finite_where_a_sure_pixel_is_wrong():
    black, white = jnp.zeros((1, 2, 2, 1), jnp.uint8), jnp.ones((1, 2, 2, 1))
    assert pixel_errors(black, white)["bce"][0] == pytest.approx(-np.log(1e-7), rel=0.02)


@pytest.mark.slow
def test_a_vae_without_variance_and_divergence_has_the_autoencoders_loss():
    model = models.dense_autoencoder(SHAPE, 10, (12,))
    mean_only = latents.gaussian(5)._replace(draw=lambda key, parameters: parameters[:, :5])
    settings = vae.VaeSettings()
    hasher = vae.variational(model, mean_only, SHAPE, settings, likelihood="squared")
    params, images = first(hasher).params, jnp.asarray(IMAGES)
    squared = hasher.measure(params, jax.random.key(1), images, None)["nll_nats"]
    head = jax.tree.map(lambda leaf: leaf[..., :5], params["head"])
    errors = make(loss="mse").measure(params | {"head": head}, None, images, None)
    np.testing.assert_allclose(squared, 42 * errors["mse"], rtol=1e-4)


def test_squared_likelihood_is_a_gaussian_of_variance_one_half():
    negative_log_likelihood, link = vae.LIKELIHOODS["squared"]
    pixels = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    x = scale(jnp.asarray(IMAGES[:3]))
    gaussian = losses.gaussian_nll(link(pixels), x, float(np.log(0.5)))
    constant = 42 * 0.5 * np.log(np.pi)
    np.testing.assert_allclose(negative_log_likelihood(pixels, x), gaussian - constant, rtol=1e-4)


@pytest.fixture(scope="module", params=soak(False, True))
def noisy(request):
    """A hasher with batch statistics and dropout, its first state, and a step with a rate of 0."""
    hasher = make(own_model=noisy_model, variational=request.param, learning_rate=1e-30)
    state = first(hasher)
    return hasher, state, *step(hasher, state)


def test_batch_statistics_move_in_training_and_stay_in_use(noisy):
    hasher, state, after, _ = noisy
    assert after.model_state.keys() == {"batch_stats"}
    moved = jax.tree.map(
        lambda one, other: not np.array_equal(one, other), after.model_state, state.model_state
    )
    assert all(jax.tree.leaves(moved))
    params = hashers.weights(after)
    code = hasher.encode(params, IMAGES)
    np.testing.assert_allclose(hasher.encode(params, IMAGES[:7]), code[:7], rtol=1e-4, atol=1e-5)
    before = hasher.encode(hashers.weights(state), IMAGES)
    assert np.abs(code - before).max() > 1e-3  # the rate was 0: only the statistics changed
    assert np.isfinite(hasher.measure(params, jax.random.key(0), IMAGES, None)["mse"]).all()


def test_dropout_is_drawn_anew_at_each_step_and_the_same_at_the_same(noisy):
    hasher, state, after, terms = noisy
    name = "nll" if "nll" in terms else "bce"
    assert step(hasher, after)[1][name] != terms[name]
    assert step(hasher, state)[1][name] == terms[name]


def test_weights_without_batch_statistics_are_the_parameters():
    state = first(make())
    assert hashers.weights(state) is state.params


def test_with_augmentation_an_autoencoder_rebuilds_the_images_as_they_were():
    def flipped(key, x):
        del key
        return x[:, ::-1]

    model, settings = models.dense_autoencoder(SHAPE, 5, (12,)), autoencoder.AutoencoderSettings()
    hasher = autoencoder.plain(model, SHAPE, settings, augmentation=flipped)
    state, images = first(hasher), jnp.asarray(IMAGES)
    rebuilt = hasher.decode(state.params, hasher.encode(state.params, images[:, ::-1]))
    expected = pixel_errors(images, rebuilt)["bce"].mean()
    assert step(hasher, state)[1]["bce"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("latent_dim", "settings", "message"),
    [
        (5, {"loss": "x"}, "loss must be one of bce, mse, got 'x'"),
        (5, {"model": "x"}, "model must be one of dense, .*, got 'x'"),
        (5, {"dropout": 1.0}, "dropout must lie from 0 to below 1, got 1.0"),
        (0, {"variational": True}, "at least 1 for a variational autoencoder, got 0"),
        (
            5,
            {"model": "conv_up", "channels": (4, 3), "hidden": ()},
            "first map, 2 x 2 x 3 = 12 numbers, got 5",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_training(latent_dim, settings, message):
    with pytest.raises(ValueError, match=message):
        make(latent_dim, **settings)


def test_a_convolutional_hasher_is_a_part_of_the_callers_program():
    hasher = make(0, model="conv_up", channels=(2,), hidden=())
    params = hashers.weights(first(hasher))
    z = jax.jit(hasher.encode)(params, IMAGES[:2])
    np.testing.assert_allclose(z, hasher.encode(params, IMAGES[:2]), rtol=1e-5)
    slope = jax.grad(lambda z: jnp.sum(hasher.decode(params, z)))(z)
    assert slope.shape == z.shape
    assert jnp.any(slope != 0)


@pytest.mark.soak
def test_without_a_head_the_code_is_the_encoders_map():
    hasher = make(0, model="conv_up", channels=(4, 3), hidden=())
    assert hasher.encode(hashers.weights(first(hasher)), IMAGES[:2]).shape == (2, 12)
