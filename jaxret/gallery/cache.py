"""Where a gallery's rows lie while they are searched: kept on the device, or read as they are."""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64, Shaped, UInt32

from jaxret.codes import PackedMask
from jaxret.gallery.columns import Columns
from jaxret.gallery.store import release
from jaxret.search import Neighbors
from jaxret.search import rows as by_rows
from jaxret.search.validate import MOST_ROWS, mask_words
from jaxret.search.word_columns import WordColumns

if TYPE_CHECKING:
    from jaxret.search import CodeLayout, VectorLayout

MEMORY = 2**29  # bytes
STREAMED = 8  # a gallery that is not kept is read with an eighth of that: twice as fast as with all


class DeviceCache:
    """The rows of a gallery, laid out on the device as far as memory, in bytes, allows.

    Rows that need at most `memory` bytes are kept there between searches, and only blocks in which
    rows changed are written again. More than that is read at each search, and not kept. The first
    searches of codes are NumPy's, which needs neither JAX nor a layout.
    """

    def __init__(self, memory: int):
        self._memory = memory
        self._layout: Any = None  # CodeLayout or VectorLayout
        self._changed = set()  # blocks
        self._compared = 0  # words of codes, by NumPy
        self._revision = 0  # of the rows
        self._searched = -1  # the revision that one query searched last
        self._words: tuple[int, WordColumns] | None = None  # of a revision searched twice

    def touch(self, rows: Int64[np.ndarray, " m"]) -> None:
        """Note that rows were added or have changed."""
        self._revision += 1
        if self._layout is not None:
            self._changed.update(np.unique(rows // self._layout.block).tolist())

    def clear(self) -> None:
        """Note that rows have moved."""
        self._revision += 1
        self._layout = None

    def topk(
        self, query: Any, columns: Columns, k: int, *, mask: PackedMask | None = None
    ) -> Neighbors:
        """Return the k nearest rows. The mask covers removed rows as well."""
        rows = columns.values[: columns.size]
        if self._is_for_numpy(query, rows):
            words = mask_words(mask, len(query), len(rows), len(rows))
            found = Neighbors(*by_rows.topk(query, rows, k, words, self._compare(query, rows)))
            if rows.nbytes > self._memory:
                release(columns.values)
            return found
        if rows.nbytes > self._memory or len(rows) > MOST_ROWS:
            from jaxret.search import streamed_topk

            self._layout = None
            memory = max(1, self._memory // STREAMED)
            found = streamed_topk(query, rows, k, mask=mask, memory=memory)
            release(columns.values)
            return found
        layout = self._layout
        if layout is None or self._changed or layout.size != len(rows):
            layout = self._refreshed(rows)._replace(size=np.array(len(rows), np.int32))
            self._layout = layout
        return layout.nearest(query, k, mask=mask)

    def _is_for_numpy(self, query: Any, rows: Shaped[np.ndarray, "n a"]) -> bool:
        """Return whether NumPy searches codes as they lie, as it does until it has been asked for
        about as much as a program and its rows' layout cost. What is done sooner than a program
        starts is always NumPy's; so are few queries where rows are not kept, as laying them all out
        for one search costs more. An accelerator that JAX is at hand for searches at once.
        """
        if rows.dtype != np.uint32 or by_rows.BYTES * len(rows) > self._memory:
            return False
        work = rows.size * len(query)
        few = len(query) <= by_rows.HANDFUL and rows.nbytes > self._memory
        if work <= by_rows.QUICK or few or (len(query) == 1 and work <= by_rows.SMALL):
            return not _on_accelerator()
        if self._layout is None and self._compared + work <= by_rows.BUDGET:
            self._compared += work
            return not _on_accelerator()
        return False

    def _compare(self, query: Any, rows: UInt32[np.ndarray, "n w"]) -> Any:
        """How one query is compared with few rows that did not change since the last search."""
        if len(query) > 1 or rows.size > by_rows.SMALL or 2 * rows.nbytes > self._memory:
            return None
        # What a change meanwhile makes of rows belongs to the next revision, whoever stores it.
        revision, kept = self._revision, self._words
        if kept is not None and kept[0] == revision and kept[1].words.shape[1] == len(rows):
            return kept[1].distances
        if self._searched != revision:
            self._searched, self._words = revision, None
            return None
        words = WordColumns.make(rows)
        self._words = revision, words
        return words.distances

    def _refreshed(self, rows: Shaped[np.ndarray, "n a"]) -> "CodeLayout | VectorLayout":
        """Return the layout with the rows that changed and with room for those that were added."""
        from jaxret.search import lay_out

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


def _on_accelerator() -> bool:
    """Is JAX at hand, and computes on an accelerator?"""
    if "jax" not in sys.modules:
        return False
    from jaxret.search.select import on_accelerator

    return on_accelerator()
