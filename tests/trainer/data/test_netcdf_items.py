import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from netcdf_files import broken, by_hand, one_hot
from netcdf_files import small_dataset as dataset

from trainer.data import netcdf_parts
from trainer.data.netcdf import read_datasets, write_dataset, write_datasets
from trainer.data.plain import Plain
from trainer.dense import DenseDataset
from trainer.errors import DataError
from trainer.sparse import SparseDataset
from trainer.stored import Stored

IN_MEMORY_OR_LEFT = pytest.mark.parametrize("memory_bytes", [1 << 30, 0], ids=["in memory", "left in the file"])


@IN_MEMORY_OR_LEFT
@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("sparseIndex0", [5, 128, 1], r"sparseIndex0\[1\] = 128 is not below the width 128"),
        ("sparseEnd0", [2, 1, 3], r"sparseEnd0\[1\] = 1 is before its start"),
        ("sparseEnd0", [2, 2, 9], r"sparseEnd0\[2\] = 9 is beyond the 3 entries"),
    ],
)
def test_a_bad_file_names_variable_and_position(
    tmp_path: Path, variable: str, value: list[int], expected: str, memory_bytes: int
):
    with pytest.raises(DataError, match=rf"d\.nc: {expected}"):
        read_datasets(broken(tmp_path / "d.nc", variable, value), memory_bytes=memory_bytes)


F32, U32 = np.float32, np.uint32


@IN_MEMORY_OR_LEFT
@pytest.mark.parametrize(
    ("classes", "more", "expected"),
    [
        ([3, 4, 1], {}, r"data0\[1\] = 4 is not below the 4 units"),
        ([3, 2], {}, r"dataset d: 2 rows for 3 examples need the attribute Indexed"),
        ([3, 2], {"index": np.array([0, 2, 1], U32)}, r"index0\[1\] = 2 is not below the 2 rows stored"),
        ([3, 2], {"index": np.array([0, -2, 1])}, r"index0\[1\] = -2 is negative"),
        ([3, 2], {"index": np.array([0, 1, 1], F32)}, r"index0 holds float32, whole numbers are wanted"),
        ([3, 2, 1], {"dataWeight": np.array([1, np.nan, 1], F32)}, r"dataWeight0\[1\] = nan is no finite number"),
        ([3, 2, 1], {"dataWeight": np.array([1, 2, np.inf], F32)}, r"dataWeight0\[2\] = inf is no finite number"),
        ([3, 2, 1], {"dataWeight": np.array([b"1", b"2", b"3"])}, r"dataWeight0 holds \|S1, numbers are wanted"),
        (
            [0, 1, 2, 3],
            {"index": np.array([0, 3, 1], U32), "dataWeight": np.ones(3, F32)},
            r"index0\[1\] = 3 is not below the 3 entries of dataWeight0",
        ),
    ],
)
def test_classes_rows_and_weights_are_checked(
    tmp_path: Path, classes: list[int], more: Any, expected: str, memory_bytes: int
):
    with pytest.raises(DataError, match=rf"d\.nc: {expected}"):
        read_datasets(one_hot(tmp_path / "d.nc", classes, **more), memory_bytes=memory_bytes)


@IN_MEMORY_OR_LEFT
@pytest.mark.parametrize(
    ("number", "size", "values", "expected"),
    [
        (4, 6, np.zeros(6, F32), "dimension dataDim0 is 6; 2 rows have 4 values"),
        (1, 4, np.zeros(4, F32), "data0 holds float32, whole numbers are wanted"),
        (8, 4, np.array([0, 256, 0, 0]), r"data0\[1\] = 256 is not within 0 to 255"),
        (9, 4, np.array([0, 0, -129, 0]), r"data0\[2\] = -129 is not within -128 to 127"),
        (8, 4, np.array([b"a", b"b", b"c", b"d"]), r"data0 holds \|S1, numbers are wanted"),
    ],
)
def test_dense_data_is_checked(tmp_path: Path, number: int, size: int, values: Any, expected: str, memory_bytes: int):
    head = {"name": "d", "attributes": 0, "dataType": number, "dimensions": 1, "width": 2}
    path = by_hand(tmp_path / "d.nc", head, {"examplesDim": 2, "dataDim": size}, {"data": ("dataDim", values)})
    with pytest.raises(DataError, match=rf"d\.nc: {expected}"):
        read_datasets(path, memory_bytes=memory_bytes)


def test_what_is_no_dataset_is_refused(tmp_path: Path):
    for name, content in {
        "text": b"hello",
        "none": b"",
        "noise": bytes(range(256)) * 9,
        "hdf": b"\x89HDF\r\n\x1a\n",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: cannot be opened as NetCDF"):
            read_datasets(tmp_path / name)
    for path in (tmp_path, tmp_path / "missing.nc"):
        with pytest.raises(DataError, match="cannot be opened as NetCDF"):
            read_datasets(path)
    with netCDF4.Dataset(tmp_path / "empty.nc", "w"):
        pass
    with pytest.raises(DataError, match="has no attribute datasets"):
        read_datasets(tmp_path / "empty.nc")


@pytest.mark.parametrize("empty", [{"indptr": np.array([0])}, {"indptr": np.array([0, 0])}])
def test_a_dataset_of_nothing_is_written_but_not_read(tmp_path: Path, empty: Any):
    write_dataset(replace(dataset(), indices=np.zeros(0, np.uint32), **empty), tmp_path / "d.nc")
    with pytest.raises(DataError, match=r"dimension (examplesDim0|sparseDataDim0) is 0; at least 1 is wanted"):
        read_datasets(tmp_path / "d.nc")


def number(name: str, value: int) -> Callable[[Any], None]:
    return lambda file: file.setncattr(name, np.uint32(value))


def values_of_other_length(file: Any) -> None:
    file.renameVariable("sparseData0", "was")
    file.createVariable("sparseData0", np.float32, ("examplesDim0",))[:] = 1.0


def strings(file: Any) -> None:
    file.renameVariable("sparseIndex0", "was")
    file.createVariable("sparseIndex0", str, ("sparseDataDim0",))[:] = np.array(["a", "b", "c"], object)


def lists(file: Any) -> None:
    file.renameVariable("sparseData0", "was")
    variable = file.createVariable("sparseData0", file.createVLType(np.float32, "lists"), ("sparseDataDim0",))
    variable[0] = np.ones(2, np.float32)


def a_variable_for_an_attribute(file: Any) -> None:
    file.delncattr("width0")
    file.createVariable("width0", np.uint32, ())[...] = 128


def the_same_name_again(file: Any) -> None:
    file.setncattr("datasets", np.uint32(2))
    for name in [name for name in file.ncattrs() if name.endswith("0")]:
        file.setncattr(f"{name[:-1]}1", file.getncattr(name))
    for name, one in list(file.dimensions.items()):
        file.createDimension(f"{name[:-1]}1", len(one))
    for name, one in list(file.variables.items()):
        file.createVariable(f"{name[:-1]}1", one.dtype, [f"{one.dimensions[0][:-1]}1"])[:] = one[:]


@IN_MEMORY_OR_LEFT
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda file: file.renameVariable("sparseData0", "x"), "has no variable sparseData0"),
        (lambda file: file.renameVariable("sparseStart0", "x"), "has no variable sparseStart0"),
        (lambda file: file.renameVariable("sparseEnd0", "x"), "has no variable sparseEnd0"),
        (lambda file: file.renameVariable("sparseIndex0", "x"), "has no variable sparseIndex0"),
        (lambda file: file.renameDimension("sparseDataDim0", "x"), "has no dimension sparseDataDim0"),
        (lambda file: file.renameDimension("examplesDim0", "x"), "has no dimension examplesDim0"),
        *(
            (lambda file, name=name: file.delncattr(name), f"has no attribute {name}")
            for name in ("datasets", "name0", "attributes0", "dataType0", "dimensions0", "width0")
        ),
        (number("datasets", 2), "has no attribute name1"),
        (number("datasets", 0), "attribute datasets is 0; at least 1 is wanted"),
        (lambda file: file.setncattr("datasets", "one"), "attribute datasets is 'one'; one whole number is wanted"),
        (lambda file: file.setncattr("datasets", np.array([1, 2])), "attribute datasets is .*; one whole number"),
        (lambda file: file.setncattr("attributes0", np.int32(-1)), "attribute attributes0 is -1; at least 0 is wanted"),
        (number("name0", 3), "attribute name0 is .*3.*; printable text is wanted"),
        (lambda file: file.setncattr("name0", "a\nb"), r"attribute name0 is 'a\\nb'; printable text is wanted"),
        (
            lambda file: file.setncattr("name0", np.arange(99)),
            r"attribute name0 is array\(\[ 0,.*\.\.\..*; printable text",
        ),
        (number("dimensions0", 4), "dimensions0 is 4; 1 to 3 are wanted"),
        (number("dimensions0", 0), "dimensions0 is 0; 1 to 3 are wanted"),
        (number("dimensions0", 2), "has no attribute height0"),
        (number("width0", 0), "attribute width0 is 0; at least 1 is wanted"),
        (number("width0", 1 << 31), "2147483648 units are more than 2147483647"),
        (number("attributes0", 65), "has no variable index0"),
        (number("attributes0", 129), "has no variable dataWeight0"),
        (number("attributes0", 0), "has no dimension dataDim0"),
        (number("dataType0", 77), "data type 77 is unknown; 0 to 9 are wanted"),
        (number("width0", 100), r"sparseIndex0\[2\] = 127 is not below the width 100"),
        (values_of_other_length, "sparseData0 has 2 entries, its dimension promises 3"),
        (strings, "sparseIndex0 holds <class 'str'>, numbers are wanted"),
        (lists, "sparseData0 holds lists, numbers are wanted"),
        (a_variable_for_an_attribute, "has no attribute width0"),
        (the_same_name_again, "holds two datasets named gl_input"),
    ],
)
def test_a_file_that_lacks_or_garbles_something_says_what(
    tmp_path: Path, spoil: Callable[[Any], None], expected: str, memory_bytes: int
):
    three = dataset(analog=True)
    write_dataset(replace(three, indptr=np.array([0, 2, 3])), tmp_path / "d.nc")
    with netCDF4.Dataset(tmp_path / "d.nc", "a") as file:
        spoil(file)
    with pytest.raises(DataError, match=rf"d\.nc: (dataset gl_input: )?{expected}"):
        read_datasets(tmp_path / "d.nc", memory_bytes=memory_bytes)


@IN_MEMORY_OR_LEFT
def test_a_file_cut_short_is_refused_wherever_it_ends(tmp_path: Path, memory_bytes: int):
    image = DenseDataset("image", (2,), np.array([[1, 2]], np.uint8), divisor=256.0, input_offset=-0.5)
    write_datasets(tmp_path / "d.nc", [dataset(analog=True), image])
    whole = (tmp_path / "d.nc").read_bytes()
    for length in np.linspace(0, len(whole) - 1, 60).astype(int):
        path = tmp_path / f"{length}.nc"
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=f"{length}.nc: "):
            read_datasets(path, memory_bytes=memory_bytes)


def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(tmp_path: Path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"d\.nc: cannot be written: "):
            write_datasets(tmp_path / "d.nc", [DenseDataset("d", (10_000,), np.zeros((1, 10_000), np.float32))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_far_into_a_large_file_is_found_before_any_of_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(netcdf_parts, "ENTRIES_AT_ONCE", 4)
    ids = np.array([5, 1, 127, 0, 0, 0, 0, 0, 0, 128, 0], np.uint32)
    write_dataset(SparseDataset("gl", 128, np.array([0, 3, 11]), ids), tmp_path / "d.nc")
    with pytest.raises(DataError, match=r"d\.nc: sparseIndex0\[9\] = 128 is not below the width 128"):
        read_datasets(tmp_path / "d.nc", memory_bytes=0)


def test_what_stays_in_a_file_that_changes_or_goes_is_an_error(tmp_path: Path):
    write_dataset(dataset(), tmp_path / "d.nc")
    left = read_datasets(tmp_path / "d.nc", memory_bytes=0)["gl_input"]
    assert isinstance(left, SparseDataset)
    assert left.indices[1:].tolist() == [1, 127]
    with (tmp_path / "d.nc").open("r+b") as file:
        file.truncate(9000)
    with pytest.raises(DataError, match=r"d\.nc: has changed since it was checked"):
        left.indices[1:]
    (tmp_path / "d.nc").unlink()
    with pytest.raises(DataError, match=r"d\.nc: cannot be read: No such file"):
        left.indices[1:]


@pytest.mark.parametrize("how", [{"zlib": True}, {"fletcher32": True, "shuffle": True, "zlib": True}], ids=str)
def test_entries_that_do_not_lie_plain_in_their_file_are_read_by_the_library(tmp_path: Path, how: dict[str, Any]):
    path = one_hot(tmp_path / "d.nc", [3, 0, 1])
    with netCDF4.Dataset(path, "a") as file:
        file.renameVariable("data0", "old")
        file.createVariable("data0", np.uint16, ("dataDim0",), **how)[:] = [3, 0, 1]
    left = read_datasets(path, memory_bytes=0)["d"]
    assert isinstance(left, DenseDataset)
    assert isinstance(left.values, Stored)
    assert not isinstance(getattr(left.values.read, "__self__", None), Plain)
    assert left.values[np.array([2, 0, 1, 0])].tolist() == [1, 3, 0, 3]
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(DataError, match=r"d\.nc: has changed since it was checked"):
        left.values[:]


def test_entries_that_begin_like_others_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(netcdf_parts, "_HEAD_ENTRIES", 2)
    values = [np.array([[5, 6, last]], np.uint32) for last in (7, 8)]
    write_datasets(tmp_path / "d.nc", [DenseDataset(f"d{n}", (3,), array) for n, array in enumerate(values)])
    found = read_datasets(tmp_path / "d.nc", memory_bytes=0)
    assert [np.asarray(one.values).tolist() for one in found.values()] == [array.tolist() for array in values]


def test_large_data_has_one_dimension(tmp_path: Path):
    path = one_hot(tmp_path / "d.nc", [3, 0, 1])
    with netCDF4.Dataset(path, "a") as file:
        file.renameVariable("data0", "old")
        file.createDimension("one", 1)
        file.createVariable("data0", np.uint8, ("one", "dataDim0"))[:] = [3, 0, 1]
    found = read_datasets(path)["d"]
    assert isinstance(found, DenseDataset)
    assert found.values[:].tolist() == [3, 0, 1]
    with pytest.raises(DataError, match=r"d\.nc: data0 has 2 dimensions, 1 is wanted where data are large"):
        read_datasets(path, memory_bytes=0)
