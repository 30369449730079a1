"""Everything that wants an accelerator, in one command: train, evaluate, time, write every number.

    python benchmarks/run_accelerator.py --out=runs/accelerator --budget=1500
    python benchmarks/run_accelerator.py --out=runs/accelerator --list

The networks of Jimenez 2017 on CIFAR-10, as published and by our recipe, the most wanted first;
between them times of training and of codes (tables 5.4 and 5.5), search on the device, figures, and
the benchmarks of training and encoding. Each finished job leaves jobs/NAME.json in --out and is
skipped from then on; a training that was stopped goes on from its checkpoint. So the command may be
given again, in another short slot, with the jobs/ of the last. At its end results.json has all that
is known: device, versions, each job's numbers, and the paper's tables, also in tables/.

Estimates are for one H200 and adapt to what the finished jobs took. A job whose estimate does not
fit what is left of --budget is not started, unless it is the first; what runs over is stopped.
"""

import argparse
import dataclasses
import importlib
import itertools
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timing  # noqa: F401  # first of ours: it makes experiments/ importable

# isort: split
import harness
import table
import train_hasher
from jimenez2017.tables import TABLES
from runs import keep

EXPERIMENTS, BENCHMARKS = (harness.REPOSITORY / name for name in ("experiments", "benchmarks"))
PAPER_TABLES = ("5.1", "5.2", "5.3", "5.4", "5.5")  # those of CIFAR-10
TRAINED = TABLES["5.3"]
# (depth, bits), the most wanted first.
FIRST, OTHER_DEPTHS = [(15, 48)], [(1, 48), (3, 48), (5, 48), (9, 48)]
OTHER_LENGTHS = [(15, 12), (15, 32), (15, 24), (15, 128)]


class Job(NamedTuple):
    """A command, about how long it takes, and what it leaves."""

    name: str
    command: list[str]
    seconds: float
    result: Callable[[], dict[str, Any]]  # read when the command is done
    done: Callable[[], float] = lambda: 0.0  # the share that an earlier start has done


def command(script: Path, *options: str) -> list[str]:
    """Run a script with this Python."""
    return [sys.executable, str(script), *options]


def training(n: int, bits: int, column: str, seed: int, options) -> Job:
    """A row and column of table 5.3, trained by train_hasher."""
    row = next(row for row in TRAINED.rows if row.name == f"DRHN-{n} at {bits} bits")
    name = f"drhn{n}-{bits}-{column.replace('_', '-')}" + (f"-seed{seed}" if seed else "")
    workdir = options.out / "runs" / name
    images = {"dataset": options.dataset, "protocol": options.protocol, "seed": seed}
    settings = row.settings if column == "as_published" else row.ours
    quick = {"epochs": 1} if options.quick else {}
    config = train_hasher.HasherConfig(**settings | images | quick, workdir=str(workdir))
    flags = [f"--{key}={value}" for key, value in changed(config).items()]

    def result():
        written = read_json(workdir / "metrics.json")
        run = {name: written[name] for name in ("config", "metrics", "environment")}
        run |= {"script": "train_hasher", "protocol": written["protocol"]["name"], "vmap_runs": 1}
        run["seconds"] = written["train"]["seconds"]
        return {"protocol": written["protocol"], "train": written["train"], "runs": [run]}

    def done():
        log = workdir / "log.jsonl"
        return len(log.read_text().splitlines()) / config.epochs if log.exists() else 0.0

    # Compilation and evaluation, then each pass over the training images.
    seconds = 30 + 6 * n + config.epochs * 0.25 * (1 + n)
    script = EXPERIMENTS / "train_hasher.py"
    options = "--resume", "--watch", f"--data_dir={options.data_dir}"
    return Job(name, command(script, *flags, *options), seconds, result, done)


def changed(config: harness.Config) -> dict[str, Any]:
    """The flags that are not at their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    values = dataclasses.asdict(config)
    return {name: value for name, value in values.items() if value != defaults[name]}


def times(depths: tuple[int, ...], options) -> Job:
    """Cells of tables 5.4 and 5.5, at 48 bits."""
    rows = f"^DRHN-({'|'.join(map(str, depths))}) at 48"
    asked = reproduce(options, ("5.4", "5.5"), f"--rows={rows}")

    def result():
        runs = map(read_json, (options.out / "tables" / "rows").glob("*.json"))
        of_times = [run | {"script": "time_hasher"} for run in runs if "what" in run["config"]]
        return {"runs": [run for run in of_times if run["config"]["depth"] in depths]}

    name = "times-" + "-".join(map(str, depths))
    return Job(name, asked, 15 * sum(depths) + 30, result)


def reproduce(options, names: tuple[str, ...], *more: str) -> list[str]:
    """The command for some of the paper's tables."""
    asked = ",".join(f"jimenez2017:{name}" for name in names)
    where = f"--workdir={options.out / 'tables'}", f"--data_dir={options.data_dir}"
    images = f"--dataset={options.dataset}", f"--protocol={options.protocol}"
    if options.quick:
        more += ("--epochs=1",)
    script = EXPERIMENTS / "reproduce.py"
    return command(script, f"--table={asked}", *where, *images, f"--seeds={options.seeds}", *more)


def read_json(path: Path) -> Any:
    """What a file holds."""
    return json.loads(path.read_text())


def benchmark(name: str, script: str, seconds: float, options, *more: str) -> Job:
    """One of the benchmarks beside this one."""
    rows = options.out / f"{name}.json"
    quick = ("--quick",) if options.quick else ()
    asked = command(BENCHMARKS / script, f"--json={rows}", *quick, *more)
    return Job(name, asked, seconds, lambda: {"rows": read_json(rows)})


def figures(options) -> Job:
    """Of the runs that are finished by then."""
    finished = sorted((options.out / "runs").glob("*/metrics.json"))
    runs = ",".join(str(path.parent) for path in finished)
    where = f"--workdir={options.out / 'figures'}", f"--data_dir={options.data_dir}"
    asked = command(EXPERIMENTS / "figures.py", f"--runs={runs}", *where)

    def result():
        return {"figures": sorted(path.name for path in (options.out / "figures").rglob("*.png"))}

    return Job("figures", asked, 20 + 15 * len(finished), result)


def jobs(options) -> Iterator[Job]:
    """All of them, in order; each is made when the ones before it are done."""

    def trainings(networks, seed=0):
        for n, bits in networks:
            for column in table.COLUMNS:
                yield training(n, bits, column, seed, options)

    if options.quick:
        yield from trainings([(1, 12)])
        yield times((1,), options)
        yield figures(options)
        sizes = "--n=2000", "--bits=64", "--d=", "--queries=4", "--k=5"
        yield benchmark("search", "search.py", 20, options, *sizes)
    else:
        yield from trainings(FIRST)
        yield times((15,), options)
        yield from trainings(OTHER_DEPTHS)
        yield times((1, 3, 5, 9), options)
        yield benchmark("search", "search.py", 240, options, "--device")
        yield from trainings(OTHER_LENGTHS)
        yield figures(options)
    yield benchmark("train", "train.py", 90, options)
    yield benchmark("encode", "encode.py", 60, options)
    for seed in range(1, options.seeds):
        yield from trainings([(1, 12)] if options.quick else FIRST + OTHER_DEPTHS, seed)


def kept(options, job: Job) -> Path:
    """Where a finished job's numbers are."""
    return options.out / "jobs" / f"{job.name}.json"


def finished(options) -> list[dict[str, Any]]:
    """What the finished jobs found, in the order of their names."""
    return [read_json(path) for path in sorted((options.out / "jobs").glob("*.json"))]


def estimate(job: Job, before: list[dict[str, Any]]) -> float:
    """Seconds that are still to go, by what the finished jobs took beside their estimates."""
    ratios = [one["seconds"] / one["estimate"] for one in before]
    return to_go(job) * (statistics.median(ratios) if ratios else 1.0)


def to_go(job: Job) -> float:
    """A job's own estimate, less what an earlier start has done; to start takes time, too."""
    return job.seconds * max(0.05, 1 - job.done())


def run(options, job: Job, seconds: float) -> tuple[bool, float]:
    """Run a job for so many seconds at most: whether it ended well, and what it took."""
    log = kept(options, job).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    environment = {"JAXRET_CHECKPOINT_SECONDS": "30"} | os.environ
    with open(log, "a") as file:
        process = subprocess.Popen(job.command, stdout=file, stderr=file, env=environment)
        try:
            process.wait(None if math.isinf(seconds) else max(1.0, seconds))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as reason:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if isinstance(reason, KeyboardInterrupt):
                raise
    return process.returncode == 0, time.perf_counter() - start


def best(result: dict[str, Any]) -> str:
    """A job's main numbers, for its line."""
    names = ("map@1000/retrieved", "accuracy", "seconds_per_epoch", "seconds_per_code")
    metrics = [run["metrics"] for run in result.get("runs", [])]
    found = (f"{name} {one[name]:.4g}" for one in metrics for name in names if name in one)
    return ", ".join(found)


def device(options) -> dict[str, Any]:
    """Device and versions, asked in a process of its own: here they would hold its memory."""
    code = "import harness, json; print(json.dumps(harness.environment()))"
    asked = [sys.executable, "-c", code]
    done = subprocess.run(asked, cwd=EXPERIMENTS, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: no device: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def gather(options, environment: dict[str, Any]) -> None:
    """Write the paper's tables of what is trained so far, and results.json."""
    found = finished(options)
    for run in itertools.chain.from_iterable(job.get("runs", []) for job in found):
        config = importlib.import_module(run["script"]).CONFIG(**run["config"])
        config = dataclasses.replace(config, workdir=str(options.out / "tables"))
        about = {name: run[name] for name in ("metrics", "protocol", "vmap_runs", "seconds")}
        keep(run["script"], config, about, run["environment"])
    asked = reproduce(options, PAPER_TABLES, "--gather")
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"no tables: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    tables = sorted((options.out / "tables").glob("*/table.json"))
    results = {"environment": environment, "jobs": found, "tables": list(map(read_json, tables))}
    harness.write_whole(options.out / "results.json", json.dumps(results, indent=1) + "\n")


def say_left(left: list[Job], before: list[dict[str, Any]]) -> None:
    """What another slot is for."""
    if left:
        print(f"left, about {sum(estimate(job, before) for job in left):.0f} s:")
    for job in left:
        begun = f", {job.done():.0%} done" if job.done() else ""
        print(f"  {job.name}, about {estimate(job, before):.0f} s{begun}")


def work(options) -> int:
    """Run what is missing and fits; how many jobs failed."""
    deadline = time.monotonic() + options.budget
    environment = device(options)
    print(", ".join(f"{name} {value}" for name, value in environment.items()), flush=True)
    wanted = re.compile(options.only).search
    left, failed, started, full = [], 0, False, False
    for job in jobs(options):
        if kept(options, job).exists() or not wanted(job.name):
            continue
        seconds = estimate(job, finished(options))
        full = full or (started and seconds > deadline - time.monotonic())
        if full:
            left.append(job)
            continue
        started = True
        print(f"{job.name}, about {seconds:.0f} s: ", end="", flush=True)
        first_guess = to_go(job)
        well, taken = run(options, job, deadline - time.monotonic())
        if well:
            result = {"job": job.name, "seconds": taken, "estimate": first_guess}
            result |= {"environment": environment, "command": job.command} | job.result()
            harness.write_whole(kept(options, job), json.dumps(result, indent=1) + "\n")
            print(f"{taken:.0f} s  {best(result)}", flush=True)
        elif time.monotonic() >= deadline:
            print(f"stopped after {taken:.0f} s", flush=True)
            left.append(job)
            full = True
        else:
            failed += 1
            said = kept(options, job).with_suffix(".log").read_text().strip().splitlines()
            print(f"FAILED after {taken:.0f} s: {(said or ['no output'])[-1]}", flush=True)
    gather(options, environment)
    say_left(left, finished(options))
    print(f"written to {options.out}: results.json, jobs/, tables/, runs/, figures/")
    return failed


def main() -> None:
    """List, or work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where everything goes")
    parser.add_argument(
        "--budget", type=float, default=math.inf, help="seconds to spend; none: all"
    )
    parser.add_argument("--list", action="store_true", help="name the jobs and their state, stop")
    parser.add_argument("--only", default="", help="jobs that match this regular expression")
    parser.add_argument("--seeds", type=int, default=1, help="runs of the 48-bit networks")
    raw = os.environ.get("JAXRET_DATA_DIR", "")
    parser.add_argument("--data_dir", default=raw, help="of the raw files [JAXRET_DATA_DIR]")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, of digits, for any CPU")
    options = parser.parse_args()
    if options.budget <= 0 or options.seeds < 1:
        parser.error("--budget and --seeds must be above 0")
    try:
        re.compile(options.only)
    except re.error as error:
        parser.error(f"--only must be a regular expression, got {options.only!r}: {error}")
    options.out = options.out.resolve()
    about = TRAINED if not options.quick else TRAINED._replace(dataset="digits", protocol="test")
    options.dataset, options.protocol = about.dataset, about.protocol
    if options.list:
        before = finished(options)
        for job in jobs(options):
            state = "done" if kept(options, job).exists() else f"{job.done():.0%}"
            if re.search(options.only, job.name):
                print(f"{state:>5}  {job.name}, about {estimate(job, before):.0f} s")
        return
    sys.exit(1 if work(options) else 0)


if __name__ == "__main__":
    main()
