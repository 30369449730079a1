"""How packed codes lie in memory while they are searched.

32 rows are a group, 16 groups a cluster, 64 clusters a block: each level is contiguous in rows, so
an order of groups is an order of rows and ties can be settled on every level. In memory the rows of
64 clusters lie side by side (the last axis), so that one instruction works on many of them, and
what belongs to one group comes from 32 successive elementwise operations, never from a reduction
along an axis, which XLA does not vectorise on CPU. A group's 32 rows make one uint32 of a bit mask.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Int32, UInt32

from jaxret.codes import first_bits

GROUP = 32  # rows: bit j of a group's mask word is its row j
CLUSTER = 16  # groups
LANES = 64  # clusters side by side: as many bytes fill a 512-bit register
BLOCK = GROUP * CLUSTER * LANES  # rows


def place(codes: UInt32[Array | np.ndarray, "n w"], rows: int) -> UInt32[Array, "m w 32 64"]:
    """Lay codes out for this many rows, a multiple of BLOCK; the last row fills the rest."""
    if isinstance(codes, np.ndarray):
        return jnp.asarray(_transpose(np, codes, rows))
    return _place(codes, rows)


def _transpose(numpy, codes, rows):
    n, words = codes.shape
    codes = numpy.pad(codes, ((0, rows - n), (0, 0)), mode="edge" if n else "constant")
    codes = codes.reshape(-1, LANES, CLUSTER, GROUP, words).transpose(0, 2, 4, 3, 1)
    return codes.reshape(-1, words, GROUP, LANES)


_place = jax.jit(partial(_transpose, jnp), static_argnums=1)


def write_block(
    codes: UInt32[Array, "m w 32 64"], start: int, rows: UInt32[Array | np.ndarray, "n w"]
) -> UInt32[Array, "m w 32 64"]:
    """Write one block, from row start on, a multiple of BLOCK; what was given is used up."""
    block = place(rows, BLOCK)
    return _write(codes, block, start // BLOCK * len(block))


_write = jax.jit(partial(lax.dynamic_update_slice_in_dim, axis=0), donate_argnums=0)


def in_rows(codes: UInt32[Array, "m w 32 64"]) -> UInt32[Array, "w n"]:
    """The codes in the order of rows again, one word of all of them after the other."""
    return by_row(codes.transpose(1, 0, 2, 3))


def by_row(values: Any) -> Any:
    """Values of rows as they lie in blocks, [a m 32 l], in the order of rows, [a n].

    An array of NumPy or JAX; a block may be cut to its first lanes.
    """
    several, lanes = len(values), values.shape[3]
    values = values.reshape(several, -1, CLUSTER, GROUP, lanes).transpose(0, 1, 4, 2, 3)
    return values.reshape(several, -1)


def rows_at(place: Int[np.ndarray, " p"], several: int) -> Int[np.ndarray, " p"]:
    """The rows at places in memory, counted over [several 32 64]."""
    block, group, row, lane = np.unravel_index(place, (several // CLUSTER, CLUSTER, GROUP, LANES))
    return ((block * LANES + lane) * CLUSTER + group) * GROUP + row


def whole_groups(
    codes: UInt32[Array, "m w 32 64"], group: Int[Array, "q g"]
) -> UInt32[Array, "q g 32 w"]:
    """The codes of the 32 rows of each group, u32[q g 32 w]."""
    block, lane, within = locate(group)
    place = (block * CLUSTER + within)[:, :, None]
    return codes[place, :, jnp.arange(GROUP)[None, None], lane[:, :, None]]


def single_rows(
    codes: UInt32[Array, "m w 32 64"], row: Int[Array, "q k"]
) -> UInt32[Array, "q k w"]:
    """The codes of rows, u32[q k w]."""
    block, lane, within = locate(row // GROUP)
    return codes[block * CLUSTER + within, :, row % GROUP, lane]


def locate(
    group: Int[Array, "..."],
) -> tuple[Int[Array, "..."], Int[Array, "..."], Int[Array, "..."]]:
    """The block of each group, its lane, and its place within the cluster."""
    cluster = group // CLUSTER
    return cluster // LANES, cluster % LANES, group % CLUSTER


def alive_groups(
    mask: UInt32[Array, "p v"] | None, size: Int32[Array, ""], groups: int
) -> UInt32[Array, "m p 64"]:
    """Return the mask word of each group: the rows that exist and that the packed mask keeps."""
    alive = first_bits(jnp.clip(size - GROUP * jnp.arange(groups), 0, GROUP)[None])
    if mask is not None:
        alive = alive & mask
    masks = alive.shape[0]
    alive = alive.reshape(masks, -1, LANES, CLUSTER).transpose(1, 3, 0, 2)
    return alive.reshape(-1, masks, LANES)
