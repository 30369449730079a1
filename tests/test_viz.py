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


def test_reconstructions_stand_below_their_originals(tmp_path):
    originals = images(5, 4, 4, 1)
    figure = viz.reconstructions(originals, originals / np.float32(255))
    drawn = [panel.images[0].get_array() for panel in figure.axes]
    np.testing.assert_allclose(drawn[0], drawn[5])
    saved(figure, tmp_path)
