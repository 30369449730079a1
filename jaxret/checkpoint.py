"""Checkpoints: a run's state with its configuration, whole or not at all, verified on load.

Written through Orbax, which renames a finished checkpoint into place: a process killed while it
saves leaves the one before. A digest of every array is stored beside them and checked on restore.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

PyTree = Any


class CheckpointError(ValueError):
    """A folder of checkpoints that cannot be used, with the reason and the remedy."""


class Checkpoints:
    """A run's checkpoints in one folder, the newest two kept.

    config is any JSON-able dictionary. Opening a folder that holds checkpoints of another
    configuration raises CheckpointError with the names that differ.
    """

    def __init__(self, folder: str | Path, config: dict[str, Any]):
        import orbax.checkpoint as ocp  # takes a second to import

        self._ocp = ocp
        self._folder = Path(folder).resolve()
        self._config = json.loads(json.dumps(config))
        self._opened = None
        if self.latest_step() is not None:
            self._check_config()

    def _manager(self):
        """Orbax's manager of the folder, which this creates where it is missing."""
        if self._opened is None:
            options = self._ocp.CheckpointManagerOptions(
                max_to_keep=2, create=True, cleanup_tmp_directories=True
            )
            self._opened = self._ocp.CheckpointManager(self._folder, options=options)
        return self._opened

    def _check_config(self) -> None:
        step = self.latest_step()
        try:
            args = self._ocp.args.Composite(meta=self._ocp.args.JsonRestore())
            stored = self._manager().restore(step, args=args).meta["config"]
        except (ValueError, KeyError, OSError) as error:
            raise CheckpointError(self._damaged(step)) from error
        names = sorted(stored.keys() | self._config.keys())
        differing = [name for name in names if stored.get(name) != self._config.get(name)]
        if differing:
            details = ", ".join(
                f"{name} {stored.get(name)!r} there, {self._config.get(name)!r} here"
                for name in differing
            )
            raise CheckpointError(
                f"{self._folder} holds checkpoints of another configuration ({details}); choose "
                "another work folder or use the same flags"
            )

    def latest_step(self) -> int | None:
        """The step of the newest whole checkpoint, if there is one."""
        return self._manager().latest_step() if self._folder.exists() else None

    def save(self, step: int, state: PyTree) -> None:
        """Save in the background; what was saved before is in place by then.

        Raises CheckpointError where the one before, or this one, could not be written.
        """
        state = jax.tree.map(_to_numpy, state)
        meta = {"config": self._config, "digests": _digests(state)}
        args = self._ocp.args.Composite(
            state=self._ocp.args.StandardSave(_to_dictionary(state)),
            meta=self._ocp.args.JsonSave(meta),
        )
        self._finish(lambda: self._manager().save(step, args=args))

    def restore(self, like: PyTree) -> PyTree:
        """The newest checkpoint, in the shape of a state of the same run.

        Raises CheckpointError where its arrays are not those that were saved.
        """
        step = self._manager().latest_step()
        like_numpy = jax.tree.map(_to_numpy, like)
        try:
            restored = self._manager().restore(
                step,
                args=self._ocp.args.Composite(
                    state=self._ocp.args.StandardRestore(_to_dictionary(like_numpy)),
                    meta=self._ocp.args.JsonRestore(),
                ),
            )
            leaves = [restored.state[name] for name in _to_dictionary(like_numpy)]
            state = jax.tree.unflatten(jax.tree.structure(like_numpy), leaves)
            whole = _digests(state) == restored.meta["digests"]
        except (ValueError, KeyError, OSError) as error:
            raise CheckpointError(self._damaged(step)) from error
        if not whole:
            raise CheckpointError(self._damaged(step))
        return jax.tree.map(_like, like, state)

    def _damaged(self, step: int) -> str:
        return (
            f"checkpoint {self._folder / str(step)} is damaged; delete that folder to go on from "
            "the one before it"
        )

    def close(self) -> None:
        """Wait for what is still being written; raises as save does."""
        if self._opened is not None:
            manager, self._opened = self._opened, None
            self._finish(manager.wait_until_finished)
            manager.close()

    def _finish(self, write: Callable[[], object]) -> None:
        """Write; where that fails, leave no half of a checkpoint and say why in one line."""
        try:
            write()
        except (ValueError, OSError) as error:
            for part in self._folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(part, ignore_errors=True)
            full = "No space left on device"
            reason = full if full in str(error) else str(error).splitlines()[0]
            raise CheckpointError(
                f"cannot save to {self._folder}: {reason}; what was saved before is whole, and the "
                "run can be resumed from it"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(leaf):
    # A copy: the arrays may be donated or changed while the save goes on in the background.
    return np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(leaf, value):
    return jax.random.wrap_key_data(value) if _is_key(leaf) else jax.numpy.asarray(value)


def _to_dictionary(state: PyTree) -> dict[str, np.ndarray]:
    return {keystr(path): leaf for path, leaf in tree_leaves_with_path(state)}


def _digests(state: PyTree) -> dict[str, str]:
    return {
        name: hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()
        for name, leaf in _to_dictionary(state).items()
    }
