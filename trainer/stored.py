"""Arrays that stay in a file and are read in slices, indexed as NumPy's are, so that data need not fit in memory. NumPy
only: how the file is read is given. One thread reads at a time.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Place = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]
"""Numbers of rows to where in the file they lie."""

ENTRIES_AT_ONCE = 1 << 20
"""Of a file, where all of it is gone through."""
_GAP_ENTRIES = 1 << 12
"""Entries that are read and thrown away sooner than a second slice is asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """[rows] or [rows, units], indexed along its rows by slices, by arrays of whole numbers and by masks."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int, int], npt.NDArray[Any]]
    """Entries from the first number up to the second as they are stored, row after row; raises `DataError`."""
    convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    """Entries as they are stored to entries of `dtype`."""
    place: Place | None = None
    """Where in the file rows lie, or `None` where row `i` is row `i` of the file."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    def __getitem__(self, chosen: slice | npt.NDArray[np.integer[Any] | np.bool_]) -> npt.NDArray[Any]:
        if isinstance(chosen, slice):
            first, last, step = chosen.indices(len(self))
            if step == 1 and self.place is None:
                return self.convert(self._read(first, max(first, last)))
            chosen = np.arange(first, last, step)
        rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64, copy=False)
        if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(f"rows 0 to {len(self) - 1} are wanted, not {int(rows.min())} to {int(rows.max())}")
        return self.convert(self._gathered(rows if self.place is None else self.place(rows)))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """All of it, in memory."""
        if copy is False:
            raise ValueError("what stays in a file is copied when it is read")
        whole = np.concatenate([self[:0], *blocks(self)])
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def _gathered(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Rows of the file in any order, as they are stored."""
        if not rows.size:
            return self._read(0, 0)
        first, lengths = _runs(rows)
        lows, highs = _slices(first, first + lengths, gap=_GAP_ENTRIES // math.prod(self.shape[1:]))
        found = [self._read(low, high) for low, high in zip(lows.tolist(), highs.tolist(), strict=True)]
        # What lies at `low` in the file lies at `offset` among what was found.
        offsets = np.cumsum(highs - lows) - (highs - lows)
        slice_of_run = np.searchsorted(lows, first, side="right") - 1
        return np.concatenate(found)[rows - np.repeat((lows - offsets)[slice_of_run], lengths)]

    def _read(self, first: int, last: int) -> npt.NDArray[Any]:
        units = math.prod(self.shape[1:])
        return self.read(first * units, last * units).reshape(-1, *self.shape[1:])  # [rows * units] -> [rows, units]


def blocks(array: npt.NDArray[Any] | Stored) -> Iterator[npt.NDArray[Any]]:
    """All rows in order: at once where they are in memory, else a bounded number at a time."""
    if isinstance(array, np.ndarray):
        yield array
        return
    rows = max(ENTRIES_AT_ONCE // math.prod(array.shape[1:]), 1)
    for first in range(0, len(array), rows):
        yield array[first : first + rows]


def _runs(rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The first row and the length of each run of consecutive rows."""
    begins = np.flatnonzero(np.diff(rows, prepend=rows[0]) != 1)
    return rows[begins], np.diff(begins, append=len(rows))


def _slices(
    first: npt.NDArray[np.int64], last: npt.NDArray[np.int64], *, gap: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ascending slices that hold all runs; runs no further apart than `gap` share one."""
    order = np.argsort(first, kind="stable")
    lows, highs = first[order], np.maximum.accumulate(last[order])
    is_apart = lows[1:] > highs[:-1] + gap
    return lows[np.concatenate([[True], is_apart])], highs[np.concatenate([is_apart, [True]])]
