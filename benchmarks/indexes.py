"""Exact and approximate indexes of the codes of CIFAR4: size, time to build, speed, recall, F1.

    JAXRET_DATA_DIR=~/data python benchmarks/indexes.py --rows=20000,1000000 --json=indexes.json

Needs faiss (pip install -e '.[bench]') for HNSW and Annoy (pip install -e '.[peers]', and a C++
compiler). What each number means is in experiments/search_index.py, whose rows these are.
"""

import sys

import timing


def main() -> None:
    """Measure every index at every size, in one process."""
    options = timing.parser(__doc__ or "")
    options.add_argument("--rows", type=timing.numbers, default=(20_000, 100_000, 1_000_000))
    options.add_argument("--dataset", default="cifar4", help="A data set by name.")
    options.add_argument("--only", default="", help="Only indexes whose names hold this.")
    flags = options.parse_args()
    import harness
    import jax
    import search_index

    from jaxret.data import DataError
    from jaxret.search import host
    from jaxret.search import rows as by_rows

    # What a process comes to is timed, not NumPy where it only answers the first searches.
    host.BUDGET = by_rows.BUDGET = -1
    names = [name for name in search_index.INDEXES if flags.only in name]
    if not names:
        sys.exit(
            f"error: --only={flags.only}: no index; there are {', '.join(search_index.INDEXES)}"
        )
    first = search_index.CONFIG(workdir="unused", dataset=flags.dataset, batch_size=1)
    try:
        protocol, overlap = harness.load_data(first)
    except DataError as error:
        sys.exit(f"error: {error}")
    hasher = search_index.hasher(first, protocol)
    params, _ = hasher.fit(jax.random.key(0), protocol.train.images)
    rows, environment = [], harness.environment()
    for count in (1000,) if flags.quick else flags.rows:
        for name in names:
            case = f"{name}, {count:,} rows, one query"
            config = search_index.CONFIG(workdir="unused", index=name, rows=count)
            try:
                scores = search_index.score(config, hasher, params, protocol, overlap)
            except ImportError as error:  # a peer that is not installed
                rows.append(timing.failure(case, error))
            else:
                rows.append(timing.summary(case, [1 / scores["queries_per_second"]]) | scores)
                told = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
                print(f"{timing.line(rows[-1])}  {told}", flush=True)
            rows[-1] |= {"environment": environment}
            timing.write(flags.json, rows)  # what is measured is kept


if __name__ == "__main__":
    main()
