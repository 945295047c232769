from pathlib import Path

import numpy as np
import pytest
from trainer_referees import random_matrix

from trainer import referees
from trainer.data.movielens import read_ratings
from trainer.data.split import HeldOut, hold_out
from trainer.data.synthesize import synthesize
from trainer.referees import bpr, choosing


def test_made_up_tastes_are_learnt_better_than_popularity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bpr, "_DEFAULT", bpr.Settings(0.01, epochs=20))
    synthesize(tmp_path, users=300, items=400, seed=1, ratings_per_user=30)
    dataset = read_ratings(tmp_path / "ratings.csv").dataset
    assert dataset.features is not None
    held_out = HeldOut(*hold_out(dataset, fraction=0.2, seed=1))

    def reached(name: str) -> float:
        learnt = referees.fit(name, held_out.known, live=len(dataset.features), validation=None, seed=1)
        return choosing.ndcg(learnt, held_out)

    assert reached("bpr") > 1.2 * reached("popularity")


def test_factors_of_a_sample_do_not_depend_on_those_beside_it():
    matrix, _ = random_matrix(12, 20)
    settings = bpr.Settings(0.01, factors=8, epochs=5)
    features = bpr.learnt(matrix, settings, seed=1)
    together = bpr.unseen(features, matrix, settings, seed=1)
    alone = [bpr.unseen(features, matrix[[row]], settings, seed=1) for row in range(12)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)


def test_a_sample_with_nothing_known_is_asked_by_biases_alone():
    matrix, _ = random_matrix(12, 20)
    settings = bpr.Settings(0.01, factors=8, epochs=5)
    nothing, _ = random_matrix(1, 20, density=0.0)
    own = bpr.unseen(bpr.learnt(matrix, settings, seed=1), nothing, settings, seed=1)
    assert own.tolist() == [[0] * 8 + [1]]


def test_a_step_goes_up_by_the_sum_of_what_pairs_of_a_row_want():
    learning = bpr.learning(np.zeros((4, 2), np.float32))
    rows = np.array([2, 0, 2])
    gradients = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    learning.step(rows, gradients, 0.5)
    # Adagrad's first step goes as far as the rate, whatever the gradient; the second by its share of all so far.
    np.testing.assert_allclose(learning.values, [[0.5, 0.5], [0, 0], [0.5, 0.5], [0, 0]], rtol=1e-5)
    learning.step(np.array([2]), np.array([[8, 0]], np.float32), 0.5)
    np.testing.assert_allclose(learning.values[2], [0.5 + 0.5 * 8 / 10, 0.5], rtol=1e-5)
