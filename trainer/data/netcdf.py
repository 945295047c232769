"""The binary dataset on disk: DSSTNE's NetCDF layout (spec 2.2 to 2.6), sparse or dense, any number a file, with
the types its reader needs: strings as NC_CHAR, numbers as NC_UINT. Errors name file, variable and position.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.netcdf_items import Items, created, opened
from trainer.dense import DenseDataset
from trainer.filing import replacing
from trainer.sparse import SparseDataset

Dataset = SparseDataset | DenseDataset

_SPARSE, _BOOLEAN, _IGNORE_ZERO, _INDEXED, _WEIGHTED = 1, 2, 32, 64, 128
_SIDES = ("width", "height", "length")
_MOST_UNITS = (1 << 31) - 1
"""Batches number features in int32."""


class _Type(IntEnum):
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


_DIVISORS: Mapping[_Type, float] = {_Type.RGB8: 256.0, _Type.UCHAR: 256.0, _Type.CHAR: 128.0}
"""What a stored value is divided by: bytes are fixed-point."""
_INPUT_OFFSETS: Mapping[_Type, float] = {_Type.RGB8: -0.5, _Type.UCHAR: -0.5}
_BYTES: Mapping[_Type, type[np.integer[Any]]] = {_Type.RGB8: np.uint8, _Type.UCHAR: np.uint8, _Type.CHAR: np.int8}
_TYPE_NAMES: Mapping[_Type, str] = dict(
    zip(_Type, ("UInt", "Int", "LLInt", "ULLInt", "Float", "Double", "RGB8", "RGB16", "UChar", "Char"), strict=True)
)
_ATTRIBUTES: Mapping[int, str] = {
    _SPARSE: "Sparse",
    _BOOLEAN: "Boolean",
    4: "Compressed",
    8: "Recurrent",
    16: "Mutable",
    _IGNORE_ZERO: "SparseIgnoreZero",
    _INDEXED: "Indexed",
    _WEIGHTED: "Weighted",
}
_REALS = (_Type.FLOAT, _Type.DOUBLE)


def read_datasets(path: Path, *, tell: Callable[[str], None] = lambda _: None) -> dict[str, Dataset]:
    """The datasets of a file by name, in file order; each is told of as DSSTNE does (spec 2.4). They carry no sample or
    feature names.

    A file that is no such file, or that lacks or garbles anything, raises `DataError`.
    """
    found: dict[str, Dataset] = {}
    with opened(path) as file:
        for number in range(Items(file, path).number("datasets", least=1)):
            items = Items(file, path, str(number))
            head = _head(items)
            dataset = _read_sparse(items, head) if head.bits & _SPARSE else _read_dense(items, head)
            for line in _description(head, dataset):
                tell(line)
            if dataset.name in found:
                raise items.error(f"holds two datasets named {dataset.name}")
            found[dataset.name] = dataset
    return found


def write_dataset(dataset: SparseDataset, path: Path) -> None:
    """Write one dataset as DSSTNE's generateNetCDF does, aside and renamed."""
    write_datasets(path, [dataset])


def write_datasets(path: Path, datasets: Sequence[Dataset]) -> None:
    """Write datasets of any kind, aside and renamed. `ValueError` if two have one name."""
    if len({dataset.name for dataset in datasets}) < len(datasets):
        raise ValueError(f"datasets of different names are wanted, not {[dataset.name for dataset in datasets]}")
    with replacing(path) as aside, created(aside, path) as file:
        file.setncattr("datasets", np.uint32(len(datasets)))
        for number, dataset in enumerate(datasets):
            _write(file, str(number), _by_stored_row(dataset))


@dataclass(frozen=True, slots=True)
class _Head:
    """What is said of a dataset before its data."""

    name: str
    bits: int
    kind: _Type
    sides: tuple[int, ...]
    units: int
    stored: int
    """Rows in the file."""
    rows: npt.NDArray[np.int64] | None
    weights: npt.NDArray[np.float32] | None


def _description(head: _Head, dataset: Dataset) -> Iterator[str]:
    """What DSSTNE prints of a dataset it has loaded."""
    yield f"LoadNetCDF: Loading {_TYPE_NAMES[head.kind]} data set"
    attributes = [word for bit, word in _ATTRIBUTES.items() if head.bits & bit] or ["None"]
    sides = (*head.sides, 1, 1)[:3]
    datapoints = dataset.nnz if isinstance(dataset, SparseDataset) else dataset.values.size
    for said in (
        f"Name of data set: {head.name}",
        f"Attributes: {' '.join(attributes)}",
        f"{len(head.sides)}-dimensional data comprised of ({sides[0]}, {sides[1]}, {sides[2]}) datapoints.",
        f"{datapoints} total datapoints.",
        f"{dataset.samples} examples.",
        f"{head.stored} unique examples.",
    ):
        yield f"NNDataSet<T>::NNDataSet: {said}"


def _head(items: Items) -> _Head:
    name = items.text("name")
    bits, kind = items.number("attributes"), items.number("dataType")
    if kind not in list(_Type):
        raise items.error(f"dataset {name}: data type {kind} is unknown; 0 to {max(_Type)} are wanted")
    sides = _sides(items)
    units = math.prod(sides)
    if units > _MOST_UNITS:
        raise items.error(f"dataset {name}: {' x '.join(map(str, sides))} units are more than {_MOST_UNITS}")
    examples = items.length("examplesDim")
    stored = items.length("uniqueExamplesDim") if items.has_length("uniqueExamplesDim") else examples
    rows = _rows(items, examples, stored) if bits & _INDEXED else None
    if rows is None and stored != examples:
        raise items.error(f"dataset {name}: {stored} rows for {examples} examples need the attribute Indexed (64)")
    weights = _weights(items, examples, rows) if bits & _WEIGHTED else None
    return _Head(name, bits, _Type(kind), sides, units, stored, rows, weights)


def _sides(items: Items) -> tuple[int, ...]:
    dimensions = items.number("dimensions")
    if not 1 <= dimensions <= 3:
        raise items.error(f"dimensions{items.suffix} is {dimensions}; 1 to 3 are wanted")
    return tuple(items.number(side, least=1) for side in _SIDES[:dimensions])


def _rows(items: Items, examples: int, stored: int) -> npt.NDArray[np.int64]:
    rows = items.whole("index", examples)
    items.check(rows < stored, "index", f"is not below the {stored} rows stored", rows)
    return rows.astype(np.int64)


def _weights(items: Items, examples: int, rows: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float32]:
    """[examples]; a file has them by stored row."""
    weights = items.values("dataWeight", examples)
    items.check(np.isfinite(weights), "dataWeight", "is no finite number", weights)
    if rows is not None:
        items.check(rows < examples, "index", f"is not below the {examples} entries of dataWeight{items.suffix}", rows)
        weights = weights[rows]
    return _single(weights)


def _read_sparse(items: Items, head: _Head) -> SparseDataset:
    nnz = items.length("sparseDataDim")
    starts, ends = items.whole("sparseStart", head.stored), items.whole("sparseEnd", head.stored)
    items.check(ends >= starts, "sparseEnd", "is before its start", ends)
    items.check(ends <= nnz, "sparseEnd", f"is beyond the {nnz} entries of sparseIndex{items.suffix}", ends)
    indices = items.whole("sparseIndex", nnz)
    items.check(indices < head.units, "sparseIndex", f"is not below the width {head.units}", indices)
    values = None
    if not head.bits & _BOOLEAN:
        values = _single(items.values("sparseData", nnz) / _DIVISORS.get(head.kind, 1.0))
    indptr, order = _as_csr(starts.astype(np.int64), ends.astype(np.int64), nnz)
    return SparseDataset(
        name=head.name,
        width=head.units,
        indptr=indptr,
        indices=indices.astype(np.uint32, copy=False)[order],
        values=None if values is None else values[order],
        sides=head.sides,
        weights=head.weights,
        rows=head.rows,
        ignore_zero=bool(head.bits & _IGNORE_ZERO),
    )


def _read_dense(items: Items, head: _Head) -> DenseDataset:
    one_hot = bool(head.bits & _BOOLEAN)
    size = items.length("dataDim")
    wanted = head.stored * (1 if one_hot else head.units)
    if size != wanted:
        raise items.error(f"dimension dataDim{items.suffix} is {size}; {head.stored} rows have {wanted} values")
    if one_hot:
        values = items.whole("data", size)
        items.check(values < head.units, "data", f"is not below the {head.units} units", values)
    else:
        values = _typed(items, head.kind, size).reshape(head.stored, head.units)  # [size] -> [rows, units]
    return DenseDataset(
        name=head.name,
        sides=head.sides,
        values=values,
        one_hot=one_hot,
        # A class stands for 1, whatever the type of its number.
        divisor=1.0 if one_hot else _DIVISORS.get(head.kind, 1.0),
        input_offset=0.0 if one_hot else _INPUT_OFFSETS.get(head.kind, 0.0),
        weights=head.weights,
        rows=head.rows,
    )


def _typed(items: Items, kind: _Type, size: int) -> npt.NDArray[Any]:
    # NC_CHAR is how DSSTNE stores signed bytes.
    values = items.values("data", size, kinds="iufS" if kind == _Type.CHAR else "iuf")
    if kind not in _REALS and values.dtype.kind == "f":
        raise items.error(f"data{items.suffix} holds {values.dtype}, whole numbers are wanted")
    if kind not in _BYTES:
        return values
    limits = np.iinfo(_BYTES[kind])
    holds = (values >= limits.min) & (values <= limits.max)
    items.check(holds, "data", f"is not within {limits.min} to {limits.max}", values)
    return values.astype(_BYTES[kind], copy=False)


def _single(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Single precision; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _as_csr(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], nnz: int) -> tuple[npt.NDArray[np.int64], Any]:
    """Row pointers and the order that puts the entries of each row one after another."""
    lengths = ends - starts
    indptr = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    if np.array_equal(indptr[:-1], starts) and indptr[-1] == nnz:
        return indptr, slice(None)
    return indptr, np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])


def _by_stored_row(dataset: Dataset) -> Dataset:
    """The dataset with weights by stored row, as files have them; where that cannot be, each sample gets its row."""
    rows, weights = dataset.rows, dataset.weights
    if rows is None or weights is None:
        return dataset
    if rows.size and rows.max() < len(rows):
        by_row = np.ones(len(rows), np.float32)
        by_row[rows] = weights
        if np.array_equal(by_row[rows], weights):
            return replace(dataset, weights=by_row)
    if isinstance(dataset, DenseDataset):
        return replace(dataset, values=dataset.values[rows], rows=None)
    indptr, order = _as_csr(dataset.indptr[rows], dataset.indptr[rows + 1], dataset.nnz)
    values = None if dataset.values is None else dataset.values[order]
    return replace(dataset, indptr=indptr, indices=dataset.indices[order], values=values, rows=None)


def _write(file: Any, suffix: str, dataset: Dataset) -> None:
    values, kind = _stored_values(dataset)
    sides = dataset.sides or (dataset.width,)
    # Bytes, since a string that is not ASCII would become NC_STRING, which DSSTNE cannot read.
    file.setncattr(f"name{suffix}", np.bytes_(dataset.name.encode()))
    file.setncattr(f"attributes{suffix}", np.uint32(_bits(dataset)))
    file.setncattr(f"kind{suffix}", np.uint32(0))
    file.setncattr(f"dataType{suffix}", np.uint32(kind))
    file.setncattr(f"dimensions{suffix}", np.uint32(len(sides)))
    for side, length in zip(_SIDES, sides, strict=False):
        file.setncattr(f"{side}{suffix}", np.uint32(length))
    # NetCDF takes a length of 0 for unlimited; so does the original's file.
    file.createDimension(f"examplesDim{suffix}", dataset.samples)
    _write_data(file, suffix, dataset, values)
    if dataset.weights is not None:
        _put(file, f"dataWeight{suffix}", f"examplesDim{suffix}", dataset.weights.astype(np.float32))
    if dataset.rows is not None:
        _put(file, f"index{suffix}", f"examplesDim{suffix}", dataset.rows.astype(np.uint32))


def _write_data(file: Any, suffix: str, dataset: Dataset, values: npt.NDArray[Any] | None) -> None:
    rows = f"examplesDim{suffix}"
    sparse = isinstance(dataset, SparseDataset)
    if dataset.rows is not None:
        rows = f"uniqueExamplesDim{suffix}"
        file.createDimension(rows, len(dataset.indptr) - 1 if sparse else len(dataset.values))
    data = "sparseData" if sparse else "data"
    file.createDimension(f"{data}Dim{suffix}", dataset.nnz if sparse else dataset.values.size)
    if sparse:
        offsets = np.uint32 if dataset.indptr[-1] < 1 << 32 else np.uint64
        _put(file, f"sparseStart{suffix}", rows, dataset.indptr[:-1].astype(offsets))
        _put(file, f"sparseEnd{suffix}", rows, dataset.indptr[1:].astype(offsets))
        _put(file, f"sparseIndex{suffix}", f"sparseDataDim{suffix}", dataset.indices.astype(np.uint32))
    if values is not None:
        _put(file, f"{data}{suffix}", f"{data}Dim{suffix}", values)


def _put(file: Any, name: str, dimension: str, values: npt.NDArray[Any]) -> None:
    variable = file.createVariable(name, values.dtype, (dimension,), contiguous=len(values) > 0)
    variable[:] = values


def _bits(dataset: Dataset) -> int:
    bits = _INDEXED * (dataset.rows is not None) | _WEIGHTED * (dataset.weights is not None)
    if isinstance(dataset, DenseDataset):
        return bits | _BOOLEAN * dataset.one_hot
    return bits | _SPARSE | _BOOLEAN * (dataset.values is None) | _IGNORE_ZERO * dataset.ignore_zero


def _stored_values(dataset: Dataset) -> tuple[npt.NDArray[Any] | None, _Type]:
    """What a file stores as data, [values], and the type it says they have."""
    if isinstance(dataset, DenseDataset):
        return _dense_values(dataset)
    if dataset.values is None:
        return None, _Type.UINT
    return dataset.values.astype(np.float32), _Type.FLOAT


def _dense_values(dataset: DenseDataset) -> tuple[npt.NDArray[Any], _Type]:
    values = dataset.values.reshape(-1)  # [rows, units] -> [rows * units]
    if dataset.one_hot:
        return _whole_values(values)
    for kind in (_Type.UCHAR, _Type.CHAR):
        scaling = (_DIVISORS[kind], _INPUT_OFFSETS.get(kind, 0.0))
        if values.dtype == _BYTES[kind] and (dataset.divisor, dataset.input_offset) == scaling:
            return (values.view("S1") if kind == _Type.CHAR else values), kind
    if dataset.input_offset:
        raise ValueError(f"dataset {dataset.name}: only unsigned bytes have an input offset in a file, -0.5")
    if dataset.divisor != 1.0:
        values = values / dataset.divisor
    if values.dtype == np.float64:
        return values, _Type.DOUBLE
    return (values.astype(np.float32), _Type.FLOAT) if values.dtype.kind == "f" else _whole_values(values)


def _whole_values(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], _Type]:
    """In 4 bytes where they fit: DSSTNE reads none of 8."""
    least, most = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if least >= 0 and most < 1 << 32:
        return values.astype(np.uint32), _Type.UINT
    if least >= -(1 << 31) and most < 1 << 31:
        return values.astype(np.int32), _Type.INT
    return (values, _Type.ULLINT) if values.dtype == np.uint64 else (values.astype(np.int64), _Type.LLINT)
