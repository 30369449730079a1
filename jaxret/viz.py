"""Pictures: the only file that knows matplotlib. Each function takes arrays and gives a Figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

RIGHT, WRONG = "#2a9d4a", "#d1352b"
UNITS = {"mse": "squared error per pixel", "bce": "nats per pixel"}  # of loss terms


def loss_curves(epochs: Sequence[int], terms: Mapping[str, Sequence[float]]) -> Figure:
    """Each loss term against the epoch, in a panel of its own: their scales differ."""
    figure = Figure(figsize=(4 * len(terms), 3.2), layout="constrained")
    panels = figure.subplots(1, len(terms), squeeze=False)[0]
    for panel, (name, values) in zip(panels, terms.items(), strict=True):
        panel.plot(epochs, values, marker="." if len(epochs) < 30 else None)
        panel.set_title(f"{name}, last {values[-1]:.4g}")
        panel.set_xlabel("epoch")
        panel.set_ylabel(UNITS.get(name, "nats per image"))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
    return figure


def reconstructions(
    images: Shaped[np.ndarray, "n h w c"], rebuilt: Float[np.ndarray, "n h w c"]
) -> Figure:
    """Originals (bytes) in the upper row, what came back (in [0, 1]) in the lower."""
    figure = Figure(figsize=(0.8 * len(images) + 0.8, 2), layout="constrained")
    panels = figure.subplots(2, len(images), squeeze=False)
    for column, (image, back) in enumerate(zip(images, rebuilt, strict=True)):
        _show(panels[0, column], image)
        _show(panels[1, column], back)
    for row, name in zip(panels, ("original", "rebuilt"), strict=True):
        row[0].set_ylabel(name)
    return figure


def image_grid(images: Shaped[np.ndarray, "r s h w c"], title: str) -> Figure:
    """Images in [0, 1] in r rows and s columns, a grey line between them."""
    lines = ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0))
    images = np.pad(images, lines, constant_values=0.5)
    rows, columns, h, w, c = images.shape
    whole = np.clip(images, 0, 1).transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, c)
    figure = Figure(figsize=(0.4 * columns + 0.4, 0.4 * rows + 0.7), layout="constrained")
    panel = figure.subplots()
    _show(panel, whole)
    panel.set_title(title, fontsize=9)
    return figure


def retrieval_grid(
    queries: Shaped[np.ndarray, "q h w c"],
    found: Shaped[np.ndarray, "q k h w c"],
    right: Bool[np.ndarray, "q k"],
    distances: Float[np.ndarray, "q k"] | Int[np.ndarray, "q k"],
) -> Figure:
    """Each query and its nearest images, nearest first, framed green where the class is right.

    The number under an image is its distance.
    """
    num_queries, k = right.shape
    figure = Figure(figsize=(0.85 * (k + 1), 0.98 * num_queries + 0.4), layout="constrained")
    panels = figure.subplots(num_queries, k + 1, squeeze=False)
    for q in range(num_queries):
        _show(panels[q, 0], queries[q])
        _frame(panels[q, 0], "black")
        for i in range(k):
            panel = panels[q, i + 1]
            _show(panel, found[q, i])
            _frame(panel, RIGHT if right[q, i] else WRONG)
            panel.set_xlabel(f"{distances[q, i]:.3g}", fontsize=7, labelpad=1)
    panels[0, 0].set_title("query", fontsize=9)
    panels[0, 1].set_title("nearest", fontsize=9)
    figure.suptitle(f"{right.mean():.0%} of these {right.size} have the query's class", fontsize=10)
    return figure


def latent_scatter(
    z: Float[np.ndarray, "n 2"], labels: Int[np.ndarray, " n"], class_names: Sequence[str]
) -> Figure:
    """A two-dimensional latent space, one colour a class (Torres 2018, figure 3.3)."""
    figure = Figure(figsize=(6.5, 5.5), layout="constrained")
    axes = figure.subplots()
    colours = axes.scatter(*z.T, c=labels, s=3, cmap="tab10" if len(class_names) <= 10 else "hsv")
    handles, _ = colours.legend_elements(num=None)
    axes.legend(handles, class_names[: len(handles)], loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xlabel("$z_1$")
    axes.set_ylabel("$z_2$")
    axes.set_aspect("equal", "datalim")
    return figure


def bit_balance(z: Float[np.ndarray, "n b"]) -> Figure:
    """Share of images in which each bit is 1: one half carries most, 0 or 1 carries nothing."""
    share = (z >= 0).mean(axis=0)
    figure = Figure(figsize=(8, 3), layout="constrained")
    bars, histogram = figure.subplots(1, 2, width_ratios=(3, 1), sharey=True)
    bars.bar(np.arange(len(share)), share, width=0.9)
    bars.axhline(0.5, color="black", linewidth=0.8, linestyle="--")
    bars.set_xlabel("bit")
    bars.set_ylabel("share of images with a 1")
    bars.set_ylim(0, 1)
    bars.xaxis.set_major_locator(MaxNLocator(integer=True))
    histogram.hist(share, bins=np.linspace(0, 1, 21), orientation="horizontal")
    histogram.set_xlabel("bits")
    histogram.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _show(panel, image) -> None:
    """An image of bytes, or of floats in [0, 1]; one channel is shown as grey."""
    scaled = image / 255 if image.dtype == np.uint8 else np.clip(image, 0, 1)
    panel.imshow(np.repeat(scaled, 3, axis=2) if scaled.shape[2] == 1 else scaled)
    panel.set_xticks([])
    panel.set_yticks([])


def _frame(panel, colour: str) -> None:
    for spine in panel.spines.values():
        spine.set(color=colour, linewidth=2.5)


def score_curves(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], axis: str, score: str, title: str
) -> Figure:
    """Curves of points (x, mean, standard deviation), by name; a logarithmic x for a wide one."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    panel = figure.subplots()
    for name, points in curves.items():
        x, mean, sd = zip(*sorted(points), strict=True)
        style = {"color": "black", "linestyle": ":"} if name == "published" else {}
        panel.errorbar(x, mean, sd, marker=".", capsize=2, label=name, **style)
    every = sorted({x for points in curves.values() for x, *_ in points})
    if every and every[0] > 0 and every[-1] > 8 * every[0]:
        panel.set_xscale("log")
        panel.set_xticks(every, [f"{x:g}" for x in every], fontsize=7)
        panel.minorticks_off()
    panel.set(xlabel=axis, ylabel=score, title=title)
    panel.grid(alpha=0.3)
    if curves:
        panel.legend(fontsize=8)
    return figure
