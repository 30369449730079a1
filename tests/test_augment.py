"""Augmentation against plain definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret import augment

# Op by op, each of these compiles a hundred programs.
affine = jax.jit(augment.affine, static_argnames=("shift", "degrees", "zoom"))
mirror_and_crop = jax.jit(augment.mirror_and_crop, static_argnames=("pad", "mirror"))
cutout = jax.jit(augment.cutout, static_argnames="size")

X = jnp.asarray(np.random.default_rng(0).random((6, 12, 9, 2)), jnp.float32)
KEY = jax.random.key(1)


def test_an_affine_change_of_no_size_changes_nothing():
    np.testing.assert_allclose(affine(KEY, X), X, atol=1e-6)


@pytest.mark.slow
def test_a_flat_image_moves_out_of_its_frame_only_at_the_border():
    changed = np.asarray(affine(KEY, jnp.ones((50, 12, 12, 1)), shift=2))
    np.testing.assert_allclose(changed[:, 3:-3, 3:-3], 1, atol=1e-6)
    assert (changed >= 0).all()
    assert changed.min() < 0.5


def centre_of_mass(images):
    rows, columns = np.mgrid[: images.shape[1], : images.shape[2]]
    mass = images[..., 0] / images[..., 0].sum(axis=(1, 2), keepdims=True)
    return np.stack([(mass * rows).sum(axis=(1, 2)), (mass * columns).sum(axis=(1, 2))])


def test_a_dot_moves_within_the_shift_and_keeps_its_mass():
    dots = np.zeros((500, 15, 15, 1), np.float32)
    dots[:, 7, 7] = 1
    changed = np.asarray(affine(KEY, jnp.asarray(dots), shift=3))
    moved = centre_of_mass(changed) - 7
    assert (np.abs(moved) <= 3 + 1e-4).all()
    assert (np.abs(moved).max(axis=1) > 2.8).all()  # uniform: some come close to the border
    np.testing.assert_allclose(moved.mean(axis=1), 0, atol=0.25)
    np.testing.assert_allclose(changed.sum(axis=(1, 2, 3)), 1, atol=1e-4)


@pytest.mark.slow
def test_a_dot_away_from_the_centre_turns_around_it():
    dots = np.zeros((500, 31, 31, 1), np.float32)
    dots[:, 15, 25] = 1
    row, column = centre_of_mass(np.asarray(affine(KEY, jnp.asarray(dots), degrees=30))) - 15
    np.testing.assert_allclose(np.hypot(row, column), 10, atol=0.5)
    angles = np.rad2deg(np.arctan2(row, column))
    assert np.abs(angles).max() <= 33
    assert angles.min() < -25
    assert angles.max() > 25


@pytest.mark.slow
def test_zoom_brings_a_dot_nearer_or_farther_by_at_most_its_factor():
    dots = np.zeros((500, 41, 41, 1), np.float32)
    dots[:, 20, 30] = 1
    _, column = centre_of_mass(np.asarray(affine(KEY, jnp.asarray(dots), zoom=0.5))) - 20
    assert 10 / 1.5 - 0.6 < column.min() < 8
    assert 13 < column.max() < 15.6


def test_each_image_changes_in_its_own_way_and_the_key_decides_how():
    same = jnp.broadcast_to(X[:1], X.shape)
    options = {"shift": 2, "degrees": 20, "zoom": 0.2}
    changed = affine(KEY, same, **options)
    assert len({bytes(np.asarray(image).tobytes()) for image in changed}) == len(X)
    np.testing.assert_array_equal(changed, affine(KEY, same, **options))
    assert not np.array_equal(changed, affine(jax.random.key(2), same, **options))


def test_the_result_is_one_of_the_crops_of_the_image_or_its_mirror_image():
    changed = np.asarray(mirror_and_crop(KEY, X, pad=2))
    for image, result in zip(np.asarray(X), changed, strict=True):
        crops = [
            np.pad(side, ((2, 2), (2, 2), (0, 0)))[down : down + 12, right : right + 9]
            for side in (image, image[:, ::-1])
            for down in range(5)
            for right in range(5)
        ]
        assert sum(np.array_equal(result, crop) for crop in crops) == 1


@pytest.mark.slow
def test_all_moves_and_both_sides_are_as_likely():
    dots = np.zeros((4000, 5, 6, 1), np.float32)
    dots[:, 2, 1] = 1  # left of the middle, so that its side is seen
    changed = np.asarray(mirror_and_crop(KEY, jnp.asarray(dots), pad=1))
    share = changed[..., 0].mean(axis=0)
    np.testing.assert_allclose(share[1:4].sum(axis=1), 1 / 3, atol=0.03)
    np.testing.assert_allclose(share.sum(axis=0), 1 / 6, atol=0.03)  # 0, 1, 2 and 3, 4, 5
    np.testing.assert_allclose(share.sum(), 1, rtol=1e-5)


def test_a_crop_without_padding_and_a_cutout_of_size_zero_change_nothing():
    np.testing.assert_array_equal(mirror_and_crop(KEY, X, pad=0, mirror=False), X)
    np.testing.assert_array_equal(cutout(KEY, X, size=0), X)


def test_a_hole_is_a_square_wherever_its_centre_is():
    changed = np.asarray(cutout(KEY, jnp.ones((300, 9, 7, 1)), size=3))[..., 0]
    holes = 9 * 7 - changed.sum(axis=(1, 2))
    assert set(holes) == {4, 6, 9}  # in a corner, at a border, inside
    assert (changed.mean(axis=0) < 1).all()  # somewhere in every pixel
    whole = changed[holes == 9] == 0
    assert set(whole.any(axis=2).sum(axis=1)) == set(whole.any(axis=1).sum(axis=1)) == {3}
