"""Checkpoints: a run's state with its configuration, written whole or not at all, verified on load.

Orbax renames a finished checkpoint into place, so a process that is killed while it saves leaves
the one before. A digest of every array lies beside the arrays and is checked on restore.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

PyTree = Any
ABSENT = "absent"  # what an error message calls the value of a name that a configuration lacks
LISTED = 4  # differences that an error message names; it counts the rest


class CheckpointError(ValueError):
    """A folder of checkpoints cannot be used; the message gives the reason and the remedy."""


class Checkpoints:
    """The checkpoints of one run in one folder. The newest two are kept.

    Args:
        folder: where the checkpoints lie. It is created by the first save.
        config: what the run was started with, as JSON values. "data", if present, is a digest of
            the training images. None opens checkpoints of any configuration, to be read only.
        defaults: the value of each name that a configuration may lack. A flag that is newer than a
            checkpoint does not block a resume while it has its default value.

    Raises:
        CheckpointError: if the folder holds checkpoints of another configuration, or damaged ones.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any] | None,
        *,
        defaults: Mapping[str, Any] | None = None,
    ):
        import orbax.checkpoint as ocp  # takes a second to import

        self._ocp = ocp
        self._folder = Path(folder).resolve()
        self._config = None if config is None else _as_json(config)
        self._defaults = _as_json(defaults or {})
        self._opened: Any = None
        step = self.latest_step()
        if step is not None and self._config is not None:
            self._check_config(self._read_meta(step)["config"])

    def latest_step(self) -> int | None:
        """Return the step of the newest whole checkpoint, or None if there is none."""
        return self._manager().latest_step() if self._folder.exists() else None

    def save(self, step: int, state: PyTree) -> None:
        """Save a state in the background, after the previous save has finished.

        Raises CheckpointError if this checkpoint, or the previous one, cannot be written.
        """
        if self._config is None:
            raise ValueError("checkpoints that were opened without a configuration are read-only")
        arrays = _to_dictionary(jax.tree.map(_to_numpy, state))
        meta = {"config": self._config, "digests": _digests(arrays), "keys": _key_impls(state)}
        args = self._ocp.args.Composite(
            state=self._ocp.args.StandardSave(arrays), meta=self._ocp.args.JsonSave(meta)
        )
        self._finish(lambda: self._manager().save(step, args=args))

    def restore(self, like: PyTree) -> PyTree:
        """Return the state of the newest checkpoint.

        `like` is a state of the same model; its values are not used. A random key comes back with
        the implementation that it was saved with.

        Raises CheckpointError if there is no checkpoint, if it is damaged, or if its arrays have
        other names, shapes or dtypes than those of `like`.
        """
        step = self.latest_step()
        if step is None:
            raise CheckpointError(f"{self._folder} holds no checkpoint")
        meta = self._read_meta(step)
        args = self._ocp.args.Composite(state=self._ocp.args.StandardRestore())
        arrays = self._read(step, lambda: dict(self._manager().restore(step, args=args).state))
        if _digests(arrays) != meta["digests"]:
            raise CheckpointError(self._damaged(step))
        leaves = _to_dictionary(like)
        impls = meta.get("keys", _key_impls(like))  # older checkpoints do not name them
        differences = _differences(arrays, leaves, impls)
        if differences:
            raise CheckpointError(
                f"checkpoint {self._folder / str(step)} belongs to another model "
                f"({_shortened(differences)}); restore it with the settings that it was trained "
                "with, or choose another work folder"
            )
        restored = [_restored(arrays[name], impls.get(name)) for name in leaves]
        return jax.tree.unflatten(jax.tree.structure(like), restored)

    def close(self) -> None:
        """Wait for the last save. Raises CheckpointError if it failed."""
        if self._opened is not None:
            manager, self._opened = self._opened, None
            try:
                self._finish(manager.wait_until_finished)
            finally:
                manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _manager(self):
        """Orbax's manager of the folder; it creates the folder if that is missing."""
        if self._opened is None:
            options = self._ocp.CheckpointManagerOptions(
                max_to_keep=2, create=True, cleanup_tmp_directories=True
            )
            self._opened = self._ocp.CheckpointManager(self._folder, options=options)
        return self._opened

    def _read_meta(self, step: int) -> dict[str, Any]:
        args = self._ocp.args.Composite(meta=self._ocp.args.JsonRestore())
        meta = self._read(step, lambda: self._manager().restore(step, args=args).meta)
        if not isinstance(meta, dict) or not {"config", "digests"} <= meta.keys():
            raise CheckpointError(self._damaged(step))
        return meta

    def _read(self, step: int, read: Callable[[], Any]) -> Any:
        """Return what read returns; its errors become CheckpointErrors."""
        try:
            return read()
        except PermissionError as error:
            raise CheckpointError(f"cannot read {self._folder / str(step)}: {error}") from error
        except (ValueError, KeyError, OSError) as error:
            raise CheckpointError(self._damaged(step)) from error

    def _check_config(self, stored: dict[str, Any]) -> None:
        there, here = self._defaults | stored, self._defaults | (self._config or {})
        names = sorted(there.keys() | here.keys())
        differing = [name for name in names if there.get(name) != here.get(name)]
        if differing == ["data"]:
            raise CheckpointError(
                f"the training images are not those that the checkpoints in {self._folder} were "
                f"trained on (digest {_shown(there, 'data')} there, {_shown(here, 'data')} here); "
                "restore the images, or start a new run in another work folder"
            )
        if differing:
            details = "; ".join(
                f"{name} {_shown(there, name)} there, {_shown(here, name)} here"
                for name in differing
            )
            raise CheckpointError(
                f"{self._folder} holds checkpoints of another configuration ({details}); choose "
                "another work folder or use the same flags"
            )

    def _damaged(self, step: int) -> str:
        folder = self._folder / str(step)
        if len(self._manager().all_steps()) > 1:
            return f"checkpoint {folder} is damaged; delete it to continue from the one before it"
        return (
            f"checkpoint {folder} is damaged, and there is no other one; start the run again in "
            "another work folder"
        )

    def _finish(self, write: Callable[[], object]) -> None:
        """Write; if that fails, remove what is unfinished and give the reason in one line."""
        try:
            write()
        except (ValueError, OSError) as error:
            for part in self._folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(part, ignore_errors=True)
            full = "No space left on device"
            reason = full if full in str(error) else str(error).splitlines()[0]
            raise CheckpointError(
                f"cannot save to {self._folder}: {reason}; earlier checkpoints are whole, and the "
                "run can be resumed from them"
            ) from error


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration as it is read back: a tuple is a list."""
    return json.loads(json.dumps(dict(config)))


def _shown(config: dict[str, Any], name: str) -> str:
    return repr(config[name]) if name in config else ABSENT


def _shortened(differences: list[str]) -> str:
    rest = len(differences) - LISTED
    more = [f"and {rest} more differences"] if rest > 0 else []
    return "; ".join(differences[:LISTED] + more)


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_impls(state: PyTree) -> dict[str, str]:
    """Return the name of the implementation of each random key."""
    leaves = _to_dictionary(state).items()
    return {name: str(jax.random.key_impl(leaf)) for name, leaf in leaves if _is_key(leaf)}


def _differences(
    arrays: dict[str, np.ndarray], leaves: dict[str, Any], impls: dict[str, str]
) -> list[str]:
    """Say how stored arrays differ from the leaves of a model's state."""
    missing = [f"{name} is only in the model" for name in leaves if name not in arrays]
    extra = [f"{name} is only in the checkpoint" for name in arrays if name not in leaves]
    other = []
    for name in leaves.keys() & arrays.keys():
        there, here = _description(arrays[name], name in impls), _description(leaves[name])
        if there != here:
            other.append(f"{name} is {there} in the checkpoint, {here} in the model")
    return missing + extra + sorted(other)


def _description(leaf, is_key: bool = False) -> str:
    """Return dtype and shape; of keys the shape without the last axis, their implementation's."""
    if _is_key(leaf):
        return f"keys{list(leaf.shape)}"
    shape, dtype = np.shape(leaf), np.asarray(leaf).dtype
    return f"keys{list(shape[:-1])}" if is_key else f"{dtype}{list(shape)}"


def _to_numpy(leaf):
    # A copy: the arrays may be donated or changed while the save goes on in the background.
    return np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _restored(value: np.ndarray, impl: str | None) -> jax.Array:
    if impl is None:
        return jnp.asarray(value)
    return jax.random.wrap_key_data(jnp.asarray(value), impl=impl)


def _to_dictionary(state: PyTree) -> dict[str, Any]:
    return {keystr(path): leaf for path, leaf in tree_leaves_with_path(state)}


def _digests(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    return {
        name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        for name, array in arrays.items()
    }
