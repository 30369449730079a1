"""Pictures: what is drawn is what was given."""

import numpy as np
import pytest

from jaxret import viz

RNG = np.random.default_rng(0)


def images(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def saved(figure, tmp_path):
    path = tmp_path / "figure.png"
    figure.savefig(path)
    return path.read_bytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_retrieval_grid_frames_right_and_wrong(tmp_path, channels):
    right = np.asarray([[True, False, True]])
    figure = viz.retrieval_grid(
        images(1, 4, 4, channels), images(1, 3, 4, 4, channels), right, np.asarray([[0, 3, 5]])
    )
    frames = [panel.spines["left"].get_edgecolor() for panel in figure.axes[1:]]
    assert frames[0] == frames[2] != frames[1]
    assert [panel.get_xlabel() for panel in figure.axes[1:]] == ["0", "3", "5"]
    assert "67%" in figure.get_suptitle()
    assert saved(figure, tmp_path).startswith(b"\x89PNG")


def test_loss_curves_have_a_panel_for_each_term(tmp_path):
    figure = viz.loss_curves([1, 2, 3], {"nll": [3.0, 2.0, 1.5], "kl": [0.0, 1.0, 2.0]})
    assert [panel.get_title() for panel in figure.axes] == ["nll, last 1.5", "kl, last 2"]
    saved(figure, tmp_path)


def test_bit_balance_shows_the_share_of_ones(tmp_path):
    figure = viz.bit_balance(np.asarray([[1.0, -1.0], [1.0, 1.0]], np.float32))
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1.0, 0.5]
    saved(figure, tmp_path)


def test_a_latent_scatter_names_its_classes(tmp_path):
    z = RNG.normal(size=(30, 2)).astype(np.float32)
    figure = viz.latent_scatter(z, np.repeat([0, 1, 2], 10), ("cat", "dog", "ship"))
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["cat", "dog", "ship"]
    saved(figure, tmp_path)


def test_images_of_one_code_are_drawn_apart_and_near_it(tmp_path):
    z = RNG.choice([-1.0, 1.0], (1000, 2)).astype(np.float32)
    figure = viz.latent_scatter(z, np.arange(1000) % 2, ("cat", "dog"))
    drawn = figure.axes[0].collections[0].get_offsets()
    assert len(np.unique(drawn, axis=0)) == 1000
    np.testing.assert_array_equal(np.sign(drawn), z)
    assert 0.35 < np.abs(drawn - z).max() <= 0.4
    saved(figure, tmp_path)


def test_reconstructions_stand_below_their_originals(tmp_path):
    originals = images(5, 4, 4, 1)
    figure = viz.reconstructions(originals, originals / np.float32(255))
    drawn = [panel.images[0].get_array() for panel in figure.axes]
    np.testing.assert_allclose(drawn[0], drawn[5])
    saved(figure, tmp_path)


def test_parts_of_a_term_share_a_panel(tmp_path):
    figure = viz.loss_curves([1, 2], {"loss/train": [3.0, 2.0], "loss/test": [3.5, 2.5]})
    (panel,) = figure.axes
    assert panel.get_title() == "loss, last train 2, test 2.5"
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["train", "test"]
    saved(figure, tmp_path)


def test_rows_of_a_retrieval_grid_may_have_names():
    figure = viz.retrieval_grid(
        images(2, 4, 4, 3), images(2, 1, 4, 4, 3), np.ones((2, 1), bool), np.zeros((2, 1), int),
        ["12 bits", "48 bits"],
    )  # fmt: skip
    assert [panel.get_ylabel() for panel in figure.axes] == ["12 bits", "", "48 bits", ""]


def test_code_strips_show_each_class_and_bit(tmp_path):
    codes = RNG.random((3, 5, 12)) < 0.5
    figure = viz.code_strips(codes, ("cat", "dog", "ship"))
    assert [panel.get_ylabel() for panel in figure.axes] == ["cat", "dog", "ship"]
    for panel, shown in zip(figure.axes, codes, strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), shown)
    saved(figure, tmp_path)


def test_filters_of_zero_are_grey_and_share_a_scale(tmp_path):
    filters = np.zeros((3, 3, 3, 5), np.float32)
    filters[0, 0, 0, 1] = 2.0
    maps = RNG.random((4, 4, 5)).astype(np.float32)
    figure = viz.first_layer(images(4, 4, 3), filters, maps)
    drawn = [panel.images[0].get_array() for panel in figure.axes if panel.images]
    assert len(drawn) == 1 + 5 + 5
    assert np.all(drawn[1] == 0.5)
    assert drawn[2].max() == 1
    assert min(array.min() for array in drawn[6:]) == 0
    saved(figure, tmp_path)


@pytest.mark.parametrize(("classes", "texts"), [(3, 9), (30, 0)])
def test_a_confusion_matrix_counts_where_there_is_room(tmp_path, classes, texts):
    counts = np.eye(classes, dtype=int) * 3
    counts[0, 1] = 3
    figure = viz.confusion_matrix(counts, [str(i) for i in range(classes)])
    panel = figure.axes[0]
    assert len(panel.texts) == texts
    assert panel.images[0].get_array()[0, :2].tolist() == [0.5, 0.5]
    assert panel.get_title().startswith(f"{3 * classes / (3 * classes + 3):.2%}")
    saved(figure, tmp_path)


def test_published_precision_is_dotted_in_every_panel(tmp_path):
    ks = np.asarray([100, 200])
    curve = ks, np.asarray([0.9, 0.8])
    panels = {"12 bits": {"DRHN-1": curve}, "48 bits": {"DRHN-1": curve, "DRHN-9": curve}}
    figure = viz.precision_curves(panels, {"LSH": curve})
    strokes = [[line.get_linestyle() for line in panel.lines] for panel in figure.axes]
    assert strokes == [["-", ":"], ["-", "-", ":"]]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["DRHN-1", "LSH, published", "DRHN-9"]
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


def test_a_logarithmic_axis_has_whole_numbers_where_there_are_any():
    points = [(x, 0.9, 0.0) for x in (10.0, 10.5, 33.219, 64.0, 1024.0)]
    figure = viz.score_curves({("", "ours"): points}, "bits", "map", "title")
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["10", "64", "1024"]


def test_an_even_axis_is_not_logarithmic():
    points = [(float(x), 0.9, 0.0) for x in range(1, 17)]
    figure = viz.score_curves({("", "published"): points}, "depth", "map", "title")
    assert figure.axes[0].get_xscale() == "linear"


def test_points_are_numbered_by_name_and_coloured_by_column(tmp_path):
    points = {"A": {"as published": (0.01, 0.9), "ours": (0.02, 0.8)}, "B": {"ours": (0.1, 0.5)}}
    figure = viz.numbered_points(points, "mse", "score", "title")
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "1", "2"]
    assert [len(dots.get_offsets()) for dots in figure.axes[0].collections] == [1, 2]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1  A", "2  B"]
    saved(figure, tmp_path)


def test_reconstructions_of_several_models_have_a_row_each(tmp_path):
    originals = images(5, 4, 4, 1)
    back = originals / np.float32(255)
    figure = viz.reconstructions(originals, back, back, names=("A", "B"))
    assert [panel.get_ylabel() for panel in figure.axes[::5]] == ["original", "A", "B"]
    saved(figure, tmp_path)
