"""Exact search: jaxret beside faiss and usearch, over sizes, code lengths, queries and neighbours.

    python benchmarks/search.py --quick
    python benchmarks/search.py --json=FILE --chart=FILE.png [--n=1000000 --bits=64 --k=10,100]
    python benchmarks/search.py --device --json=FILE      # one accelerator: sizes up to 10^9 codes

The gallery is laid out once, outside the timing, as faiss builds its index outside it. Codes and
vectors are random. A row is one case beside one peer, timed in turn with it; faiss runs in two
modes of very different speed on some machines, so its fastest run is given too (ratio_to_best).
A peer whose search would take minutes gets the first peer_queries of the queries, and its seconds
are scaled to all of them. peak_bytes is by how much resident memory grew at its peak during the
first search, compilation included, on Linux; where that took over 30 seconds, the first searches
are the ones that count. Cases that the JSON file holds are not run again: a grid that was stopped
goes on, and a chart is drawn of all that is there.
"""

import itertools
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timing

SIZES = (60_000, 1_000_000, 10_000_000)
BITS = (16, 32, 48, 64, 128, 256)
DIMENSIONS = (10, 64, 128)
QUERIES = (1, 100, 10_000)
NEIGHBORS = (1, 10, 100, 1000)
LONG = 6  # seconds: what takes so long is timed once
FIRST = 30  # seconds: where ours takes so long the first searches count, with compilation
PEER_PAIRS = 2 * 10**9  # query and row: what a peer is given at most,
PEER_VECTORS = 2000  # but so many vectors: faiss multiplies 1,000 at a fifth of its rate for 2,000

Search = Callable[[], tuple[np.ndarray, np.ndarray]]  # distances and rows


def random_codes(rng: np.random.Generator, n: int, bits: int) -> np.ndarray:
    """Packed random codes, u32[n w], the bits that fill the last word up 0."""
    words = rng.integers(0, 2**32, (n, -(-bits // 32)), dtype=np.uint32)
    if bits % 32:
        words[:, -1] &= np.uint32(2 ** (bits % 32) - 1)
    return words


def own_hamming(gallery: np.ndarray) -> Callable[[np.ndarray, int], Search]:
    """Search of a gallery that is laid out once."""
    from jaxret import search

    layout = search.lay_out(gallery)
    return lambda query, k: lambda: _host(search.hamming_topk(query, layout, k))


def own_euclidean(gallery: np.ndarray) -> Callable[[np.ndarray, int], Search]:
    """Search of vectors that are laid out once."""
    from jaxret import search

    layout = search.lay_out_vectors(gallery)
    return lambda query, k: lambda: _host(search.euclidean_topk(query, layout, k))


def _host(found: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(found.distances), np.asarray(found.indices)


def faiss_peers(gallery: np.ndarray, bits: int | None) -> dict[str, Callable]:
    """The exact indexes of faiss, with 2 threads and with 1."""
    try:
        import faiss
    except ImportError:
        return {}
    if bits is None:
        index = faiss.IndexFlatL2(gallery.shape[1])
        rows = gallery
    else:
        rows = gallery.view(np.uint8)[:, : -(-bits // 8)]
        index = faiss.IndexBinaryFlat(8 * rows.shape[1])
    index.add(np.ascontiguousarray(rows))

    def peer(threads: int) -> Callable[[np.ndarray, int], Search]:
        def prepared(query: np.ndarray, k: int) -> Search:
            if bits is not None:
                query = np.ascontiguousarray(query.view(np.uint8)[:, : -(-bits // 8)])

            def run():
                faiss.omp_set_num_threads(threads)
                return index.search(query, k)

            return run

        return prepared

    name = f"faiss {faiss.__version__}"
    return {f"{name} 2 threads": peer(2), f"{name} 1 thread": peer(1)}


def usearch_peer(gallery: np.ndarray, bits: int | None) -> dict[str, Callable]:
    """The exact search of usearch: slow, so only for a gallery of a million and few queries."""
    try:
        import usearch
        from usearch.index import MetricKind
        from usearch.index import search as exact
    except ImportError:
        return {}
    if bits is None or len(gallery) > 1_000_000:
        return {}
    rows = np.ascontiguousarray(gallery.view(np.uint8))

    def prepared(query: np.ndarray, k: int) -> Search:
        packed = np.ascontiguousarray(query.view(np.uint8))

        def run():
            found = exact(rows, packed, k, MetricKind.Hamming, exact=True)
            shape = (len(packed), -1)
            return np.reshape(found.distances, shape), np.reshape(found.keys, shape)

        return run

    return {f"usearch {usearch.__version__} exact": prepared}


def is_exact(ours: tuple, peer: tuple, query: np.ndarray, gallery: np.ndarray, bits) -> bool:
    """The same distances as the peer's; ours in order of (distance, row), each row's own.

    At small sizes the whole order is that of NumPy's stable sort, too. Euclidean distances are
    compared with a tolerance: faiss computes them by a matrix product.
    """
    distances, rows = ours
    if bits is None:
        own = ((query[:, None] - gallery[rows]) ** 2).sum(axis=2)
        close = np.allclose(distances, peer[0], rtol=1e-4, atol=1e-3)
        return close and np.allclose(distances, own, rtol=1e-5, atol=1e-5)
    own = np.bitwise_count(query[:, None] ^ gallery[rows]).sum(axis=2)
    keys = distances.astype(np.int64) * len(gallery) + rows
    exact = (
        np.array_equal(distances, peer[0].astype(np.int64))
        and np.array_equal(own, distances)
        and bool((np.diff(keys, axis=1) > 0).all())
    )
    if len(gallery) <= 60_000:
        few = query[:20]
        all_distances = np.bitwise_count(few[:, None] ^ gallery[None]).sum(axis=2)
        order = np.argsort(all_distances, axis=1, kind="stable")[:, : rows.shape[1]]
        exact = exact and np.array_equal(rows[: len(few)], order)
    return exact


def peak_growth(function: Callable[[], Any]) -> int | None:
    """Bytes by which resident memory grew at its peak, where Linux tells."""
    status, refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        refs.write_text("5")  # the peak starts anew
    except OSError:
        function()
        return None
    before = _kilobytes(status, "VmRSS")
    function()
    return 1024 * (_kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, field: str) -> int:
    lines = status.read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def run_case(
    case: str, own: Search, peers: dict[str, Search], check: Callable, share: float, seconds: float
) -> list[dict[str, Any]]:
    """Time one case beside each peer, all in turn, within about so many seconds.

    The peers answer this share of the queries.
    """
    answers: list[tuple] = []

    def first(search: Search) -> list[float]:
        start = time.perf_counter()
        answers.append(search())
        return [time.perf_counter() - start]

    timed: list[list[float]] = []
    peak = peak_growth(lambda: timed.append(first(own)))
    timed += [first(peer) for peer in peers.values()]
    if timed[0][0] < FIRST:
        timed = timing.in_turn(own, *peers.values(), repeats=1, warmup=0)
        once = sum(taken[0] for taken in timed)
        if once < max(seconds, LONG):
            repeats = max(3, min(31, int(seconds / once)))
            timed = timing.in_turn(own, *peers.values(), repeats=repeats, warmup=0)
    ours, *theirs = answers
    rows = []
    for name, answer, taken in zip(peers, theirs, timed[1:], strict=True):
        taken = [one / share for one in taken]
        row = timing.summary(case, timed[0], name, taken, check(ours, answer))
        rows.append(row | {"ratio_to_best": min(taken) / row["seconds"], "peak_bytes": peak})
    rows = rows or [timing.summary(case, timed[0]) | {"ratio_to_best": None, "peak_bytes": peak}]
    for row in rows:
        print(timing.line(row), flush=True)
    return rows


def grid(options, rows: list[dict[str, Any]]) -> None:
    """The cases that the options choose, appended to rows and written after each."""
    kinds = [("hamming", bits) for bits in options.bits] + [("euclidean", d) for d in options.d]
    done = {row["case"] for row in rows}
    for n, (kind, width) in itertools.product(options.n, kinds):
        unit = {"hamming": "bits", "euclidean": "floats"}[kind]
        cases = {
            f"{kind} {width} {unit}, n={n}, q={q}, k={k}": (q, k)
            for q, k in itertools.product(options.queries, options.k)
            if k <= n and q * n <= options.pairs
        }
        if missing := {case: sizes for case, sizes in cases.items() if case not in done}:
            _one_gallery(n, width if kind == "hamming" else None, width, missing, options, rows)


def _one_gallery(n: int, bits: int | None, width: int, cases, options, rows) -> None:
    """All cases of one gallery, of codes or (bits is None) of vectors."""
    rng = np.random.default_rng(0)
    most = max(q for q, _ in cases.values())
    if bits:
        gallery, queries = (random_codes(rng, m, bits) for m in (n, most))
        own = own_hamming(gallery)
    else:
        gallery, queries = (rng.standard_normal((m, width), np.float32) for m in (n, most))
        own = own_euclidean(gallery)
    everyone = faiss_peers(gallery, bits) | usearch_peer(gallery, bits)
    for case, (q, k) in cases.items():
        query = queries[:q]
        peer_query = query[: max(1 if bits else PEER_VECTORS, PEER_PAIRS // n)]
        peers = {
            name: peer(peer_query, k)
            for name, peer in everyone.items()
            if "usearch" not in name or (q == 100 and k == 10)
        }

        def check(ours, theirs, query=peer_query, k=k):
            some = slice(min(len(query), max(1, 1_000_000 // k)))
            ours, theirs = ([part[some] for part in found] for found in (ours, theirs))
            return is_exact(ours, theirs, query[some], gallery, bits)

        share = len(peer_query) / q
        new = run_case(case, own(query, k), peers, check, share, options.seconds)
        rows += [row | {"peer_queries": len(peer_query)} for row in new]
        timing.write(options.json, rows)


def device(options, rows: list[dict[str, Any]]) -> None:
    """Throughput on one accelerator, and its share of what the device can copy and multiply."""
    import jax
    import jax.numpy as jnp

    from jaxret import search
    from jaxret.search import blocks

    def seconds_of(function, *arguments):
        run = lambda: jax.block_until_ready(function(*arguments))  # noqa: E731
        (taken,) = timing.in_turn(run, repeats=5)
        return float(np.median(taken))

    big = jnp.zeros((2**28,), jnp.uint32)  # 1 GiB
    copy = 2 * big.nbytes / seconds_of(jax.jit(lambda x: x + 1), big)
    square = jnp.ones((8192, 8192), jnp.bfloat16)
    multiply = 2 * 8192**3 / seconds_of(jax.jit(lambda x: x @ x), square)
    print(f"copies {copy / 1e12:.2f} TB/s, multiplies {multiply / 1e12:.0f} Tflop/s (bfloat16)")
    del big, square

    for n, bits in itertools.product(options.n, options.bits):
        words = -(-bits // 32)
        groups = -(-n // blocks.BLOCK) * blocks.CLUSTER
        shape = (groups, words, blocks.GROUP, blocks.LANES)
        # Made where it is searched, and in the layout: 10^9 codes would take minutes to send.
        codes = jax.jit(lambda shape=shape: jax.random.bits(jax.random.key(0), shape, "uint32"))()
        layout = search.CodeBlocks(codes, jnp.int32(n))
        for q, k in itertools.product(options.queries, options.k):
            if k > n or q * n > options.pairs:
                continue
            query = jax.random.bits(jax.random.key(1), (q, words), "uint32")
            run = lambda query=query, layout=layout, k=k: jax.block_until_ready(  # noqa: E731
                search.hamming_topk(query, layout, k)
            )
            (taken,) = timing.in_turn(run, repeats=5)
            row = timing.summary(f"device: hamming {bits} bits, n={n}, q={q}, k={k}", taken)
            row["distances_per_second"] = q * n / row["seconds"]
            # What must be read at least once, and what +-1 products would need.
            row["share_of_copy"] = 4 * words * n / row["seconds"] / copy
            row["share_of_multiply"] = 2 * q * n * bits / row["seconds"] / multiply
            print(f"{timing.line(row)}  {row['distances_per_second']:.3g} distances/s", flush=True)
            rows.append(row)
            timing.write(options.json, rows)
        del layout, codes


def chart(path: Path, rows: list[dict[str, Any]]) -> None:
    """Seconds per query against the gallery's size and against the number of queries, log-log."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, fixed, varied in zip(
        figure.subplots(1, 2), ("q=100", "n=1000000"), "nq", strict=True
    ):
        for k in (10, 1000):
            lines: dict[str, list] = {}
            for row in rows:
                case = row["case"]
                if not case.startswith("hamming 64") or f"k={k}" not in case.split(", "):
                    continue
                if fixed not in case.split(", "):
                    continue
                x = int(case.split(f", {varied}=")[1].split(",")[0])
                lines.setdefault(f"jaxret, K = {k}", []).append((x, row["seconds"]))
                if row["peer"] and "faiss" in row["peer"]:
                    name = f"{row['peer']}, K = {k}"
                    lines.setdefault(name, []).append((x, row["peer_seconds"]))
            for name, points in lines.items():
                style = "-" if "jaxret" in name else "--" if "2 threads" in name else ":"
                axes.loglog(*zip(*sorted(set(points)), strict=True), style, marker=".", label=name)
        axes.set_title(f"64-bit codes, {fixed}")
        axes.set_xlabel({"n": "gallery rows", "q": "queries"}[varied])
        axes.set_ylabel("seconds")
        axes.grid(alpha=0.3, which="both")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


CASE = re.compile(r"\w+ (?P<width>\d+) (?P<unit>\w+), n=(?P<n>\d+), q=(?P<q>\d+), k=(?P<k>\d+)")


def tables(rows: list[dict[str, Any]]) -> str:
    """All cases as markdown: a table for each kind, gallery size and number of queries."""
    cells: dict[tuple, dict[tuple, list[str]]] = {}
    for row in rows:
        if not (found := CASE.fullmatch(row["case"])):
            continue
        case = {name: int(found[name]) for name in ("width", "n", "q", "k")}
        table = cells.setdefault((found["unit"], case["n"], case["q"]), {})
        cell = table.setdefault((case["width"], case["k"]), [f"{row['seconds'] * 1e3:.3g} ms"])
        if row["ratio"] is not None:
            unequal = "" if row["equal"] else " NOT EQUAL"
            name = "u" if "usearch" in row["peer"] else ""
            cell.append(f"{name}{row['ratio']:.3g}{unequal}")
        if row.get("peak_bytes") is not None and len(cell) == 2:
            cell[0] += f", {row['peak_bytes'] / 2**20:.0f} MiB"
    lines = [
        "Milliseconds for all queries together, with the growth of resident memory at the first "
        "search;",
        "then how many times faster than faiss with 2 threads / with 1 thread / usearch exact (u).",
    ]
    for (unit, n, q), table in sorted(cells.items()):
        ks = sorted({k for _, k in table})
        lines += ["", f"**{unit}, {n:,} rows, {q:,} quer{'y' if q == 1 else 'ies'}**", ""]
        lines += ["| " + " | ".join([unit, *(f"K = {k}" for k in ks)]) + " |"]
        lines += ["|---" * (len(ks) + 1) + "|"]
        for width in sorted({width for width, _ in table}):
            found = (table.get((width, k), []) for k in ks)
            texts = [f"{c[0]}: {' / '.join(c[1:])}" if c else "" for c in found]
            lines.append("| " + " | ".join([str(width), *texts]) + " |")
    return "\n".join(lines) + "\n"


def numbers(text: str) -> tuple[int, ...]:
    """A list such as 1,100."""
    return tuple(int(part) for part in text.split(",") if part)


def main() -> None:
    """Time, check, write."""
    parser = timing.parser(__doc__)
    parser.add_argument("--n", type=numbers, help="gallery sizes")
    parser.add_argument("--bits", type=numbers, help="code lengths")
    parser.add_argument("--d", type=numbers, help="dimensions of float vectors")
    parser.add_argument("--queries", type=numbers, help="numbers of queries")
    parser.add_argument("--k", type=numbers, help="numbers of neighbours")
    parser.add_argument("--pairs", type=int, default=10**11, help="leave out larger q x n")
    parser.add_argument("--seconds", type=float, default=10, help="of timing per case, about")
    parser.add_argument("--chart", type=Path, help="write a log-log chart to this PNG")
    parser.add_argument("--markdown", type=Path, help="write all cases as tables to this file")
    parser.add_argument("--device", action="store_true", help="one accelerator, no peers")
    options = parser.parse_args()
    if options.device:
        defaults = (10**6, 10**7, 10**8, 10**9), (64,), (), (1, 100, 10_000), (10, 100, 1000)
        options.pairs = min(options.pairs, 10**12)
    elif options.quick:
        defaults = (60_000, 1_000_000), (64,), (64,), (1, 100), (10, 100)
        options.seconds = min(options.seconds, 2)
    else:
        defaults = SIZES, BITS, DIMENSIONS, QUERIES, NEIGHBORS
    for name, default in zip(("n", "bits", "d", "queries", "k"), defaults, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, default)

    print(timing.machine())
    rows: list[dict[str, Any]] = timing.read(options.json)
    (device if options.device else grid)(options, rows)
    if options.chart:
        chart(options.chart, rows)
    if options.markdown:
        timing.harness.write_whole(options.markdown, tables(rows))
    if any(row["equal"] is False for row in rows):
        sys.exit("some results were NOT equal")


if __name__ == "__main__":
    main()
