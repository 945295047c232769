from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.batches import Batch, capacity_of, input_batches, paired_batches, sample_order, single_batches
from trainer.data.netcdf import Dataset
from trainer.data.split import hold_out
from trainer.dense import DenseBatch, DenseDataset
from trainer.errors import SettingsError
from trainer.sparse import SparseBatch, SparseDataset

WIDTH = 128


def dataset(lengths: list[int], seed: int = 0) -> SparseDataset:
    rng = np.random.default_rng(seed)
    rows = [np.sort(rng.choice(WIDTH, length, replace=False)) for length in lengths]
    indptr = np.cumsum([0, *lengths]).astype(np.int64)
    indices = np.concatenate([np.zeros(0, np.uint32), *rows]).astype(np.uint32)
    return SparseDataset("d", WIDTH, indptr, indices, np.arange(len(indices), dtype=np.float32))


def entries(batch: Batch, shards: int) -> list[tuple[int, int, float]]:
    """(row in the batch, feature, value) of every entry that is no padding."""
    assert isinstance(batch, SparseBatch)
    part, capacity = len(batch.sample_mask) // shards, len(batch.indices) // shards
    found = []
    for place, (row, index) in enumerate(zip(batch.rows, batch.indices, strict=True)):
        if row < part:
            found.append((row + place // capacity * part, index, batch.values[place]))
        else:
            assert (row, index) == (part, WIDTH)
    return found


LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=30)


@given(LENGTHS, st.integers(1, 8), st.sampled_from([1, 2, 4]), st.booleans())
def test_every_entry_comes_once_in_the_row_of_its_sample(lengths: list[int], size: int, shards: int, shuffle: bool):
    data = dataset(lengths)
    order = sample_order(len(lengths), shuffle=shuffle, seed=3, epoch=1)
    seen: list[tuple[int, int, float]] = []
    visited = 0
    layers = {"in": data}, {"out": data}
    for first, second in paired_batches(*layers, batch_size=size * shards, shards=shards, order=order):
        batch = first["in"]
        assert isinstance(batch, SparseBatch)
        assert list(second) == ["out"]
        assert second["out"] is batch
        real = int(batch.sample_mask.sum())
        assert batch.sample_mask.tolist() == [1.0] * real + [0.0] * (len(batch.sample_mask) - real)
        seen += [(int(order[visited + row]), index, value) for row, index, value in entries(batch, shards)]
        part = len(batch.indices) // shards
        assert all((np.diff(batch.rows[s * part : (s + 1) * part]) >= 0).all() for s in range(shards))
        visited += real
    assert visited == len(lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    # `dataset` numbers its values by place.
    assert sorted(seen) == sorted(zip(owner.tolist(), data.indices.tolist(), range(data.nnz), strict=True))


def test_an_epoch_has_few_shapes_and_little_padding():
    data = dataset(list(np.random.default_rng(1).integers(1, 60, 2000)))
    order = sample_order(2000, shuffle=True, seed=0, epoch=1)
    pairs = paired_batches({"in": data}, {"out": data}, batch_size=64, order=order)
    batches = [batch for pair in pairs for batch in pair[0].values() if isinstance(batch, SparseBatch)]
    assert len(batches) == 32
    assert len({len(batch.indices) for batch in batches}) <= 3
    assert sum(len(batch.indices) for batch in batches) <= 1.4 * data.nnz + len(batches) * 128


@given(st.integers(0, 10**7))
def test_a_quarter_of_a_capacity_at_most_is_padding(nnz: int):
    capacity = capacity_of(nnz)
    assert nnz <= capacity
    assert nnz <= 128 or capacity <= nnz * 1.25 + 1


def test_batches_that_cannot_be_dealt_evenly_are_refused():
    with pytest.raises(SettingsError, match="batch_size: 10 samples cannot be dealt to 4 shards"):
        next(single_batches(dataset([1, 2]), batch_size=10, shards=4))


def test_no_batch_at_all_is_refused():
    with pytest.raises(SettingsError, match="batch_size: 0 samples"):
        next(single_batches(dataset([1, 2]), batch_size=0))


def test_targets_of_their_own_come_in_the_order_of_the_inputs():
    inputs, targets = dataset([3, 0, 5]), dataset([1, 2, 4], seed=1)
    order = np.array([2, 0, 1])
    pairs = list(paired_batches({"x": inputs}, {"x": targets}, batch_size=2, order=order))
    for part, data in enumerate((inputs, targets)):
        rows = [
            [index for row, index, _ in entries(pair[part]["x"], 1) if row == place]
            for pair in pairs
            for place in (0, 1)
        ]
        assert rows[:3] == [data.indices[data.indptr[row] : data.indptr[row + 1]].tolist() for row in order]
        assert rows[3] == []


def test_indicators_carry_no_values_and_rows_keep_their_order():
    data = replace(dataset([2, 3, 1]), values=None)
    batches = list(single_batches(data, batch_size=2))
    assert [batch.values for batch in batches] == [None, None]
    real = [batch.indices[batch.indices < WIDTH].tolist() for batch in batches]
    assert [index for row in real for index in row] == data.indices.tolist()
    assert batches[1].sample_mask.tolist() == [1.0, 0.0]


def test_batches_of_nothing_are_none_and_of_empty_samples_all_padding():
    assert list(single_batches(dataset([]), batch_size=4)) == []
    (batch,) = single_batches(dataset([0, 0]), batch_size=4, shards=2)
    assert batch.sample_mask.tolist() == [1.0, 1.0]
    assert set(batch.indices.tolist()) == {WIDTH}
    assert set(batch.rows.tolist()) == {1}


def as_matrix(dataset: Dataset, *, is_input: bool) -> Any:
    """What a layer should see, [samples, width], one number at a time."""
    matrix = np.zeros((dataset.samples, dataset.width), np.float32)
    rows = range(dataset.samples) if dataset.rows is None else dataset.rows
    for sample, row in enumerate(rows):
        if isinstance(dataset, SparseDataset):
            assert dataset.values is not None
            for entry in range(dataset.indptr[row], dataset.indptr[row + 1]):
                matrix[sample, dataset.indices[entry]] += dataset.values[entry]
        elif dataset.one_hot:
            matrix[sample, dataset.values[row]] = 1.0
        else:
            for unit, value in enumerate(dataset.values[row]):
                matrix[sample, unit] = float(value) / dataset.divisor + (dataset.input_offset if is_input else 0.0)
    return matrix


def batch_matrix(batch: Batch, width: int, shards: int) -> Any:
    if isinstance(batch, DenseBatch):
        return batch.values
    matrix = np.zeros((len(batch.sample_mask), width), np.float32)
    for row, index, value in entries(batch, shards):
        matrix[row, index] += value
    return matrix


IMAGE = DenseDataset(
    "image", (2, 3), np.arange(250, 280, dtype=np.int16).reshape(5, 6).astype(np.uint8), False, 256.0, -0.5
)
KINDS: dict[str, Dataset] = {
    "sparse": dataset([2, 0, 3, 1, 4]),
    "image": IMAGE,
    "bytes": DenseDataset("bytes", (3,), np.arange(-8, 7, dtype=np.int8).reshape(5, 3), divisor=128.0),
    "classes": DenseDataset("classes", (2, 2), np.array([3, 0, 2, 2, 1], np.uint32), one_hot=True),
    "double": DenseDataset("double", (2,), np.linspace(-3, 3, 10).reshape(5, 2)),
    "big-endian": DenseDataset("whole", (1,), np.array([[1], [-2], [3], [4], [5]], ">i8")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("shards", [1, 2])
def test_every_kind_of_dataset_fills_its_batches(kind: str, indexed: bool, shards: int):
    rows = np.array([4, 0, 4, 1, 2, 3, 0]) if indexed else None
    data = replace(KINDS[kind], rows=rows)
    data = replace(data, weights=np.linspace(0, 3, data.samples, dtype=np.float32))
    order = sample_order(data.samples, shuffle=True, seed=5, epoch=1)
    expected = [as_matrix(data, is_input=is_input)[order] for is_input in (True, False)]
    visited = 0
    for pair in paired_batches({"x": data}, {"x": data}, batch_size=4, order=order, shards=shards):
        real = min(4, data.samples - visited)
        for (batch,), wanted in zip((part.values() for part in pair), expected, strict=True):
            found = batch_matrix(batch, data.width, shards)
            assert (found.dtype, found.shape) == (np.float32, (4, data.width))
            np.testing.assert_array_equal(found[:real], wanted[visited : visited + real])
            assert not found[real:].any()
            assert batch.sample_mask.tolist() == [1.0] * real + [0.0] * (4 - real)
            assert data.weights is not None
            weights = data.weights[order[visited : visited + real]].tolist()
            assert (batch.weights.dtype, batch.weights.tolist()) == (np.float32, weights + [0.0] * (4 - real))
        visited += real
    assert visited == data.samples


def test_only_an_input_is_offset():
    ((first, second),) = paired_batches({"x": IMAGE}, {"y": IMAGE}, batch_size=8, order=np.array([0]))
    assert first["x"].values[0].tolist() == [value / 256 - 0.5 for value in (250, 251, 252, 253, 254, 255)]
    assert second["y"].values[0].tolist() == [value / 256 for value in (250, 251, 252, 253, 254, 255)]


def test_input_batches_are_in_row_order_and_hold_every_layer():
    layers = {"a": KINDS["sparse"], "b": IMAGE}
    found = list(input_batches(layers, batch_size=2))
    assert [list(batch) for batch in found] == [["a", "b"]] * 3
    for layer, data in layers.items():
        matrix = np.concatenate([batch_matrix(batch[layer], data.width, 1) for batch in found])
        np.testing.assert_array_equal(matrix[:5], as_matrix(data, is_input=True))
        assert [batch[layer].weights for batch in found] == [None] * 3


def test_single_batches_follow_the_index():
    data = replace(dataset([2, 0, 3]), rows=np.array([2, 2, 0]))
    (batch,) = single_batches(data, batch_size=4)
    np.testing.assert_array_equal(batch_matrix(batch, WIDTH, 1)[:3], as_matrix(data, is_input=True))


def test_datasets_of_different_numbers_of_samples_are_refused():
    two, three = dataset([1, 2]), replace(dataset([1, 2]), rows=np.array([0, 0, 1]))
    with pytest.raises(ValueError, match=r"one number of samples are wanted, not of \[2, 3\]"):
        next(paired_batches({"x": two}, {"x": three}, batch_size=2, order=np.arange(2)))
    with pytest.raises(ValueError, match=r"one number of samples are wanted, not of \[2, 3\]"):
        next(input_batches({"x": two, "y": three}, batch_size=2))


def test_a_number_too_large_for_single_precision_is_infinite():
    (batch,) = input_batches({"x": DenseDataset("d", (2,), np.array([[1e300, 1.0]]))}, batch_size=1)
    assert batch["x"].values.tolist() == [[np.inf, 1.0]]


def test_the_order_depends_on_seed_and_epoch_alone():
    assert sample_order(5, shuffle=False, seed=1, epoch=1).tolist() == [0, 1, 2, 3, 4]
    first = sample_order(50, shuffle=True, seed=1, epoch=1)
    assert sorted(first) == list(range(50))
    assert first.tolist() == sample_order(50, shuffle=True, seed=1, epoch=1).tolist()
    assert first.tolist() != sample_order(50, shuffle=True, seed=1, epoch=2).tolist()


@given(LENGTHS, st.sampled_from([0.1, 0.2, 0.5]))
def test_holding_out_parts_every_row_in_two(lengths: list[int], fraction: float):
    data = dataset(lengths)
    training, held_out = hold_out(data, fraction=fraction, seed=7)
    for row, length in enumerate(lengths):
        kept = training.indices[training.indptr[row] : training.indptr[row + 1]]
        hidden = held_out.indices[held_out.indptr[row] : held_out.indptr[row + 1]]
        assert sorted([*kept, *hidden]) == data.indices[data.indptr[row] : data.indptr[row + 1]].tolist()
        assert len(hidden) == max(int(fraction * length), 1 if length >= 5 else 0)
    again, _ = hold_out(data, fraction=fraction, seed=7)
    assert again.indices.tolist() == training.indices.tolist()


def test_another_seed_hides_other_features_and_values_go_with_theirs():
    data = dataset([20] * 10)
    first, hidden = hold_out(data, fraction=0.5, seed=1)
    assert hidden.indices.tolist() != hold_out(data, fraction=0.5, seed=2)[1].indices.tolist()
    for part in (first, hidden):
        # `dataset` numbers its values by place.
        assert part.values is not None
        assert data.indices[part.values.astype(int)].tolist() == part.indices.tolist()


@pytest.mark.parametrize("shards", [1, 8])
def test_few_shapes_are_made_so_that_few_steps_are_compiled(shards: int) -> None:
    rng = np.random.default_rng(0)
    lengths = np.maximum(1, rng.lognormal(3.0, 1.0, 4000).astype(int))
    indices = np.zeros(lengths.sum(), np.uint32)
    dataset = SparseDataset("long tail", 128, np.concatenate([[0], np.cumsum(lengths)]), indices)
    made = paired_batches({"in": dataset}, {"out": dataset}, batch_size=64, order=rng.permutation(4000), shards=shards)
    shapes = {len(first["in"].indices) for first, _ in made if isinstance(first["in"], SparseBatch)}
    assert len(shapes) <= 6
    assert min(shapes) <= 2 * 64 * lengths.mean() + 128 * shards
