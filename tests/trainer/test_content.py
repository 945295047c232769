"""Content-based recommendations against a dense oracle, and items that nobody has."""

import numpy as np
import pytest

from trainer.content import PROFILES, TARGETS, Content, as_matrix, best_of, layer_datasets, profiles
from trainer.network_types import LayerKind, LayerSpec
from trainer.sparse import FeatureIndex, SparseDataset


def dataset(matrix: np.ndarray, *, values: bool) -> SparseDataset:
    rows, columns = np.nonzero(matrix)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(matrix)))])
    kept = matrix[rows, columns].astype(np.float32) if values else None
    index = FeatureIndex({str(n): n for n in range(matrix.shape[1])})
    return SparseDataset("toy", matrix.shape[1], indptr, columns.astype(np.uint32), kept, None, index)


def toy(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """7 samples × 9 items, of which the last two are nobody's; 9 items × 6 attributes, rows of length 1."""
    rng = np.random.default_rng(seed)
    known = (rng.random((7, 9)) < 0.4) * 1.0
    known[:, 7:] = 0.0
    known[0] = 0.0
    attributes = rng.random((9, 6)) * (rng.random((9, 6)) < 0.5)
    attributes[:, 0] += 0.1
    return known, attributes / np.linalg.norm(attributes, axis=1, keepdims=True)


@pytest.mark.parametrize("live", [7, 9])
def test_items_are_ranked_by_their_cosine_with_the_sum_of_what_a_sample_has(live: int):
    known, attributes = toy()
    wanted = known @ attributes
    wanted /= np.maximum(np.linalg.norm(wanted, axis=1, keepdims=True), 1e-12)
    scores = wanted @ attributes.T
    scores[known > 0] = -np.inf
    scores[:, live:] = -np.inf
    scores[0] = -np.inf
    content = Content.of(dataset(attributes, values=True), live=live)
    found = list(content.scored(dataset(known, values=False), k=4))
    ids, got = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :4]
    best = np.take_along_axis(scores, order, axis=1)
    np.testing.assert_array_equal(ids, np.where(best > -np.inf, order, -1))
    np.testing.assert_allclose(got, best, rtol=1e-5)
    np.testing.assert_array_equal(np.concatenate(list(content.best(dataset(known, values=False), k=4))), ids)


def test_an_item_that_nobody_has_comes_first_where_its_attributes_fit_best():
    attributes = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
    known = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    content = Content.of(dataset(attributes, values=True), live=4)
    assert np.concatenate(list(content.best(dataset(known, values=False), k=3))).tolist() == [[3, 2, -1], [2, -1, -1]]


def test_the_best_are_those_of_a_stable_sort():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, (30, 12)).astype(np.float64)
    scores[scores == 0] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    kept = np.take_along_axis(scores, order, axis=1) > -np.inf
    np.testing.assert_array_equal(best_of(scores, 5), np.where(kept, order, -1))
    assert best_of(np.array([[1.0, 2.0]]), 3).tolist() == [[1, 0, -1]]


def test_a_profile_keeps_the_strongest_attributes_and_has_length_one():
    attributes = np.array([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8]])
    known = dataset(np.array([[1.0, 1.0], [0.0, 0.0], [2.0, 1.0]]), values=True)
    made = profiles(known, dataset(attributes, values=True), strongest=2)
    dense = as_matrix(made).toarray()
    np.testing.assert_allclose(dense[0], np.array([0.0, 1.4, 0.8]) / np.hypot(1.4, 0.8), rtol=1e-6)
    assert not dense[1].any()
    np.testing.assert_allclose(dense[2], np.array([1.2, 2.2, 0.0]) / np.hypot(1.2, 2.2), rtol=1e-6)


def test_layers_are_given_what_the_names_of_their_datasets_say():
    known, attributes = toy()
    given = dataset(known, values=False)
    layers = [LayerSpec(name, LayerKind.INPUT, dataset=name) for name in ("gl_input", PROFILES, TARGETS)]
    found = layer_datasets(layers, given, dataset(attributes, values=True))
    assert found["gl_input"] is given
    assert (found[PROFILES].width, found[TARGETS].samples) == (6, 7)
    with pytest.raises(ValueError, match="gl_attributes needs attributes"):
        layer_datasets(layers, given, None)
