import numpy as np

from trainer.baselines import Popularity
from trainer.sparse import SparseDataset


def dataset(rows: list[list[int]], width: int) -> SparseDataset:
    indptr = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return SparseDataset("d", width, indptr, np.array([feature for row in rows for feature in row], np.uint32))


def popular(known: SparseDataset, *, k: int, live: int) -> list[list[int]]:
    (ids,) = Popularity.of(known, live=live).best(known, k=k)
    return ids.tolist()


def test_popularity_lists_what_most_samples_have_and_this_one_has_not():
    known = dataset([[0, 1], [1, 2], [1, 3], [3]], width=128)
    # Feature 1 is had by three samples, 3 by two, 0 and 2 by one, 4 by none; ties by lower id.
    assert popular(known, k=2, live=5) == [[3, 2], [3, 0], [0, 2], [1, 0]]


def test_popularity_is_that_of_training_whoever_asks():
    learnt = Popularity.of(dataset([[0, 1], [1, 2], [1]], width=128), live=4)
    (ids,) = learnt.best(dataset([[3], [1, 3]], width=128), k=2)
    assert ids.tolist() == [[1, 0], [0, 2]]


def test_popularity_lists_each_unseen_feature_once_and_pads_when_they_run_out():
    assert popular(dataset([[0, 1, 2]], width=128), k=4, live=5) == [[3, 4, -1, -1]]


def test_padding_features_are_never_popular():
    found = popular(dataset([[], []], width=128), k=10, live=3)
    assert {item for row in found for item in row} == {0, 1, 2, -1}
