"""What all metrics are given: a caller's arrays, checked and of a wide type."""

import operator
from collections.abc import Sequence
from typing import Any, SupportsFloat, SupportsIndex

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

Whole = SupportsIndex | SupportsFloat
Values = Shaped[Array | np.ndarray, "..."] | Sequence | int | np.generic  # as a caller has them


def any_rank(name: str, values: Any) -> Any:
    """An array, from an array, a number or a list."""
    if hasattr(values, "dtype"):
        return values
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} must be an array, got rows of several lengths") from None


def _array(name: str, values: Any, ndim: int) -> Any:
    """An array of this rank."""
    values = any_rank(name, values)
    if values.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {list(values.shape)}")
    return values


def concrete(*arrays) -> bool:
    """Are values there to be checked, which they are not under jit?"""
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def flags(name: str, values: Any, ndim: int) -> Bool[Array, "..."]:
    """Booleans, which may be given as numbers 0 and 1."""
    values = _array(name, values, ndim)
    if values.dtype != bool:
        if concrete(values) and not np.isin(np.asarray(values), (0, 1)).all():
            raise ValueError(f"{name} must be bool, or 0 and 1, got {values.dtype} with others")
        values = values != 0
    return jnp.asarray(values)


def whole(name: str, values: Any, ndim: int, least: int | None = None) -> Int[Array, "..."]:
    """Whole numbers, as int32."""
    values = _array(name, values, ndim)
    if values.size == 0:
        return jnp.zeros(values.shape, jnp.int32)
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise ValueError(f"{name} must be whole numbers, got {values.dtype}")
    if concrete(values):
        limits = np.iinfo(np.int32)
        lowest, highest = int(values.min()), int(values.max())
        least = limits.min if least is None else least
        if lowest < least:
            raise ValueError(f"{name} must be at least {least}, got {lowest}")
        if highest > limits.max:
            raise ValueError(f"{name} must fit int32, got {highest}")
    return jnp.asarray(values, jnp.int32)


def same_length(**arrays) -> None:
    """Refuse arrays of different lengths."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        found = " and ".join(map(str, lengths.values()))
        raise ValueError(f"{' and '.join(lengths)} must be as long, got {found}")


def lists(relevant: Any, num_relevant: Any) -> tuple[Bool[Array, "q k"], Int[Array, " q"]]:
    """Ranked lists, and how many are relevant for each; one number may stand for all queries."""
    relevant = flags("relevant", relevant, 2)
    num_relevant = any_rank("num_relevant", num_relevant)
    if num_relevant.ndim == 0:
        num_relevant = num_relevant.reshape(1).repeat(len(relevant))
    num_relevant = whole("num_relevant", num_relevant, 1, 0)
    same_length(relevant=relevant, num_relevant=num_relevant)
    return relevant, num_relevant


def counts(total: Any, relevant: Any) -> tuple[Int[Array, "q l"], Int[Array, "q l"]]:
    """Results, and relevant results, at each distance: never more of these than of those."""
    total, relevant = whole("total", total, 2, 0), whole("relevant", relevant, 2, 0)
    if total.shape != relevant.shape:
        raise ValueError(
            f"total and relevant must have one shape, got {list(total.shape)} and "
            f"{list(relevant.shape)}"
        )
    if concrete(total, relevant) and (relevant > total).any():
        row, level = np.argwhere(np.asarray(relevant > total))[0]
        raise ValueError(
            f"relevant results must not exceed all results, query {row} has "
            f"{relevant[row, level]} of {total[row, level]} at distance {level}"
        )
    return total, relevant


def number(name: str, value: Any, most: int | None = None) -> int:
    """A whole number, as an int."""
    try:
        found = operator.index(value)
    except TypeError:
        found = int(value) if isinstance(value, float) and value % 1 == 0 else None
    if found is None or isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if most is not None and found > most:
        raise ValueError(f"{name} must be at most {most}, got {found}")
    return found


def pair(name: str, one: Any, other_name: str, other: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two lists of labels, one for each image."""
    one, other = _label_list(name, one), _label_list(other_name, other)
    same_length(**{name: one, other_name: other})
    if one.size and one.dtype.kind != other.dtype.kind:
        raise ValueError(f"{name} and {other_name} must be of one kind, got text and numbers")
    return one, other


def _label_list(name: str, values: Any) -> np.ndarray:
    """Labels as whole numbers i64[n], or as text."""
    values = np.asarray(_array(name, values, 1))
    if values.dtype.kind == "f" and np.all(values % 1 == 0):
        values = values.astype(np.int64)
    if values.size and values.dtype.kind not in "biuU":
        raise ValueError(f"{name} must be whole numbers or text, got {values.dtype}")
    if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit int64, got {values.max()}")
    return values if values.dtype.kind == "U" else values.astype(np.int64)
