"""Recommends by what items are, not by who has them: a sample's profile is the sum of its items' attributes, and items
are ranked by their cosine with it, those that nobody has among them. Also what layers over attributes are given.
NumPy and SciPy only.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from trainer.network_types import LayerSpec
from trainer.sparse import SparseDataset

PROFILES, TARGETS = "gl_attributes", "gl_attribute_targets"
"""Datasets that are made of attributes where a layer names them: for Input and for Output layers."""
_STRONGEST = 100
"""Attributes of a sample that an Input layer is given."""
_AT_ONCE = 1 << 22
"""Scores computed at a time."""
_ROWS = 1024

Answers = Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]
"""Ids [rows, k], -1 where there is none, and scores [rows, k], row by row."""


def wants_attributes(layers: Iterable[LayerSpec]) -> bool:
    """Whether one of `layers` names a dataset that is made of attributes."""
    return any(layer.dataset in (PROFILES, TARGETS) for layer in layers)


def layer_datasets(
    layers: Iterable[LayerSpec], known: SparseDataset, attributes: SparseDataset | None
) -> dict[str, SparseDataset]:
    """By name, the datasets that Input and Output layers name: `gl_attributes` and `gl_attribute_targets` are profiles
    of `known` by `attributes` (items × attributes), any other name stands for `known` itself.
    """
    found: dict[str, SparseDataset] = {}
    for name in dict.fromkeys(layer.dataset for layer in layers if layer.dataset):
        if name not in (PROFILES, TARGETS):
            found[name] = known
        elif attributes is None:
            raise ValueError(f"dataset {name} needs attributes")
        else:
            found[name] = profiles(known, attributes, name=name, strongest=_STRONGEST if name == PROFILES else None)
    return found


def profiles(
    known: SparseDataset, attributes: SparseDataset, *, name: str = PROFILES, strongest: int | None = None
) -> SparseDataset:
    """Samples × attributes: the sum of the attributes of each sample's features, times their values where there are
    any; the `strongest` kept, ties by lower id, and scaled to length 1. Samples without attributes have empty rows.
    """
    parts = [_cut(block, strongest) for block in _profile_blocks(known, as_matrix(attributes))]
    whole: Any = sparse.vstack(parts, format="csr") if parts else sparse.csr_array((0, attributes.width))
    return SparseDataset(
        name=name,
        width=attributes.width,
        indptr=whole.indptr.astype(np.int64),
        indices=whole.indices.astype(np.uint32),
        values=whole.data.astype(np.float32),
        sample_names=known.sample_names,
        features=attributes.features,
    )


@dataclass(frozen=True, slots=True)
class Content:
    """A content-based recommender over items × attributes, rows of length 1."""

    attributes: SparseDataset
    candidates: npt.NDArray[np.bool_]
    """[items] which may be recommended."""

    @classmethod
    def of(cls, attributes: SparseDataset, *, live: int) -> "Content":
        """One that recommends the items below `live`."""
        return cls(attributes, np.arange(attributes.samples) < live)

    def best(self, known: SparseDataset, *, k: int) -> Iterator[npt.NDArray[np.int32]]:
        """Ids [rows, k] as `scored` has them."""
        return (ids for ids, _ in self.scored(known, k=k))

    def scored(self, known: SparseDataset, *, k: int) -> Answers:
        """The `k` items nearest to each sample's profile that it does not have, best first, ties by lower id, and
        their cosines. What shares no attribute with the sample is not listed.
        """
        rows = max(1, _AT_ONCE // max(1, self.attributes.samples))
        matrix = as_matrix(self.attributes)
        start = 0
        for block in _profile_blocks(known, matrix, rows=rows):
            scores = (_cut(block, None) @ matrix.T).toarray()
            scores = np.where(scores > 0, scores, -np.inf)
            yield listed(scores, self.candidates, known, first=start, k=k)
            start += rows


def listed(
    scores: npt.NDArray[Any], candidates: npt.NDArray[np.bool_], known: SparseDataset, *, first: int, k: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Ids [rows, k] and scores [rows, k] of the best of [rows, items], ties by lower id; -1 and -inf where none is
    left. Rows are those of `known` from `first` on, and what they have is not listed.
    """
    rows, items = scores.shape
    scores = np.where(candidates, scores, -np.inf)
    scores[_rows(known, items, first, first + rows).nonzero()] = -np.inf
    ids = best_of(scores, k)
    found = np.take_along_axis(scores, np.maximum(ids, 0), axis=1)
    return ids, np.where(ids >= 0, found, -np.inf).astype(np.float32)


def best_of(scores: npt.NDArray[Any], k: int) -> npt.NDArray[np.int32]:
    """Ids [rows, k] of the largest of [rows, items], best first, ties by lower id; -1 where only -inf is left."""
    rows, items = scores.shape
    taken = min(k, items)
    least = -np.partition(-scores, taken - 1, axis=1)[:, taken - 1 : taken]
    above, level = scores > least, scores == least
    # Of those that tie with the last place the first ones fill what is left.
    chosen = above | (level & (np.cumsum(level, axis=1) <= taken - above.sum(axis=1, keepdims=True)))
    ids = np.nonzero(chosen)[1].reshape(rows, taken)
    values = np.take_along_axis(scores, ids, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    ids, values = np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)
    ids = np.where(values > -np.inf, ids, -1).astype(np.int32)
    return np.pad(ids, ((0, 0), (0, k - taken)), constant_values=-1)


def as_matrix(dataset: SparseDataset) -> Any:
    """Samples × features as SciPy's CSR."""
    return _rows(dataset, dataset.width, 0, dataset.samples)


def _profile_blocks(known: SparseDataset, matrix: Any, *, rows: int = _ROWS) -> Iterator[Any]:
    for start in range(0, known.samples, rows):
        block = _rows(known, matrix.shape[0], start, start + rows) @ matrix
        block.sort_indices()
        yield block


def _rows(known: SparseDataset, items: int, start: int, stop: int) -> Any:
    """Rows `start:stop` of `known` as a matrix of so many `items`."""
    indptr = known.indptr[start : stop + 1]
    mine = slice(int(indptr[0]), int(indptr[-1]))
    indices = np.asarray(known.indices[mine]).astype(np.int64)
    values = np.ones(len(indices), np.float32) if known.values is None else np.asarray(known.values[mine])
    return sparse.csr_array((values, indices, indptr - indptr[0]), shape=(len(indptr) - 1, items))


def _cut(block: Any, strongest: int | None) -> Any:
    """The largest of each row, scaled to length 1."""
    lengths = np.diff(block.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    values, columns = block.data, block.indices
    if strongest is not None and lengths.max(initial=0) > strongest:
        order = np.lexsort((columns, -values, rows))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - np.repeat(block.indptr[:-1], lengths)
        kept = rank < strongest
        rows, values, columns = rows[kept], values[kept], columns[kept]
    norms = np.sqrt(np.bincount(rows, np.square(values, dtype=np.float64), minlength=len(lengths)))
    values = (values / np.maximum(norms, 1e-12)[rows]).astype(np.float32)
    return sparse.csr_array((values, (rows, columns)), shape=block.shape)
