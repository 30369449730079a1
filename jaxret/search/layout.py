"""The two layouts of a gallery on a device, codes and vectors, behind one face.

A layout is a pytree: it goes through jit, and its size may change without a new compilation. Both
have:

    make(rows, capacity)    lay rows out, with room for at least capacity rows (a class method)
    check(name, rows)       refuse rows of another type (a static method)
    topk(query, k, mask=, memory=) -> Neighbors
    overwrite(start, rows) -> layout, one block written over; the layout it is called on is used up
    size                    the rows there are; capacity: the rows there is room for
    width                   words of a code, or features of a vector
    block                   the rows that are written together: capacities are multiples of it
    far                     the distance past the end of a gallery
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt32

from jaxret.codes import PackedMask
from jaxret.search import blocks, euclidean, hamming, select, validate, vectors
from jaxret.search.results import MEMORY, Neighbors, padded
from jaxret.search.validate import Whole

Mask = Bool[Array | np.ndarray, "..."] | PackedMask | None


@runtime_checkable
class Layout(Protocol):
    """What search, galleries and evaluation use of a layout; see the module's description."""

    far: Any
    block: int

    @property
    def size(self) -> Any: ...
    @property
    def capacity(self) -> int: ...
    @property
    def width(self) -> int: ...
    def topk(self, query: Any, k: Whole, *, mask: Any = None, memory: Whole = ...) -> Neighbors: ...
    def overwrite(self, start: int, rows: Any) -> "Layout": ...


class CodeLayout(NamedTuple):
    """Packed codes laid out for search by Hamming distance: see `blocks` for their order.

    Past the end the last row is repeated.
    """

    codes: UInt32[Array, "m w 32 64"]
    size: Int32[Array | np.ndarray, ""]

    block = blocks.BLOCK
    far = hamming.NEVER
    check = staticmethod(validate.check_codes)

    @classmethod
    def make(cls, rows: UInt32[Array | np.ndarray, "n w"], capacity: Whole = 0) -> "CodeLayout":
        """Lay packed codes out, with room for at least capacity rows."""
        cls.check("gallery", rows)
        return cls(blocks.place(rows, _room(rows, capacity, cls.block)), np.array(len(rows), "i4"))

    @property
    def width(self) -> int:
        """The words of a code."""
        return self.codes.shape[1]

    @property
    def capacity(self) -> int:
        """The rows that there is room for."""
        return self.codes.shape[0] * blocks.GROUP * blocks.LANES

    def overwrite(self, start: int, rows: UInt32[Array | np.ndarray, "n w"]) -> "CodeLayout":
        """Return the layout with the rows of one block, from row start on, written over."""
        return self._replace(codes=blocks.write_block(self.codes, start, rows))

    def topk(
        self,
        query: UInt32[Array | np.ndarray, "q w"],
        k: Whole,
        *,
        mask: Mask = None,
        memory: Whole = MEMORY,
    ) -> Neighbors:
        """Return the k nearest rows to each query; arguments as for `hamming_topk`."""
        return select.on_device(self.nearest(query, k, mask=mask, memory=memory))

    def nearest(
        self, query: Any, k: Whole, *, mask: Mask = None, memory: Whole = MEMORY
    ) -> Neighbors:
        """Return what `topk` returns, in NumPy where the host found it."""
        return _nearest(self, query, k, mask, memory, _known(self.size))

    def search(
        self,
        query: UInt32[Array | np.ndarray, "q w"],
        words: UInt32[Array | np.ndarray, "p v"] | None,
        k: int,
        memory: int,
    ) -> tuple[Int32[Array | np.ndarray, "q k"], Int32[Array | np.ndarray, "q k"]]:
        """Search for k rows that there is room for; nothing is checked or padded."""
        return hamming.topk(query, words, *self, k, memory)

    @classmethod
    def bytes_of_query(cls, capacity: int, width: int, k: int, host: bool) -> int:
        """Return about how much memory a query needs beside the layout."""
        return hamming.bytes_of_query(capacity, width, k, host)


class VectorLayout(NamedTuple):
    """Vectors with what search by squared Euclidean distance needs beside them: see `vectors`."""

    rows: Float[Array, "m d"]
    size: Int32[Array | np.ndarray, ""]
    centre: Float32[Array, " d"]
    low: Float32[Array, " m"]

    block = vectors.TILE
    far = np.inf
    check = staticmethod(validate.check_vectors)

    @classmethod
    def make(cls, rows: Float[Array | np.ndarray, "n d"], capacity: Whole = 0) -> "VectorLayout":
        """Prepare float32 or bfloat16 vectors, with room for at least capacity rows."""
        cls.check("gallery", rows)
        placed, centre, low = vectors.place(rows, _room(rows, capacity, cls.block))
        return cls(placed, np.array(len(rows), "i4"), centre, low)

    @property
    def width(self) -> int:
        """The length of a vector."""
        return self.rows.shape[1]

    @property
    def capacity(self) -> int:
        """The rows that there is room for."""
        return self.rows.shape[0]

    def overwrite(self, start: int, rows: Float[Array | np.ndarray, "n d"]) -> "VectorLayout":
        """Return the layout with the rows of one tile, from row start on, written over."""
        placed, low = vectors.write_tile(self.rows, self.centre, self.low, start, rows)
        return self._replace(rows=placed, low=low)

    def topk(
        self,
        query: Float[Array | np.ndarray, "q d"],
        k: Whole,
        *,
        mask: Mask = None,
        memory: Whole = MEMORY,
    ) -> Neighbors:
        """Return the k nearest rows to each query; arguments as for `euclidean_topk`."""
        return select.on_device(self.nearest(query, k, mask=mask, memory=memory))

    def nearest(
        self, query: Any, k: Whole, *, mask: Mask = None, memory: Whole = MEMORY
    ) -> Neighbors:
        """Return what `topk` returns, in NumPy where the host found it."""
        return _nearest(self, query, k, mask, memory, _known(self.size))

    def search(
        self,
        query: Float[Array | np.ndarray, "q d"],
        words: UInt32[Array | np.ndarray, "p v"] | None,
        k: int,
        memory: int,
    ) -> tuple[Float32[Array | np.ndarray, "q k"], Int32[Array | np.ndarray, "q k"]]:
        """Search for k rows that there is room for; nothing is checked or padded."""
        return euclidean.topk(query.astype(np.float32), words, *self, k, memory)

    @classmethod
    def bytes_of_query(cls, capacity: int, width: int, k: int, host: bool) -> int:
        """Return about how much memory a query needs beside the layout."""
        group = euclidean.rows_of_group(capacity, width, k, host)
        return euclidean.bytes_of_query(capacity, width, k, group)


def layout_class(rows: Any) -> type[CodeLayout] | type[VectorLayout]:
    """Return the layout for rows of this type: uint32 are packed codes, others are vectors."""
    return CodeLayout if validate.array("gallery", rows).dtype == np.uint32 else VectorLayout


def lay_out(rows: Any, capacity: Whole = 0) -> CodeLayout | VectorLayout:
    """Lay packed codes u32[n w], or vectors f32[n d], out for repeated search.

    There is room for at least capacity rows, so that a gallery can grow without new compilations.
    """
    return layout_class(rows).make(rows, capacity)


def hamming_topk(
    query: UInt32[Array | np.ndarray, "q w"],
    gallery: UInt32[Array | np.ndarray, "n w"] | CodeLayout,
    k: Whole,
    *,
    mask: Mask = None,
    memory: Whole = MEMORY,
) -> Neighbors:
    """Return the k nearest codes of the gallery to each query, by the number of bits that differ.

    Args:
        query: packed codes u32[q w].
        gallery: packed codes u32[n w], or, to search more than once, what `lay_out` makes of them.
        k: how many neighbors, at least 1. A result has k columns, -1 past the end; of a k that is
            greater than 65,536 and than the rows there is room for, only the greater of the two.
        mask: bool[n], or bool[q n] with a row for each query: the search keeps to the rows where
            it is true. `codes.pack_mask` packs a mask that is used more than once. Under jit, a
            mask over a layout covers its capacity.
        memory: bytes held beside the codes and the result; queries are searched in tiles.

    Returns:
        Neighbors: distances in bits, i32[q k], ascending, and rows i32[q k]; of equal distances
        the lower row comes first.

    Raises:
        ValueError: if an argument has another type or shape, or a value out of its range.
    """
    return _topk_of(CodeLayout, query, gallery, k, mask, memory)


def euclidean_topk(
    query: Float[Array | np.ndarray, "q d"],
    gallery: Float[Array | np.ndarray, "n d"] | VectorLayout,
    k: Whole,
    *,
    mask: Mask = None,
    memory: Whole = MEMORY,
) -> Neighbors:
    """Return the k nearest vectors of the gallery to each query, by squared Euclidean distance.

    The distance is the sum of squared differences in float32, in the order of the features.

    Args:
        query: float32 or bfloat16 vectors [q d].
        gallery: such vectors [n d], or, to search more than once, what `lay_out` makes of them.
        k: as in `hamming_topk`.
        mask: as in `hamming_topk`.
        memory: as in `hamming_topk`.

    Returns:
        Neighbors: squared distances f32[q k], infinite past the end, and rows i32[q k].

    Raises:
        ValueError: if an argument has another type or shape, or a value out of its range.
    """
    return _topk_of(VectorLayout, query, gallery, k, mask, memory)


def _topk_of(kind, query, gallery, k, mask, memory) -> Neighbors:
    if isinstance(gallery, kind):
        return gallery.topk(query, k, mask=mask, memory=memory)
    if hasattr(gallery, "topk"):
        raise ValueError(f"the gallery must be a {kind.__name__}, got {type(gallery).__name__}")
    k, memory = validate.whole("k", k), validate.whole("memory", memory)
    kind.check("query", query)
    return select.on_device(_nearest(kind.make(gallery), query, k, mask, memory, len(gallery)))


def _nearest(layout, query, k, mask, memory, rows: int | None) -> Neighbors:
    k, memory = validate.columns(k, layout.capacity), validate.whole("memory", memory)
    layout.check("query", query)
    validate.check_width(query, layout.width)
    words = validate.mask_words(mask, len(query), rows, layout.capacity)
    if len(query) == 0:
        return select.no_queries(k, layout.far)
    distances, row = layout.search(query, words, min(k, layout.capacity), memory)
    return padded(distances, row, k, layout.far)


def _known(size) -> int | None:
    """The rows of a layout, None under jit."""
    return None if validate.is_traced(size) else int(size)


def _room(rows, capacity, block):
    needed = max(len(rows), validate.whole("capacity", capacity, 0), 1)
    validate.check_rows(needed)
    return -(-needed // block) * block
