"""The binary dataset on disk: DSSTNE's NetCDF layout (spec 2.2 to 2.6), sparse or dense, any number a file, with
the types its reader needs: strings as NC_CHAR, numbers as NC_UINT. Errors name file, variable and position.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.netcdf_items import Items, created, opened
from trainer.data.netcdf_parts import (
    BYTES,
    DIVISORS,
    INPUT_OFFSETS,
    DataType,
    analog,
    classes,
    features,
    numbers,
    single,
)
from trainer.dense import DenseDataset
from trainer.filing import replacing
from trainer.sparse import SparseDataset
from trainer.stored import Place, Stored, blocks

Dataset = SparseDataset | DenseDataset

DATA_MEMORY_BYTES = 1 << 30
"""That features and values of a file's datasets may take before they stay in the file."""

_SPARSE, _BOOLEAN, _IGNORE_ZERO, _INDEXED, _WEIGHTED = 1, 2, 32, 64, 128
_SIDES = ("width", "height", "length")
_MOST_UNITS = (1 << 31) - 1
"""Batches number features in int32."""
_TYPE_NAMES: Mapping[DataType, str] = dict(
    zip(DataType, ("UInt", "Int", "LLInt", "ULLInt", "Float", "Double", "RGB8", "RGB16", "UChar", "Char"), strict=True)
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


def read_datasets(
    path: Path, *, memory_bytes: float = DATA_MEMORY_BYTES, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Dataset]:
    """The datasets of a file by name, in file order; each is told of as DSSTNE does (spec 2.4). They carry no sample or
    feature names. Features and values of those that do not fit in what is left of `memory_bytes` are checked, too, but
    stay in the file, which must then stay as it is.

    A file that is no such file, or that lacks or garbles anything, raises `DataError`.
    """
    found: dict[str, Dataset] = {}
    with opened(path) as file:
        for number in range(Items(file, path).number("datasets", least=1)):
            items = Items(file, path, str(number))
            head = _head(items)
            read = _read_sparse if head.bits & _SPARSE else _read_dense
            dataset = read(items, head, memory_bytes)
            memory_bytes -= held_bytes(dataset)
            for line in _description(head, dataset):
                tell(line)
            if dataset.name in found:
                raise items.error(f"holds two datasets named {dataset.name}")
            found[dataset.name] = dataset
    return found


def held_bytes(dataset: Dataset) -> int:
    """Bytes of memory that features and values of a dataset take: none where they stay in a file."""
    arrays = (dataset.indices, dataset.values) if isinstance(dataset, SparseDataset) else (dataset.values,)
    return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))


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
    kind: DataType
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
    if kind not in list(DataType):
        raise items.error(f"dataset {name}: data type {kind} is unknown; 0 to {max(DataType)} are wanted")
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
    return _Head(name, bits, DataType(kind), sides, units, stored, rows, weights)


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
    return single(weights)


def _read_sparse(items: Items, head: _Head, memory_bytes: float) -> SparseDataset:
    nnz = items.length("sparseDataDim")
    starts, ends = items.whole("sparseStart", head.stored), items.whole("sparseEnd", head.stored)
    items.check(ends >= starts, "sparseEnd", "is before its start", ends)
    items.check(ends <= nnz, "sparseEnd", f"is beyond the {nnz} entries of sparseIndex{items.suffix}", ends)
    parts = [features(items, head.units, nnz)]
    if not head.bits & _BOOLEAN:
        parts.append(analog(items, head.kind, nnz))
    indptr, place = _as_csr(starts.astype(np.int64), ends.astype(np.int64), nnz)
    arrays: list[Any]
    if sum(part.entries.nbytes for part in parts) > memory_bytes:
        arrays = [part.stored((int(indptr[-1]),), place) for part in parts]
    else:
        order = slice(None) if place is None else place(np.arange(indptr[-1]))
        arrays = [part.loaded()[order] for part in parts]
    return SparseDataset(
        name=head.name,
        width=head.units,
        indptr=indptr,
        indices=arrays[0],
        values=arrays[1] if len(arrays) > 1 else None,
        sides=head.sides,
        weights=head.weights,
        rows=head.rows,
        ignore_zero=bool(head.bits & _IGNORE_ZERO),
    )


def _read_dense(items: Items, head: _Head, memory_bytes: float) -> DenseDataset:
    one_hot = bool(head.bits & _BOOLEAN)
    size = items.length("dataDim")
    wanted = head.stored * (1 if one_hot else head.units)
    if size != wanted:
        raise items.error(f"dimension dataDim{items.suffix} is {size}; {head.stored} rows have {wanted} values")
    part = classes(items, head.units, size) if one_hot else numbers(items, head.kind, size)
    shape = (head.stored,) if one_hot else (head.stored, head.units)
    return DenseDataset(
        name=head.name,
        sides=head.sides,
        values=part.stored(shape) if part.entries.nbytes > memory_bytes else part.loaded().reshape(shape),
        one_hot=one_hot,
        # A class stands for 1, whatever the type of its number.
        divisor=1.0 if one_hot else DIVISORS.get(head.kind, 1.0),
        input_offset=0.0 if one_hot else INPUT_OFFSETS.get(head.kind, 0.0),
        weights=head.weights,
        rows=head.rows,
    )


def _as_csr(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], nnz: int
) -> tuple[npt.NDArray[np.int64], Place | None]:
    """Row pointers, and where to find the entries of each row one after another, if they do not lie so."""
    indptr = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(ends - starts, out=indptr[1:])
    if np.array_equal(indptr[:-1], starts) and indptr[-1] == nnz:
        return indptr, None
    shifts = starts - indptr[:-1]
    return indptr, lambda entries: entries + shifts[np.searchsorted(indptr, entries, side="right") - 1]


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
    indptr, place = _as_csr(dataset.indptr[rows], dataset.indptr[rows + 1], dataset.nnz)
    order = slice(None) if place is None else place(np.arange(indptr[-1]))
    values = None if dataset.values is None else dataset.values[order]
    return replace(dataset, indptr=indptr, indices=dataset.indices[order], values=values, rows=None)


def _write(file: Any, suffix: str, dataset: Dataset) -> None:
    kind, stored = _kind_and_type(dataset)
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
    _write_data(file, suffix, dataset, stored)
    if dataset.weights is not None:
        _put(file, f"dataWeight{suffix}", f"examplesDim{suffix}", dataset.weights, np.float32)
    if dataset.rows is not None:
        _put(file, f"index{suffix}", f"examplesDim{suffix}", dataset.rows, np.uint32)


def _write_data(file: Any, suffix: str, dataset: Dataset, stored: npt.DTypeLike) -> None:
    rows = f"examplesDim{suffix}"
    sparse = isinstance(dataset, SparseDataset)
    if dataset.rows is not None:
        rows = f"uniqueExamplesDim{suffix}"
        file.createDimension(rows, len(dataset.indptr) - 1 if sparse else len(dataset.values))
    data = "sparseData" if sparse else "data"
    file.createDimension(f"{data}Dim{suffix}", dataset.nnz if sparse else dataset.values.size)
    if sparse:
        offsets = np.uint32 if dataset.indptr[-1] < 1 << 32 else np.uint64
        _put(file, f"sparseStart{suffix}", rows, dataset.indptr[:-1], offsets)
        _put(file, f"sparseEnd{suffix}", rows, dataset.indptr[1:], offsets)
        _put(file, f"sparseIndex{suffix}", f"sparseDataDim{suffix}", dataset.indices, np.uint32)
    divisor = 1.0 if sparse or np.dtype(stored).itemsize == 1 else dataset.divisor
    if dataset.values is not None:
        _put(file, f"{data}{suffix}", f"{data}Dim{suffix}", dataset.values, stored, divisor=divisor)


def _put(
    file: Any,
    name: str,
    dimension: str,
    values: npt.NDArray[Any] | Stored,
    stored: npt.DTypeLike,
    *,
    divisor: float = 1.0,
) -> None:
    variable = file.createVariable(name, stored, (dimension,), contiguous=values.size > 0)
    first = 0
    for block in blocks(values):
        entries = block.reshape(-1)  # [rows, units] -> [rows * units]
        entries = entries if divisor == 1.0 else entries / divisor
        is_text = np.dtype(stored).kind == "S"
        variable[first : first + len(entries)] = entries.view(stored) if is_text else entries.astype(stored, copy=False)
        first += len(entries)


def _bits(dataset: Dataset) -> int:
    bits = _INDEXED * (dataset.rows is not None) | _WEIGHTED * (dataset.weights is not None)
    if isinstance(dataset, DenseDataset):
        return bits | _BOOLEAN * dataset.one_hot
    return bits | _SPARSE | _BOOLEAN * (dataset.values is None) | _IGNORE_ZERO * dataset.ignore_zero


def _kind_and_type(dataset: Dataset) -> tuple[DataType, npt.DTypeLike]:
    """The type a file says its data have, and the one they are stored as."""
    if isinstance(dataset, SparseDataset):
        return (DataType.UINT, np.uint32) if dataset.values is None else (DataType.FLOAT, np.float32)
    values = dataset.values
    if dataset.one_hot:
        return _whole(values)
    for kind in (DataType.UCHAR, DataType.CHAR):
        scaling = (DIVISORS[kind], INPUT_OFFSETS.get(kind, 0.0))
        if values.dtype == BYTES[kind] and (dataset.divisor, dataset.input_offset) == scaling:
            return kind, "S1" if kind == DataType.CHAR else np.uint8
    if dataset.input_offset:
        raise ValueError(f"dataset {dataset.name}: only unsigned bytes have an input offset in a file, -0.5")
    divided = values.dtype if dataset.divisor == 1.0 else (np.zeros(0, values.dtype) / dataset.divisor).dtype
    if divided == np.float64:
        return DataType.DOUBLE, np.float64
    return (DataType.FLOAT, np.float32) if divided.kind == "f" else _whole(values)


def _whole(values: npt.NDArray[Any] | Stored) -> tuple[DataType, npt.DTypeLike]:
    """In 4 bytes where they fit: DSSTNE reads none of 8."""
    limits = [(int(block.min()), int(block.max())) for block in blocks(values) if block.size]
    least, most = min((low for low, _ in limits), default=0), max((high for _, high in limits), default=0)
    if least >= 0 and most < 1 << 32:
        return DataType.UINT, np.uint32
    if least >= -(1 << 31) and most < 1 << 31:
        return DataType.INT, np.int32
    return (DataType.ULLINT, np.uint64) if values.dtype == np.uint64 else (DataType.LLINT, np.int64)
