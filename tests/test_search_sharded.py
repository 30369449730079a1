"""Search across devices and processes: what one device finds, to the last tie.

Children have 8 devices, or are two that have 2 each and find each other over loopback. They write
their answers, which are compared here with those of one device, in this process. Starting them
takes longer than a case, so one test has all cases of its children.
"""

import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret import search
from jaxret.codes import pack_mask
from jaxret.search import sharded

LIMIT = 240  # seconds
QUERIES = 3
NEVER = np.iinfo(np.int32).max


def codes_of(n):
    """Codes with ties everywhere: 64 bits of which only 7 differ."""
    return np.random.default_rng(n).integers(0, (8, 16), size=(n, 2), dtype=np.uint32)


def vectors_of(n):
    """Vectors of which many are equal, or equally far, and none is a whole number."""
    return (np.random.default_rng(n).integers(-2, 3, size=(n, 5)) * 0.1).astype(np.float32)


ROWS = {"codes": codes_of, "vectors": vectors_of}


def mask_of(n, form):
    """No mask, one for all queries, or one for each, of which the last finds nothing."""
    bits = np.random.default_rng(n).random((QUERIES, n)) < np.array([[0.5], [0.01], [0.0]])
    return {"none": None, "all": bits[0], "each": bits}[form]


# (kind, n, k, mask). One row, fewer rows than devices, one more than a multiple of them, k larger
# than a share and than the gallery, and, for codes of 32,768 rows a share, beyond a share's room.
# Few shapes and values of k: what takes time is compilation.
CASES = [
    ("codes", 0, 10, "none"),
    ("codes", 1, 10, "none"),
    ("codes", 7, 10, "none"),
    ("codes", 65, 10, "none"),
    ("codes", 4099, 10, "none"),
    ("codes", 4099, 10, "each"),
    ("codes", 65, 100, "none"),
    ("codes", 4099, 100, "none"),
    ("codes", 4099, 40_000, "all"),
    ("vectors", 0, 10, "none"),
    ("vectors", 7, 10, "none"),
    ("vectors", 65, 10, "none"),
    ("vectors", 4099, 10, "none"),
    ("vectors", 65, 100, "each"),
    ("vectors", 4099, 100, "each"),
]
SHARED = [  # kind, rows of the first process, of the second, k
    ("codes", 1001, 54, 10),
    ("codes", 0, 3, 10),
    ("vectors", 30, 8400, 5000),  # more than 4096, the room that the first alone would need
]


def mesh_of(devices):
    return jax.make_mesh((devices,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))


def host(found):
    return tuple(np.asarray(part) for part in found)


def answers_of_8_devices():
    assert jax.device_count() == 8
    mesh, answers = mesh_of(8), {}
    for case in CASES:
        kind, n, k, form = case
        gallery, mask = search.shard(ROWS[kind](n), mesh), mask_of(n, form)
        # So little that each query is a tile of its own, where each has a mask.
        memory = 2**17 if (kind, form) == ("codes", "each") else search.MEMORY
        found = search.sharded_topk(ROWS[kind](QUERIES), gallery, k, mask=mask, memory=memory)
        answers[case] = host(found)
        parts = gallery.shares[0].addressable_shards
        assert len({part.device for part in parts}) == 8
        assert len({part.data.shape for part in parts}) == 1
    # A gallery's size compiles nothing.
    combinations = {(kind, k, form) for kind, _, k, form in CASES}
    assert sharded._SEARCH.wide._cache_size() == len(combinations)

    # Two axes, and explicit ones, as JAX makes them where it is not told otherwise.
    gallery = search.shard(jnp.asarray(codes_of(4099)), jax.make_mesh((2, 4), ("a", "b")))
    traced = jax.jit(lambda query, rows, mask: search.sharded_topk(query, rows, 10, mask=mask))
    room = 8 * gallery.capacity  # what a mask covers where the size is not known
    mask = np.pad(mask_of(4099, "each"), ((0, 0), (0, room - 4099)))
    found = traced(codes_of(QUERIES), gallery, pack_mask(mask))
    return answers, host(found)


def answers_of_a_process(process, port):
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
    assert (jax.process_count(), jax.device_count()) == (2, 4)
    mesh, answers = mesh_of(4), {}
    for case in SHARED:
        kind, first, second, k = case
        rows, mask = ROWS[kind](first + second), mask_of(first + second, "each")
        own = rows[:first] if process == 0 else rows[first:]
        found = search.sharded_topk(ROWS[kind](QUERIES), search.shard(own, mesh), k, mask=mask)
        answers[case] = host(found)
        assert [device.process_index for device in found.indices.devices()] == [process]

    rows, mask = codes_of(100), mask_of(100, "each")
    whole, copies = (
        jax.make_array_from_callback(
            rows.shape, jax.sharding.NamedSharding(mesh, spec), lambda place: rows[place]
        )
        for spec in (jax.sharding.PartitionSpec("a"), jax.sharding.PartitionSpec())
    )
    found = search.sharded_topk(codes_of(QUERIES), search.shard(whole, mesh), 10, mask=mask)
    with pytest.raises(ValueError, match="a global array must be split by rows over the mesh"):
        search.shard(copies, mesh)
    mixed = jax.sharding.Mesh(mesh.devices[[0, 2, 1, 3]], ("a",))
    with pytest.raises(ValueError, match=r"devices in one run, got \[0, 1, 0, 1\]"):
        search.shard(rows, mixed)
    return answers, host(found)


def start(folder, name, devices, call):
    """A child with a number of devices, which pickles the value of a call in this file."""
    code = (
        "import conftest, pickle, sys; import test_search_sharded as t; "
        f"value = t.{call}; pickle.dump(value, open(sys.argv[1], 'wb'))"
    )
    # Of the same compiler as here, so that sums agree to the last bit.
    given = os.environ.get("XLA_FLAGS", "")
    flags = f"{given} --xla_force_host_platform_device_count={devices}"
    with open(folder / f"{name}.log", "w") as log:
        return subprocess.Popen(
            [sys.executable, "-c", code, folder / name],
            cwd=Path(__file__).parent,
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            stdout=log,
            stderr=log,
        )


def finish(folder, children):
    """The values of children that run together; when one fails or is late, all are killed."""
    deadline, running = time.monotonic() + LIMIT, dict(children)
    try:
        while running:
            assert time.monotonic() < deadline, f"{[*running]} took longer than {LIMIT} seconds"
            time.sleep(0.05)
            for name in [name for name, child in running.items() if child.poll() is not None]:
                log = (folder / f"{name}.log").read_text()
                assert running.pop(name).returncode == 0, log[-3000:]
    finally:
        for child in children.values():
            child.kill()
            child.wait()
    return {name: pickle.loads((folder / name).read_bytes()) for name in children}


def assert_same(found, expected, case=""):
    for part, other in zip(found, host(expected), strict=True):
        assert part.dtype == other.dtype
        np.testing.assert_array_equal(part, other, err_msg=str(case))


def stable_sort(query, rows, k, mask=None):
    """What `hamming_topk` finds, from the definition: nothing to compile."""
    distances = np.bitwise_count(query[:, None] ^ rows[None]).sum(axis=2).astype(np.int64)
    distances = np.where(True if mask is None else mask, distances, NEVER)
    distances = np.pad(distances, ((0, 0), (0, k)), constant_values=NEVER)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    distances = np.take_along_axis(distances, order, axis=1)
    return distances.astype(np.int32), np.where(distances == NEVER, -1, order).astype(np.int32)


def on_one_device(kind, n, k, form):
    search_one = {"codes": stable_sort, "vectors": search.euclidean_topk}[kind]
    return search_one(ROWS[kind](QUERIES), ROWS[kind](n), k, mask=mask_of(n, form))


def test_a_stable_sort_is_what_one_device_finds():
    found = search.hamming_topk(codes_of(QUERIES), codes_of(65), 10)
    assert_same(host(found), on_one_device("codes", 65, 10, "none"))


@pytest.mark.soak
def test_eight_devices_find_what_one_does_to_the_last_tie(tmp_path):
    children = {"child": start(tmp_path, "child", 8, "answers_of_8_devices()")}
    answers, traced = finish(tmp_path, children)["child"]
    for case in CASES:
        assert_same(answers[case], on_one_device(*case), case)
    assert_same(traced, on_one_device("codes", 4099, 10, "each"), "traced")


@pytest.mark.soak
def test_two_processes_both_get_what_one_device_finds_to_the_last_tie(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    calls = {f"child {i}": f"answers_of_a_process({i}, {port})" for i in (0, 1)}
    children = {name: start(tmp_path, name, 2, call) for name, call in calls.items()}
    for answers, of_global_array in finish(tmp_path, children).values():
        for case in SHARED:
            kind, first, second, k = case
            assert_same(answers[case], on_one_device(kind, first + second, k, "each"), case)
        assert_same(of_global_array, on_one_device("codes", 100, 10, "each"), "global array")


def test_a_gallery_on_one_device_is_a_mesh_of_one():
    mesh = mesh_of(1)
    gallery = search.shard(codes_of(65), mesh)
    assert_same(
        host(search.sharded_topk(codes_of(QUERIES), gallery, 10)),
        on_one_device("codes", 65, 10, "none"),
    )
    assert search.sharded_topk(codes_of(0), gallery, 10).indices.shape == (0, 10)
    for arguments, message in (
        ((codes_of(3), gallery, 0), "k must be at least 1, got 0"),
        ((codes_of(3)[:, :1], gallery, 1), "query and gallery must be as wide, got 1 and 2"),
        ((vectors_of(3), gallery, 1), "the query must be packed codes, uint32"),
    ):
        with pytest.raises(ValueError, match=message):
            search.sharded_topk(*arguments)
    with pytest.raises(ValueError, match="a mask over 65 rows has 65 columns of bool, got 64"):
        search.sharded_topk(codes_of(3), gallery, 1, mask=np.ones(64, bool))
    with pytest.raises(ValueError, match="vectors must be finite"):
        search.shard(np.full((3, 2), np.nan, np.float32), mesh)
