"""Everything that wants an accelerator, in one command of twelve minutes and one folder of results.

    python benchmarks/run_accelerator.py --out=DIR --data_dir=DATA
    python benchmarks/run_accelerator.py --out=DIR --list
    python benchmarks/run_accelerator.py --out=DIR --quick      # any CPU, no data: a rehearsal

Four slots, the most wanted first; ACCELERATOR.md says what each gives:
  a  correctness against the CPU, then exact search with PyTorch and CuPy as peers
  b  Torres 2018: runs vmapped against one by one, and codes a second
  c  DRHN of Jimenez 2017 on CIFAR-10: seconds per epoch and code, our recipe in 30 epochs
  d  the pretrained encoder
A slot ends by itself within its seconds; what it does not use goes to the next. The same command
again, on this machine or on another one that has the folder, skips what is done and continues what
was stopped. Nothing is written outside --out. results.json has everything that is known so far.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.dont_write_bytecode = True  # nothing is written outside --out

import timing  # noqa: E402

SCRIPTS = {name: timing.REPOSITORY / name for name in ("experiments", "benchmarks")}
GRACE = 15  # seconds that a job gets to end after it was told to stop
START = 20  # seconds that a job needs to start and compile: with less left none is started
EPOCHS = 30  # of our recipe on CIFAR-10
DEPTHS = (15, 1, 3, 5, 9)  # of DRHN, the most wanted first


class Job(NamedTuple):
    """A command and the files that it leaves."""

    name: str
    command: list[str]
    leaves: Path  # a JSON file
    timed: bool = True  # whether it takes --seconds; else it is stopped and can be resumed


class Slot(NamedTuple):
    """Jobs with a limit on their seconds."""

    letter: str
    title: str
    seconds: float
    jobs: Callable[[Any], list[Job]]
    missing: Callable[[Any], str] = lambda options: ""  # why the slot cannot run


def script(folder: str, name: str, *flags: str) -> list[str]:
    """Return the command that runs a script with this Python."""
    return [sys.executable, str(SCRIPTS[folder] / name), *flags]


def benchmark(options, name: str, file: str, *flags: str, timed: bool = True) -> Job:
    """Return the job of a benchmark of this folder."""
    rows = options.out / "rows" / f"{name}.json"
    quick = ["--quick"] if options.quick else []
    return Job(name, script("benchmarks", file, f"--json={rows}", *quick, *flags), rows, timed)


def correctness_and_search(options) -> list[Job]:
    """Return the jobs of slot a."""
    return [
        benchmark(options, "check", "check_device.py", timed=False),
        benchmark(options, "search", "search_device.py"),
    ]


def torres(options) -> list[Job]:
    """Return the jobs of slot b."""
    batches = "1,100,1000" if options.quick else "1,100,10000,100000"
    flags = "--cases=784-500", f"--batches={batches}", "--on_device"
    return [
        benchmark(options, "codes", "encode.py", *flags),
        benchmark(options, "vmap", "train_device.py"),
    ]


def drhn(options) -> list[Job]:
    """Return the jobs of slot c."""
    jobs = []
    for depth in (1,) if options.quick else DEPTHS:
        published, ours = (times(options, depth, column) for column in ("as_published", "ours"))
        jobs += [published, training(options, depth), ours]
    return jobs


def times(options, depth: int, column: str) -> Job:
    """Return the job of a network's cells in a column of tables 5.4 and 5.5.

    As published it computes in float32, ours in bfloat16: each compiles programs of its own.
    """
    work = options.out / "times" / f"drhn{depth}"
    flags = [
        "--table=jimenez2017:5.4,jimenez2017:5.5", f"--rows=^DRHN-{depth} at 48", "--seeds=1",
        f"--column={column}",
        f"--workdir={work}", *images_of(options),
    ]  # fmt: skip
    command = script("experiments", "reproduce.py", *flags)
    name = f"times-drhn{depth}-{column.replace('_', '-')}"
    return Job(name, command, work / "5.4" / "table.json", timed=False)


def training(options, depth: int) -> Job:
    """Return the job that trains a network by our recipe."""
    work = options.out / "runs" / f"drhn{depth}"
    flags = [f"--{name}={value}" for name, value in recipe(options, depth).items()]
    flags += [f"--workdir={work}", "--resume", *images_of(options)]
    command = script("experiments", "train_hasher.py", *flags)
    return Job(f"train-drhn{depth}", command, work / "metrics.json", timed=False)


def recipe(options, depth: int) -> dict[str, Any]:
    """Return our recipe for a depth as flags of train_hasher: ours.flags, in fewer epochs."""
    epochs = 1 if options.quick else EPOCHS
    flags = {"depth": depth, "bits": 48, "epochs": epochs, "baselines": False}
    file = SCRIPTS["experiments"] / "jimenez2017" / "ours.flags"
    return {"flagfile": str(file)} | flags


def images_of(options) -> list[str]:
    """Return the flags that name the data set."""
    names = ("digits", "test") if options.quick else ("cifar10", "cifar10-full@1000")
    flags = [f"--{flag}={name}" for flag, name in zip(("dataset", "protocol"), names, strict=True)]
    return flags if options.quick else [*flags, f"--data_dir={options.data_dir}"]


def no_images(options) -> str:
    """Return why CIFAR-10 cannot be read; nothing if it can."""
    folder = Path(options.data_dir or ".") / "cifar-10-batches-bin"
    if options.quick or len(list(folder.glob("*.bin"))) >= 6:
        return ""
    return f"CIFAR-10 is not in {folder}: unpack it there (ACCELERATOR.md) and start again"


def pretrained(options) -> list[Job]:
    """Return the jobs of slot d."""
    return [benchmark(options, "pretrained", "encode_photos.py")]


def no_encoder(options) -> str:
    """Return why the pretrained encoder cannot run; nothing if it can."""
    del options
    there = importlib.util.find_spec("jaxret.models.efficientnet") is not None
    return "" if there else "jaxret has no pretrained encoder yet"


SLOTS = (
    Slot("a", "correctness and search", 180, correctness_and_search),
    Slot("b", "Torres 2018: vmapped training, codes", 150, torres),
    Slot("c", "DRHN on CIFAR-10", 300, drhn, no_images),
    Slot("d", "pretrained encoder", 60, pretrained, no_encoder),
)


def marker(options, job: Job) -> Path:
    """Return the file that says that a job is done."""
    return options.out / "jobs" / f"{job.name}.json"


def child_environment(out: Path) -> dict[str, str]:
    """Return a process's environment: every cache lies in --out, memory is taken as needed."""
    cache = out / "cache"
    (cache / "tmp").mkdir(parents=True, exist_ok=True)
    folders = {
        "JAX_COMPILATION_CACHE_DIR": "xla", "XDG_CACHE_HOME": ".", "MPLCONFIGDIR": "matplotlib",
        "PYTHONPYCACHEPREFIX": "bytecode", "TMPDIR": "tmp", "CUPY_CACHE_DIR": "cupy",
        "CUDA_CACHE_PATH": "cuda", "TRITON_CACHE_DIR": "triton", "TORCH_HOME": "torch",
    }  # fmt: skip
    paths = [str(timing.REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {name: str(cache / folder) for name, folder in folders.items()} | {
        "PYTHONPATH": os.pathsep.join(paths),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # or a peer in the same process has no memory
        "JAXRET_CHECKPOINT_SECONDS": os.environ.get("JAXRET_CHECKPOINT_SECONDS", "15"),
    }  # fmt: skip


def run_job(options, job: Job, seconds: float) -> str:
    """Run a job for at most `seconds`; return "done", "time is up" or "failed: ..."."""
    log = options.out / "logs" / f"{job.name}.log"
    for path in (log, job.leaves, marker(options, job)):
        path.parent.mkdir(parents=True, exist_ok=True)
    command = job.command
    if job.timed:
        command = [*command, f"--seconds={max(1, seconds - START):.0f}"]
    begun = time.perf_counter()
    with open(log, "ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=child_environment(options.out)
        )
        stopped = wait(process, seconds)
    spent = time.perf_counter() - begun
    if process.returncode == 0:
        done = {"job": job.name, "seconds": spent, "command": command}
        timing.write_json(marker(options, job), done)
        return "done"
    if stopped or process.returncode == timing.TIME_UP:
        return "time is up"
    lines = log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
    return f"failed: {lines[-1][:200]} ({log})"


def wait(process: subprocess.Popen, seconds: float) -> bool:
    """Wait for a process; stop it after `seconds` and return True."""
    try:
        process.wait(max(1.0, seconds))
        return False
    except subprocess.TimeoutExpired:
        return True
    finally:
        for signal_number in (signal.SIGINT, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(signal_number)
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    continue


def run_slot(options, slot: Slot, deadline: float) -> str:
    """Run what a slot has left until the deadline; return its state."""
    if reason := slot.missing(options):
        print(f"{slot.letter}  {slot.title}: skipped, {reason}", flush=True)
        return f"skipped: {reason}"
    states = []
    for job in slot.jobs(options):
        if marker(options, job).exists():
            states.append("done")
            continue
        left = deadline - time.monotonic()
        if left < START:
            states.append("time is up")
            break
        print(f"{slot.letter}  {job.name}: ", end="", flush=True)
        begun = time.monotonic()
        states.append(run_job(options, job, left - GRACE))
        print(f"{states[-1]} after {time.monotonic() - begun:.0f} s", flush=True)
        gather(options)
    worst = [state for state in states if state != "done"]
    return worst[0] if worst else "done"


def device(options) -> dict[str, Any]:
    """Return device and versions, asked in another process: here they would hold its memory."""
    code = "import json, timing; print(json.dumps(timing.environment()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS["benchmarks"], capture_output=True, text=True,
        check=False, env=child_environment(options.out),
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"error: no device: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def read(path: Path) -> Any:
    """Return what a JSON file holds; None where there is none."""
    return json.loads(path.read_text()) if path.exists() else None


def gather(options) -> None:
    """Write results.json: device and date of each start, and what every job has left so far."""
    slots = []
    for slot in SLOTS:
        reason = slot.missing(options)
        jobs = [
            {"job": job.name, "done": marker(options, job).exists(), "result": read(job.leaves)}
            | ({"table 5.5": read(job.leaves.parent.parent / "5.5" / "table.json")}
               if job.name.startswith("times") else {})
            for job in ([] if reason else slot.jobs(options))
        ]  # fmt: skip
        about = {"slot": slot.letter, "title": slot.title, "skipped": reason or None}
        slots.append(
            about | {"done": bool(jobs) and all(job["done"] for job in jobs), "jobs": jobs}
        )
    starts = read(options.out / "starts.json") or []
    results = {"schema": 1, "quick": options.quick, "starts": starts, "slots": slots}
    timing.write_json(options.out / "results.json", results)


def work(options) -> int:
    """Run the slots; return how many of their jobs failed."""
    begun = time.monotonic()
    environment = device(options)
    print(", ".join(f"{name} {value}" for name, value in environment.items()), flush=True)
    start = {"date": time.strftime("%Y-%m-%d %H:%M:%S %z"), "budget": options.budget}
    starts = [*(read(options.out / "starts.json") or []), start | {"environment": environment}]
    timing.write_json(options.out / "starts.json", starts)
    planned, states = 0.0, {}
    for slot in SLOTS:
        if slot.letter not in options.slots:
            continue
        todo = [] if slot.missing(options) else slot.jobs(options)
        finished = todo and all(marker(options, job).exists() for job in todo)
        planned += 0 if finished else slot.seconds * options.stretch
        limit = min(planned, options.budget)
        states[slot.letter] = run_slot(options, slot, begun + limit)
        gather(options)
    for letter, state in states.items():
        print(f"slot {letter}: {state}")
    print(f"{time.monotonic() - begun:.0f} s; everything is in {options.out}/results.json")
    return sum(state.startswith("failed") for state in states.values())


def list_slots(options) -> None:
    """Print the slots, their jobs and their state."""
    for slot in SLOTS:
        reason = slot.missing(options)
        state = f"skipped, {reason}" if reason else f"{slot.seconds:.0f} s"
        print(f"{slot.letter}  {slot.title}: {state}")
        for job in [] if reason else slot.jobs(options):
            print(f"     {'done' if marker(options, job).exists() else 'open'}  {job.name}")


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    run = parser.add_argument_group("run")
    run.add_argument("-h", "--help", action="help", help="Show this text and exit.")
    run.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="Write everything into this folder."
    )
    run.add_argument("--list", action="store_true", help="Print slots, jobs and their state, stop.")
    run.add_argument(
        "--quick", action="store_true", help="Run tiny sizes to the end of every slot, on any CPU."
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data_dir", default=os.environ.get("JAXRET_DATA_DIR", ""), metavar="DIR",
        help="Read CIFAR-10 from this folder (default: environment variable JAXRET_DATA_DIR).",
    )  # fmt: skip
    plan = parser.add_argument_group("plan")
    plan.add_argument(
        "--slots", default="abcd", metavar="LETTERS", help="Run only these slots (default: abcd)."
    )
    plan.add_argument(
        "--budget", type=float, default=None, metavar="S",
        help="End within this many seconds (default: 720; quick: no limit).",
    )  # fmt: skip
    options = parser.parse_args()
    options.stretch = 20 if options.quick else 1  # a rehearsal ends when its cases end
    if options.budget is None:
        options.budget = 3600.0 if options.quick else 720.0
    if options.budget <= 0 or not set(options.slots) <= {slot.letter for slot in SLOTS}:
        parser.error("--budget must be above 0 and --slots letters of abcd")
    options.out = options.out.resolve()
    if options.data_dir:
        options.data_dir = str(Path(options.data_dir).resolve())
    return options


def main() -> None:
    """List, or work."""
    options = parse()
    if options.list:
        list_slots(options)
        return
    sys.exit(1 if work(options) else 0)


if __name__ == "__main__":
    main()
