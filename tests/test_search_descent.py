"""The search of accelerators, run on the CPU: what a stable sort finds, to the last tie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow, soak
from reference import by_numpy, words

from jaxret import search
from jaxret.search import hamming, hopper, select
from jaxret.search.blocks import BLOCK, CLUSTER, GROUP, LANES
from jaxret.search.validate import mask_words

RNG = np.random.default_rng


# Levels: of clusters alone; of 16 clusters above them, the last ones incomplete.
@pytest.mark.parametrize("n", slow(BLOCK + 700) + soak(1, 513, 17 * BLOCK + 5))
@pytest.mark.parametrize("shape", [(2, 7), *soak((1, 1), (3, 16), (8, 40))])
def test_the_descent_finds_what_a_stable_sort_does(n, shape, monkeypatch):
    width, k = shape
    monkeypatch.setattr(select, "on_accelerator", lambda: True)
    query, gallery = words(n, 33, width, 20), words(k, n, width, 300)
    layout = search.lay_out(gallery)
    descend = jax.jit(hamming.descent_topk, static_argnames="k")
    for mask in (None, RNG(k).random(n) < 0.6, RNG(k).random((33, n)) < 0.1, np.zeros(n, bool)):
        packed = mask_words(mask, len(query), n, layout.capacity)
        found = descend(query, packed, *layout, k=k)
        for part, truth in zip(found, by_numpy(query, gallery, k, mask), strict=True):
            np.testing.assert_array_equal(part, truth)


def test_codes_on_an_accelerator_are_searched_by_the_descent(monkeypatch):
    monkeypatch.setattr(select, "on_cpu", lambda *arrays: False)
    asked = []
    monkeypatch.setattr(hamming, "_DESCENT", lambda *a, k: asked.append(k) or descend(*a, k=k))
    descend = jax.jit(hamming.descent_topk, static_argnames="k")
    query, gallery = words(0, 70, 2, 50), words(1, 3000, 2, 400)
    found = search.hamming_topk(query, gallery, 11)
    assert asked == [13]  # the next preferred number
    for part, truth in zip(found, by_numpy(query, gallery, 11), strict=True):
        np.testing.assert_array_equal(part, truth)


def test_ranks_choose_what_a_stable_sort_does():
    values = RNG(0).integers(0, 9, (50, 300)).astype(np.uint8)
    place = np.uint32(values.astype(np.uint32) << 9 | np.arange(300, dtype=np.uint32))
    expected = np.argsort(values, axis=1, kind="stable")[:, :16]
    np.testing.assert_array_equal(select._by_rank(jnp.asarray(place), 16), expected)


# The kernel of Hopper GPUs.


def least(query, codes):
    """The least distance of each query to each cluster, [b q 64]."""
    rows = codes.transpose(0, 2, 3, 1)[:, None]
    distances = np.bitwise_count(query[None, :, None, None] ^ rows).sum(axis=4, dtype=np.int64)
    shape = (-1, CLUSTER, len(query), GROUP, LANES)
    return distances.reshape(shape).min(axis=(1, 3))


def pallas_for_gpus():
    return pytest.importorskip("jax.experimental.pallas.mosaic_gpu")


@pytest.mark.parametrize("width", [2, *slow(1, 4, 8)])
def test_this_jax_lowers_the_kernel_for_a_gpu(width):
    pallas_for_gpus()
    mesh = pytest.importorskip("jax._src.mesh", reason="a device that is not there")
    device = mesh.AbstractDevice("NVIDIA H100 80GB HBM3", num_cores=132, platform="cuda")
    shapes = (300, width), (2 * CLUSTER, width, GROUP, LANES)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.uint32) for shape in shapes]
    traced = jax.jit(hopper.cluster_minima).trace(*arguments)
    with jax.sharding.use_abstract_mesh(
        jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)
    ):
        lowered = traced.lower(lowering_platforms=("cuda",))
    assert "mosaic_gpu" in lowered.as_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "queries", "blocks", "at_once"), [(2, 300, 1, 2**29), (1, 20, 3, 2**21)]
)
def test_the_kernel_finds_the_least_distances(width, queries, blocks, at_once, monkeypatch):
    gpu = pallas_for_gpus()
    if not hasattr(gpu, "force_gpu_interpret_mode"):
        pytest.skip("this JAX does not interpret kernels of GPUs on the CPU (0.11 does)")
    monkeypatch.setattr(hopper, "SIGN", jnp.float16)  # NumPy multiplies no 8-bit floats
    monkeypatch.setattr(hopper, "UNPACKED", at_once)  # in parts: two blocks, then one
    query, codes = (
        words(0, queries, width, 300),
        RNG(1).integers(0, 2**32, (blocks * CLUSTER, width, GROUP, LANES), dtype=np.uint32),
    )
    with gpu.force_gpu_interpret_mode():
        found = hopper.cluster_minima(jnp.asarray(query), jnp.asarray(codes))
    np.testing.assert_array_equal(found, least(query, codes))


@pytest.fixture
def on_hopper(monkeypatch):
    """JAX says that there is a Hopper GPU, and the kernel gives what the test tells it to."""
    hopper.takes.cache_clear()
    device = type("Device", (), {"compute_capability": "9.0"})
    monkeypatch.setattr(hopper.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(hopper.jax, "devices", lambda: [device])
    yield lambda kernel: monkeypatch.setattr(hopper, "_answers", kernel)
    hopper.takes.cache_clear()


def test_the_kernel_is_used_where_it_gives_the_right_answer(on_hopper):
    on_hopper(lambda words: True)
    assert [words for words in range(1, 20) if hopper.takes(words)] == [1, 2, 4, 8]


def test_a_kernel_that_fails_is_named_once_and_not_used(on_hopper):
    def fails(words):
        raise TypeError("kernel() has no argument out_type\nand so on")

    on_hopper(fails)
    with pytest.warns(RuntimeWarning, match="without tensor cores.*no argument out_type$"):
        assert not hopper.takes(2)
    assert not hopper.takes(2)  # a second warning would be an error
    on_hopper(lambda words: False)
    with pytest.warns(RuntimeWarning, match="wrong distances"):
        assert not hopper.takes(1)


def test_there_is_no_kernel_on_a_cpu():
    hopper.takes.cache_clear()
    assert not hopper.takes(2)
