import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainer_referees import answers, dataset

from trainer.referees.interactions import interactions
from trainer.referees.ranking import Scorer, best_of
from trainer.sparse import SparseDataset

SCORES = st.lists(st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]), min_size=6, max_size=6), min_size=1)


@given(scores=SCORES, k=st.integers(1, 8))
def test_the_best_are_those_of_a_whole_sort_ties_by_lower_id(scores: list[list[float]], k: int):
    found = best_of(np.array(scores, np.float32), k).tolist()
    for row, ids in zip(scores, found, strict=True):
        wanted = [at for at in sorted(range(6), key=lambda at: (-row[at], at)) if row[at] > -np.inf][:k]
        assert ids == wanted + [-1] * (k - len(wanted))


def test_blocks_come_in_the_order_of_samples(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("trainer.referees.ranking._ROWS", 2)
    scorer = Scorer("", 4, lambda known: np.arange(4, dtype=np.float32) * np.ones(known.shape, np.float32))
    assert answers(scorer, dataset([[3], [], [2, 3], [0], [1]], 4), k=2) == [[2, 1], [3, 2], [1, 0], [3, 2], [3, 2]]


def test_what_is_stored_twice_or_with_a_value_counts_once_and_padding_not_at_all():
    stored = SparseDataset(
        "d",
        128,
        np.array([0, 3, 5]),
        np.array([2, 0, 2, 1, 127], np.uint32),
        values=np.array([5, 0, 1, 3, 1], np.float32),
        rows=np.array([1, 0, 1]),
    )
    dense = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert interactions(stored, live=3).toarray().tolist() == dense
    assert interactions(stored, live=3, rows=range(1, 3)).toarray().tolist() == dense[1:]
