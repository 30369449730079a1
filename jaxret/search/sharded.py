"""A gallery spread over many devices, and over many machines: each searches its share.

The shares are contiguous in rows. Every device finds the k nearest of its own, the lists are
gathered in the order of devices, which is the order of rows, and merged once; so ties fall as they
do on one device.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Int32, Num, Shaped, UInt32

from jaxret.codes import WORD_BITS, words_from_row
from jaxret.search import select, validate
from jaxret.search.layout import CodeLayout, Mask, VectorLayout, layout_class
from jaxret.search.results import MEMORY, Neighbors, padded
from jaxret.search.select import Compiled, smallest
from jaxret.search.validate import Whole


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

    shares: CodeLayout | VectorLayout
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
        return self.shares.width


def shard(rows: Shaped[Array | np.ndarray, "n a"], mesh: Mesh) -> Sharded:
    """Lay packed codes, or vectors, out over all devices of a mesh, for repeated search.

    Where JAX runs in many processes, each calls this with rows of its own, as many as it likes, and
    the gallery is all of them in the order of the mesh's devices; or all pass one global array that
    is split by rows over the mesh.
    """
    here = _own_devices(mesh)
    by_rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    rows = _own_rows(rows, by_rows)
    kind = layout_class(rows)
    kind.check("gallery", rows)

    share = -(-len(rows) // len(here))
    own = [rows[i * share : (i + 1) * share] for i in range(len(here))]
    sizes = jax.make_array_from_process_local_data(
        by_rows, np.array([len(part) for part in own], np.int32), (mesh.size,)
    )
    everywhere = np.asarray(jax.device_put(sizes, NamedSharding(mesh, PartitionSpec())))
    ends = np.cumsum(everywhere, dtype=np.int64)
    validate.check_rows(int(ends[-1]))
    starts = (ends - everywhere).astype(np.int32)

    parts = []
    for part, device in zip(own, here, strict=True):
        with jax.default_device(device):  # no device ever holds more than its share
            parts.append(kind.make(np.asarray(part), int(everywhere.max())))

    def joined(*arrays):
        shape = mesh.size * arrays[0].shape[0], *arrays[0].shape[1:]
        return jax.make_array_from_single_device_arrays(shape, by_rows, list(arrays))

    shares = jax.tree.map(joined, *[part._replace(size=None) for part in parts])
    return Sharded(
        shares._replace(size=np.array(ends[-1], np.int32)),
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
    k: Whole,
    *,
    mask: Mask = None,
    memory: Whole = MEMORY,
) -> Neighbors:
    """Return the k nearest rows of all shares: what one device with all rows would find.

    Args:
        query: packed codes u32[q w], compared by Hamming distance, or vectors f32[q d], compared
            by squared Euclidean distance.
        gallery: what `shard` makes.
        k: as in `hamming_topk`.
        mask: over the rows of the whole gallery, as in `hamming_topk`.
        memory: bytes that each device holds beside its share and the result.

    Returns:
        Neighbors. Where JAX runs in many processes, all must make the same call, and each gets
        the whole result, on its first device.

    Raises:
        ValueError: if an argument has another type or shape, or a value out of its range.
    """
    shares = gallery.shares
    k, memory = validate.columns(k, shares.capacity), validate.whole("memory", memory)
    shares.check("query", query)
    validate.check_width(query, gallery.width)
    rows = None if validate.is_traced(shares.size) else int(shares.size)
    words = validate.mask_words(mask, len(query), rows, shares.capacity)
    traced = validate.is_traced(query, gallery.sizes, words)
    query = query if validate.is_traced(query) else np.asarray(query)
    if words is not None and not validate.is_traced(words):
        words = np.asarray(words)
    if len(query) == 0:
        return select.no_queries(k, shares.far)
    if words is not None:  # padded, so that every share cuts out the same number of words
        numpy = jnp if validate.is_traced(words) else np
        words = numpy.pad(words, ((0, 0), (0, gallery.capacity // WORD_BITS + 1)))
    wanted, k = k, k if traced else min(select.few_lengths(k), max(k, shares.capacity))
    search = partial(_SEARCH, mesh=gallery.mesh, k=k, memory=memory, kind=type(shares))
    arrays = gallery.sizes, gallery.starts, *shares._replace(size=None)
    found = (
        (search(*tile, *arrays), count)
        for tile, count in select.tiles([query, words], _per_query(gallery, k, words), memory)
    )
    finish = select.as_they_are if traced else _of_this_process
    distances, row = select.gather(found, finish)
    if not traced:
        distances, row = select.first(distances, row, k=wanted)
    return select.on_device(padded(distances, row, wanted, shares.far))


def _per_query(gallery, k, words):
    """The bytes that a query needs on each device, by the way that its share is searched."""
    rows = gallery.capacity
    k = min(k, rows)
    per_query = 16 * k * gallery.mesh.size
    if words is not None and len(words) > 1:
        per_query += 4 * words.shape[1] + rows // 4
    return per_query + gallery.shares.bytes_of_query(rows, gallery.width, k, host=False)


def _of_this_process(*result):
    """A result that is the same on all devices, on the first one of this process."""
    return tuple(array.addressable_data(0) for array in result)


def search_shares(
    query: Shaped[Array, "q a"],
    mask: UInt32[Array, "p v"] | None,
    sizes: Int[Array, " s"],
    starts: Int[Array, " s"],
    *arrays,
    mesh: Mesh,
    k: int,
    memory: int,
    kind: type[Any],
) -> tuple[Num[Array, "q k"], Int[Array, "q k"]]:
    """Search each share on its device, gather what was found, and merge it."""

    def search(query, mask, sizes, starts, *arrays):
        own = kind(*arrays)._replace(size=sizes[0])
        if mask is not None:
            mask = words_from_row(mask, starts[0], own.capacity // WORD_BITS)
        distances, row = own.search(query, mask, min(k, own.capacity), memory)
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


_SEARCH = Compiled(search_shares, ("mesh", "k", "memory", "kind"))
