"""Parts of a dataset: what is trained on and what is held out to measure with; some of its features or its rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.sparse import SparseDataset

_LEAST_FEATURES = 5
"""A sample of at least so many features has one held out, however small the fraction."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a recommender is measured with: each sample is asked with what is `known` of it, and what is `wanted` should
    be found. Both have the same rows, width and names; no row has a feature in both.
    """

    known: SparseDataset
    wanted: SparseDataset


def hold_out(
    dataset: SparseDataset, *, fraction: float, seed: int | Sequence[int]
) -> tuple[SparseDataset, SparseDataset]:
    """The training and the held-out part: same rows, width and names. Of each sample `fraction` of its features,
    rounded down, are hidden, chosen by `seed`.
    """
    lengths = np.diff(dataset.indptr)
    hidden = np.floor(fraction * lengths).astype(np.int64)
    hidden = np.where((lengths >= _LEAST_FEATURES) & (fraction > 0), np.maximum(hidden, 1), hidden)
    # A random order inside each row; the first ones of it are hidden.
    rank = ranks(dataset, np.random.default_rng(seed).random(dataset.nnz))
    is_hidden = rank < hidden[rows_of(dataset)]
    return only(dataset, ~is_hidden), only(dataset, is_hidden)


def rows_of(dataset: SparseDataset) -> npt.NDArray[np.int64]:
    """[nnz] the row of each stored feature."""
    return np.repeat(np.arange(dataset.samples), np.diff(dataset.indptr))


def ranks(dataset: SparseDataset, *keys: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """[nnz] the place, from 0, that each stored feature has in its row by ascending keys [nnz], the last key first."""
    order = np.lexsort((*keys, rows_of(dataset)))
    rank = np.empty(dataset.nnz, np.int64)
    rank[order] = np.arange(dataset.nnz) - np.repeat(dataset.indptr[:-1], np.diff(dataset.indptr))
    return rank


def only(dataset: SparseDataset, kept: npt.NDArray[np.bool_]) -> SparseDataset:
    """The same rows with the stored features that are `kept` [nnz]."""
    indptr = np.zeros(dataset.samples + 1, np.int64)
    np.cumsum(np.bincount(rows_of(dataset)[kept], minlength=dataset.samples), out=indptr[1:])
    values = None if dataset.values is None else dataset.values[kept]
    return replace(dataset, indptr=indptr, indices=dataset.indices[kept], values=values)


def some_rows(dataset: SparseDataset, chosen: npt.NDArray[np.bool_]) -> SparseDataset:
    """The `chosen` [samples] rows, in their order."""
    found = only(dataset, chosen[rows_of(dataset)])
    names = dataset.sample_names
    return replace(
        found,
        indptr=np.concatenate([found.indptr[:1], found.indptr[1:][chosen]]),
        sample_names=None if names is None else [names[row] for row in np.flatnonzero(chosen).tolist()],
    )


def answerable(known: SparseDataset, wanted: SparseDataset) -> HeldOut:
    """The rows of which something is known and something wanted."""
    chosen = (np.diff(known.indptr) > 0) & (np.diff(wanted.indptr) > 0)
    return HeldOut(some_rows(known, chosen), some_rows(wanted, chosen))


def union(first: SparseDataset, second: SparseDataset) -> SparseDataset:
    """The features of both, row by row; both have the same rows and width, values are dropped."""
    order = np.argsort(np.concatenate([rows_of(first), rows_of(second)]), kind="stable")
    return replace(
        first,
        indptr=first.indptr + second.indptr,
        indices=np.concatenate([first.indices, second.indices])[order],
        values=None,
    )
