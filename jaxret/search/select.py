"""What every search shares: its result, tiles of queries, stages that XLA must not merge."""

import collections
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32, Num, UInt32

from jaxret.search import validate
from jaxret.search.results import Neighbors
from jaxret.search.validate import Whole

NEAR = 2**26  # bytes: what does not fit the caches by far is slower; touching fresh memory is too
FEW, LITTLE = 16, 512  # chosen, and to choose from: see `smallest`
PREFERRED = (100, 125, 160, 200, 250, 320, 400, 500, 640, 800)  # Renard's series R10, of ISO 3
LEAST_QUERIES, MOST_QUERIES = 32, 1024  # in a tile, where memory allows
MOST_ON_ACCELERATOR = 2**14  # the same there: fewer tiles are fewer launches


def few_sizes(count: Whole) -> int:
    """The least number of the form 4..7 times a power of two that is not below count.

    Sizes of this form waste a quarter at most, and there are only four of them per doubling:
    compiled searches are reused.
    """
    count = validate.whole("count", count)
    unit = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // unit) * unit


def few_lengths(k: int) -> int:
    """The least preferred number that is not below k: the neighbors that a search for k finds.

    Every k compiles a program, and these are ten per power of ten, with the lengths that people
    choose (10, 100, 1000) among them. The first k of a longer result are the result for k.
    """
    if k <= 10:
        return k
    scale = 10 ** (len(str(k)) - 1)
    sizes = (-(-number * scale // 100) for number in PREFERRED)
    return next((size for size in sizes if size >= k), 10 * scale)


def first(*arrays: Any, k: int) -> tuple:
    """Return the first k columns; NumPy cuts them on CPU, where JAX would compile a program."""
    if arrays[0].shape[1] <= k:
        return arrays
    host = on_cpu(*arrays) and not any(isinstance(array, jax.core.Tracer) for array in arrays)
    return tuple((np.asarray(array) if host else array)[:, :k] for array in arrays)


def noinline(here: Bool[Array, ""] | bool, function: Callable, *args) -> Any:
    """Compute a function's result once, out of reach of what uses it.

    XLA fuses a cheap producer into each of its consumers and computes it again for each of their
    elements; on CPU it also drops `optimization_barrier`. It does not look through a conditional,
    so here must be true, but not so that the compiler can know.
    """
    shapes = jax.eval_shape(function, *args)

    def nothing(*_):
        return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    return lax.cond(here, function, nothing, *args)


def smallest(values: Num[Array, "q v"], k: int) -> Int32[Array, "q k"]:
    """The positions of the k smallest of each row, by value, then by position.

    XLA's top_k is fast for float32 alone, so integers must be below 2^24; it keeps ties in order.
    For many queries that each choose few of little, one minimum after the other is faster.
    """
    queries, count = values.shape
    place = (count - 1).bit_length()
    whole = jnp.issubdtype(values.dtype, jnp.integer)
    if not (whole and k <= FEW and count <= LITTLE and queries >= LEAST_QUERIES):
        return lax.top_k(-values.astype(jnp.float32), k)[1]
    # 2^(32 - place) and more, such as the mark of no row, is the same as the last value below.
    values = jnp.minimum(values.astype(jnp.uint32), (1 << (32 - place)) - 1)
    keys = values << place | jnp.arange(count, dtype=jnp.uint32)[None]  # all different
    if on_accelerator():
        return _by_rank(keys, k)
    keys = keys.T

    def next_key(last, _):
        key = jnp.min(jnp.where(keys > last[None], keys, jnp.uint32(0xFFFFFFFF)), axis=0)
        return key, key

    first = jnp.min(keys, axis=0)
    _, others = lax.scan(next_key, first, length=k - 1)
    chosen = jnp.concatenate([first[None], others]).T & jnp.uint32((1 << place) - 1)
    return chosen.astype(jnp.int32)


def _by_rank(keys: UInt32[Array, "q v"], k: int) -> Int32[Array, "q k"]:
    """The positions of the k smallest of each row, from how many are smaller than each.

    All pairs are compared at once, where a loop would start k steps one after the other.
    """
    rank = jnp.sum(keys[:, None, :] < keys[:, :, None], axis=2, dtype=jnp.int32)
    here = rank[:, None, :] == jnp.arange(k, dtype=jnp.int32)[None, :, None]
    position = lax.broadcasted_iota(jnp.int32, here.shape, 2)
    return jnp.sum(jnp.where(here, position, 0), axis=2)


def ascending(distinct: Int32[Array, "q k"]) -> Int32[Array, "q k"]:
    """Each row in order, its values being different; a sort costs more for few."""
    k = distinct.shape[1]
    if k > FEW:
        return jnp.sort(distinct, axis=1)
    rank = jnp.sum(distinct[:, :, None] > distinct[:, None], axis=2)
    there = rank[:, None] == jnp.arange(k)[None, :, None]
    return jnp.sum(jnp.where(there, distinct[:, None], 0), axis=2)


class Compiled:
    """A function under jit, with the widest vectors where a CPU runs it; plain while traced."""

    def __init__(self, function: Callable, static: tuple[str, ...], **settings: Any):
        """Name the arguments that are static, and give other settings of jit."""
        options = {"xla_cpu_prefer_vector_width": "512"}  # XLA's default of 256 costs a third
        self.plain = jax.jit(function, static_argnames=static, **settings)
        self.wide = jax.jit(function, static_argnames=static, compiler_options=options, **settings)

    def __call__(self, *args, **static) -> Any:
        """Call it; compiler options are for the outermost jit only."""
        if any(isinstance(array, jax.core.Tracer) for array in args) or not on_cpu(*args):
            return self.plain(*args, **static)
        return self.wide(*args, **static)


def on_accelerator() -> bool:
    """Does JAX compute on something else than the CPU, unless it is told to?"""
    return jax.default_backend() != "cpu"


def on_cpu(*arrays) -> bool:
    """Will a computation on these arrays run on the CPU?"""
    for array in arrays:
        if isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer):
            return next(iter(array.devices())).platform == "cpu"
    return not on_accelerator()


def tiles(
    arrays: Sequence[Any],
    per_query: int,
    memory: int,
    near: int = NEAR,
    most: int = MOST_QUERIES,
) -> Iterator[tuple[list, int]]:
    """Cut queries into tiles of few sizes, so small that two of them stay within memory, and near;
    one tile may have all of it.

    arrays have a row for each query, or are None, or one row for all. The last tile is filled up;
    beside each comes the number of its queries that count.
    """
    queries = len(arrays[0])
    memory = min(memory, max(near, 2 * LEAST_QUERIES * per_query))
    at_once = 1 if queries * per_query <= memory else 2
    most = max(1, min(memory // (at_once * per_query), most, queries))
    count = -(-queries // -(-queries // most))
    size = min(few_sizes(count), most) if count < most else most
    for start in range(0, queries, size):
        stop = min(start + size, queries)
        yield [_cut(array, queries, start, stop, size) for array in arrays], stop - start


def _cut(array, queries, start, stop, size):
    if array is None or (len(array) == 1 < queries):
        return array
    part = array if stop - start == len(array) else array[start:stop]
    if stop - start == size:  # an operation outside jit costs as much as searching 100,000 codes
        return part
    return validate.namespace_of(part).pad(part, ((0, size - (stop - start)), (0, 0)))


def one_ahead(results: Iterator) -> Iterator:
    """Yield each result after the next has been asked for: the device computes that meanwhile."""
    waiting = collections.deque()  # and nothing else holds a result: two fit the memory
    for result in results:
        waiting.append(result)
        del result
        if len(waiting) > 1:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def gather(results: Iterator, finish: Callable) -> tuple:
    """Finish each tile's result while the next is computed, and put them together."""
    done = list(itertools.starmap(partial(_finished, finish), one_ahead(results)))
    return tuple(_joined(parts) for parts in zip(*done, strict=True))


def _joined(parts):
    if len(parts) == 1:
        return parts[0]
    return (np if all(isinstance(part, np.ndarray) for part in parts) else jnp).concatenate(parts)


def _finished(finish, result, count):
    return tuple(a if len(a) == count else a[:count] for a in finish(*result))


def as_they_are(*arrays, **_) -> tuple:
    """What is finished already."""
    return arrays


def on_device(found: Neighbors) -> Neighbors:
    """Return neighbors as arrays of JAX."""
    return Neighbors(*map(jnp.asarray, found))


def no_queries(k: int, far: float | int) -> Neighbors:
    """Return the result for no query."""
    dtype = jnp.int32 if isinstance(far, (int, np.integer)) else jnp.float32
    return Neighbors(jnp.zeros((0, k), dtype), jnp.zeros((0, k), jnp.int32))
