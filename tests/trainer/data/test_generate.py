"""The converter on small inputs of our own: what the original would write, say and refuse."""

import os
import re
from pathlib import Path

import netCDF4
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netcdf_types import NC_CHAR, NC_UINT, attribute_type
from typer.testing import CliRunner, Result

from trainer.cli import app
from trainer.data import generate
from trainer.data.generate import GenerateOptions, generate_netcdf
from trainer.data.movielens import read_ratings
from trainer.data.text import write_text
from trainer.errors import DataError, InputError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def convert(text: str | None = None, source: str = "in.txt", **flags: object) -> list[str]:
    """Convert in the working folder and return what was told, times masked."""
    if text is not None:
        Path(source).write_bytes(text.encode())
    said: list[str] = []
    options = GenerateOptions(
        **{
            "dataset_name": "gl_input",
            "input_path": source,
            "output_path": "out.nc",
            "feature_index": "features",
            "sample_index": "samples",
            **flags,
        }
    )
    generate_netcdf(options, said.append)
    return [re.sub(r"\d+\.\d+", "<t>", line) for line in said]


def command(*flags: str) -> Result:
    """The command itself, by the flags that are required and `flags`."""
    given = ["-i", "in.txt", "-o", "out.nc", "-d", "gl_input", "-f", "features", "-s", "samples"]
    return CliRunner().invoke(app, ["generate-netcdf", *flags, *given])


def index(name: str) -> set[str]:
    return set(Path(name).read_text().splitlines())


def rows() -> list[list[int]]:
    with netCDF4.Dataset("out.nc") as file:
        file.set_auto_mask(False)
        starts, ends, ids = (file[name][:].tolist() for name in ("sparseStart0", "sparseEnd0", "sparseIndex0"))
    return [ids[start:end] for start, end in zip(starts, ends, strict=True)]


def attribute(name: str) -> object:
    with netCDF4.Dataset("out.nc") as file:
        return file.getncattr(name)


def test_an_indicator_file_has_the_originals_attributes_dimensions_and_variables():
    convert("a\tf1:f2\nb\tf2\n", create=True)
    with netCDF4.Dataset("out.nc") as file:
        names = {name: (attribute_type(file, name), file.getncattr(name)) for name in file.ncattrs()}
        sizes = {name: len(size) for name, size in file.dimensions.items()}
        variables = {name: (str(values.dtype), values.dimensions) for name, values in file.variables.items()}
    assert names == {
        "datasets": (NC_UINT, 1),
        "name0": (NC_CHAR, "gl_input"),
        "attributes0": (NC_UINT, 3),
        "kind0": (NC_UINT, 0),
        "dataType0": (NC_UINT, 0),
        "dimensions0": (NC_UINT, 1),
        "width0": (NC_UINT, 128),
    }
    assert sizes == {"examplesDim0": 2, "sparseDataDim0": 3}
    assert variables == {
        "sparseStart0": ("uint32", ("examplesDim0",)),
        "sparseEnd0": ("uint32", ("examplesDim0",)),
        "sparseIndex0": ("uint32", ("sparseDataDim0",)),
    }
    assert rows() == [[0, 1], [1]]


def test_an_analog_file_carries_float_values_and_zero_where_none_is_given():
    convert("a\tf1,1.5:f2\n", create=True, kind="analog")
    assert (attribute("attributes0"), attribute("dataType0")) == (1, 4)
    with netCDF4.Dataset("out.nc") as file:
        values = file["sparseData0"]
        assert (str(values.dtype), values[:].tolist()) == ("float32", [1.5, 0.0])


def test_it_says_what_the_original_says():
    assert convert("a\tf1:f2,1,2\nbad\n", create=True) == [
        "Flag -c is set. Will create a new feature file and overwrite: features",
        "Generating dataset of type: indicator",
        "Will create a new samples index file: samples",
        "Will create a new features index file: features",
        "Indexing 1 files",
        "\tIndexing file: in.txt",
        "Warning: Data point [f2,1,2] at line 1 has more than 1 value for feature (actual value: 3). "
        "Keeping the first value and ignoring subsequent values.",
        "Warning: Skipping over malformed line (bad) at line 2",
        "Exported features with 2 entries.",
        "Exported samples with 1 entries.",
        "Raw max index is: 2",
        "Rounded up max index to: 128",
        "Created NetCDF file out.nc for dataset gl_input",
        "Total time for generating NetCDF: <t> secs. ",
    ]


def test_merging_reads_both_indexes_and_appends_to_them():
    Path("features").write_text("f2\t1\nf1\t0\n")
    Path("samples").write_text("old\t0\nb\t1\n")
    said = convert("c\tf3:f1\nb\tf2\n", merge=True)
    assert said[0] == "Flag -m is set. Will merge with existing feature file and overwrite: features"
    assert said[2:5] == [
        "Loading sample index from: samples",
        "Number of lines processed: 2",
        "Number of entries added to index: 2",
    ]
    assert index("features") == {"f1\t0", "f2\t1", "f3\t2"}
    assert index("samples") == {"old\t0", "b\t1", "c\t2"}
    # Compacted: `old` is not in the input, so `b` is row 0.
    assert rows() == [[1], [2, 0]]


def test_a_new_feature_is_numbered_by_the_size_of_an_index_with_gaps():
    Path("features").write_text("f1\t5\n")
    convert("a\tf1:f2:f3\n", merge=True)
    assert index("features") == {"f1\t5", "f2\t1", "f3\t2"}


def test_without_a_flag_unknown_features_are_dropped_and_the_index_is_left_alone():
    Path("features").write_text("f1\t0\n")
    before = Path("features").stat().st_mtime_ns
    said = convert("a\tf9:f1\nb\tf9\n")
    assert rows() == [[0], []]
    assert Path("features").stat().st_mtime_ns == before
    assert not any(line.startswith("Exported features") for line in said)


def test_creating_forgets_the_old_features_but_never_the_samples():
    Path("features").write_text("gone\t0\n")
    Path("samples").write_text("b\t0\n")
    convert("a\tf\nb\tf\n", create=True)
    assert index("features") == {"f\t0"}
    assert index("samples") == {"b\t0", "a\t1"}


@pytest.mark.parametrize(("count", "width"), [(1, 128), (128, 128), (129, 256)])
def test_the_width_is_the_number_of_features_rounded_up_to_128(count: int, width: int):
    said = convert(f"a\t{':'.join(f'f{number}' for number in range(count))}\n", create=True)
    assert attribute("width0") == width
    assert f"Rounded up max index to: {width}" in said


@pytest.mark.parametrize(("text", "samples"), [("", 0), ("a\t\n", 1), ("\r\n", 0)])
def test_nothing_to_store_gives_unlimited_dimensions_and_no_feature_index(text: str, samples: int):
    convert(text, create=True)
    with netCDF4.Dataset("out.nc") as file:
        assert (len(file.dimensions["sparseDataDim0"]), file.dimensions["sparseDataDim0"].isunlimited()) == (0, True)
        assert len(file.dimensions["examplesDim0"]) == samples
        assert file.dimensions["examplesDim0"].isunlimited() is (samples == 0)
    assert attribute("width0") == 0
    assert not Path("features").exists()


def test_a_folder_is_read_in_byte_order_hidden_files_first_and_later_rows_win():
    Path("folder").mkdir()
    for name, text in {"b": "s\tf2\n", "B": "s\tf1\nt\tf1\n", ".h": "u\tf0\n"}.items():
        (Path("folder") / name).write_text(text)
    said = convert(source="folder", create=True)
    assert said[4:8] == ["Indexing 3 files", *(f"\tIndexing file: folder/{name}" for name in (".h", "B", "b"))]
    assert index("features") == {"f0\t0", "f1\t1", "f2\t2"}
    assert rows() == [[0], [2], [1]]


def test_a_progress_line_comes_with_every_ten_thousandth_sample():
    said = convert("".join(f"s{number}\tf\n" for number in range(20_001)), create=True)
    told = [line for line in said if line.startswith("Progress")]
    assert told == [f"Progress Parsing (Sample {count}, Time <t>, Total <t>)" for count in (10_000, 20_000)]


def test_a_ratings_table_obeys_the_same_rules_of_indexes_and_rows():
    Path("samples").write_text("9\t0\n")
    convert("1\t30\t4\t0\n9\t10\t3\t0\n1\t10\t5\t0\n", source="u.data", create=True, kind="analog")
    assert index("samples") == {"9\t0", "1\t1"}
    assert index("features") == {"30\t0", "10\t1"}
    assert rows() == [[1], [0, 1]]
    with netCDF4.Dataset("out.nc") as file:
        assert file["sparseData0"][:].tolist() == [3.0, 4.0, 5.0]


PLACES = st.dictionaries(st.integers(0, 8).map(str), st.sampled_from([0, 1, 2, 3, 7, 90]), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ratings=st.lists(st.tuples(*3 * [st.integers(0, 8)]), min_size=1, max_size=30),
    known=st.tuples(PLACES, PLACES),
    flag=st.sampled_from(["create", "merge", ""]),
    kind=st.sampled_from(["indicator", "analog"]),
)
def test_a_ratings_table_gives_what_text_with_its_rows_gives(
    *, ratings: list[tuple[int, int, int]], known: tuple[dict[str, int], dict[str, int]], flag: str, kind: str
):
    Path("u.data").write_text("".join(f"{user}\t{item}\t{value}\n" for user, item, value in ratings))
    write_text(read_ratings(Path("u.data"), analog=True).dataset, Path("in.txt"))
    found: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "_AT_ONCE", 4)
        for source in ("in.txt", "u.data"):
            for name, ids in zip(("samples", "features"), known, strict=True):
                Path(name).write_text("".join(f"{one}\t{number}\n" for one, number in ids.items()))
            said = convert(None, source, kind=kind, create=flag == "create", merge=flag == "merge")
            told = [line for line in said if line.startswith(("Exported", "Raw", "Rounded"))]
            with netCDF4.Dataset("out.nc") as file:
                file.set_auto_mask(False)
                values = file["sparseData0"][:].tolist() if kind == "analog" else None
            found.append((rows(), values, attribute("width0"), index("samples"), index("features"), told))
    assert found[1] == found[0]


@pytest.mark.parametrize("item", ["Heat, 1995", "a:b"])
def test_a_rated_item_whose_name_would_part_text_is_refused_not_split(item: str):
    with pytest.raises(DataError, match=f"ratings.csv: feature name '{item}'"):
        convert(f'userId,movieId,rating\n1,"{item}",3\n', source="ratings.csv", create=True)
    assert not Path("out.nc").exists()


def test_the_path_of_a_folder_is_told_as_it_was_typed():
    Path("folder").mkdir()
    (Path("folder") / "a").write_text("s\tf\n")
    assert "\tIndexing file: ./folder/a" in convert(source="./folder/", create=True)
    assert "Exported ./features with 1 entries." in convert(source="folder", create=True, feature_index="./features")


def test_a_folder_in_a_folder_ends_it_when_its_turn_comes():
    (Path("in.txt") / "b").mkdir(parents=True)
    (Path("in.txt") / "a").write_text("bad\n")
    done = command("-c")
    assert done.output.splitlines()[4:] == [
        "Indexing 2 files",
        "\tIndexing file: in.txt/a",
        "Warning: Skipping over malformed line (bad) at line 1",
        "\tIndexing file: in.txt/b",
        "Error: Is a directory",
    ]
    assert done.exit_code == 1
    assert not Path("samples").exists()


def test_an_empty_folder_is_an_empty_dataset():
    Path("folder").mkdir()
    assert "Indexing 0 files" in convert(source="folder", create=True)
    with netCDF4.Dataset("out.nc") as file:
        assert file.dimensions["examplesDim0"].isunlimited()


def test_line_numbers_begin_again_in_each_file():
    Path("folder").mkdir()
    for name in ("a", "b"):
        (Path("folder") / name).write_text("s\tf\nbad\n")
    said = convert(source="folder", create=True)
    assert said.count("Warning: Skipping over malformed line (bad) at line 2") == 2


def test_an_index_is_stored_though_it_is_beyond_the_width():
    Path("features").write_text("f1\t900\nf2\t-1\n")
    convert("a\tf1:f2:f3\n", merge=True)
    assert rows() == [[900, 4294967295, 2]]
    assert attribute("width0") == 128
    assert index("features") == {"f1\t900", "f2\t4294967295", "f3\t2"}


def test_features_that_share_an_index_are_stored_alike():
    Path("features").write_text("f1\t1\n")
    convert("a\tf1:f2\n", merge=True)
    assert rows() == [[1, 1]]


def test_fixed_features_write_no_feature_index_and_new_samples_are_added():
    Path("features").write_text("f1\t0\nf2\t1\n")
    Path("in.txt").write_text("b\tf9:f2\na\tf1,2\nb\t\n")
    done = command("-t", "analog")
    assert re.sub(r"\d+\.\d+ secs", "<t> secs", done.output).splitlines() == [
        "Generating dataset of type: analog",
        "Will create a new samples index file: samples",
        "Loading feature index from: features",
        "Number of lines processed: 2",
        "Number of entries added to index: 2",
        "Indexing 1 files",
        "\tIndexing file: in.txt",
        "Exported samples with 2 entries.",
        "Raw max index is: 2",
        "Rounded up max index to: 128",
        "Created NetCDF file out.nc for dataset gl_input",
        "Total time for generating NetCDF: <t> secs. ",
    ]
    assert done.exit_code == 0
    assert rows() == [[], [0]]


def test_bytes_that_are_no_utf8_are_told_as_they_are():
    Path("in.txt").write_bytes(b"b\xe9d\n")
    assert b"malformed line (b\xe9d) at line 1\n" in command("-c").stdout_bytes


@pytest.mark.parametrize(
    ("files", "flags", "last"),
    [
        ({}, ["-c"], "Error: in.txt not found."),
        ({"in.txt": "a\tf\n"}, [], "Error: Cannnot find a valid feature index file: features"),
        ({"in.txt": "a\tf\n"}, ["-m"], "Error: Cannnot find a valid feature index file: features"),
        (
            {"in.txt": "a\tf\n"},
            ["-c", "-t", "x"],
            "Error: Unknown dataset type [x]. Please select one of {indicator,analog}",
        ),
        ({"samples": "a\t0\n\n"}, ["-c"], "Error: line 2 contains invalid data"),
        ({"features": "f\t0\t1\n"}, ["-m"], "Error: line 1 contains invalid data"),
        (
            {"samples": "a\t0\na\t1\n"},
            ["-c"],
            "Error: Number of entries added to index not equal to number of lines processed",
        ),
        ({"in.txt": "a\tf,1e39\n"}, ["-c"], "Error: in.txt:1: value '1e39' of feature 'f' is out of range"),
    ],
)
def test_what_cannot_be_done_ends_with_the_originals_words(files: dict[str, str], flags: list[str], last: str):
    for name, text in files.items():
        Path(name).write_text(text)
    done = command(*flags)
    assert done.output.splitlines()[-1] == last
    assert done.stderr == f"{last}\n"
    assert done.exit_code == 1
    assert not Path("out.nc").exists()


def test_creating_and_merging_at_once_is_refused_with_the_usage():
    done = command("-c", "-m")
    assert done.exit_code == 1
    assert done.stderr.startswith(
        "Error: Cannot create (-c) and update existing (-u) feature index. Please select only one.\nUsage: "
    )


def test_a_repeated_name_is_found_after_the_counts():
    Path("samples").write_text("a\t0\na\t1\n")
    assert command("-c").output.splitlines()[-3:-1] == [
        "Number of lines processed: 2",
        "Number of entries added to index: 1",
    ]


def test_an_index_that_is_no_file_cannot_be_opened():
    Path("samples").mkdir()
    assert command("-c").stderr == "Error: Failed to open index file\n"


@pytest.mark.parametrize("output", ["no/out.nc", ".", "", "pipe"])
def test_index_files_are_written_though_the_netcdf_cannot_be(output: str):
    os.mkfifo("pipe")
    with pytest.raises(InputError, match="cannot be written"):
        convert("a\tf\n", create=True, output_path=output)
    assert index("features") == {"f\t0"}
    assert index("samples") == {"a\t0"}


@pytest.mark.parametrize("name", ["", "x" * 300])
def test_a_path_that_is_no_file_is_not_found(name: str):
    with pytest.raises(InputError, match=f"^{name} not found\\.$"):
        convert(create=True, source=name)


def test_a_dataset_is_named_in_utf8():
    convert("a\tf\n", create=True, dataset_name="naïve 🎬")
    assert attribute("name0") == "naïve 🎬"
    with pytest.raises(InputError, match="-d 'd"):
        convert("a\tf\n", create=True, dataset_name="d\udcff")


@pytest.mark.parametrize("text", ["1,2,3\na\tf\n", "a\tb\t3\n"])
def test_text_that_begins_like_a_table_is_text_unless_its_name_ends_like_one(text: str):
    convert(text, create=True)
    assert index("samples") == {"a\t0"}
