import ctypes
import errno
import re
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.features import load_index, read_index, write_index
from trainer.data.text import Reading, convert_text, read_filter, write_text
from trainer.errors import DataError, InputError
from trainer.sparse import FeatureIndex


def written(folder: Path, text: str) -> Path:
    path = folder / "in.txt"
    path.write_bytes(text.encode())
    return path


def rows_of(path: Path, **reading: Any) -> dict[str, list[tuple[str, float]]]:
    dataset = convert_text(path, name="d", reading=Reading(**reading)).dataset
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
        ("-0x1p-140", -(2.0**-140)),
        ("0x1.ffffffp-127", 2.0**-126),
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


@pytest.mark.parametrize(
    "value", ["abc", " ", "-", "e5", ".", "1e39", "0x1p128", "1e-50", "1e-39", "-0x1p-150", "0x1.fffffefp-127"]
)
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
    [
        ("a\t1\n\n", "in.txt: line 2 contains invalid data"),
        ("a 1\n", "in.txt: line 1 contains invalid data"),
        ("a\t\n", "in.txt: line 1 contains invalid data"),
        ("\t1\n", "in.txt: line 1 contains invalid data"),
        ("a\t1\t2\n", "in.txt: line 1 contains invalid data"),
        ("a\t1\na\t2\n", "in.txt: Number of entries added to index not equal to number of lines processed"),
    ],
)
def test_a_broken_index_names_file_and_line(tmp_path: Path, text: str, expected: str):
    with pytest.raises(DataError, match=re.escape(expected)):
        read_index(written(tmp_path, text))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("zz", 0),
        (" +7x", 7),
        ("-1", 4294967295),
        ("007\r", 7),
        ("4294967297", 1),
        ("9" * 5000, 4294967295),
        ("-" + "9" * 30, 0),
        ("\t", 0),
    ],
)
def test_a_number_of_an_index_is_read_as_atoi_reads_it(tmp_path: Path, number: str, expected: int):
    assert read_index(written(tmp_path, f"a\t{number}\n")).ids == {"a": expected}


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


# Rules 1.1 and 1.3 once more, as plainly as they can be put, for the parser to be held against.

Row = list[tuple[int, float]]


def split(text: str, parting: str) -> list[str]:
    pieces = text.split(parting)
    return pieces[:-1] if pieces[-1] == "" else pieces


def naive(
    text: str, features: dict[str, int], samples: dict[str, int], *, update: bool
) -> tuple[list[Row], list[str]] | None:
    """Rows and warnings; `None` where a value is bad. `features` and `samples` grow."""
    rows: dict[int, Row] = {}
    warnings: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line == "":
            continue
        if "\t" not in line:
            warnings.append(f"Warning: Skipping over malformed line ({line}) at line {number}")
            continue
        sample, data = line.split("\t", 1)
        if sample not in samples:
            samples[sample] = len(samples)
        row = naive_row(data, number, features, warnings, update=update)
        if row is None:
            return None
        rows[samples[sample]] = row
    return [rows[sample] for sample in sorted(rows)], warnings


def naive_row(data: str, number: int, features: dict[str, int], warnings: list[str], *, update: bool) -> Row | None:
    row: Row = []
    for piece in split(data, ":"):
        elements = split(piece, ",")
        if not elements or elements[0] == "":
            continue
        if len(elements) > 2:
            warnings.append(
                f"Warning: Data point [{piece}] at line {number} has more than 1 value for feature (actual value: "
                f"{len(elements)}). Keeping the first value and ignoring subsequent values."
            )
        # The alphabet below has no number but whole ones.
        digits = re.match(r"\s*([0-9]+)", elements[1]) if len(elements) > 1 else re.match("(0)", "0")
        if digits is None:
            return None
        if elements[0] not in features and update:
            features[elements[0]] = len(features)
        if elements[0] in features:
            row.append((features[elements[0]], float(digits[1])))
    return row


INDEX = st.dictionaries(st.sampled_from(["a", "b", "1", "a\r"]), st.integers(0, 6), max_size=4)


@given(st.text("ab12\t\t:,\n\r", max_size=40), INDEX, INDEX, st.booleans(), st.booleans())
def test_any_text_is_read_as_the_rules_say(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    features: dict[str, int],
    samples: dict[str, int],
    update: bool,
    analog: bool,
):
    path, said = written(tmp_path_factory.mktemp("text"), text), list[str]()
    known = FeatureIndex(dict(features)), FeatureIndex(dict(samples))
    reading = Reading(update=update, analog=analog, tell=said.append)
    expected = naive(text, features, samples, update=update)
    if expected is None:
        with pytest.raises(DataError, match="is no number"):
            convert_text(path, name="d", features=known[0], samples=known[1], reading=reading)
        return
    rows, warnings = expected
    found = convert_text(path, name="d", features=known[0], samples=known[1], reading=reading)
    assert said[2:] == warnings
    assert (found.features.ids, found.samples.ids) == (features, samples)
    assert np.diff(found.dataset.indptr).tolist() == [len(row) for row in rows]
    assert found.dataset.indices.tolist() == [feature for row in rows for feature, _ in row]
    if analog:
        assert found.dataset.values is not None
        assert found.dataset.values.tolist() == [value for row in rows for _, value in row]
    else:
        assert found.dataset.values is None


@given(st.text("ab12-\t\t\n\n\r", max_size=20))
def test_any_index_file_is_read_as_the_rules_say(tmp_path_factory: pytest.TempPathFactory, text: str):
    path, said = written(tmp_path_factory.mktemp("index"), text), list[str]()
    expected: dict[str, int] = {}
    lines, wrong = split(text, "\n") if text else [], ""
    for number, line in enumerate(lines, 1):
        pieces = split(line, "\t")
        if len(pieces) != 2 or pieces[0] == "":
            wrong = f"line {number} contains invalid data"
            break
        digits = re.match(r"\s*(-?[0-9]+)", pieces[1])
        (expected[pieces[0]],) = struct.unpack("I", struct.pack("i", int(digits[1]) if digits else 0))
    counts = [f"Number of lines processed: {len(lines)}", f"Number of entries added to index: {len(expected)}"]
    if not wrong and len(expected) != len(lines):
        wrong = "Number of entries added to index not equal to number of lines processed"
    if wrong:
        with pytest.raises(InputError, match=f"^{wrong}$"):
            load_index(path, said.append)
    else:
        assert load_index(path, said.append).ids == expected
    assert said == ([] if wrong.startswith("line") else counts)


NUMBER = st.one_of(
    st.from_regex(r"\A[ \v]?[+-]?(0x)?[0-9a]{0,3}\.?[0-9f]{0,2}([ep][+-]?[0-9]{0,3})?[x+.]?\Z"),
    st.from_regex(r"\A-?0x[01]\.[0-9a-f]{0,7}p-1[1-5][0-9]\Z"),
    st.sampled_from(["inf", "-INFINITY", "nan", "NaN(1)x", "infinit", "in", "0x", "0x.", "0xp3", "1.17549429e-38"]),
    st.floats(width=32).map(repr),
)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's strtof is what the original calls")
@given(NUMBER)
def test_values_are_what_the_systems_strtof_makes_of_them(tmp_path_factory: pytest.TempPathFactory, number: str):
    library = ctypes.CDLL(None, use_errno=True)
    library.strtof.restype = ctypes.c_float
    rest = ctypes.c_char_p()
    ctypes.set_errno(0)
    expected = library.strtof(number.encode(), ctypes.byref(rest))
    is_bad = ctypes.get_errno() == errno.ERANGE or rest.value == number.encode()
    path = written(tmp_path_factory.mktemp("text"), f"a\tf,{number}\n")
    if number and is_bad:
        with pytest.raises(DataError, match=r"in\.txt:1: value "):
            rows_of(path, analog=True)
        return
    ((_, found),) = rows_of(path, analog=True)["a"]
    assert np.array_equal(found, expected if number else 0.0, equal_nan=True)
