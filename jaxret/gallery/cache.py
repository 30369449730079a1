"""Where a gallery's rows lie while they are searched: kept on the device, or read as they are."""

from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from jaxret.codes import PackedMask
from jaxret.gallery.columns import Columns
from jaxret.gallery.store import release
from jaxret.search import CodeLayout, Neighbors, VectorLayout, lay_out, streamed_topk
from jaxret.search.validate import MOST_ROWS

MEMORY = 2**29  # bytes
STREAMED = 8  # a gallery that is not kept is read with an eighth of that: twice as fast as with all


class DeviceCache:
    """The rows of a gallery, laid out on the device as far as memory, in bytes, allows.

    Rows that need at most `memory` bytes are kept there between searches, and only blocks in which
    rows changed are written again. More than that is read at each search, and not kept.
    """

    def __init__(self, memory: int):
        self._memory = memory
        self._layout: CodeLayout | VectorLayout | None = None
        self._changed = set()  # blocks

    def touch(self, rows: Int64[np.ndarray, " m"]) -> None:
        """Note that rows were added or have changed."""
        if self._layout is not None:
            self._changed.update(np.unique(rows // self._layout.block).tolist())

    def clear(self) -> None:
        """Note that rows have moved."""
        self._layout = None

    def topk(
        self, query: Any, columns: Columns, k: int, *, mask: PackedMask | None = None
    ) -> Neighbors:
        """Return the k nearest rows. The mask covers removed rows as well."""
        rows = columns.values[: columns.size]
        if rows.nbytes > self._memory or len(rows) > MOST_ROWS:
            self._layout = None
            memory = max(1, self._memory // STREAMED)
            found = streamed_topk(query, rows, k, mask=mask, memory=memory)
            release(columns.values)
            return found
        layout = self._refreshed(rows)._replace(size=np.array(len(rows), np.int32))
        self._layout = layout
        return layout.topk(query, k, mask=mask)

    def _refreshed(self, rows: Shaped[np.ndarray, "n a"]) -> CodeLayout | VectorLayout:
        """Return the layout with the rows that changed and with room for those that were added."""
        size, (changed, self._changed) = len(rows), (sorted(self._changed), set())
        layout, self._layout = self._layout, None  # given up where the device fails half-way
        if layout is None:
            return lay_out(rows)
        capacity = layout.capacity
        if size > capacity:  # half as much room again: a gallery that grows compiles a few times
            return lay_out(rows, min(max(size, capacity * 3 // 2), MOST_ROWS))
        if capacity > max(4 * size, layout.block):
            return lay_out(rows)
        if len(changed) * layout.block * 2 > capacity:
            return lay_out(rows, capacity)
        for start in (number * layout.block for number in changed):
            layout = layout.overwrite(start, rows[start : start + layout.block])
        return layout
