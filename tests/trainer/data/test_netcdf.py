from dataclasses import replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netcdf_files import SPARSE, broken, by_hand, one_hot
from netcdf_files import small_dataset as dataset
from netcdf_types import NC_CHAR, NC_UINT, attribute_type

from trainer.data.netcdf import Dataset, held_bytes, read_datasets, write_dataset, write_datasets
from trainer.dense import DenseDataset
from trainer.sparse import SparseDataset
from trainer.stored import Stored


def plain(found: Dataset) -> dict[str, Any]:
    """Fields as what can be compared."""
    names = ("name", "width", "sides", "samples", "indptr", "indices", "values", "weights", "rows")
    names += ("ignore_zero", "one_hot", "divisor", "input_offset")
    fields = {name: getattr(found, name) for name in names if hasattr(found, name)}
    return {
        name: np.asarray(value).tolist() if isinstance(value, np.ndarray | Stored) else value
        for name, value in fields.items()
    }


def both(path: Path, **more: Any) -> dict[str, Any]:
    """The datasets of a file in memory, once those left in it are found to be the same and written as the same file."""
    found, left = read_datasets(path, **more), read_datasets(path, memory_bytes=0)
    assert list(found) == list(left)
    for one, other in zip(found.values(), left.values(), strict=True):
        assert plain(one) == plain(other)
        assert (held_bytes(one) > 0, held_bytes(other)) == (True, 0)
        kept = [getattr(other, name) for name in ("indices", "values") if getattr(other, name, None) is not None]
        held = [getattr(one, name) for name in ("indices", "values") if getattr(one, name, None) is not None]
        assert [(array.dtype, array.shape) for array in kept] == [(array.dtype, array.shape) for array in held]
        assert all(isinstance(array, Stored) for array in kept)
    for name, datasets in (("memory.nc", found), ("file.nc", left)):
        write_datasets(path.with_name(name), list(datasets.values()))
    assert path.with_name("memory.nc").read_bytes() == path.with_name("file.nc").read_bytes()
    return found


@pytest.mark.parametrize("analog", [True, False])
@pytest.mark.parametrize("name", ["gl_input", "größe"])
def test_a_dataset_written_is_read_again(tmp_path: Path, name: str, analog: bool):
    write_dataset(dataset(name, analog=analog), tmp_path / "d.nc")
    (found,) = both(tmp_path / "d.nc").values()
    assert isinstance(found, SparseDataset)
    assert (found.name, found.width) == (name, 128)
    assert (found.indptr.tolist(), found.indices.tolist()) == ([0, 2, 2, 3], [5, 1, 127])
    assert (None if found.values is None else found.values.tolist()) == ([0.5, 2.0, -1.0] if analog else None)


ROWS = np.array([2, 0, 2, 1], np.int64)
WEIGHTS = np.array([0.5, 2.0, 0.5, 0.0], np.float32)


def variants(plain_one: Any) -> list[Any]:
    """The dataset of three rows as it is, weighted, indexed, and both."""
    return [
        plain_one,
        replace(plain_one, weights=WEIGHTS[:3]),
        replace(plain_one, rows=ROWS),
        replace(plain_one, rows=ROWS, weights=WEIGHTS),
    ]


@pytest.mark.parametrize("sides", [(128,), (16, 8), (8, 4, 4)])
@pytest.mark.parametrize("analog", [True, False])
@pytest.mark.parametrize("ignore_zero", [True, False])
def test_sparse_datasets_of_every_kind_are_read_as_written(
    tmp_path: Path, sides: tuple[int, ...], analog: bool, ignore_zero: bool
):
    for number, one in enumerate(variants(replace(dataset(analog=analog), sides=sides, ignore_zero=ignore_zero))):
        write_datasets(tmp_path / f"{number}.nc", [one])
        assert plain(both(tmp_path / f"{number}.nc")["gl_input"]) == plain(one)


DENSE = {
    "whole": DenseDataset("d", (2,), np.array([[0, 1], [2, 3], [4, 1 << 31]], np.uint32)),
    "signed": DenseDataset("d", (2,), np.array([[-1, 1], [2, 3], [4, 5]], np.int32)),
    "wide": DenseDataset("d", (2,), np.array([[-1, 1], [2, 3], [4, 1 << 40]])),
    "wide, unsigned": DenseDataset("d", (2,), np.array([[0, 1], [2, 3], [4, (1 << 64) - 1]], np.uint64)),
    "single": DenseDataset("d", (3, 2), np.linspace(-1, 1, 18, dtype=np.float32).reshape(3, 6)),
    "double": DenseDataset("d", (1, 2, 3), np.linspace(-1, 1, 18).reshape(3, 6)),
    "image": DenseDataset("d", (2,), np.array([[0, 1], [2, 128], [4, 255]], np.uint8), False, 256.0, -0.5),
    "bytes": DenseDataset("d", (2,), np.array([[0, 1], [2, -128], [10, 127]], np.int8), False, 128.0),
    "one-hot": DenseDataset("d", (2, 5), np.array([0, 9, 3], np.uint32), one_hot=True),
}


@pytest.mark.parametrize("kind", DENSE)
def test_dense_datasets_of_every_type_are_read_as_written(tmp_path: Path, kind: str):
    for number, one in enumerate(variants(DENSE[kind])):
        write_datasets(tmp_path / f"{number}.nc", [one])
        assert plain(both(tmp_path / f"{number}.nc")["d"]) == plain(one)


def test_what_has_no_type_of_its_own_keeps_its_value(tmp_path: Path):
    halves = DenseDataset("halves", (2,), np.array([[1, 2]]), divisor=2.0)
    flags = DenseDataset("flags", (2,), np.array([[True, False]]))
    short = DenseDataset("short", (2,), np.array([[0.5, 2.0]], np.float16))
    write_datasets(tmp_path / "d.nc", [halves, flags, short])
    found = both(tmp_path / "d.nc")
    assert [one.values.tolist() for one in found.values() if one.values is not None] == [
        [[0.5, 1]],
        [[1, 0]],
        [[0.5, 2]],
    ]
    with pytest.raises(ValueError, match="only unsigned bytes have an input offset"):
        write_datasets(tmp_path / "d.nc", [replace(halves, input_offset=1.0)])


@pytest.mark.parametrize("one", [replace(dataset(analog=True), sides=(128,)), DENSE["single"], DENSE["one-hot"]])
@pytest.mark.parametrize("rows", [[2, 2, 1], [2, 1]])
def test_weights_no_stored_row_can_have_are_written_sample_by_sample(tmp_path: Path, one: Any, rows: list[int]):
    # Two samples of one row weigh differently; or a row lies beyond the weights a file has.
    weighted = replace(one, rows=np.array(rows), weights=np.arange(len(rows), dtype=np.float32))
    write_datasets(tmp_path / "d.nc", [weighted])
    (found,) = both(tmp_path / "d.nc").values()
    assert found.rows is None
    assert plain(found)["weights"] == plain(weighted)["weights"]
    if isinstance(found, DenseDataset):
        assert found.values.tolist() == one.values[rows].tolist()
    else:
        picked = [one.indices[one.indptr[row] : one.indptr[row + 1]].tolist() for row in rows]
        assert [part.tolist() for part in np.split(found.indices, found.indptr[1:-1])] == picked


def test_many_datasets_of_a_file_are_found_by_name(tmp_path: Path):
    many = [dataset("a"), *(replace(one, name=kind) for kind, one in DENSE.items())]
    write_datasets(tmp_path / "d.nc", many)
    found = both(tmp_path / "d.nc")
    assert list(found) == [one.name for one in many]
    assert plain(found["image"]) == plain(many[[one.name for one in many].index("image")])
    with pytest.raises(ValueError, match="different names are wanted"):
        write_datasets(tmp_path / "d.nc", [dataset(), dataset()])


def test_datasets_loaded_are_told_of_as_dsstne_does(tmp_path: Path):
    write_datasets(tmp_path / "d.nc", [replace(dataset("gl"), rows=np.array([0, 0, 1], np.int64), sides=(4, 32))])
    told: list[str] = []
    found = both(tmp_path / "d.nc", tell=told.append)["gl"]
    assert isinstance(found, SparseDataset)
    assert told[0].startswith("LoadNetCDF: Loading ")
    assert told[0].endswith(" data set")
    assert [line.removeprefix("NNDataSet<T>::NNDataSet: ") for line in told[1:]] == [
        "Name of data set: gl",
        "Attributes: Sparse Boolean Indexed",
        "2-dimensional data comprised of (4, 32, 1) datapoints.",
        f"{found.nnz} total datapoints.",
        "3 examples.",
        f"{len(found.indptr) - 1} unique examples.",
    ]


def test_strings_are_char_and_numbers_unsigned_as_the_original_needs_them(tmp_path: Path):
    indexed = replace(dataset("größe"), rows=ROWS, weights=WEIGHTS)
    classes = replace(DENSE["one-hot"], name="classes", rows=ROWS)
    write_datasets(tmp_path / "d.nc", [indexed, classes, DENSE["bytes"]])
    with netCDF4.Dataset(tmp_path / "d.nc") as file:
        types = {name: attribute_type(file, name) for name in file.ncattrs()}
        stored = {name: variable.dtype.str[1:] for name, variable in file.variables.items()}
    assert {types.pop(f"name{number}") for number in range(3)} == {NC_CHAR}
    assert set(types.values()) == {NC_UINT}
    # DSSTNE reads signed bytes from characters alone.
    assert (stored.pop("dataWeight0"), stored.pop("data2")) == ("f4", "S1")
    assert set(stored.values()) == {"u4"}


@pytest.mark.parametrize(("nnz", "expected"), [((1 << 32) - 1, np.uint32), (1 << 32, np.uint64)])
def test_offsets_take_eight_bytes_only_when_they_must(tmp_path: Path, nnz: int, expected: type):
    # The offsets of so many entries, without the entries.
    write_datasets(tmp_path / "d.nc", [replace(dataset(), indptr=np.array([0, 1, nnz]))])
    with netCDF4.Dataset(tmp_path / "d.nc") as file:
        assert {file.variables[f"sparse{which}0"].dtype for which in ("Start", "End")} == {np.dtype(expected)}
        file.set_auto_mask(False)
        assert int(file.variables["sparseEnd0"][1]) == nnz


TYPES = [
    (0, np.uint32, 1.0, 0.0),
    (1, np.int32, 1.0, 0.0),
    (1, np.int64, 1.0, 0.0),
    (2, np.int64, 1.0, 0.0),
    (3, np.uint64, 1.0, 0.0),
    (4, np.float32, 1.0, 0.0),
    (5, np.float64, 1.0, 0.0),
    (5, np.dtype(">f8"), 1.0, 0.0),
    (6, np.uint8, 256.0, -0.5),
    (7, np.uint16, 1.0, 0.0),
    (8, np.uint8, 256.0, -0.5),
    (8, np.int32, 256.0, -0.5),
    (9, np.int8, 128.0, 0.0),
    (9, np.dtype("S1"), 128.0, 0.0),
]


@pytest.mark.parametrize(("number", "stored", "divisor", "offset"), TYPES)
def test_every_type_is_read_at_its_scale(tmp_path: Path, number: int, stored: Any, divisor: float, offset: float):
    values = np.array([100, 7, 0, 64], np.int8).view("S1") if stored == np.dtype("S1") else np.array([100, 7, 0, 64])
    data = {"data": ("dataDim", values.astype(stored))}
    head = {"name": "d", "attributes": 0, "datatype": number, "dimensions": 2, "width": 1, "height": 2}
    dense = both(by_hand(tmp_path / "d.nc", head, {"examplesDim": 2, "dataDim": 4}, data))["d"]
    assert isinstance(dense, DenseDataset)
    assert (dense.values.tolist(), dense.sides, dense.divisor) == ([[100, 7], [0, 64]], (1, 2), divisor)
    assert (dense.input_offset, dense.samples) == (offset, 2)
    if stored == np.dtype("S1"):
        return
    offsets = {"sparseStart": ("examplesDim", np.array([0, 2])), "sparseEnd": ("examplesDim", np.array([2, 4]))}
    entries = {
        "sparseIndex": ("sparseDataDim", np.array([0, 1, 0, 1])),
        "sparseData": ("sparseDataDim", values.astype(stored)),
    }
    head["attributes"] = SPARSE
    lengths = {"examplesDim": 2, "sparseDataDim": 4}
    sparse = both(by_hand(tmp_path / "s.nc", head, lengths, offsets | entries))["d"]
    assert sparse.values is not None
    assert (sparse.values.dtype, sparse.values.tolist()) == (np.float32, [100 / divisor, 7 / divisor, 0, 64 / divisor])


def test_a_class_counts_as_1_whatever_its_type(tmp_path: Path):
    found = both(one_hot(tmp_path / "d.nc", [3, 0, 1]))["d"]
    assert isinstance(found, DenseDataset)
    assert (found.one_hot, found.values.tolist(), found.divisor, found.input_offset) == (True, [3, 0, 1], 1.0, 0.0)


def test_weights_of_indexed_samples_are_those_of_their_stored_row(tmp_path: Path):
    index, weights = np.array([1, 1, 0], np.uint32), np.array([5.0, 6.0, 7.0], np.float32)
    found = both(one_hot(tmp_path / "d.nc", [3, 0], index=index, dataWeight=weights))["d"]
    assert found.rows is not None
    assert found.weights is not None
    assert (found.samples, found.rows.tolist(), found.weights.tolist()) == (3, [1, 1, 0], [6.0, 6.0, 5.0])


def test_what_is_stored_is_read_without_conventions_of_others(tmp_path: Path):
    write_datasets(tmp_path / "d.nc", [DENSE["image"]])
    with netCDF4.Dataset(tmp_path / "d.nc", "a") as file:
        file.variables["data0"].setncatts({"scale_factor": 2.0, "missing_value": np.uint8(4), "_Unsigned": "false"})
    assert plain(both(tmp_path / "d.nc")["d"]) == plain(DENSE["image"])


def test_a_number_too_large_for_single_precision_is_infinite(tmp_path: Path):
    write_dataset(dataset(analog=True), tmp_path / "d.nc")
    with netCDF4.Dataset(tmp_path / "d.nc", "a") as file:
        file.renameVariable("sparseData0", "was")
        file.createVariable("sparseData0", np.float64, ("sparseDataDim0",))[:] = [1e300, -1e300, 1.0]
    found = both(tmp_path / "d.nc")["gl_input"].values
    assert found is not None
    assert found.tolist() == [np.inf, -np.inf, 1.0]


FLOATS = st.floats(width=32, allow_nan=False)


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 255), FLOATS), max_size=6), max_size=8).filter(any),
    st.booleans(),
)
def test_any_matrix_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[tuple[int, float]]], analog: bool
):
    entries = [entry for row in rows for entry in row]
    indptr = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    ids = np.array([feature for feature, _ in entries], np.uint32)
    values = np.array([value for _, value in entries], np.float32) if analog else None
    path = tmp_path_factory.mktemp("nc") / "d.nc"
    written = SparseDataset("d", 256, indptr, ids, values, sides=(256,))
    write_dataset(written, path)
    assert plain(both(path)["d"]) == plain(written)


def test_rows_may_lie_anywhere_and_offsets_may_be_eight_bytes(tmp_path: Path):
    path = broken(tmp_path / "d.nc", "sparseStart0", [1, 0, 0])
    with netCDF4.Dataset(path, "a") as file:
        file.renameVariable("sparseEnd0", "was")
        file.createVariable("sparseEnd0", np.uint64, ("examplesDim0",))[:] = np.array([3, 0, 1], np.uint64)
    found = both(path)["gl_input"]
    assert isinstance(found, SparseDataset)
    assert (found.indptr.tolist(), found.indices.tolist()) == ([0, 2, 2, 3], [1, 127, 5])


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path: Path):
    write_dataset(dataset("old"), tmp_path / "d.nc")
    with pytest.raises(OverflowError):
        write_dataset(replace(dataset("new"), width=1 << 40), tmp_path / "d.nc")
    assert list(read_datasets(tmp_path / "d.nc")) == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["d.nc"]
