"""The first second: a fresh process opens a saved gallery and searches it.

    python benchmarks/first_search.py --json=benchmarks/first_search.json [--n=10000,1000000]

Timed are, from the interpreter's start: the first answer (imports included) to one query of random
codes of 256 bits; then, in the same process, the second query, the median of 20 further ones, and
the first and the median query of a compiled program, which takes over after about a second of
searching where NumPy is not the faster one. The peer is a fresh process that reads a faiss index of
the same codes from a file.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import timing

BITS, K, QUERIES = 256, 10, 20
RUNS = 7

OURS = """
import json, sys, time
import numpy as np
from jaxret import Gallery
gallery, queries = Gallery.open(sys.argv[1]), np.load(sys.argv[2])
def taken(query):
    start = time.perf_counter()
    gallery.search(query[None], 10)
    return time.perf_counter() - start
found = gallery.search(queries[:1], 10)
end = time.time()
numpy = [taken(query) for query in queries]
assert "jax" not in sys.modules
from jaxret.search import host, rows
host.BUDGET = rows.BUDGET = rows.QUICK = rows.SMALL = -1
compiled = [taken(query) for query in queries]
answer = found.indices.tolist(), found.distances.tolist()
print(json.dumps({"end": end, "numpy": numpy, "compiled": compiled, "answer": answer}))
"""
FAISS = """
import json, sys, time
import faiss
import numpy as np
index, queries = faiss.read_index_binary(sys.argv[1]), np.load(sys.argv[2])
distances, rows = index.search(queries[:1].view(np.uint8), 10)
print(json.dumps({"end": time.time(), "distances": distances.tolist()}))
"""


def fresh(code: str, *arguments: Path) -> dict[str, Any]:
    """Return what a Python process prints, with the seconds from its start to its first answer."""
    begun = time.time()
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    return told | {"first": told["end"] - begun}


def measure(folder: Path, n: int, runs: int) -> list[timing.Row]:
    """Return the rows of a gallery of n codes."""
    from jaxret import Gallery

    draw = np.random.default_rng(n)
    codes, queries = (
        draw.integers(0, 2**32, (m, BITS // 32), dtype=np.uint32) for m in (n, QUERIES)
    )
    gallery, index, query = (folder / f"{n}-{name}" for name in ("gallery", "faiss", "query.npy"))
    Gallery.from_codes(codes, BITS).save(gallery)
    np.save(query, queries)
    peer = timing.installed("faiss")
    if peer:
        import faiss

        flat = faiss.IndexBinaryFlat(BITS)
        flat.add(codes.view(np.uint8))
        faiss.write_index_binary(flat, str(index))
    ours, theirs = [], []
    for _ in range(runs + 1):  # the first run reads the files into memory
        ours.append(fresh(OURS, gallery, query))
        theirs += [fresh(FAISS, index, query)] if peer else []
    ours, theirs = ours[1:], theirs[1:]
    equal = ours[0]["answer"][1] == theirs[0]["distances"] if peer else None
    name = f"{n:,} codes of {BITS} bits"
    seconds = {
        "second query": [run["numpy"][0] for run in ours],
        "further queries": [float(np.median(run["numpy"])) for run in ours],
        "first query of a compiled program": [run["compiled"][0] for run in ours],
        "its further queries": [float(np.median(run["compiled"][1:])) for run in ours],
    }
    first = [run["first"] for run in ours], "faiss" if peer else None
    rows = [
        timing.summary(
            f"{name}: start to first answer", *first, [r["first"] for r in theirs] or None, equal
        )
    ]
    return rows + [timing.summary(f"{name}: {case}", taken) for case, taken in seconds.items()]


def main() -> None:
    """Make galleries, start processes, and write."""
    parser = timing.parser(__doc__ or "", quick="Time one small gallery, twice.")
    parser.add_argument("--n", type=timing.numbers, default=(10_000, 1_000_000), metavar="N,N")
    options = parser.parse_args()
    print(timing.machine())
    rows: list[timing.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for n in (2000,) if options.quick else options.n:
            rows += measure(Path(folder), n, 2 if options.quick else RUNS)
    for row in rows:
        print(timing.line(row), flush=True)
    timing.write(options.json, rows)


if __name__ == "__main__":
    main()
