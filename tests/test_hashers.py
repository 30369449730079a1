"""Latents and the variational autoencoder as a hasher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow, soak

import jaxret
from jaxret import codes, hashers, models, train
from jaxret.hashers import latents, recipes, vae

OPTIONS = {
    "gaussian": {"latent_dim": 6},
    "clipped": {"latent_dim": 6},
    "sign": {"latent_dim": 6},
    "bernoulli": {"latent_dim": 6},
    "gumbel": {"num_distributions": 3, "num_classes": 4},
}
EVERY = sorted(OPTIONS)
SHAPE = (4, 4, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE)).astype(np.uint8)
KEY = jax.random.key(0)


def latent_of(name):
    return hashers.LATENTS[name](**OPTIONS[name])


def make(name, **settings):
    """A small hasher and first parameters."""
    sizes = {"num_distributions": 3, "num_classes": 4, "hidden": (16, 8)}
    hasher = hashers.vae_hasher(6, SHAPE, latent=name, **sizes | settings)
    return hasher, train.start(hasher.training, KEY, IMAGES).params


def make_with(augmentation, settings=None):
    """A hasher with an augmentation of one's own."""
    latent, settings = latents.gaussian(6), settings or vae.VaeSettings()
    model = models.dense_autoencoder(SHAPE, latent.head_size, (16, 8))
    return vae.variational(model, latent, SHAPE, settings, augmentation=augmentation)


def step(hasher, state, images=IMAGES):
    hyper = hasher.training.hyper | {"steps": 1.0}
    return hasher.training.trainer.step(state, hyper, jnp.asarray(images), jnp.zeros(len(images)))


def test_every_latent_has_an_entry_here():
    assert hashers.LATENTS.keys() == OPTIONS.keys()


@pytest.mark.parametrize("name", EVERY)
def test_every_latent_keeps_its_word_on_sizes(name):
    latent = latent_of(name)
    parameters = jax.random.normal(jax.random.key(1), (5, latent.head_size))
    relaxed = latent.sample(jax.random.key(2), parameters, 0.7)
    drawn = latent.draw(jax.random.key(2), parameters)
    assert relaxed.shape == drawn.shape == latent.mean(parameters).shape == (5, latent.code_size)
    assert latent.code(drawn).shape == (5, latent.code_size)
    np.testing.assert_allclose(latent.uncode(latent.code(drawn)), drawn, atol=1e-6)
    assert latent.kl(parameters).shape == (5,)
    assert (latent.kl(parameters) >= 0).all()
    assert latent.distance in ("euclidean", "hamming")


@pytest.mark.parametrize("name", EVERY)
def test_a_gradient_reaches_the_parameters_through_every_latent(name):
    latent = latent_of(name)
    parameters = 0.1 * jax.random.normal(jax.random.key(1), (5, latent.head_size))
    weights = jax.random.normal(jax.random.key(3), (5, latent.code_size))
    gradient = jax.grad(lambda p: (weights * latent.sample(jax.random.key(2), p, 1.0)).sum())(
        parameters
    )
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("bit_gradient", ["straight_through", "concrete"])
def test_true_samples_of_bits_are_bits_with_their_probabilities(bit_gradient):
    logits = jnp.tile(jnp.asarray([[-2.0, 0.0, 1.0]]), (20_000, 1))
    drawn = latents.bernoulli(3, bit_gradient).draw(KEY, logits)
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    np.testing.assert_allclose((drawn.mean(axis=0) + 1) / 2, jax.nn.sigmoid(logits[0]), atol=0.02)


def test_true_samples_of_categories_are_one_hot_with_their_probabilities():
    logits = jnp.tile(jnp.asarray([[-1.0, 0.0, 1.0, 0.5]]), (20_000, 1))
    drawn = latents.gumbel(1, 4, codes="probabilities").draw(KEY, logits)
    np.testing.assert_array_equal(np.sort(drawn, axis=1)[:, -2:], np.tile([[0, 1]], (20_000, 1)))
    np.testing.assert_allclose(drawn.mean(axis=0), jax.nn.softmax(logits[0]), atol=0.02)


def test_no_gradient_reaches_the_parameters_through_the_sign_of_the_thesis():
    latent = latents.sign(6, "zero")
    gradient = jax.grad(lambda p: latent.sample(jax.random.key(2), p, 1.0).sum())(jnp.ones((5, 12)))
    np.testing.assert_array_equal(gradient, np.zeros((5, 12)))


def test_a_gaussian_without_variance_is_its_mean():
    parameters = jnp.concatenate([jnp.arange(12.0).reshape(2, 6), jnp.full((2, 6), -200.0)], axis=1)
    latent = latents.gaussian(6)
    np.testing.assert_array_equal(latent.draw(KEY, parameters), latent.mean(parameters))


def test_gaussian_samples_have_their_mean_and_variance():
    parameters = jnp.tile(jnp.asarray([[0.5, -1.0, 0.2, -0.7]]), (100_000, 1))
    drawn = latents.gaussian(2).draw(KEY, parameters)
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


@pytest.mark.parametrize("name", slow("gaussian") + soak("bernoulli", "gumbel"))
def test_a_sampled_code_and_a_bound_do_not_depend_on_the_batch(name):
    hasher, params = make(name, features="sample")
    whole = hasher.encode(params, jnp.asarray(IMAGES))
    part = hasher.encode(params, jnp.asarray(IMAGES[7:12]))
    np.testing.assert_allclose(whole[7:12], part, atol=1e-5)
    whole, part = (
        hasher.measure(params, jax.random.key(3), jnp.asarray(images), None)["negative_elbo_nats"]
        for images in (IMAGES, IMAGES[7:12])
    )
    np.testing.assert_allclose(whole[7:12], part, rtol=1e-5)


@pytest.mark.slow
def test_different_images_are_sampled_with_different_noise():
    hasher, params = make("gaussian", features="sample")
    zeros = jax.tree.map(jnp.zeros_like, params)  # every posterior is N(0, 1)
    drawn = np.asarray(hasher.encode(zeros, jnp.asarray(IMAGES)))
    assert len(np.unique(drawn[:, 0])) == len(IMAGES)
    assert abs(drawn.std() - 1) < 0.2


def test_images_that_differ_in_one_pixel_have_keys_of_their_own():
    # 8 x 8 places times 255 values beside the black image: a sum of 32 bits would have to be lucky.
    images = np.zeros((64 * 255 + 1, 64), np.uint8)
    place, value = np.divmod(np.arange(64 * 255), 255)
    images[np.arange(64 * 255), place] = value + 1
    keys = jax.random.key_data(vae.image_keys(KEY, jnp.asarray(images.reshape(-1, 8, 8, 1))))
    assert len(np.unique(np.asarray(keys), axis=0)) == len(images)


@pytest.mark.parametrize("likelihood", slow("gaussian") + soak("bernoulli"))
def test_the_training_loss_is_the_negative_elbo_at_beta_one(likelihood):
    hasher, params = make("gaussian", likelihood=likelihood)
    _, terms = step(hasher, train.start(hasher.training, KEY, IMAGES))
    np.testing.assert_allclose(terms["loss"], terms["nll"] + terms["kl"], rtol=1e-6)
    bound = hasher.measure(params, jax.random.key(9), jnp.asarray(IMAGES), None)
    np.testing.assert_allclose(terms["kl"], bound["kl_nats"].mean(), rtol=1e-5)
    nll = float(bound["nll_nats"].mean())
    assert abs(float(terms["nll"]) - nll) < 0.1 * abs(nll)
    np.testing.assert_allclose(bound["negative_elbo_nats"], bound["nll_nats"] + bound["kl_nats"])


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, *soak(0.2, 5.0)])
def test_the_bound_of_bits_is_of_true_bits_whatever_the_temperature_of_training(temperature):
    settings = {"bit_gradient": "concrete", "temperature": temperature}
    hasher, params = make("bernoulli", **settings)
    plain, _ = make("bernoulli")
    bounds = [
        h.measure(params, jax.random.key(9), jnp.asarray(IMAGES), None)["negative_elbo_nats"]
        for h in (hasher, plain)
    ]
    np.testing.assert_array_equal(*bounds)
    generated = [h.generate(params, jax.random.key(1), 5) for h in (hasher, plain)]
    np.testing.assert_array_equal(*generated)


@pytest.mark.soak
def test_the_bound_of_bits_is_above_the_exact_negative_log_likelihood():
    """With 6 bits all 64 codes can be summed over: -log p(x) <= nll + kl on average."""
    hasher, params = make("bernoulli", bit_gradient="concrete", temperature=0.2)
    images = jnp.asarray(IMAGES)
    every = codes.unpack(jnp.arange(64, dtype=jnp.uint32)[:, None], 6)
    probabilities = hasher.decode(params, every).reshape(64, 1, -1)
    x = images.reshape(1, 40, -1) / 255
    each = (x * jnp.log(probabilities) + (1 - x) * jnp.log1p(-probabilities)).sum(axis=2)
    exact = -jax.scipy.special.logsumexp(each - jnp.log(64.0), axis=0)
    keys = jax.random.split(KEY, 200)
    bound = jnp.mean(jnp.stack(
        [hasher.measure(params, key, images, None)["negative_elbo_nats"] for key in keys]
    ), axis=0)  # fmt: skip
    assert (bound >= exact - 0.05).all()


def test_a_decoder_that_says_nothing_costs_log_two_a_pixel():
    hasher, params = make("gaussian")
    zeros = jax.tree.map(jnp.zeros_like, params)
    measured = hasher.measure(zeros, KEY, jnp.asarray(IMAGES), None)
    np.testing.assert_allclose(measured["nll_nats"], np.full(40, 16 * np.log(2)), rtol=1e-5)
    np.testing.assert_allclose(measured["kl_nats"], np.zeros(40), atol=1e-6)
    codes_of = hasher.encode(zeros, jnp.asarray(IMAGES[:2]))
    np.testing.assert_array_equal(hasher.decode(zeros, codes_of), np.full((2, *SHAPE), 0.5))


def test_quantised_codes_take_the_levels_of_the_table():
    hasher, params = make("gaussian", quantise_levels=4)
    assert set(np.unique(hasher.encode(params, jnp.asarray(IMAGES)))) <= {-3.0, -1.0, 1.0, 3.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", *soak("sign", "bernoulli", "gumbel")])
def test_a_trained_hasher_tells_two_kinds_of_image_apart(name):
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 100).astype(np.int32)
    stripes = np.where(
        labels[:, None, None, None] == (np.arange(4) // 2)[None, None, :, None], 1, 0
    )
    bright = rng.integers(120, 255, (200, 4, 4, 1))
    images = (stripes * bright).astype(np.uint8)
    hasher, _ = make(name, epochs=30, batch_size=20, learning_rate=1e-2)
    params, info = hasher.fit(KEY, images)
    z = np.asarray(hasher.encode(params, jnp.asarray(images)))
    between = np.abs(z[labels == 0].mean(axis=0) - z[labels == 1].mean(axis=0)).max()
    assert between > 0.5
    assert info["nll"] < 16 * np.log(2)


@pytest.mark.slow
def test_with_augmentation_the_encoder_sees_changed_images_and_the_decoder_rebuilds_them_as_is():
    seen = []

    def blank(key, x):
        del key
        seen.append(x)
        return jnp.zeros_like(x)

    hasher = make_with(blank)
    state = train.start(hasher.training, KEY, IMAGES)
    _, terms = step(hasher, state)
    np.testing.assert_array_equal(seen[0].shape, IMAGES.shape)
    measured = hasher.measure(state.params, KEY, jnp.zeros_like(jnp.asarray(IMAGES)), None)
    np.testing.assert_allclose(terms["kl"], measured["kl_nats"].mean(), rtol=1e-5)
    unchanged = hasher.measure(state.params, KEY, jnp.asarray(IMAGES), None)
    nll = float(unchanged["nll_nats"].mean())
    assert abs(float(terms["nll"]) - nll) < 0.1 * nll


SPARSE = (255 * (np.random.default_rng(1).random((40, *SHAPE)) < 0.15)).astype(np.uint8)
CONTRASTIVE = {
    "learning_rate": 3e-3, "beta": 0.01, "temperature": 0.5, "contrastive_weight": 100.0,
    "epochs": 400, "batch_size": 40,
}  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("name", EVERY)
def test_contrastive_training_tells_two_copies_of_an_image_from_other_images(name):
    hasher, _ = make(name, shift=0.2, **CONTRASTIVE)
    _, info = hasher.fit(KEY, SPARSE)
    # Codes that are all the same would have log 79: 80 copies, 79 of them of other images.
    assert info["ntxent"] < np.log(79) - 0.3


@pytest.mark.soak
def test_contrastive_training_brings_an_image_and_its_positive_together():
    hasher, _ = make("gaussian", **CONTRASTIVE)
    positives = np.roll(np.arange(40), 20)[:, None]
    params, info = hasher.fit(KEY, SPARSE, positives=positives)
    assert info["ntxent"] < np.log(79) - 0.3
    z = np.asarray(hasher.encode(params, jnp.asarray(SPARSE)))
    distances = np.linalg.norm(z[:, None] - z[None], axis=2)
    pairs = distances[np.arange(40), positives[:, 0]].mean()
    assert pairs < 0.8 * distances[~np.eye(40, dtype=bool)].mean()


@pytest.mark.soak
def test_contrastive_training_tells_pairs_of_bits_from_other_pairs():
    hasher, _ = make("bernoulli", **CONTRASTIVE)
    pairs, positives = np.concatenate([SPARSE[:20]] * 2), np.roll(np.arange(40), 20)[:, None]
    _, info = hasher.fit(KEY, pairs, positives=positives)
    assert info["ntxent"] < np.log(79) - 0.3


def test_contrastive_training_without_augmentation_or_positives_is_refused():
    hasher, _ = make("gaussian", contrastive_weight=1.0)
    with pytest.raises(ValueError, match="needs augmentation or positives"):
        hasher.fit(KEY, IMAGES)


@pytest.mark.parametrize("name", EVERY)
def test_parameters_of_zero_are_the_prior_of_every_latent(name):
    hasher, params = make(name)
    latent = latent_of(name)
    np.testing.assert_allclose(latent.kl(jnp.zeros((3, latent.head_size))), np.zeros(3), atol=1e-6)
    images = np.asarray(hasher.generate(params, KEY, 5))
    assert images.shape == (5, *SHAPE)
    assert ((images > 0) & (images < 1)).all()
    assert np.abs(images[0] - images[1]).max() > 0


@pytest.mark.soak
def test_hashers_fitted_in_one_program_are_those_fitted_alone():
    pair = [make("gaussian", beta=b, epochs=3, batch_size=20, beta_end=e)[0]
            for b, e in ((1.0, 0.0), (0.1, 0.01))]  # fmt: skip
    keys = [jax.random.key(i) for i in range(2)]
    for hasher, key, (params, info) in zip(
        pair, keys, hashers.fit_all(pair, keys, IMAGES), strict=True
    ):
        alone, told = hasher.fit(key, IMAGES)
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        assert info["nll"] == pytest.approx(told["nll"], rel=1e-4)


REFUSED = {
    "name": ({"beat": 1.0}, "beat is no setting of this hasher; did you mean beta?"),
    "latent": ({"latent": "gausian"}, "latent must be one of gaussian, .*, got 'gausian'"),
    "likelihood": ({"likelihood": "x"}, "likelihood must be one of bernoulli, gaussian, got 'x'"),
    "sign gradient": ({"sign_gradient": "x"}, "sign_gradient must be one of clipped, "),
    "bit gradient": ({"bit_gradient": "x"}, "bit_gradient must be one of straight_through, "),
    "codes": ({"latent": "gumbel", "gumbel_codes": "x"}, "codes must be one of one_hot, "),
    "features": ({"features": "x"}, "features must be one of mean, sample, got 'x'"),
    "distance": ({"distance": "x"}, "distance must be one of mahalanobis, "),
    "levels": ({"quantise_levels": 5}, "quantise_levels must be one of 0, 2, 4, 8, 16, 32, got 5"),
    "beta": ({"beta": float("nan")}, "beta must be at least 0, got nan"),
    "temperature": ({"temperature": 0}, "temperature must be above 0, got 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_make_no_sense_are_refused_with_the_rule(case):
    settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make(settings.pop("latent", "gaussian"), **settings)


def test_every_recipe_makes_a_hasher():
    for recipe in (
        recipes.vae_reals(10), recipes.vae_bits(32), recipes.vae_categories(10, 5),
        recipes.vae_categories(10, 30), recipes.vae_reals_with_positives(10),
        recipes.vae_bits_with_positives(32), recipes.DRHN_OURS, recipes.DRHN_PUBLISHED,
    ):  # fmt: skip
        sizes = {"vae": {}, "deep": {"bits": 8, "num_classes": 3}}[recipe.hasher]
        make_hasher = hashers.HASHERS[recipe.hasher]
        hasher = make_hasher(image_shape=(8, 8, 1), **sizes, **recipe.settings)
        settings = hasher.spec["settings"]
        assert {name: settings[name] for name in recipe.settings} == recipe.settings


@pytest.mark.slow
def test_positives_are_found_among_fewer_images_than_components():
    images = np.concatenate([IMAGES[:6]] * 2)  # each has one copy
    np.testing.assert_array_equal(jaxret.knn_positives(images, 1)[:, 0], (np.arange(12) + 6) % 12)
    with pytest.raises(ValueError, match=r"count must be a whole number, got 1\.5"):
        jaxret.positives.knn_positives.__wrapped__(images, 1.5)


@pytest.mark.parametrize(
    ("make_hasher", "message"),
    [
        (lambda: hashers.deep_hasher(8, 0, (8, 8, 1)), "num_classes must be at least 1, got 0"),
        (lambda: hashers.itq_hasher(0), "bits must be at least 1, got 0"),
    ],
)
def test_sizes_of_nothing_are_refused(make_hasher, message):
    with pytest.raises(ValueError, match=message):
        make_hasher()
