import numpy as np
import pytest
from trainer_referees import random_matrix

from trainer.errors import TrainerError
from trainer.referees import ease
from trainer.referees.choosing import Choosing


def regressed(dense: np.ndarray, strength: float) -> np.ndarray:
    """Weights [live, live]: each column the ridge regression of one feature on all others."""
    live = dense.shape[1]
    weights = np.zeros((live, live))
    for feature in range(live):
        others = np.delete(np.arange(live), feature)
        x = dense[:, others]
        weights[others, feature] = np.linalg.solve(x.T @ x + strength * np.eye(live - 1), x.T @ dense[:, feature])
    return weights


def worst(scores: np.ndarray, expected: np.ndarray, known: np.ndarray) -> float:
    """The largest difference over features that are not known."""
    return float(np.abs(scores - expected)[known == 0].max())


@pytest.mark.parametrize("samples", [12, 60])
@pytest.mark.parametrize("strength", [1.0, 50.0])
def test_primal_and_dual_are_the_regression_of_each_feature_on_all_others(samples: int, strength: float):
    matrix, dense = random_matrix(samples, 30)
    asked, known = random_matrix(7, 30, seed=1)
    expected = known @ regressed(dense, strength)
    primal = ease.primal_scores(matrix, ease.gram_of(matrix.T.tocsr()), strength)(asked)
    dual = ease.dual_scores(matrix, ease.gram_of(matrix), strength)(asked)
    assert worst(primal, expected, known) < 1e-4
    assert worst(dual, expected, known) < 1e-4


@pytest.mark.parametrize("samples", [12, 60])
def test_blocks_of_rows_change_nothing(samples: int, monkeypatch: pytest.MonkeyPatch):
    matrix, dense = random_matrix(samples, 30)
    monkeypatch.setattr("trainer.referees.ranking._ROWS", 7)
    asked, known = random_matrix(5, 30, seed=1)
    scores = ease.fit(matrix, Choosing(None), 0).scores(asked)
    assert worst(scores, known @ regressed(dense, 200.0), known) < 1e-4


def test_a_strength_that_float32_would_lose_is_raised(monkeypatch: pytest.MonkeyPatch):
    matrix, dense = random_matrix(60, 30)
    monkeypatch.setattr(ease, "_ROUNDING", 1.0)
    assert ease.fit(matrix, Choosing(None), 0).described == f"λ {(dense.T @ dense).sum(axis=1).max():g}"


def test_a_gram_matrix_that_cannot_be_inverted_is_one_clear_error():
    with pytest.raises(TrainerError, match="with λ 1 the Gram matrix"):
        ease.primal_scores(None, np.full((2, 2), -5, np.float32), 1.0)
