"""Samples kept from training."""

import numpy as np
import pytest

from trainer.data.validation import hold_out_samples, samples_of
from trainer.errors import InputError
from trainer.sparse import SparseDataset

LENGTHS = [4, 9, 5, 0, 12, 6, 3, 7, 10, 5]


def dataset() -> SparseDataset:
    """Sample `i` has features 100 · i, 100 · i + 1, …, each with its own number as value."""
    indices = np.concatenate([100 * n + np.arange(length) for n, length in enumerate(LENGTHS)]).astype(np.uint32)
    names = tuple(f"s{n}" for n in range(len(LENGTHS)))
    indptr = np.concatenate([[0], np.cumsum(LENGTHS)])
    return SparseDataset("d", 1024, indptr, indices, indices.astype(np.float32), names)


def features(one: SparseDataset) -> dict[str, list[int]]:
    assert one.sample_names is not None
    assert one.values is None or one.values[:].tolist() == one.indices[:].tolist()
    return {name: one.indices[one.indptr[n] : one.indptr[n + 1]].tolist() for n, name in enumerate(one.sample_names)}


def test_users_kept_for_validation_have_five_features_of_which_a_fifth_is_hidden_and_none_is_trained_on() -> None:
    whole = features(dataset())
    training, held = hold_out_samples(dataset(), share=0.3, seed=4)
    rest, known, wanted = features(training), features(held.known), features(held.wanted)
    assert len(known) == 3
    assert not known.keys() & rest.keys()
    assert {**rest, **{name: sorted(known[name] + wanted[name]) for name in known}} == whole
    for name in known:
        assert len(whole[name]) >= 5
        assert len(wanted[name]) == max(len(whole[name]) // 5, 1)
    assert list(features(hold_out_samples(dataset(), share=0.3, seed=4)[0])) == list(rest)
    assert any(list(features(hold_out_samples(dataset(), share=0.3, seed=seed)[0])) != list(rest) for seed in range(5))


def test_samples_that_share_rows_are_told_apart() -> None:
    shared = samples_of(dataset(), np.array([4, 0]))
    indexed = SparseDataset(
        "d", 1024, shared.indptr, shared.indices, sample_names=("a", "b", "c"), rows=np.array([1, 0, 1])
    )
    assert features(samples_of(indexed, np.array([2, 1]))) == {"c": [0, 1, 2, 3], "b": list(range(400, 412))}


def test_too_few_samples_to_keep_some_are_refused() -> None:
    short = samples_of(dataset(), np.array([0, 3, 6]))
    with pytest.raises(InputError, match="dataset d: 0 of 3 samples have 5 features"):
        hold_out_samples(short, share=0.5, seed=1)
    with pytest.raises(InputError, match="leave EarlyStopping out, or bring more samples"):
        hold_out_samples(samples_of(dataset(), np.array([1])), share=0.5, seed=1)
