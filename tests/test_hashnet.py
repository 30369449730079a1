"""Deep residual hashing: the network against its definition, and what its training promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret import hashers, models
from jaxret.hashers import hashnet
from jaxret.models.hashnet import Block

# Trainable numbers of DRHN-n with 48 bits and 10 classes, from table 4.1 of Jimenez 2017.
PARAMETERS = {1: 450_986, 5: 2_613_418, 9: 4_775_850, 10: 5_316_458, 15: 8_019_498, 16: 8_560_106}
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(4, 8, 8, 3)), jnp.float32)


def shapes_of(model, image_shape=(32, 32, 3)):
    """The variables of a network, without making them."""
    x = jnp.zeros((1, *image_shape))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), x, jax.nn.sigmoid))


@pytest.mark.parametrize("depth", PARAMETERS)
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
        of, seen = params[f"BatchNorm_{i}"], statistics[f"BatchNorm_{i}"]
        return (y - seen["mean"]) / np.sqrt(seen["var"] + 1e-4) * of["scale"] + of["bias"]

    def relu(y):
        return np.maximum(y, 0)

    y = conv(X, params["Conv_0"]["kernel"], 2)
    y = relu(norm(0, y)) if order == "natural" else norm(0, relu(y))
    y = norm(1, conv(y, params["Conv_1"]["kernel"]))
    shortcut = np.zeros((4, 4, 4, 5))
    shortcut[..., 1:4] = X[:, ::2, ::2]  # from 3 to 5 channels: one on each side
    expected = relu(y + shortcut) if order == "natural" else y + shortcut
    np.testing.assert_allclose(block.apply(variables, X, False), expected, rtol=1e-4, atol=1e-4)


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

    def of(schedule):
        return [float(schedule(jnp.asarray(share))) for share in done]

    np.testing.assert_allclose(of(hashnet.drops(0.25, 0.6)), [1, 1, 0.1, 0.1, 0.01, 0.01], 1e-5)
    np.testing.assert_allclose(
        of(hashnet.one_cycle(0.25)), [0, 0.4, 1, 2 / 3, 0.5, 0], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        of(hashnet.cosine(0.25)), [0, 0.4, 1, 0.75, 0.5, 0], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(of(hashnet.one_cycle(0.0)), 1 - done, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("nesterov", [False, True])
def test_descent_is_lasagnes_momentum_with_decay_of_weights_and_factors(nesterov):
    params = {"kernel": jnp.asarray([1.0, -2.0]), "scale": jnp.ones(1), "bias": jnp.ones(1)}
    gradient = {"kernel": jnp.asarray([0.5, 0.0]), "scale": jnp.zeros(1), "bias": jnp.ones(1)}
    descent = hashnet.descent(hashnet.drops(0.5), nesterov)
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
MEAN = hashers.mean_image(np.asarray(IMAGES))
HYPER = dict.fromkeys(hashnet.TERMS, 0.5) | {
    "learning_rate": 0.05, "weight_decay": 1e-4, "label_smoothing": 0.1, "ema": 0.6
}  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    """A network that minimises every term, and its states before and after each of three steps."""
    made = hashers.make_hashnet(
        models.HashNet(1, 12, 3), MEAN, terms=tuple(hashnet.TERMS), average=True
    )
    hyper = {name: jnp.asarray(value) for name, value in HYPER.items()} | {
        "steps": jnp.asarray(3.0)
    }
    states, step = [made.trainer.init(jax.random.key(0), HYPER)], jax.jit(made.trainer.step)
    for _ in range(3):
        state, terms = step(states[-1], hyper, IMAGES, LABELS)
        states.append(state)
    return made, states, terms


def test_the_loss_is_the_weighted_sum_of_its_terms(trained):
    _, _, terms = trained
    assert terms.keys() == {"loss", "accuracy", *hashnet.TERMS}
    parts = sum(0.5 * float(terms[name]) for name in hashnet.TERMS)
    np.testing.assert_allclose(terms["loss"], parts, rtol=1e-5)


def test_the_averaged_weights_are_the_mean_of_those_that_steps_began_with(trained):
    _, states, _ = trained
    average = states[0].params
    for step in range(3):
        keep = min(HYPER["ema"], (1 + step) / (10 + step))
        average = jax.tree.map(
            lambda a, b, keep=keep: keep * a + (1 - keep) * b, average, states[step].params
        )
    kept = states[-1].model_state["average"]
    chex.assert_trees_all_close(kept["params"], average, rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(kept["batch_stats"]) == jax.tree.structure(
        states[-1].model_state["batch_stats"]
    )


def test_codes_are_those_of_the_averaged_network_on_images_less_their_mean(trained):
    made, states, _ = trained
    params = hashers.weights(states[-1])
    x = IMAGES / 255 - MEAN[None]
    model, averaged = models.HashNet(1, 12, 3), params["average"]
    z, logits = model.apply(averaged, x, jax.nn.sigmoid)
    np.testing.assert_allclose(made.encode(params, IMAGES), z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made.classify(params, IMAGES), logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(params["mean"], IMAGES.mean(axis=0) / 255, rtol=1e-5)
    # An image's code is its own, whatever stands beside it.
    np.testing.assert_allclose(made.encode(params, IMAGES[:5]), z[:5], rtol=1e-4, atol=1e-5)


def test_all_that_a_network_needs_is_in_its_state(trained):
    _, states, _ = trained
    assert states[-1].model_state.keys() == {"batch_stats", "average", "mean"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": ("hope",)}, "terms must be among classification, .*, got 'hope'"),
        ({"relaxation": "none"}, "relaxation must be one of sigmoid, sign, got 'none'"),
    ],
)
def test_names_that_are_not_known_are_answered_with_those_that_are(options, message):
    with pytest.raises(ValueError, match=message):
        hashers.make_hashnet(models.HashNet(1, 12, 3), MEAN, **options)
