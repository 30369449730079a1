"""What a person waits for at the page of `jaxret serve`: milliseconds from a request to its JSON.

    python benchmarks/serve.py --json=FILE [--n=10000,1000000] [--model=photo|look] [--quick]

For each n an index of n random codes is made from one real index, whose model it has, and served
by the command in a process of its own, over loopback. Timed are: the start, until the first page
and until the encoder is loaded; clicks (a search by an indexed image, 20 results, one after the
other on one connection); drops of a JPEG of 12 megapixels; thumbnails never made and kept. Rows of
the index but for 20 name no file.

The peer is a page as people write it after a tutorial: Flask and an Annoy index of the same codes
(Hamming distance, 10 trees), with the same encoder and the same decoder; see serve_peer.py. Annoy
is approximate: `recall` is the share of the exact results that it finds. Without the extra `peers`
only jaxret is timed.
"""

import contextlib
import http.client
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timing

CLICKS, DROPS, REAL = 400, 20, 20  # requests; photos that are files
MEGAPIXELS = (4000, 3000)
WAIT = 120  # seconds for a server
CHUNK = 50_000  # rows in one transaction
PEER = Path(__file__).with_name("serve_peer.py")


class Server:
    """A server in a process of its own, and one connection to it."""

    def __init__(self, command: list[str]):
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        address = urllib.parse.urlsplit(self.process.stdout.readline().strip())
        self.token = urllib.parse.parse_qs(address.query).get("token", [""])[0]
        self.link = http.client.HTTPConnection(address.hostname or "", address.port, timeout=WAIT)

    def ask(self, path: str, body: bytes | None = None) -> bytes:
        """Return the body of an answer; raise RuntimeError where it is no success."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "image/jpeg"}
        self.link.request("GET" if body is None else "POST", path, body, headers)
        answer = self.link.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:200]!r}")
        return content

    def start(self) -> tuple[float, float]:
        """Return the seconds from the start to the first page, and to an encoder that is loaded."""
        self.ask("/")
        page = time.perf_counter() - self.begun
        while not json.loads(self.ask("/api/info"))["ready"]:
            if time.perf_counter() - self.begun > WAIT:
                raise RuntimeError(f"not ready after {WAIT} s")
            time.sleep(0.02)
        return page, time.perf_counter() - self.begun

    def time(self, requests: list[tuple[str, bytes | None]]) -> list[float]:
        """Return the seconds of each request, one after the other."""
        taken = []
        for path, body in requests:
            begun = time.perf_counter()
            self.ask(path, body)
            taken.append(time.perf_counter() - begun)
        return taken


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[Server]:
    """Give a started server, and end it."""
    server = Server(command)
    try:
        yield server
    finally:
        server.link.close()
        server.process.terminate()
        server.process.wait(30)


def ours(index: Path) -> list[str]:
    """Return the command of jaxret's server."""
    return [sys.executable, "-m", "jaxret.app.cli", "serve", str(index), "--port", "0", "-q"]


def photo(seed: int, size: tuple[int, int] = MEGAPIXELS) -> bytes:
    """Return a JPEG of smooth colours with grain: about 3 MB for 12 megapixels."""
    from PIL import Image

    draw = np.random.default_rng(seed)
    colours = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    pixels = np.asarray(colours.resize(size, Image.Resampling.BICUBIC), np.int16)
    grain = draw.integers(-12, 13, (*pixels.shape[:2], 1), dtype=np.int16)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def make_index(folder: Path, n: int, model: str, size: tuple[int, int]) -> Path:
    """Make an index of n rows: REAL photos, and random codes beside them, with its real model."""
    from jaxret.index import build, snapshot
    from jaxret.index.catalogue import Catalogue, Content, Row

    folder.mkdir(parents=True)
    for seed in range(REAL):
        (folder / f"{seed:02}.jpg").write_bytes(photo(seed, size))
    build(folder, model=model)
    draw = np.random.default_rng(n)
    with Catalogue(folder / ".jaxret", write=True) as catalogue:
        facts = catalogue.facts()["model"]
        words = -(-facts["width"] // 32)
        for start in range(REAL, n, CHUNK):
            numbers = range(start, min(start + CHUNK, n))
            codes = draw.integers(0, 2**32, (len(numbers), words), dtype=np.uint32)
            digests = [number.to_bytes(16, "big") for number in numbers]
            rows = [
                Row(number, f"{number // 1000:04}/{number:07}.jpg", 3_000_000, number * 10**9,
                    number, 0, digest, None, False)
                for number, digest in zip(numbers, digests, strict=True)
            ]  # fmt: skip
            contents = [
                Content(digest, code.tobytes(), *MEGAPIXELS, None)
                for digest, code in zip(digests, codes, strict=True)
            ]
            with catalogue.transaction():
                catalogue.put(rows)
                catalogue.stage([], contents, facts["digest"])
        with catalogue.transaction():
            generation = catalogue.facts()["generation"] + 1
            snapshot.publish(catalogue, facts["kind"], facts["width"], generation)
            catalogue.set_facts(generation=generation)
    return folder / ".jaxret"


def row_of(case: str, seconds: list[float], peer: str | None, theirs: list[float] | None) -> Any:
    """Return a row of medians with the 99th percentile beside them."""
    row = timing.summary(case, seconds, peer, theirs)
    row["p99"] = percentile(seconds)
    row["peer_p99"] = percentile(theirs) if theirs else None
    return row


def percentile(seconds: list[float]) -> float:
    """Return the 99th percentile: the value that one of 100 exceeds."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def measure(index: Path, n: int, model: str, upload: bytes, counts: tuple[int, int]) -> list[Any]:
    """Return the rows of one index."""
    draw = np.random.default_rng(1)
    clicks = [f"/api/search?item={draw.integers(n)}&k=20" for _ in range(counts[0])]
    drops: Any = [("/api/search?k=20", upload)] * counts[1]
    thumbs: Any = [(f"/thumb/{number}", None) for number in range(REAL)]
    name = f"{model}, n={n}"
    with running(ours(index)) as server:
        _, compiled = server.start()  # `jaxret index` keeps the encoder's program; make_index not
    with running(ours(index)) as server:
        page, ready = server.start()
        server.ask(drops[0][0], upload)
        server.time([(path, None) for path in clicks[:20]])
        click = server.time([(path, None) for path in clicks])
        drop = server.time(drops)
        made, kept = server.time(thumbs), server.time(thumbs)
        exact = [results(server.ask(path)) for path in clicks[:50]]
    peer = peer_of(index, clicks, drops, exact)
    rows = [
        row_of(f"{name}: click to JSON", click, peer and "Flask + Annoy", peer and peer["click"])
    ]
    rows[0]["recall"] = peer and peer["recall"]
    rows.append(
        row_of(
            f"{name}: drop of 12 MP to JSON", drop, peer and "Flask + Annoy", peer and peer["drop"]
        )
    )
    starts = peer and [peer["start"]]
    rows.append(row_of(f"{name}: start to first page", [page], peer and "Flask + Annoy", starts))
    rows.append(row_of(f"{name}: start to an upload", [ready], None, None))
    rows.append(row_of(f"{name}: the same, nothing compiled yet", [compiled], None, None))
    rows.append(row_of(f"{name}: {REAL} thumbnails never made", [sum(made)], None, None))
    rows.append(row_of(f"{name}: {REAL} thumbnails kept", [sum(kept)], None, None))
    return rows


def peer_of(index: Path, clicks: list[str], drops: Any, exact: list[set[int]]) -> Any:
    """Return the peer's seconds and its recall; None where it is not installed."""
    if len(timing.installed("flask", "annoy")) < 2:
        return None
    with running([sys.executable, str(PEER), "--index", str(index)]) as server:
        server.ask("/")
        start = time.perf_counter() - server.begun
        server.ask(drops[0][0], drops[0][1])
        server.time([(path, None) for path in clicks[:20]])
        click, drop = server.time([(path, None) for path in clicks]), server.time(drops)
        found = [results(server.ask(path)) for path in clicks[: len(exact)]]
    shares = [len(a & b) / len(b) for a, b in zip(found, exact, strict=True)]
    return {"start": start, "click": click, "drop": drop, "recall": statistics.mean(shares)}


def results(content: bytes) -> set[int]:
    """Return the ids of an answer."""
    return {image["id"] for image in json.loads(content)["results"]}


def text_of(row: Any) -> str:
    """Return a row as text."""
    text = f"{timing.line(row)}  p99 {row['p99'] * 1e3:.1f} ms"
    if row["peer_p99"] is not None:
        text += f" ({row['peer_p99'] * 1e3:.1f})"
    return text + (f"  recall {row['recall']:.3f}" if row.get("recall") is not None else "")


def main() -> None:
    """Make indexes, time, and write."""
    parser = timing.parser(__doc__, quick="Time a tiny index.")
    cases = parser.add_argument_group("cases")
    cases.add_argument("--n", type=timing.numbers, default=(10_000, 1_000_000), metavar="N,N")
    cases.add_argument("--model", default="photo", help="The model of the index: photo or look.")
    cases.add_argument("--folder", type=Path, help="Where indexes are kept for the next run.")
    options = parser.parse_args()
    print(timing.machine())
    sizes, size = ((100,), (400, 300)) if options.quick else (options.n, MEGAPIXELS)
    counts = (20, 3) if options.quick else (CLICKS, DROPS)
    rows: list[Any] = []
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        for n in sizes:
            folder = Path(options.folder or temporary) / f"{options.model}-{n}-{size[0]}"
            index = folder / ".jaxret"
            if not folder.exists():
                make_index(folder, n, options.model, size)
            for kept in (index / "thumbs").glob("*/*"):
                os.unlink(kept)
            measured = measure(index, n, options.model, photo(10**6, size), counts)
            for row in measured:
                print(text_of(row), flush=True)
            rows += measured
            timing.write(options.json, rows)


if __name__ == "__main__":
    main()
