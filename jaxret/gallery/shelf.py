"""Where a gallery's rows lie while they are searched: kept on the device, or read as they are."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int64, Shaped

from jaxret.gallery.columns import Columns
from jaxret.gallery.store import release
from jaxret.search import (
    BLOCK,
    TILE,
    Neighbors,
    euclidean_topk,
    hamming_topk,
    lay_out,
    lay_out_vectors,
    overwrite,
    overwrite_vectors,
    streamed_topk,
)

MEMORY = 2**29  # bytes
STREAMED = 8  # a gallery that is not kept is read with an eighth of that: twice as fast as with all


class Kind(NamedTuple):
    """What differs between galleries of codes and of vectors.

    block is a number of rows: capacities are multiples of it.
    """

    block: int
    lay_out: Callable  # (rows, capacity) -> what lies on the device
    put: Callable  # (what lies there, first row, rows) -> the same with one block written over
    topk: Callable


class Shelf:
    """The rows of a gallery, laid out on the device as far as memory, in bytes, allows.

    Rows of at most so many bytes are kept there between searches, and only blocks in which rows
    changed are written again. More than that is read at each search, and not kept.
    """

    def __init__(self, kind: Kind, memory: int):
        self._kind = kind
        self._memory = memory
        self._laid = None
        self._capacity = 0
        self._changed = set()  # blocks

    def touch(self, rows: Int64[np.ndarray, " m"]) -> None:
        """Rows were added or have changed."""
        self._changed.update(np.unique(rows // self._kind.block).tolist())

    def clear(self) -> None:
        """Rows have moved."""
        self._laid = None

    def topk(self, query, columns: Columns, k: int, *, mask=None) -> Neighbors:
        """The k nearest rows; a mask is packed, and is over all rows, the dead ones too."""
        rows = columns.values[: columns.size]
        if rows.nbytes > self._memory:
            self._laid = None
            memory = max(1, self._memory // STREAMED)
            found = streamed_topk(query, rows, k, mask=mask, memory=memory)
            release(columns.values)
            return found
        self._laid = self._refreshed(rows)._replace(size=jnp.int32(columns.size))
        return self._kind.topk(query, self._laid, k, mask=mask)

    def _refreshed(self, rows: Shaped[np.ndarray, "n a"]) -> Any:
        """What is kept, with the rows that changed and with room for those that were added."""
        block, size = self._kind.block, len(rows)
        changed, self._changed = sorted(self._changed), set()
        laid, self._laid = self._laid, None  # given up where the device fails half-way
        if not size <= self._capacity <= max(4 * size, block):
            # Half as much room again: a gallery that grows is compiled for a few times only.
            room = max(size, self._capacity * 3 // 2) if size > self._capacity else size
            self._capacity, laid = max(1, -(-room // block)) * block, None
        if laid is None or len(changed) * block * 2 > self._capacity:
            return self._kind.lay_out(rows, self._capacity)
        for start in (number * block for number in changed):
            laid = self._kind.put(laid, start, rows[start : start + block])
        return laid


KINDS = {
    "codes": Kind(BLOCK, lay_out, overwrite, hamming_topk),
    "vectors": Kind(TILE, lay_out_vectors, overwrite_vectors, euclidean_topk),
}
