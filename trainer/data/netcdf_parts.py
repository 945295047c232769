"""The variables of a dataset in DSSTNE's NetCDF: what its data types mean, what its entries may be and what becomes of
them, in memory or left in the file; either way all of them are checked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.netcdf_items import Entries, Items
from trainer.stored import ENTRIES_AT_ONCE, Place, Stored

Check = Callable[[npt.NDArray[Any], int], None]
"""Of entries and the number of the first of them; raises `DataError` where one is wrong."""


class DataType(IntEnum):
    """DSSTNE's data types by the number in a file."""

    UINT = 0
    INT = 1
    LLINT = 2
    ULLINT = 3
    FLOAT = 4
    DOUBLE = 5
    RGB8 = 6
    RGB16 = 7
    UCHAR = 8
    CHAR = 9


DIVISORS: Mapping[DataType, float] = {DataType.RGB8: 256.0, DataType.UCHAR: 256.0, DataType.CHAR: 128.0}
"""What a stored value is divided by: bytes are fixed-point."""
INPUT_OFFSETS: Mapping[DataType, float] = {DataType.RGB8: -0.5, DataType.UCHAR: -0.5}
BYTES: Mapping[DataType, type[np.integer[Any]]] = {
    DataType.RGB8: np.uint8,
    DataType.UCHAR: np.uint8,
    DataType.CHAR: np.int8,
}
_HEAD_ENTRIES = 1 << 12
"""Enough to find a variable in its file by what it begins with."""
_REALS = (DataType.FLOAT, DataType.DOUBLE)


@dataclass(frozen=True, slots=True)
class Part:
    """A variable of a dataset, and what becomes of its entries, a block at a time."""

    entries: Entries
    check: Check
    convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    """Entries as the file has them to what the dataset has."""

    def loaded(self) -> npt.NDArray[Any]:
        """In memory."""
        values = self.entries.values()
        self.check(values, 0)
        return self.convert(values)

    def stored(self, shape: tuple[int, ...], place: Place | None = None) -> Stored:
        """Left in the file, once all of it is checked."""
        entries = self.entries.staying_open()
        head = entries.read(0, min(_HEAD_ENTRIES, entries.length))
        plain = entries.plain(head)
        for first in range(0, entries.length, ENTRIES_AT_ONCE):
            last = min(first + ENTRIES_AT_ONCE, entries.length)
            values = entries.read(first, last)
            self.check(values, first)
            # Another place in the file may begin alike.
            if plain is not None and plain.read(first, last).tobytes() != values.tobytes():
                plain = None
        read = entries.read if plain is None else plain.read
        return Stored(shape, self.convert(head).dtype, read, self.convert, place)


def features(items: Items, units: int, nnz: int) -> Part:
    """The ids of stored features, [nnz] uint32."""
    return Part(
        items.entries("sparseIndex", nnz),
        _below(items, "sparseIndex", units, f"is not below the width {units}"),
        lambda values: values.astype(np.uint32, copy=False),
    )


def analog(items: Items, kind: DataType, nnz: int) -> Part:
    """The values of stored features, [nnz] float32; any number will do."""
    divisor = DIVISORS.get(kind, 1.0)
    return Part(items.entries("sparseData", nnz), lambda _, __: None, lambda values: single(values / divisor))


def classes(items: Items, units: int, size: int) -> Part:
    """The units of one-hot rows, [size]."""
    check = _below(items, "data", units, f"is not below the {units} units")
    return Part(items.entries("data", size), check, lambda values: values)


def numbers(items: Items, kind: DataType, size: int) -> Part:
    """The values of dense rows, [size]; bytes stay bytes."""
    # NC_CHAR is how DSSTNE stores signed bytes.
    entries = items.entries("data", size, kinds="iufS" if kind == DataType.CHAR else "iuf")

    def check(values: npt.NDArray[Any], first: int) -> None:
        if kind not in _REALS and values.dtype.kind == "f":
            raise items.error(f"data{items.suffix} holds {values.dtype}, whole numbers are wanted")
        if kind in BYTES:
            limits = np.iinfo(BYTES[kind])
            holds = (values >= limits.min) & (values <= limits.max)
            items.check(holds, "data", f"is not within {limits.min} to {limits.max}", values, first=first)

    return Part(entries, check, lambda values: values.astype(BYTES.get(kind, values.dtype), copy=False))


def single(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Single precision; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _below(items: Items, name: str, units: int, complaint: str) -> Check:
    """The check that entries of a variable are whole numbers from 0 up to `units`."""

    def check(values: npt.NDArray[Any], first: int) -> None:
        items.check_whole(name, values, first=first)
        items.check(values < units, name, complaint, values, first=first)

    return check
