"""Does the device compute what the CPU computes? Search, relaxations, training steps, encoders.

    python benchmarks/check_device.py --json=FILE [--quick]

A second process computes every case on the CPU, at the same time. A row's `error` is the distance
from the CPU's result, norm(device - cpu) / norm(cpu), the greatest over the case's arrays; `equal`
says that it is within the row's `tolerance`. Whole numbers (distances of codes, rows, ties) must be
the same: their tolerance is 0. Training and encoding are computed at the highest precision of
products, and again at the default one, which on a GPU rounds operands to 10 bits (TF32), with
another tolerance. seconds and peer_seconds are of one call, compilation included.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timing

Arrays = dict[str, np.ndarray]
EXACT, ROUNDING, PRODUCTS, COARSE = 0.0, 1e-6, 1e-4, 2e-2
STEPS = 5  # of training: rounding grows with each


class Case(NamedTuple):
    """Something to compute, with the tolerance of its result."""

    run: Callable[[bool], Arrays]  # whether sizes are small
    tolerance: float
    reference: str = ""  # the case whose result on the CPU is the reference; none: this one


def codes(bits: int, k: int, masked: bool = False) -> Case:
    """Search packed codes; on few bits most distances are ties."""

    def run(quick: bool) -> Arrays:
        from jaxret import search

        rng = np.random.default_rng(bits)
        n, q = (3000, 20) if quick else (100_000, 200)
        gallery, query = (rng.integers(0, 2**bits, m, dtype=np.uint64) for m in (n, q))
        packed = (
            m.view(np.uint32).reshape(len(m), 2)[:, : -(-bits // 32)] for m in (gallery, query)
        )
        gallery, query = map(np.ascontiguousarray, packed)
        mask = rng.random(n) < 0.3 if masked else None
        found = search.lay_out(gallery).topk(query, min(k, n), mask=mask)
        return {"distances": found.distances, "rows": found.indices}

    return Case(run, EXACT)


def vectors(d: int, k: int) -> Case:
    """Search vectors: distances up to rounding, whichever of two equal ones comes first."""

    def run(quick: bool) -> Arrays:
        from jaxret import search

        rng = np.random.default_rng(d)
        n, q = (2000, 20) if quick else (50_000, 200)
        gallery, query = (rng.standard_normal((m, d), np.float32) for m in (n, q))
        found = search.lay_out(gallery).topk(query, k)
        rows = np.asarray(found.indices)
        own = np.square(query[:, None].astype(np.float64) - gallery[rows]).sum(2)
        return {"distances": found.distances, "distances of the rows": own}

    return Case(run, ROUNDING)


def relaxations() -> Case:
    """Apply every relaxation, and pull a gradient back through it."""

    def run(quick: bool) -> Arrays:
        import jax
        import jax.numpy as jnp

        from jaxret import relax

        rng = np.random.default_rng(0)
        z = jnp.asarray(rng.standard_normal((64, 32), np.float32) * 2)
        uniform = jnp.asarray(rng.random(z.shape, np.float32))
        logistic = jnp.log(uniform) - jnp.log1p(-uniform)
        noise = jnp.asarray(rng.gumbel(size=(64, 4, 8)).astype(np.float32))

        def gumbel(x, hard):
            groups = x.reshape(noise.shape)
            return relax.gumbel_softmax(groups, noise, 0.5, hard).reshape(x.shape)

        functions = {
            "sign_ste": relax.sign_ste,
            "sign_identity": relax.sign_identity,
            "sign_zero_gradient": relax.sign_zero_gradient,
            "clip_ste": relax.clip_ste,
            "bernoulli_ste": lambda x: relax.bernoulli_ste(x, uniform),
            "binary_concrete": lambda x: relax.binary_concrete(x, logistic, 0.5),
            "gumbel_softmax": partial(gumbel, hard=False),
            "gumbel_softmax, hard": partial(gumbel, hard=True),
            "quantise_uniform": lambda x: relax.quantise_uniform(x, 8),
        }
        results = {}
        for name, function in functions.items():
            value, pull = jax.vjp(jax.jit(function), z)
            results |= {name: value, f"gradient of {name}": pull(jnp.cos(z))[0]}
        return results

    return Case(run, 1e-5)


def training(name: str, tolerance: float, reference: str = "", **settings) -> Case:
    """Train a hasher for some steps: first codes, and the terms of the loss at each step.

    With a reference products are of the default precision, else of the highest.
    """

    def run(quick: bool) -> Arrays:
        import jax
        import jax.numpy as jnp

        from jaxret import hashers, train

        size, batch = ((8, 8, 1), 16) if quick else ((32, 32, 3), 128)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (batch, *size)).astype(np.uint8)
        labels = jnp.asarray(rng.integers(0, 10, batch).astype(np.int32))
        with jax.default_matmul_precision("default" if reference else "highest"):
            hasher = hashers.HASHERS[name](32, image_shape=size, batch_size=batch, **settings)
            start = jax.jit(lambda key: train.start(hasher.training, key, images))
            state = start(jax.random.key(0))
            hyper = {n: jnp.float32(v) for n, v in hasher.training.hyper.items()}
            hyper["steps"] = jnp.float32(100)
            first = hasher.encode(hashers.weights(state), images)
            step, terms = jax.jit(hasher.training.trainer.step), []
            for _ in range(STEPS):
                state, told = step(state, hyper, jnp.asarray(images), labels)
                names = sorted(told.keys() - {"accuracy"})  # it jumps between classes
                terms.append(jnp.stack([told[term] for term in names]))
        return {"codes before": first, "terms": jnp.stack(terms)}

    return Case(run, tolerance, reference)


# Without signs in the forward pass: rounding would flip those of units near 0.
DEEP = {"num_classes": 10, "mirror": False, "crop": 0.0, "relaxation": "sigmoid", "cubic": 0.0}
CASES = {
    "hamming 64 bits, k=10": codes(64, 10),
    "hamming 16 bits, k=10, masked": codes(16, 10, masked=True),
    "hamming 48 bits, k=1000": codes(48, 1000),
    "hamming 16 bits, k=50000": codes(16, 50_000),
    "euclidean 64 floats, k=10": vectors(64, 10),
    "euclidean 10 floats, k=1000": vectors(10, 1000),
    "relaxations and their gradients": relaxations(),
    "VAE": training("vae", PRODUCTS),
    "VAE, default precision": training("vae", COARSE, "VAE"),
    "VAE of bits": training("vae", PRODUCTS, latent="bernoulli", bit_gradient="concrete"),
    "DRHN-1": training("deep", 1e-3, **DEEP),
    "DRHN-1, default precision": training("deep", 5e-2, "DRHN-1", **DEEP),
}


def chosen(quick: bool) -> dict[str, Case]:
    """Return all cases; of a quick check the second compilation of DRHN is left out."""
    left_out = ("DRHN-1, default precision",) if quick else ()
    return {name: case for name, case in CASES.items() if name not in left_out}


def answers(quick: bool, reference: bool = False) -> dict[str, tuple[Arrays, float]]:
    """Return each case's arrays on this process's device, and the seconds that they took.

    As a reference, only of cases that have none.
    """
    results = {}
    for name, case in chosen(quick).items():
        if reference and case.reference:
            continue
        print(f"  {'CPU' if reference else 'device'}: {name}", flush=True)
        start = time.perf_counter()
        arrays = {n: np.asarray(a) for n, a in case.run(quick).items()}
        results[name] = arrays, time.perf_counter() - start
    return results


def on_cpu(folder: Path, quick: bool) -> subprocess.Popen:
    """Start a process that computes all cases on the CPU and saves them into a folder."""
    command = [sys.executable, __file__, f"--answers={folder}", *(["--quick"] if quick else [])]
    return subprocess.Popen(command, env=os.environ | {"JAX_PLATFORMS": "cpu"})


def save(folder: Path, results: dict[str, tuple[Arrays, float]]) -> None:
    """Save results, a file per case."""
    for name, (arrays, seconds) in results.items():
        np.savez(folder / f"{name}.npz", seconds=seconds, **arrays)


def error_of(ours: np.ndarray, reference: np.ndarray) -> float:
    """Return norm(ours - reference) / norm(reference); infinity for numbers that are not finite."""
    ours, reference = (np.asarray(part, np.float64).ravel() for part in (ours, reference))
    same = np.isinf(ours) & (ours == reference)
    ours, reference = (np.where(same, 0, part) for part in (ours, reference))
    with np.errstate(invalid="ignore"):
        difference = np.linalg.norm(ours - reference)
        error = float(difference / max(np.linalg.norm(reference), 1e-30))
    return error if np.isfinite(error) else float("inf")


def compared(name: str, case: Case, ours: tuple[Arrays, float], reference) -> timing.Row:
    """Return the row of a case."""
    arrays, seconds = ours
    errors = {part: error_of(array, reference[part]) for part, array in arrays.items()}
    worst = max(errors, key=errors.__getitem__)
    row = timing.summary(
        f"check: {name}", [seconds], "CPU", [float(reference["seconds"])],
        errors[worst] <= case.tolerance,
    )  # fmt: skip
    error = errors[worst]
    row |= {"error_norm": error, "worst": worst, "tolerance": case.tolerance}
    within = f"error {error:.1e} ({worst}), tolerance {case.tolerance:g}"
    print(f"{timing.line(row)}  {within}", flush=True)
    return row


def main() -> None:
    """Compute here and on the CPU, compare, write."""
    parser = timing.parser(__doc__, quick="Use tiny sizes.")
    parser.add_argument("--answers", type=Path, help="For the script's own process on the CPU.")
    options = parser.parse_args()
    if options.answers:
        save(options.answers, answers(options.quick, reference=True))
        return
    print(timing.machine())
    with tempfile.TemporaryDirectory() as folder:
        child = on_cpu(Path(folder), options.quick)
        try:
            ours = answers(options.quick)
            if child.wait():
                sys.exit("the process on the CPU failed")
        finally:
            child.kill()
        rows = []
        for name, case in chosen(options.quick).items():
            with np.load(Path(folder) / f"{case.reference or name}.npz") as reference:
                rows.append(compared(name, case, ours[name], dict(reference)))
    timing.write(options.json, rows)
    if not all(row["equal"] for row in rows):
        sys.exit("the device does not compute what the CPU computes")


if __name__ == "__main__":
    main()
