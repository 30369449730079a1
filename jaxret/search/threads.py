"""Threads of the host, and what NumPy does on them."""

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float32, Int32, Integer, Shaped
from numpy.typing import DTypeLike

FEW = 2  # numbers for each that is wanted: if there are fewer, all are sorted
AT_ONCE = 2**17  # numbers, or one row, that are sorted by one operation; 3 MB


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="jaxret-search")


def on_host_threads(function: Callable[[np.ndarray], None], count: int) -> None:
    """Call a function on the numbers below count, split over threads, and wait for all.

    NumPy lets other threads run while it works.
    """
    if count == 1:  # dividing costs as much as a small search
        function(np.zeros(1, np.int64))
        return
    parts = np.array_split(np.arange(count), min(count, cores()) or 1)
    if len(parts) == 1:
        function(parts[0])
    else:
        list(_pool().map(function, parts))


class Scratch(threading.local):
    """Memory that a thread works in again and again: fresh memory costs more than the work."""

    def __init__(self):
        self._bytes = np.empty(0, np.uint8)

    def array(self, dtype: DTypeLike, count: int) -> Shaped[np.ndarray, " c"]:
        """Return `count` numbers of it, whatever they hold; it grows where that is needed."""
        size = count * np.dtype(dtype).itemsize
        if len(self._bytes) < size:
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size].view(dtype)


def least_on_host(
    distances: Float32[np.ndarray, "q n"], k: int
) -> tuple[Float32[np.ndarray, "q k"], Int32[np.ndarray, "q k"]]:
    """Return the k least distances of each row in order, and where they stand, -1 if infinite.

    NumPy finds the k-th distance by vector instructions, and few are left to sort, unless k is more
    than half of a row. Distances must not be negative or NaN.
    """
    queries, count = distances.shape
    nearest, column = np.empty((queries, k), np.float32), np.empty((queries, k), np.int32)
    place = np.arange(count, dtype=np.uint64)

    def select(queries):
        few = place
        for i in queries:
            values = distances[i]
            if k < count:
                few = np.flatnonzero(values <= np.partition(values, k - 1)[k - 1])
                values = values[few]
            keys = _keys(values, few)
            keys.sort()
            nearest[i], column[i] = _split(keys[:k])

    def sort(queries):  # one operation for many queries costs less than one for each
        for part in np.array_split(queries, -(-len(queries) * count // AT_ONCE) or 1):
            keys = _keys(distances[part], place[None])
            keys.sort(axis=1)
            nearest[part], column[part] = _split(keys[:, :k])

    on_host_threads(sort if count < FEW * k else select, queries)
    column[np.isinf(nearest)] = -1
    return nearest, column


def _keys(values: Float32[np.ndarray, "..."], place: Integer[np.ndarray, "..."]) -> np.ndarray:
    """Integers in the order of values, then of places; bits of floats that are not negative are
    ordered as the floats are.
    """
    return values.view(np.uint32).astype(np.uint64) << 32 | place.astype(np.uint64)


def _split(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (keys >> 32).astype(np.uint32).view(np.float32), keys.astype(np.uint32)
