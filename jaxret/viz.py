"""Pictures: the only file that knows matplotlib. Each function takes arrays and gives a Figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from matplotlib import colormaps
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

RIGHT, WRONG = "#2a9d4a", "#d1352b"
UNITS = {  # of training's terms
    "mse": "squared error per pixel",
    "bce": "nats per pixel",
    "accuracy": "share of images",
    **dict.fromkeys(("quantisation", "cubic", "balance"), "mean over bits"),
}


def loss_curves(epochs: Sequence[int], terms: Mapping[str, Sequence[float]]) -> Figure:
    """Each term of training against the epoch, in a panel of its own: their scales differ.

    loss/train and loss/test are two curves of one panel.
    """
    panels: dict[str, dict[str, Sequence[float]]] = {}
    for name, values in terms.items():
        term, _, part = name.partition("/")
        panels.setdefault(term, {})[part] = values
    figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (term, parts) in zip(axes, panels.items(), strict=True):
        for part, values in parts.items():
            panel.plot(epochs, values, marker="." if len(epochs) < 30 else None, label=part)
        last = ", ".join(f"{part} {values[-1]:.4g}".strip() for part, values in parts.items())
        panel.set_title(f"{term}, last {last}", fontsize=10 if len(parts) > 1 else None)
        panel.set_xlabel("epoch")
        panel.set_ylabel(UNITS.get(term, "nats per image"))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
        if len(parts) > 1:
            panel.legend()
    return figure


def reconstructions(
    images: Shaped[np.ndarray, "n h w c"],
    *rebuilt: Float[np.ndarray, "n h w c"],
    names: Sequence[str] = ("rebuilt",),
) -> Figure:
    """Originals (bytes) in the upper row, what came back (in [0, 1]) in a row for each model."""
    size = (0.8 * len(images) + 0.8, 0.8 * len(rebuilt) + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1 + len(rebuilt), len(images), squeeze=False)
    for row, name, several in zip(panels, ("original", *names), (images, *rebuilt), strict=True):
        row[0].set_ylabel(name)
        for panel, image in zip(row, several, strict=True):
            _show(panel, image)
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
    rows: Sequence[str] = (),
) -> Figure:
    """Each query and its nearest images, nearest first, framed green where the class is right.

    The number under an image is its distance. rows names the rows, such as by the code's bits.
    """
    num_queries, k = right.shape
    width = 0.85 * (k + 1) + 0.08 * max(map(len, rows), default=0)
    figure = Figure(figsize=(width, 0.98 * num_queries + 0.4), layout="constrained")
    panels = figure.subplots(num_queries, k + 1, squeeze=False)
    for q in range(num_queries):
        _show(panels[q, 0], queries[q])
        _frame(panels[q, 0], "black")
        if rows:
            panels[q, 0].set_ylabel(rows[q], rotation=0, ha="right", va="center", fontsize=9)
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
    """A two-dimensional latent space, one colour a class (Torres 2018, figure 3.3).

    Where many images share few codes, as binary ones, those of a code fill a square around it.
    """
    figure = Figure(figsize=(6.5, 5.5), layout="constrained")
    axes = figure.subplots()
    if len(np.unique(z, axis=0)) <= len(z) // 100:
        gaps = [np.diff(np.unique(axis)).min(initial=np.inf) for axis in z.T]
        side = 0.8 * min(1.0, *gaps)
        z = z + np.random.default_rng(0).uniform(-side / 2, side / 2, z.shape)
        axes.set_title("images of one code fill its square", fontsize=10)
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


def code_strips(codes: Bool[np.ndarray, "c m b"], class_names: Sequence[str]) -> Figure:
    """Codes of m images of each class, one row an image, a 1 black: classes should look alike.

    (Jimenez 2017, figure 4.4, shows one code.)
    """
    num_classes, m, bits = codes.shape
    size = (1.2 + max(3.0, 0.13 * bits), 0.6 + 0.13 * num_classes * (m + 1))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(num_classes, 1, squeeze=False, sharex=True)[:, 0]
    for panel, strips, name in zip(panels, codes, class_names, strict=True):
        panel.imshow(strips, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="none")
        panel.set_ylabel(name, rotation=0, ha="right", va="center")
        panel.set_yticks([])
    panels[-1].set_xlabel("bit")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def first_layer(
    image: UInt8[np.ndarray, "h w c"],
    filters: Float[np.ndarray, "u v c m"],
    maps: Float[np.ndarray, "h w m"],
) -> Figure:
    """An image, a layer's filters and what each makes of it (Jimenez 2017, figure 4.3).

    All filters share one scale, grey is 0; all maps share one, black is their least.
    """
    side = int(np.ceil(np.sqrt(filters.shape[3])))
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    parts = figure.subfigures(1, 3, width_ratios=(2, 4, 4))
    _show(parts[0].subplots(), image)
    scaled = 0.5 + 0.5 * filters / np.abs(filters).max()
    shown = (maps - maps.min()) / max(float(np.ptp(maps)), 1e-12)
    for part, several in ((parts[1], scaled), (parts[2], shown[:, :, None])):
        for i, panel in enumerate(part.subplots(side, side, squeeze=False).flat):
            if i < several.shape[3]:
                _show(panel, several[..., i])
            else:
                panel.axis("off")
    for part, name in zip(parts, ("image", "filters", "activations"), strict=True):
        part.suptitle(name)
    return figure


def confusion_matrix(counts: Int[np.ndarray, "c c"], class_names: Sequence[str]) -> Figure:
    """How many images of each class (row) were taken for each (column); colours by share of rows.

    Figures stand in the cells of up to 20 classes.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.42 * min(len(counts), 20)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    panel = figure.subplots()
    shades = panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shades, label="share of the class", shrink=0.8)
    panel.set(xlabel="predicted", ylabel="true")
    panel.set_title(f"{np.trace(counts) / counts.sum():.2%} of {counts.sum()} on the diagonal")
    if len(counts) <= 20:
        panel.set_xticks(range(len(counts)), class_names, rotation=60, ha="right")
        panel.set_yticks(range(len(counts)), class_names)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if share[row, column] > 0.5 else "black"
            panel.text(column, row, count, ha="center", va="center", fontsize=7, color=colour)
    return figure


Curve = tuple[Int[np.ndarray, " _"], Float[np.ndarray, " _"]]  # x, y


def precision_curves(
    panels: Mapping[str, Mapping[str, Curve]], published: Mapping[str, Curve]
) -> Figure:
    """Precision of the first K results against K: panels of named curves.

    What was published is dotted, in every panel (Jimenez 2017, figures 5.5 and 5.6).
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns + 2, 3.8 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    named = {}  # one entry of the legend for each name
    for panel, (title, curves) in zip(axes.flat, panels.items(), strict=False):
        for name, curve in curves.items():
            colour = colormaps["viridis"](names.index(name) / len(names))
            (named[name],) = panel.plot(*curve, color=colour)
        for i, (name, curve) in enumerate(published.items()):
            label = f"{name}, published"
            (named[label],) = panel.plot(*curve, ":", marker=".", color=_colour(i + 1))
        panel.set(title=title, xlabel="K")
        panel.grid(alpha=0.3)
    for panel in axes.flat[len(panels) :]:
        panel.axis("off")
    for panel in axes[:, 0]:
        panel.set_ylabel("precision of the first K")
    figure.legend(named.values(), named, loc="outside right center", fontsize=8)
    return figure


STROKES = {"published": ":", "as published": "--"}  # of a chart's curves; others are drawn through


def score_curves(
    curves: Mapping[tuple[str, str], Sequence[tuple[float, float, float]]],
    axis: str,
    score: str,
    title: str,
) -> Figure:
    """Curves of points (x, mean, standard deviation); a logarithmic x for a wide one.

    They are named by series and column, either of which may be empty: a series has one colour, a
    column such as "published" one stroke.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    panel = figure.subplots()
    colours: dict[str, Any] = {"published": "black", "as published": _colour(0), "ours": _colour(1)}
    for (series, column), points in curves.items():
        x, mean, sd = zip(*sorted(points), strict=True)
        colour = colours.setdefault(series or column, _colour(len(colours) - 1))
        style = {"color": colour, "linestyle": STROKES.get(column, "-")}
        label = ", ".join(part for part in (series, column) if part)
        panel.errorbar(x, mean, sd, marker=".", capsize=2, label=label, **style)
    every = sorted({x for points in curves.values() for x, *_ in points})
    even = len(every) > 2 and np.ptp(np.diff(every)) < 1e-6 * every[-1]
    if every and every[0] > 0 and every[-1] > 8 * every[0] and not even:
        panel.set_xscale("log")
        whole = [x for x in every if x == round(x)] or every
        shown = whole[:1]
        for x in whole:  # where a label has room
            if x > shown[-1] * (every[-1] / every[0]) ** 0.05:
                shown.append(x)
        panel.set_xticks(shown, [f"{x:.5g}" for x in shown], fontsize=7)
        panel.minorticks_off()
    panel.set(xlabel=axis, ylabel=score)
    panel.set_title(title, fontsize=10, wrap=True)
    panel.grid(alpha=0.3)
    if len(curves) > 8:
        figure.legend(loc="outside right center", fontsize=8)
    elif curves:
        panel.legend(fontsize=8)
    return figure


def _colour(i: int) -> Any:
    """The i-th colour of many: ten strong ones, then ten pale."""
    return colormaps["tab20"](2 * (i % 10) + i // 10 % 2)


def numbered_points(
    points: Mapping[str, Mapping[str, tuple[float, float]]], x: str, y: str, title: str
) -> Figure:
    """Points (x, y) by name and then by column, such as "ours"; a number stands for the name."""
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    panel = figure.subplots()
    columns = sorted({column for by_column in points.values() for column in by_column})
    for i, column in enumerate(columns):
        here = [by_column[column] for by_column in points.values() if column in by_column]
        colours = {"facecolors": to_rgba(f"C{i}", 0.25), "edgecolors": f"C{i}"}
        panel.scatter(*zip(*here, strict=True), s=160, label=column, **colours)
    for number, by_column in enumerate(points.values(), 1):
        for place in by_column.values():
            panel.annotate(str(number), place, ha="center", va="center", fontsize=7)
    panel.set(xscale="log", xlabel=x, ylabel=y, title=title)
    panel.tick_params(axis="x", which="minor", labelsize=6)
    panel.grid(alpha=0.3, which="both")
    panel.legend(fontsize=8)
    named = [Line2D([], [], label=f"{i}  {name}") for i, name in enumerate(points, 1)]
    figure.legend(handles=named, loc="outside right center", fontsize=8, handlelength=0)
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
