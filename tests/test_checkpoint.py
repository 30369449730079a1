"""Checkpoints: whole, verified, and of one configuration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret import train
from jaxret.checkpoint import CheckpointError, Checkpoints


def state(value=1.0):
    return train.TrainState(
        jnp.asarray(7, jnp.int32),
        {"w": jnp.full((3, 2), value)},
        {},
        (jnp.arange(4.0), ()),
        jax.random.key(5),
    )


def test_what_is_restored_equals_what_was_saved(tmp_path):
    with Checkpoints(tmp_path / "c", {"lr": 0.1, "hidden": (5, 3)}) as checkpoints:
        checkpoints.save(7, state(2.0))
    with Checkpoints(tmp_path / "c", {"lr": 0.1, "hidden": (5, 3)}) as checkpoints:
        assert checkpoints.latest_step() == 7
        restored = checkpoints.restore(state(0.0))
    np.testing.assert_array_equal(restored.params["w"], np.full((3, 2), 2.0))
    np.testing.assert_array_equal(restored.opt_state[0], np.arange(4.0))
    assert restored.key == state().key
    assert int(restored.step) == 7


def test_the_newest_two_are_kept(tmp_path):
    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state())
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["2", "3"]


def test_another_configuration_is_refused_and_the_differences_named(tmp_path):
    with Checkpoints(tmp_path / "c", {"lr": 0.1, "seed": 0}) as checkpoints:
        checkpoints.save(1, state())
    with pytest.raises(CheckpointError, match=r"\(lr 0\.1 there, 0\.2 here\); choose another"):
        Checkpoints(tmp_path / "c", {"lr": 0.2, "seed": 0})


def test_an_empty_folder_holds_nothing_and_looking_does_not_create_it(tmp_path):
    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        assert checkpoints.latest_step() is None
    assert not (tmp_path / "c").exists()


def test_an_altered_array_is_noticed(tmp_path):
    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        checkpoints.save(1, state())
    largest = max((tmp_path / "c").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    damaged = pytest.raises(CheckpointError, match="1 is damaged; delete that folder")
    with damaged, Checkpoints(tmp_path / "c", {}) as checkpoints:
        checkpoints.restore(state(0.0))


def test_a_torn_checkpoint_is_noticed(tmp_path):
    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        checkpoints.save(1, state())
    for path in (tmp_path / "c").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:3])
    damaged = pytest.raises(CheckpointError, match="damaged")
    with damaged, Checkpoints(tmp_path / "c", {}) as checkpoints:
        checkpoints.restore(state(0.0))
