import numpy as np

from trainer.evaluate import popular
from trainer.sparse import SparseDataset


def dataset(rows: list[list[int]], width: int) -> SparseDataset:
    indptr = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return SparseDataset("d", width, indptr, np.array([feature for row in rows for feature in row], np.uint32))


def test_popularity_lists_what_most_samples_have_and_this_one_has_not():
    known = dataset([[0, 1], [1, 2], [1, 3], [3]], width=128)
    (ids,) = popular(known, k=2, live=5)
    # Feature 1 is had by three samples, 3 by two, 0 and 2 by one, 4 by none; ties by lower id.
    assert ids.tolist() == [[3, 2], [3, 0], [0, 2], [1, 0]]


def test_popularity_lists_each_unseen_feature_once_and_pads_when_they_run_out():
    known = dataset([[0, 1, 2]], width=128)
    (ids,) = popular(known, k=4, live=5)
    assert ids.tolist() == [[3, 4, -1, -1]]


def test_padding_features_are_never_popular():
    known = dataset([[], []], width=128)
    (ids,) = popular(known, k=10, live=3)
    assert set(ids.ravel().tolist()) == {0, 1, 2, -1}
