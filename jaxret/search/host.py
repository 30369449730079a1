"""The first searches of a shape on a CPU, in NumPy: exact, and without waiting for a compiler.

A compiled program is several times as fast as NumPy, but compiling it takes as long as hundreds of
small searches, and a program serves one shape. So NumPy answers until it has compared as many words
of a shape as it could in about the time of a compilation; from then on a program does.
"""

from collections.abc import Hashable

import numpy as np
from jaxtyping import Array, Int32, UInt, UInt32

from jaxret.codes import rows_of_words
from jaxret.search import select
from jaxret.search.blocks import BLOCK, CLUSTER, GROUP

BUDGET = 2**25  # words that NumPy compares for one program: some tenths of a second
AT_ONCE = 2**17  # distances that are computed at once: what fits a near cache
NEVER = np.iinfo(np.int32).max  # the distance past the end


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
) -> tuple[Int32[np.ndarray, "q k"], Int32[np.ndarray, "q k"]]:
    """Return distances and rows of the k nearest codes, as `hamming.topk` does."""
    distances = all_distances(np.asarray(query), np.asarray(codes), size)
    if mask is not None:
        kept = rows_of_words(np.asarray(mask))[:, :size]
        distances = np.where(kept, distances, np.iinfo(distances.dtype).max)
    return nearest(distances, k)


def all_distances(
    query: UInt32[np.ndarray, "q w"], codes: UInt32[np.ndarray, "m w 32 64"], size: int
) -> UInt[np.ndarray, "q n"]:
    """Return the distance of each query to the first rows, in the order of rows."""
    words = codes.shape[1]
    if size <= BLOCK:  # of one block, the lanes that hold rows
        codes = codes[:CLUSTER, :, :, : max(1, -(-size // (CLUSTER * GROUP)))]
    lanes = codes.shape[3]
    dtype = np.uint8 if 32 * words < 255 else np.uint16  # with a value left over, for "no row"
    found = np.empty((len(query), size), dtype)
    tile = max(1, AT_ONCE // (codes[:, 0].size or 1))
    for start in range(0, len(query), tile):
        part = query[start : start + tile, :, None, None, None]
        distances = np.zeros((len(part), *codes[:, 0].shape), dtype)
        for word in range(words):
            distances += np.bitwise_count(part[:, word] ^ codes[:, word])
        blocks = distances.reshape(len(part), -1, CLUSTER, GROUP, lanes)
        in_rows = blocks.transpose(0, 1, 4, 2, 3).reshape(len(part), -1)
        found[start : start + tile] = in_rows[:, :size]
    return found


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

    select.on_host_threads(sort, len(distances))
    far = np.iinfo(distances.dtype).max
    if row.size and least[:, found - 1].max(initial=0) == far:
        missing = least == far
        least[missing], row[missing] = NEVER, -1
    return least, row
