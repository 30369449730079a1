"""The first searches of a shape on a CPU, in NumPy: exact, and without waiting for a compiler.

A compiled program is several times as fast as NumPy, but compiling it takes as long as hundreds of
small searches, and a program serves one shape. So NumPy answers until it has compared as many words
of a shape as it could in about the time of a compilation; from then on a program does.
"""

from collections.abc import Hashable

import numpy as np
from jaxtyping import Array, Int32, UInt, UInt32

from jaxret.codes import mask_of_rows
from jaxret.search import select
from jaxret.search.blocks import BLOCK, CLUSTER, GROUP, by_row
from jaxret.search.results import NEVER, far_type
from jaxret.search.threads import on_host_threads

BUDGET = 2**25  # words that NumPy compares for one program: some tenths of a second
AT_ONCE = 2**20  # bytes that are worked on at once, if memory allows: what fits a near cache
BYTES = 8  # of a query and row while they are compared, about


_compared: dict[Hashable, int] = {}  # program -> words


def answers(program: Hashable, queries: int, words: int, rows: int) -> bool:
    """Return whether NumPy answers a search, rather than a program that is not compiled yet.

    Args:
        program: what tells programs apart: the shapes that they are compiled for.
        queries: how many there are.
        words: of a code.
        rows: of the gallery.

    Returns:
        True until NumPy has been asked to compare more than `BUDGET` words for this program.
    """
    compared = _compared.get(program, 0) + queries * words * rows
    _compared[program] = compared
    return compared <= BUDGET


def topk(
    query: UInt32[Array | np.ndarray, "q w"],
    mask: UInt32[Array | np.ndarray, "p v"] | None,
    codes: UInt32[Array, "m w 32 64"],
    size: int,
    k: int,
    memory: int,
) -> tuple[Int32[np.ndarray, "q k"], Int32[np.ndarray, "q k"]]:
    """Return distances and rows of the k nearest codes, as `hamming.topk` does."""
    query, mask = np.asarray(query), None if mask is None else np.asarray(mask)
    rows = np.asarray(codes)
    if size <= BLOCK:  # of one block, the lanes that hold rows
        rows = rows[:CLUSTER, :, :, : max(1, -(-size // (CLUSTER * GROUP)))]
    per_query = BYTES * rows[:, 0].size
    found = []
    for tile, count in select.tiles([query, mask], per_query, min(memory, AT_ONCE), AT_ONCE):
        part, words = tile
        distances = all_distances(part[:count], rows)[:, :size]
        if words is not None:
            kept = mask_of_rows(words if len(words) == 1 else words[:count])[:, :size]
            distances = np.where(kept, distances, np.iinfo(distances.dtype).max)
        found.append(nearest(distances, k))
    distances, row = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return distances, row


def all_distances(
    query: UInt32[np.ndarray, "q w"], codes: UInt32[np.ndarray, "m w 32 l"]
) -> UInt[np.ndarray, "q n"]:
    """Return the distance of each query to all rows, in their order."""
    words = codes.shape[1]
    distances = np.zeros((len(query), *codes[:, 0].shape), far_type(words))
    for word in range(words):
        distances += np.bitwise_count(query[:, word, None, None, None] ^ codes[:, word])
    return by_row(distances)


def nearest(
    distances: UInt[np.ndarray, "q n"], k: int
) -> tuple[Int32[np.ndarray, "q k"], Int32[np.ndarray, "q k"]]:
    """Return the k least distances of each query and their rows, of equal ones the lower row first.

    The greatest value of the type means that there is no row; past the end too the distance is
    NEVER and the row -1. NumPy's stable sort of integers of up to 16 bits is a counting sort.
    """
    found = min(k, distances.shape[1])
    least = np.full((len(distances), k), NEVER, np.int32)
    row = np.full((len(distances), k), -1, np.int32)

    def sort(queries):
        for i in queries:
            order = np.argsort(distances[i], kind="stable")[:found]
            row[i, :found] = order
            least[i, :found] = distances[i].take(order)

    on_host_threads(sort, len(distances))
    far = np.iinfo(distances.dtype).max
    if row.size and least[:, found - 1].max(initial=0) == far:
        missing = least == far
        least[missing], row[missing] = NEVER, -1
    return least, row
