"""Splits a dataset into what is trained on and what is held out to measure with."""

from dataclasses import dataclass, replace

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


def hold_out(dataset: SparseDataset, *, fraction: float, seed: int) -> tuple[SparseDataset, SparseDataset]:
    """The training and the held-out part: same rows, width and names. Of each sample `fraction` of its features,
    rounded down, are hidden, chosen by `seed`.
    """
    lengths = np.diff(dataset.indptr)
    hidden = np.floor(fraction * lengths).astype(np.int64)
    hidden = np.where((lengths >= _LEAST_FEATURES) & (fraction > 0), np.maximum(hidden, 1), hidden)
    rows = np.repeat(np.arange(dataset.samples), lengths)
    # A random order inside each row; the first ones of it are hidden.
    order = np.lexsort((np.random.default_rng(seed).random(dataset.nnz), rows))
    rank = np.empty(dataset.nnz, np.int64)
    rank[order] = np.arange(dataset.nnz) - np.repeat(dataset.indptr[:-1], lengths)
    is_hidden = rank < hidden[rows]
    return _only(dataset, ~is_hidden, rows), _only(dataset, is_hidden, rows)


def _only(dataset: SparseDataset, kept: npt.NDArray[np.bool_], rows: npt.NDArray[np.int64]) -> SparseDataset:
    indptr = np.zeros(dataset.samples + 1, np.int64)
    np.cumsum(np.bincount(rows[kept], minlength=dataset.samples), out=indptr[1:])
    values = None if dataset.values is None else dataset.values[kept]
    return replace(dataset, indptr=indptr, indices=dataset.indices[kept], values=values)
