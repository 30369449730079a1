"""Charts: terms of training against epochs, scores against a setting, models as points."""

import collections
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from jaxret.viz.text import heading, label_points, plain

TERMS = {  # of training: name -> the field's words, unit
    "loss": ("loss", "weighted sum of the terms"),
    "nll": ("reconstruction, negative log-likelihood", "nats per image"),
    "kl": ("KL divergence to the prior", "nats per image"),
    "marginal_kl": ("KL divergence of the batch's mean code to the prior", "nats"),
    "ntxent": ("contrastive loss (NT-Xent)", "nats per image"),
    "mse": ("reconstruction, squared error", "mean squared error"),
    "bce": ("reconstruction, binary cross-entropy", "nats per pixel"),
    "accuracy": ("classification accuracy", "share of images"),
    "classification": ("classification, cross-entropy", "nats per image"),
    "quantisation": ("quantisation loss", "mean over bits"),
    "cubic": ("cubic quantisation loss", "mean over bits"),
    "balance": ("bit balance loss", "mean over bits"),
    "pairwise": ("pairwise likelihood loss", "nats per pair of images"),
    "central": ("central similarity loss", "nats per bit"),
}
TRAINING = "training"  # a term's own values, mean over the steps of an epoch
PANELS = 4  # in a row

# Of the columns of a table: line, marker, whether it is filled.
Stroke = tuple[str, str, bool]
STROKES: dict[str, Stroke] = {
    "published": (":", "o", False),
    "as published": ("--", "s", False),
    "ours": ("-", "D", True),
}
PLAIN_STROKE: Stroke = ("-", ".", True)


def loss_curves(
    epochs: Sequence[int],
    terms: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    subtitle: str = "Terms of the training objective, by epoch",
) -> Figure:
    """Draw each term of training against the epoch, in a panel of its own: their scales differ.

    Args:
        epochs: of the values.
        terms: values by name; `loss/train` and `loss/test` are two curves of one panel.
        title: the data set and the run.
        subtitle: what the picture shows.

    Returns:
        A figure with the value after the last epoch above each panel.
    """
    panels: dict[str, dict[str, Sequence[float]]] = {}
    for name, values in terms.items():
        term, _, part = name.partition("/")
        panels.setdefault(term, {})[part or TRAINING] = values
    columns = max(1, min(PANELS, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(4 * columns, 3.1 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (term, parts) in zip(axes, panels.items(), strict=False):
        words, unit = TERMS.get(term, (plain(term.replace("_", " ")), "value"))
        for i, (part, values) in enumerate(parts.items()):
            marker = "." if len(epochs) < 30 else None
            panel.plot(epochs, values, ("-", "--", ":")[i % 3], marker=marker, label=plain(part))
        last = ", ".join(
            f"{part if parts.keys() != {TRAINING} else ''} {values[-1]:.4g}".strip()
            for part, values in parts.items()
        )
        panel.set_title(f"{textwrap.fill(words, 44)}\nlast: {plain(last)}", fontsize=9)
        panel.set_xlabel("epoch")
        panel.set_ylabel(unit)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panel.grid(alpha=0.3)
        if len(parts) > 1:
            panel.legend(loc="best", fontsize=8)
    for panel in axes[len(panels) :]:
        panel.axis("off")
    heading(figure, title, subtitle)
    return figure


def class_sizes(
    counts: Sequence[int] | Int[np.ndarray, " c"],
    classes: str = "classes",
    *,
    title: str = "",
    subtitle: str = "Images of each class, the largest first",
) -> Figure:
    """Draw how many images each class has, as bars from the largest class to the smallest.

    Args:
        counts: images of each class.
        classes: what the classes are, in the plural.
        title: the data set.
        subtitle: what the picture shows.
    """
    ordered = np.sort(np.asarray(counts))[::-1]
    figure = Figure(figsize=(6.8, 3.6), layout="constrained")
    panel = figure.subplots()
    panel.bar(np.arange(1, len(ordered) + 1), ordered, width=1.0)
    panel.set_xlabel(f"{len(ordered):,} {plain(classes)}, by size")
    panel.set_ylabel("images")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panel.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    heading(figure, title, subtitle)
    return figure


Curve = tuple[Int[np.ndarray, " _"], Float[np.ndarray, " _"]]  # x, y


def precision_curves(
    panels: Mapping[str, Mapping[str, Curve]],
    published: Mapping[str, Curve],
    *,
    title: str = "",
    subtitle: str = "Share of the first K results that have the query's class",
) -> Figure:
    """Draw the precision of the first K results against K.

    Args:
        panels: named curves, by the title of their panel.
        published: named curves, drawn dotted in every panel (Jimenez 2017, figures 5.5 and 5.6).
        title: the data set and the runs.
        subtitle: what the picture shows.

    Returns:
        A figure with one legend for all panels.
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns + 2, 3.8 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    entries = {}  # of the legend, one for each name
    for panel, (panel_title, curves) in zip(axes.flat, panels.items(), strict=False):
        for name, curve in curves.items():
            colour = colormaps["viridis"](names.index(name) / len(names))
            if name in published:  # that of its published points
                colour = _colour(list(published).index(name) + 1)
            (entries[plain(name)],) = panel.plot(*curve, color=colour)
        for i, (name, curve) in enumerate(published.items()):
            label = f"{plain(name)}, published"
            (entries[label],) = panel.plot(*curve, ":", marker=".", color=_colour(i + 1))
        panel.set_title(plain(panel_title), fontsize=10)
        panel.set_xlabel("K, number of results")
        panel.grid(alpha=0.3)
    for panel in axes.flat[len(panels) :]:
        panel.axis("off")
    for panel in axes[:, 0]:
        panel.set_ylabel("precision of the first K results")
    figure.legend(entries.values(), entries, loc="outside right center", fontsize=8)
    heading(figure, title, subtitle)
    return figure


Point = tuple[float, float, float] | tuple[float, float, float, str]


def score_curves(
    curves: Mapping[tuple[str, str], Sequence[Point]],
    axis: str,
    score: str,
    title: str = "",
    subtitle: str = "",
) -> Figure:
    """Draw scores against a setting, with error bars; a wide setting has a logarithmic axis.

    Args:
        curves: points by (series, column), either of which may be empty. A series has one colour,
            a column such as "published" one line and marker. A point is (x, mean, standard
            deviation); a fourth entry names its column where a curve runs through several.
        axis: the setting, with its unit.
        score: the score, with its unit.
        title: the data set and the table.
        subtitle: what the picture shows.

    Returns:
        A figure whose legend explains the colours and, where points name columns, the markers.
    """
    figure = Figure(figsize=(6.8, 4.6), layout="constrained")
    panel = figure.subplots()
    colours: dict[str, Any] = {"published": "black", "as published": _colour(0), "ours": _colour(1)}
    handles, columns = [], {}
    for (series, column), points in curves.items():
        colour = colours.setdefault(series or column, _colour(len(colours) - 1))
        points = sorted((*point, "")[:4] for point in points)
        x, mean, sd, marks = zip(*points, strict=True)
        line, marker, filled = STROKES.get(column, PLAIN_STROKE)
        panel.errorbar(x, mean, sd, color=colour, linestyle=line, linewidth=1.3, capsize=2)
        for mark in dict.fromkeys(marks):
            ends = [point[:2] for point in points if point[3] == mark]
            own, solid = STROKES.get(mark or column, (line, marker, filled))[1:]
            style = _marker(own, solid, colour)
            panel.plot(*zip(*ends, strict=True), **style)
            if mark:
                columns[mark] = Line2D([], [], label=plain(mark), **_marker(own, solid, "0.3"))
        label = textwrap.fill(", ".join(plain(part) for part in (series, column) if part), 36)
        style = _marker("" if any(marks) else marker, filled, colour)
        style["linestyle"] = line
        handles.append(Line2D([], [], label=label, **style))
    _logarithmic(panel, sorted({point[0] for points in curves.values() for point in points}))
    panel.set(xlabel=plain(axis), ylabel=plain(score))
    panel.grid(alpha=0.3)
    handles += [columns[mark] for mark in sorted(columns, key=[*STROKES, *columns].index)]
    if len(handles) > 8:
        figure.legend(handles=handles, loc="outside right center", fontsize=8)
    elif handles:
        panel.legend(loc="best", handles=handles, fontsize=8)
    heading(figure, title, subtitle)
    return figure


def numbered_points(
    points: Mapping[str, Mapping[str, tuple[float, float]]],
    x: str,
    y: str,
    title: str = "",
    subtitle: str = "",
) -> Figure:
    """Draw models as points, each with a number that a legend explains.

    Args:
        points: (x, y) by the model's name and then by column, such as "ours".
        x: what is drawn across, with its unit; a logarithmic axis if all are above 0.
        y: what is drawn upwards, with its unit.
        title: the data set and the tables.
        subtitle: what the picture shows.

    Returns:
        A figure. No number covers another or a marker.
    """
    height = max(4.8, 0.21 * len(points) + 1.2)
    figure = Figure(figsize=(9.5, height), layout="constrained")
    panel = figure.subplots()
    by_column: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
    numbered: list[tuple[tuple[float, float], str]] = []
    for number, places in enumerate(points.values(), 1):
        for column, place in places.items():
            by_column[column].append(place)
            numbered.append((place, str(number)))
    for i, column in enumerate(sorted(by_column)):
        _, marker, filled = STROKES.get(column, ("", "o^v<>"[i % 5], True))
        style = _marker(marker, filled, f"C{i}")
        style["markersize"] = 6
        panel.plot(*zip(*by_column[column], strict=True), label=plain(column), **style)
    if all(place[0] > 0 for place, _ in numbered):
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_locator(NullLocator())
    panel.margins(0.07)
    panel.set(xlabel=plain(x), ylabel=plain(y))
    panel.grid(alpha=0.3)
    panel.legend(loc="best", fontsize=8)
    names = [Line2D([], [], label=f"{i}  {plain(name)}") for i, name in enumerate(points, 1)]
    figure.legend(handles=names, loc="outside right center", fontsize=8, handlelength=0)
    heading(figure, title, subtitle)
    places = np.asarray([place for place, _ in numbered], float).reshape(-1, 2)
    label_points(panel, places, [number for _, number in numbered], marker=6.0)
    return figure


def _logarithmic(panel: Axes, values: list[float]) -> None:
    """Make x logarithmic if its values are above 0, span a factor of 8 and are not even.

    Whole values are its ticks where labels have room; of none, powers of ten.
    """
    even = len(values) > 2 and np.ptp(np.diff(values)) < 1e-6 * values[-1]
    if not values or values[0] <= 0 or values[-1] <= 8 * values[0] or even:
        return
    panel.set_xscale("log")
    whole = [x for x in values if x == round(x)]
    if not whole:
        return
    ticks = whole[:1]
    for x in whole:  # where a label has room
        if x > ticks[-1] * (values[-1] / values[0]) ** 0.05:
            ticks.append(x)
    panel.set_xticks(ticks, [f"{x:.5g}" for x in ticks], fontsize=8)
    panel.minorticks_off()


def _marker(marker: str, filled: bool, colour: Any) -> dict[str, Any]:
    face = colour if filled else "white"
    size = 8 if marker == "." else 5
    return {
        "marker": marker, "markersize": size, "color": colour, "markerfacecolor": face,
        "linestyle": "",
    }  # fmt: skip


def _colour(i: int) -> Any:
    """The i-th colour of many: ten strong ones, ten pale, then twenty others."""
    return colormaps[("tab20", "tab20b")[i // 20 % 2]](2 * (i % 10) + i // 10 % 2)
