"""Whole jobs at scale: search of a mapped file, mean average precision over a whole gallery.

    python benchmarks/scale.py --folder=/tmp/gallery          # needs 1.6 GB there for 10^8 codes

Each job runs in a process of its own; peak_bytes is the greatest resident memory of that process,
imports and compilation included. `equal`: the search of the file finds exactly the neighbors that
were planted, in order; the mean average precision is compared with its definition on 50 queries.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import timing

BITS, QUERIES, NEIGHBORS = 64, 100, 10
STRETCH = 10_000_000  # codes made at a time


def queries_and_planted(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return queries u64[q], and for each the rows i64[q 10] where near codes are planted.

    They lie 0, 0, 1, 1, ... 4, 4 bits from the query: no random code of 64 bits comes so near, even
    among a thousand million.
    """
    words = rng.integers(0, 2**64, QUERIES, dtype=np.uint64)
    rows = rng.choice(n, (QUERIES, NEIGHBORS // 2, 2), replace=False, shuffle=False)
    return words, np.sort(rows, axis=2).reshape(QUERIES, NEIGHBORS)


def make(folder: Path, n: int) -> None:
    """Save a gallery of n random codes among which the neighbors are planted."""
    from jaxret.gallery import Gallery

    rng = np.random.default_rng(0)
    words, rows = queries_and_planted(rng, n)
    codes = np.concatenate(
        [rng.integers(0, 2**64, min(STRETCH, n - i), dtype=np.uint64) for i in range(0, n, STRETCH)]
    )
    for i in range(NEIGHBORS):
        codes[rows[:, i]] = words ^ np.uint64(2 ** (i // 2) - 1)
    codes = codes.view(np.uint32).reshape(n, 2)
    codes.flags.writeable = False  # or the gallery would copy it
    Gallery.from_codes(codes, BITS).save(folder)


def mapped_search(folder: Path, n: int) -> dict[str, Any]:
    """Return the row of a search in the folder that does not read it into memory."""
    from jaxret.gallery import Gallery

    words, rows = queries_and_planted(np.random.default_rng(0), n)
    query = words.view(np.uint32).reshape(-1, 2)
    gallery = Gallery.open(folder, verify=False)
    taken, found = [], None
    for _ in range(3):
        start = time.perf_counter()
        found = gallery.search(query, NEIGHBORS)
        taken.append(time.perf_counter() - start)
    distances, ids = np.asarray(found.distances), np.asarray(found.indices)
    equal = np.array_equal(ids, rows) and bool((distances == np.arange(NEIGHBORS) // 2).all())
    case = f"mapped gallery: hamming {BITS} bits, n={n}, q={QUERIES}, k={NEIGHBORS}"
    return timing.summary(case, taken[1:], equal=equal)


def whole_map(n: int) -> dict[str, Any]:
    """Return the row of mean average precision over all n rows, for n / 6 queries, with ties."""
    from jaxret.evaluate import retrieval_scores

    rng = np.random.default_rng(0)
    q = n // 6
    labels = rng.integers(0, 10, n + q).astype(np.int32)
    centres = rng.standard_normal((10, BITS))
    latents = (centres[labels] + 2 * rng.standard_normal((n + q, BITS))).astype(np.float32)
    start = time.perf_counter()
    arguments = latents[:q], latents[q:], labels[:q], labels[q:]
    scores = retrieval_scores(*arguments, distance="hamming")
    taken = time.perf_counter() - start
    few = slice(50)
    shown = retrieval_scores(
        latents[:q][few], latents[q:], labels[:q][few], labels[q:], distance="hamming"
    )
    bits = latents >= 0
    expected = []
    for query, label in zip(bits[:q][few], labels[:q][few], strict=True):
        order = np.argsort((bits[q:] != query).sum(axis=1), kind="stable")
        hits = labels[q:][order] == label
        precision = np.cumsum(hits) / np.arange(1, n + 1)
        expected.append(precision[hits].mean())
    equal = bool(np.isclose(shown["map@all/all"], np.mean(expected), atol=1e-5))
    print(f"map@all/all {scores['map@all/all']:.4f}")
    case = f"whole-gallery map with ties: hamming {BITS} bits, n={n}, q={q}"
    return timing.summary(case, [taken], equal=equal)


def alone(*arguments: Any) -> dict[str, Any]:
    """Return the row of a job that runs in a process of its own; print what else it prints."""
    command = [sys.executable, __file__, "--job", json.dumps(arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    *lines, row = done.stdout.splitlines()
    print(*lines, sep="\n", end="\n" * bool(lines))
    return json.loads(row)


def main() -> None:
    """Run both jobs, or one of them for a parent."""
    parser = timing.parser(__doc__)
    sizes = parser.add_argument_group("sizes")
    sizes.add_argument(
        "--n", type=int, default=100_000_000,
        help="Put this many codes into the mapped gallery (default: %(default)s).",
    )  # fmt: skip
    sizes.add_argument(
        "--rows", type=int, default=60_000,
        help="Score a gallery of this many rows (default: %(default)s).",
    )  # fmt: skip
    sizes.add_argument(
        "--folder", type=Path, help="Write the gallery under this folder, and remove it at the end."
    )
    parser.add_argument("--job", help=argparse.SUPPRESS)  # for the script's own processes
    options = parser.parse_args()
    if options.job:
        name, *arguments = json.loads(options.job)
        if name == "make":
            make(Path(arguments[0]), arguments[1])
            print("{}")
            return
        mapped = name == "mapped"
        row = mapped_search(Path(arguments[0]), arguments[1]) if mapped else whole_map(*arguments)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(row | {"peak_bytes": peak}))
        return
    if options.quick:
        options.n, options.rows = min(options.n, 2_000_000), min(options.rows, 6000)

    print(timing.machine())
    rows = []
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        alone("make", str(folder / "gallery"), options.n)
        for job in (("mapped", str(folder / "gallery"), options.n), ("map", options.rows)):
            rows.append(alone(*job))
            print(f"{timing.line(rows[-1])}  {rows[-1]['peak_bytes'] / 2**30:.2f} GiB", flush=True)
            timing.write(options.json, rows)
    finally:
        shutil.rmtree(folder)
    if not all(row["equal"] for row in rows):
        sys.exit("some results were NOT equal")


if __name__ == "__main__":
    main()
