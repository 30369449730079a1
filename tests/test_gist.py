"""GIST: the symmetries of its definition."""

import numpy as np
import pytest

from jaxret import features
from jaxret.features import extract


def images(n=12, size=32, seed=0):
    """Images with smooth structure and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (n, 4, 4, 3)).repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    return np.clip(coarse + rng.integers(-25, 25, coarse.shape), 0, 255).astype(np.uint8)


def gist(x):
    """GIST by scale, orientation, row and column of blocks."""
    return extract(features.gist(), x).reshape(len(x), 4, 8, 4, 4)


def difference(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_gist_is_512_energies_and_nothing_where_nothing_changes():
    x = images()
    found = extract(features.gist(), x)
    assert found.shape == (12, 512)
    assert np.all(found >= 0)
    assert np.all(found.max(axis=0) > 0)
    constant = np.full((1, 32, 32, 3), 77, np.uint8)
    assert extract(features.gist(), constant).max() < 1e-6


def test_an_image_turned_by_180_degrees_has_its_blocks_turned():
    x = images()
    assert difference(gist(x[:, ::-1, ::-1]), gist(x)[..., ::-1, ::-1]) < 1e-5


def test_a_mirrored_image_has_mirrored_blocks_and_orientations():
    x = images()
    mirrored = gist(x[:, :, ::-1])[..., ::-1]
    assert difference(mirrored, gist(x)[:, :, -np.arange(8) % 8]) < 5e-3
    assert difference(mirrored, gist(x)) > 0.05  # not without the other order of orientations


def test_half_the_contrast_changes_gist_little():
    x = images()
    assert difference(gist(x // 2), gist(x)) < 0.05


def test_a_wave_has_its_energy_in_its_scale_and_across_its_crests():
    place = np.arange(32)[None, :]
    for scale, frequency in enumerate((0.3, 0.3 / 1.85)):
        wave = np.round(128 + 60 * np.sin(2 * np.pi * frequency * place)).repeat(32, axis=0)
        energy = gist(wave.astype(np.uint8)[None, :, :, None])[0].mean(axis=(2, 3))
        assert np.unravel_index(energy.argmax(), energy.shape) == (scale, 0)
        upright = gist(wave.T.astype(np.uint8)[None, :, :, None])[0].mean(axis=(2, 3))
        assert np.unravel_index(upright.argmax(), upright.shape) == (scale, 4)


def test_images_too_small_for_blocks_are_refused():
    with pytest.raises(ValueError, match="at least 4 pixels a side, got 3"):
        extract(features.gist(), np.zeros((1, 3, 3, 1), np.uint8))
