"""The baselines beside a run's scores: what codes retrieve that nothing was learned for.

Raw pixels, and at the length of the run's own codes ITQ for bits or PCA for real numbers.
"""

import math
import time
from typing import Any, NamedTuple

QUERIES = 1000  # that baselines are scored on, drawn once: an unbiased estimate in seconds
PIXELS = 10**8  # numbers that a baseline is fitted to, at most
BYTES = 2**31  # of a gallery's pixels as float32, at most
# What a run says of itself first: name in metrics.json -> words.
HEADLINES = {
    "map@1/retrieved": "1-NN accuracy",
    "precision@10": "precision@10",
    "map@all/all": "map@all",
}


class Baseline(NamedTuple):
    """A hasher that is not trained, and what to call it."""

    key: str  # in metrics.json
    name: str
    hasher: Any


def of_codes(size: int, distance: str, images: Any) -> list[Baseline]:
    """Return the baselines of codes of a size, for these training images.

    ITQ has no more bits than there are principal components; longer codes are beside LSH.
    """
    from jaxret import hashers

    components = min(len(images), math.prod(images.shape[1:]))
    own = Baseline("pca", f"PCA, {min(size, components)} numbers", None)
    if distance != "hamming":
        own = own._replace(hasher=hashers.pca_hasher(min(size, components)))
    elif size <= components:
        own = Baseline("itq", f"ITQ, {size} bits", hashers.itq_hasher(size))
    else:
        own = Baseline("lsh", f"LSH, {size} bits", hashers.lsh_hasher(size))
    return [Baseline("pixels", "raw pixels", hashers.pixels_hasher()), own]


def scores(
    size: int, distance: str, protocol: Any, overlap: int, ks: tuple[int, ...]
) -> dict[str, dict[str, Any]]:
    """Score the baselines of codes on a protocol, in seconds.

    Queries beyond QUERIES are left out, drawn once for all runs; the gallery is whole. A baseline
    that needs more images than fit into seconds is fitted to some of them; what was left out is
    told. Raw pixels of a gallery above BYTES are not scored.

    Args:
        size: bits or numbers of the run's codes.
        distance: how the run's codes are compared.
        protocol: a data.Protocol.
        overlap: query images that stand in the gallery.
        ks: K of map@K and precision@K.

    Returns:
        For each baseline (pixels; itq, lsh or pca) its name, queries, fitted_to, seconds, and the
        metrics.
    """
    import jax

    from jaxret import data
    from jaxret.evaluate import evaluate

    queries, images = protocol.query, protocol.train.images
    sampled = protocol._replace(
        query=data.take(queries, data.sample_rows(len(queries.images), QUERIES))
    )
    width = math.prod(images.shape[1:])
    fitted = images[data.sample_rows(len(images), max(1000, PIXELS // width))]
    found = {}
    for baseline in of_codes(size, distance, fitted):
        if baseline.key == "pixels" and 4 * width * len(protocol.gallery.images) > BYTES:
            continue
        start = time.perf_counter()
        params, _ = baseline.hasher.fit(jax.random.key(0), fitted)
        metrics = evaluate(
            baseline.hasher.encode,
            params,
            sampled,
            overlap=overlap,
            distance=baseline.hasher.distance,
            ks=ks,
        )
        found[baseline.key] = {
            "name": baseline.name,
            "queries": len(sampled.query.images),
            "fitted_to": len(fitted) if baseline.key != "pixels" else 0,
            "seconds": round(time.perf_counter() - start, 3),
            "metrics": metrics,
        }
    return found


def better(metrics: dict[str, float], found: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Return, by the name of a baseline, the headline scores in which it beats a run.

    By more than two standard errors of a share of the baseline's queries: less may be chance.
    """
    beaten = {}
    for baseline in found.values():
        for key, words in HEADLINES.items():
            ours, other = metrics.get(key), baseline["metrics"].get(key)
            if ours is not None and other is not None:
                error = math.sqrt(max(ours * (1 - ours), 0.0) / baseline["queries"])
                if other > ours + 2 * error:
                    beaten.setdefault(baseline["name"], []).append(words)
    return beaten
