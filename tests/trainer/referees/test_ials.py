import numpy as np
import pytest
from trainer_referees import random_matrix

from trainer.referees import ials

SETTINGS = ials.Settings(0.3, 0.02, exponent=0.8, factors=5, sweeps=3)


def looped(other: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """The minimum of each row's loss on its own."""
    answers: list[np.ndarray] = []
    for row in dense:
        own = other[row > 0].astype(float)
        decay = SETTINGS.strength * (row.sum() + SETTINGS.unobserved * len(other)) ** SETTINGS.exponent
        left = own.T @ own + SETTINGS.unobserved * (other.T @ other) + decay * np.eye(other.shape[1])
        answers.append(np.linalg.solve(left, own.sum(axis=0)))
    return np.stack(answers)


@pytest.mark.parametrize("at_once", [1 << 22, 60])
def test_rows_solved_together_are_those_solved_one_by_one(at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ials, "_FLOATS", at_once)
    matrix, dense = random_matrix(30, 20)
    matrix = matrix.multiply(np.arange(30)[:, None] > 0).tocsr()
    matrix.eliminate_zeros()
    dense[0] = 0
    other = np.random.default_rng(2).normal(size=(20, 5)).astype(np.float32)
    np.testing.assert_allclose(ials.solved(other, matrix, SETTINGS), looped(other, dense), rtol=1e-3, atol=1e-4)


def test_a_sweep_ends_with_the_features_that_fit_the_samples():
    matrix, dense = random_matrix(30, 20)
    samples, features = ials.learnt(matrix, SETTINGS, seed=3)
    np.testing.assert_allclose(features, looped(samples, dense.T), rtol=1e-3, atol=1e-4)


def test_enough_sweeps_come_to_rest_where_a_seen_sample_is_fitted_as_an_unseen_one():
    matrix, _ = random_matrix(30, 20)
    settings = SETTINGS._replace(sweeps=200)
    samples, features = ials.learnt(matrix, settings, seed=3)
    np.testing.assert_allclose(ials.solved(features, matrix, settings), samples, atol=1e-3)
