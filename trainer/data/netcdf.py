"""The binary dataset on disk: DSSTNE's NetCDF layout (CSR, spec 2.2 to 2.5), with the types its reader needs:
strings as NC_CHAR, numbers as NC_UINT. Errors name file, variable and position.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt

from trainer.errors import DataError
from trainer.filing import replacing
from trainer.sparse import SparseDataset

_SPARSE, _BOOLEAN, _INDEXED, _WEIGHTED = 1, 2, 64, 128
_UINT, _FLOAT = 0, 4
_SCALES: Mapping[int, float] = {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0, 6: 256.0, 8: 256.0, 9: 128.0}
"""By data type: what a stored value is divided by. Bytes are fixed-point."""


def write_dataset(dataset: SparseDataset, path: Path) -> None:
    """Write one dataset, aside and renamed."""
    analog = dataset.values is not None
    with replacing(path) as aside, netCDF4.Dataset(aside, "w", format="NETCDF4") as file:
        # Bytes, since a string that is not ASCII would become NC_STRING, which DSSTNE cannot read.
        file.setncattr("datasets", np.uint32(1))
        file.setncattr("name0", np.bytes_(dataset.name.encode()))
        file.setncattr("attributes0", np.uint32(_SPARSE if analog else _SPARSE | _BOOLEAN))
        file.setncattr("kind0", np.uint32(0))
        file.setncattr("dataType0", np.uint32(_FLOAT if analog else _UINT))
        file.setncattr("dimensions0", np.uint32(1))
        file.setncattr("width0", np.uint32(dataset.width))
        # NetCDF takes a length of 0 for unlimited; so does the original's file.
        file.createDimension("examplesDim0", dataset.samples)
        file.createDimension("sparseDataDim0", dataset.nnz)
        _write(file, "sparseStart0", "examplesDim0", dataset.indptr[:-1].astype(np.uint32))
        _write(file, "sparseEnd0", "examplesDim0", dataset.indptr[1:].astype(np.uint32))
        _write(file, "sparseIndex0", "sparseDataDim0", dataset.indices.astype(np.uint32))
        if dataset.values is not None:
            _write(file, "sparseData0", "sparseDataDim0", dataset.values.astype(np.float32))


def read_datasets(path: Path) -> dict[str, SparseDataset]:
    """The sparse datasets of a file by name, in file order. They carry no sample or feature names."""
    try:
        file = netCDF4.Dataset(path, "r")
    except OSError as error:
        raise DataError(f"cannot be opened as NetCDF: {error.strerror or error}", path) from error
    with file:
        file.set_auto_mask(False)
        count = _number(file, path, "datasets")
        found = [_read(file, path, number) for number in range(count)]
    return {dataset.name: dataset for dataset in found}


def _write(file: Any, name: str, dimension: str, values: npt.NDArray[Any]) -> None:
    variable = file.createVariable(name, values.dtype, (dimension,), contiguous=len(values) > 0)
    variable[:] = values


def _read(file: Any, path: Path, number: int) -> SparseDataset:
    name = _attribute(file, path, f"name{number}")
    if not isinstance(name, str):
        raise DataError(f"attribute name{number} is {name!r}; text is wanted", path)
    bits = _number(file, path, f"attributes{number}")
    kind = _number(file, path, f"dataType{number}")
    if not bits & _SPARSE or bits & (_INDEXED | _WEIGHTED) or kind not in _SCALES:
        raise DataError(
            f"dataset {name}: attributes {bits} and data type {kind} are not read yet; only sparse datasets are",
            path,
        )
    width = _width(file, path, number)
    nnz = _length(file, path, f"sparseDataDim{number}")
    starts = _integers(file, path, f"sparseStart{number}")
    ends = _integers(file, path, f"sparseEnd{number}")
    _check_offsets(starts, ends, nnz=nnz, path=path, number=number)
    indices = _integers(file, path, f"sparseIndex{number}")
    _check_length(indices, f"sparseIndex{number}", nnz, path)
    _check(indices >= 0, f"sparseIndex{number}", "is negative", indices, path)
    _check(indices < width, f"sparseIndex{number}", f"is not below the width {width}", indices, path)
    values = None
    if not bits & _BOOLEAN:
        values = (_variable(file, path, f"sparseData{number}") / _SCALES[kind]).astype(np.float32)
        _check_length(values, f"sparseData{number}", nnz, path)
    indptr, order = _as_csr(starts, ends, nnz)
    return SparseDataset(
        name=name,
        width=width,
        indptr=indptr,
        indices=indices.astype(np.uint32)[order],
        values=None if values is None else values[order],
    )


def _width(file: Any, path: Path, number: int) -> int:
    dimensions = _number(file, path, f"dimensions{number}")
    if not 1 <= dimensions <= 3:
        raise DataError(f"dimensions{number} is {dimensions}; 1 to 3 are wanted", path)
    width = 1
    for side in ("width", "height", "length")[:dimensions]:
        width *= _number(file, path, f"{side}{number}")
    return width


def _check_offsets(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], *, nnz: int, path: Path, number: int
) -> None:
    if len(starts) != len(ends):
        raise DataError(f"sparseStart{number} has {len(starts)} entries, sparseEnd{number} {len(ends)}", path)
    _check(starts >= 0, f"sparseStart{number}", "is negative", starts, path)
    _check(ends >= starts, f"sparseEnd{number}", "is before its start", ends, path)
    _check(ends <= nnz, f"sparseEnd{number}", f"is beyond the {nnz} entries of sparseIndex{number}", ends, path)


def _check(holds: npt.NDArray[np.bool_], name: str, complaint: str, values: npt.NDArray[np.int64], path: Path) -> None:
    if not holds.all():
        place = int(np.argmin(holds))
        raise DataError(f"{name}[{place}] = {values[place]} {complaint}", path)


def _check_length(values: npt.NDArray[Any], name: str, nnz: int, path: Path) -> None:
    if values.shape != (nnz,):
        raise DataError(f"{name} has {values.size} entries, its dimension promises {nnz}", path)


def _as_csr(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], nnz: int) -> tuple[npt.NDArray[np.int64], Any]:
    """Row pointers and the order that puts the entries of each row one after another."""
    lengths = ends - starts
    indptr = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    if np.array_equal(indptr[:-1], starts) and indptr[-1] == nnz:
        return indptr, slice(None)
    return indptr, np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])


def _attribute(file: Any, path: Path, name: str) -> Any:
    # An older writer spells dataType with a small t.
    for spelled in (name, name.replace("dataType", "datatype")):
        if spelled in file.ncattrs():
            return file.getncattr(spelled)
    raise DataError(f"has no attribute {name}; is it a dataset of generateNetCDF?", path)


def _number(file: Any, path: Path, name: str) -> int:
    value = _attribute(file, path, name)
    if not isinstance(value, np.integer):
        raise DataError(f"attribute {name} is {value!r}; one whole number is wanted", path)
    return int(value)


def _length(file: Any, path: Path, name: str) -> int:
    if name not in file.dimensions:
        raise DataError(f"has no dimension {name}", path)
    return len(file.dimensions[name])


def _variable(file: Any, path: Path, name: str) -> npt.NDArray[Any]:
    if name not in file.variables:
        raise DataError(f"has no variable {name}", path)
    return np.asarray(file.variables[name][:])


def _integers(file: Any, path: Path, name: str) -> npt.NDArray[np.int64]:
    values = _variable(file, path, name)
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"{name} holds {values.dtype}, whole numbers are wanted", path)
    return values.astype(np.int64)
