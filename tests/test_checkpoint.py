"""Checkpoints: whole, verified, and of one configuration."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret import train
from jaxret.checkpoint import CheckpointError, Checkpoints


def state(value=1.0, shape=(3, 2), key=None, **params):
    return train.TrainState(
        jnp.asarray(7, jnp.int32),
        {"w": jnp.full(shape, value), **params},
        {},
        (jnp.arange(4.0), ()),
        jax.random.key(5) if key is None else key,
    )


def saved(folder, config=None, step=1, **options):
    with Checkpoints(folder, config or {}) as checkpoints:
        checkpoints.save(step, state(**options))


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
    saved(tmp_path / "c", {"lr": 0.1, "seed": 0, "old": 1})
    with pytest.raises(
        CheckpointError, match=r"\(lr 0\.1 there, 0\.2 here; .*choose another"
    ) as error:
        Checkpoints(tmp_path / "c", {"lr": 0.2, "seed": 0})
    assert "old 1 there, absent here" in str(error.value)


def test_a_newer_flag_does_not_block_a_resume_while_it_has_its_default(tmp_path):
    saved(tmp_path / "c", {"lr": 0.1})
    with Checkpoints(tmp_path / "c", {"lr": 0.1, "sizes": (1, 2)}, defaults={"sizes": (1, 2)}) as c:
        assert c.latest_step() == 1
    with pytest.raises(CheckpointError, match=r"sizes \[1, 2\] there, \[3\] here"):
        Checkpoints(tmp_path / "c", {"lr": 0.1, "sizes": (3,)}, defaults={"sizes": (1, 2)})
    with pytest.raises(CheckpointError, match="sizes absent there, 0 here"):
        Checkpoints(tmp_path / "c", {"lr": 0.1, "sizes": 0})


def test_other_training_images_are_named_in_a_sentence(tmp_path):
    saved(tmp_path / "c", {"lr": 0.1, "data": "abc"})
    with pytest.raises(CheckpointError, match=r"training images are not those .*abc.* there, 'd'"):
        Checkpoints(tmp_path / "c", {"lr": 0.1, "data": "d"})


def test_without_a_configuration_any_checkpoint_is_read_and_none_is_written(tmp_path):
    saved(tmp_path / "c", {"lr": 0.1}, value=3.0)
    with Checkpoints(tmp_path / "c", None) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore(state()).params["w"], np.full((3, 2), 3))
        with pytest.raises(ValueError, match="read-only"):
            checkpoints.save(2, state())


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_come_back_with_the_implementation_they_were_saved_with(tmp_path, impl):
    keys = jax.random.split(jax.random.key(3, impl=impl), 2)
    saved(tmp_path / "c", key=keys)
    default = jax.random.split(jax.random.key(0), 2)
    for like in (jax.random.split(jax.random.key(0, impl=impl), 2), default):
        with Checkpoints(tmp_path / "c", {}) as checkpoints:
            restored = checkpoints.restore(state(0.0, key=like)).key
        assert restored.dtype == keys.dtype
        np.testing.assert_array_equal(jax.random.key_data(restored), jax.random.key_data(keys))
        jax.random.uniform(restored[0])


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (
            {"shape": (2, 3)},
            r"\.params\['w'\] is float32\[3, 2\] in the checkpoint, float32\[2, 3\] in",
        ),
        ({"shape": (3,)}, r"\.params\['w'\] is float32\[3, 2\] in the checkpoint, float32\[3\] in"),
        ({"value": 1}, r"float32\[3, 2\] in the checkpoint, int32\[3, 2\] in the model"),
        ({"bias": jnp.ones(2)}, r"\.params\['bias'\] is only in the model"),
        ({"key": jnp.ones(2, jnp.uint32)}, r"\.key is keys\[\] in the checkpoint, uint32\[2\] in"),
    ],
)
def test_the_checkpoint_of_another_model_is_not_called_damaged(tmp_path, other, difference):
    saved(tmp_path / "c")
    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        with pytest.raises(CheckpointError, match=difference) as error:
            checkpoints.restore(state(**other))
        assert "damaged" not in str(error.value)
        assert "delete" not in str(error.value)
        checkpoints.restore(state())  # and it is still there


def test_an_array_that_the_model_lacks_is_named_and_a_long_list_is_cut(tmp_path):
    saved(tmp_path / "c", **{f"b{i}": jnp.ones(2) for i in range(9)})
    long = pytest.raises(CheckpointError, match="only in the checkpoint; and 5 more differences")
    with Checkpoints(tmp_path / "c", {}) as checkpoints, long:
        checkpoints.restore(state())


def test_a_folder_without_checkpoints_cannot_be_restored(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        Checkpoints(tmp_path / "c", {}).restore(state())


def test_a_save_that_fails_names_the_folder_and_the_reason(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "d")

    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        checkpoints.save(1, state())
        checkpoints._manager().wait_until_finished()
        monkeypatch.setattr(checkpoints._manager(), "save", full)
        with pytest.raises(CheckpointError, match=r"cannot save to .*/c: No space left on device;"):
            checkpoints.save(2, state())
        checkpoints.restore(state())


def test_an_empty_folder_holds_nothing_and_looking_does_not_create_it(tmp_path):
    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        assert checkpoints.latest_step() is None
    assert not (tmp_path / "c").exists()


def test_an_altered_array_is_noticed(tmp_path):
    saved(tmp_path / "c")
    largest = max((tmp_path / "c").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    damaged = pytest.raises(CheckpointError, match="1 is damaged, and there is no other one")
    with damaged, Checkpoints(tmp_path / "c", {}) as checkpoints:
        checkpoints.restore(state(0.0))


def test_a_torn_checkpoint_is_noticed_and_the_one_before_it_serves(tmp_path):
    saved(tmp_path / "c", value=5.0)
    saved(tmp_path / "c", step=2)
    for path in (tmp_path / "c/2").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:3])
    damaged = pytest.raises(CheckpointError, match="2 is damaged; delete it to continue from")
    with damaged, Checkpoints(tmp_path / "c", {}) as checkpoints:
        checkpoints.restore(state(0.0))
    shutil.rmtree(tmp_path / "c/2")
    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore(state()).params["w"], np.full((3, 2), 5))
