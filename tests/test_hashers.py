"""Latents and the variational autoencoder as a hasher."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret import codes, hashers, models
from jaxret.hashers import latents

OPTIONS = types.SimpleNamespace(
    latent_dim=6,
    sign_gradient="clipped",
    bit_gradient="straight_through",
    num_distributions=3,
    num_classes=4,
    gumbel_hard=False,
    gumbel_codes="one_hot",
)
EVERY = sorted(hashers.LATENTS)
SHAPE = (4, 4, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE)).astype(np.uint8)


def make(name, **kwargs):
    latent = hashers.LATENTS[name](OPTIONS)
    vae = hashers.make_vae(
        models.dense_autoencoder(SHAPE, latent.head_size, (16, 8)), latent, SHAPE, **kwargs
    )
    hyper = {"learning_rate": 1e-2, "beta": 1.0, "temperature": 1.0}
    return latent, vae, vae.trainer.init(jax.random.key(0), hyper).params


@pytest.mark.parametrize("name", EVERY)
def test_every_latent_keeps_its_word_on_sizes(name):
    latent = hashers.LATENTS[name](OPTIONS)
    parameters = jax.random.normal(jax.random.key(1), (5, latent.head_size))
    drawn = latent.sample(jax.random.key(2), parameters, 0.7)
    assert drawn.shape == latent.mean(parameters).shape == (5, latent.code_size)
    assert latent.code(drawn).shape == (5, latent.code_size)
    assert latent.kl(parameters).shape == (5,)
    assert (latent.kl(parameters) >= 0).all()
    assert latent.distance in ("euclidean", "hamming")


@pytest.mark.parametrize("name", EVERY)
def test_a_gradient_reaches_the_parameters_through_every_latent(name):
    latent = hashers.LATENTS[name](OPTIONS)
    parameters = 0.1 * jax.random.normal(jax.random.key(1), (5, latent.head_size))
    weights = jax.random.normal(jax.random.key(3), (5, latent.code_size))
    gradient = jax.grad(lambda p: (weights * latent.sample(jax.random.key(2), p, 1.0)).sum())(
        parameters
    )
    assert np.abs(gradient).max() > 0


def test_no_gradient_reaches_the_parameters_through_the_plain_sign():
    latent = latents.sign(6, "zero")
    gradient = jax.grad(lambda p: latent.sample(jax.random.key(2), p, 1.0).sum())(jnp.ones((5, 12)))
    np.testing.assert_array_equal(gradient, np.zeros((5, 12)))


def test_a_gaussian_without_variance_is_its_mean():
    parameters = jnp.concatenate([jnp.arange(12.0).reshape(2, 6), jnp.full((2, 6), -200.0)], axis=1)
    latent = latents.gaussian(6)
    drawn = latent.sample(jax.random.key(0), parameters, 1.0)
    np.testing.assert_array_equal(drawn, latent.mean(parameters))


def test_gaussian_samples_have_their_mean_and_variance():
    parameters = jnp.tile(jnp.asarray([[0.5, -1.0, 0.2, -0.7]]), (100_000, 1))
    drawn = latents.gaussian(2).sample(jax.random.key(0), parameters, 1.0)
    np.testing.assert_allclose(drawn.mean(axis=0), [0.5, -1.0], atol=0.02)
    np.testing.assert_allclose(drawn.var(axis=0), np.exp([0.2, -0.7]), rtol=0.02)


def test_gumbel_codes_differ_by_two_bits_for_each_distribution_that_differs():
    latent = latents.gumbel(3, 4)
    picks = np.asarray([[0, 1, 2], [0, 1, 2], [0, 3, 2], [3, 2, 1]])
    logits = jnp.asarray(np.eye(4)[picks].reshape(4, 12), jnp.float32)
    packed = codes.pack(latent.code(latent.mean(logits)))
    distances = jax.lax.population_count(packed[:1] ^ packed).sum(axis=1)
    np.testing.assert_array_equal(distances, [0, 0, 2, 6])


def test_gumbel_codes_may_be_the_posterior_probabilities():
    latent = latents.gumbel(3, 4, codes="probabilities")
    logits = jax.random.normal(jax.random.key(1), (5, 12))
    codes_of = latent.code(latent.mean(logits))
    expected = jax.nn.softmax(logits.reshape(5, 3, 4)).reshape(5, 12)
    np.testing.assert_allclose(codes_of, expected, rtol=1e-6)
    assert latent.distance == "euclidean"


def test_gumbel_codes_may_be_the_logits_less_their_average():
    latent = latents.gumbel(3, 4, codes="log_ratios")
    logits = 5 * jax.random.normal(jax.random.key(1), (5, 12))
    groups = logits.reshape(5, 3, 4)
    expected = (groups - groups.mean(axis=2, keepdims=True)).reshape(5, 12)
    np.testing.assert_allclose(latent.code(latent.mean(logits)), expected, rtol=1e-3, atol=1e-4)
    assert latent.distance == "euclidean"
    certain = latent.code(latent.mean(1e4 * logits))  # probabilities of 0
    assert np.isfinite(certain).all()


@pytest.mark.parametrize("name", EVERY)
def test_a_sampled_code_does_not_depend_on_the_batch(name):
    _, vae, params = make(name)
    whole = vae.sample(params, jnp.asarray(IMAGES))
    part = vae.sample(params, jnp.asarray(IMAGES[7:12]))
    np.testing.assert_allclose(whole[7:12], part, atol=1e-5)


def test_different_images_are_sampled_with_different_noise():
    _, vae, params = make("gaussian")
    zeros = jax.tree.map(jnp.zeros_like, params)  # every posterior is N(0, 1)
    drawn = np.asarray(vae.sample(zeros, jnp.asarray(IMAGES)))
    assert len(np.unique(drawn[:, 0])) == len(IMAGES)
    assert abs(drawn.std() - 1) < 0.2


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_training_loss_is_the_negative_elbo_at_beta_one(likelihood):
    _, vae, params = make("gaussian", likelihood=likelihood)
    state = vae.trainer.init(
        jax.random.key(0), {"learning_rate": 0.0, "beta": 1.0, "temperature": 1.0}
    )
    _, terms = vae.trainer.step(
        state,
        {"learning_rate": 0.0, "beta": 1.0, "temperature": 1.0},
        jnp.asarray(IMAGES),
        jnp.zeros(40, jnp.int32),
    )
    np.testing.assert_allclose(terms["loss"], terms["nll"] + terms["kl"], rtol=1e-6)
    nll, kl = vae.negative_elbo(params, jax.random.key(9), jnp.asarray(IMAGES))
    np.testing.assert_allclose(terms["kl"], kl.mean(), rtol=1e-5)
    assert abs(float(terms["nll"]) - float(nll.mean())) < 0.1 * abs(float(nll.mean()))


def test_a_decoder_that_says_nothing_costs_log_two_a_pixel():
    _, vae, params = make("gaussian")
    zeros = jax.tree.map(jnp.zeros_like, params)
    nll, kl = vae.negative_elbo(zeros, jax.random.key(0), jnp.asarray(IMAGES))
    np.testing.assert_allclose(nll, np.full(40, 16 * np.log(2)), rtol=1e-5)
    np.testing.assert_allclose(kl, np.zeros(40), atol=1e-6)
    np.testing.assert_array_equal(
        vae.reconstruct(zeros, jnp.asarray(IMAGES[:2])), np.full((2, *SHAPE), 0.5)
    )


def test_quantised_codes_take_the_levels_of_the_table():
    _, vae, params = make("gaussian")
    encoded = hashers.quantised(vae.mean, 4)(params, jnp.asarray(IMAGES))
    assert set(np.unique(encoded)) <= {-3.0, -1.0, 1.0, 3.0}


@pytest.mark.parametrize("name", ["gaussian", "sign", "bernoulli", "gumbel"])
def test_a_trained_hasher_tells_two_kinds_of_image_apart(name):
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 100).astype(np.int32)
    stripes = np.where(
        labels[:, None, None, None] == (np.arange(4) // 2)[None, None, :, None], 1, 0
    )
    bright = rng.integers(120, 255, (200, 4, 4, 1))
    images = (stripes * bright).astype(np.uint8)
    hasher = hashers.HASHERS["vae"](
        hashers.LATENTS[name](OPTIONS), SHAPE, (16, 8), epochs=30, batch_size=20, learning_rate=1e-2
    )
    params, info = hasher.fit(jax.random.key(0), images)
    z = np.asarray(hasher.encode(params, jnp.asarray(images)))
    between = np.abs(z[labels == 0].mean(axis=0) - z[labels == 1].mean(axis=0)).max()
    assert between > 0.5
    assert info["nll"] < 16 * np.log(2)


def test_deep_hashing_tells_classes_apart_and_needs_them():
    rng = np.random.default_rng(2)
    labels = np.arange(96, dtype=np.int32) % 2
    bright = np.where(labels[:, None, None, None], rng.integers(150, 250, (96, 8, 8, 1)), 20)
    images = bright.astype(np.uint8)
    hasher = hashers.HASHERS["deep"](12, 2, (8, 8, 1), epochs=4, batch_size=32, learning_rate=0.05)
    with pytest.raises(ValueError, match="learns from labels"):
        hasher.fit(jax.random.key(0), images)
    params, info = hasher.fit(jax.random.key(0), images, labels)
    assert info["accuracy"] > 0.9
    bits = np.asarray(hasher.encode(params, jnp.asarray(images))) >= 0
    zero, one = (np.mean(bits[labels == label], axis=0) > 0.5 for label in (0, 1))
    assert (zero != one).any()
    assert hasher.distance == "hamming"


def test_with_a_view_the_encoder_sees_changed_images_and_the_decoder_rebuilds_them_unchanged():
    seen = []

    def view(key, x):
        del key
        seen.append(x)
        return jnp.zeros_like(x)

    latent, vae, params = make("gaussian", view=view)
    hyper = {"learning_rate": 1e-2, "beta": 1.0, "temperature": 1.0}
    state = vae.trainer.init(jax.random.key(0), hyper)
    _, terms = vae.trainer.step(state, hyper, jnp.asarray(IMAGES), jnp.zeros(40, int))
    np.testing.assert_array_equal(seen[0].shape, IMAGES.shape)
    blank = latent.kl(vae.parameters(params, jnp.zeros_like(jnp.asarray(IMAGES))))
    np.testing.assert_allclose(terms["kl"], blank.mean(), rtol=1e-5)
    nll, _ = vae.negative_elbo(params, jax.random.key(9), jnp.asarray(IMAGES))
    assert abs(float(terms["nll"]) - float(nll.mean())) < 0.1 * float(nll.mean())


def contrast_learnt(vae, images):
    """The contrast of the last of many steps on these images, in nats."""
    hyper = {"learning_rate": 3e-3, "beta": 0.01, "temperature": 0.5, "contrast": 100.0}
    images, labels = jnp.asarray(images), jnp.zeros(len(images), int)

    @jax.jit
    def run(state):
        def step(state, _):
            return vae.trainer.step(state, hyper, images, labels)

        return jax.lax.scan(step, state, length=400)

    _, terms = run(vae.trainer.init(jax.random.key(0), hyper))
    return np.mean(terms["contrast"][-20:])


SPARSE = (255 * (np.random.default_rng(1).random((40, *SHAPE)) < 0.15)).astype(np.uint8)


@pytest.mark.parametrize("name", EVERY)
def test_with_a_contrast_two_views_are_told_from_those_of_other_images(name):
    def view(key, x):
        return x + 0.05 * jax.random.normal(key, x.shape)

    # Codes that are all the same would have log 79: 80 views, 79 of them others.
    assert contrast_learnt(make(name, view=view)[1], SPARSE) < np.log(79) - 0.3


@pytest.mark.parametrize("name", ["gaussian", "bernoulli"])
def test_paired_images_are_told_from_those_of_other_pairs(name):
    vae, some = make(name, paired=True)[1], SPARSE[:20]
    of_pairs = contrast_learnt(vae, np.concatenate([some, some]))
    assert of_pairs < np.log(39) - 0.3
    # Images that have nothing in common can be told by memory only, and less well.
    assert contrast_learnt(vae, SPARSE) > of_pairs + 0.2


def test_a_contrast_without_a_view_is_refused():
    _, vae, _ = make("gaussian")
    hyper = {"learning_rate": 1e-2, "beta": 1.0, "temperature": 1.0, "contrast": 1.0}
    state = vae.trainer.init(jax.random.key(0), hyper)
    with pytest.raises(ValueError, match="a contrast needs a view or pairs"):
        vae.trainer.step(state, hyper, jnp.asarray(IMAGES), jnp.zeros(40, int))


@pytest.mark.parametrize("name", EVERY)
def test_parameters_of_zero_are_the_prior_of_every_latent(name):
    latent, vae, params = make(name)
    zeros = jnp.zeros((3, latent.head_size))
    np.testing.assert_allclose(latent.kl(zeros), np.zeros(3), atol=1e-6)
    images = np.asarray(vae.generate(params, jax.random.key(0), 5))
    assert images.shape == (5, *SHAPE)
    assert ((images > 0) & (images < 1)).all()
    assert np.abs(images[0] - images[1]).max() > 0


def test_principal_components_keep_most_of_the_variance_and_all_of_them_all_distances():
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (60, 3, 3, 1)).astype(np.uint8)
    x = images.reshape(60, -1) / 255
    hasher = hashers.HASHERS["pca"](4)
    params, info = hasher.fit(jax.random.key(0), images, None)
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    assert info["explained"] == pytest.approx(singular[:4].sum() / singular.sum(), rel=1e-4)
    z = np.asarray(hasher.encode(params, images))
    np.testing.assert_allclose((z**2).sum(), singular[:4].sum(), rtol=1e-4)

    whole = hashers.HASHERS["pca"](9)
    z = np.asarray(whole.encode(whole.fit(jax.random.key(0), images, None)[0], images))
    pixels = np.asarray(hashers.HASHERS["pixels"]().encode({}, images))
    np.testing.assert_allclose(pixels, x, atol=1e-6)
    between = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.testing.assert_allclose(
        np.linalg.norm(z[:, None] - z[None], axis=2), between, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("dim", [0, 10])
def test_more_components_than_pixels_are_refused(dim):
    images = np.zeros((5, 3, 3, 1), np.uint8)
    with pytest.raises(ValueError, match=f"number of pixels, 9, got {dim}"):
        hashers.HASHERS["pca"](dim).fit(jax.random.key(0), images, None)
