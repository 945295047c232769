"""Datasets to fixed-shape batches: seeded order, a few capacities, a mask for the last. Knows no devices, only
how many shards a batch is dealt to.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.data.netcdf import Dataset
from trainer.dense import DenseBatch, DenseDataset
from trainer.errors import SettingsError
from trainer.sparse import SparseBatch, SparseDataset, round_up

Batch = SparseBatch | DenseBatch

_SMALLEST_CAPACITY = 128


def sample_order(samples: int, *, shuffle: bool, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits the samples, [samples]."""
    if not shuffle:
        return np.arange(samples)
    return np.random.default_rng((seed, epoch)).permutation(samples)


def paired_batches(
    inputs: Mapping[str, Dataset],
    targets: Mapping[str, Dataset],
    *,
    batch_size: int,
    order: npt.NDArray[np.int64],
    shards: int = 1,
) -> Iterator[tuple[dict[str, Batch], dict[str, Batch]]]:
    """Input and target batches of the same samples by layer, in `order`; a sparse dataset that is both has one
    batch for both. Raises `ValueError` where datasets differ in their number of samples.
    """
    every = [*inputs.values(), *targets.values()]
    size = batch_size_of(batch_size, _samples(every), shards)
    for deal in _deals(order, size, shards, every):
        first = {layer: _batch(dataset, deal, is_input=True) for layer, dataset in inputs.items()}
        made = {id(data): first[layer] for layer, data in inputs.items() if isinstance(data, SparseDataset)}
        second = {
            layer: made[id(dataset)] if id(dataset) in made else _batch(dataset, deal, is_input=False)
            for layer, dataset in targets.items()
        }
        yield first, second


def input_batches(inputs: Mapping[str, Dataset], *, batch_size: int, shards: int = 1) -> Iterator[dict[str, Batch]]:
    """Input batches by layer, in row order. Raises `ValueError` as `paired_batches` does."""
    samples = _samples(inputs.values())
    for deal in _deals(np.arange(samples), batch_size_of(batch_size, samples, shards), shards, inputs.values()):
        yield {layer: _batch(dataset, deal, is_input=True) for layer, dataset in inputs.items()}


def single_batches(dataset: SparseDataset, *, batch_size: int, shards: int = 1) -> Iterator[SparseBatch]:
    """Batches in row order."""
    size = batch_size_of(batch_size, dataset.samples, shards)
    for deal in _deals(np.arange(dataset.samples), size, shards, [dataset]):
        yield _sparse_batch(dataset, deal)


def capacity_of(nnz: int) -> int:
    """The capacity for a part with `nnz` non-zeros: the next of 4 steps an octave, so at most a quarter is
    padding.
    """
    needed = max(nnz, _SMALLEST_CAPACITY)
    step = 1 << max((needed - 1).bit_length() - 3, 0)
    return round_up(needed, step)


@dataclass(frozen=True, slots=True)
class _Deal:
    """The samples of one batch, and the shape of the batch they fill."""

    samples: npt.NDArray[np.int64]
    """[at most batch]"""
    batch: int
    shards: int
    usual: Mapping[int, int]
    """By `id` of a dataset: non-zeros that most parts stay below. They share its capacity, so that few shapes are
    compiled."""


def _samples(datasets: Iterable[Dataset]) -> int:
    numbers = {dataset.samples for dataset in datasets}
    if len(numbers) != 1:
        raise ValueError(f"datasets of one number of samples are wanted, not of {sorted(numbers)}")
    return numbers.pop()


def batch_size_of(asked: int, samples: int, shards: int) -> int:
    """Samples of a batch: no more than there are, so that little is padding."""
    if asked < 1:
        raise SettingsError(f"batch_size: {asked} samples are no batch; at least 1 is wanted")
    if asked % shards:
        raise SettingsError(f"batch_size: {asked} samples cannot be dealt to {shards} shards")
    return min(asked, round_up(max(samples, 1), shards))


def _deals(order: npt.NDArray[np.int64], batch: int, shards: int, datasets: Iterable[Dataset]) -> Iterator[_Deal]:
    sparse = [dataset for dataset in datasets if isinstance(dataset, SparseDataset)]
    usual = {id(dataset): _usual(dataset, batch // shards) for dataset in sparse}
    for start in range(0, len(order), batch):
        yield _Deal(order[start : start + batch], batch, shards, usual)


def _usual(dataset: SparseDataset, part: int) -> int:
    """Two deviations above the mean non-zeros of `part` samples."""
    lengths = np.diff(dataset.indptr)
    return int(lengths.mean() * part + 2 * lengths.std() * math.sqrt(part)) if len(lengths) else 0


def _batch(dataset: Dataset, deal: _Deal, *, is_input: bool) -> Batch:
    if isinstance(dataset, SparseDataset):
        return _sparse_batch(dataset, deal)
    return _dense_batch(dataset, deal, offset=dataset.input_offset if is_input else 0.0)


def _dense_batch(dataset: DenseDataset, deal: _Deal, *, offset: float) -> DenseBatch:
    real = len(deal.samples)
    stored = dataset.values[_rows(dataset, deal)]
    values = np.zeros((deal.batch, dataset.width), np.float32)
    if dataset.one_hot:
        values[np.arange(real), stored] = 1.0
    else:
        # What is too large for single precision becomes infinite.
        with np.errstate(over="ignore"):
            values[:real] = stored
        values[:real] /= np.float32(dataset.divisor)
        values[:real] += np.float32(offset)
    return DenseBatch(values, _mask(deal), _weights(dataset, deal))


def _sparse_batch(dataset: SparseDataset, deal: _Deal) -> SparseBatch:
    rows, shards = _rows(dataset, deal), deal.shards
    part = deal.batch // shards
    lengths = np.zeros(deal.batch, np.int64)
    lengths[: len(rows)] = dataset.indptr[rows + 1] - dataset.indptr[rows]
    sizes = lengths.reshape(shards, part).sum(axis=1)
    capacity = capacity_of(max(int(sizes.max()), deal.usual[id(dataset)]))
    entries = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # [nnz] places in the batch: shard by shard, entry by entry
    place = np.repeat(np.arange(shards) * capacity, sizes) + entries
    source = np.repeat(dataset.indptr[rows] - (np.cumsum(lengths) - lengths)[: len(rows)], lengths[: len(rows)])
    source = source + np.arange(len(source))
    indices = np.full(shards * capacity, dataset.width, np.int32)
    indices[place] = dataset.indices[source]
    row_numbers = np.full(shards * capacity, part, np.int32)
    row_numbers[place] = np.repeat(np.arange(deal.batch) % part, lengths)
    values = None
    if dataset.values is not None:
        values = np.zeros(shards * capacity, np.float32)
        values[place] = dataset.values[source]
    return SparseBatch(indices, row_numbers, values, _mask(deal), _weights(dataset, deal))


def _rows(dataset: Dataset, deal: _Deal) -> npt.NDArray[np.int64]:
    """[at most batch] stored row of each sample"""
    return deal.samples if dataset.rows is None else dataset.rows[deal.samples]


def _mask(deal: _Deal) -> npt.NDArray[np.float32]:
    return (np.arange(deal.batch) < len(deal.samples)).astype(np.float32)


def _weights(dataset: Dataset, deal: _Deal) -> npt.NDArray[np.float32] | None:
    if dataset.weights is None:
        return None
    weights = np.zeros(deal.batch, np.float32)
    weights[: len(deal.samples)] = dataset.weights[deal.samples]
    return weights
