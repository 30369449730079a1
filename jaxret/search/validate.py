"""The rules for what public functions of search accept; each breach is one ValueError."""

import contextlib
import operator
from typing import Any, SupportsFloat, SupportsIndex

import numpy as np
from jaxtyping import UInt32

from jaxret.codes import WORD_BITS, PackedMask, is_traced, pack_mask

Whole = SupportsIndex | SupportsFloat  # a whole number, in Python's types or NumPy's
LONGEST = 4e37  # squared length of a vector: four times that is still a float32
MOST_ROWS = np.iinfo(np.int32).max  # rows on a device are numbered by int32
PADDED = 2**16  # columns that results are padded to, at most


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return a count as an int: from any integer or integral float, or an array without axes."""
    number = None
    if getattr(value, "shape", ()) == () and not isinstance(value, (bool, np.bool_, str, bytes)):
        try:
            number = operator.index(value)
        except TypeError:
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                number = int(value) if float(value) == int(value) else None
    if number is None:
        raise ValueError(f"{name} must be a whole number, got {_brief(value)}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def number(name: str, value: Any) -> float | int:
    """Return a real number of at least 0, such as a radius."""
    if getattr(value, "shape", ()) == () and not isinstance(value, (bool, np.bool_, str, bytes)):
        try:
            value = value if isinstance(value, (int, float)) else np.asarray(value).item()
            if value >= 0:
                return value
        except (TypeError, ValueError):
            pass
        else:
            raise ValueError(f"{name} must be at least 0, got {value}")
    raise ValueError(f"{name} must be a number, got {_brief(value)}")


def _brief(value: Any) -> str:
    """A value in an error: arrays by type and shape."""
    if getattr(value, "shape", ()) != ():
        return f"{value.dtype}{list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else type(value).__name__


def columns(k: Any, rows: int) -> int:
    """Return how many columns the result for k neighbors has, in a gallery of some rows.

    These are k, but no more than `PADDED` or the rows, whichever is greater: a k far beyond the
    gallery costs nothing.
    """
    return min(whole("k", k), max(rows, PADDED))


def array(name: str, values: Any) -> Any:
    """Return values that have a type and a shape: an array as it is, a list as a NumPy array."""
    if hasattr(values, "dtype") and hasattr(values, "shape"):
        return values
    raise ValueError(f"the {name} must be an array, got {type(values).__name__}")


def check_columns(name: str, rows: Any) -> None:
    """A gallery has two axes, and at least one number per row."""
    if rows.ndim != 2 or rows.shape[1] < 1:
        raise ValueError(f"the {name} must be [n a], a at least 1, got {list(rows.shape)}")


def check_codes(name: str, codes: Any) -> None:
    """Packed codes are uint32[n w]."""
    array(name, codes)
    if codes.dtype != np.uint32 or codes.ndim != 2:
        raise ValueError(
            f"the {name} must be packed codes, uint32[n w], got {codes.dtype}{list(codes.shape)}"
        )
    if codes.shape[1] < 1:
        raise ValueError(f"the {name} must have at least 1 word per code, got 0")


def check_vectors(name: str, vectors: Any) -> None:
    """Vectors are float32 or bfloat16 [n d], finite, and not so long that distances overflow."""
    array(name, vectors)
    known = vectors.dtype.name in ("float32", "bfloat16") and vectors.dtype.isnative
    if not known or vectors.ndim != 2:
        raise ValueError(
            f"the {name} must be float32[n d] or bfloat16[n d], "
            f"got {vectors.dtype}{list(vectors.shape)}"
        )
    if vectors.shape[1] < 1:
        raise ValueError(f"the {name} must have at least 1 feature, got 0")
    if is_traced(vectors):
        return
    if isinstance(vectors, np.ndarray):  # NumPy compiles nothing when a gallery has grown
        norms = np.einsum("nd,nd->n", *[vectors.astype(np.float32, copy=False)] * 2)
    else:
        from jaxret.search.vectors import squared_lengths

        norms = np.asarray(squared_lengths(vectors))
    bad = ~(norms < LONGEST)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"vectors must be finite and shorter than {LONGEST**0.5:.0e}, row {row} of the {name} "
            f"is not: {np.asarray(vectors[row], np.float32).tolist()[:8]}"
        )


def check_rows(rows: int) -> None:
    """Rows on a device are numbered by int32; a streamed gallery may have more."""
    if rows > MOST_ROWS:
        raise ValueError(f"a gallery on a device has at most {MOST_ROWS} rows, got {rows}")


def check_width(query: Any, width: int) -> None:
    """A query is as wide as the gallery."""
    if query.shape[1] != width:
        raise ValueError(f"query and gallery must be as wide, got {query.shape[1]} and {width}")


def mask_words(
    mask: Any, queries: int, rows: int | None, capacity: int
) -> UInt32[Any, "p v"] | None:
    """Return a mask over a gallery's rows as words, with a row for all queries or for each.

    Args:
        mask: None, bool[n], bool[1 n], bool[q n], or a `codes.PackedMask`.
        queries: how many queries there are.
        rows: how many rows the gallery has, None where that is not known under jit. The mask must
            then cover all rows that there is room for: a shorter one could lose rows unseen.
        capacity: the rows that there is room for; the words cover them all, so that a gallery
            that grows compiles nothing again.

    Returns:
        None, or words u32[p v], v = capacity / 32.

    Raises:
        ValueError: if the mask has another type or shape.
    """
    if mask is None:
        return None
    if isinstance(mask, PackedMask):
        words, found, unit = mask.words, mask.words.shape[1], WORD_BITS
        least = (capacity if rows is None else rows) + unit - 1
        if not least // unit <= found <= max(capacity, least) // unit:
            raise ValueError(
                f"a packed mask over {rows if rows is not None else capacity} rows has "
                f"{least // unit} words, got {found}"
            )
    else:
        if getattr(mask, "dtype", None) != np.bool_ or mask.ndim not in (1, 2):
            raise ValueError(
                f"a mask must be bool[n], bool[q n] or a codes.PackedMask, got "
                f"{_brief(mask) if hasattr(mask, 'dtype') else type(mask).__name__}"
            )
        expected = capacity if rows is None else rows
        if mask.shape[-1] != expected:
            room = " (under jit, where its size is not known, all that there is room for)"
            raise ValueError(
                f"a mask over {expected} rows{room if rows is None else ''} has {expected} "
                f"columns of bool, got {mask.shape[-1]}"
            )
        words = pack_mask(mask).words
    if len(words) not in (1, queries):
        raise ValueError(f"a mask has 1 row or one per query ({queries}), got {len(words)}")
    missing = -(-capacity // WORD_BITS) - words.shape[1]
    return namespace_of(words).pad(words, ((0, 0), (0, missing))) if missing > 0 else words


def namespace_of(array: Any) -> Any:
    """Return the library whose functions take an array: NumPy for its own, else jax.numpy."""
    if isinstance(array, np.ndarray):
        return np
    import jax.numpy as jnp

    return jnp
