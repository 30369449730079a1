"""A gallery spread over many devices, and over many machines: each searches its share.

The shares are contiguous in rows. Every device finds the k nearest of its own, the lists are
gathered in the order of devices, which is the order of rows, and merged once; so ties fall as they
do on one device.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int32, Shaped, UInt32

from jaxret.search import blocks, doors, euclidean, hamming, select, vectors
from jaxret.search.select import Compiled, Neighbors, smallest

MOST_ROWS = np.iinfo(np.int32).max  # an index is an int32


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["shares", "sizes", "starts"],
    meta_fields=["mesh"],
)
@dataclass(frozen=True)
class Sharded:
    """A gallery's shares, one on each device of a mesh, in the order of the mesh's devices.

    An array of shares has that of each device one after the other, and all are as large; sizes are
    the rows in them, and starts the gallery row that each begins with. The size of shares is that
    of the gallery.
    """

    shares: blocks.CodeBlocks | vectors.Vectors
    sizes: Int32[Array, " devices"]
    starts: Int32[Array, " devices"]
    mesh: Mesh

    @property
    def capacity(self) -> int:
        """The rows that there is room for in one share."""
        return self.shares.capacity // self.mesh.size

    @property
    def width(self) -> int:
        """The words of a code, or the length of a vector."""
        shares = self.shares
        return shares.words if isinstance(shares, blocks.CodeBlocks) else shares.width


def shard(rows: Shaped[Array | np.ndarray, "n a"], mesh: Mesh) -> Sharded:
    """Lay packed codes, or vectors, out over all devices of a mesh, for repeated search.

    Where JAX runs in many processes, each calls this with rows of its own, as many as it likes, and
    the gallery is all of them in the order of the mesh's devices; or all pass one global array that
    is split by rows over the mesh.
    """
    here = _own_devices(mesh)
    by_rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    rows = _own_rows(rows, by_rows)
    is_codes = rows.dtype == np.uint32
    (doors.check_codes if is_codes else doors.check_vectors)("gallery", rows)
    lay_out = blocks.lay_out if is_codes else vectors.lay_out_vectors

    share = -(-len(rows) // len(here))
    own = [rows[i * share : (i + 1) * share] for i in range(len(here))]
    sizes = jax.make_array_from_process_local_data(
        by_rows, np.array([len(part) for part in own], np.int32), (mesh.size,)
    )
    everywhere = np.asarray(jax.device_put(sizes, NamedSharding(mesh, PartitionSpec())))
    ends = np.cumsum(everywhere, dtype=np.int64)
    if ends[-1] > MOST_ROWS:
        raise ValueError(f"a gallery has at most {MOST_ROWS} rows, got {ends[-1]}")
    starts = (ends - everywhere).astype(np.int32)

    parts = []
    for part, device in zip(own, here, strict=True):
        with jax.default_device(device):  # no device ever holds more than its share
            parts.append(lay_out(np.asarray(part), int(everywhere.max())))

    def joined(*arrays):
        shape = mesh.size * arrays[0].shape[0], *arrays[0].shape[1:]
        return jax.make_array_from_single_device_arrays(shape, by_rows, list(arrays))

    shares = jax.tree.map(joined, *[part._replace(size=None) for part in parts])
    return Sharded(
        shares._replace(size=jnp.int32(ends[-1])),
        sizes,
        jax.make_array_from_callback((mesh.size,), by_rows, lambda place: starts[place]),
        mesh,
    )


def _own_devices(mesh):
    """The devices of this process, in the order of the mesh."""
    owners = [device.process_index for device in mesh.devices.flat]
    runs = [owner for i, owner in enumerate(owners) if i == 0 or owner != owners[i - 1]]
    if len(runs) != len(set(runs)):
        raise ValueError(f"a mesh must have each process's devices in one run, got {owners}")
    if jax.process_index() not in runs:
        raise ValueError(
            f"a mesh must have devices of process {jax.process_index()}, got those of {runs}"
        )
    return [device for device in mesh.devices.flat if device.process_index == jax.process_index()]


def _own_rows(rows, by_rows):
    """The rows that this process has: all that it passes, or its part of a global array."""
    if not isinstance(rows, jax.Array) or rows.is_fully_addressable:
        return rows
    if not rows.sharding.is_equivalent_to(by_rows, rows.ndim):
        raise ValueError(
            f"a global array must be split by rows over the mesh, as by {by_rows}, "
            f"got {rows.sharding}"
        )
    parts = sorted(rows.addressable_shards, key=lambda part: part.index[0].start)
    return np.concatenate([np.asarray(part.data) for part in parts])


def sharded_topk(
    query: UInt32[Array | np.ndarray, "q w"] | Float[Array | np.ndarray, "q d"],
    gallery: Sharded,
    k: int,
    *,
    mask: Bool[Array | np.ndarray, "..."] | UInt32[Array | np.ndarray, "..."] | None = None,
    memory: int = select.MEMORY,
) -> Neighbors:
    """The k nearest rows of all shares: what one device with all rows would find.

    Codes are compared by Hamming distance, vectors by squared Euclidean distance. mask is over the
    rows of the whole gallery, as in `hamming_topk`. memory bounds, in bytes, what each device holds
    beside its share and the result. Where JAX runs in many processes, all must ask the same, and
    each gets the whole answer, on its first device.
    """
    doors.check_k(k)
    doors.check_memory(memory)
    is_codes = isinstance(gallery.shares, blocks.CodeBlocks)
    (doors.check_codes if is_codes else doors.check_vectors)("query", query)
    doors.check_width(query, gallery.width)
    traced = doors.is_traced(query, gallery.sizes, mask)
    query, mask = (
        array if array is None or doors.is_traced(array) else np.asarray(array)
        for array in (query, mask)
    )
    mask = _packed_mask(mask, len(query), gallery)
    if len(query) == 0:
        return select.no_queries(k, jnp.int32 if is_codes else jnp.float32)
    search = partial(_SEARCH, mesh=gallery.mesh, k=k, memory=memory, kind=type(gallery.shares))
    arrays = gallery.sizes, gallery.starts, *gallery.shares._replace(size=None)
    found = (
        (search(*tile, *arrays), count)
        for tile, count in select.tiles([query, mask], _per_query(gallery, k, mask), memory)
    )
    found = select.gather(found, _as_they_are if traced else _of_this_process)
    return select.neighbors(*found, k, hamming.NEVER if is_codes else np.inf)


def _packed_mask(mask, queries, gallery):
    """The mask as packed words, with so many behind it that each share can cut as many out."""
    if mask is None:
        return None
    if doors.is_traced(mask, gallery.shares.size):
        mask = doors.packed(mask[None] if mask.ndim == 1 else mask)
    else:
        mask = doors.packed(doors.check_mask(mask, queries, int(gallery.shares.size)))
    numpy = np if isinstance(mask, np.ndarray) else jnp
    words = (gallery.mesh.size + 1) * gallery.capacity // 32 + 1
    return numpy.pad(mask, ((0, 0), (0, words - mask.shape[1])))


def _per_query(gallery, k, mask):
    """The bytes that a query needs on each device, by the way that its share is searched."""
    rows, width, devices = gallery.capacity, gallery.width, gallery.mesh.size
    k = min(k, rows)
    per_query = 16 * k * devices
    if mask is not None and len(mask) > 1:
        per_query += 4 * mask.shape[1] + rows // 4
    if isinstance(gallery.shares, vectors.Vectors):
        group = euclidean.rows_of_group(rows, width, k, on_host=False)
        return per_query + euclidean.bytes_of_query(rows, width, k, group)
    if k <= hamming.FEW:
        return per_query + rows // 16 + 256 * k * width
    return per_query + (rows + k * (64 + 4 * width) if k * hamming.LARGE <= rows else 16 * rows)


def _as_they_are(*result):
    return result


def _of_this_process(*result):
    """A result that is the same on all devices, on the first one of this process."""
    return tuple(array.addressable_data(0) for array in result)


def search_shares(query, mask, sizes, starts, *arrays, mesh, k, memory, kind):
    """Search each share on its device, gather what was found, and merge it."""
    topk = hamming.hamming_topk if kind is blocks.CodeBlocks else euclidean.euclidean_topk

    def search(query, mask, sizes, starts, *arrays):
        own = kind(*arrays)._replace(size=sizes[0])
        if mask is not None:
            mask = _own_mask(mask, starts[0], own.capacity // 32)
        distances, row = topk(query, own, min(k, own.capacity), mask=mask, memory=memory)
        row = jnp.where(row < 0, row, row + starts[0])
        distances, row = (
            lax.all_gather(part, mesh.axis_names, axis=1, tiled=True) for part in (distances, row)
        )
        # Of equal distances the first stays first: shares follow each other as their rows do.
        best = smallest(distances, min(k, distances.shape[1]))
        return jnp.take_along_axis(distances, best, axis=1), jnp.take_along_axis(row, best, axis=1)

    whole, by_rows = PartitionSpec(), PartitionSpec(mesh.axis_names)
    return jax.shard_map(
        search,
        mesh=mesh,
        in_specs=(whole, whole, *[by_rows] * (2 + len(arrays))),
        out_specs=whole,
        check_vma=False,  # what was gathered is the same everywhere, but JAX cannot prove it
    )(query, mask, sizes, starts, *arrays)


def _own_mask(mask: UInt32[Array, "p v"], start: Int32[Array, ""], words: int):
    """The words of a packed mask from a row on, which need not begin a word."""
    mask = lax.dynamic_slice_in_dim(mask, start // 32, words + 1, axis=1)
    shift = (start % 32).astype(jnp.uint32)
    # A word has no 32nd bit to shift to: two shifts, of which one is 1.
    return mask[:, :-1] >> shift | mask[:, 1:] << (31 - shift) << 1


_SEARCH = Compiled(search_shares, ("mesh", "k", "memory", "kind"))
