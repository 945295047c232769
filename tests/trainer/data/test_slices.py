"""What the processes of a group make of batches, put together, is what one alone makes; and none makes it all."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trainer.data.batches import input_batches, paired_batches, sample_order
from trainer.data.slices import Slices, part_counts
from trainer.deal import Deal
from trainer.dense import DenseDataset
from trainer.sharding import share_by
from trainer.sparse import Share, SparseDataset

WIDTH, SAMPLES, BATCH, PARTS = 128, 45, 16, 8
DEAL = Deal(WIDTH, WIDTH, PARTS)
MESHES = [((2, 4), 2), ((1, 8), 2), ((4, 2), 2), ((2, 4), 4), ((8, 1), 8)]
"""Devices by axis, and the processes they belong to."""


def dataset(read: list[int] | None = None) -> SparseDataset:
    """Samples of few and of many features, some of none; `read` is told how many entries are read."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(0, 40, SAMPLES)
    # Low features are popular, and so are the parts they lie in, but for the deal.
    rows = [rng.choice(WIDTH, length, replace=False, p=np.linspace(2, 0.01, WIDTH) / 128.64) for length in lengths]
    indices = np.concatenate(rows).astype(np.uint32)
    indptr = np.cumsum([0, *lengths])
    weights = rng.uniform(0, 2, SAMPLES).astype(np.float32)

    values = np.arange(len(indices), dtype=np.float32)
    found: Any = (indices, values) if read is None else (Watched(indices, read), Watched(values, read))
    return SparseDataset("d", WIDTH, indptr, *found, weights=weights)


class Watched:
    """An array that tells how many of its entries batches ask for."""

    def __init__(self, entries: np.ndarray, read: list[int]) -> None:
        self._entries, self._read = entries, read

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        if not isinstance(chosen, slice):
            self._read.append(len(chosen))
        return self._entries[chosen]


def shares(shape: tuple[int, int], processes: int) -> list[Share]:
    owners = np.repeat(np.arange(processes), shape[0] * shape[1] // processes).reshape(shape)
    found = [share_by(owners, process) for process in range(processes)]
    assert None not in found
    return [share for share in found if share is not None]


def made(shards: int, slices: Slices | None, whole: SparseDataset, deals: dict[str, Deal]) -> list[Any]:
    images = DenseDataset("image", (3,), np.arange(3 * SAMPLES, dtype=np.float32).reshape(SAMPLES, 3))
    order = sample_order(SAMPLES, shuffle=True, seed=1, epoch=1)
    layers = {"in": whole, "image": images}, {"out": whole}
    return list(paired_batches(*layers, batch_size=BATCH, order=order, shards=shards, deals=deals, slices=slices))


def part_of(array: Any, name: str, share: Share, shards: int, *, dealt: bool) -> Any:
    """Of an array of a whole batch, what a share is to have."""
    by_shard = array.reshape(shards, -1, *array.shape[1:])[share.first_shard :][: share.shards]
    if dealt and name in ("indices", "rows", "values"):
        by_shard = by_shard[:, share.parts(PARTS)]
    return by_shard.reshape(-1, *array.shape[1:])


@pytest.mark.parametrize(("shape", "processes"), MESHES)
@pytest.mark.parametrize("dealt", [False, True])
def test_each_process_makes_its_part_of_what_one_makes_alone(
    shape: tuple[int, int], processes: int, dealt: bool
) -> None:
    whole, deals = dataset(), {"in": DEAL, "out": DEAL} if dealt else {}
    alone = made(shape[0], None, whole, deals)
    for share in shares(shape, processes):
        own = made(shape[0], Slices.of(share, ({"in": whole},), deals), whole, deals)
        assert len(own) == len(alone) == 3
        for (inputs, targets), (all_inputs, all_targets) in zip(own, alone, strict=True):
            assert targets["out"] is inputs["in"]
            assert all_targets["out"] is all_inputs["in"]
            for layer in ("in", "image"):
                for name, array in inputs[layer]._asdict().items():
                    expected = all_inputs[layer]._asdict()[name]
                    if array is None or expected is None:
                        assert array is expected
                        continue
                    np.testing.assert_array_equal(
                        array, part_of(expected, name, share, shape[0], dealt=dealt and layer == "in")
                    )


def test_a_process_reads_its_samples_and_makes_its_features_only() -> None:
    deals = {"in": DEAL, "out": DEAL}

    def counted(shards: int, share: Share | None) -> tuple[int, int]:
        """Entries read, and numbers in the batches made."""
        slices, read = Slices.of(share, ({"in": dataset()},), deals), list[int]()
        whole = dataset(read)
        if slices is not None:
            slices = replace(slices, counts={(id(whole), DEAL): part_counts(dataset(), DEAL)})
        batches = made(shards, slices, whole, deals)
        return sum(read), sum(batch["in"].indices.size for batch, _ in batches)

    read, size = counted(2, None)
    by_sample = [counted(2, share) for share in shares((2, 4), 2)]
    assert sum(own for own, _ in by_sample) == read
    assert max(own for own, _ in by_sample) < 0.7 * read
    assert [own for _, own in by_sample] == [size // 2] * 2
    # All ids of the samples are looked at, the values of half of them.
    read, size = counted(1, None)
    by_feature = [counted(1, share) for share in shares((1, 8), 2)]
    assert sum(own for own, _ in by_feature) == 1.5 * read
    assert [own for _, own in by_feature] == [size // 2] * 2


def test_input_batches_are_sliced_by_sample() -> None:
    whole = dataset()
    first, second = (
        list(input_batches({"x": whole}, batch_size=BATCH, shards=2, slices=Slices.of(share)))
        for share in shares((2, 4), 2)
    )
    for one, two, both in zip(first, second, input_batches({"x": whole}, batch_size=BATCH, shards=2), strict=True):
        for place in range(4):
            np.testing.assert_array_equal(np.concatenate([one["x"][place], two["x"][place]]), both["x"][place])


def test_devices_that_are_no_rectangle_have_no_share() -> None:
    # Three devices of each of two processes, on a mesh of data 3 × model 2.
    assert share_by(np.array([[0, 0], [0, 1], [1, 1]]), 0) is None
    assert share_by(np.zeros((2, 4), np.int64), 0) is None
    assert share_by(np.array([[0, 0, 1, 1]]), 1) == Share(0, 1, 2, 2, 4)
