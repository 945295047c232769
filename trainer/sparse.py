"""The sparse types every part of the trainer shares. NumPy only; nothing here knows JAX.

Matrices are always *samples × features* in CSR form and are never transposed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.stored import Stored

WIDTH_MULTIPLE = 128
"""DSSTNE rounds the number of features of a dataset up to a multiple of this."""


def round_up(count: int, multiple: int = WIDTH_MULTIPLE) -> int:
    """The smallest multiple of `multiple` that is at least `count`; 0 stays 0."""
    return -(-count // multiple) * multiple


@dataclass(frozen=True, slots=True)
class FeatureIndex:
    """Feature (or sample) name ↔ id. Ids are usually 0..n-1 but an index file may have gaps."""

    ids: dict[str, int]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def width(self) -> int:
        """Number of units a layer over these features has: the size, rounded up to 128."""
        return round_up(len(self.ids))

    def names(self) -> list[str]:
        """Names by id. Raises `ValueError` unless ids are exactly 0..n-1."""
        names: list[str | None] = [None] * len(self.ids)
        for name, position in self.ids.items():
            if not 0 <= position < len(names) or names[position] is not None:
                raise ValueError(f"index is not dense: {name!r} has id {position}")
            names[position] = name
        return [name for name in names if name is not None]


@dataclass(frozen=True, slots=True)
class SparseDataset:
    """A named CSR matrix, samples × features."""

    name: str
    width: int
    """Number of columns, padding to a multiple of 128 included."""
    indptr: npt.NDArray[np.int64]
    """[samples + 1]; row `i` is `indices[indptr[i]:indptr[i + 1]]`."""
    indices: npt.NDArray[np.uint32] | Stored
    """[nnz] feature ids, in file order inside a row; duplicates are kept."""
    values: npt.NDArray[np.float32] | Stored | None = None
    """[nnz] analog values, or `None` when every stored feature is an indicator (1.0)."""
    sample_names: Sequence[str] | None = None
    """[samples], or `None` where only a NetCDF file was read (it holds no names)."""
    features: FeatureIndex | None = None
    sides: tuple[int, ...] = ()
    """Width, height, length, as far as it has dimensions; `()` stands for `(width,)`."""
    weights: npt.NDArray[np.float32] | None = None
    """[samples] weight of each sample, or `None` where all weigh 1."""
    rows: npt.NDArray[np.int64] | None = None
    """[samples] row each sample uses (DSSTNE's Indexed), or `None` where sample `i` is row `i`."""
    ignore_zero: bool = False
    """As a target, features that are not stored cost nothing (DSSTNE's SparseIgnoreZero)."""

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.indptr) - 1 if self.rows is None else len(self.rows)

    @property
    def nnz(self) -> int:
        """Number of stored features."""
        return len(self.indices)


class SparseBatch(NamedTuple):
    """A batch of samples as flat coordinates, padded to a fixed capacity; a pytree unawares.

    The batch may be dealt to `shards` equal parts along the mesh axis `data` (usually 1): part
    `s` owns entries `[s * capacity, (s + 1) * capacity)` and samples
    `[s * batch // shards, (s + 1) * batch // shards)`, and `rows` count from 0 inside a part.
    A padding entry has `indices == width` (one past the last feature) and
    `rows == batch // shards` (one past the last row), so that it drops out of every segment sum.
    No sample is ever cut.

    Where the layer's units are dealt (`trainer.deal`), entries are [shards * parts, capacity]: row `s * parts + p` has
    those of data shard `s` that lie in part `p` of the units, and `indices` are the places where units are stored, all
    of them taken for padding.
    """

    indices: Any
    """int32 [shards * capacity] feature ids, or [shards * parts, capacity] places."""
    rows: Any
    """int32, as `indices`; ascending inside a part."""
    values: Any
    """float32, as `indices`, or `None` for indicators."""
    sample_mask: Any
    """float32 [batch], 1 for a real sample, 0 for padding."""
    weights: Any = None
    """float32 [batch] weight of each sample, or `None` where all weigh 1."""


class Share(NamedTuple):
    """Which devices of a mesh `data` × `model` are a process's own: a rectangle, as large in every process."""

    first_shard: int
    shards: int
    """Along axis `data`."""
    first_column: int
    columns: int
    """Along axis `model`."""
    all_columns: int

    def parts(self, parts: int) -> slice:
        """Those of so many parts of the units that its devices hold."""
        of_column = parts // self.all_columns
        return slice(self.first_column * of_column, (self.first_column + self.columns) * of_column)


class SampledBatch(NamedTuple):
    """Targets of a sampled Output layer: a dealt batch, and the units a step looks at; a pytree unawares. Slots and
    columns count `part * capacity + entry`, one past the last stands for none.
    """

    entries: SparseBatch
    """Its `indices` are slots of the candidates."""
    hits: Any
    """int32, as `indices`: the column of an entry whose unit is a negative, too."""
    candidates: Any
    """int32 [parts, capacity] different places, ascending, of entries and negatives; past the last for padding."""
    negatives: Any
    """int32 [parts, columns] slots of the negatives."""
    weights: Any
    """float32 [parts, columns]: how many units each negative stands for; 0 for padding."""

    @property
    def sample_mask(self) -> Any:
        """As in `SparseBatch`."""
        return self.entries.sample_mask
