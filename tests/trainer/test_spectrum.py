"""Closed forms held against dense linear algebra."""

import numpy as np
import pytest
from scipy import sparse

from trainer.spectrum import spectrum

RNG = np.random.default_rng(7)


def liked(samples: int, features: int, *, share: float = 0.3) -> np.ndarray:
    return (RNG.random((samples, features)) < share).astype(np.float32)


@pytest.mark.parametrize(("samples", "features"), [(30, 12), (12, 30)])
@pytest.mark.parametrize(("item_power", "user_power"), [(0.0, 0.0), (0.25, 0.5)])
def test_all_directions_together_are_the_ridge_regression_of_the_matrix_on_itself(
    samples: int, features: int, item_power: float, user_power: float
) -> None:
    dense = liked(samples, features).astype(np.float64)
    rows, columns = (np.maximum(dense.sum(axis=axis), 1.0) for axis in (1, 0))
    scaled = rows[:, None] ** -user_power * dense * columns**-item_power
    gram = scaled.T @ scaled
    strength = 0.1 * np.linalg.eigvalsh(gram)[-1]
    solved = np.linalg.solve(gram + strength * np.eye(features), gram)
    wanted = columns[:, None] ** -item_power * solved * columns**item_power
    found = spectrum(sparse.csr_array(dense), rank=features, item_power=item_power, user_power=user_power)
    down, up = found.weights(0.1)
    np.testing.assert_allclose(down @ up, wanted, atol=2e-5)


def test_of_a_larger_matrix_the_strongest_directions_are_found() -> None:
    # Two hundred samples of four tastes: the fifth direction is noise.
    tastes = liked(4, 150)[RNG.integers(0, 4, 200)]
    dense = np.where(RNG.random(tastes.shape) < 0.02, 1 - tastes, tastes)
    found = spectrum(sparse.csr_array(dense), rank=4, item_power=0.0, user_power=0.0)
    _, values, right = np.linalg.svd(dense.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(found.energy, (values[:4] / values[0]) ** 2, rtol=1e-3)
    np.testing.assert_allclose(found.down @ found.up, right[:4].T @ right[:4], atol=5e-3)


def test_directions_beyond_the_rank_of_the_matrix_weigh_nothing() -> None:
    found = spectrum(sparse.csr_array(np.ones((3, 5), np.float32)), rank=4, item_power=0.0, user_power=0.0)
    down, up = found.weights(0.0)
    np.testing.assert_allclose(down @ up, np.full((5, 5), 0.2), atol=1e-5)
    assert not down[:, 1:].any()
    assert not up[1:].any()
