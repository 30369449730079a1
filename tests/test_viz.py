"""Pictures: what is drawn is what was given, and every picture says what it shows."""

import itertools

import numpy as np
import pytest
from matplotlib.text import Text

from jaxret import viz
from jaxret.viz.text import free_places, plain

RNG = np.random.default_rng(0)
NAMES = ("$\\frac{", "a$b$c", "caf\udce9", "_private")  # hard to draw


def images(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def saved(figure, tmp_path):
    path = tmp_path / "figure.png"
    figure.savefig(path, dpi=40)
    return path.read_bytes()


def legend_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def grid(right, **settings):
    """A retrieval grid of random images for one query."""
    kinds = None if right is None else np.asarray([right])
    found = images(1, 2, 4, 4, 3)
    return viz.retrieval_grid(images(1, 4, 4, 3), found, kinds, np.asarray([[4, 5]]), **settings)


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_of_the_same_and_of_another_class_differ_in_colour_line_and_mark(tmp_path, channels):
    right = np.asarray([[True, False, True]])
    figure = viz.retrieval_grid(
        images(1, 4, 4, channels), images(1, 3, 4, 4, channels), right, np.asarray([[0, 3, 5]])
    )
    _, *frames = figure.axes[0].patches
    for look in ("get_edgecolor", "get_linestyle"):
        same, other, again = (getattr(frame, look)() for frame in frames)
        assert same == again != other
    assert [text.get_text() for text in figure.axes[0].texts] == ["✓ 0", "✗ 3", "✓ 5"]
    assert "67%" in figure.get_suptitle()
    assert legend_of(figure) == ["✓ same class as the query", "✗ other class"]
    assert saved(figure, tmp_path).startswith(b"\x89PNG")


def test_the_legend_of_a_retrieval_grid_names_only_frames_that_are_drawn():
    assert legend_of(grid([1, 1])) == ["✓ same class as the query"]
    assert legend_of(grid([0, -1])) == ["✗ other class", "class not known"]


@pytest.mark.parametrize("right", [None, [-1, -1]])
def test_without_labels_frames_are_grey_and_there_is_no_legend(right):
    figure = grid(right, distance="hamming", title="photos")
    colours = {frame.get_edgecolor()[:3] for frame in figure.axes[0].patches[1:]}
    assert colours == {(0.6, 0.6, 0.6)}
    assert legend_of(figure) == []
    assert "%" not in figure.get_suptitle()
    assert figure.get_supxlabel() == "number under a result: distance, bits"


@pytest.mark.parametrize(
    ("distance", "unit"),
    [("hamming", "distance, bits"), ("euclidean", "squared distance"), ("cosine", "1 - cosine")],
)
def test_the_unit_of_distances_stands_below_a_retrieval_grid(distance, unit):
    (legend,) = grid([1, 0], distance=distance).legends
    assert legend.get_title().get_text() == f"number under a result: {unit}"


def test_classes_and_row_names_stand_at_the_left_of_a_retrieval_grid():
    figure = viz.retrieval_grid(
        images(2, 4, 4, 3), images(2, 1, 4, 4, 3), np.ones((2, 1), bool), np.zeros((2, 1), int),
        ["12 bits", "48 bits"], classes=["cat", "dog"],
    )  # fmt: skip
    lefts = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert lefts == ["cat\n12 bits", "dog\n48 bits"]


def test_a_class_is_the_same_only_where_both_labels_are_known():
    same = viz.same_class(np.asarray([3, -1]), np.asarray([[3, 4, -1], [3, -1, 0]]))
    assert same.tolist() == [[1, 0, -1], [-1, -1, -1]]


@pytest.mark.parametrize(("count", "each"), [(3, (1, 1, 1)), (8, (3, 3, 2)), (99, (50, 4, 2))])
def test_rows_are_spread_evenly_over_classes_in_turn(count, each):
    labels = np.repeat([0, 1, 2], [50, 4, 2])
    rows = viz.rows_across_classes(labels, count, seed=1)
    assert len(set(rows)) == len(rows) == min(count, 56)
    counts = np.bincount(labels[rows], minlength=3)
    assert sorted(counts) == sorted(each)
    assert labels[rows[:3]].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(rows, viz.rows_across_classes(labels, count, seed=1))


def test_fewer_rows_than_classes_are_of_different_classes_that_the_seed_draws():
    labels = np.repeat(np.arange(100), 5)
    draws = [labels[viz.rows_across_classes(labels, 12, seed)] for seed in range(2)]
    assert all(len(set(draw)) == 12 for draw in draws)
    assert draws[0].max() > 11
    assert set(draws[0]) != set(draws[1])


def test_loss_curves_have_a_panel_for_each_term_with_its_unit(tmp_path):
    figure = viz.loss_curves([1, 2, 3], {"nll": [3.0, 2.0, 1.5], "kl": [0.0, 1.0, 2.0]})
    assert [panel.get_title() for panel in figure.axes] == [
        "reconstruction, negative log-likelihood\nlast: 1.5",
        "KL divergence to the prior\nlast: 2",
    ]
    assert {panel.get_ylabel() for panel in figure.axes} == {"nats per image"}
    saved(figure, tmp_path)


def test_parts_of_a_term_share_a_panel():
    figure = viz.loss_curves([1, 2], {"loss/train": [3.0, 2.0], "loss/test": [3.5, 2.5]})
    (panel,) = figure.axes
    assert panel.get_title() == "loss\nlast: train 2, test 2.5"
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["train", "test"]
    assert len({line.get_linestyle() for line in panel.lines}) == 2
    (panel,) = viz.loss_curves([1], {"loss": [3.0], "loss/test": [3.5]}).axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["training", "test"]


def test_panels_of_many_terms_fill_rows_and_the_rest_stay_empty():
    terms = {f"term_{i}": [1.0] for i in range(5)}
    shown = [panel.axison for panel in viz.loss_curves([1], terms).axes]
    assert shown == [True] * 5 + [False] * 3


def test_bit_balance_shows_the_share_of_ones_and_marks_constant_bits(tmp_path):
    z = np.asarray([[1.0, -1.0], [1.0, 1.0]], np.float32)
    figure = viz.bit_balance(z, title="digits, run itq")
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1.0, 0.5]
    assert figure.get_suptitle().startswith("digits, run itq\n1 of 2 bits is nearly constant")
    assert "nearly constant bit" in legend_of(figure)
    saved(figure, tmp_path)


@pytest.mark.parametrize(
    ("constant", "copies", "verdict"),
    [
        (0, 0, "None of 8 bits are nearly constant (share of ones below 5% or above 95%); "
         "no pairs of bits are strongly correlated (|r| above 0.9)"),
        (2, 1, "2 of 8 bits are nearly constant (share of ones below 5% or above 95%); "
         "1 pair of bits is strongly correlated (|r| above 0.9)"),
    ],
)  # fmt: skip
def test_a_verdict_counts_constant_bits_and_pairs_that_are_alike(constant, copies, verdict):
    z = np.random.default_rng(1).normal(size=(2000, 8))
    z[:, :constant] += 4  # all but 1 in 30,000 are ones
    for i in range(copies):
        z[:, 7 - i] = -z[:, 6 - i] + 1e-9  # the opposite bit tells the same
    assert viz.bit_verdict(z) == verdict


def test_a_latent_scatter_names_the_classes_that_occur(tmp_path):
    z = RNG.normal(size=(30, 2)).astype(np.float32)
    labels = np.repeat([0, 2, -1], 10)
    figure = viz.latent_scatter(z, labels, ("cat", "dog", "ship"), title="digits, run 1")
    assert legend_of(figure) == ["cat", "ship", "class not known"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["cat", "ship"]
    assert figure.get_suptitle().startswith("digits, run 1\nCodes of two numbers")
    saved(figure, tmp_path)


def test_a_latent_scatter_without_labels_is_grey_and_without_a_legend():
    figure = viz.latent_scatter(RNG.normal(size=(30, 2)), np.full(30, -1), ())
    assert legend_of(figure) == [] == list(figure.axes[0].texts)
    assert np.unique(figure.axes[0].collections[0].get_facecolors()).tolist() == [0.6, 1.0]


def test_images_of_one_code_are_drawn_apart_and_near_it():
    z = RNG.choice([-1.0, 1.0], (1000, 2)).astype(np.float32)
    figure = viz.latent_scatter(z, np.arange(1000) % 2, ("cat", "dog"))
    drawn = figure.axes[0].collections[0].get_offsets()
    assert len(np.unique(drawn, axis=0)) == 1000
    np.testing.assert_array_equal(np.sign(drawn), z)
    assert 0.35 < np.abs(drawn - z).max() <= 0.4


def test_reconstructions_stand_below_their_originals(tmp_path):
    originals = images(5, 4, 4, 1)
    back = originals / np.float32(255)
    columns = ["cat", "dog", "ship", "cat", "dog"]
    figure = viz.reconstructions(originals, back, back, names=("A", "B"), columns=columns)
    (panel,) = figure.axes
    drawn = [image.get_array() for image in panel.images]
    np.testing.assert_allclose(drawn[0], drawn[5])
    places = [image.get_extent() for image in panel.images]  # left, right, bottom, top
    assert all(
        places[5 + i][:2] == places[i][:2] and places[5 + i][3] > places[i][2] for i in range(10)
    )
    assert [label.get_text() for label in panel.get_yticklabels()] == ["original", "A", "B"]
    assert [label.get_text() for label in panel.get_xticklabels()] == columns
    saved(figure, tmp_path)


def test_an_image_grid_has_the_images_in_order_and_both_titles():
    pictures = images(2, 3, 4, 4, 1) / np.float32(255)
    figure = viz.image_grid(pictures, "digits, run 1", "Decoded from samples of the prior")
    whole = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(whole[5:9, 10:14, 0], pictures[1, 2, :, :, 0])
    assert figure.get_suptitle() == "digits, run 1\nDecoded from samples of the prior"


def test_code_strips_show_each_class_and_bit(tmp_path):
    codes = RNG.random((3, 5, 12)) < 0.5
    figure = viz.code_strips(codes, ("cat", "dog", "ship"))
    assert [panel.get_ylabel() for panel in figure.axes] == ["cat", "dog", "ship"]
    for panel, shown in zip(figure.axes, codes, strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), shown)
    saved(figure, tmp_path)


def test_filters_of_zero_are_grey_and_share_a_scale():
    filters = np.zeros((3, 3, 3, 5), np.float32)
    filters[0, 0, 0, 1] = 2.0
    maps = RNG.random((4, 4, 5)).astype(np.float32)
    figure = viz.first_layer(images(4, 4, 3), filters, maps)
    drawn = [panel.images[0].get_array() for panel in figure.axes if panel.images]
    assert len(drawn) == 1 + 5 + 5
    assert np.all(drawn[1] == 0.5)
    assert drawn[2].max() == 1
    assert min(array.min() for array in drawn[6:]) == 0


@pytest.mark.parametrize(("classes", "texts"), [(3, 9), (30, 0)])
def test_a_confusion_matrix_counts_where_there_is_room(classes, texts):
    counts = np.eye(classes, dtype=int) * 3
    counts[0, 1] = 3
    figure = viz.confusion_matrix(counts, [str(i) for i in range(classes)])
    panel = figure.axes[0]
    assert len(panel.texts) == texts
    assert panel.images[0].get_array()[0, :2].tolist() == [0.5, 0.5]
    assert f"{3 * classes / (3 * classes + 3):.2%}" in figure.get_suptitle()


def test_published_precision_is_dotted_in_every_panel(tmp_path):
    ks = np.asarray([100, 200])
    curve = ks, np.asarray([0.9, 0.8])
    panels = {"12 bits": {"DRHN-1": curve}, "48 bits": {"DRHN-1": curve, "DRHN-9": curve}}
    figure = viz.precision_curves(panels, {"LSH": curve})
    strokes = [[line.get_linestyle() for line in panel.lines] for panel in figure.axes]
    assert strokes == [["-", ":"], ["-", "-", ":"]]
    assert legend_of(figure) == ["DRHN-1", "LSH, published", "DRHN-9"]
    saved(figure, tmp_path)


def test_curves_of_a_series_share_a_colour_and_columns_a_stroke(tmp_path):
    points = [(1.0, 0.9, 0.0), (2.0, 0.8, 0.1), (16.0, 0.7, 0.0)]
    names = [("12 bits", "published"), ("12 bits", "ours"), ("48 bits", "published")]
    figure = viz.score_curves(dict.fromkeys(names, points), "depth", "map", "title")
    lines = [container.lines[0] for container in figure.axes[0].containers]
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert [line.get_linestyle() for line in lines] == [":", "-", ":"]
    assert figure.axes[0].get_xscale() == "log"
    saved(figure, tmp_path)


def test_the_ends_of_a_curve_from_published_to_ours_have_markers_of_their_own():
    curve = [(2.0, 0.8, 0.1, "ours"), (1.0, 0.9, 0.0, "as published")]
    figure = viz.score_curves({("A", ""): curve}, "depth", "map", "title")
    (panel,) = figure.axes
    ends = {
        line.get_xdata()[0]: line.get_marker() for line in panel.lines if len(line.get_xdata()) == 1
    }
    legend = panel.get_legend()
    entries = {
        t.get_text(): h.get_marker()
        for t, h in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    assert entries == {"A": "", "as published": ends[1.0], "ours": ends[2.0]}
    assert ends[1.0] != ends[2.0]


def test_a_logarithmic_axis_has_whole_numbers_where_there_are_any():
    points = [(x, 0.9, 0.0) for x in (10.0, 10.5, 33.219, 64.0, 1024.0)]
    figure = viz.score_curves({("", "ours"): points}, "bits", "map", "title")
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["10", "64", "1024"]


def test_a_logarithmic_axis_of_shares_has_powers_of_ten():
    points = [(x, 0.9, 0.0) for x in (9.076e-05, 0.00030846, 0.001991, 0.2727)]
    figure = viz.score_curves({("", "ours"): points}, "share", "map", "title")
    low, high = figure.axes[0].get_xlim()
    ticks = [x for x in figure.axes[0].get_xticks() if low <= x <= high]
    np.testing.assert_allclose(ticks, [1e-4, 1e-3, 1e-2, 1e-1])


def test_an_even_axis_is_not_logarithmic():
    points = [(float(x), 0.9, 0.0) for x in range(1, 17)]
    figure = viz.score_curves({("", "published"): points}, "depth", "map", "title")
    assert figure.axes[0].get_xscale() == "linear"


def test_points_are_numbered_by_name_and_marked_by_column(tmp_path):
    points = {"A": {"as published": (0.01, 0.9), "ours": (0.02, 0.8)}, "B": {"ours": (0.1, 0.5)}}
    figure = viz.numbered_points(points, "mse", "score", "title")
    panel = figure.axes[0]
    assert [text.get_text() for text in panel.texts] == ["1", "1", "2"]
    assert [len(line.get_xdata()) for line in panel.lines] == [1, 2]
    assert len({line.get_marker() for line in panel.lines}) == 2
    assert legend_of(figure) == ["1  A", "2  B"]
    saved(figure, tmp_path)


def overlap(a, b):
    return np.all(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) > 0)


def test_numbers_of_points_in_one_place_do_not_overlap():
    points = {str(i): {"ours": (0.01, 0.9), "as published": (0.0101, 0.9)} for i in range(9)}
    points["far"] = {"ours": (0.02, 0.5)}
    figure = viz.numbered_points(points, "mse", "score")
    figure.draw_without_rendering()
    panel = figure.axes[0]
    boxes = [super(type(text), text).get_window_extent().extents for text in panel.texts]
    boxes.append(panel.get_legend().get_window_extent().extents)
    assert len(boxes) == 20
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))


def test_labels_find_free_places_in_bounds_off_obstacles():
    anchors = RNG.uniform(40, 60, (30, 2))
    sizes = RNG.uniform(3, 12, (30, 2))
    obstacles, bounds = np.asarray([[45.0, 45.0, 55.0, 55.0]]), np.asarray([0.0, 0.0, 100.0, 100.0])
    centres = free_places(anchors, sizes, obstacles, bounds)
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    assert boxes.min() >= 0
    assert boxes.max() <= 100
    assert not any(overlap(a, b) for a, b in itertools.combinations([*boxes, *obstacles], 2))


def test_a_label_without_rivals_stays_at_its_point():
    at = np.asarray([[10.0, 10.0], [90.0, 90.0]])
    size, none = np.full((2, 2), 5.0), np.zeros((0, 4))
    np.testing.assert_array_equal(
        free_places(at, size, none, np.asarray([0.0, 0.0, 100.0, 100.0])), at
    )


@pytest.mark.parametrize(
    ("text", "drawn"),
    [("a$b", r"a\$b"), ("caf\udce9", "caf?"), ("two\n lines\t", "two lines"), ("x" * 9, "xxxx…")],
)
def test_text_is_drawn_literally_on_one_line(text, drawn):
    assert plain(text, 5 if text == "x" * 9 else 0) == drawn


def pictures_of_hard_names():
    n = len(NAMES)
    pixels, label = images(n, 4, 4, 3), NAMES[0] + NAMES[2]
    yield viz.retrieval_grid(
        pixels, pixels[:, None], np.eye(n, 1, dtype=bool), np.ones((n, 1)), NAMES,
        classes=NAMES, distance=label, title=label, subtitle=label,
    )  # fmt: skip
    yield viz.reconstructions(pixels, pixels / 255, names=(label,), columns=NAMES, title=label)
    yield viz.latent_scatter(RNG.normal(size=(n, 2)), np.arange(n), NAMES, title=label)
    yield viz.code_strips(np.zeros((n, 1, 3), bool), NAMES, title=label)
    yield viz.confusion_matrix(np.eye(n, dtype=int), NAMES, title=label)
    yield viz.loss_curves([1], {f"{name}/{name}": [1.0] for name in NAMES[:3]}, title=label)
    yield viz.score_curves({(name, name): [(1.0, 0.5, 0.1)] for name in NAMES}, label, label, label)
    yield viz.numbered_points({name: {name: (1.0, 1.0)} for name in NAMES}, label, label, label)
    curve = np.asarray([1]), np.asarray([0.5])
    yield viz.precision_curves({label: dict.fromkeys(NAMES, curve)}, {label: curve})


@pytest.mark.soak
def test_broken_tex_and_names_that_are_not_utf_8_do_not_break_a_picture():
    for figure in pictures_of_hard_names():
        figure.draw_without_rendering()  # lays out, and parses, all text
        texts = "".join(text.get_text() for text in figure.findobj(Text))
        assert r"\$\frac{" in texts
        assert "caf?" in texts
