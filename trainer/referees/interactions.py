"""Datasets as SciPy's matrices of who liked what."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from trainer.sparse import SparseDataset


def interactions(dataset: SparseDataset, *, live: int, rows: range | None = None) -> Any:
    """CSR matrix [rows, live], float32, of ones where a feature is stored, once or more; ids ascend inside a row."""
    chosen = range(dataset.samples) if rows is None else rows
    numbers = np.arange(chosen.start, chosen.stop)
    if dataset.rows is not None:
        numbers = dataset.rows[numbers]
    lengths = dataset.indptr[numbers + 1] - dataset.indptr[numbers]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    ids = _ids(dataset, numbers, lengths, indptr)
    kept = ids < live
    if not kept.all():
        indptr = np.concatenate([[0], np.cumsum(kept)])[indptr]
        ids = ids[kept]
    matrix = csr_array((np.ones(len(ids), np.float32), ids, indptr), shape=(len(numbers), live))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _ids(
    dataset: SparseDataset, numbers: npt.NDArray[Any], lengths: npt.NDArray[Any], indptr: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """What rows store, one after the other; in one slice where they lie so."""
    if dataset.rows is None:
        first = int(dataset.indptr[numbers[0]]) if len(numbers) else 0
        return dataset.indices[first : first + int(indptr[-1])].astype(np.int64)
    places = np.arange(indptr[-1]) + np.repeat(dataset.indptr[numbers] - indptr[:-1], lengths)
    return dataset.indices[places].astype(np.int64)
