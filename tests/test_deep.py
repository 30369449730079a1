"""Deep residual hashing: the network against its definition, and what its training promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from marks import soak

from jaxret import hashers, models, train
from jaxret.hashers import deep
from jaxret.models import hashnet
from jaxret.models.hashnet import Block

# Trainable numbers of DRHN-n with 48 bits and 10 classes, from table 4.1 of Jimenez 2017.
PARAMETERS = {1: 450_986, 5: 2_613_418, 9: 4_775_850, 10: 5_316_458, 15: 8_019_498, 16: 8_560_106}
VARIABLES = "params", "batch_stats"
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(4, 8, 8, 3)), jnp.float32)


def shapes_of(model, image_shape=(32, 32, 3)):
    """The variables of a network, without making them."""
    x = jnp.zeros((1, *image_shape))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), x, jax.nn.sigmoid))


@pytest.mark.parametrize("depth", [1, 5, *soak(9, 10, 15, 16)])
def test_a_network_has_as_many_parameters_as_the_thesis_table_gives(depth):
    params = shapes_of(models.HashNet(depth, 48, 10))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[depth]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((0, 48, 10), "depth must lie between 1 and 16, got 0"),
        ((17, 48, 10), "depth must lie between 1 and 16, got 17"),
        ((1, 0, 10), "bits must be at least 1, got 0"),
        ((1, 48, 10, "odd"), "bn_order must be one of natural, paper, got 'odd'"),
    ],
)
def test_a_network_that_does_not_exist_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(models.HashNet(*options))


def block_of(order, features, stride):
    """A block with statistics and factors that are not 0 and 1, and its variables."""
    block = Block(bn_order=order, features=features, stride=stride)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), X, False))
    return block, jax.tree.map(
        lambda leaf: RNG.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes
    )


def conv(x, kernel, stride=1):
    """A convolution as the sum over its nine taps."""
    x = np.pad(np.asarray(x, float), ((0, 0), (1, 1), (1, 1), (0, 0)))
    side = x.shape[1] - 2
    return sum(
        x[:, i : i + side : stride, j : j + side : stride] @ np.asarray(kernel[i, j], float)
        for i in range(3)
        for j in range(3)
    )


@pytest.mark.parametrize("order", ["natural", "paper"])
def test_a_block_is_its_formula(order):
    block, variables = block_of(order, 5, 2)
    params, statistics = variables["params"], variables["batch_stats"]

    def norm(i, y):
        factors, running = params[f"BatchNorm_{i}"], statistics[f"BatchNorm_{i}"]
        y = (y - running["mean"]) / np.sqrt(running["var"] + 1e-4)
        return y * factors["scale"] + factors["bias"]

    def relu(y):
        return np.maximum(y, 0)

    y = conv(X, params["Conv_0"]["kernel"], 2)
    y = relu(norm(0, y)) if order == "natural" else norm(0, relu(y))
    y = norm(1, conv(y, params["Conv_1"]["kernel"]))
    shortcut = np.zeros((4, 4, 4, 5))
    shortcut[..., 1:4] = X[:, ::2, ::2]  # from 3 to 5 channels: one on each side
    expected = relu(y + shortcut) if order == "natural" else y + shortcut
    np.testing.assert_allclose(block.apply(variables, X, False), expected, rtol=1e-4, atol=1e-4)


class Chain(nn.Module):
    """Three blocks that are alike."""

    @nn.compact
    def __call__(self, x, train):
        blocks = [Block(features=3) for _ in range(3)]
        return hashnet._one_after_the_other(self, blocks, x, train)


@pytest.mark.slow
def test_blocks_in_a_loop_compute_what_they_do_one_by_one(monkeypatch):
    """As on a GPU: outputs, gradients and the statistics of each block."""
    chain = Chain()
    variables = jax.tree.map(
        lambda leaf: RNG.uniform(0.5, 1.5, leaf.shape).astype(np.float32),
        jax.eval_shape(lambda: chain.init(jax.random.key(0), X, False)),
    )

    def loss(params, statistics):
        own = {"params": params, "batch_stats": statistics}
        y, told = chain.apply(own, X, True, mutable=["batch_stats"])
        return jnp.mean(y**2), told

    results = []
    for loop in (False, True):
        monkeypatch.setattr(hashnet, "in_a_loop", lambda loop=loop: loop)
        train = jax.jit(jax.value_and_grad(loss, has_aux=True))(*map(variables.get, VARIABLES))
        results.append((train, jax.jit(lambda v: chain.apply(v, X, False))(variables)))
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)


def test_maps_halve_where_the_table_has_a_star():
    model = models.HashNet(2, 12, 10)
    maps = jax.eval_shape(
        lambda v: model.apply(v, jnp.zeros((1, 32, 32, 3)), method="maps"), shapes_of(model)
    )
    assert [leaf.shape[1:] for leaf in maps] == [
        (32, 32, 16), (32, 32, 16), (16, 16, 32), (8, 8, 64), (8, 8, 64), (8, 8, 64), (4, 4, 128)
    ]  # fmt: skip


def test_half_precision_computes_only():
    model = models.HashNet(1, 12, 10, dtype=jnp.bfloat16)
    variables = shapes_of(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    z, logits = jax.eval_shape(
        lambda v: model.apply(v, jnp.zeros((1, 32, 32, 3)), jax.nn.sigmoid), variables
    )
    assert z.dtype == logits.dtype == jnp.float32
    maps = jax.eval_shape(
        lambda v: model.apply(v, jnp.zeros((1, 32, 32, 3)), method="maps"), variables
    )
    assert {leaf.dtype for leaf in maps} == {jnp.dtype("bfloat16")}


def test_schedules_are_these():
    done = np.asarray([0, 0.1, 0.25, 0.5, 0.625, 1], np.float32)

    def values(schedule):
        return [float(schedule(jnp.asarray(share))) for share in done]

    np.testing.assert_allclose(values(deep.drops(0.25, 0.6)), [1, 1, 0.1, 0.1, 0.01, 0.01], 1e-5)
    np.testing.assert_allclose(
        values(deep.one_cycle(0.25)), [0, 0.4, 1, 2 / 3, 0.5, 0], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        values(deep.cosine(0.25)), [0, 0.4, 1, 0.75, 0.5, 0], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(values(deep.one_cycle(0.0)), 1 - done, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("nesterov", [False, True])
def test_descent_is_lasagnes_momentum_with_decay_of_weights_and_factors(nesterov):
    params = {"kernel": jnp.asarray([1.0, -2.0]), "scale": jnp.ones(1), "bias": jnp.ones(1)}
    gradient = {"kernel": jnp.asarray([0.5, 0.0]), "scale": jnp.zeros(1), "bias": jnp.ones(1)}
    descent = deep.descent(deep.drops(0.5), nesterov)
    hyper = {"learning_rate": 0.1, "weight_decay": 0.01, "steps": 2.0}
    state, velocity = descent(hyper | {"step": 0.0}).init(params), dict.fromkeys(params, 0.0)
    ours, theirs = params, params
    for step, rate in enumerate((0.1, 0.01)):
        optimizer = descent(hyper | {"step": float(step)})
        updates, state = optimizer.update(gradient, state, ours)
        ours = jax.tree.map(lambda x, y: x + y, ours, updates)
        for name, x in theirs.items():
            slope = rate * (gradient[name] + (0.0 if name == "bias" else 0.01) * x)
            velocity[name] = 0.9 * velocity[name] - slope
            theirs = theirs | {name: x + (0.9 * velocity[name] - slope if nesterov
                                          else velocity[name])}  # fmt: skip
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6)


IMAGES = jnp.asarray(RNG.integers(0, 256, (24, 8, 8, 3)), jnp.uint8)
LABELS = (np.arange(24) % 3).astype(np.int32)
WEIGHTS = dict.fromkeys(deep.TERMS, 0.5)


@pytest.fixture(scope="module")
def trained():
    """A network that minimises every term, and its states before and after each of three steps."""
    hasher = hashers.deep_hasher(
        12, 3, (8, 8, 3), relaxation="sigmoid", ema=0.6, learning_rate=0.05, weight_decay=1e-4,
        schedule="constant", nesterov=False, mirror=False, crop=0.0, **WEIGHTS,
    )  # fmt: skip
    training = hasher.training
    hyper = {name: jnp.asarray(v) for name, v in training.hyper.items()} | {"steps": jnp.float32(3)}
    states, step = (
        [train.start(training, jax.random.key(0), IMAGES)],
        jax.jit(training.trainer.step),
    )
    for _ in range(3):
        state, terms = step(states[-1], hyper, IMAGES, LABELS)
        states.append(state)
    return hasher, states, terms


@pytest.mark.soak
def test_the_loss_is_the_weighted_sum_of_its_terms(trained):
    _, _, terms = trained
    assert terms.keys() == {"loss", "accuracy", *deep.TERMS}
    parts = sum(0.5 * float(terms[name]) for name in deep.TERMS)
    np.testing.assert_allclose(terms["loss"], parts, rtol=1e-5)


@pytest.mark.soak
def test_the_averaged_weights_are_the_mean_of_those_that_steps_began_with(trained):
    _, states, _ = trained
    average = states[0].params
    for step in range(3):
        keep = min(0.6, (1 + step) / (10 + step))
        average = jax.tree.map(
            lambda a, b, keep=keep: keep * a + (1 - keep) * b, average, states[step].params
        )
    kept = states[-1].model_state["average"]
    chex.assert_trees_all_close(kept["params"], average, rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(kept["batch_stats"]) == jax.tree.structure(
        states[-1].model_state["batch_stats"]
    )


@pytest.mark.soak
def test_codes_are_those_of_the_averaged_network_on_images_less_their_mean(trained):
    hasher, states, _ = trained
    params = hashers.weights(states[-1])
    x = IMAGES / 255 - (IMAGES.mean(axis=0) / 255)[None]
    z, logits = models.HashNet(1, 12, 3).apply(params["average"], x, jax.nn.sigmoid)
    np.testing.assert_allclose(hasher.encode(params, IMAGES), z, rtol=1e-4, atol=1e-5)
    classify = hashers.functions_of(hasher).classify
    np.testing.assert_allclose(classify(params, IMAGES), logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(params["mean"], IMAGES.mean(axis=0) / 255, rtol=1e-5)
    measured = hasher.measure(params, jax.random.key(0), IMAGES, jnp.asarray(LABELS))
    np.testing.assert_array_equal(measured["accuracy"], np.argmax(logits, axis=1) == LABELS)


@pytest.mark.soak
def test_all_that_a_network_needs_is_in_its_state(trained):
    _, states, _ = trained
    assert states[-1].model_state.keys() == {"batch_stats", "average", "mean"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classification": 0.0, "cubic": 0.0}, "one of classification, .* must be above 0"),
        ({"relaxation": "none"}, "relaxation must be one of sigmoid, sign, got 'none'"),
        (
            {"learning_rat": 0.1},
            "learning_rat is no setting of this hasher; did you mean learning_",
        ),
        ({"warmup": 1.0}, "warmup must lie from 0 to below 1, got 1.0"),
        ({"depth": 17}, "depth must lie between 1 and 16, got 17"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_rule(settings, message):
    with pytest.raises(ValueError, match=message):
        hashers.deep_hasher(12, 3, (8, 8, 3), **settings)


BAD_LABELS = {
    "none": (None, "deep hashing learns from labels, got none"),
    "too few": (LABELS[:-1], r"one whole number per image, i32\[24\], got int32\[23\]"),
    "too many": (np.zeros(25, int), r"i32\[24\], got int64\[25\]"),
    "one-hot": (np.eye(3)[LABELS], r"got float64\[24, 3\]"),
    "floats": (LABELS / 1.0, r"got float64\[24\]"),
    "no label": (LABELS - 1, "labels must lie from 0 to 2 for 3 classes, got -1 to 1"),
    "out of range": (LABELS + 1, "got 1 to 3"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_that_fit_no_classifier_are_refused_before_training(case):
    labels, message = BAD_LABELS[case]
    hasher = hashers.deep_hasher(12, 3, (8, 8, 3), epochs=1, batch_size=8)
    with pytest.raises(ValueError, match=message):
        hasher.fit(jax.random.key(0), IMAGES, labels)


def test_by_default_deep_hashing_is_our_recipe():
    settings = hashers.deep_hasher(12, 3, (8, 8, 3)).spec["settings"]
    chosen = hashers.recipes.DRHN_OURS.settings
    assert {name: settings[name] for name in chosen} == chosen
