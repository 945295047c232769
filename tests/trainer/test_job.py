"""Whole jobs on data whose recommendations are known."""

import json
from pathlib import Path
from typing import Any

import pytest
from trainer_checkerboard import FEATURES, SAMPLES, features_of, missing, write_checkerboard, write_network

from trainer.data.given import Source, find_split, make_split
from trainer.data.protocols import Split
from trainer.errors import DataError, DevicesMissing, NetworkError, NonFiniteError, SettingsError
from trainer.job import run_job
from trainer.measuring import Wishes, measure
from trainer.network_file import read_network_file
from trainer.rundir import RunDirectory
from trainer.settings import SplitSettings, TrainSettings


def job(folder: Path, **changes: Any) -> RunDirectory:
    run = folder / "run"
    run.mkdir()
    write_checkerboard(folder / "samples.txt")
    write_network(run / "network.json")
    settings = {"batch_size": 16, "epochs": 40, "k": 3}
    spec = {"data": "../samples.txt", "settings": {**settings, **changes.pop("settings", {})}, **changes}
    (run / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    return RunDirectory(run)


def recommended(directory: RunDirectory) -> dict[str, list[str]]:
    lines = directory.recommendations.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("\t") for line in lines)
    return {sample: [item.split(",")[0] for item in items.rstrip(":").split(":")] for sample, items in pairs}


def test_the_feature_a_sample_lacks_is_recommended_first_and_none_that_it_has(tmp_path: Path):
    directory = job(tmp_path)
    said: list[str] = []
    run_job(directory, say=said.append)
    found = recommended(directory)
    assert list(found) == [f"s{n}" for n in range(SAMPLES)]
    for number in range(SAMPLES):
        items = found[f"s{number}"]
        assert items[0] == f"f{missing(number)}"
        assert not set(items) & {f"f{feature}" for feature in features_of(number)}
        assert len(set(items)) == 3
    assert any(line.startswith("epoch 40/40: loss ") for line in said)
    # The last batch of each epoch is a short one.
    assert SAMPLES % 16 != 0
    assert any(line.startswith("training step compiled 1 time in ") for line in said)
    metrics = [json.loads(line) for line in (directory.path / "metrics.jsonl").read_text().splitlines()]
    assert [metric["value"] for metric in metrics if metric["name"] == "compilations"] == [1]


def test_a_job_leaves_every_file_of_the_contract_and_one_report_an_epoch(tmp_path: Path):
    directory = job(tmp_path, settings={"epochs": 3, "held_out": 0.2})
    run_job(directory, say=lambda _: None)
    names = {path.name for path in directory.path.iterdir()}
    assert {
        "recs", "gl.nc", "gl_input.nc", "gl_output.nc", "features_input", "features_output", "samples_input",
        "metrics.jsonl", "status.json",
    } <= names  # fmt: skip
    metrics = [json.loads(line) for line in (directory.path / "metrics.jsonl").read_text().splitlines()]
    losses = [metric["value"] for metric in metrics if metric["name"] == "loss"]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    assert {"network.ndcg@100", "popularity.ndcg@100"} <= {metric["name"] for metric in metrics}
    assert json.loads((directory.path / "status.json").read_text())["state"] == "done"
    spec, weights = read_network_file(directory.network_file)
    assert [connection.kernel.shape for connection in weights.connections] == [(128, 8), (8, 128)]
    assert spec.input.dataset == "gl_input"
    assert len((directory.path / "features_output").read_text().splitlines()) == FEATURES


def test_a_network_that_stops_early_says_what_it_is_measured_at_and_which_epoch_is_kept(tmp_path: Path):
    directory, said = job(tmp_path), list[str]()
    stopping = {"Metric": "recall@5", "Patience": 2, "Validation": 0.3, "Refit": True}
    training = json.dumps({"BatchSize": 16, "Epochs": 50, "EarlyStopping": stopping})
    network = (
        (directory.path / "network.json").read_text().replace('"Denoising"', f'"Training": {training}, "Denoising"')
    )
    (directory.path / "network.json").write_text(network)
    (directory.path / "spec.json").write_text(json.dumps({"data": "../samples.txt"}))
    run_job(directory, say=said.append)
    metrics = [json.loads(line) for line in (directory.path / "metrics.jsonl").read_text().splitlines()]
    values = [metric["value"] for metric in metrics if metric["name"] == "validation.recall@5"]
    assert 3 <= len(values) < 50
    best = values.index(max(values)) + 1
    assert len(values) == best + 2
    assert f"recall@5 {values[-1]:.4f} (best {max(values):.4f} at {best})" in said[len(values)]
    assert said[len(values) + 1].startswith(f"refit epoch 1/{best}: loss ")
    assert sum(metric["name"] == "refit.loss" for metric in metrics) == best
    assert said[-2] == f"trained anew on all samples for {best} epochs, the best number: recall@5 {max(values):.4f}"
    status = json.loads((directory.path / "status.json").read_text())
    assert (status["epochs"], status["metric"], status["best"], status["best_epoch"]) == (
        best,
        "recall@5",
        max(values),
        best,
    )


def test_too_few_devices_are_refused_before_training(tmp_path: Path):
    with pytest.raises(DevicesMissing, match="64 were promised"):
        run_job(job(tmp_path, min_devices=64), say=lambda _: None)


def test_a_diverging_loss_ends_the_job_and_leaves_no_recommendations(tmp_path: Path):
    directory = job(tmp_path, settings={"learning_rate": 1e38})
    with pytest.raises(NonFiniteError, match="lower the learning rate"):
        run_job(directory, say=lambda _: None)
    assert not directory.recommendations.exists()
    assert not directory.network_file.exists()


def test_an_unknown_setting_of_the_spec_is_refused_by_name(tmp_path: Path):
    directory = job(tmp_path, settings={"epoch": 3})
    with pytest.raises(SettingsError, match=r"spec\.json: settings\.epoch: "):
        run_job(directory, say=lambda _: None)


def test_a_trained_network_measures_as_it_did_in_its_run(tmp_path: Path):
    directory = job(tmp_path, settings={"held_out": 0.2, "epochs": 10})
    run_job(directory, say=lambda _: None)
    lines = [json.loads(line) for line in (directory.path / "metrics.jsonl").read_text().splitlines()]
    then = {line["name"]: line["value"] for line in lines if "." in line["name"]}
    hidden = find_split(None, Source(tmp_path / "samples.txt"), SplitSettings())
    results = measure(directory.network_file, hidden, TrainSettings(batch_size=16), say=lambda _: None)
    now = {f"{one.model}.{name}": mean for one in results for name, mean in one.measured.means().items()}
    assert {name: now[name] for name in then} == pytest.approx(then, abs=1e-6)
    assert now["network.recall@10"] >= now["popularity.recall@10"]


def test_a_trained_network_is_measured_on_splits_of_its_features_only(tmp_path: Path):
    directory = job(tmp_path, settings={"epochs": 0})
    run_job(directory, say=lambda _: None)
    samples, others = tmp_path / "samples.txt", ":".join(f"other{n}" for n in range(150))

    def measured_on(split: Split) -> list[float]:
        network, _ = measure(directory.network_file, split, TrainSettings(batch_size=16), say=lambda _: None)
        return network.measured.values["recall@100"].tolist()

    # All that a sample lacks is listed, but for features that come after those that the network knows.
    (tmp_path / "test.txt").write_text("".join(f"s{n}\tf{missing(n)}:{others}\n" for n in range(SAMPLES)))
    wider = make_split(Source(training=samples, test=tmp_path / "test.txt"), SplitSettings())
    assert wider.features.width > 128
    assert measured_on(wider) == [1 / 151] * SAMPLES

    strong = find_split(None, Source(samples), SplitSettings(protocol="strong"))
    with pytest.raises(DataError, match=r"features_output: feature 'f\d+' is unit \d+ of gl\.nc, but not of the split"):
        measured_on(strong)
    (directory.path / "features_output").unlink()
    (tmp_path / "more.txt").write_text(f"a\t{others}\nb\t{others}\n")
    with pytest.raises(NetworkError, match=r"gl\.nc: input: has 128 units, the split's 1\d\d features for training"):
        measured_on(find_split(None, Source(tmp_path / "more.txt"), SplitSettings()))


def test_a_baseline_that_is_none_is_refused_and_those_there_are_are_named():
    with pytest.raises(SettingsError, match="baselines: 'luck' is none; there is popularity"):
        Wishes.of("popularity, luck", ())
