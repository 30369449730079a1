"""Plain autoencoders, and models with batch statistics and dropout in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret import augment, hashers, losses, models, train

SHAPE = (6, 7, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
LABELS = np.zeros(40, int)
HYPER = {"learning_rate": 0.01, "beta": 1.0, "temperature": 1.0}
FROZEN = HYPER | {"learning_rate": 0.0}


def noisy_model(head_size):
    """A network with all that is different in training."""
    return models.conv_autoencoder(SHAPE, head_size, (3, 2), (), batch_norm=True, dropout=0.3)


def make(model=None, **options):
    model = model or models.dense_autoencoder(SHAPE, 5, (12,))
    return hashers.make_autoencoder(model, SHAPE, **options)


@pytest.mark.parametrize(("loss", "optimizer"), [("bce", "adam"), ("mse", "adadelta")])
def test_training_lowers_the_loss_that_it_is_told_to(loss, optimizer):
    made = make(loss=loss, optimizer=hashers.OPTIMIZERS[optimizer])
    first, last = [], []
    hyper = HYPER | {"learning_rate": {"adam": 0.01, "adadelta": 1.0}[optimizer]}
    train.fit(
        made.trainer,
        made.trainer.init(jax.random.key(0), hyper),
        hyper,
        IMAGES,
        LABELS,
        epochs=40,
        batch_size=20,
        on_epoch=lambda _, info: (last if first else first).append(info.terms),
    )
    assert first[0].keys() == {loss}
    assert last[-1][loss] < 0.98 * first[0][loss]


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_the_loss_is_the_error_of_the_reconstruction(loss):
    made = make(loss=loss)
    state = made.trainer.init(jax.random.key(0), HYPER)
    images = jnp.asarray(IMAGES)
    _, terms = jax.jit(made.trainer.step)(state, HYPER, images, jnp.asarray(LABELS))
    errors = hashers.pixel_errors(images, made.reconstruct(state.params, images))
    assert terms[loss] == pytest.approx(float(errors[loss].mean()), rel=1e-5)


def test_pixel_errors_are_their_definitions():
    images = jnp.asarray([[[[0], [255]], [[51], [102]]]], jnp.uint8)
    rebuilt = jnp.asarray([[[[0.0], [0.5]], [[0.2], [0.8]]]])
    errors = hashers.pixel_errors(images, rebuilt)
    assert errors["mse"][0] == pytest.approx((0.25 + 0.16) / 4)
    mixed = 0.4 * np.log(0.8) + 0.6 * np.log(0.2) + 0.2 * np.log(0.2) + 0.8 * np.log(0.8)
    assert errors["bce"][0] == pytest.approx((np.log(2) - mixed) / 4, rel=1e-5)


def test_pixel_errors_are_finite_where_a_sure_pixel_is_wrong():
    black, white = jnp.zeros((1, 2, 2, 1), jnp.uint8), jnp.ones((1, 2, 2, 1))
    assert hashers.pixel_errors(black, white)["bce"][0] == pytest.approx(-np.log(1e-7), rel=0.02)


def test_views_of_an_autoencoder_fit_together():
    made = make()
    params, images = made.trainer.init(jax.random.key(0), HYPER).params, jnp.asarray(IMAGES)
    code = made.encode(params, images)
    assert code.shape == (40, 5)
    assert made.code_size == 5
    rebuilt = made.reconstruct(params, images)
    np.testing.assert_allclose(made.decode(params, code), rebuilt, rtol=1e-5)
    assert ((rebuilt >= 0) & (rebuilt <= 1)).all()


def test_a_vae_without_variance_and_divergence_has_the_autoencoders_loss():
    model = models.dense_autoencoder(SHAPE, 10, (12,))
    latent = hashers.LATENTS["gaussian"](type("Options", (), {"latent_dim": 5}))
    mean_only = latent._replace(sample=lambda key, parameters, temperature: parameters[:, :5])
    vae = hashers.make_vae(model, mean_only, SHAPE, "squared")
    params = vae.trainer.init(jax.random.key(0), HYPER).params
    images = jnp.asarray(IMAGES)
    squared, _ = vae.negative_elbo(params, jax.random.key(1), images)
    head = jax.tree.map(lambda leaf: leaf[..., :5], params["head"])
    plain = make(models.dense_autoencoder(SHAPE, 5, (12,)), loss="mse")
    errors = hashers.pixel_errors(images, plain.reconstruct(params | {"head": head}, images))
    np.testing.assert_allclose(squared, 42 * errors["mse"], rtol=1e-4)


def test_squared_likelihood_is_a_gaussian_of_variance_one_half():
    nll_of, link = hashers.vae.LIKELIHOODS["squared"]
    pixels = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    x = hashers.scale(jnp.asarray(IMAGES[:3]))
    gaussian = losses.gaussian_nll(link(pixels), x, float(np.log(0.5)))
    constant = 42 * 0.5 * np.log(np.pi)
    np.testing.assert_allclose(nll_of(pixels, x), gaussian - constant, rtol=1e-4)


@pytest.fixture(scope="module")
def noisy():
    """An autoencoder with batch statistics and dropout, before and after a step, and its step."""
    made = make(noisy_model(5))
    images = jnp.asarray(IMAGES)
    step = jax.jit(lambda state: made.trainer.step(state, FROZEN, images, LABELS))
    first = jax.jit(made.trainer.init)(jax.random.key(0), FROZEN)
    return made, first, *step(first), step


def test_batch_statistics_move_in_training_and_stay_in_use(noisy):
    made, first, after, _, _ = noisy
    assert after.model_state.keys() == {"batch_stats"}
    moved = jax.tree.map(
        lambda one, other: not np.array_equal(one, other), after.model_state, first.model_state
    )
    assert all(jax.tree.leaves(moved))
    params, encode = hashers.weights(after), jax.jit(made.encode)
    code = encode(params, IMAGES)
    np.testing.assert_allclose(encode(params, IMAGES[:7]), code[:7], rtol=1e-4, atol=1e-5)
    before = encode(hashers.weights(first), IMAGES)
    assert np.abs(code - before).max() > 1e-3  # the rate was 0: only the statistics changed


def test_dropout_draws_anew_at_each_step_and_the_same_at_the_same(noisy):
    _, first, after, terms, step = noisy
    assert step(after)[1]["bce"] != terms["bce"]
    assert step(first)[1]["bce"] == terms["bce"]


def test_a_vae_with_batch_statistics_and_dropout_trains():
    latent = hashers.LATENTS["gaussian"](type("Options", (), {"latent_dim": 5}))
    made = hashers.make_vae(noisy_model(10), latent, SHAPE)
    first = jax.jit(made.trainer.init)(jax.random.key(0), HYPER)
    images = jnp.asarray(IMAGES)
    state, terms = jax.jit(made.trainer.step)(first, HYPER, images, LABELS)
    params = hashers.weights(state)
    assert np.isfinite(terms["loss"])
    views = jax.jit(lambda p, x: (made.mean(p, x), made.reconstruct(p, x)))
    code, rebuilt = views(params, images)
    assert code.shape == (40, 5)
    assert rebuilt.shape == images.shape
    assert np.isfinite(jax.jit(made.negative_elbo)(params, jax.random.key(0), images)).all()


def test_weights_without_batch_statistics_are_the_parameters():
    state = make().trainer.init(jax.random.key(0), HYPER)
    assert hashers.weights(state) is state.params


def test_an_autoencoder_can_learn_from_views():
    def flipped(key, x):
        del key
        return x[:, ::-1]

    made = make(view=flipped)
    plain = make()
    state = plain.trainer.init(jax.random.key(0), HYPER)
    images, labels = jnp.asarray(IMAGES), jnp.asarray(LABELS)
    seen = made.trainer.step(state, HYPER, images, labels)[1]["bce"]
    rebuilt = made.reconstruct(state.params, images[:, ::-1])
    expected = hashers.pixel_errors(images, rebuilt)["bce"].mean()
    assert seen == pytest.approx(float(expected), rel=1e-5)
    make(view=augment.affine)  # a view of the library has the same face


def test_a_loss_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="loss must be one of bce, mse, got 'x'"):
        make(loss="x")


def test_a_code_that_does_not_fit_is_refused_before_training():
    with pytest.raises(ValueError, match="exactly its first map, 2 x 2 x 3 = 12 numbers, got 5"):
        make(models.conv_autoencoder(SHAPE, 5, (4, 3)))
    assert make(models.conv_autoencoder(SHAPE, None, (4, 3))).code_size == 12
