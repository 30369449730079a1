"""Text in pictures: titles, names that matplotlib cannot misread, places where labels are free."""

import textwrap

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text

NAME_LENGTH = 24  # characters of a class name that are drawn
LEADER = {  # from a label's middle, which its halo covers, to its point
    "arrowstyle": "-", "color": "0.4", "linewidth": 0.7, "patchA": None, "shrinkA": 0, "shrinkB": 0,
}  # fmt: skip
CHARACTERS = 11.5  # per inch, at the size of a title


def plain(text: object, limit: int = 0) -> str:
    """Return text as matplotlib draws it literally, on one line.

    Dollar signs start no formula. What cannot be printed, as the surrogates of a file name that is
    not UTF-8, becomes a question mark. A limit of characters cuts longer text with an ellipsis.
    """
    line = " ".join(str(text).split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    if limit and len(line) > limit:
        line = line[: limit - 1] + "…"
    return line.replace("$", r"\$")


def class_name(text: object) -> str:
    """Return a class name that is safe to draw and not too long."""
    return plain(text, NAME_LENGTH)


def heading(figure: Figure, title: str, subtitle: str) -> None:
    """Write a title and, below it, a subtitle above all panels, wrapped to the figure's width."""
    width = max(20, int(CHARACTERS * figure.get_figwidth()))
    lines = [textwrap.fill(plain(part), width) for part in (title, subtitle) if part]
    if lines:
        figure.suptitle("\n".join(lines), fontsize=10)


def free_places(
    anchors: Float[np.ndarray, "n 2"],
    sizes: Float[np.ndarray, "n 2"],
    obstacles: Float[np.ndarray, "m 4"],
    bounds: Float[np.ndarray, " 4"],
    *,
    start: float = 0.0,
) -> Float[np.ndarray, "n 2"]:
    """Return a centre for each label, near its anchor, such that no label covers another.

    Labels are placed in turn: at growing distances from the anchor, in the first of 16 directions
    where the label is in bounds, meets neither an obstacle nor an earlier label, and is nearest to
    its own anchor. If no place is nearest to its own anchor, that is waived; if none is free, the
    label stays at its anchor.

    Args:
        anchors: points to be labelled, in pixels.
        sizes: width and height of each label, in pixels.
        obstacles: boxes (left, bottom, right, top) to be kept free, in pixels.
        bounds: the box that holds all labels, in pixels.
        start: least distance between an anchor and its label's centre, in pixels.

    Returns:
        Centres of the labels, in pixels.
    """
    angles = np.arange(16) * np.pi / 8 + np.pi / 4
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reach = float(np.hypot(bounds[2] - bounds[0], bounds[3] - bounds[1]))
    taken = np.asarray(obstacles, float).reshape(-1, 4)
    centres = np.array(anchors, float)
    for i, (anchor, size) in enumerate(zip(anchors, sizes, strict=True)):
        step = max(2.0, 0.4 * float(size.min()))
        radii = np.arange(start, reach, step)
        tried = (anchor + radii[:, None, None] * directions).reshape(-1, 2)
        boxes = np.concatenate([tried - size / 2, tried + size / 2], axis=1)
        inside = (boxes[:, :2] >= bounds[:2]).all(axis=1) & (boxes[:, 2:] <= bounds[2:]).all(axis=1)
        meets = (boxes[:, None, :2] < taken[None, :, 2:]) & (
            taken[None, :, :2] < boxes[:, None, 2:]
        )
        free = tried[inside & ~meets.all(axis=2).any(axis=1)]
        if len(free):
            distance = np.hypot(*np.moveaxis(free[:, None] - anchors, 2, 0))
            nearest = distance[:, i] <= distance.min(axis=1) + 1e-6
            centres[i] = free[np.argmax(nearest)]  # the first place of all, if nearest is nowhere
        box = np.concatenate([centres[i] - size / 2, centres[i] + size / 2])
        taken = np.concatenate([taken, box[None]])
    return centres


def label_points(
    panel: Axes,
    points: Float[np.ndarray, "n 2"],
    labels: list[str],
    *,
    marker: float = 0.0,
    fontsize: float = 8.0,
) -> list[Annotation]:
    """Write a label near each point, none over another, and a line to each that had to move.

    Call it when all else is drawn: the labels' places depend on the panel's final size.

    Args:
        panel: the axes, whose figure has a constrained layout.
        points: in the units of the axes.
        labels: texts that are safe to draw.
        marker: diameter of a point's marker, in typographic points; labels keep off markers. With
            0 a label may lie on its own point.
        fontsize: in typographic points.

    Returns:
        The annotations.
    """
    figure = panel.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    halo = [withStroke(linewidth=2, foreground="white")]
    notes = []
    for label, point in zip(labels, points, strict=True):
        note = panel.annotate(
            label, point, point, textcoords="data", ha="center", va="center", fontsize=fontsize,
            path_effects=halo, zorder=4,
            arrowprops=LEADER,
        )  # fmt: skip
        note.set_in_layout(False)
        notes.append(note)
    anchors = panel.transData.transform(points).reshape(-1, 2)
    extents = [Text.get_window_extent(note) for note in notes]
    sizes = np.asarray([(e.width, e.height) for e in extents]).reshape(-1, 2) + 2 * scale
    radius = marker * scale / 2
    markers = np.concatenate([anchors - radius, anchors + radius], axis=1)
    legend = panel.get_legend()
    boxes = [legend.get_window_extent().extents] if legend else []
    obstacles = np.asarray([*boxes, *(markers if marker else [])]).reshape(-1, 4)
    start = radius + 0.5 * float(sizes[:, 1].min(initial=np.inf)) if marker else 0.0
    centres = free_places(anchors, sizes, obstacles, np.asarray(panel.bbox.extents), start=start)
    limits = radius + np.hypot(*sizes.T) / 2 + 3 * scale  # beyond it a label needs a line
    for note, centre, anchor, limit in zip(notes, centres, anchors, limits, strict=True):
        note.set_position(panel.transData.inverted().transform(centre))
        note.arrow_patch.set_visible(np.hypot(*(centre - anchor)) > limit)
    return notes
