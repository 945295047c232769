from pathlib import Path

import netCDF4
import numpy as np
import pytest

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
        # NC_STRING attributes come back as str objects in a list; NC_CHAR as one text.
        assert file.getncattr("name0") == "größe"
        numbers = {name: file.getncattr(name).dtype for name in file.ncattrs() if name != "name0"}
    assert set(numbers.values()) == {np.dtype(np.uint32)}


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
    with pytest.raises(DataError, match=expected):
        read_datasets(broken(tmp_path / "d.nc", variable, value))


def test_what_is_no_dataset_is_refused(tmp_path: Path):
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(DataError, match="cannot be opened as NetCDF"):
        read_datasets(tmp_path / "text.nc")
    with netCDF4.Dataset(tmp_path / "empty.nc", "w"):
        pass
    with pytest.raises(DataError, match="has no attribute datasets"):
        read_datasets(tmp_path / "empty.nc")
