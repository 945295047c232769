"""Datasets to fixed-shape batches: seeded order, a few capacities, a mask for the last. Knows no devices, only
how many shards a batch is dealt to.
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
) -> Iterator[tuple[dict[str, Batch], dict[str, Targets]]]:
    """Input and target batches of the same samples by layer, in `order`; a sparse dataset that is both, of layers dealt
    alike, has one batch for both. `deals` names the layers whose sparse batches are dealt, `samplers` those whose
    targets are sampled, by `seed` and the batch's first samples. Raises `ValueError` where datasets differ in their
    number of samples.
    """
    every = [*inputs.values(), *targets.values()]
    size = batch_size_of(batch_size, _samples(every), shards)
    sparse = [(one, deals.get(name)) for role in (inputs, targets) for name, one in role.items() if _is_sparse(one)]
    for drawn in _draws(order, size, shards, sparse):
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


def input_batches(inputs: Mapping[str, Dataset], *, batch_size: int, shards: int = 1) -> Iterator[dict[str, Batch]]:
    """Input batches by layer, in row order. Raises `ValueError` as `paired_batches` does."""
    samples = _samples(inputs.values())
    sparse = [(dataset, None) for dataset in inputs.values() if _is_sparse(dataset)]
    for drawn in _draws(np.arange(samples), batch_size_of(batch_size, samples, shards), shards, sparse):
        yield {layer: _batch(dataset, drawn, None, is_input=True) for layer, dataset in inputs.items()}


def single_batches(dataset: SparseDataset, *, batch_size: int, shards: int = 1) -> Iterator[SparseBatch]:
    """Batches in row order."""
    size = batch_size_of(batch_size, dataset.samples, shards)
    for drawn in _draws(np.arange(dataset.samples), size, shards, [(dataset, None)]):
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
    order: npt.NDArray[np.int64], batch: int, shards: int, sparse: Iterable[tuple[SparseDataset, Deal | None]]
) -> Iterator[_Drawn]:
    usual = {(id(dataset), deal): _usual(dataset, batch // shards, deal) for dataset, deal in sparse}
    for start in range(0, len(order), batch):
        yield _Drawn(order[start : start + batch], batch, shards, usual)


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
    real = len(drawn.samples)
    stored = dataset.values[_rows(dataset, drawn)]
    values = np.zeros((drawn.batch, dataset.width), np.float32)
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
    rows, shards, parts = _rows(dataset, drawn), drawn.shards, 1 if deal is None else deal.parts
    of_shard = drawn.batch // shards
    lengths = np.zeros(drawn.batch, np.int64)
    lengths[: len(rows)] = dataset.indptr[rows + 1] - dataset.indptr[rows]
    source = np.repeat(dataset.indptr[rows] - (np.cumsum(lengths) - lengths)[: len(rows)], lengths[: len(rows)])
    source = source + np.arange(len(source))
    sample = np.repeat(np.arange(drawn.batch), lengths)
    features = dataset.indices[source].astype(np.int64)
    # [nnz] which row of the batch's arrays an entry goes to, and its place there
    target = sample // of_shard * parts + features % parts
    order = np.argsort(target.astype(np.uint16 if shards * parts < 1 << 16 else np.int64), kind="stable")
    sizes = np.bincount(target, minlength=shards * parts)
    least = _SMALLEST_CAPACITY if deal is None else _SMALLEST_DEALT
    capacity = capacity_of(max(int(sizes.max()), drawn.usual[id(dataset), deal]), least=least)
    place = np.repeat(np.arange(shards * parts) * capacity - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(source))
    shape = (shards * capacity,) if deal is None else (shards * parts, capacity)

    def filled(entries: npt.NDArray[Any], padding: int, kind: type[np.int32 | np.float32]) -> npt.NDArray[Any]:
        whole = np.full(shards * parts * capacity, padding, kind)
        whole[place] = entries[order]
        return whole.reshape(shape)

    return SparseBatch(
        filled(
            features if deal is None else deal.place(features), dataset.width if deal is None else deal.stored, np.int32
        ),
        filled(sample % of_shard, of_shard, np.int32),
        None if dataset.values is None else filled(dataset.values[source], 0, np.float32),
        _mask(drawn),
        _weights(dataset, drawn),
    )


def _rows(dataset: Dataset, drawn: _Drawn) -> npt.NDArray[np.int64]:
    """[at most batch] stored row of each sample"""
    return drawn.samples if dataset.rows is None else dataset.rows[drawn.samples]


def _mask(drawn: _Drawn) -> npt.NDArray[np.float32]:
    return (np.arange(drawn.batch) < len(drawn.samples)).astype(np.float32)


def _weights(dataset: Dataset, drawn: _Drawn) -> npt.NDArray[np.float32] | None:
    if dataset.weights is None:
        return None
    weights = np.zeros(drawn.batch, np.float32)
    weights[: len(drawn.samples)] = dataset.weights[drawn.samples]
    return weights
