"""Time jaxret and its peers in turn, in one process, and write rows of medians.

This module is no command; the benchmarks (search.py, train.py, encode.py, ...) import it.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
for _folder in (REPOSITORY, REPOSITORY / "experiments"):  # jaxret need not be installed
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

Row = dict[str, Any]
TIME_UP = 3  # the exit code of a benchmark that left cases out for want of time
NAMES = {"torch": "PyTorch", "faiss": "faiss", "usearch": "usearch", "cupy": "CuPy"}


def in_turn(
    *functions: Callable[[], Any],
    repeats: int = 7,
    warmup: int = 1,
    pause: float = 0.0,
    settle: float = 0.0,
) -> list[list[float]]:
    """Return the seconds of each function's runs, taken in turn: A B A B ...

    Args:
        functions: each must wait for its result (block_until_ready, synchronize) before it returns.
        repeats: timed runs of each function.
        warmup: runs of each function before those, which are not timed.
        pause: seconds to wait before each timed run. Threads of OpenMP and of ONNX Runtime keep a
            core busy for a while after their work is done, which the next function would pay for.
        settle: seconds for which a function runs, untimed, before each of its timed runs. After a
            pause a search of a millisecond takes twice as long, and threads of OpenMP that sleep
            are woken up in ten; a function that settles in is timed as in a loop of its own.

    Returns:
        One list of `repeats` numbers per function, in seconds.
    """
    for function in functions:
        for _ in range(warmup):
            function()
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, taken in zip(functions, seconds, strict=True):
            time.sleep(pause)
            start = time.perf_counter()
            while time.perf_counter() - start < settle:
                function()
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return seconds


def compare(
    case: str,
    ours: Callable[[], Any],
    peers: Mapping[str, Callable[[], Any]],
    *,
    equal: Mapping[str, bool | None],
    work: int,
    calls: int = 1,
    repeats: int = 7,
    unit: str = "images",
    pause: float = 0.0,
) -> list[Row]:
    """Return one row per peer, all timed in turn, and print them; one row if there is no peer.

    Args:
        case: what is timed.
        ours: jaxret's function; it waits for its result.
        peers: name -> function that does the same.
        equal: name -> whether the peer's result is the same; None or absent: not compared.
        work: how many of `unit` one call handles.
        calls: calls in one timed run; the seconds of a row are of one call.
        repeats: timed runs of each function.
        unit: what is counted; a row has `<unit>_per_second` and `peer_<unit>_per_second`.
        pause: see in_turn.

    Returns:
        Rows as `summary` gives them, with the two rates added.
    """

    def repeat(function):
        return lambda: [function() for _ in range(calls)]

    timed = in_turn(*map(repeat, [ours, *peers.values()]), repeats=repeats, pause=pause)
    seconds, *peer_runs = [[run / calls for run in runs] for runs in timed]
    by_name = dict(zip(peers, peer_runs, strict=True)) or {None: None}
    rows = []
    for name, peer_seconds in by_name.items():
        row = summary(case, seconds, name, peer_seconds, equal.get(name))
        row[f"{unit}_per_second"] = work / row["seconds"]
        if peer_seconds:
            row[f"peer_{unit}_per_second"] = work / row["peer_seconds"]
        print(f"{line(row)}  {row[f'{unit}_per_second']:,.0f} {unit}/s", flush=True)
        rows.append(row)
    return rows


def summary(
    case: str,
    seconds: list[float],
    peer_name: str | None = None,
    peer_seconds: list[float] | None = None,
    equal: bool | None = None,
) -> Row:
    """Return a row from the seconds of timed runs.

    Args:
        case: what was timed.
        seconds: jaxret's runs.
        peer_name: what it is compared with; None: nothing.
        peer_seconds: the peer's runs.
        equal: whether both results are the same; None: not compared.

    Returns:
        The fields of every benchmark's rows: `seconds` and `peer_seconds` are medians, `spread` is
        the interquartile range of ours over its median, `ratio` is peer_seconds / seconds.
    """
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


def failure(case: str, error: BaseException, peer: str | None = None) -> Row:
    """Return the row of a case, or of a case's peer, that could not be run, and print why."""
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    row = dict.fromkeys(("seconds", "spread", "peer", "peer_seconds", "ratio", "equal"))
    row = {"case": case, **row, "peer": peer, "error": f"{type(error).__name__}: {reason}"}
    print(f"{case:58} {peer or ''} FAILED: {row['error']}", flush=True)
    return row


def line(row: Row) -> str:
    """Return a row as text."""
    text = f"{row['case']:58} {row['seconds'] * 1e3:11.3f} ms ±{row['spread']:4.0%}"
    if row["ratio"] is not None:
        text += f"  {row['peer']} {row['peer_seconds'] * 1e3:.3f} ms  ratio {row['ratio']:.2f}"
    return text + {True: "  equal", False: "  NOT EQUAL", None: ""}[row["equal"]]


def parser(doc: str, quick: str = "Run a minute's worth of cases.") -> argparse.ArgumentParser:
    """Return a parser with the flags of every benchmark; `doc` is the script's docstring."""
    options = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    run = options.add_argument_group("run")
    run.add_argument("-h", "--help", action="help", help="Show this text and exit.")
    run.add_argument("--json", type=Path, metavar="FILE", help="Write the rows to this JSON file.")
    run.add_argument("--quick", action="store_true", help=quick)
    return options


def numbers(text: str) -> tuple[int, ...]:
    """Parse a list such as 1,100."""
    return tuple(int(part) for part in text.split(",") if part)


def add_seconds(group: Any) -> None:
    """Add --seconds to a group of flags: when to stop starting cases; see `end`."""
    group.add_argument(
        "--seconds", type=float, default=float("inf"), metavar="S",
        help=f"Start no case after this many seconds, and then exit with {TIME_UP}.",
    )  # fmt: skip


def end(left: list[str]) -> None:
    """Exit with TIME_UP where cases are left for another start, and say how many."""
    if left:
        print(f"time is up; {len(left)} cases are left for another start: {left[0]}, ...")
        sys.exit(TIME_UP)


def write(path: Path | None, rows: list[Row]) -> None:
    """Write the rows to a JSON file, whole or not at all; None: write nothing."""
    if path is not None:
        write_json(path, rows)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    from jaxret.files import write_whole

    write_whole(path, json.dumps(value, indent=1) + "\n")


def read(path: Path | None) -> list[Row]:
    """Return the rows of a JSON file; none where there is no such file."""
    return json.loads(path.read_text()) if path is not None and path.exists() else []


def environment() -> dict[str, Any]:
    """Return device, versions and commit: one truth with the experiments."""
    import harness

    return harness.environment()


def machine() -> str:
    """Return one line of device, versions and commit, to print above a table."""
    facts = environment()
    return ", ".join(
        [facts["device"], f"{os.cpu_count()} cpus", platform.system()]
        + [f"{name} {facts[name]}" for name in ("python", "jax", "jaxret", "commit")]
    )


def installed(*modules: str) -> tuple[str, ...]:
    """Return which of these modules can be imported; print a line for each other."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    for name in missing:
        print(f"{NAMES.get(name, name)} is not installed: no row compares jaxret with it.")
    return tuple(name for name in modules if name not in missing)


def no_command(module: str, users: str) -> None:
    """Print that a module is no command, and which scripts use it."""
    print(f"{Path(module).name} is a module, not a command; {users} use it.")


if __name__ == "__main__":
    no_command(__file__, "all benchmarks (search.py, train.py, encode.py, scale.py, ...)")
