"""Pictures made of images: originals and reconstructions, samples, queries and their neighbors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, Shaped, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from jaxret.viz.text import class_name, heading, plain

# Colours that colour-blind readers can tell apart (Okabe 2008), and marks besides.
SAME, OTHER, UNKNOWN = "#009e73", "#d55e00", "0.6"
FRAMES = {  # same_class -> colour, line, mark, meaning
    1: (SAME, "-", "✓ ", "✓ same class as the query"),
    0: (OTHER, (0, (3, 1.2)), "✗ ", "✗ other class"),
    -1: (UNKNOWN, "-", "", "class not known"),
}
DISTANCES = {  # those of jaxret.evaluate, in words and units
    "hamming": "distance, bits",
    "euclidean": "squared distance",
    "cosine": "1 - cosine",
    "mahalanobis": "squared Mahalanobis distance",
    "symmetric_kl": "symmetric KL divergence, nats",
    "expected_hamming": "expected distance, bits",
}


def rows_across_classes(
    labels: Int[np.ndarray, " n"], count: int, seed: int = 0
) -> Int[np.ndarray, " m"]:
    """Return rows of min(count, n) images, as evenly spread over the classes as they can be.

    The images of a class, and which classes have one more than others, are drawn by the seed. Rows
    come class by class in turn: 0, 1, 2, ..., 0, 1, 2, ...
    """
    labels = np.asarray(labels)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    turn = np.arange(len(labels)) - np.repeat(starts, sizes)  # first, second, ... of its class
    position = np.empty(len(labels), int)
    position[shuffled] = np.arange(len(labels))
    chosen = np.lexsort((position[by_class], turn))[:count]
    return by_class[chosen[np.lexsort((labels[by_class[chosen]], turn[chosen]))]]


def same_class(
    query_labels: Int[np.ndarray, " q"], found_labels: Int[np.ndarray, "q k"]
) -> Int8[np.ndarray, "q k"]:
    """Return 1 where a result has its query's class, 0 where not, -1 where a label is -1."""
    query_labels, found_labels = np.asarray(query_labels)[:, None], np.asarray(found_labels)
    known = (query_labels >= 0) & (found_labels >= 0)
    return np.where(known, query_labels == found_labels, -1).astype(np.int8)


def reconstructions(
    images: Shaped[np.ndarray, "n h w c"],
    *rebuilt: Float[np.ndarray, "n h w c"],
    names: Sequence[str] = ("reconstruction",),
    columns: Sequence[str] = (),
    title: str = "",
    subtitle: str = "Originals, and below each what the decoder makes of its code",
) -> Figure:
    """Draw images in the upper row, and their reconstructions in a row for each model.

    Args:
        images: originals, as bytes or in [0, 1]; choose them by `rows_across_classes`.
        rebuilt: for each model its reconstructions, in [0, 1].
        names: of the models.
        columns: what to write above each image, such as its class; may be empty.
        title: the data set and the run.
        subtitle: what the picture shows.

    Returns:
        A figure.
    """
    columns = [plain(name, 14) for name in columns]
    side = max(0.8, 0.08 * max(map(len, columns), default=0))
    names = ["original", *map(plain, names)]
    size = (side * len(images) + 0.09 * max(map(len, names)), side * len(names) + 0.8)
    figure = Figure(figsize=(max(size[0], 3.2), size[1]), layout="constrained")
    table = _Table(figure, images.shape[1:3], gap=0.06)
    for row, pictures in enumerate((images, *rebuilt)):
        for column, image in enumerate(pictures):
            table.put(row, column, image)
    table.finish((len(names), len(images)), names, columns)
    heading(figure, title, subtitle)
    return figure


def image_grid(
    images: Shaped[np.ndarray, "r s h w c"], title: str = "", subtitle: str = ""
) -> Figure:
    """Draw images in [0, 1] in r rows and s columns, with a grey line between them.

    `title` names the data set and the run, `subtitle` says what the images are.
    """
    lines = ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0))
    images = np.pad(images, lines, constant_values=0.5)
    rows, columns, h, w, c = images.shape
    whole = np.clip(images, 0, 1).transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, c)
    size = (max(0.4 * columns + 0.4, 3.6), 0.4 * rows + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    show(figure.subplots(), whole)
    heading(figure, title, subtitle)
    return figure


def retrieval_grid(
    queries: Shaped[np.ndarray, "q h w c"],
    found: Shaped[np.ndarray, "q k h w c"],
    right: Bool[np.ndarray, "q k"] | Int[np.ndarray, "q k"] | None,
    distances: Float[np.ndarray, "q k"] | Int[np.ndarray, "q k"],
    rows: Sequence[str] = (),
    *,
    classes: Sequence[str] = (),
    distance: str = "",
    title: str = "",
    subtitle: str = "",
) -> Figure:
    """Draw each query and its nearest images, nearest first, framed by whether the class is right.

    Args:
        queries: as bytes or in [0, 1].
        found: the k nearest images of each query.
        right: whether a result has the query's class, as `same_class` gives it; None where no
            labels are known.
        distances: of the results; the number under each.
        rows: what to write at the left of each row, such as the code's length.
        classes: the class of each query, written at the left as well.
        distance: a name of `jaxret.evaluate.DISTANCES`, or words and unit of the distance.
        title: the data set and the run.
        subtitle: what the picture shows; by default the share of results of the query's class.

    Returns:
        A figure. Frames of the same class are solid and green with a check mark, those of another
        are dashed and red with a cross; if no class is known, frames are grey.
    """
    num_queries, k = distances.shape
    kinds = np.full(distances.shape, -1) if right is None else np.asarray(right).astype(int)
    parts = [list(map(class_name, classes)), [plain(row, 40) for row in rows]]
    names = ["\n".join(row) for row in zip(*filter(None, parts), strict=True)] or [""] * num_queries
    letters = max(len(line) for name in names for line in name.split("\n"))
    size = (max(0.85 * (k + 1) + 0.085 * letters, 4.0), 1.0 * num_queries + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    table = _Table(figure, queries.shape[1:3], gap=0.12, below=0.24)
    for q in range(num_queries):
        table.put(q, 0, queries[q], "black")
        for i in range(k):
            colour, line, mark, _ = FRAMES[kinds[q, i]]
            table.put(q, i + 1, found[q, i], colour, line, f"{mark}{distances[q, i]:.3g}")
    table.finish((num_queries, k + 1), names, ("query", "nearest"))
    _explain(figure, kinds, DISTANCES.get(distance, plain(distance)))
    heading(figure, title, subtitle or _share(kinds))
    return figure


def first_layer(
    image: UInt8[np.ndarray, "h w c"],
    filters: Float[np.ndarray, "u v c m"],
    maps: Float[np.ndarray, "h w m"],
    *,
    title: str = "",
    subtitle: str = "An image, the filters of the first layer, and the image after each filter",
) -> Figure:
    """Draw an image, a layer's filters and what each makes of it (Jimenez 2017, figure 4.3).

    All filters share one scale, on which grey is 0; all maps share one, on which black is the
    least activation.

    Args:
        image: as bytes.
        filters: m kernels of u by v pixels.
        maps: what the m filters make of the image.
        title: the data set and the run.
        subtitle: what the picture shows.

    Returns:
        A figure.
    """
    side = int(np.ceil(np.sqrt(filters.shape[3])))
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    parts = figure.subfigures(1, 3, width_ratios=(2, 4, 4))
    assert isinstance(parts, np.ndarray)  # it is a single one for 1 by 1 only
    show(parts[0].subplots(), image)
    scaled = 0.5 + 0.5 * filters / max(float(np.abs(filters).max()), 1e-12)
    shown = (maps - maps.min()) / max(float(np.ptp(maps)), 1e-12)
    for part, pictures in ((parts[1], scaled), (parts[2], shown[:, :, None])):
        for i, panel in enumerate(part.subplots(side, side, squeeze=False).flat):
            if i < pictures.shape[3]:
                show(panel, pictures[..., i])
            else:
                panel.axis("off")
    names = ("image", "filters (grey: 0)", "activations (white: highest)")
    for part, name in zip(parts, names, strict=True):
        part.suptitle(name, fontsize=10)
    heading(figure, title, subtitle)
    return figure


def show(
    panel: Axes,
    image: Shaped[np.ndarray, "h w c"],
    place: tuple[float, float, float, float] | None = None,
) -> None:
    """Draw an image of bytes, or of floats in [0, 1]; one channel is shown as grey.

    Its place in the panel is (left, right, bottom, top), or all of the panel.
    """
    scaled = image / 255 if image.dtype == np.uint8 else np.clip(image, 0, 1)
    panel.imshow(np.repeat(scaled, 3, axis=2) if scaled.shape[2] == 1 else scaled, extent=place)
    panel.set_xticks([])
    panel.set_yticks([])


class _Table:
    """Images in rows and columns of one panel: a panel for each takes 20 times as long to draw.

    An image is 1 wide and as high as its shape says; gap lies between columns, and between rows
    beside what is below an image.
    """

    def __init__(self, figure: Figure, shape: tuple[int, ...], gap: float, below: float = 0.0):
        self.panel = figure.subplots()
        self.height = shape[0] / shape[1]
        self.across, self.down = 1 + gap, self.height + gap + below

    def put(self, row: int, column: int, image, colour: str = "", line: Any = "-", under: str = ""):
        """Draw an image, a frame of a colour around it, and a few letters under it."""
        x, y = column * self.across, row * self.down
        show(self.panel, image, (x, x + 1, y + self.height, y))
        if colour:
            frame = Rectangle(
                (x, y), 1, self.height, fill=False, color=colour, linewidth=2.5, linestyle=line,
                capstyle="butt", clip_on=False,
            )  # fmt: skip
            self.panel.add_patch(frame)
        if under:
            at = x + 0.5, y + self.height + 0.06
            self.panel.text(*at, under, fontsize=8, ha="center", va="top")

    def finish(self, size: tuple[int, int], rows: Sequence[str], columns: Sequence[str]) -> None:
        """Show all rows and columns, `size`, and write the names of the first ones."""
        self.panel.set(
            xlim=(-0.03, size[1] * self.across), ylim=(size[0] * self.down, -0.03), aspect="equal"
        )
        self.panel.set_xticks(0.5 + self.across * np.arange(len(columns)), columns, fontsize=9)
        middle = self.height / 2 + self.down * np.arange(len(rows))
        self.panel.set_yticks(middle, rows, fontsize=9)
        self.panel.tick_params(length=0, labelbottom=False, labeltop=True)
        self.panel.spines[:].set_visible(False)


def _share(kinds: Int[np.ndarray, "q k"]) -> str:
    known = kinds[kinds >= 0]
    if not len(known):
        return "Each query and its nearest images"
    return f"{known.mean():.0%} of these {known.size} results have the query's class"


def _explain(figure: Figure, kinds: Int[np.ndarray, "q k"], distance: str) -> None:
    """Say below all panels what the numbers are, and what the frames."""
    present = [kind for kind in FRAMES if np.any(kinds == kind)]
    numbers = f"number under a result: {distance}" if distance else None
    if present == [-1]:
        figure.supxlabel(numbers or "", fontsize=8)
        return
    handles = [
        Patch(facecolor="none", edgecolor=colour, linestyle=line, linewidth=2, label=meaning)
        for colour, line, _, meaning in (FRAMES[kind] for kind in present)
    ]
    figure.legend(
        handles=handles, title=numbers, loc="outside lower center", ncols=len(handles),
        fontsize=8, title_fontsize=8, frameon=False, handlelength=3, handleheight=1.2,
    )  # fmt: skip
