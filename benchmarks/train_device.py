"""Training of Torres 2018's tables on one device: several runs in one program against one by one.

    python benchmarks/train_device.py --json=FILE [--quick] [--seconds=100]

The rows of tables 4.1 to 4.8, as published and ours, need some twenty different programs: runs of
one program differ only in their seed and in numbers such as the learning rate. For each program,
those with most runs first, an epoch of --vmap_runs runs in one vmapped program is timed against an
epoch of one run (the peer). Images are random, of MNIST's size and number. seconds and peer_seconds
are of one run's epoch. The last row, "all tables", estimates the training time of all rows with 3
seeds from the programs measured so far. Programs that the JSON file already holds are skipped.
"""

import collections
import importlib
import statistics
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import timing
from epochs import one_epoch

TABLES = tuple(f"4.{number}" for number in range(1, 9))
SEEDS, IMAGES = 3, 60_000


def programs() -> dict[str, list[Any]]:
    """Return name -> the distinct runs of one program, as flags of train_vae; most runs first."""
    import runs
    import table
    import train_vae

    torres = importlib.import_module("torres2018.tables")
    grouped: dict[str, dict[Any, str]] = collections.defaultdict(dict)
    for name in TABLES:
        for row in torres.TABLES[name].rows:
            for column in table.COLUMNS:
                settings = row.settings if column == "as_published" else row.ours
                if settings is None:
                    continue
                config = train_vae.CONFIG(dataset="mnist", workdir=".", **settings)
                where = f"{name} {row.name}, {column.replace('_', ' ')}"
                grouped[runs._training(config)].setdefault(config, where)
    named = {}
    for configs in grouped.values():
        distinct = {runs._run(config): config for config in configs}
        named[next(iter(configs.values()))] = list(distinct.values())
    return dict(sorted(named.items(), key=lambda item: -len(item[1])))


def program_row(name: str, configs: list[Any], images: np.ndarray, vmap_runs: int) -> timing.Row:
    """Return the row of one program."""
    import train_vae

    protocol = SimpleNamespace(train=SimpleNamespace(images=images))
    training = train_vae.hasher(configs[0], protocol).training
    if training.needs_positives or not training.scan:
        raise ValueError("the tables' programs train by scan and without positives")
    vmapped = one_epoch([training] * vmap_runs, images)
    single = one_epoch([training], images)
    seconds, peer = timing.in_turn(vmapped, single, repeats=3)
    case = f"torres2018 {name}"
    each = [taken / vmap_runs for taken in seconds]
    row = timing.summary(case, each, "one run at a time", peer)
    row |= {
        "vmap_runs": vmap_runs,
        "images_per_second": len(images) / row["seconds"],
        "peer_images_per_second": len(images) / row["peer_seconds"],
        "runs": SEEDS * len(configs),
        "epochs": training.epochs,
    }
    print(f"{timing.line(row)}  {row['images_per_second']:,.0f} images/s", flush=True)
    return row


def all_tables(rows: list[timing.Row], every: dict[str, list[Any]]) -> timing.Row:
    """Return the estimate of all tables; programs that were not measured count as the median."""
    measured = {row["case"]: row for row in rows if row.get("vmap_runs")}
    rate = statistics.median(row["images_per_second"] for row in measured.values())
    total = 0.0
    for name, configs in every.items():
        speed = measured.get(f"torres2018 {name}", {}).get("images_per_second", rate)
        total += SEEDS * sum(config.epochs for config in configs) * IMAGES / speed
    row = timing.summary(f"all tables: training of {SEEDS} seeds, estimated", [total])
    print(f"{row['case']}: {total:,.0f} s from {len(measured)} of {len(every)} programs")
    return row | {"programs_measured": len(measured), "programs": len(every)}


def main() -> None:
    """Time and write."""
    parser = timing.parser(__doc__, quick="Time two programs of two runs with few images.")
    cases = parser.add_argument_group("cases")
    cases.add_argument(
        "--vmap_runs", type=int, default=8, metavar="N",
        help="Train this many runs in one program (default: %(default)s).",
    )  # fmt: skip
    timing.add_seconds(cases)
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    print(timing.machine())
    every = programs()
    chosen = dict(list(every.items())[:2]) if options.quick else every
    vmap_runs = 2 if options.quick else options.vmap_runs
    count = 1000 if options.quick else IMAGES
    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1)).astype(np.uint8)
    rows = [row for row in timing.read(options.json) if row.get("vmap_runs")]
    done = {row["case"] for row in rows}
    left = [name for name in chosen if f"torres2018 {name}" not in done]
    while left and time.monotonic() < deadline:
        name = left.pop(0)
        rows.append(program_row(name, chosen[name], images, vmap_runs))
        timing.write(options.json, rows)
    if rows:
        timing.write(options.json, [*rows, all_tables(rows, every)])
    timing.end(left)


if __name__ == "__main__":
    main()
