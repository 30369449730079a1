"""Each mistake that a table measures is known, and is one."""

import jax
import jax.numpy as jnp
import mistakes
import numpy as np
import pytest
import reproduce
import scipy.linalg

from jaxret.hashers.shallow import itq_rotation

ROWS = reproduce.tables()["hashing:mistakes"].rows


def test_rows_stand_behind_the_right_one_and_make_each_mistake():
    made, right = set(), {}
    for row in ROWS:
        mistake = row.ours.get("mistake")
        if mistake is None:
            right = row.ours
            assert row.name.endswith(", right")
        else:
            assert {**right, "mistake": mistake} == row.ours
            assert row.name.endswith(f", wrong: {mistake}")
        made.add(mistake)
    assert made == {None, *mistakes.MISTAKES}


def test_a_mistake_of_another_method_is_refused():
    config = mistakes.MistakesConfig(workdir="w", method="lsh", mistake="rotation")
    with pytest.raises(ValueError, match="--mistake=rotation is one of itq, got 'lsh'"):
        config.check()
    config = mistakes.MistakesConfig(workdir="w", method="csq", bits=12, mistake="first-rows")
    with pytest.raises(ValueError, match="--bits must be a power of 2 for first-rows, got 12"):
        config.check()


def test_the_wrong_rotation_is_orthogonal_and_farther_from_the_signs():
    v = jnp.asarray(np.random.default_rng(0).laplace(size=(400, 8)), jnp.float32)
    key = jax.random.key(0)
    wrong, loss = mistakes.transposed_rotation(key, v)
    np.testing.assert_allclose(wrong.T @ wrong, np.eye(8), atol=1e-5)
    right, losses = itq_rotation(key, v, 50)
    assert mistakes.quantisation(v @ right) == pytest.approx(float(losses[-1]), rel=1e-4)
    assert loss > 1.02 * float(losses[-1])


def test_the_first_rows_of_a_hadamard_matrix_hold_16_distinct_bits_of_64():
    config = mistakes.MistakesConfig(workdir="w", method="csq", bits=64)
    codes = mistakes.first_rows(config, 10)
    columns, counts = np.unique(codes, axis=1, return_counts=True)
    assert columns.shape == (10, 16)
    assert set(counts) == {4}
    assert np.sum(np.all(codes == codes[:1], axis=0)) == 4
    np.testing.assert_array_equal(codes, scipy.linalg.hadamard(64)[:10])
