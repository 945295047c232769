"""The trainer's verbs as a user types them: DSSTNE's own sequence, and what goes wrong."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainer_checkerboard import SAMPLES, features_of, missing, write_checkerboard, write_network
from typer.testing import CliRunner, Result

from trainer.cli import app


def trainer(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """DSSTNE's programs leave files where they are called."""
    folder = tmp_path_factory.mktemp("called_here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample of the walkthrough: generateNetCDF twice, then train."""
    folder = tmp_path_factory.mktemp("walkthrough")
    text = write_checkerboard(folder / "samples.txt")
    for role in ("input", "output"):
        done = trainer(
            "generate-netcdf", "-d", f"gl_{role}", "-i", text, "-o", folder / f"gl_{role}.nc",
            "-f", folder / f"features_{role}", "-s", folder / "samples_input", "-c",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
    network = write_network(folder / "config.json")
    done = trainer(
        "train", "-c", network, "-i", folder / "gl_input.nc", "-o", folder / "gl_output.nc",
        "-n", folder / "gl.nc", "-b", 16, "-e", 40,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "NNNetwork::Train: Epoch 40, average error " in done.output
    return folder


def predict(files: Path, result: Path, *flags: object) -> dict[str, list[tuple[str, float]]]:
    seen = () if "-f" in flags else ("-f", files / "samples.txt")
    done = trainer(
        "predict", "-d", "gl", "-n", files / "gl.nc", "-r", files / "samples.txt", "-s", result,
        "-i", files / "features_input", "-o", files / "features_output", "-b", 16, *seen, *flags,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found: dict[str, list[tuple[str, float]]] = {}
    for line in result.read_text().splitlines():
        sample, _, items = line.partition("\t")
        assert items.endswith(":")
        pairs = (item.split(",") for item in items[:-1].split(":"))
        found[sample] = [(name, float(score)) for name, score in pairs]
    return found


def test_predict_lists_k_unseen_features_best_first(files: Path, tmp_path: Path):
    found = predict(files, tmp_path / "recs", "-k", 4)
    assert list(found) == [f"s{n}" for n in range(SAMPLES)]
    for number in range(SAMPLES):
        items = found[f"s{number}"]
        assert items[0][0] == f"f{missing(number)}"
        assert [score for _, score in items] == sorted((score for _, score in items), reverse=True)
        assert not {name for name, _ in items} & {f"f{feature}" for feature in features_of(number)}


def test_predict_leaves_out_what_the_filter_lists(files: Path, tmp_path: Path):
    filtered = tmp_path / "filter"
    filtered.write_text("".join(f"s{n}\tf{missing(n)}\n" for n in range(SAMPLES)))
    found = predict(files, tmp_path / "recs", "-k", 4, "-f", filtered)
    assert all(f"f{missing(n)}" not in dict(found[f"s{n}"]) for n in range(SAMPLES))


def test_predict_multiplies_scores_by_the_filter_when_told_to(files: Path, tmp_path: Path):
    filtered = tmp_path / "filter"
    filtered.touch()
    kept = predict(files, tmp_path / "kept", "-k", 12, "-f", filtered)
    filtered.write_text("s0\tf0,10:f1\n")
    found = predict(files, tmp_path / "recs", "-k", 12, "-f", filtered, "--multiply-filter")
    assert dict(found["s0"])["f0"] == pytest.approx(10 * dict(kept["s0"])["f0"], abs=0.006)
    assert dict(found["s0"])["f1"] == 0
    assert found["s1"] == kept["s1"]


def test_a_network_that_exists_is_not_replaced(files: Path):
    before = (files / "gl.nc").read_bytes()
    done = trainer(
        "train", "-c", files / "config.json", "-i", files / "gl_input.nc", "-o", files / "gl_output.nc",
        "-n", files / "gl.nc",
    )  # fmt: skip
    assert done.exit_code == 1
    assert done.output == f"Error: Network file already exists: {files / 'gl.nc'}\n"
    assert (files / "gl.nc").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["-d", "other"], "reads the datasets gl_input; given are other_input"),
        (["-n", "nowhere.nc"], "Error: Cannot read network file: nowhere.nc"),
        (["-r", "nowhere.txt"], "Error: Cannot read input_text_file: nowhere.txt"),
        (["-p", "4.3q"], "-p 4.3q: no format of printf"),
        (["-t", "text"], "Unknown dataset type [text]. Please select one of {indicator,analog}"),
        (["-l", "Input"], "Input is an Input layer"),
        (["-s", "nowhere/recs"], "cannot be written: there is no folder"),
        (["-l", "Nowhere"], "no layer is called 'Nowhere'; there is Hidden, Output"),
        (["--output-layer", "Hidden"], "no Output layer is called 'Hidden'; there is Output"),
        (["--also", "more"], "--also more: DATASET=SAMPLES,FEATURES is wanted"),
        (["-k", "none"], "Error: Invalid value for '-k'"),
    ],
)
def test_predict_names_what_it_cannot_use(files: Path, tmp_path: Path, flags: list[str], expected: str):
    given = {
        "-d": "gl", "-n": files / "gl.nc", "-r": files / "samples.txt", "-s": tmp_path / "recs",
        "-i": files / "features_input", "-o": files / "features_output", "-f": files / "samples.txt",
    }  # fmt: skip
    given[flags[0]] = flags[1]
    done = trainer("predict", *(word for pair in given.items() for word in pair))
    assert done.exit_code == 1, done.output
    assert expected in done.output
    assert not (tmp_path / "recs").exists()


def test_check_counts_and_evaluate_prints_the_network_beside_popularity(files: Path):
    done = trainer("check", "-c", files / "config.json", "--data", files / "samples.txt", "--json")
    assert json.loads(done.output) == {
        "samples": 60,
        "features": 12,
        "nnz": 300,
        "parameters": 128 * 8 + 8 + 8 * 128 + 128,
        "batch_size": 256,
        "epochs": 10,
        "early_stopping": None,
    }
    show = ("--show", "ndcg@10", "--show", "coverage@20")
    done = trainer("evaluate", "--network", files / "gl.nc", "--data", files / "samples.txt", "-b", 16, *show)
    assert done.exit_code == 0, done.output
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:]}
    assert list(rows) == ["network", "popularity"]
    assert float(rows["network"][0]) > float(rows["popularity"][0])


def test_a_split_is_made_measured_and_its_measurements_compared(files: Path, tmp_path: Path):
    data = ("--data", files / "samples.txt", "--protocol", "strong")
    done = trainer("split", *data, "--out", tmp_path / "split", "--json")
    assert done.exit_code == 0, done.output
    counts = json.loads(done.stdout)
    assert counts["training"] == {"samples": 48, "features": 12, "interactions": 240}
    assert (counts["test"], counts["validation"]) == ({"samples": 6, "known": 24, "wanted": 6},) * 2
    options = ("-b", 16, "-e", 20, "--k", 1, "--k", 3, "--out", tmp_path / "kept", "--json")
    done = trainer("evaluate", "--network", files / "config.json", "--split", tmp_path / "split", *options)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    # Two features of its half each sample lacks; the others are all that is popular, too.
    assert found["network.recall@3"] == 1.0
    apart = found["differences"]["popularity"]
    assert apart["metric"] == "ndcg@3"
    assert apart["mean"] == pytest.approx(found["network.ndcg@3"] - found["popularity.ndcg@3"])
    assert apart["low"] <= apart["mean"] <= apart["high"]
    kept = [tmp_path / "kept" / f"{model}.npz" for model in ("network", "popularity")]
    compared = json.loads(trainer("compare", *kept, "--json").stdout)
    assert {"metric": "ndcg@3", **compared["ndcg@3"]} == apart
    lines = {line.split()[0]: line.split()[1:] for line in trainer("compare", *kept).stdout.splitlines()[1:]}
    assert lines["recall@3"][0] == "1.0000"


def test_a_split_that_cannot_be_is_one_line_and_nothing_is_written(files: Path, tmp_path: Path):
    done = trainer("split", "--data", files / "samples.txt", "--protocol", "temporal", "--out", tmp_path / "split")
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
    assert "only a ratings table with a fourth column tells when" in done.output
    assert not (tmp_path / "split").exists()


def test_a_network_is_checked_without_data_as_far_as_it_goes(files: Path):
    done = trainer("check", "-c", files / "config.json", "--json")
    found = json.loads(done.output)
    assert (found["samples"], found["parameters"], found["batch_size"], found["epochs"]) == (None, None, 256, 10)


def test_a_broken_network_is_named_by_its_path(tmp_path: Path):
    (tmp_path / "bad.json").write_text('{"Layerz": []}')
    data = write_checkerboard(tmp_path / "samples.txt")
    done = trainer("check", "-c", tmp_path / "bad.json", "--data", data)
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
    assert "$.Layerz" in done.output


def test_the_run_directory_of_a_failed_job_says_so_last(tmp_path: Path):
    (tmp_path / "spec.json").write_text('{"data": "nowhere"}')
    write_network(tmp_path / "network.json")
    done = trainer("train", "--run-dir", tmp_path)
    assert done.exit_code == 2
    assert done.output.splitlines()[-1].startswith("error: ")
    assert (tmp_path / "exit").read_text() == "2\n"
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"
