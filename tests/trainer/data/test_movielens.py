"""Ratings tables and the data a user may point at, where they are less tidy than GroupLens makes them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.data import movielens
from trainer.data.load import load_data
from trainer.data.movielens import is_ratings, read_ratings
from trainer.errors import DataError

HEADER = "userId,movieId,rating,timestamp\n"
TABLES = {"ratings.csv": HEADER + "7,3,4,0\n7,1,2,0\n5,3,1,0\n", "u.data": "7\t3\t4\t0\n7\t1\t2\t0\n5\t3\t1\t0\n"}
TABLES["ratings.dat"] = TABLES["u.data"].replace("\t", "::")


def table(folder: Path, text: str | bytes, name: str = "ratings.csv") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("name", TABLES)
def test_the_three_forms_say_the_same(tmp_path: Path, name: str, ending: str):
    found = read_ratings(table(tmp_path, TABLES[name].replace("\n", ending), name), analog=True).dataset
    assert found.features is not None
    assert found.values is not None
    assert (found.sample_names, found.features.names(), found.width) == (["7", "5"], ["3", "1"], 128)
    assert (found.indptr.tolist(), found.indices.tolist()) == ([0, 2, 3], [0, 1, 0])
    assert found.values.tolist() == [4.0, 2.0, 1.0]


@pytest.mark.parametrize(
    "text",
    [
        "7,3,4,0\n7,1,2,0\n",
        HEADER + "\n7,3,4,0\n\n7,1,2,0\n\n",
        HEADER + "7,3,4\n7,1,2,0,more\n",
        "\ufeff" + HEADER + "7,3,4,0\n7,1,2,0\n",
    ],
    ids=["no header", "blank lines", "uneven", "byte order mark"],
)
def test_untidy_tables_are_read_all_the_same(tmp_path: Path, text: str):
    dataset = load_data(table(tmp_path, text)).dataset
    assert dataset.features is not None
    assert (dataset.sample_names, dataset.features.names()) == (["7"], ["3", "1"])


def test_of_two_ratings_of_one_item_the_first_counts(tmp_path: Path):
    found = read_ratings(table(tmp_path, HEADER + "1,2,5,0\n2,2,3,0\n1,2,1,9\n"), analog=True).dataset
    assert found.values is not None
    assert (found.nnz, found.values.tolist()) == (2, [5.0, 3.0])


def test_a_path_is_no_pattern(tmp_path: Path):
    for name in ("[ab]", "a"):
        (tmp_path / name).mkdir()
        table(tmp_path / name, HEADER + f"1,{name},3,4\n")
    dataset = load_data(tmp_path / "[ab]").dataset
    assert dataset.features is not None
    assert dataset.features.names() == ["[ab]"]


def test_quoted_cells_are_one_cell_each(tmp_path: Path):
    dataset = load_data(table(tmp_path, HEADER + '1,"Heat, 1995",3,4\n1,"Say ""Hi""",3,4\n')).dataset
    assert dataset.features is not None
    assert dataset.features.names() == ["Heat, 1995", 'Say "Hi"']


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEADER + '1,2,3,4\n1,"open,3,4\n1,4,3,4\n', 3),
        (HEADER + "1,2,nan,4\n", 2),
        (HEADER + "1,2,inf,4\n", 2),
        (HEADER + "1,2,3,4\n\n1,,3,4\n", 4),
        (HEADER + f"1,{'x' * 200_000},3,4\n1,2\n", 2),
        (HEADER.encode() + b"1,2,3,4\n1,\xff\xfe,3,4\n", 3),
        ("1,2,3\n1,2\n", 2),
    ],
    ids=["open quote", "not a number", "infinite", "after a blank line", "endless cell", "not UTF-8", "no header"],
)
def test_the_first_bad_line_is_named_from_one_on(tmp_path: Path, text: str | bytes, line: int):
    with pytest.raises(DataError, match=rf"ratings\.csv:{line}: .*user, item and rating are wanted") as caught:
        load_data(table(tmp_path, text))
    assert caught.value.line == line


def test_titles_are_found_in_every_form_and_encoding(tmp_path: Path):
    for folder, name, lines, title in (
        ("100k", "u.data", b"3|Caf\xe9 (1990)|01-Jan-1990||http\n", "u.item"),
        ("1m", "ratings.dat", b"3::Caf\xe9 (1990)::Drama\n", "movies.dat"),
        ("latest", "ratings.csv", 'movieId,title,genres\r\n3,"Café (1990)",Drama\r\n'.encode(), "movies.csv"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / title).write_bytes(lines)
        assert load_data(table(tmp_path / folder, TABLES[name], name)).titles == {"3": "Café (1990)"}


def test_an_open_quote_spoils_its_own_title_alone(tmp_path: Path):
    (tmp_path / "movies.csv").write_text('movieId,title\n2,"Open\n' + "".join(f"{n},T{n}\n" for n in range(3, 30_000)))
    titles = load_data(table(tmp_path, HEADER + "1,2,3,4\n")).titles
    assert (titles["2"], titles["29999"], len(titles)) == ("Open", "T29999", 29_998)


def test_a_file_is_known_by_its_content_whatever_its_name(tmp_path: Path):
    table(tmp_path, TABLES["ratings.dat"], "data.txt")
    assert load_data(tmp_path / "data.txt").dataset.nnz == 3
    table(tmp_path, "u1\t5,3:6,2\n", "samples.csv")
    assert not is_ratings(tmp_path / "samples.csv")
    dataset = load_data(tmp_path / "samples.csv").dataset
    assert dataset.features is not None
    assert (dataset.sample_names, dataset.features.names()) == (["u1"], ["5", "6"])


def test_a_folder_of_text_is_read_whole_but_for_hidden_files(tmp_path: Path):
    for name, text in {"b.txt": "b\tg\n", "a.txt": "\na\tf\n", ".DS_Store": "\0junk\n"}.items():
        table(tmp_path, text, name)
    dataset = load_data(tmp_path).dataset
    assert (dataset.sample_names, dataset.indices.tolist()) == (["a", "b"], [0, 1])


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "is no data that is known"),
        ({".hidden": "a\tf\n"}, "is no data that is known"),
        ({"a.txt": "a\tf\n", "README": "words\n"}, "is no data that is known"),
        ({"a.txt": "a\tf\nbad\n"}, r"a\.txt:2: no tab"),
        ({"a.txt": "a\t\n"}, "holds no features"),
        ({"ratings.csv": HEADER}, "holds no ratings"),
    ],
)
def test_a_folder_without_data_is_refused(tmp_path: Path, files: dict[str, str], expected: str):
    for name, text in files.items():
        table(tmp_path, text, name)
    with pytest.raises(DataError, match=expected):
        load_data(tmp_path)


def test_what_is_not_there_or_nested_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="gone: no such data file or folder"):
        load_data(tmp_path / "gone")
    (tmp_path / "ratings.csv").mkdir()
    with pytest.raises(DataError, match=r"ratings\.csv: is a directory"):
        load_data(tmp_path)


def test_the_quick_and_the_careful_reading_agree(tmp_path: Path):
    rng = np.random.default_rng(0)
    lines = [f"{u},{i},{r}" for u, i, r in zip(*rng.integers(1, 40, (3, 500)).tolist(), strict=True)]
    quick, careful = tmp_path / "quick", tmp_path / "careful"
    quick.mkdir()
    careful.mkdir()
    table(quick, HEADER + "\n".join(lines) + "\n")
    # A blank line is what only the careful reading takes.
    table(careful, HEADER + "\n\n".join(lines) + "\n")
    first, second = (read_ratings(folder, analog=True).dataset for folder in (quick, careful))
    assert first.sample_names == second.sample_names
    assert first.features == second.features
    for one, other in ((first.indptr, second.indptr), (first.indices, second.indices), (first.values, second.values)):
        np.testing.assert_array_equal(one, other)


NAMES = st.sampled_from(["1", "01", "2", "10", "a b", "é", "a name of more than twelve bytes", "4294967296"])
RATINGS = st.sampled_from(
    [("3", 3.0), ("0.5", 0.5), ("-1e3", -1000.0), ("1e-40", float(np.float32(1e-40))), ("+2", 2.0)]
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ratings=st.lists(st.tuples(NAMES, NAMES, RATINGS), min_size=1, max_size=40), form=st.sampled_from(list(TABLES)))
def test_a_table_is_rows_of_users_and_ratings_as_they_appear(
    tmp_path: Path, *, ratings: list[tuple[str, str, tuple[str, float]]], form: str
):
    expected: dict[str, dict[str, float]] = {}
    for user, item, (_, value) in ratings:
        expected.setdefault(user, {}).setdefault(item, value)
    parting = {"ratings.csv": ",", "u.data": "\t", "ratings.dat": "::"}[form]
    lines = [parting.join((user, item, said, "7")) for user, item, (said, _) in ratings]
    (tmp_path / form).write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(movielens, "_AT_ONCE", 4)
        found = read_ratings(tmp_path / form, analog=True).dataset
    assert found.features is not None
    assert found.values is not None
    names = found.features.names()
    assert names == list(dict.fromkeys(item for _, item, _ in ratings))
    assert found.sample_names == list(expected)
    assert [names[number] for number in found.indices] == [item for row in expected.values() for item in row]
    assert found.values.tolist() == [value for row in expected.values() for value in row.values()]
    assert np.diff(found.indptr).tolist() == [len(row) for row in expected.values()]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("1::2::3:5::0", None),
        ("1:5::2::3::0", "2"),
        ("1::a:b::3::0", "a:b"),
        ("1::2:::3::0", None),
        ('1::"2::3::0', '"2'),
    ],
)
def test_single_colons_do_not_part_the_form_of_two(tmp_path: Path, line: str, name: str | None):
    folder = table(tmp_path, f"1::7::3::0\n{line}\n", "ratings.dat")
    if name is None:
        with pytest.raises(DataError, match=r"ratings\.dat:2: user, item and rating are wanted"):
            read_ratings(folder)
    else:
        found = read_ratings(folder).dataset
        assert found.features is not None
        assert found.features.names() == ["7", name]
