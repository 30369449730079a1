"""Honest timing: ours and a peer in turn, in one process, medians, and the result compared."""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "experiments"))

import harness


def in_turn(*functions: Callable[[], Any], repeats: int = 7, warmup: int = 1) -> list[list[float]]:
    """Seconds of each function's runs, A B A B ..., after warm-up runs that are not counted.

    A function must wait for its result (block_until_ready, synchronize) before it returns.
    """
    for function in functions:
        for _ in range(warmup):
            function()
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, taken in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return seconds


def compare(
    case: str,
    ours: Callable[[], Any],
    peer_name: str | None = None,
    peer: Callable[[], Any] | None = None,
    *,
    equal: bool | None = None,
    repeats: int = 7,
) -> dict[str, Any]:
    """One row of a benchmark, and print it.

    seconds and peer_seconds are medians, spread is ours' interquartile range over its median,
    ratio is peer_seconds / seconds: above 1, jaxret is the faster. equal: the results were the
    same; None where they cannot be compared, or there is no peer.
    """
    timed = in_turn(*([ours] if peer is None else [ours, peer]), repeats=repeats)
    row = summary(case, timed[0], peer_name, timed[1] if peer else None, equal)
    print(line(row), flush=True)
    return row


def beside(
    case: str,
    ours: Callable[[], Any],
    peers: dict[str, Callable[[], Any]],
    *,
    equal: dict[str, bool | None],
    work: int,
    calls: int = 1,
    repeats: int = 7,
) -> list[dict[str, Any]]:
    """A row for each of several peers, all timed in turn, or one row where there is none.

    work is how many images a call handles; a timed run is so many calls.
    """

    def repeat(function):
        return lambda: [function() for _ in range(calls)]

    timed = in_turn(*map(repeat, [ours, *peers.values()]), repeats=repeats)
    seconds, *of_peers = [[run / calls for run in runs] for runs in timed]
    by_name = dict(zip(peers, of_peers, strict=True)) or {None: None}
    rows = []
    for name, peer_seconds in by_name.items():
        row = summary(case, seconds, name, peer_seconds, equal.get(name))
        row["images_per_second"] = work / row["seconds"]
        if peer_seconds:
            row["peer_images_per_second"] = work / row["peer_seconds"]
        print(f"{line(row)}  {row['images_per_second']:,.0f} images/s", flush=True)
        rows.append(row)
    return rows


def summary(
    case: str,
    seconds: list[float],
    peer_name: str | None = None,
    peer_seconds: list[float] | None = None,
    equal: bool | None = None,
) -> dict[str, Any]:
    """A row of a benchmark from the seconds of its runs."""
    median = statistics.median(seconds)
    quarters = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [0, 0, 0]
    peer_median = statistics.median(peer_seconds) if peer_seconds else None
    return {
        "case": case,
        "seconds": median,
        "spread": (quarters[2] - quarters[0]) / median,
        "peer": peer_name,
        "peer_seconds": peer_median,
        "ratio": peer_median / median if peer_median else None,
        "equal": equal,
    }


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    text = f"{row['case']:58} {row['seconds'] * 1e3:11.3f} ms ±{row['spread']:4.0%}"
    if row["ratio"] is not None:
        text += f"  {row['peer']} {row['peer_seconds'] * 1e3:.3f} ms  ratio {row['ratio']:.2f}"
    return text + {True: "  equal", False: "  NOT EQUAL", None: ""}[row["equal"]]


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=description.splitlines()[0])
    options.add_argument("--json", type=Path, help="write the rows to this file")
    options.add_argument("--quick", action="store_true", help="about a minute's worth")
    return options


def write(path: Path | None, rows: list[dict[str, Any]]) -> None:
    """The rows as a JSON list, whole or not at all."""
    if path is not None:
        harness.write_whole(path, json.dumps(rows, indent=1) + "\n")


def read(path: Path | None) -> list[dict[str, Any]]:
    """The rows that were written there before, if any."""
    return json.loads(path.read_text()) if path is not None and path.exists() else []


def machine() -> str:
    """One line: device, versions, commit. Print it above a table."""
    facts = harness.environment()
    return ", ".join(
        [facts["device"], f"{os.cpu_count()} cpus", platform.system()]
        + [f"{name} {facts[name]}" for name in ("python", "jax", "jaxret", "commit")]
    )
