"""The pictures of a run, by name. Each is drawn when it is saved; one that fails is a warning."""

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import harness

SCATTERED = 10_000  # images in the picture of a latent space, drawn once from the gallery
VOTES = 10  # results that vote for a query's coarse class
# Not loss terms, of what a line of the log holds.
LOG_BOOKKEEPING = ("epoch", "steps", "images_per_second", "seconds")

Pictures = Mapping[str, Callable[[], Any]]  # name -> function that gives a figure


def save(workdir: harness.Workdir, pictures: Pictures) -> None:
    """Draw and save pictures; whatever goes wrong, the run's results are written already."""
    for name, figure in pictures.items():
        try:
            workdir.plot(name, figure())
        except Exception as error:
            print(f"warning: plots/{name}.png failed: {error}", file=sys.stderr)


def common(
    hasher: Any,
    params: Any,
    protocol: Any,
    history: list[dict[str, Any]],
    title: str,
    images: Callable[[], Any] | None = None,
) -> Pictures:
    """Return the pictures that suit any hasher: losses, neighbors, reconstructions, bits, latents.

    Args:
        hasher: what was fitted.
        params: what it learned.
        protocol: a data.Protocol.
        history: the log's lines; none for what does not learn in epochs.
        title: data and run, for every picture.
        images: gives the protocol with the images that vectors are of; None: there are none.
    """
    from jaxret import data
    from jaxret.evaluate import encode_in_batches

    @functools.cache
    def gallery():
        return encode_in_batches(hasher.encode, params, protocol.gallery.images)

    pictures = {}
    if images is not None or protocol.query.images.ndim == 4:  # vectors are no pictures
        pictures["retrieval"] = lambda: _neighbors(
            hasher, params, protocol, gallery(), title, images() if images else protocol
        )
    if history:
        pictures["losses"] = lambda: _losses(history, title)
    if hasher.decode is not None:
        pictures["reconstructions"] = lambda: _reconstructions(
            hasher, params, protocol.query, title
        )
    if hasher.distance == "hamming":
        pictures["bits"] = lambda: _bits(gallery(), title)
    if data.with_coarse_labels(protocol.query) is not None:
        pictures["coarse"] = lambda: _coarse(hasher, params, protocol, gallery(), title)
    if hasher.encode(params, protocol.query.images[:1]).shape[1] == 2:
        pictures["latents"] = lambda: _latents(gallery(), protocol.gallery, title)
    return pictures


def samples(hasher: Any, params: Any, seed: int, title: str) -> Any:
    """Return a figure of 100 images that the decoder makes of the prior."""
    import jax
    import numpy as np

    drawn = np.asarray(hasher.generate(params, jax.random.key(seed), 100))
    return _grid(drawn, (10, 10), title, "Samples: decoded from the prior")


def plane(hasher: Any, params: Any, xs: Any, ys: Any, title: str, subtitle: str) -> Any:
    """Return a figure of images decoded from a grid over codes of two numbers.

    Args:
        hasher: one with a decoder.
        params: what it learned.
        xs: f32[m], the first number, from left to right.
        ys: f32[m], the second number, from bottom to top.
        title: data and run.
        subtitle: what the grid is.
    """
    import numpy as np

    codes = np.stack(np.meshgrid(xs, ys[::-1]), axis=2).reshape(-1, 2).astype(np.float32)
    images = np.asarray(hasher.decode(params, codes))
    return _grid(images, (len(ys), len(xs)), title, subtitle)


def interpolations(hasher: Any, params: Any, images: Any, title: str) -> Any:
    """Return a figure of eight rows of images decoded between the codes of two images each."""
    import numpy as np

    from jaxret import viz

    rows = viz.rows_across_classes(first_classes(images), 16)
    if len(rows) < 16:
        raise ValueError(f"16 query images are needed, got {len(rows)}")
    z = np.asarray(hasher.encode(params, images.images[rows]))
    steps = np.linspace(0, 1, 8, dtype=np.float32)[None, :, None]
    between = (1 - steps) * z[:8, None] + steps * z[8:, None]
    decoded = np.asarray(hasher.decode(params, between.reshape(-1, z.shape[1])))
    return _grid(decoded, (8, 8), title, "Decoded on the way from one image's code to another's")


def _grid(images, shape, title, subtitle):
    from jaxret import viz

    return viz.image_grid(images.reshape(*shape, *images.shape[1:]), title, subtitle)


def _losses(history, title):
    from jaxret import viz

    logged = set.intersection(*map(set, history))  # a run resumed with --watch has more
    names = [n for n in history[0] if n in logged and n not in LOG_BOOKKEEPING]
    epochs = [line["epoch"] for line in history]
    return viz.loss_curves(epochs, {n: [line[n] for line in history] for n in names}, title=title)


def _neighbors(hasher, params, protocol, codes, title, shown_as):
    import numpy as np

    from jaxret import viz
    from jaxret.evaluate import nearest

    query, gallery = protocol.query, protocol.gallery
    shown = viz.rows_across_classes(first_classes(query), 10)
    k = min(10, len(gallery.images))
    found = nearest(hasher.encode(params, query.images[shown]), codes, k, hasher.distance)
    rows = np.asarray(found.indices)
    return viz.retrieval_grid(
        shown_as.query.images[shown],
        shown_as.gallery.images[rows],
        _relevant(query.labels[shown], gallery.labels[rows]),
        np.asarray(found.distances),
        classes=class_names(query, shown),
        distance=hasher.distance,
        title=title,
    )


def _relevant(query_labels, found_labels):
    """1 where a result shares a label with its query, 0 where not, -1 where labels are unknown."""
    import numpy as np

    from jaxret import viz

    if query_labels.ndim == 1:
        return viz.same_class(query_labels, found_labels)
    known = query_labels.any(axis=1)[:, None] & found_labels.any(axis=2)
    shared = (query_labels[:, None] & found_labels).any(axis=2)
    return np.where(known, shared, -1).astype(np.int8)


def _reconstructions(hasher, params, query, title):
    import numpy as np

    from jaxret import viz

    rows = viz.rows_across_classes(first_classes(query), 12)
    images = query.images[rows]
    rebuilt = np.asarray(hasher.decode(params, hasher.encode(params, images)))
    return viz.reconstructions(images, rebuilt, columns=class_names(query, rows), title=title)


def _bits(codes, title):
    import numpy as np

    from jaxret import viz

    return viz.bit_balance(np.asarray(codes), title=title)


def _coarse(hasher, params, protocol, codes, title):
    import numpy as np

    from jaxret import data, metrics, viz
    from jaxret.evaluate import encode_in_batches, nearest

    query = encode_in_batches(hasher.encode, params, protocol.query.images)
    found = np.asarray(nearest(query, codes, VOTES, hasher.distance).indices)
    true, coarse = map(data.with_coarse_labels, (protocol.query, protocol.gallery))
    voted = np.asarray(metrics.majority_label(coarse.labels[found]))
    names = true.class_names
    counts = metrics.confusion_counts(true.labels, voted, len(names))
    share = np.trace(counts) / len(voted)
    subtitle = f"Coarse classes, as {VOTES} results vote: {share:.2%} of queries on the diagonal"
    return viz.confusion_matrix(counts, names, title=title, subtitle=subtitle)


def _latents(codes, gallery, title):
    import numpy as np

    from jaxret import data, viz

    rows = data.sample_rows(len(codes), SCATTERED)
    labels = first_classes(gallery)[rows]
    return viz.latent_scatter(np.asarray(codes)[rows], labels, gallery.class_names, title=title)


def first_classes(images: Any) -> Any:
    """Return one class per image: of several labels the first, -1 where there is none."""
    import numpy as np

    if images.labels.ndim == 1:
        return images.labels
    return np.where(images.labels.any(axis=1), images.labels.argmax(axis=1), -1).astype(np.int32)


def class_names(images: Any, rows: Any) -> list[str]:
    """Return the class names of rows of images, empty where there is none."""
    labels = first_classes(images)[rows]
    return [images.class_names[i] if 0 <= i < len(images.class_names) else "" for i in labels]


if __name__ == "__main__":
    print(__doc__)
