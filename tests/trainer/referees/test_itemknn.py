import numpy as np
import pytest
from trainer_referees import random_matrix

from trainer.referees import itemknn


def looped(dense: np.ndarray, count: int, shrink: float) -> np.ndarray:
    live = dense.shape[1]
    norms = np.sqrt(dense.sum(axis=0))
    weights = np.zeros((live, live))
    for feature in range(live):
        alike = {
            other: dense[:, other] @ dense[:, feature] / (norms[other] * norms[feature] + shrink)
            for other in range(live)
            if other != feature and dense[:, other] @ dense[:, feature] > 0
        }
        for other in sorted(alike, key=lambda other: (-round(alike[other], 6), other))[:count]:
            weights[other, feature] = alike[other]
    return weights


@pytest.mark.parametrize(("count", "shrink"), [(3, 0.0), (3, 10.0), (100, 10.0)])
def test_similarities_are_those_of_a_loop_over_all_pairs(count: int, shrink: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("trainer.referees.ranking._ROWS", 7)
    matrix, dense = random_matrix(40, 25)
    found = itemknn.similarities(matrix, count=count, shrink=shrink)
    np.testing.assert_allclose(found.toarray(), looped(dense, count, shrink), atol=1e-6)


def test_a_feature_that_nobody_has_is_near_to_none():
    matrix, _ = random_matrix(40, 25)
    matrix = matrix[:, [*range(24), 24]].tolil()
    matrix[:, 24] = 0
    found = itemknn.similarities(matrix.tocsr(), count=30, shrink=0.0).toarray()
    assert not found[:, 24].any()
    assert not found[24].any()
