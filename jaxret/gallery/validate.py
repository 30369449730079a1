"""The rules for what a gallery accepts; each breach is one GalleryError."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt32

from jaxret.codes import WORD_BITS, num_words
from jaxret.gallery.store import GalleryError
from jaxret.search import validate as rules
from jaxret.search.validate import LONGEST

PIECE = 2**16  # rows looked at together: no second gallery is made


def codes(name: str, values: Any, bits: int) -> UInt32[np.ndarray, "n w"]:
    """Return packed codes of this many bits, whose padding bits are 0."""
    values = _array(name, values, np.uint32, "packed codes, uint32[n w]")
    if values.shape[1] != num_words(bits):
        raise GalleryError(
            f"{name} must have {num_words(bits)} words for {bits} bits, got {values.shape[1]}"
        )
    for start in range(0, len(values) if bits % WORD_BITS else 0, PIECE):
        wrong = values[start : start + PIECE, -1] >> np.uint32(bits % WORD_BITS) != 0
        if wrong.any():
            row = start + int(wrong.argmax())
            raise GalleryError(f"{name} must be 0 past bit {bits - 1}, row {row} is not")
    return values


def vectors(name: str, values: Any, width: int) -> Float32[np.ndarray, "n d"]:
    """Return finite float32 vectors of this width, not so long that distances overflow."""
    values = _array(name, values, np.float32, "vectors, float32[n d]")
    if values.shape[1] != width:
        raise GalleryError(f"{name} must have {width} features, got {values.shape[1]}")
    for start in range(0, len(values), PIECE):
        piece = values[start : start + PIECE]
        with np.errstate(over="ignore", invalid="ignore"):
            wrong = ~(np.einsum("nd,nd->n", piece, piece) < LONGEST)
        if wrong.any():
            row = start + int(wrong.argmax())
            raise GalleryError(
                f"{name} must be finite and shorter than {LONGEST**0.5:.0e}, row {row} is not: "
                f"{values[row, :8].tolist()}"
            )
    return values


def _array(name: str, values: Any, dtype: type, rule: str) -> np.ndarray:
    if not hasattr(values, "dtype") or not hasattr(values, "shape"):
        raise GalleryError(f"{name} must be {rule}, got {type(values).__name__}")
    if values.dtype != dtype or len(values.shape) != 2 or values.shape[1] < 1:
        raise GalleryError(f"{name} must be {rule}, got {values.dtype}{list(values.shape)}")
    return np.asarray(values)


def ids(values: Any, least: int = 0) -> Int64[np.ndarray, "..."]:
    """Return ids, whole numbers from 0 to 2^63 - 1; with least -1, the mark of no row as well."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise GalleryError("ids must be a list, got rows of several lengths") from None
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise GalleryError(f"ids must be whole numbers below 2^63, got {array.dtype}")
    if array.min() < least:
        raise GalleryError(f"ids must be at least {least}, got {array.min()}")
    if array.max() > np.iinfo(np.int64).max:
        raise GalleryError(f"ids must be below 2^63, got {array.max()}")
    return array.astype(np.int64)


def distinct_ids(values: Any, count: int | None = None) -> Int64[np.ndarray, " m"]:
    """Return a list of ids none of which repeats, one for each of count rows."""
    array = ids(values)
    if array.ndim != 1 or count not in (None, len(array)):
        wanted = "one for each row" if count is None else f"{count}, one for each row"
        raise GalleryError(f"ids must be a list, {wanted}, got shape {list(array.shape)}")
    if len(array) > 1 and not np.all(array[1:] > array[:-1]):
        ordered = np.sort(array)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(repeated):
            raise GalleryError(f"ids must not repeat, {repeated[0]} does")
    return array


def names(values: Any, count: int) -> list[str] | None:
    """Return a string for each row."""
    if values is None:
        return None
    if isinstance(values, str) or not isinstance(values, (Sequence, np.ndarray)):
        raise GalleryError(f"names must be a list of strings, got {type(values).__name__}")
    values = list(values)
    if len(values) != count:
        raise GalleryError(f"names must be {count}, one for each row, got {len(values)}")
    for row, name in enumerate(values):
        if not isinstance(name, str):
            raise GalleryError(f"names must be strings, that of row {row} is {name!r}")
    return [str(name) for name in values]


def labels(values: Any, count: int) -> Int32[np.ndarray, " n"] | None:
    """Return a whole number that fits int32 for each row."""
    if values is None:
        return None
    array = np.asarray(values)
    if array.shape != (count,):
        raise GalleryError(f"labels must be {count}, one for each row, got {list(array.shape)}")
    if array.size and array.dtype.kind not in "iu":
        raise GalleryError(f"labels must be whole numbers, got {array.dtype}")
    limits = np.iinfo(np.int32)
    if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
        raise GalleryError(f"labels must fit int32, got {array.min()} to {array.max()}")
    return array.astype(np.int32)


def whole(name: str, value: Any) -> int:
    """Return a count, at least 1, as an int."""
    return _as_gallery_error(rules.whole, name, value)


def number(name: str, value: Any) -> float | int:
    """Return a real number of at least 0."""
    return _as_gallery_error(rules.number, name, value)


def columns(k: Any, rows: int) -> int:
    """Return how many columns the result for k neighbors has: see `jaxret.search.hamming_topk`."""
    return _as_gallery_error(rules.columns, k, rows)


def _as_gallery_error(function: Callable, *args: Any) -> Any:
    try:
        return function(*args)
    except ValueError as error:
        raise GalleryError(str(error)) from None


def keep(values: Any, queries: int, rows: int) -> Bool[np.ndarray, "p n"] | Int64[np.ndarray, " m"]:
    """Return a mask over the gallery's rows, for all queries or one for each, or a list of ids."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise GalleryError("keep must be ids or a mask, got rows of several lengths") from None
    if array.dtype != bool and array.ndim == 1:
        try:
            return distinct_ids(array)
        except GalleryError as error:
            raise GalleryError(f"keep must be ids or a mask of bool: {error}") from None
    if array.dtype != bool or array.shape not in ((rows,), (1, rows), (queries, rows)):
        raise GalleryError(
            f"keep must be ids or a mask bool[{rows}] or bool[{queries} {rows}], got "
            f"{array.dtype}{list(array.shape)}"
        )
    return array if array.ndim == 2 else array[None]
