"""Exact search on one accelerator: how fast, against PyTorch and CuPy, and against the device.

    python benchmarks/search_device.py --json=FILE [--quick] [--seconds=120]

First the device's own rates are measured: copies (bytes read plus bytes written a second) and
products of matrices (operations a second). Then each case of GALLERIES is searched; the most wanted
come first. share_of_copy is the share of the copy rate that reading the codes once would need,
share_of_multiply that of the product rate for products of -1 and +1: the larger is how near the
search is to its floor. `equal`: distances are those of the rows, in order of (distance, row), as
many rows are nearer than the last as a plain count over the whole gallery finds, and a peer's
distances are the same. Galleries that peers search too come from the host; larger ones are made on
the device. A gallery that does not fit the memory is left out with a line. Cases that the JSON file
already holds are skipped; no case starts after --seconds.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import timing
from search_peers import device_peers

CASE_SECONDS = 3  # of timed runs, about


class Gallery(NamedTuple):
    """What is searched, and (queries, neighbors) of each case, the most wanted first."""

    kind: str  # "bits" of a code or "floats" of a vector
    width: int
    rows: int
    cases: tuple[tuple[int, int], ...]
    peers: bool = True

    @property
    def bytes(self) -> int:
        """What one copy of it takes."""
        words = -(-self.width // 32) if self.kind == "bits" else self.width
        return 4 * words * self.rows


GALLERIES = (
    Gallery("bits", 64, 10**6, ((10_000, 10), (10_000, 1000), (1, 10), (1000, 50_000))),
    Gallery("bits", 64, 10**8, ((100, 10), (1, 10), (100, 1000), (10, 50_000))),
    Gallery("floats", 64, 10**6, ((10_000, 10), (1000, 1000))),
    Gallery("bits", 64, 10**9, ((100, 10), (1, 10), (100, 1000), (1, 50_000)), peers=False),
    Gallery("floats", 10, 60_000, ((10_000, 10),)),
    Gallery("bits", 256, 10**6, ((10_000, 10),)),
)
QUICK = (
    Gallery("bits", 64, 20_000, ((100, 10), (10, 4000))),
    Gallery("floats", 16, 5_000, ((50, 10),)),
    Gallery("bits", 64, 200_000, ((10, 10),), peers=False),
)


def ceilings(quick: bool) -> dict[str, float]:
    """Return what the device can do: bytes copied and operations multiplied a second."""
    import jax
    import jax.numpy as jnp

    def seconds_of(function, *arguments):
        (seconds,) = timing.in_turn(
            lambda: jax.block_until_ready(function(*arguments)), repeats=3 if quick else 7
        )
        return float(np.median(seconds))

    on_cpu = jax.default_backend() == "cpu"
    numbers, side = (2**22, 512) if quick or on_cpu else (2**28, 8192)
    data = jax.random.bits(jax.random.key(0), (numbers,), "uint32")
    rates = {"copy_bytes_per_second": 2 * data.nbytes / seconds_of(jax.jit(lambda x: x + 1), data)}
    for kind in ("bfloat16", "float32"):
        square = jax.random.normal(jax.random.key(1), (side, side), kind)
        product = jax.jit(partial(jnp.matmul, precision="highest" if kind == "float32" else None))
        taken = seconds_of(product, square, square)
        rates[f"{kind}_operations_per_second"] = 2 * side**3 / taken
    return rates


def free_memory() -> int:
    """Return about how many bytes a gallery and its search may take on the device."""
    import jax

    statistics = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def made_on_host(gallery: Gallery, queries: int) -> tuple[Any, Any, np.ndarray]:
    """Return (layout, queries on the device, rows on the host) of random rows."""
    import jax.numpy as jnp

    from jaxret import search

    rng = np.random.default_rng(0)
    if gallery.kind == "bits":
        words = gallery.width // 32
        rows = rng.integers(0, 2**32, (gallery.rows, words), dtype=np.uint32)
        query = rng.integers(0, 2**32, (queries, words), dtype=np.uint32)
    else:
        rows = rng.standard_normal((gallery.rows, gallery.width), np.float32)
        query = rng.standard_normal((queries, gallery.width), np.float32)
    return search.lay_out(jnp.asarray(rows)), jnp.asarray(query), rows


def made_on_device(gallery: Gallery, queries: int) -> tuple[Any, Any, None]:
    """Return (layout, queries, None): 10^9 codes would take minutes to make and send."""
    import jax

    from jaxret.search import CodeLayout, blocks

    words = gallery.width // 32
    groups = -(-gallery.rows // blocks.BLOCK) * blocks.CLUSTER
    shape = (groups, words, blocks.GROUP, blocks.LANES)
    bits = jax.jit(jax.random.bits, static_argnums=(1, 2))
    layout = CodeLayout(bits(jax.random.key(0), shape, "uint32"), np.array(gallery.rows, "i4"))
    return layout, bits(jax.random.key(1), (queries, words), "uint32"), None


def nearer(layout, query, distance):
    """Count, for each query, the rows of a code layout that are nearer than a distance, i32[q]."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from jaxret.search import blocks

    def of_query(arguments):
        word, far = arguments
        differing = lax.population_count(layout.codes ^ word[None, :, None, None])
        distances = jnp.sum(differing, axis=1, dtype=jnp.int32)
        group, row, lane = (lax.broadcasted_iota(jnp.int32, distances.shape, i) for i in range(3))
        cluster = group // blocks.CLUSTER * blocks.LANES + lane
        number = (cluster * blocks.CLUSTER + group % blocks.CLUSTER) * blocks.GROUP + row
        return jnp.sum((distances < far) & (number < layout.size), dtype=jnp.int32)

    return jax.jit(lambda *arguments: lax.map(of_query, arguments))(query, distance)


def is_exact(layout, query, found) -> bool:
    """Return whether neighbors among codes are the true ones, by a count over the whole gallery."""
    import jax.numpy as jnp
    from jax import lax

    from jaxret.search import blocks

    few = slice(100)
    distances, rows, query = found.distances[few], found.indices[few], query[few]
    codes = blocks.single_rows(layout.codes, rows)
    own = jnp.sum(lax.population_count(codes ^ query[:, None]), axis=2, dtype=jnp.int32)
    steps = jnp.diff(distances, axis=1), jnp.diff(rows, axis=1)
    ordered = (steps[0] > 0) | ((steps[0] == 0) & (steps[1] > 0))
    last = distances[:, -1]
    complete = nearer(layout, query, last) == jnp.sum(distances < last[:, None], axis=1)
    return bool((own == distances).all() & ordered.all() & complete.all())


def agrees(gallery: Gallery, found, peer_distances, query) -> bool:
    """Return whether a peer finds the same distances; of vectors up to rounding."""
    few = slice(100)
    ours, theirs = (
        np.asarray(part[few].cpu() if hasattr(part, "cpu") else part[few], np.float64)
        for part in (found.distances, peer_distances)
    )
    if gallery.kind == "bits":
        return np.array_equal(ours, theirs)
    squares = np.sum(np.square(np.asarray(query[few], np.float64)), axis=1, keepdims=True)
    return np.allclose(ours, theirs + squares, rtol=1e-4, atol=1e-3)


def run_case(
    case: str, gallery: Gallery, layout, query, k: int, peers: dict[str, Callable]
) -> Iterator[timing.Row]:
    """Yield the rows of one case, one per peer; a peer that fails is named and left out."""
    import jax

    ours = lambda: jax.block_until_ready(layout.topk(query, k))  # noqa: E731
    found = ours()
    equal = is_exact(layout, query, found) if gallery.kind == "bits" else None
    host_query = np.asarray(query)
    ready, same = {}, {}
    for name, peer in peers.items():
        try:
            search = peer(host_query, k)
            same[name] = agrees(gallery, found, search()[0], host_query) and equal is not False
            ready[name] = search
        except Exception as error:  # a peer's lack of memory must not cost us the case
            yield timing.failure(case, error, name)
    del found
    once = sum(map(sum, timing.in_turn(ours, *ready.values(), repeats=1, warmup=0)))
    repeats = max(3, min(21, int(CASE_SECONDS / once)))
    seconds, *theirs = timing.in_turn(ours, *ready.values(), repeats=repeats, warmup=0)
    by_name = dict(zip(ready, theirs, strict=True)) or {None: None}
    for name, taken in by_name.items():
        row = timing.summary(case, seconds, name, taken, same.get(name, equal))
        row["distances_per_second"] = len(query) * gallery.rows / row["seconds"]
        print(f"{timing.line(row)}  {row['distances_per_second']:.3g} distances/s", flush=True)
        yield row


def run(options, rows: list[timing.Row]) -> list[str]:
    """Run all cases that are missing, until the time is up; return those left."""
    deadline = time.monotonic() + options.seconds
    by_case = {row["case"]: row for row in rows if "error" not in row}
    rates = by_case.get("device")
    if rates is None:
        rates = {"case": "device", **dict.fromkeys(("seconds", "spread", "peer", "peer_seconds"))}
        rates |= {"ratio": None, "equal": None, **ceilings(options.quick)}
        rows.append(rates)
        timing.write(options.json, rows)
    copy, multiply = rates["copy_bytes_per_second"], rates["bfloat16_operations_per_second"]
    print(f"copies {copy / 1e9:,.0f} GB/s, multiplies {multiply / 1e12:.3g} Tflop/s (bfloat16)")
    left = []
    for gallery in QUICK if options.quick else GALLERIES:
        names = {
            f"{gallery.width} {gallery.kind}, n={gallery.rows}, q={q}, k={k}": (q, k)
            for q, k in gallery.cases
        }
        missing = {name: case for name, case in names.items() if name not in by_case}
        if missing and time.monotonic() < deadline:
            left += _one_gallery(options, gallery, missing, rows, rates, deadline)
        else:
            left += missing
    return left


def _one_gallery(options, gallery, missing, rows, rates, deadline) -> list[str]:
    """Run cases of one gallery; return those for which there was no time."""
    left = []
    if 2 * gallery.bytes > free_memory():
        print(f"{gallery.rows} rows of {gallery.width} {gallery.kind} do not fit the memory")
        return left
    make = made_on_host if gallery.peers else made_on_device
    layout, queries, host_rows = make(gallery, max(q for q, _ in missing.values()))
    bits = gallery.width if gallery.kind == "bits" else None
    peers = {}
    try:
        peers = device_peers(host_rows, bits) if gallery.peers else {}
    except Exception as error:  # of a peer, such as its lack of memory
        timing.failure(f"{gallery.rows} rows, peers", error)
    for case, (q, k) in missing.items():
        if time.monotonic() >= deadline:
            left.append(case)
            continue
        try:
            new = list(run_case(case, gallery, layout, queries[:q], k, peers))
        except Exception as error:  # the next case may be smaller
            new = [timing.failure(case, error)]
        for row in new:
            if row["seconds"]:
                operations = 2 * q * gallery.rows * gallery.width / row["seconds"]
                read = gallery.bytes / row["seconds"]
                row["share_of_copy"] = read / rates["copy_bytes_per_second"]
                row["share_of_multiply"] = operations / rates["bfloat16_operations_per_second"]
        rows[:] = [row for row in rows if row["case"] != case] + new
        timing.write(options.json, rows)
    return left


def main() -> None:
    """Time, check, write."""
    parser = timing.parser(__doc__, quick="Run tiny galleries, on any device.")
    timing.add_seconds(parser.add_argument_group("cases"))
    options = parser.parse_args()
    print(timing.machine())
    timing.installed("torch", "cupy")
    rows = timing.read(options.json)
    left = run(options, rows)
    if any(row["equal"] is False for row in rows):
        sys.exit("some results were NOT equal")
    timing.end(left)


if __name__ == "__main__":
    main()
