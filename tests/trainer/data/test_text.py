from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.features import read_index, write_index
from trainer.data.text import Reading, convert_text, read_filter, write_text
from trainer.errors import DataError
from trainer.sparse import FeatureIndex


def written(folder: Path, text: str) -> Path:
    path = folder / "in.txt"
    path.write_bytes(text.encode())
    return path


def rows_of(path: Path, **reading: object) -> dict[str, list[tuple[str, float]]]:
    dataset = convert_text(path, name="d", reading=Reading(**reading)).dataset  # type: ignore[arg-type]
    assert dataset.features is not None
    assert dataset.sample_names is not None
    names = dataset.features.names()
    values = np.ones(dataset.nnz) if dataset.values is None else dataset.values
    return {
        sample: [(names[dataset.indices[e]], float(values[e])) for e in range(dataset.indptr[r], dataset.indptr[r + 1])]
        for r, sample in enumerate(dataset.sample_names)
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tf1:f2\n\nb\t\n", {"a": ["f1", "f2"], "b": []}),
        ("a\tf1\nb\tf2\na\tf3\n", {"a": ["f3"], "b": ["f2"]}),
        ("a\tf1:f1\n", {"a": ["f1", "f1"]}),
        ("\t,5:f1::,x:f2\n", {"": ["f1", "f2"]}),
        ("a\tf1\r\n", {"a": ["f1\r"]}),
        ("a\tf1\tx:f2\n", {"a": ["f1\tx", "f2"]}),
    ],
)
def test_lines_become_rows_as_in_the_original(tmp_path: Path, text: str, expected: dict[str, list[str]]):
    found = rows_of(written(tmp_path, text))
    assert {sample: [name for name, _ in row] for sample, row in found.items()} == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2.5", 2.5),
        ("", 0.0),
        (" +3abc", 3.0),
        ("\v-7\r", -7.0),
        ("1.5e3x", 1500.0),
        ("1e+", 1.0),
        ("5.", 5.0),
        (".5", 0.5),
        ("0e99", 0.0),
        ("0x1p3", 8.0),
        ("-0X.8p1", -1.0),
        ("0xg", 0.0),
        ("inf", float("inf")),
        ("-INFINITY!", float("-inf")),
        ("1.17549436e-38", 1.1754943508222875e-38),
    ],
)
def test_values_are_read_as_strtof_reads_them(tmp_path: Path, value: str, expected: float):
    assert rows_of(written(tmp_path, f"a\tf,{value}\n"), analog=True)["a"] == [("f", expected)]


def test_nan_is_a_number_as_it_is_to_strtof(tmp_path: Path):
    (found,) = rows_of(written(tmp_path, "a\tf,NaN(7)\n"), analog=True)["a"]
    assert np.isnan(found[1])


def test_a_piece_without_a_name_has_its_value_never_looked_at(tmp_path: Path):
    assert rows_of(written(tmp_path, "a\t,abc:,1e99:f,1\n"), analog=True)["a"] == [("f", 1.0)]


def test_a_bad_value_is_found_even_where_its_feature_would_be_dropped(tmp_path: Path):
    with pytest.raises(DataError, match=r"in\.txt:1: value 'x' of feature 'unknown'"):
        convert_text(written(tmp_path, "a\tunknown,x\n"), name="d", features=FeatureIndex({"f": 0}))


def test_features_of_a_row_that_was_replaced_stay_in_the_index(tmp_path: Path):
    converted = convert_text(written(tmp_path, "a\tf1\nb\tf2\na\tf3\n"), name="d")
    assert converted.features.ids == {"f1": 0, "f2": 1, "f3": 2}
    assert converted.dataset.indices.tolist() == [2, 1]


def test_a_missing_value_is_zero(tmp_path: Path):
    assert rows_of(written(tmp_path, "a\tf\n"), analog=True)["a"] == [("f", 0.0)]


@pytest.mark.parametrize("value", ["abc", " ", "-", "e5", ".", "1e39", "0x1p128", "1e-50", "1e-39", "-0x1p-140"])
@pytest.mark.parametrize("analog", [True, False])
def test_a_value_that_is_no_number_names_file_and_line(tmp_path: Path, value: str, analog: bool):
    path = written(tmp_path, f"a\tf\nb\tg,{value}\n")
    with pytest.raises(DataError, match=r"in\.txt:2: value .* of feature 'g'"):
        rows_of(path, analog=analog)


def test_a_line_without_a_tab_is_told_and_skipped_or_refused(tmp_path: Path):
    path, said = written(tmp_path, "a\tf\nbad\n"), list[str]()
    assert list(rows_of(path, tell=said.append)) == ["a"]
    assert "Warning: Skipping over malformed line (bad) at line 2" in said
    with pytest.raises(DataError, match=r"in\.txt:2: no tab"):
        rows_of(path, strict=True)


def test_unknown_features_are_dropped_unless_the_index_may_grow(tmp_path: Path):
    path, known = written(tmp_path, "a\tf9:f1\n"), FeatureIndex({"f1": 0})
    dropped = convert_text(path, name="d", features=known)
    assert (dropped.dataset.indices.tolist(), len(dropped.features)) == ([0], 1)
    grown = convert_text(path, name="d", features=known, reading=Reading(update=True))
    assert (grown.dataset.indices.tolist(), grown.features.ids) == ([1, 0], {"f1": 0, "f9": 1})


def test_rows_are_the_samples_seen_by_sample_id(tmp_path: Path):
    path = written(tmp_path, "c\tf\na\tg\n")
    converted = convert_text(path, name="d", samples=FeatureIndex({"a": 0, "b": 1, "c": 2}))
    assert converted.dataset.sample_names == ["a", "c"]


NAME = st.text(st.characters(blacklist_characters="\t\n:,", blacklist_categories=["Cs"]), min_size=1, max_size=5)


@given(st.dictionaries(NAME, st.lists(NAME, max_size=5), min_size=1, max_size=6))
def test_text_written_and_read_again_is_the_same(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, list[str]]):
    folder = tmp_path_factory.mktemp("text")
    path = written(folder, "".join(f"{name}\t{':'.join(row)}\n" for name, row in rows.items()))
    first = rows_of(path)
    assert {name: [feature for feature, _ in row] for name, row in first.items()} == rows
    write_text(convert_text(path, name="d").dataset, folder / "again.txt")
    assert rows_of(folder / "again.txt") == first


VALUES = st.floats(width=32, allow_nan=False, allow_subnormal=False)


@given(st.lists(st.tuples(NAME, VALUES), min_size=1, max_size=6))
def test_values_written_and_read_again_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, row: list[tuple[str, float]]
):
    folder = tmp_path_factory.mktemp("text")
    path = written(folder, "a\t" + ":".join(f"{name},{value!r}" for name, value in row) + "\n")
    assert rows_of(path, analog=True) == {"a": row}
    write_text(convert_text(path, name="d", reading=Reading(analog=True)).dataset, folder / "again.txt")
    assert rows_of(folder / "again.txt", analog=True) == {"a": row}


@pytest.mark.parametrize(("sample", "feature"), [("a\tb", "f"), ("a\n", "f"), ("a", "f:g"), ("a", "f,1"), ("a", "")])
def test_names_that_text_cannot_hold_are_not_written(tmp_path: Path, sample: str, feature: str):
    found = convert_text(written(tmp_path, "a\tf\n"), name="d").dataset
    spoilt = replace(found, sample_names=[sample], features=FeatureIndex({feature: 0}))
    with pytest.raises(DataError, match=r"out\.txt: (sample|feature) name .* is empty or holds a character"):
        write_text(spoilt, tmp_path / "out.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_bytes_that_are_no_utf8_survive(tmp_path: Path):
    (tmp_path / "in.txt").write_bytes(b"caf\xe9\tf\xff\n")
    write_text(convert_text(tmp_path / "in.txt", name="d").dataset, tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_bytes() == b"caf\xe9\tf\xff\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\t1\n\n", ":2: "), ("a 1\n", ":1: "), ("a\t1\t2\n", ":1: "), ("a\t1\na\t2\n", ":2: names 'a' a second time")],
)
def test_a_broken_index_names_its_line(tmp_path: Path, text: str, expected: str):
    with pytest.raises(DataError, match=expected):
        read_index(written(tmp_path, text))


def test_an_index_is_read_in_any_order_and_written_by_id(tmp_path: Path):
    index = read_index(written(tmp_path, "b\t1\na\t0\nz\tzz9\nc\t2\t\n"))
    assert index.ids == {"b": 1, "a": 0, "z": 0, "c": 2}
    write_index(FeatureIndex({"a": 1, "b": 0, "c": 10, "d": 2}), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "b\t0\na\t1\nd\t2\nc\t10\n"


def test_a_filter_multiplies_by_value_zero_where_there_is_none(tmp_path: Path):
    path = written(tmp_path, "s1\tf0,2:f1:unknown\nnobody\tf0\ns0\tf0\ns0\tf1,x\nbare\n")
    found = read_filter(path, features=FeatureIndex({"f0": 0, "f1": 1}), samples=FeatureIndex({"s0": 0, "s1": 1}))
    assert (found.indptr.tolist(), found.indices.tolist()) == ([0, 1, 3], [1, 0, 1])
    assert found.values is not None
    assert found.values.tolist() == [0.0, 2.0, 0.0]
