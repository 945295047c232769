"""Arrays that stay in a file answer as NumPy's do, in few slices."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from trainer import stored
from trainer.stored import Stored, blocks


class _File:
    """Entries `0, 10, 20, …` and the slices that were read of them."""

    def __init__(self, entries: int) -> None:
        self.entries = np.arange(entries, dtype=np.uint16) * 10
        self.slices: list[tuple[int, int]] = []

    def read(self, first: int, last: int) -> np.ndarray:
        assert 0 <= first <= last <= len(self.entries)
        self.slices.append((first, last))
        return self.entries[first:last]

    def array(self, *shape: int) -> Stored:
        return Stored(shape, np.dtype(np.float32), self.read, lambda entries: entries.astype(np.float32) + 1)


PLACES = {
    "one": [3],
    "none": [],
    "a run": [4, 5, 6],
    "runs in disorder, with repeats": [9, 10, 2, 3, 3, 10, 11, 0],
    "backwards": [5, 4, 3],
}


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("shape", [(24,), (12, 2)])
@pytest.mark.parametrize("gap", [0, 2, 100])
def test_rows_are_those_of_the_array(
    places: list[int], shape: tuple[int, ...], gap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_GAP_ENTRIES", gap)
    kept = _File(24).array(*shape)
    whole = np.asarray(kept)
    assert (whole.shape, whole.dtype, kept.size, len(kept)) == (shape, kept.dtype, 24, shape[0])
    found = kept[np.array(places, np.int64)]
    assert (found.dtype, found.tolist()) == (whole.dtype, whole[np.array(places, np.int64)].tolist())
    mask = np.isin(np.arange(shape[0]), places)
    assert kept[mask].tolist() == whole[mask].tolist()
    for chosen in (slice(None), slice(2, 5), slice(5, 2), slice(-3, None), slice(1, 9, 3), slice(0, 99)):
        assert kept[chosen].tolist() == whole[chosen].tolist()


def test_rows_may_lie_in_another_order_in_the_file() -> None:
    file = _File(10)
    order = np.array([7, 8, 9, 0, 1])
    kept = replace(file.array(5), place=lambda rows: order[rows])
    assert kept[:].tolist() == [71, 81, 91, 1, 11]
    assert kept[np.array([4, 0])].tolist() == [11, 71]
    assert np.asarray(kept).tolist() == kept[:].tolist()


def test_near_runs_share_a_slice_and_far_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_GAP_ENTRIES", 2)
    file = _File(30)
    file.array(30)[np.array([20, 21, 0, 1, 4, 9])]
    assert file.slices == [(0, 5), (9, 10), (20, 22)]


def test_all_of_it_is_read_a_bounded_number_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "ENTRIES_AT_ONCE", 8)
    file = _File(30)
    assert [block.shape for block in blocks(file.array(10, 3))] == [(2, 3)] * 5
    assert np.concatenate(list(blocks(file.array(30)))).tolist() == file.array(30)[:].tolist()
    (block,) = blocks(file.entries)
    assert block is file.entries


@pytest.mark.parametrize(
    "wrong",
    [lambda kept: kept[np.array([0, 10])], lambda kept: kept[np.array([-1])], lambda kept: kept[np.ones(11, bool)]],
)
def test_rows_that_are_not_there_are_refused(wrong: Callable[[Stored], object]) -> None:
    with pytest.raises(IndexError, match="rows 0 to 9 are wanted"):
        wrong(_File(10).array(10))
    with pytest.raises(ValueError, match="copied"):
        np.asarray(_File(10).array(10), copy=False)
