"""A NetCDF file item by item: attributes, dimensions and variables, each checked as it is read. What the library
answers a file that is damaged becomes `DataError` here and nowhere else.
"""

import reprlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt

from trainer.data.plain import Plain, changed, find_plain, size_and_time
from trainer.errors import DataError

# What the library answers a file that is damaged or holds what it does not know.
_LIBRARY_ERRORS = (OSError, RuntimeError, AttributeError, UnicodeDecodeError, MemoryError)
_MOST_INFLATED, _ALWAYS_READ = 1032, 1 << 26
"""Bytes that deflate makes of one, and bytes that are read from a file of any size."""
_NUMBERS = "iuf"
"""NumPy's kinds of types that are numbers."""


@contextmanager
def opened(path: Path) -> Generator[Any]:
    """The file at `path`, open for reading; `DataError` if it is none."""
    with _open(path) as file:
        yield file


@contextmanager
def created(aside: Path, path: Path) -> Generator[Any]:
    """A new file at `aside`, open for writing; `DataError` speaks of `path`, which it is to become."""
    try:
        with netCDF4.Dataset(aside, "w", format="NETCDF4") as file:
            yield file
    except RuntimeError as error:
        # What HDF5 answers a full disk.
        raise DataError(f"cannot be written: {error}", path) from error


def _open(path: Path) -> Any:
    with _translated("cannot be opened as NetCDF", path):
        file: Any = netCDF4.Dataset(path, "r")
        # Packing and masks are conventions of others: a byte is what is stored.
        file.set_auto_maskandscale(False)
        file.set_auto_chartostring(False)
        return file


@contextmanager
def _translated(what: str, path: Path) -> Generator[None]:
    """Errors of the NetCDF library as ours."""
    try:
        yield
    except _LIBRARY_ERRORS as error:
        detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{what}: {detail}", path) from error


@dataclass(frozen=True, slots=True)
class Items:
    """What an open file holds under names that end in `suffix`, the number of a dataset."""

    file: Any
    path: Path
    suffix: str = ""

    def error(self, message: str) -> DataError:
        """The error that says `message` of this file."""
        return DataError(message, self.path)

    def attribute(self, name: str) -> Any:
        """A global attribute, whatever its type."""
        full = name + self.suffix
        with _translated(f"attribute {full} cannot be read", self.path):
            # DSSTNE's own writer spells dataType with a small t.
            for spelled in (full, full.replace("dataType", "datatype")):
                if spelled in self.file.ncattrs():
                    return self.file.getncattr(spelled)
        raise self.error(f"has no attribute {full}; is it a dataset of generateNetCDF?")

    def text(self, name: str) -> str:
        """An attribute that is printable text, NC_CHAR or NC_STRING."""
        value = self.attribute(name)
        if not isinstance(value, str) or not value or not value.isprintable():
            raise self.error(f"attribute {name}{self.suffix} is {_shown(value)}; printable text is wanted")
        return value

    def number(self, name: str, *, least: int = 0) -> int:
        """An attribute that is one whole number."""
        value = self.attribute(name)
        if not isinstance(value, np.integer):
            raise self.error(f"attribute {name}{self.suffix} is {_shown(value)}; one whole number is wanted")
        if int(value) < least:
            raise self.error(f"attribute {name}{self.suffix} is {value}; at least {least} is wanted")
        return int(value)

    def has_length(self, name: str) -> bool:
        """Whether there is a dimension of this name."""
        return name + self.suffix in self.file.dimensions

    def length(self, name: str) -> int:
        """Length of a dimension, at least 1."""
        full = name + self.suffix
        if not self.has_length(name):
            raise self.error(f"has no dimension {full}")
        with _translated(f"dimension {full} cannot be read", self.path):
            length = int(self.file.dimensions[full].size)
        if length < 1:
            raise self.error(f"dimension {full} is {length}; at least 1 is wanted")
        return length

    def values(self, name: str, length: int, *, kinds: str = _NUMBERS) -> npt.NDArray[Any]:
        """A variable of `length` numbers, [length]; with `S` among the `kinds` characters are signed bytes."""
        return self.entries(name, length, kinds=kinds).values()

    def entries(self, name: str, length: int, *, kinds: str = _NUMBERS) -> "Entries":
        """The same variable, not yet read."""
        full = name + self.suffix
        if full not in self.file.variables:
            raise self.error(f"has no variable {full}")
        variable = self.file.variables[full]
        with _translated(f"{full} cannot be read", self.path):
            kind, size = variable.dtype, int(variable.size)
            if size != length:
                raise self.error(f"{full} has {size} entries, its dimension promises {length}")
            if not isinstance(kind, np.dtype) or kind.kind not in kinds:
                raise self.error(f"{full} holds {kind}, numbers are wanted")
            if size * kind.itemsize > max(_MOST_INFLATED * self.path.stat().st_size, _ALWAYS_READ):
                raise self.error(f"{full} has {size} entries, more than a file of this size holds")
        return Entries(self, variable, full, size, kinds)

    def whole(self, name: str, length: int) -> npt.NDArray[Any]:
        """A variable of `length` whole numbers, none negative, [length]."""
        values = self.values(name, length)
        self.check_whole(name, values)
        return values

    def check_whole(self, name: str, values: npt.NDArray[Any], *, first: int = 0) -> None:
        """Raise where `values` of a variable, from entry `first` on, are no whole numbers, or one is negative."""
        if values.dtype.kind not in "iu":
            raise self.error(f"{name}{self.suffix} holds {values.dtype}, whole numbers are wanted")
        self.check(values >= 0, name, "is negative", values, first=first)

    def check(
        self, holds: npt.NDArray[np.bool_], name: str, complaint: str, values: npt.NDArray[Any], *, first: int = 0
    ) -> None:
        """Raise where `values` of a variable, from entry `first` on, do not hold, naming the first that does not."""
        if not holds.all():
            place = int(np.argmin(holds))
            raise self.error(f"{name}{self.suffix}[{first + place}] = {values[place]} {complaint}")


@dataclass(frozen=True, slots=True)
class Entries:
    """A variable of numbers, read as asked."""

    items: Items
    variable: Any
    name: str
    length: int
    kinds: str
    seen: tuple[int, int] | None = None
    """Size and time of the file when it was opened to be kept open, after which it must not change."""

    @property
    def nbytes(self) -> int:
        """Bytes of all entries as they are stored."""
        return self.length * int(self.variable.dtype.itemsize)

    def staying_open(self) -> "Entries":
        """The same entries of a file that stays open as long as they are kept."""
        seen = self._size_and_time()
        file = _open(self.items.path)
        return replace(self, items=replace(self.items, file=file), variable=file.variables[self.name], seen=seen)

    def values(self) -> npt.NDArray[Any]:
        """All entries, [length]."""
        return self._read(...)

    def read(self, first: int, last: int) -> npt.NDArray[Any]:
        """Entries from `first` up to `last`."""
        if self.variable.ndim != 1:
            raise self.items.error(f"{self.name} has {self.variable.ndim} dimensions, 1 is wanted where data are large")
        # Of a file cut short the library reads zeros.
        if self.seen is not None and self.seen != self._size_and_time():
            raise changed(self.items.path)
        return self._read(slice(first, last))

    def plain(self, head: npt.NDArray[Any]) -> Plain | None:
        """The same entries, of which `head` are the first, past the library, if they seem to lie plain in the file."""
        with _translated(f"{self.name} cannot be read", self.items.path):
            return find_plain(self.items.path, head)

    def _size_and_time(self) -> tuple[int, int]:
        with _translated(f"{self.name} cannot be read", self.items.path):
            return size_and_time(self.items.path.stat())

    def _read(self, chosen: Any) -> npt.NDArray[Any]:
        with _translated(f"{self.name} cannot be read", self.items.path):
            stored = np.asarray(self.variable[chosen]).reshape(-1)
        if stored.dtype.kind not in self.kinds:
            raise self.items.error(f"{self.name} holds lists, numbers are wanted")
        return stored.view(np.int8) if stored.dtype.kind == "S" else stored


def _shown(value: Any) -> str:
    """An attribute in a message: one line, not too long."""
    return reprlib.repr(value).replace("\n", " ")
