"""The one face of everything that turns images into codes, learnt or not.

A hasher is a value: functions, and what they were made from. Whoever trains, searches, scores,
draws or saves a hasher knows these fields and nothing else of it.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import numpy as np
from jaxtyping import Array, Float, Int, Int32, UInt8

from jaxret import inputs, train

from .network import weights

Params = Any
Images = UInt8[Array, "n h w c"]


class Hasher(NamedTuple):
    """A way to learn codes and to make them.

    The optional fields are None for a hasher without a decoder, a likelihood, a prior or a
    training.
    """

    # (key, images or vectors, labels=None, *, on_epoch=...) -> (params, info): learns, and tells
    # named numbers of what it learnt. A hasher with a training also takes positives=, state=, to
    # go on from, and mesh= (see train.run). Images and vectors: see `inputs`.
    fit: Callable[..., tuple[Params, dict[str, float]]]
    # (params, images or vectors) -> codes; under Hamming distance a bit is value >= 0
    encode: Callable[[Params, Any], Float[Array, "n b"]]
    # how codes are compared: "hamming", "euclidean" or another name of evaluate.DISTANCES
    distance: str
    # (params, codes, as encode gives them) -> images in [0, 1]
    decode: Callable[[Params, Float[Array, "n b"]], Float[Array, "n h w c"]] | None = None
    # (params, key, images, labels) -> named numbers of each image, beyond retrieval
    measure: Callable[..., dict[str, Float[Array, " n"]]] | None = None
    # (params, key, count) -> images decoded from the prior
    generate: Callable[..., Float[Array, "m h w c"]] | None = None
    # what fit runs; several hashers of one kind can then be trained in one program (fit_all)
    training: train.Training | None = None
    # {"name": key of HASHERS, "settings": the constructor's arguments}, plain JSON values
    spec: Mapping[str, Any] | None = None


class Jitted:
    """A compiled function, with compiler options where it is the outermost program.

    JAX takes options for that one only: under the caller's jit or grad the function is a part of
    the caller's program, and compiled as that is.
    """

    def __init__(self, function: Callable, options: dict[str, Any] | None = None):
        """Compile a function when it is called; None: there are no options."""
        self._outermost: Any = jax.jit(function, compiler_options=options)
        self._part: Any = jax.jit(function) if options else self._outermost
        self.trace, self.lower = self._outermost.trace, self._outermost.lower

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the compiled function."""
        if self._part is self._outermost:
            return self._outermost(*arguments, **named)
        leaves = jax.tree.leaves(arguments)
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        return (self._part if traced else self._outermost)(*arguments, **named)

    def _cache_size(self) -> int:
        """How many programs were compiled, as of what `jax.jit` returns."""
        return self._outermost._cache_size()


class OfImages:
    """A compiled function whose images are checked by `inputs.accept`.

    Values are looked at before the compiled program runs. For uint8 images there is nothing to
    look at, so nothing waits for the device. It is traced and lowered like what `jax.jit` returns.
    """

    def __init__(
        self,
        function: Callable,
        place: int = 1,
        *,
        shape: Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ):
        """Compile a function of (params, images), or with its images at another place.

        Args:
            function: what is compiled.
            place: the number of the argument that is images.
            shape: see `inputs.accept`.
            options: compiler options.
        """
        self._compiled = Jitted(function, options)
        self._place, self._shape = place, shape
        self.trace, self.lower = self._compiled.trace, self._compiled.lower

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the compiled function."""
        before, images = arguments[: self._place], arguments[self._place]
        accepted = inputs.accept(images, self._shape)
        return self._compiled(*before, accepted, *arguments[self._place + 1 :], **named)

    def _cache_size(self) -> int:
        """How many programs were compiled, as of what `jax.jit` returns."""
        return self._compiled._cache_size()


def trained(training: train.Training, encode: Callable, distance: str, **fields: Any) -> Hasher:
    """Make a hasher that learns by gradient descent; `fields` are further fields of Hasher."""

    def fit(key, images, labels=None, **options):
        state, info = train.run(training, key, images, labels, **options)
        return weights(state), info

    return Hasher(fit, encode, distance, training=training, **fields)


def fit_all(
    hashers: Sequence[Hasher],
    keys: Sequence[Array],
    images: Any,
    labels: Any = None,
    *,
    positives: Int[Any, "n m"] | None = None,
    on_epoch: Callable = lambda state, info: None,
) -> list[tuple[Params, dict[str, float]]]:
    """Fit hashers that differ only in their key and the scalars of their training.

    They train in one vmapped program if they can (`training.scan`), else one after the other.

    Args:
        hashers: Of one constructor; all but the scalars of training is that of the first.
        keys: One per hasher.
        images: Training images.
        labels: Their classes, if the hashers learn from them.
        positives: For each image the rows of similar ones, for contrastive losses.
        on_epoch: Called after each epoch with the state and `train.EpochInfo`.

    Returns:
        (params, info) of each hasher, as `fit` gives them.
    """
    first = hashers[0].training
    if first is None or not first.scan or len(hashers) == 1:
        options = {} if first is None else {"positives": positives, "on_epoch": on_epoch}
        pairs = zip(hashers, keys, strict=True)
        return [hasher.fit(key, images, labels, **options) for hasher, key in pairs]
    runs = train.run_all(
        [hasher.training for hasher in hashers if hasher.training is not None],
        keys,
        images,
        labels,
        positives=positives,
        on_epoch=on_epoch,
    )
    return [(weights(state), info) for state, info in runs]


def settings_from(kind: Any, given: Mapping[str, Any]) -> Any:
    """Make a hasher's settings, a dataclass with a check, from keyword arguments.

    Raises ValueError for a name that is no setting, with the closest one, and for what the check of
    the settings refuses.
    """
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    names = list(types)
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names)}"
            raise ValueError(f"{name} is no setting of this hasher{hint}")
    settings = kind(**{name: _plain(value, types[name]) for name, value in given.items()})
    settings.check()
    return settings


def _plain(value, kind):
    """A value as JSON would give it back: a list is a tuple, a whole number may be a float."""
    if isinstance(value, list):
        return tuple(value)
    return float(value) if kind is float and isinstance(value, int) else value


def image_shape_of(shape: Sequence[int]) -> tuple[int, int, int]:
    """Height, width and channels as a tuple of whole numbers above 0; ValueError otherwise."""
    if len(shape) != 3 or not all(int(size) == size and size > 0 for size in shape):
        raise ValueError(f"image_shape must be height, width and channels, got {shape}")
    height, width, channels = (int(size) for size in shape)
    return height, width, channels


def labelled(images: Any, labels: Any) -> tuple[Any, Int32[np.ndarray, " n"]]:
    """Return the images that have a label, and their classes counted from 0.

    Args:
        images: images or vectors, n rows.
        labels: classes i32[n]; images of class -1 are left out.

    Raises:
        ValueError: without labels, or without two classes of at least two images each.
    """
    labels = np.asarray(-1 if labels is None else labels)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be one whole number per image, i32[{len(images)}]")
    known = labels >= 0
    classes, labels = np.unique(labels[known], return_inverse=True)
    if np.sum(np.bincount(labels, minlength=len(classes)) > 1) < 2:
        raise ValueError("labels must have at least two classes of at least two images each")
    return (images if known.all() else images[known]), labels.astype(np.int32)


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Refuse a size that is not a whole number of at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_numbers(
    settings: Any, names: Sequence[str], least: float | int, *, strict: bool = False
) -> None:
    """Refuse settings below a least value (or equal to it, if strict) or not finite."""
    for name in names:
        value = getattr(settings, name)
        if not (value > least if strict else value >= least) or not math.isfinite(value):
            rule = f"above {least}" if strict else f"at least {least}"
            raise ValueError(f"{name} must be {rule}, got {value}")


def with_ends(hyper: Mapping[str, float], **ends: float) -> dict[str, float]:
    """The scalars and, under x_end, where those go that change over the run; 0 means they stay."""
    changing = {f"{name}_end": end for name, end in ends.items() if end and end != hyper[name]}
    return {**hyper, **changing}
