"""What a trained hasher leaves behind: scores, pictures, metrics.json and a few lines to read."""

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import harness
import numpy as np


class Trained(NamedTuple):
    """A hasher after training, with the images it is judged on."""

    protocol: Any  # data.Protocol
    overlap: int  # query images that stand in the gallery
    encode: Callable  # jitted (params, images) -> f32[n b]
    params: Any
    distance: str  # one of evaluate.DISTANCES


def training_record(history: list[dict[str, Any]]) -> dict[str, Any]:
    """metrics.json's "train": images_per_second is the median over epochs, seconds their sum."""
    last = history[-1]
    return {
        "epochs": last["epoch"],
        "steps": last["steps"],
        "seconds": last["seconds"],
        "images_per_second": statistics.median(line["images_per_second"] for line in history),
    }


def score(trained: Trained, eval_k: int) -> dict[str, float]:
    """Named numbers of the whole gallery's search."""
    from jaxret.evaluate import evaluate

    return evaluate(
        trained.encode,
        trained.params,
        trained.protocol,
        distance=trained.distance,
        ks=(1, eval_k, 1000),
        overlap=trained.overlap,
    )


def draw(workdir: harness.Workdir, trained: Trained, history: list[dict[str, Any]]) -> None:
    """The pictures that suit any hasher: losses, retrieval, a 2-D latent, bits' balance."""
    import jax

    from jaxret import viz
    from jaxret.evaluate import nearest

    protocol = trained.protocol
    if history:
        logged = set.intersection(*map(set, history))  # a run resumed with --watch has more
        terms = [n for n in history[0] if n in logged and n not in harness.LOG_BOOKKEEPING]
        workdir.plot(
            "losses",
            viz.loss_curves(
                [line["epoch"] for line in history],
                {name: [line[name] for line in history] for name in terms},
            ),
        )

    first_of_class = np.unique(protocol.query.labels, return_index=True)[1][:10]
    shown = jax.numpy.asarray(protocol.query.images[first_of_class])
    query = trained.encode(trained.params, shown)
    gallery = _encode(trained, protocol.gallery.images)
    found = nearest(query, gallery, 10, trained.distance)
    if trained.distance == "hamming":
        workdir.plot("bits", viz.bit_balance(np.asarray(gallery)))
    rows = np.asarray(found.indices)
    workdir.plot(
        "retrieval",
        viz.retrieval_grid(
            protocol.query.images[first_of_class],
            protocol.gallery.images[rows],
            protocol.gallery.labels[rows] == protocol.query.labels[first_of_class][:, None],
            np.asarray(found.distances),
        ),
    )
    if gallery.shape[1] == 2:
        few = slice(10_000)
        workdir.plot(
            "latents",
            viz.latent_scatter(
                np.asarray(gallery[few]), protocol.gallery.labels[few], protocol.gallery.class_names
            ),
        )


def _encode(trained: Trained, images: np.ndarray) -> Any:
    from jaxret.evaluate import encode_in_batches

    return encode_in_batches(trained.encode, trained.params, images)


def finish(
    workdir: harness.Workdir,
    config: harness.Config,
    trained: Trained,
    metrics: dict[str, float],
    record: dict[str, Any],
) -> None:
    """Write metrics.json, last of all: where it stands, the run is whole. Say the main numbers."""
    from jaxret.evaluate import describe

    workdir.write_json(
        "metrics.json",
        {
            "schema": 1,
            "dataset": config.dataset,
            "protocol": describe(trained.protocol, trained.overlap),
            "config": dataclasses.asdict(config),
            "metrics": metrics,
            "train": record,
            "environment": harness.environment(),
        },
    )
    width = max(len(name) for name in metrics)
    for name, value in metrics.items():
        print(f"{name:{width}}  {value:.5g}")
    print(f"written to {workdir.path}: metrics.json, plots/*.png, checkpoints/, args.flags")
