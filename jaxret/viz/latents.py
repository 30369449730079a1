"""Pictures of codes and of classes: latent spaces, bits, class by class."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jaxret.viz.text import class_name, heading, label_points

WARNING = "#d55e00"
NEARLY_CONSTANT = 0.05  # a bit whose share of ones, or of zeros, is less
CORRELATED = 0.9  # |correlation| from which two bits tell nearly the same
CORRELATED_BITS = 1024  # longer codes are not compared bit by bit
CORRELATED_ROWS = 10_000  # images that correlations are estimated from
NAMED_CLASSES = 20  # more classes are not named within a picture


def latent_scatter(
    z: Float[np.ndarray, "n 2"],
    labels: Int[np.ndarray, " n"],
    class_names: Sequence[str],
    *,
    title: str = "",
    subtitle: str = "",
) -> Figure:
    """Draw a two-dimensional latent space, one colour per class (Torres 2018, figure 3.3).

    If many images share few codes, as binary ones do, the images of a code fill a square around it.

    Args:
        z: codes of two numbers.
        labels: classes; -1, drawn grey, where there is none.
        class_names: of the labels from 0; empty if there are none.
        title: the data set and the run.
        subtitle: what the picture shows.

    Returns:
        A figure, with each of up to 20 classes named in a legend and at the median of its images.
    """
    figure = Figure(figsize=(7, 5.8), layout="constrained")
    panel = figure.subplots()
    meaning = f"Codes of two numbers: each point is one of {len(z)} images"
    if len(np.unique(z, axis=0)) <= len(z) // 100:
        gaps = [np.diff(np.unique(axis)).min(initial=np.inf) for axis in z.T]
        side = 0.8 * min(1.0, *gaps)
        z = z + np.random.default_rng(0).uniform(-side / 2, side / 2, z.shape)
        meaning += "; those that share a code fill the square around it"
    labels = np.asarray(labels)
    names = {label: _name_of(label, class_names) for label in np.unique(labels).tolist()}
    count = max(len(class_names), *(label + 1 for label in names))
    colours = {label: _class_colour(label, count) for label in names}
    panel.scatter(*z.T, c=[colours[label] for label in labels.tolist()], s=4, linewidths=0)
    panel.set_xlabel("first number of the code, $z_1$")
    panel.set_ylabel("second number of the code, $z_2$")
    panel.set_aspect("equal", "datalim")
    classes = [label for label in names if label >= 0]
    if len(classes) > NAMED_CLASSES:
        heading(figure, title, subtitle or f"{meaning}; {len(classes)} classes, a colour each")
        return figure
    heading(figure, title, subtitle or meaning)
    if classes:
        in_order = [*classes, *(label for label in names if label < 0)]
        dots = [Line2D([], [], color=colours[label], marker="o", ls="") for label in in_order]
        texts = [names[label] for label in in_order]
        figure.legend(dots, texts, loc="outside right center", fontsize=8)
        medians = np.stack([np.median(z[labels == label], axis=0) for label in classes])
        label_points(panel, medians, texts[: len(classes)], fontsize=9.0)
    return figure


def bit_verdict(z: Float[np.ndarray, "n b"]) -> str:
    """Return, in a sentence, how many bits tell little and how many pairs tell nearly the same."""
    ones = np.asarray(z) >= 0
    constant = _nearly_constant(ones.mean(axis=0))
    bits = ones.shape[1]
    number = int(constant.sum())
    verdict = (
        f"{number or 'None'} of {bits} bits {'is' if number == 1 else 'are'} nearly constant "
        f"(share of ones below {NEARLY_CONSTANT:.0%} or above {1 - NEARLY_CONSTANT:.0%})"
    )
    rows = ones[:: -(-len(ones) // CORRELATED_ROWS)].astype(np.float32)
    varying = rows[:, rows.std(axis=0) > 0]
    if bits > CORRELATED_BITS or varying.shape[1] < 2:
        return verdict
    correlation = np.corrcoef(varying, rowvar=False)
    alike = int((np.abs(np.triu(correlation, 1)) > CORRELATED).sum())
    return (
        f"{verdict}; {alike or 'no'} pair{'' if alike == 1 else 's'} of bits "
        f"{'is' if alike == 1 else 'are'} strongly correlated (|r| above {CORRELATED})"
    )


def bit_balance(z: Float[np.ndarray, "n b"], *, title: str = "", subtitle: str = "") -> Figure:
    """Draw the share of images in which each bit is 1: near one half a bit can tell most.

    Args:
        z: codes; a bit is 1 where its number is at least 0.
        title: the data set and the run.
        subtitle: by default the verdict of `bit_verdict`.

    Returns:
        A figure of bars, with a cross at bits that are nearly constant, and their histogram.
    """
    share = (np.asarray(z) >= 0).mean(axis=0)
    constant = _nearly_constant(share)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    bars, histogram = figure.subplots(1, 2, width_ratios=(3, 1), sharey=True)
    bars.bar(np.arange(len(share)), share, width=0.9)
    bars.axhline(0.5, color="black", linewidth=0.8, linestyle="--", label="balanced")
    for limit in (NEARLY_CONSTANT, 1 - NEARLY_CONSTANT):
        line = bars.axhline(limit, color=WARNING, linewidth=0.8, linestyle=":")
    line.set_label("limit of nearly constant")
    if constant.any():
        bars.plot(
            np.flatnonzero(constant), share[constant].clip(0.03, 0.97), "x", color=WARNING,
            markeredgewidth=2, label="nearly constant bit",
        )  # fmt: skip
    bars.set_xlabel("bit, counted from 0")
    bars.set_ylabel("share of images with a 1")
    bars.set_ylim(0, 1)
    bars.xaxis.set_major_locator(MaxNLocator(integer=True))
    histogram.hist(share, bins=np.linspace(0, 1, 21), orientation="horizontal")
    histogram.set_xlabel("number of bits")
    histogram.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(
        *bars.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
    )
    heading(figure, title, subtitle or bit_verdict(z))
    return figure


def code_strips(
    codes: Bool[np.ndarray, "c m b"],
    class_names: Sequence[str],
    *,
    title: str = "",
    subtitle: str = "Codes, one image per row, a 1 black: rows of a class should look alike",
) -> Figure:
    """Draw the codes of m images of each class (Jimenez 2017, figure 4.4, shows one code).

    Args:
        codes: bits, class by class.
        class_names: of the c classes.
        title: the data set and the run.
        subtitle: what the picture shows.

    Returns:
        A figure with one panel per class and one row per image.
    """
    num_classes, m, bits = codes.shape
    size = (max(4.8, 1.4 + 0.13 * bits), 1.1 + 0.13 * num_classes * (m + 1))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(num_classes, 1, squeeze=False, sharex=True)[:, 0]
    for panel, strips, name in zip(panels, codes, class_names, strict=True):
        panel.imshow(strips, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="none")
        panel.set_ylabel(class_name(name), rotation=0, ha="right", va="center")
        panel.set_yticks([])
    panels[-1].set_xlabel("bit, counted from 0")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    heading(figure, title, subtitle)
    return figure


def confusion_matrix(
    counts: Int[np.ndarray, "c c"],
    class_names: Sequence[str],
    *,
    title: str = "",
    subtitle: str = "",
) -> Figure:
    """Draw how many images of each class (row) were taken for each (column).

    Args:
        counts: of images; colours are shares of a row. Counts are written for up to 20 classes.
        class_names: of the c classes.
        title: the data set and the run.
        subtitle: by default the share of images on the diagonal.

    Returns:
        A figure.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.4 + 0.42 * min(len(counts), NAMED_CLASSES)
    figure = Figure(figsize=(side + 0.9, side + 0.3), layout="constrained")
    panel = figure.subplots()
    shades = panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shades, label="share of the images of a true class", shrink=0.8)
    panel.set(xlabel="predicted class", ylabel="true class")
    if len(counts) <= NAMED_CLASSES:
        names = list(map(class_name, class_names))
        panel.set_xticks(range(len(counts)), names, rotation=60, ha="right", rotation_mode="anchor")
        panel.set_yticks(range(len(counts)), names)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if share[row, column] > 0.5 else "black"
            panel.text(column, row, count, ha="center", va="center", fontsize=7, color=colour)
    total = counts.sum()
    correct = f"{np.trace(counts) / max(total, 1):.2%} of {total} images are on the diagonal"
    heading(figure, title, subtitle or f"Classes as predicted: {correct}")
    return figure


def _nearly_constant(share: Float[np.ndarray, " b"]) -> Bool[np.ndarray, " b"]:
    return (share < NEARLY_CONSTANT) | (share > 1 - NEARLY_CONSTANT)


def _name_of(label: int, class_names: Sequence[str]) -> str:
    if label < 0:
        return "class not known"
    return class_name(class_names[label] if label < len(class_names) else f"class {label}")


def _class_colour(label: int, num_classes: int):
    if label < 0:
        return (0.6, 0.6, 0.6, 1.0)
    return colormaps["tab10"](label) if num_classes <= 10 else colormaps["hsv"](label / num_classes)
