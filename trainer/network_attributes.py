"""Attributes and vectors of a NetCDF file whose readers want each with its own type (spec 2.5): texts as NC_CHAR,
numbers as the 4-byte types. What is missing or is not what was wanted raises `DataError` that names it.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import netCDF4
import numpy as np

from trainer.closed_form import ClosedForm
from trainer.errors import DataError
from trainer.network_types import LayerSpec, NetworkSpec, OptimizerName, OptimizerSpec, Schedule
from trainer.pace import EarlyStopping, metric_k
from trainer.weights import Floats

_LIBRARY_ERRORS = (OSError, RuntimeError, AttributeError, LookupError, ValueError, TypeError, MemoryError)
"""What the NetCDF library raises over a damaged file."""
MOST_UNITS = 2**31 - 1
"""Units are numbered by int32."""
_MOST_INFLATED, _ALWAYS_READ = 1032, 1 << 26
"""Bytes that deflate makes of one, and bytes that are read from a file of any size."""
_WANTED: Mapping[type[Any], str] = {str: "text", float: "one number"}

Spec = TypeVar("Spec", NetworkSpec, LayerSpec, OptimizerSpec, EarlyStopping)


class Field(NamedTuple):
    """Where an attribute stands in the file and in the spec."""

    attribute: str
    path: str
    """Of the value inside the spec."""
    kind: type[Any] = float
    """`float` is stored as float, `np.int32` as int, `str` as char, all else as uint."""
    optional: bool = False
    """The default stands where it is missing."""
    extra: bool = False
    """An extension: optional, and written only if it is not the default."""


OPTIMIZER_FIELDS = (
    Field("optimizer", "name", OptimizerName), Field("optimizer_learningRate", "learning_rate", extra=True),
    Field("optimizer_weightDecay", "weight_decay", extra=True), Field("optimizer_momentum", "momentum", extra=True),
    Field("optimizer_momentum2", "momentum2", extra=True), Field("optimizer_clip", "clip", extra=True),
    Field("optimizer_warmup", "warmup", int, extra=True), Field("optimizer_steps", "steps", int, extra=True),
    Field("optimizer_schedule", "schedule", Schedule, extra=True), Field("optimizer_lazy", "lazy", bool, extra=True),
)  # fmt: skip
STOPPING_FIELDS = (
    Field("earlyStopping", "metric", str),
    Field("earlyStopping_patience", "patience", int, extra=True),
    Field("earlyStopping_validation", "validation", extra=True),
    Field("earlyStopping_minEpochs", "min_epochs", int, extra=True),
    Field("earlyStopping_refit", "refit", bool, extra=True),
)


@contextmanager
def opened(path: Path) -> Generator["Getter"]:
    """The attributes and vectors of a file."""
    try:
        file = netCDF4.Dataset(path, "r")
        names = frozenset(file.ncattrs())
    except _LIBRARY_ERRORS as error:
        raise DataError(f"cannot be opened as a network file: {_reason(error)}", path) from error
    with file:
        file.set_auto_maskandscale(False)
        yield Getter(file, path, names)


class Putter:
    """Writes attributes and vectors of one prefix, each with the type its reader wants."""

    def __init__(self, file: Any, path: Path, prefix: str = "") -> None:
        self._file, self._path, self._prefix = file, path, prefix

    def at(self, prefix: str) -> "Putter":
        """The same file under another prefix."""
        return Putter(self._file, self._path, prefix)

    def put(self, name: str, value: object, kind: type[Any] = int) -> None:
        """Write an attribute with the type of a field's kind; `DataError` where it does not fit."""
        self._file.setncattr(self._prefix + name, self._stored(name, value, kind))

    def fields(self, fields: Sequence[Field], spec: Spec, blank: Spec) -> None:
        """The fields of `spec`; of the extensions those that are not as in `blank`."""
        for name, path, kind, _, extra in fields:
            value, default = attrgetter(path)(spec), attrgetter(path)(blank)
            is_default = value == default or (default is not None and self._stored(name, value, kind) == kind(default))
            if value is None or (extra and is_default):
                continue
            self.put(name, value, kind)

    def vectors(self, dimension: str, **values: Floats) -> None:
        """Write variables over a dimension of their own, which is as long as each of them."""
        lengths = {vector.size for vector in values.values()}
        if len(lengths) != 1:
            raise ValueError(f"{self._prefix}{', '.join(values)}: the lengths {sorted(lengths)} differ")
        self._file.createDimension(self._prefix + dimension, lengths.pop())
        for name, vector in values.items():
            dimensions = (self._prefix + dimension,)
            variable = self._file.createVariable(self._prefix + name, "f4", dimensions, contiguous=True)
            variable[:] = np.asarray(vector, np.float32).reshape(-1)

    def _stored(self, name: str, value: Any, kind: type[Any]) -> Any:
        try:
            if kind is float:
                stored = single(value)
                fits = bool(np.isfinite(stored))
            elif kind is str:
                # Bytes are stored as NC_CHAR, also where they are not ASCII.
                stored = np.bytes_(value.encode())
                fits = "\0" not in value
            else:
                stored = (kind if issubclass(kind, np.integer) else np.uint32)(value)
                fits = True
        except (OverflowError, UnicodeEncodeError):
            stored, fits = None, False
        if not fits:
            raise DataError(f"attribute {self._prefix}{name} cannot hold {value!r}", self._path)
        return stored


class Getter:
    """Reads attributes and vectors of one prefix."""

    def __init__(self, file: Any, path: Path, names: frozenset[str], prefix: str = "") -> None:
        self._file, self._path, self._names, self._prefix = file, path, names, prefix

    def at(self, prefix: str) -> "Getter":
        """The same file under another prefix."""
        return Getter(self._file, self._path, self._names, prefix)

    def wrong(self, name: str, message: str) -> DataError:
        """The error that says so of an attribute or variable."""
        return self.error(f"{self._prefix}{name} {message}")

    def error(self, message: str) -> DataError:
        """The error that says so of the file."""
        return DataError(message, self._path)

    def has(self, name: str) -> bool:
        """Whether there is such an attribute."""
        return self._prefix + name in self._names

    def value(self, name: str, kind: type[Any]) -> Any:
        """An attribute as the kind of its field wants it."""
        if not self.has(name):
            raise DataError(f"has no attribute {self._prefix}{name}; is it a network file?", self._path)
        try:
            value = self._file.getncattr(self._prefix + name)
        except _LIBRARY_ERRORS as error:
            raise self.wrong(name, f"cannot be read: {_reason(error)}") from error
        wanted = {str: str, float: np.integer | np.floating}.get(kind, np.integer)
        if not isinstance(value, wanted):
            raise self.wrong(name, f"is {value!r}; {_WANTED.get(kind, 'one integer')} is wanted")
        if kind is str:
            return value
        return self._number(name, float(value)) if kind is float else self._integer(name, int(value), kind)

    def integer(self, name: str, least: int = 0, most: int = MOST_UNITS) -> int:
        """An attribute within bounds."""
        value = self.value(name, int)
        if not least <= value <= most:
            raise self.wrong(name, f"is {value}; {least} to {most} is wanted")
        return value

    def integers(self, names: Sequence[str]) -> tuple[int, ...]:
        """Attributes that are all 1 or more."""
        return tuple(self.integer(name, 1) for name in names)

    def texts(self, name: str) -> tuple[str, ...]:
        """The attributes `name`0, `name`1 …, as many as attribute `name`s says."""
        return tuple(self.value(f"{name}{position}", str) for position in range(self.integer(f"{name}s")))

    def fields(self, fields: Sequence[Field], blank: Spec) -> Spec:
        """`blank` with what the file says of the fields."""
        changes: dict[str, Any] = {}
        for name, path, kind, optional, extra in fields:
            if (optional or extra) and not self.has(name):
                continue
            value = self.value(name, kind)
            first, _, rest = path.partition(".")
            changes[first] = replace(changes.get(first, getattr(blank, first)), **{rest: value}) if rest else value
        return replace(blank, **changes)

    def vector(self, name: str, *lengths: int) -> Floats:
        """A variable of finite numbers, of one of these lengths."""
        if self._prefix + name not in self._file.variables:
            raise DataError(f"has no variable {self._prefix}{name}", self._path)
        variable = self._file.variables[self._prefix + name]
        if variable.shape not in [(length,) for length in lengths]:
            raise self.wrong(name, f"has shape {variable.shape}, ({lengths[0]},) is wanted")
        if getattr(variable.dtype, "kind", "?") not in "fiu":
            raise self.wrong(name, f"has type {variable.dtype}; numbers are wanted")
        if variable.size * 8 > max(_MOST_INFLATED * self._path.stat().st_size, _ALWAYS_READ):
            raise self.wrong(name, f"has {variable.size} entries, more than a file of this size holds")
        try:
            with np.errstate(all="ignore"):
                values = np.asarray(variable[:]).astype(np.float32)
        except _LIBRARY_ERRORS as error:
            raise self.wrong(name, f"cannot be read: {_reason(error)}") from error
        finite = np.isfinite(values)
        if not finite.all():
            position = int(np.argmin(finite))
            raise self.wrong(name, f"holds {values[position]} at position {position}; a finite number is wanted")
        return values

    def _number(self, name: str, value: float) -> float:
        rounded = single(value)
        if not np.isfinite(rounded):
            raise self.wrong(name, f"is {value}; a finite number is wanted")
        # The shortest decimal that gives the same float32: 0.2 and not 0.20000000298.
        return float(str(rounded))

    def _integer(self, name: str, value: int, kind: type[Any]) -> Any:
        bounds = np.iinfo(np.int32 if kind is np.int32 else np.uint32)
        if not bounds.min <= value <= bounds.max:
            raise self.wrong(name, f"is {value}; {bounds.min} to {bounds.max} is wanted")
        try:
            return value if kind is np.int32 else kind(value)
        except ValueError as error:
            raise self.wrong(name, f"is {value}, which names nothing") from error


def read_optimizer(get: Getter) -> OptimizerSpec:
    """The optimizer a network asks for."""
    optimizer = get.fields(OPTIMIZER_FIELDS, OptimizerSpec())
    # Earlier versions of this program stored what the network leaves to the settings as -1.
    left = ("learning_rate", "weight_decay", "momentum", "momentum2")
    return replace(optimizer, **{name: None for name in left if getattr(optimizer, name) == -1})


def read_closed_form(get: Getter) -> ClosedForm:
    """How a layer was fitted."""
    text = get.value("closedForm", str)
    try:
        return ClosedForm.of_text(text)
    except ValueError as error:
        raise get.wrong("closedForm", str(error)) from error


def read_stopping(get: Getter) -> EarlyStopping:
    """When a network has learnt enough."""
    stopping = get.fields(STOPPING_FIELDS, EarlyStopping())
    if metric_k(stopping.metric) is None:
        raise get.wrong("earlyStopping", f"is {stopping.metric!r}, which names no metric")
    if not 0 < stopping.validation < 1:
        raise get.wrong("earlyStopping_validation", f"is {stopping.validation}; between 0 and 1 is wanted")
    return stopping


def single(value: float) -> np.float32:
    """The float32 next to a number; infinite where there is none."""
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(value)


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
