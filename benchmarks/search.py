"""Exact search: jaxret and faiss, usearch, over sizes, code lengths, queries and neighbors.

    python benchmarks/search.py --quick
    python benchmarks/search.py --json=FILE --chart=FILE.png [--n=1000000 --bits=64 --k=10,100]
    python benchmarks/search.py --json=FILE --approximate --centres=10000 --n=1000000 --bits=64

The gallery is laid out once, outside the timing; faiss builds its index outside it as well. Codes
and vectors are random; with --centres, codes are centres of which each bit is flipped with a chance
of an eighth. A row is one case, one of our functions (`hamming_topk` or `euclidean_topk` over a
layout, or `Gallery.search`) and one peer, all timed in turn. faiss runs in two modes of very
different speed on some machines, so a row also has the ratio to its fastest run (ratio_to_best). An
approximate peer's row has its recall: the share of its rows that are as near as our last one. A
peer whose search would take minutes gets only the first peer_queries of the queries, and its
seconds are scaled to all of them. peak_bytes is by how much resident memory grows at its peak
during the first search, compilation included (Linux); where that search takes over 30 seconds, it
is also the one that is timed. Cases that the JSON file already holds are skipped, so a stopped grid
continues, and a chart shows all that is there. For an accelerator: search_device.py.
"""

import argparse
import itertools
import platform
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timing
from search_peers import Search, approximate_peers, faiss_peers, usearch_peer

SIZES = (60_000, 1_000_000, 10_000_000)
BITS = (16, 32, 48, 64, 128, 256)
DIMENSIONS = (10, 64, 128)
QUERIES = (1, 100, 10_000)
NEIGHBORS = (1, 10, 100, 1000)
LONG = 6  # seconds: a search that takes longer is timed once
TRIES = 10  # searches after which the fastest of our ways is known
FIRST = 30  # seconds: where our first search takes longer, it is the timed one
PEER_PAIRS = 2 * 10**9  # pairs of query and row that a peer gets at most,
PEER_VECTORS = 2000  # but at least this many vectors: with 1,000 faiss has a fifth of its speed
SETTLE = 0.02  # seconds untimed before each timed run: faiss's threads spin on after their turn


def random_codes(rng: np.random.Generator, n: int, bits: int, centres: int = 0) -> np.ndarray:
    """Return packed random codes, u32[n w]; the padding bits of the last word are 0.

    With centres, a code is one of that many fixed random codes with some of its bits flipped.
    """
    words = rng.integers(0, 2**32, (n, -(-bits // 32)), dtype=np.uint32)
    if centres:
        shape = (centres, words.shape[1])
        centre = np.random.default_rng(centres).integers(0, 2**32, shape, dtype=np.uint32)
        for _ in range(2):  # three bits are all 1 with a chance of an eighth
            words &= rng.integers(0, 2**32, words.shape, dtype=np.uint32)
        words ^= centre[rng.integers(0, centres, n)]
    if bits % 32:
        words[:, -1] &= np.uint32(2 ** (bits % 32) - 1)
    return words


def own_searches(
    gallery: np.ndarray, bits: int | None
) -> dict[str, Callable[[np.ndarray, int], Search]]:
    """Return our searches by name; codes u32[n w], or vectors f32[n d], are laid out once."""
    from jaxret import Gallery, search
    from jaxret.search import host, rows, trial

    # What a process comes to is timed: not NumPy where it only answers the first searches, while no
    # program is compiled, nor the searches that try one way after the other.
    host.BUDGET = rows.BUDGET = -1
    trial.PATIENCE = 1e-6
    layout = search.lay_out(gallery)
    topk = search.euclidean_topk if bits is None else search.hamming_topk
    gallery.flags.writeable = False  # not copied
    kept = Gallery.from_vectors(gallery) if bits is None else Gallery.from_codes(gallery, bits)
    return {
        topk.__name__: lambda query, k: lambda: _host(topk(query, layout, k)),
        "Gallery.search": lambda query, k: lambda: _host(kept.search(query, k)),
    }


def _host(found: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(found.distances), np.asarray(found.indices)


def is_exact(ours: tuple, peer: tuple, query: np.ndarray, gallery: np.ndarray, bits) -> bool:
    """Return whether our neighbors are the exact ones.

    Our distances must equal the peer's, be those of our rows, and come in the order of (distance,
    row); up to 60,000 rows the order must also be that of NumPy's stable sort. Euclidean distances
    are compared with a tolerance, because faiss computes them by a matrix product.

    Args:
        ours: distances and rows, each [q k].
        peer: the same of a peer.
        query: u32[q w], or f32[q d].
        gallery: u32[n w], or f32[n d].
        bits: length of the codes; None: vectors.
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


def processor_fields() -> dict[str, Any]:
    """Return the processor's name, and whether it counts the bits of whole vectors."""
    from jaxret.search import processor

    name = processor.name() or platform.processor() or platform.machine()
    return {"cpu": name, "vector_popcount": processor.counts_vectors()}


def peak_growth(function: Callable[[], Any]) -> int | None:
    """Return by how many bytes resident memory grows at its peak, None where nothing tells."""
    status, refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        refs.write_text("5")  # reset the peak
    except OSError:
        function()
        return None
    before = _kilobytes(status, "VmRSS")
    function()
    return 1024 * (_kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, field: str) -> int:
    lines = status.read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def recall(ours: tuple, peer: tuple) -> float:
    """Return the share of a peer's neighbors that are as near as our last one."""
    return float(np.mean(np.asarray(peer[0]) <= np.asarray(ours[0])[:, -1:]))


def run_case(
    case: str,
    own: dict[str, Search],
    peers: dict[str, Search],
    check: Callable,
    share: float,
    seconds: float,
) -> list[dict[str, Any]]:
    """Return the rows of one case, a row for each function and peer, all timed in turn.

    Args:
        case: the case's name.
        own: jaxret's functions, name -> search; the first search of the first one is measured too.
        peers: name -> search.
        check: (ours, theirs, peer's name) -> the fields that say how results compare.
        share: of the queries that the peers answer; their seconds are divided by it.
        seconds: what timing may take, about.
    """
    answers: list[tuple] = []

    def first(search: Search) -> list[float]:
        start = time.perf_counter()
        answers.append(search())
        return [time.perf_counter() - start]

    searches = [*own.values(), *peers.values()]
    timed: list[list[float]] = []
    peak = peak_growth(lambda: timed.append(first(searches[0])))
    timed += [first(search) for search in searches[1:]]
    for search, (taken,) in zip(own.values(), timed, strict=False):
        for _ in range(TRIES if taken < LONG else 0):
            search()
    if timed[0][0] < FIRST:
        timed = timing.in_turn(*searches, repeats=1, warmup=0)
        once = sum(taken[0] for taken in timed)
        if once < max(seconds, LONG):
            turn = once + sum(max(taken[0], SETTLE) for taken in timed)
            repeats = max(3, min(31, int(seconds / turn)))
            timed = timing.in_turn(*searches, repeats=repeats, warmup=0, settle=SETTLE)
    rows = []
    for number, function in enumerate(own):
        more = {"function": function, "peak_bytes": None if number else peak}
        for name, answer, taken in zip(peers, answers[len(own) :], timed[len(own) :], strict=True):
            taken = [one / share for one in taken]
            row = timing.summary(case, timed[number], name, taken)
            row |= check(answers[number], answer, name)
            rows.append(row | {"ratio_to_best": min(taken) / row["seconds"]} | more)
        if not peers:
            rows.append(timing.summary(case, timed[number]) | {"ratio_to_best": None} | more)
    for row in rows:
        told = f"  recall {row['recall']:.3f}" if "recall" in row else ""
        print(f"{timing.line(row)}  {row['function']}{told}", flush=True)
    return rows


def grid(options, rows: list[dict[str, Any]]) -> None:
    """Run the cases that the options choose; append their rows and write after each case."""
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
    """Run all cases of one gallery, of codes or, where bits is None, of vectors."""
    rng = np.random.default_rng(0)
    most = max(q for q, _ in cases.values())
    if bits:
        gallery, queries = (random_codes(rng, m, bits, options.centres) for m in (n, most))
    else:
        gallery, queries = (rng.standard_normal((m, width), np.float32) for m in (n, most))
    own = own_searches(gallery, bits)
    exact = faiss_peers(gallery, bits) | usearch_peer(gallery, bits)
    near = approximate_peers(gallery, bits) if options.approximate else {}
    for case, (q, k) in cases.items():
        query = queries[:q]
        peer_query = query[: max(1 if bits else PEER_VECTORS, PEER_PAIRS // n)]
        peers = {
            name: peer(peer_query, k)
            for name, peer in (exact | near).items()
            if "usearch" not in name or (q == 100 and k == 10)
        }

        def check(ours, theirs, name, query=peer_query, k=k):
            first = slice(min(len(query), max(1, 1_000_000 // k)))
            ours, theirs = ([part[first] for part in found] for found in (ours, theirs))
            if name in near:
                return {"recall": recall(ours, theirs)}
            return {"equal": is_exact(ours, theirs, query[first], gallery, bits)}

        share = len(peer_query) / q
        searches = {name: prepared(query, k) for name, prepared in own.items()}
        new = run_case(case, searches, peers, check, share, options.seconds)
        rows += [row | {"peer_queries": len(peer_query)} | processor_fields() for row in new]
        timing.write(options.json, rows)


def chart(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw seconds against the gallery's size and against the number of queries, log-log."""
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
    """Return all cases as markdown: one table per kind, gallery size and number of queries."""
    cells: dict[tuple, dict[tuple, list[str]]] = {}
    for row in rows:
        if not (found := CASE.fullmatch(row["case"])) or "recall" in row:
            continue
        case = {name: int(found[name]) for name in ("width", "n", "q", "k")}
        table = cells.setdefault((found["unit"], case["n"], case["q"]), {})
        cell = table.setdefault((case["width"], case["k"]), [f"{row['seconds'] * 1e3:.3g} ms"])
        if row.get("function") == "Gallery.search":
            if "Gallery" not in cell[0]:
                cell[0] += f", Gallery {row['seconds'] * 1e3:.3g}"
            continue
        if row["ratio"] is not None:
            unequal = "" if row["equal"] else " NOT EQUAL"
            name = "u" if "usearch" in row["peer"] else ""
            cell.append(f"{name}{row['ratio']:.3g}{unequal}")
        if row.get("peak_bytes") is not None and len(cell) == 2:
            cell[0] += f", {row['peak_bytes'] / 2**20:.0f} MiB"
    lines = [
        "Milliseconds for all queries together, and the growth of resident memory in the first "
        "search, over a layout; milliseconds through `Gallery.search`;",
        "then the speed-up over faiss with 2 threads / with 1 thread / usearch exact (u).",
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


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options, with the sizes that --quick or the full grid stands for."""
    parser = timing.parser(__doc__)
    sizes = parser.add_argument_group("cases (lists such as 1,100)")
    for name, what in (
        ("n", "gallery sizes"), ("bits", "code lengths"), ("d", "dimensions of float vectors"),
        ("queries", "numbers of queries"), ("k", "numbers of neighbors"),
    ):  # fmt: skip
        sizes.add_argument(
            f"--{name}", type=timing.numbers, metavar="LIST", help=f"Set the {what}."
        )
    sizes.add_argument(
        "--pairs", type=int, default=10**11, metavar="N",
        help="Leave out cases with more pairs of query and row (default: %(default)s).",
    )  # fmt: skip
    sizes.add_argument(
        "--seconds", type=float, default=10, metavar="S",
        help="Time each case for about this many seconds (default: %(default)s).",
    )  # fmt: skip
    sizes.add_argument(
        "--centres", type=int, default=0, metavar="N",
        help="Draw codes around this many random centres (default: none).",
    )  # fmt: skip
    sizes.add_argument(
        "--approximate", action="store_true",
        help="Time approximate indexes as well; they are built in minutes at a million.",
    )  # fmt: skip
    output = parser.add_argument_group("further output")
    output.add_argument(
        "--chart", type=Path, metavar="FILE", help="Draw a log-log chart into this PNG file."
    )
    output.add_argument(
        "--markdown", type=Path, metavar="FILE", help="Write all cases as tables into this file."
    )
    options = parser.parse_args(arguments)
    if options.centres < 0:
        parser.error(f"--centres must be at least 0, got {options.centres}")
    if options.quick:
        defaults = (60_000, 1_000_000), (64,), (64,), (1, 100), (10, 100)
        options.seconds = min(options.seconds, 1)
    else:
        defaults = SIZES, BITS, DIMENSIONS, QUERIES, NEIGHBORS
    for name, default in zip(("n", "bits", "d", "queries", "k"), defaults, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, default)
    return options


def main() -> None:
    """Time, check, write."""
    options = parse()
    print(timing.machine())
    timing.installed("faiss", "usearch", *(["hnswlib"] if options.approximate else []))
    rows: list[dict[str, Any]] = timing.read(options.json)
    grid(options, rows)
    if options.chart:
        chart(options.chart, rows)
    if options.markdown:
        options.markdown.write_text(tables(rows))
    if any(row["equal"] is False for row in rows):
        sys.exit("some results were NOT equal")


if __name__ == "__main__":
    main()
