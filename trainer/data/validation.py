"""Samples, or features of them, kept from training to tell when it has learnt enough."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from trainer.data.netcdf import Dataset
from trainer.data.split import HeldOut, answerable, hold_out
from trainer.errors import InputError
from trainer.sparse import SparseDataset
from trainer.stored import Stored

_LEAST_FEATURES = 5
"""Of a sample that can be validated with: one of them at least is hidden."""
_HIDDEN = 0.2
"""Share of such a sample's features that should be found."""


def hold_out_samples(dataset: SparseDataset, *, share: float, seed: int) -> tuple[SparseDataset, HeldOut]:
    """The samples to train on, and `share` of all, at least one, chosen by `seed` among those of five features and
    more: four fifths of each one's features are known, the others wanted. `InputError` where there are none to choose
    from, or none would be left.
    """
    if not isinstance(dataset.indices, np.ndarray) or isinstance(dataset.values, Stored):
        raise InputError(f"dataset {dataset.name}: it stays in its file, and validation samples are taken from memory")
    lengths = np.diff(dataset.indptr)
    eligible = np.flatnonzero((lengths if dataset.rows is None else lengths[dataset.rows]) >= _LEAST_FEATURES)
    count = min(max(round(share * dataset.samples), 1), len(eligible))
    if count in (0, dataset.samples):
        raise InputError(
            f"dataset {dataset.name}: {len(eligible)} of {dataset.samples} samples have {_LEAST_FEATURES} features, "
            f"of which {share:g} cannot be kept for validation; leave EarlyStopping out, or bring more samples"
        )
    is_held = np.zeros(dataset.samples, bool)
    is_held[np.random.default_rng(seed).choice(eligible, count, replace=False)] = True
    known, wanted = hold_out(samples_of(dataset, np.flatnonzero(is_held)), fraction=_HIDDEN, seed=seed)
    return samples_of(dataset, np.flatnonzero(~is_held)), HeldOut(known, wanted)


def can_hold_out(dataset: Dataset) -> bool:
    """Whether any sample has as many features as it takes to keep one from training."""
    return not isinstance(dataset, SparseDataset) or bool((np.diff(dataset.indptr) >= _LEAST_FEATURES).any())


def hold_out_features(dataset: SparseDataset, *, share: float, seed: int) -> tuple[SparseDataset, HeldOut]:
    """What to train on, and the same samples with `share` of their features, rounded down, kept from it: at least one
    of a sample that has five. `InputError` where there is no such sample.
    """
    whole = samples_of(dataset, np.arange(dataset.samples)) if dataset.rows is not None else dataset
    if not isinstance(whole.indices, np.ndarray) or isinstance(whole.values, Stored):
        raise InputError(f"dataset {dataset.name}: it stays in its file, and validation features are taken from memory")
    rest, wanted = hold_out(whole, fraction=share, seed=seed)
    if not wanted.nnz:
        raise InputError(
            f"dataset {dataset.name}: no sample has {_LEAST_FEATURES} features, of which one could be kept for "
            "validation; leave EarlyStopping out, or bring more of each sample"
        )
    return rest, HeldOut(rest, wanted)


def at_most(validation: HeldOut, most: int) -> HeldOut:
    """At most so many of the samples of which something is known and something wanted, evenly spread over them."""
    asked = answerable(validation.known, validation.wanted)
    samples = asked.known.samples
    if samples <= most:
        return asked
    chosen = np.linspace(0, samples - 1, most).astype(np.int64)
    return HeldOut(samples_of(asked.known, chosen), samples_of(asked.wanted, chosen))


def samples_of(dataset: SparseDataset, chosen: npt.NDArray[np.int64]) -> SparseDataset:
    """The dataset of the samples whose numbers are [chosen], in memory, in their order."""
    source = chosen if dataset.rows is None else dataset.rows[chosen]
    lengths = np.diff(dataset.indptr)[source]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    entries = np.repeat(dataset.indptr[source] - indptr[:-1], lengths) + np.arange(indptr[-1])
    names = dataset.sample_names
    return replace(
        dataset,
        indptr=indptr,
        indices=dataset.indices[entries],
        values=None if dataset.values is None else dataset.values[entries],
        sample_names=None if names is None else tuple(names[number] for number in chosen),
        weights=None if dataset.weights is None else dataset.weights[chosen],
        rows=None,
    )
