"""What is refused at the public doors of search, and with which words."""

import jax
import jax.numpy as jnp
import numpy as np


def check_k(k: int):
    """A search asks for at least one neighbour."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")


def check_memory(memory: int):
    """A budget is a number of bytes."""
    if memory < 1:
        raise ValueError(f"memory must be at least 1 byte, got {memory}")


def check_codes(name: str, codes):
    """Packed codes are uint32[n w]."""
    if codes.dtype != np.uint32 or codes.ndim != 2:
        raise ValueError(
            f"the {name} must be packed codes, uint32[n w], got {codes.dtype}{list(codes.shape)}"
        )
    if codes.shape[1] < 1:
        raise ValueError(f"the {name} must have at least 1 word per code, got 0")


def check_width(query, width: int):
    """A query is as wide as the gallery."""
    if query.shape[1] != width:
        raise ValueError(f"query and gallery must be as wide, got {query.shape[1]} and {width}")


def packed_mask(mask, queries: int, gallery):
    """A mask over a gallery's rows as packed words, one row for all queries or one for each.

    It is as wide as the gallery has room, so that growing compiles nothing again.
    """
    if mask is None:
        return None
    if is_traced(mask, gallery.size):
        mask = packed(mask[None] if mask.ndim == 1 else mask)
    else:
        mask = packed(check_mask(mask, queries, int(gallery.size)))
    numpy = np if isinstance(mask, np.ndarray) else jnp
    return numpy.pad(mask, ((0, 0), (0, gallery.capacity // 32 - mask.shape[1])))


def check_mask(mask, queries: int, rows: int):
    """A mask is bool, or packed uint32, over rows: [n], or a row for all queries or for each."""
    mask = mask[None] if mask.ndim == 1 else mask
    if mask.dtype not in (np.uint32, np.bool_):
        raise ValueError(f"a mask must be bool or packed uint32, got {mask.dtype}")
    if len(mask) not in (1, queries):
        raise ValueError(f"a mask has 1 row or one per query ({queries}), got {len(mask)}")
    columns = rows if mask.dtype == np.bool_ else -(-rows // 32)
    # A mask that is packed already may be as wide as the gallery has room.
    if mask.shape[1] < columns or (mask.dtype == np.bool_ and mask.shape[1] > columns):
        raise ValueError(
            f"a mask over {rows} rows has {columns} columns of {mask.dtype}, got {mask.shape[1]}"
        )
    return mask


def packed(mask):
    """Bit j of word i is row 32 i + j, as `codes.pack` has it."""
    if mask.dtype == np.uint32:
        return mask
    padding = ((0, 0), (0, -mask.shape[1] % 32))
    if is_traced(mask):
        bits = jnp.pad(mask, padding).reshape(len(mask), -1, 32).astype(jnp.uint32)
        shifts = jnp.arange(32, dtype=jnp.uint32)[None, None]
        return jnp.sum(bits << shifts, axis=2, dtype=jnp.uint32)
    bits = np.packbits(np.pad(np.asarray(mask), padding), axis=1, bitorder="little")
    return bits.view("<u4").astype(np.uint32, copy=False)


def is_traced(*arrays) -> bool:
    """Is any of the arrays a value of a function that is being traced, as under jit?"""
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def check_vectors(name: str, vectors):
    """Vectors are float32 or bfloat16 [n d], finite, and not so long that distances overflow."""
    if vectors.dtype not in (np.float32, jnp.bfloat16) or vectors.ndim != 2:
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
        norms = np.asarray(_norms(vectors))
    bad = ~(norms < LONGEST)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"vectors must be finite and shorter than {LONGEST**0.5:.0e}, row {row} of the {name} "
            f"is not: {np.asarray(vectors[row], np.float32).tolist()[:8]}"
        )


@jax.jit
def _norms(vectors):
    return jnp.sum(jnp.square(vectors.astype(jnp.float32)), axis=1)


LONGEST = 4e37  # squared: four times that is still a float32
