"""What the command `jaxret` takes, in seconds and memory, from a cold process: search and index.

    python benchmarks/index_photos.py --json=FILE [--quick] [--cases=cold,large,small,many]

cold: `--help`; a search by an indexed photo among 10,000 and 1,000,000 images (random codes), and
by a new photo. large: `index` of 1,000 photos of 12 megapixels, against decoding them alone. small:
`index` of 10,000 photos of 96 x 96, and again with nothing changed. many: 20,000 of these.

Photos are those of photos/caltech101 below JAXRET_DATA_DIR, enlarged with noise to 12 megapixels;
a file that is needed several times gets other bytes after the picture. Compiled programs are kept
in the work folder, and a first run warms them. The seconds of `index` are those of the command less
those of an index of 16 photos: start and compilation are apart. Peak memory is of the process.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timing

CASES = ("cold", "large", "small", "many")
LARGE = (4000, 3000)
PICTURES = 60  # different large pictures
NOISE = 7.0  # grey levels: gives a JPEG of 12 megapixels about 3 MB, as a camera's
FEW = 16
REPEATS = 5
COMMAND = "import sys; from jaxret.app.cli import main; sys.exit(main())"
# A process's peak memory begins with that of the process it is forked from: this one is small.
LAUNCH = """
import resource, subprocess, sys, time
began = time.perf_counter()
status = subprocess.call(sys.argv[1:])
seconds = time.perf_counter() - began
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""
MORE = ("images_per_second", "peak_megabytes", "start_seconds")


class Sizes(NamedTuple):
    """How many images the cases have."""

    searched: tuple[int, ...] = (10_000, 1_000_000)
    large: int = 1000
    small: int = 10_000
    many: int = 20_000


QUICK = Sizes((100, 1000), FEW, 2 * FEW, 3 * FEW)


class Bench:
    """A work folder, the photos and the command."""

    def __init__(self, folder: Path, photos: Path):
        self.folder = folder
        self.sources = sorted(photos.rglob("*.jpg"))
        if not self.sources:
            sys.exit(f"error: {photos}: there is no photo; set JAXRET_DATA_DIR")
        self.environment = dict(os.environ, XDG_CACHE_HOME=str(folder / "cache"))
        self.environment.pop("JAX_COMPILATION_CACHE_DIR", None)

    def command(self, *arguments: Any) -> tuple[float, float, bytes]:
        """Run the command; return its seconds, its peak memory in MB, and its output."""
        words = [sys.executable, "-c", LAUNCH, sys.executable, "-c", COMMAND, *map(str, arguments)]
        done = subprocess.run(
            words, env=self.environment, cwd=self.folder, capture_output=True, check=False
        )
        if done.returncode:
            sys.exit(f"error: jaxret {' '.join(map(str, arguments))}: {done.stderr.decode()}")
        seconds, kilobytes = map(float, done.stderr.split()[-2:])
        return seconds, kilobytes / 1000, done.stdout

    def small(self, count: int) -> Path:
        """Return a folder of this many small photos, each with different bytes."""
        return self._photos(f"small{count}", count, [file.read_bytes() for file in self.sources])

    def large(self, count: int) -> Path:
        """Return a folder of this many photos of 12 megapixels, each with different bytes."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            chosen = self.sources[:: max(1, len(self.sources) // PICTURES)]
            pictures = list(pool.map(enlarged, chosen[: min(PICTURES, count)]))
        return self._photos(f"large{count}", count, pictures)

    def _photos(self, name: str, count: int, pictures: Sequence[bytes]) -> Path:
        root = self.folder / name
        for number in range(count):
            file = root / f"{number % 100:02}" / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(pictures[number % len(pictures)] + number.to_bytes(4, "big"))
            os.utime(file, (1e9, 1e9))
        return root

    def synthetic(self, count: int) -> Path:
        """Return an index of random codes, whose files are not there."""
        from jaxret.index import places, snapshot
        from jaxret.index.catalogue import Catalogue, Content, Row

        index, width, digest = self.folder / f"synthetic{count}", 256, "0" * 64
        places.prepare(index)
        words = np.random.default_rng(0).integers(0, 2**32, (count, width // 32), np.uint32)
        model = {"name": "look", "digest": digest, "kind": "codes", "width": width, "asked": {}}
        with (
            places.writing(index),
            Catalogue(index, write=True) as catalogue,
            catalogue.transaction(),
        ):
            for start in range(0, count, 10_000):
                rows = [
                    Row(n, f"{n % 1000:03}/{n}.jpg", 1, 1, n, 1, n.to_bytes(16, "big"), None, False)
                    for n in range(start, min(start + 10_000, count))
                ]
                contents = [
                    Content(row.digest, words[row.id].tobytes(), 96, 96, None) for row in rows
                ]
                catalogue.put(rows)
                catalogue.stage([], contents, digest)
            catalogue.set_facts(model=model, generation=1, next_id=count, root="..")
            snapshot.publish(catalogue, "codes", width, 1)
        return index


def enlarged(file: Path) -> bytes:
    """Return a photo enlarged to 12 megapixels with noise, as a JPEG."""
    import io

    from PIL import Image

    photo = Image.open(file).convert("RGB").resize(LARGE, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, NOISE, (LARGE[1], LARGE[0], 1)).astype(np.float32)
    pixels = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=85)
    return content.getvalue()


def decode(root: Path) -> float:
    """Return the seconds that decoding all photos alone takes, on all cores, as `index` does it."""
    from jaxret.index import contents

    def one(path):
        with open(path, "rb") as file:
            return contents.decode(file, 224).pixels[0, 0, 0]

    began = time.perf_counter()
    with contents.many_pixels(), ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, sorted(root.rglob("*.jpg"))))
    return time.perf_counter() - began


def cold(bench: Bench, sizes: Sizes) -> list[timing.Row]:
    """Time searches from a cold process."""
    few = bench.small(FEW)
    bench.command("index", few, "-q")
    photo, new = few / "00" / "0.jpg", bench.folder / "new.jpg"
    new.write_bytes(enlarged(bench.sources[0]))
    cases = {"jaxret --help": ("--help",)}
    for count in sizes.searched:
        index = bench.synthetic(count)
        name = f"search by an indexed photo, {count:,} images"
        cases[name] = ("search", "id:17", "--index", index)
    cases[f"search by an indexed file, {FEW} images"] = ("search", photo)
    cases[f"search by a new photo of 12 megapixels, {FEW} images"] = (
        "search", new, "--index", few / ".jaxret",
    )  # fmt: skip
    rows = []
    for name, words in cases.items():
        bench.command(*words)
        runs = [bench.command(*words) for _ in range(REPEATS)]
        rows.append(timing.summary(name, [run[0] for run in runs]))
        rows[-1]["peak_megabytes"] = max(run[1] for run in runs)
        print(timing.line(rows[-1]), flush=True)
    return rows


def _indexed(bench: Bench, root: Path, case: str, base: float) -> timing.Row:
    shutil.rmtree(root / ".jaxret", ignore_errors=True)
    seconds, peak, output = bench.command("index", root, "--json", "-q")
    images = json.loads(output)["summary"]["images"]
    row = timing.summary(case, [seconds - base])
    row |= {"images_per_second": images / row["seconds"], "peak_megabytes": peak}
    row["start_seconds"] = base
    return row


def _base(bench: Bench, count: int) -> float:
    """Return the seconds of an index of few photos, after a run that compiles."""
    for root in (bench.small(min(count, 1000)), bench.small(FEW)):
        shutil.rmtree(root / ".jaxret", ignore_errors=True)
        bench.command("index", root, "-q")
    return _indexed(bench, bench.small(FEW), "", 0.0)["seconds"]


def large(bench: Bench, sizes: Sizes) -> list[timing.Row]:
    """Time an index of large photos against decoding them."""
    base, root = _base(bench, sizes.large), bench.large(sizes.large)
    decoding = [decode(root)]
    row = _indexed(bench, root, f"index {sizes.large:,} photos of 12 megapixels", base)
    decoding.append(decode(root))
    row["peer"], row["peer_seconds"] = "decoding alone", sum(decoding) / 2
    row["ratio"] = row["peer_seconds"] / row["seconds"]
    return [row]


def small(bench: Bench, sizes: Sizes) -> list[timing.Row]:
    """Time an index of small photos, and one of the same photos again."""
    base, root = _base(bench, sizes.small), bench.small(sizes.small)
    row = _indexed(bench, root, f"index {sizes.small:,} photos of 96 x 96", base)
    again = [bench.command("index", root, "-q")[0] for _ in range(REPEATS)]
    return [row, timing.summary(f"index {sizes.small:,} photos, nothing changed", again)]


def many(bench: Bench, sizes: Sizes) -> list[timing.Row]:
    """Take the memory of an index of many photos."""
    base, root = _base(bench, sizes.many), bench.small(sizes.many)
    return [_indexed(bench, root, f"index {sizes.many:,} photos of 96 x 96", base)]


RUN: dict[str, Callable[[Bench, Sizes], list[timing.Row]]] = {
    "cold": cold, "large": large, "small": small, "many": many,
}  # fmt: skip


def _cases(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= set(CASES):
        raise argparse.ArgumentTypeError(f"names of {', '.join(CASES)} are expected, got {text!r}")
    return names


def main() -> None:
    """Time and write."""
    parser = timing.parser(__doc__, quick="Time a few images.")
    group = parser.add_argument_group("cases")
    group.add_argument("--cases", type=_cases, default=list(CASES), help="Time only these.")
    group.add_argument("--workdir", type=Path, help="Work in this folder (a temporary one).")
    options = parser.parse_args()
    print(timing.machine())
    photos = Path(os.environ.get("JAXRET_DATA_DIR", ".")) / "photos" / "caltech101"
    rows = timing.read(options.json)
    with tempfile.TemporaryDirectory(dir=options.workdir) as folder:
        bench = Bench(Path(folder), photos)
        for case in options.cases:
            found = RUN[case](bench, QUICK if options.quick else Sizes())
            names = {row["case"] for row in found}
            rows = [row for row in rows if row["case"] not in names] + found
            timing.write(options.json, rows)
            if case != "cold":
                for row in found:
                    facts = (f"{name} {row[name]:,.0f}" for name in MORE if name in row)
                    print("  ".join([timing.line(row), *facts]), flush=True)


if __name__ == "__main__":
    main()
