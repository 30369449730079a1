"""The least distance in each cluster, on the tensor cores of NVIDIA's Hopper GPUs.

Codes become vectors of -1 and 1, whose product is the number of bits less twice the distance: of
8-bit floats that is exact, and by the chip's data sheet several times as fast as population counts.
What a product of matrices would write and read again, 10^10 numbers for 10,000 queries of a million
codes, stays in registers: a block multiplies the queries that it keeps with the rows of a cluster
after each other and holds on to the greatest product of each lane.
"""

import functools
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt, UInt32

from jaxret.codes import WORD_BITS, bit
from jaxret.search.blocks import BLOCK, CLUSTER, GROUP, LANES
from jaxret.search.results import far_type

SIGN = jnp.float8_e4m3fn
QUERIES = 128  # that a warpgroup multiplies: two of 64, the least that the instruction takes
WARPGROUPS = 2  # that multiply; a third one fetches rows
MOST_BITS = 256  # what the memory of a multiprocessor holds
ROWS_AT_ONCE = 2  # of each lane in a product
SHARED = 160 * 2**10  # bytes of rows on their way
UNPACKED = 2**29  # bytes of signs at a time


@functools.cache
def takes(words: int) -> bool:
    """Return whether the kernel is used for codes of that number of words.

    It asks for a Hopper GPU and a power of two of bits. Pallas changes often and the kernel cannot
    be tested without such a GPU, so it must first give the right answer to a small question.
    """
    if jax.default_backend() != "gpu":
        return False
    if not str(getattr(jax.devices()[0], "compute_capability", "")).startswith("9."):
        return False
    bits = words * WORD_BITS
    if bits > MOST_BITS or bits & (bits - 1):
        return False
    try:
        with ThreadPoolExecutor(1) as apart:  # where nothing is traced, even if a search is
            right = apart.submit(_answers, words).result()
    except Exception as error:  # of whatever kind: a search must not end here
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    else:
        reason = "" if right else "it gives wrong distances"
    if reason:
        warnings.warn(
            f"codes of {bits} bits are searched without tensor cores, which takes "
            f"longer: the kernel fails with this GPU and JAX {jax.__version__}: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
    return not reason


def _answers(words: int) -> bool:
    """Return whether the kernel finds the least distances of a few queries in one block."""
    rng = np.random.default_rng(words)
    query, codes = (
        rng.integers(0, 2**32, shape, dtype=np.uint32)
        for shape in ((QUERIES + 1, words), (CLUSTER, words, GROUP, LANES))
    )
    least = np.full((len(query), LANES), WORD_BITS * words, np.int64)
    for rows in codes.transpose(0, 2, 3, 1).reshape(-1, LANES, words):
        differing = np.bitwise_count(query[:, None] ^ rows[None]).sum(axis=2, dtype=np.int64)
        least = np.minimum(least, differing)
    found = jax.jit(cluster_minima)(query, codes)
    return np.array_equal(np.asarray(found)[0], least)


def cluster_minima(
    query: UInt32[Array, "q w"], codes: UInt32[Array, "m w 32 64"]
) -> UInt[Array, "b q 64"]:
    """Return the least distance of each query to each cluster; every row of a cluster counts."""
    queries, words = query.shape
    unit = QUERIES * WARPGROUPS
    signs = _signs(jnp.pad(query, ((0, -queries % unit), (0, 0))))
    bits = words * WORD_BITS
    blocks = codes.shape[0] // CLUSTER
    at_once = max(1, UNPACKED // (BLOCK * bits))

    def minima(some):
        rows = _signs(some.transpose(0, 2, 3, 1).reshape(-1, words))
        best = _greatest(signs, rows)[:, :queries]
        return ((bits - best) * 0.5).astype(far_type(words))

    if blocks <= at_once:
        return minima(codes)
    whole = blocks // at_once * at_once
    parts = codes[: whole * CLUSTER].reshape(-1, at_once * CLUSTER, *codes.shape[1:])
    first = lax.map(minima, parts).reshape(whole, queries, LANES)
    if whole == blocks:
        return first
    return jnp.concatenate([first, minima(codes[whole * CLUSTER :])])


def _signs(words: UInt32[Array, "n w"]) -> Float[Array, "n 32*w"]:
    """The bits of codes as -1 and 1, of 8-bit floats."""
    bits = bit(words[:, :, None], jnp.arange(WORD_BITS)[None, None])
    return jnp.where(bits, 1.0, -1.0).astype(SIGN).reshape(len(words), -1)


class _Tiles(NamedTuple):
    """What the kernel multiplies at a time."""

    queries: int  # of one warpgroup
    lanes: int  # rows side by side: ROWS_AT_ONCE of each lane of a block
    bits: int

    @property
    def unit(self) -> int:
        """The queries of all warpgroups."""
        return self.queries * WARPGROUPS

    @property
    def steps_ahead(self) -> int:
        """How many tiles of rows are on their way."""
        return min(4, SHARED // (self.lanes * self.bits) // 2 * 2)


def _greatest(query: Array, rows: Array) -> Array:
    """The greatest product of each query with the rows of each cluster, f16[b q 64].

    rows are in the order of `blocks`: cluster by cluster, side by side in lanes. The products are
    whole numbers of up to 256, which 16-bit floats hold.
    """
    from jax.experimental.pallas import mosaic_gpu

    gpu: Any = mosaic_gpu  # whose types are those of a loop without a carry
    tiles = _Tiles(QUERIES, ROWS_AT_ONCE * LANES, query.shape[1])
    blocks, units = rows.shape[0] // BLOCK, len(query) // tiles.unit

    def tiled(columns: int, kind: Any) -> tuple[Any, Any]:
        size = jnp.dtype(kind).itemsize
        swizzle = gpu.find_swizzle(8 * columns * size)
        return gpu.TilingTransform((8, swizzle // size)), gpu.SwizzleTransform(swizzle)

    signs, results = tiled(tiles.bits, query.dtype), tiled(LANES, jnp.float16)
    return gpu.kernel(
        functools.partial(_kernel, gpu, tiles, signs),
        out_type=jax.ShapeDtypeStruct((blocks, len(query), LANES), jnp.float16),
        grid=(units, blocks),
        grid_names=("queries", "block"),
        num_threads=WARPGROUPS + 1,
        thread_name="group",
        scratch_types=[
            gpu.SMEM((tiles.unit, tiles.bits), query.dtype, transforms=signs),
            gpu.SMEM((WARPGROUPS, QUERIES, LANES), jnp.float16, transforms=results),
            gpu.Barrier(),
        ],
        compiler_params=gpu.CompilerParams(lowering_semantics=gpu.LoweringSemantics.Warpgroup),
    )(query, rows)


def _kernel(gpu, tiles, signs, query_memory, rows_memory, best_memory, own, best, loaded):
    """Multiply the queries of a unit with the rows of a block.

    The warpgroups that multiply each have their queries, and wait for the same rows.
    """
    from jax.experimental import pallas as pl

    first, block, group = (lax.axis_index(name) for name in ("queries", "block", "group"))

    @pl.when(group == 0)
    def _():
        gpu.copy_gmem_to_smem(query_memory.at[pl.ds(first * tiles.unit, tiles.unit)], own, loaded)

    def whole_block(pipeline):
        gpu.barrier_wait(loaded)
        none = jnp.full((tiles.queries, LANES), -tiles.bits, jnp.float16)
        best[group] = pipeline(gpu.layout_cast(none, gpu.Layout.WGMMA))
        gpu.commit_smem()
        place = pl.ds(first * tiles.unit + group * tiles.queries, tiles.queries)
        gpu.copy_smem_to_gmem(best.at[group], best_memory.at[block, place])
        gpu.wait_smem_to_gmem(0)

    def multiply(_, some, greatest):
        def product(total):
            gpu.wgmma(total, own.at[pl.ds(group * tiles.queries, tiles.queries)], some.T)
            return total[...]

        accumulator = gpu.WGMMAAccumulatorRef((tiles.queries, tiles.lanes), jnp.float16)
        products = pl.run_scoped(product, accumulator)
        for lane in range(0, tiles.lanes, LANES):
            greatest = jnp.maximum(greatest, products[:, lane : lane + LANES])
        return greatest

    shape = tiles.lanes, tiles.bits
    gpu.emit_pipeline_warp_specialized(
        multiply,
        grid=(BLOCK // tiles.lanes,),
        in_specs=[gpu.BlockSpec(shape, lambda step: (step, 0), transforms=signs)],
        wg_axis="group",
        num_compute_wgs=WARPGROUPS,  # two: with four, registers are asked for that there are not
        memory_registers=40,
        max_concurrent_steps=tiles.steps_ahead,
        compute_context=whole_block,
    )(rows_memory.at[pl.ds(block * BLOCK, BLOCK)])
