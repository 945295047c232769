"""Items that nobody has, on a checkerboard whose halves have an attribute each: what fits is known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from trainer_checkerboard import FEATURES, HALF, SAMPLES, features_of
from typer.testing import CliRunner

from trainer.cli import app
from trainer.cold import cold_items, guess_rows, recommend_cold
from trainer.data.cold import hide_items
from trainer.data.load import load_data
from trainer.errors import DataError, InputError, NetworkError
from trainer.inputs import attributes_of, prepare
from trainer.job import run_job
from trainer.network import read_network
from trainer.recommender import Recommender
from trainer.rundir import RunDirectory
from trainer.serving import PredictFiles, PredictOptions, predict_files
from trainer.settings import TrainSettings

NETWORK = """{
    "Denoising": {"p": 0.3},
    "Layers": [
        {"Name": "Input", "Kind": "Input", "N": "auto", "DataSet": "gl_input", "Sparse": true},
        {"Name": "Attributes", "Kind": "Input", "N": "auto", "DataSet": "gl_attributes", "Sparse": true},
        {"Name": "Hidden", "Kind": "Hidden", "Source": ["Input", "Attributes"], "N": 8, "Activation": "Tanh"},
        {"Name": "Output", "Kind": "Output", "Source": "Hidden", "N": "auto", "DataSet": "gl_output"},
        {"Name": "Wishes", "Kind": "Output", "Source": "Hidden", "N": "auto", "DataSet": "gl_attribute_targets"}
    ],
    "ErrorFunction": "CrossEntropy",
    "Optimizer": {"Name": "Adam", "LearningRate": 0.05}
}"""


def write_data(folder: Path) -> Path:
    folder.mkdir()
    ratings = [f"s{n},f{feature},4\n" for n in range(SAMPLES) for feature in features_of(n)]
    (folder / "ratings.csv").write_text(f"userId,movieId,rating\n{''.join(ratings)}", encoding="utf-8")
    told = [f"f{n},{'left' if n < HALF else 'right'}\n" for n in range(FEATURES)]
    text = f"item,attribute\n{''.join(told)}new-right,right\nnew-left,left\n"
    (folder / "attributes.csv").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    (tmp_path / "network.json").write_text(NETWORK, encoding="utf-8")
    return tmp_path / "network.json"


def listed(path: Path) -> dict[str, list[str]]:
    lines = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return {sample: [item.split(",")[0] for item in items.split(":") if item] for sample, items in lines}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = tmp_path_factory.mktemp("cold") / "run"
    run.mkdir()
    write_data(run.parent / "data")
    (run / "network.json").write_text(NETWORK, encoding="utf-8")
    spec = {"data": "../data", "settings": {"batch_size": 5, "epochs": 2, "held_out": 0.2, "k": 3}}
    (run / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    directory = RunDirectory(run)
    run_job(directory, say=lambda _: None)
    return directory


def test_a_network_over_attributes_recommends_items_that_nobody_has(trained: RunDirectory, data: Path):
    assert {"gl_attributes.nc", "gl_attribute_targets.nc", "recs"} <= {path.name for path in trained.path.iterdir()}
    assert trained.index("features_attributes").read_text() == "left\t0\nright\t1\n"
    # Attributes that are told since then move nothing.
    text = (data / "attributes.csv").read_text().replace("item,attribute\n", "item,attribute\nf1,old\nf2,old\n")
    (data / "attributes.csv").write_text(text)
    recommend_cold(trained.network_file, data, out=data / "cold", k=1)
    assert listed(data / "cold") == {f"s{n}": [["new-left", "new-right"][n % 2]] for n in range(SAMPLES)}


def test_a_sample_of_which_only_attributes_are_known_is_an_input_like_any_other(
    trained: RunDirectory, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # `predict` leaves the converted samples where it is called.
    monkeypatch.chdir(tmp_path)
    (data / "nothing").write_text("a\t\nb\t\n")
    (data / "told").write_text("a\tleft,1\nb\tright,1\n")
    known, told = trained.index("features_input"), trained.index("features_attributes")
    others = {"gl_attributes": (data / "told", told)}
    files = PredictFiles("gl", trained.network_file, data / "nothing", known, known, data / "recs", None, others)
    predict_files(files, PredictOptions(k=HALF, exclude_seen=True), say=lambda _: None)
    halves = {sample: {int(item[1:]) < HALF for item in items} for sample, items in listed(data / "recs").items()}
    assert halves == {"a": {True}, "b": {False}}


def test_hidden_items_leave_nothing_behind_and_are_measured_sample_by_sample(data: Path, network: Path):
    dataset = load_data(data).dataset
    held = hide_items(dataset, fraction=0.2, seed=7)
    cold = np.unique(held.wanted.indices)
    assert len(cold) == round(0.2 * FEATURES)
    assert not np.isin(held.known.indices, cold).any()
    for row in range(SAMPLES):
        both = [part.indices[part.indptr[row] : part.indptr[row + 1]] for part in (held.known, held.wanted)]
        whole = dataset.indices[dataset.indptr[row] : dataset.indptr[row + 1]]
        assert sorted(np.concatenate(both).tolist()) == sorted(whole.tolist())

    settings = TrainSettings.of(batch_size=5, epochs=2, k=1, seed=7)
    report = cold_items(data, network, settings=settings, fraction=0.2)
    asked = np.flatnonzero(np.diff(held.wanted.indptr))
    assert report.samples == tuple((dataset.sample_names or ())[row] for row in asked)
    assert report.chance == pytest.approx(1 / len(cold))
    # One is hidden in each half, and the one that fits comes first.
    assert {name: recalls.tolist() for name, recalls in report.recalls.items()} == {
        "content": [1.0] * len(asked),
        "network": [1.0] * len(asked),
    }


def test_rows_that_are_linear_in_attributes_are_guessed(data: Path):
    loaded = load_data(data)
    attributes = attributes_of(data, loaded.features)
    repeated = np.repeat(np.array([[3.0, -1.0], [-1.0, 3.0]], np.float32), HALF, axis=0)
    names = list(loaded.dataset.features.ids) if loaded.dataset.features else []
    rows = repeated[[int(name[1:]) for name in names]]
    guessed = guess_rows(rows, loaded.dataset, attributes)
    assert list(attributes.sample_names or ())[FEATURES:] == ["new-right", "new-left"]
    assert guessed[FEATURES, 1] > 1 > guessed[FEATURES, 0]
    np.testing.assert_allclose(guessed[FEATURES + 1], guessed[names.index("f0")], rtol=1e-6)


def test_the_verbs_write_what_the_trainer_writes(data: Path):
    asked = ["content", "--data", str(data), "-k", "3", "--out", str(data / "recs")]
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert set(listed(data / "recs")["s0"]) == {"f0"}
    assert CliRunner().invoke(app, [*asked, "--also-cold"]).exit_code == 0
    assert listed(data / "recs")["s0"] == ["f0", "new-left"]
    assert (data / "recs").read_text().startswith("s0\tf0,1.000:new-left,1.000:\n")


def test_attributes_that_are_wanted_and_not_there_are_said_in_one_line(data: Path, network: Path):
    (data / "attributes.csv").unlink()
    with pytest.raises(DataError, match=r"no table tells any; it is a folder with attributes\.csv, tags\.csv"):
        prepare(read_network(network), data, TrainSettings())
    said = CliRunner().invoke(app, ["check", "--network", str(network), "--data", str(data)])
    assert (said.exit_code, said.output.count("\n")) == (2, 1)
    with pytest.raises(InputError, match="trainer train --run-dir"):
        Recommender(network, folder=data.parent / "recommender")
    (data / "attributes.csv").write_text("item,attribute\nf1,rare\n")
    with pytest.raises(DataError, match="no attribute is told of 2 items or more"):
        prepare(read_network(network), data, TrainSettings())


def test_a_network_trained_on_other_attributes_is_refused(trained: RunDirectory, data: Path):
    shutil.copy(trained.network_file, data / "gl.nc")
    told = "".join(f"f{n % FEATURES},word {n // 2}\n" for n in range(300))
    (data / "attributes.csv").write_text(f"item,attribute\nnew,word 1\n{told}")
    with pytest.raises(NetworkError, match="layer Attributes has 128 units, the data 256"):
        recommend_cold(data / "gl.nc", data, out=data / "cold", k=1)


def test_a_network_over_attributes_is_measured_where_the_tables_lie(data: Path, network: Path):
    asked = ["evaluate", "--network", str(network), "--data", str(data), "-e", "1", "--json"]
    shown = CliRunner().invoke(app, [*asked, "--protocol", "weak", "--validation-part", "0"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["network.ndcg@100"] > 0
