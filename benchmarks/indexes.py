"""Exact and approximate indexes of the codes of CIFAR4: size, time to build, speed, recall, F1.

    JAXRET_DATA_DIR=~/data python benchmarks/indexes.py --rows=20000,1000000 --json=indexes.json

Needs faiss (pip install -e '.[bench]') for HNSW and Annoy (pip install -e '.[peers]', and a C++
compiler). What each number means is in experiments/search_index.py, whose rows these are.
"""

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

    first = search_index.CONFIG(workdir="unused", dataset=flags.dataset, batch_size=1)
    protocol, overlap = harness.load_data(first)
    hasher = search_index.hasher(first, protocol)
    params, _ = hasher.fit(jax.random.key(0), protocol.train.images)
    rows = []
    for count in (1000,) if flags.quick else flags.rows:
        for name in search_index.INDEXES:
            if flags.only in name:
                config = search_index.CONFIG(workdir="unused", index=name, rows=count)
                scores = search_index.score(config, hasher, params, protocol, overlap)
                rows.append({"case": f"{name}, {count:,} rows"} | scores)
                print(rows[-1], flush=True)
    if flags.json:
        timing.write_json(flags.json, {"environment": harness.environment(), "rows": rows})


if __name__ == "__main__":
    main()
