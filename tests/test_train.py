"""Training: what a step, an epoch and a sweep promise."""

import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from marks import soak

from jaxret import train

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 3, 3, 1)).astype(np.uint8)
LABELS = (np.arange(50) % 5).astype(np.int32)
HYPER = {"learning_rate": 0.05}


def init(key):
    return {"w": 0.1 * jax.random.normal(key, (9, 5)), "b": jnp.zeros(5)}, {"seen": jnp.zeros(())}


def loss(params, model_state, key, images, labels, hyper):
    del hyper
    x = images.reshape(len(images), -1) / 255.0
    x = x + 0.01 * jax.random.normal(key, x.shape)
    logits = x @ params["w"] + params["b"][None]
    value = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return value, ({"seen": model_state["seen"] + len(images)}, {"loss": value})


TRAINER = train.make_trainer(init, loss, lambda hyper: optax.adam(hyper["learning_rate"]))


def fit(state=None, *, epochs=4, seed=0, batch_size=10, positives=None, **kwargs):
    state = TRAINER.init(jax.random.key(seed), HYPER) if state is None else state
    return train.fit(
        TRAINER,
        state,
        HYPER,
        IMAGES,
        LABELS,
        epochs=epochs,
        batches=train.Batches(batch_size, positives),
        **kwargs,
    )


def assert_same(a, b):
    chex.assert_trees_all_equal(
        a._replace(key=jax.random.key_data(a.key)), b._replace(key=jax.random.key_data(b.key))
    )


def test_training_lowers_the_loss_and_counts_steps():
    losses = []
    state = fit(epochs=30, on_epoch=lambda _, info: losses.append(info.terms["loss"]))
    assert losses[-1] < 0.8 * losses[0]
    assert int(state.step) == 30 * 5
    assert float(state.model_state["seen"]) == 30 * 50


def test_a_run_stopped_between_epochs_ends_in_the_same_state_bit_for_bit():
    assert_same(fit(fit(epochs=2), epochs=4), fit(epochs=4))


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    assert_same(fit(), fit())
    assert not np.array_equal(fit().params["w"], fit(seed=1).params["w"])


def test_states_that_somebody_holds_are_not_written_over():
    first = TRAINER.init(jax.random.key(0), HYPER)
    held = []
    fit(first, epochs=3, scan=False, on_epoch=lambda state, info: held.append(state))
    assert_same(first, TRAINER.init(jax.random.key(0), HYPER))
    for epochs, state in enumerate(held, 1):
        assert_same(state, fit(epochs=epochs, scan=False))


def test_an_epoch_by_scan_equals_an_epoch_by_loop():
    by_scan, by_loop = fit(scan=True), fit(scan=False)
    chex.assert_trees_all_close(by_scan.params, by_loop.params, rtol=1e-4, atol=1e-6)
    assert int(by_scan.step) == int(by_loop.step)


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own():
    seen = []

    def spy(state, hyper, images, labels):
        del hyper
        return state._replace(step=state.step + 1), {"rows": labels}

    rows = np.arange(50, dtype=np.int32)
    epoch = jax.jit(train.make_epoch(spy, 50, 10))
    state = TRAINER.init(jax.random.key(0), HYPER)
    for _ in range(2):
        state, terms = epoch(state, HYPER, jnp.asarray(IMAGES), jnp.asarray(rows))
        seen.append(np.asarray(terms["rows"]).ravel())
    for order in seen:
        np.testing.assert_array_equal(np.sort(order), rows)
    assert not np.array_equal(*seen)


@pytest.mark.parametrize("scan", [True, False])
def test_after_the_anchors_comes_a_positive_of_each(scan):
    def spy(state, hyper, images, labels):
        del hyper, images
        return state._replace(step=state.step + 1), {"rows": labels}

    rows = np.arange(50, dtype=np.int32)
    positives = (rows[:, None] + np.array([10, 20, 30])[None]) % 50
    make = train.make_epoch if scan else train.make_epoch_loop
    epoch, state = make(spy, 50, 10), TRAINER.init(jax.random.key(0), HYPER)
    _, terms = epoch(state, HYPER, *map(jnp.asarray, (IMAGES, rows, positives)))
    batches = np.asarray(terms["rows"])
    assert batches.shape == (5, 20)
    np.testing.assert_array_equal(np.sort(batches[:, :10].ravel()), rows)
    ahead = (batches[:, 10:] - batches[:, :10]) % 50
    assert {10, 20, 30} == set(ahead.ravel())


def test_every_image_needs_positives():
    with pytest.raises(ValueError, match=r"a row for each of 50 images, got \(49, 2\)"):
        fit(positives=np.zeros((49, 2), np.int32))


def test_what_does_not_fill_a_batch_is_left_out():
    state = fit(epochs=1, batch_size=20)
    assert int(state.step) == 2


@pytest.mark.slow
@pytest.mark.parametrize("positives", [None, *soak(np.roll(np.arange(50), 5)[:, None])])
def test_a_sweep_equals_the_same_runs_one_by_one(positives):
    rates = jnp.asarray([0.01, 0.05, 0.2])
    keys = jax.random.split(jax.random.key(7), 3)
    states = train.sweep_init(TRAINER, keys, {"learning_rate": rates})
    settings = {"epochs": 3, "batches": train.Batches(10, positives)}
    states = train.fit(TRAINER, states, {"learning_rate": rates}, IMAGES, LABELS, **settings)
    for run in range(3):
        hyper = {"learning_rate": rates[run]}
        alone = TRAINER.init(keys[run], hyper)
        alone = train.fit(TRAINER, alone, hyper, IMAGES, LABELS, **settings)
        chex.assert_trees_all_close(train.unstack(states, run).params, alone.params, rtol=1e-3)


def test_an_epoch_compiles_once():
    traces = []

    def counted(state, hyper, images, labels):
        traces.append(1)
        return TRAINER.step(state, hyper, images, labels)

    train.fit(
        TRAINER._replace(step=counted),
        TRAINER.init(jax.random.key(0), HYPER),
        HYPER,
        IMAGES,
        LABELS,
        epochs=5,
        batches=train.Batches(10),
    )
    assert len(traces) == 1


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step():
    def burst(state, hyper, images, labels):
        state, terms = TRAINER.step(state, hyper, images, labels)
        return state, {"loss": jnp.where(state.step == 8, jnp.nan, terms["loss"])}

    with pytest.raises(train.TrainingError, match="loss became nan at step 8;"):
        train.fit(
            TRAINER._replace(step=burst),
            TRAINER.init(jax.random.key(0), HYPER),
            HYPER,
            IMAGES,
            LABELS,
            epochs=3,
            batches=train.Batches(10),
        )


@pytest.mark.parametrize("batch_size", [0, 51])
def test_a_batch_size_that_gives_no_step_is_refused(batch_size):
    with pytest.raises(ValueError, match="between 1 and the number of training images, 50, got"):
        fit(batch_size=batch_size)


def test_a_sweep_needs_one_value_per_run():
    keys = jax.random.split(jax.random.key(0), 3)
    with pytest.raises(ValueError, match="learning_rate needs one value for each of 3 runs"):
        train.sweep_init(TRAINER, keys, {"learning_rate": jnp.ones(2)})


def test_a_scalar_with_an_end_goes_there_by_the_same_factor_each_step():
    seen = []

    def spy(params, model_state, key, images, labels, hyper):
        value, (model_state, terms) = loss(params, model_state, key, images, labels, hyper)
        return value, (model_state, terms | {"rate": hyper["learning_rate"]})

    trainer = train.make_trainer(init, spy, lambda hyper: optax.sgd(hyper["learning_rate"]))
    hyper = {"learning_rate": 0.1, "learning_rate_end": 0.001}
    train.fit(
        trainer, trainer.init(jax.random.key(0), hyper), hyper, IMAGES, LABELS,
        epochs=4, batches=train.Batches(50),
        on_epoch=lambda _, info: seen.append(float(info.terms["rate"])),
    )  # fmt: skip
    np.testing.assert_allclose(seen, 0.1 * 0.01 ** (np.arange(4) / 4), rtol=1e-5)


def test_a_scalar_whose_end_is_its_start_stays():
    def trained(**end):
        hyper = HYPER | end
        state = TRAINER.init(jax.random.key(0), hyper)
        return train.fit(TRAINER, state, hyper, IMAGES, LABELS, epochs=2, batches=train.Batches(10))

    assert_same(trained(), trained(learning_rate_end=HYPER["learning_rate"]))


ON_EIGHT_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, optax
from jaxret import train

def init(key):
    return {"w": 0.1 * jax.random.normal(key, (9, 5))}, {"mean": jnp.zeros(9)}

def loss(params, model_state, key, images, labels, hyper):
    x = images.reshape(len(images), -1) / 255.0
    mean = x.mean(axis=0)  # a statistic of the whole batch
    logits = (x - mean) @ params["w"] + 0.01 * jax.random.normal(key, (len(x), 5))
    value = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return value, ({"mean": 0.9 * model_state["mean"] + 0.1 * mean}, {"loss": value})

rng = np.random.default_rng(0)
images, labels = rng.integers(0, 256, (64, 3, 3, 1)).astype(np.uint8), np.arange(64) % 5
trainer = train.make_trainer(init, loss, lambda hyper: optax.sgd(hyper["learning_rate"], 0.9))
hyper = {"learning_rate": 0.05}
mesh = jax.make_mesh((8,), ("images",), axis_types=(jax.sharding.AxisType.Auto,))
for scan in (True, False):
    one, eight = (
        train.fit(trainer, trainer.init(jax.random.key(0), hyper), hyper, images, labels,
                  epochs=3, batches=train.Batches(16), scan=scan, mesh=mesh)
        for mesh in (None, mesh)
    )
    assert len(eight.params["w"].sharding.device_set) == 8
    for a, b in zip(jax.tree.leaves((one.params, one.model_state)),
                    jax.tree.leaves((eight.params, eight.model_state)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
try:
    train.fit(trainer, one, hyper, images, labels, epochs=4, batches=train.Batches(12), mesh=mesh)
except ValueError as error:
    print(error)
"""


@pytest.mark.soak
def test_a_batch_split_over_eight_devices_trains_as_on_one():
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", ON_EIGHT_DEVICES],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "batch_size must be a multiple of 8 devices, got 12"


def test_an_optimizer_hears_which_step_of_how_many_it_is():
    heard = []

    def optimizer(hyper):
        share = hyper["step"] / hyper["steps"]
        return optax.sgd(hyper["learning_rate"] * share)

    def spy(params, model_state, key, images, labels, hyper):
        value, (model_state, terms) = loss(params, model_state, key, images, labels, hyper)
        return value, (model_state, terms | {"share": hyper["step"] / hyper["steps"]})

    trainer = train.make_trainer(init, spy, optimizer)
    train.fit(
        trainer, trainer.init(jax.random.key(0), HYPER), HYPER, IMAGES, LABELS,
        epochs=4, batches=train.Batches(50),
        on_epoch=lambda _, info: heard.append(float(info.terms["share"])),
    )  # fmt: skip
    np.testing.assert_allclose(heard, [0, 0.25, 0.5, 0.75])


def test_options_for_convolutions_are_those_that_this_compiler_takes():
    options = train.convolution_options()
    jax.jit(lambda: 0, compiler_options=options).lower().compile()
    assert options is None or jax.default_backend() == "cpu"


def test_first_parameters_are_those_drawn_op_by_op_but_for_the_last_bit():
    training = train.Training(TRAINER, HYPER, epochs=1, batch_size=10)
    plain = TRAINER.init(jax.random.key(3), HYPER)
    alone = train.start(training, jax.random.key(3), IMAGES)
    inside = jax.jit(lambda key: train.start(training, key, IMAGES))(jax.random.key(3))
    for first in (alone, inside):
        chex.assert_trees_all_close(first.params, plain.params, rtol=1e-6)


def test_a_state_is_settled_after_each_epoch_in_every_run():
    def settle(state, images):  # to what depends on the run, the epoch and the images
        seen = state.params["w"][0, 0] + state.step * jnp.sum(images, dtype=jnp.float32)
        return state._replace(model_state={"seen": seen})

    def last(key):
        told = []
        state, _ = train.run(
            training, key, IMAGES, LABELS, on_epoch=lambda state, info: told.append(state)
        )
        seen = [float(state.model_state["seen"]) for state in told]
        expected = [float(settle(state, jnp.asarray(IMAGES)).model_state["seen"]) for state in told]
        assert seen == expected
        assert int(told[1].step) == 2 * int(told[0].step)
        return state

    training = train.Training(TRAINER, HYPER, epochs=2, batch_size=10, settle=settle)
    keys = [jax.random.key(seed) for seed in range(2)]
    one, other = map(last, keys)
    assert one.params["w"][0, 0] != other.params["w"][0, 0]
    for alone, (together, _) in zip(
        (one, other), train.run_all([training] * 2, keys, IMAGES, LABELS), strict=True
    ):
        settled = settle(together, jnp.asarray(IMAGES)).model_state["seen"]
        assert float(together.model_state["seen"]) == float(settled)
        np.testing.assert_allclose(together.params["w"], alone.params["w"], rtol=1e-4, atol=1e-6)
