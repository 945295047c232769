"""Datasets to fixed-shape batches: seeded order, a few capacities, a mask for the last. Knows no devices, only
how many shards a batch is dealt to.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from trainer.errors import SettingsError
from trainer.sparse import SparseBatch, SparseDataset, round_up

_SMALLEST_CAPACITY = 128


def sample_order(samples: int, *, shuffle: bool, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits the samples, [samples]."""
    if not shuffle:
        return np.arange(samples)
    return np.random.default_rng((seed, epoch)).permutation(samples)


def paired_batches(
    inputs: SparseDataset,
    targets: SparseDataset,
    *,
    batch_size: int,
    order: npt.NDArray[np.int64],
    shards: int = 1,
) -> Iterator[tuple[SparseBatch, SparseBatch]]:
    """Input and target batches of the same samples, in `order`. Where both are one dataset, so are the batches."""
    batch = _batch_size(batch_size, inputs.samples, shards)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        first = _assemble(inputs, rows, batch=batch, shards=shards)
        second = first if targets is inputs else _assemble(targets, rows, batch=batch, shards=shards)
        yield first, second


def single_batches(dataset: SparseDataset, *, batch_size: int, shards: int = 1) -> Iterator[SparseBatch]:
    """Batches in row order."""
    batch = _batch_size(batch_size, dataset.samples, shards)
    for start in range(0, dataset.samples, batch):
        rows = np.arange(start, min(start + batch, dataset.samples))
        yield _assemble(dataset, rows, batch=batch, shards=shards)


def capacity_of(nnz: int) -> int:
    """The capacity for a part with `nnz` non-zeros: the next of 4 steps an octave, so at most a quarter is
    padding.
    """
    needed = max(nnz, _SMALLEST_CAPACITY)
    step = 1 << max((needed - 1).bit_length() - 3, 0)
    return round_up(needed, step)


def _batch_size(asked: int, samples: int, shards: int) -> int:
    """No larger than the samples there are, so that little is padding."""
    if asked < 1:
        raise SettingsError(f"batch_size: {asked} samples are no batch; at least 1 is wanted")
    if asked % shards:
        raise SettingsError(f"batch_size: {asked} samples cannot be dealt to {shards} shards")
    return min(asked, round_up(max(samples, 1), shards))


def _assemble(dataset: SparseDataset, rows: npt.NDArray[np.int64], *, batch: int, shards: int) -> SparseBatch:
    part = batch // shards
    lengths = np.zeros(batch, np.int64)
    lengths[: len(rows)] = dataset.indptr[rows + 1] - dataset.indptr[rows]
    sizes = lengths.reshape(shards, part).sum(axis=1)
    # Batches below the mean share its capacity: the last, short one needs no compilation of its own.
    usual = int(dataset.nnz / max(dataset.samples, 1) * part)
    capacity = capacity_of(max(int(sizes.max()), usual))
    entries = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # [nnz] places in the batch: shard by shard, entry by entry
    place = np.repeat(np.arange(shards) * capacity, sizes) + entries
    source = np.repeat(dataset.indptr[rows] - (np.cumsum(lengths) - lengths)[: len(rows)], lengths[: len(rows)])
    source = source + np.arange(len(source))
    indices = np.full(shards * capacity, dataset.width, np.int32)
    indices[place] = dataset.indices[source]
    row_numbers = np.full(shards * capacity, part, np.int32)
    row_numbers[place] = np.repeat(np.arange(batch) % part, lengths)
    values = None
    if dataset.values is not None:
        values = np.zeros(shards * capacity, np.float32)
        values[place] = dataset.values[source]
    mask = (np.arange(batch) < len(rows)).astype(np.float32)
    return SparseBatch(indices, row_numbers, values, mask)
