"""Datasets to fixed-shape batches: seeded order, a few capacities, a mask for the last. Knows no devices, only
how many shards a batch is dealt to, and which of them are made here.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from trainer.data.netcdf import Dataset
from trainer.data.sampling import Sampler
from trainer.data.slices import Slices
from trainer.deal import Deal
from trainer.dense import DenseBatch, DenseDataset
from trainer.errors import SettingsError
from trainer.sparse import SampledBatch, SparseBatch, SparseDataset, round_up

Batch = SparseBatch | DenseBatch
Targets = Batch | SampledBatch

_SMALLEST_CAPACITY = 128
_SMALLEST_DEALT = 16
_TELLING = 8
"""First samples of a batch that tell it from others."""
_LOOKED_AT = 1 << 20
"""Entries by which the parts of a layer are compared."""


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
    deals: Mapping[str, Deal] = MappingProxyType({}),
    samplers: Mapping[str, Sampler] = MappingProxyType({}),
    seed: Sequence[int] = (),
    slices: Slices | None = None,
) -> Iterator[tuple[dict[str, Batch], dict[str, Targets]]]:
    """Input and target batches of the same samples by layer, in `order`; a sparse dataset that is both, of layers dealt
    alike, has one batch for both. `deals` names the layers whose sparse batches are dealt, `samplers` those whose
    targets are sampled, by `seed` and the batch's first samples. With `slices` only a process's share of each batch is
    read and made, which cannot be where targets are sampled. Raises `ValueError` where datasets differ in their number
    of samples.
    """
    every = [*inputs.values(), *targets.values()]
    size = batch_size_of(batch_size, _samples(every), shards)
    sparse = [(one, deals.get(name)) for role in (inputs, targets) for name, one in role.items() if _is_sparse(one)]
    for drawn in _draws(order, size, shards, sparse, slices):
        first = {layer: _batch(dataset, drawn, deals.get(layer), is_input=True) for layer, dataset in inputs.items()}
        made = {(id(data), deals.get(layer)): first[layer] for layer, data in inputs.items() if _is_sparse(data)}
        second: dict[str, Targets] = {
            layer: made.get((id(dataset), deals.get(layer))) or _batch(dataset, drawn, deals.get(layer), is_input=False)
            for layer, dataset in targets.items()
        }
        for layer, sampler in samplers.items():
            batch = second[layer]
            if isinstance(batch, SparseBatch):
                second[layer] = sampler.sampled(batch, (*seed, *drawn.samples[:_TELLING].tolist()))
        yield first, second


def input_batches(
    inputs: Mapping[str, Dataset], *, batch_size: int, shards: int = 1, slices: Slices | None = None
) -> Iterator[dict[str, Batch]]:
    """Input batches by layer, in row order. Raises `ValueError`, and takes `slices`, as `paired_batches` does."""
    samples = _samples(inputs.values())
    sparse = [(dataset, None) for dataset in inputs.values() if _is_sparse(dataset)]
    for drawn in _draws(np.arange(samples), batch_size_of(batch_size, samples, shards), shards, sparse, slices):
        yield {layer: _batch(dataset, drawn, None, is_input=True) for layer, dataset in inputs.items()}


def single_batches(
    dataset: SparseDataset, *, batch_size: int, shards: int = 1, slices: Slices | None = None
) -> Iterator[SparseBatch]:
    """Batches in row order."""
    size = batch_size_of(batch_size, dataset.samples, shards)
    for drawn in _draws(np.arange(dataset.samples), size, shards, [(dataset, None)], slices):
        yield _sparse_batch(dataset, drawn, None)


def capacity_of(nnz: int, *, least: int = _SMALLEST_CAPACITY) -> int:
    """The capacity for a part with `nnz` non-zeros: the next of 4 steps an octave, so at most a quarter is
    padding.
    """
    needed = max(nnz, least)
    step = 1 << max((needed - 1).bit_length() - 3, 0)
    return round_up(needed, step)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The samples of one batch, and the shape of the batch they fill."""

    samples: npt.NDArray[np.int64]
    """[at most batch]"""
    batch: int
    shards: int
    usual: Mapping[tuple[int, Deal | None], int]
    """By `id` of a dataset and its layer's deal: non-zeros that most parts stay below. They share its capacity, so that
    few shapes are compiled."""
    slices: Slices | None = None

    @property
    def own(self) -> slice:
        """Those of the batch's samples that are made here."""
        return slice(0, self.batch) if self.slices is None else self.slices.samples(self.batch, self.shards)


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


def _is_sparse(dataset: Dataset) -> TypeGuard[SparseDataset]:
    return isinstance(dataset, SparseDataset)


def _draws(
    order: npt.NDArray[np.int64],
    batch: int,
    shards: int,
    sparse: Iterable[tuple[SparseDataset, Deal | None]],
    slices: Slices | None,
) -> Iterator[_Drawn]:
    usual = {(id(dataset), deal): _usual(dataset, batch // shards, deal) for dataset, deal in sparse}
    for start in range(0, len(order), batch):
        yield _Drawn(order[start : start + batch], batch, shards, usual, slices)


def _usual(dataset: SparseDataset, part: int, deal: Deal | None) -> int:
    """Two deviations above the mean non-zeros of `part` samples; of a dealt layer those of its fullest part, and three
    of its own more.
    """
    lengths = np.diff(dataset.indptr)
    mean = lengths.mean() * part if len(lengths) else 0.0
    if mean == 0:
        return 0
    most = mean + 2 * lengths.std() * math.sqrt(part)
    if deal is None:
        return int(most)
    shares = np.bincount(dataset.indices[:_LOOKED_AT] % deal.parts, minlength=deal.parts)
    fullest = most * shares.max() / shares.sum()
    return int(fullest + 3 * math.sqrt(fullest))


def _batch(dataset: Dataset, drawn: _Drawn, deal: Deal | None, *, is_input: bool) -> Batch:
    if isinstance(dataset, SparseDataset):
        return _sparse_batch(dataset, drawn, deal)
    return _dense_batch(dataset, drawn, offset=dataset.input_offset if is_input else 0.0)


def _dense_batch(dataset: DenseDataset, drawn: _Drawn, *, offset: float) -> DenseBatch:
    rows = _rows(dataset, drawn)[drawn.own]
    real, stored = len(rows), dataset.values[rows]
    values = np.zeros((len(range(drawn.batch)[drawn.own]), dataset.width), np.float32)
    if dataset.one_hot:
        values[np.arange(real), stored] = 1.0
    else:
        # What is too large for single precision becomes infinite.
        with np.errstate(over="ignore"):
            values[:real] = stored
        values[:real] /= np.float32(dataset.divisor)
        values[:real] += np.float32(offset)
    return DenseBatch(values, _mask(drawn), _weights(dataset, drawn))


def _sparse_batch(dataset: SparseDataset, drawn: _Drawn, deal: Deal | None) -> SparseBatch:
    entries, of_shard = _entries(dataset, drawn, deal), drawn.batch // drawn.shards
    rows, parts = entries.sizes.shape
    order = np.argsort(entries.target.astype(np.uint16 if rows * parts < 1 << 16 else np.int64), kind="stable")
    least = _SMALLEST_CAPACITY if deal is None else _SMALLEST_DEALT
    capacity = capacity_of(max(_fullest(dataset, drawn, deal, entries), drawn.usual[id(dataset), deal]), least=least)
    sizes = entries.sizes.reshape(-1)
    place = np.repeat(np.arange(len(sizes)) * capacity - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(order))
    shape = (rows * capacity,) if deal is None else (rows * parts, capacity)

    def filled(values: npt.NDArray[Any], padding: int, kind: type[np.int32 | np.float32]) -> npt.NDArray[Any]:
        whole = np.full(rows * parts * capacity, padding, kind)
        whole[place] = values[order]
        return whole.reshape(shape)

    indices = entries.features if deal is None else deal.place(entries.features)
    return SparseBatch(
        filled(indices, dataset.width if deal is None else deal.stored, np.int32),
        filled(entries.sample % of_shard, of_shard, np.int32),
        None if dataset.values is None else filled(dataset.values[entries.source], 0, np.float32),
        _mask(drawn),
        _weights(dataset, drawn),
    )


@dataclass(frozen=True, slots=True)
class _Entries:
    """The entries that a process puts into a batch, [entries] each."""

    source: npt.NDArray[np.int64]
    """Where they are stored."""
    features: npt.NDArray[np.int64]
    sample: npt.NDArray[np.int64]
    """Counted from the process's first."""
    target: npt.NDArray[np.int64]
    """Which row of the batch's arrays each goes to."""
    sizes: npt.NDArray[np.int64]
    """[shards, parts] of the process."""


def _entries(dataset: SparseDataset, drawn: _Drawn, deal: Deal | None) -> _Entries:
    rows = _rows(dataset, drawn)[drawn.own]
    starts, lengths = dataset.indptr[rows], dataset.indptr[rows + 1] - dataset.indptr[rows]
    source = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    source = source + np.arange(len(source))
    sample = np.repeat(np.arange(len(rows)), lengths)
    features = dataset.indices[source].astype(np.int64)
    shards, parts = len(range(drawn.batch)[drawn.own]) * drawn.shards // drawn.batch, 1 if deal is None else deal.parts
    part = features % parts
    if deal is not None and drawn.slices is not None:
        own = drawn.slices.share.parts(parts)
        is_own = (part >= own.start) & (part < own.stop)
        source, sample, features, part = source[is_own], sample[is_own], features[is_own], part[is_own] - own.start
        parts = own.stop - own.start
    target = sample // (drawn.batch // drawn.shards) * parts + part
    sizes = np.bincount(target, minlength=shards * parts)
    return _Entries(source, features, sample, target, sizes.reshape(shards, parts))


def _fullest(dataset: SparseDataset, drawn: _Drawn, deal: Deal | None, entries: _Entries) -> int:
    """Entries of the fullest part of the batch, those of other processes too."""
    if drawn.slices is None:
        return int(entries.sizes.max())
    rows, of_shard = _rows(dataset, drawn), drawn.batch // drawn.shards
    if deal is not None:
        return drawn.slices.fullest(dataset, deal, rows, of_shard)
    lengths = dataset.indptr[rows + 1] - dataset.indptr[rows]
    return int(np.add.reduceat(lengths, np.arange(0, len(rows), of_shard)).max())


def _rows(dataset: Dataset, drawn: _Drawn) -> npt.NDArray[np.int64]:
    """[at most batch] stored row of each sample"""
    return drawn.samples if dataset.rows is None else dataset.rows[drawn.samples]


def _mask(drawn: _Drawn) -> npt.NDArray[np.float32]:
    return (np.arange(drawn.batch)[drawn.own] < len(drawn.samples)).astype(np.float32)


def _weights(dataset: Dataset, drawn: _Drawn) -> npt.NDArray[np.float32] | None:
    if dataset.weights is None:
        return None
    weights = np.zeros(drawn.batch, np.float32)
    weights[: len(drawn.samples)] = dataset.weights[drawn.samples]
    return weights[drawn.own]
