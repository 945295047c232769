from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netcdf_types import NC_CHAR, NC_UINT, attribute_type

from trainer.data.netcdf import read_datasets, write_dataset
from trainer.errors import DataError
from trainer.sparse import SparseDataset


def dataset(name: str = "gl_input", *, analog: bool = False) -> SparseDataset:
    values = np.array([0.5, 2.0, -1.0], np.float32) if analog else None
    return SparseDataset(name, 128, np.array([0, 2, 2, 3]), np.array([5, 1, 127], np.uint32), values)


@pytest.mark.parametrize("analog", [True, False])
@pytest.mark.parametrize("name", ["gl_input", "größe"])
def test_a_dataset_written_is_read_again(tmp_path: Path, name: str, analog: bool):
    write_dataset(dataset(name, analog=analog), tmp_path / "d.nc")
    (found,) = read_datasets(tmp_path / "d.nc").values()
    assert (found.name, found.width) == (name, 128)
    assert (found.indptr.tolist(), found.indices.tolist()) == ([0, 2, 2, 3], [5, 1, 127])
    assert (None if found.values is None else found.values.tolist()) == ([0.5, 2.0, -1.0] if analog else None)


def test_strings_are_char_and_numbers_unsigned_as_the_original_needs_them(tmp_path: Path):
    write_dataset(dataset("größe"), tmp_path / "d.nc")
    with netCDF4.Dataset(tmp_path / "d.nc") as file:
        types = {name: attribute_type(file, name) for name in file.ncattrs()}
    assert types.pop("name0") == NC_CHAR
    assert set(types.values()) == {NC_UINT}


def broken(path: Path, variable: str, value: list[int]) -> Path:
    write_dataset(dataset(), path)
    with netCDF4.Dataset(path, "a") as file:
        file.variables[variable][:] = np.array(value, np.uint32)
    return path


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("sparseIndex0", [5, 128, 1], r"sparseIndex0\[1\] = 128 is not below the width 128"),
        ("sparseEnd0", [2, 1, 3], r"sparseEnd0\[1\] = 1 is before its start"),
        ("sparseEnd0", [2, 2, 9], r"sparseEnd0\[2\] = 9 is beyond the 3 entries"),
    ],
)
def test_a_bad_file_names_variable_and_position(tmp_path: Path, variable: str, value: list[int], expected: str):
    with pytest.raises(DataError, match=rf"d\.nc: {expected}"):
        read_datasets(broken(tmp_path / "d.nc", variable, value))


def test_what_is_no_dataset_is_refused(tmp_path: Path):
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(DataError, match="cannot be opened as NetCDF"):
        read_datasets(tmp_path / "text.nc")
    with netCDF4.Dataset(tmp_path / "empty.nc", "w"):
        pass
    with pytest.raises(DataError, match="has no attribute datasets"):
        read_datasets(tmp_path / "empty.nc")


FLOATS = st.floats(width=32, allow_nan=False)


@settings(max_examples=40)
@given(st.lists(st.lists(st.tuples(st.integers(0, 255), FLOATS), max_size=6), max_size=8), st.booleans())
def test_any_matrix_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[tuple[int, float]]], analog: bool
):
    entries = [entry for row in rows for entry in row]
    indptr = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    ids = np.array([feature for feature, _ in entries], np.uint32)
    values = np.array([value for _, value in entries], np.float32) if analog else None
    path = tmp_path_factory.mktemp("nc") / "d.nc"
    write_dataset(SparseDataset("d", 256, indptr, ids, values), path)
    found = read_datasets(path)["d"]
    assert (found.indptr.tolist(), found.indices.tolist(), found.width) == (indptr.tolist(), ids.tolist(), 256)
    assert (None if found.values is None else found.values.tolist()) == (None if values is None else values.tolist())


def test_rows_may_lie_anywhere_and_offsets_may_be_eight_bytes(tmp_path: Path):
    path = broken(tmp_path / "d.nc", "sparseStart0", [1, 0, 0])
    with netCDF4.Dataset(path, "a") as file:
        file.renameVariable("sparseEnd0", "was")
        file.createVariable("sparseEnd0", np.uint64, ("examplesDim0",))[:] = np.array([3, 0, 1], np.uint64)
    found = read_datasets(path)["gl_input"]
    assert (found.indptr.tolist(), found.indices.tolist()) == ([0, 2, 2, 3], [1, 127, 5])


def test_several_datasets_of_a_file_are_found_by_name(tmp_path: Path):
    write_dataset(dataset("first"), tmp_path / "d.nc")
    with netCDF4.Dataset(tmp_path / "d.nc", "a") as file:
        file.setncattr("datasets", np.uint32(2))
        file.setncattr("name1", "second")
        for name, value in (("attributes1", 1), ("dataType1", 8), ("dimensions1", 2), ("width1", 4), ("height1", 3)):
            file.setncattr(name, np.uint32(value))
        file.createDimension("examplesDim1", 1)
        file.createDimension("sparseDataDim1", 2)
        for name, value in (("sparseStart1", [0]), ("sparseEnd1", [2]), ("sparseIndex1", [11, 0])):
            file.createVariable(name, np.uint32, (f"{'sparseData' if len(value) > 1 else 'examples'}Dim1",))[:] = value
        file.createVariable("sparseData1", np.uint8, ("sparseDataDim1",))[:] = [128, 64]
    found = read_datasets(tmp_path / "d.nc")
    assert list(found) == ["first", "second"]
    second = found["second"]
    assert second.values is not None
    # Bytes are fixed-point: 256 would be 1.
    assert (second.width, second.indices.tolist(), second.values.tolist()) == (12, [11, 0], [0.5, 0.25])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda file: file.renameVariable("sparseData0", "x"), "has no variable sparseData0"),
        (lambda file: file.renameVariable("sparseEnd0", "x"), "has no variable sparseEnd0"),
        (lambda file: file.renameDimension("sparseDataDim0", "x"), "has no dimension sparseDataDim0"),
        (lambda file: file.delncattr("width0"), "has no attribute width0"),
        (lambda file: file.setncattr("datasets", np.uint32(2)), "has no attribute name1"),
        (lambda file: file.setncattr("datasets", "one"), "attribute datasets is 'one'; one whole number is wanted"),
        (lambda file: file.setncattr("name0", np.uint32(3)), "attribute name0 is .*3.*; text is wanted"),
        (lambda file: file.setncattr("dimensions0", np.uint32(4)), "dimensions0 is 4; 1 to 3 are wanted"),
        (lambda file: file.setncattr("dimensions0", np.uint32(2)), "has no attribute height0"),
        (lambda file: file.setncattr("attributes0", np.uint32(65)), "attributes 65 .* are not read yet"),
        (lambda file: file.setncattr("dataType0", np.uint32(77)), "attributes 1 and data type 77 are not read yet"),
        (lambda file: file.setncattr("width0", np.uint32(100)), r"sparseIndex0\[2\] = 127 is not below the width 100"),
    ],
)
def test_a_file_that_lacks_or_garbles_something_says_what(tmp_path: Path, spoil: Callable[[Any], None], expected: str):
    write_dataset(dataset(analog=True), tmp_path / "d.nc")
    with netCDF4.Dataset(tmp_path / "d.nc", "a") as file:
        spoil(file)
    with pytest.raises(DataError, match=rf"d\.nc: (dataset gl_input: )?{expected}"):
        read_datasets(tmp_path / "d.nc")


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path: Path):
    write_dataset(dataset("old"), tmp_path / "d.nc")
    with pytest.raises(OverflowError):
        write_dataset(replace(dataset("new"), width=1 << 40), tmp_path / "d.nc")
    assert list(read_datasets(tmp_path / "d.nc")) == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["d.nc"]
