"""Trials of a network with open values."""

import json
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainer_checkerboard import write_checkerboard
from trainer_networks import mesh_of

from trainer import tuning
from trainer.content import PROFILES
from trainer.data.given import Source, make_split
from trainer.data.split_files import write_split
from trainer.errors import InputError, NetworkError, SettingsError
from trainer.inputs import check
from trainer.job import run_job
from trainer.network import read_network
from trainer.network_file import read_network_file
from trainer.network_names import ACTIVATIONS
from trainer.network_types import Activation, NetworkSpec
from trainer.rundir import RunDirectory
from trainer.settings import SplitSettings, TrainSettings
from trainer.train import digest_of
from trainer.tuning import Samples, Search, Trial, table, tune

RANGES = """
{
    // what is open
    "Name": "board", "ShuffleIndices": false,
    "Layers": [
        {"Name": "Input", "Kind": "Input", "N": "auto", "DataSet": "gl_input", "Sparse": true},
        {"Name": "Hidden", "Kind": "Hidden", "N": 4, "Activation": {"Choice": ["Tanh", "Relu"]}},
        {"Name": "Output", "Kind": "Output", "N": "auto", "DataSet": "gl_output", "Sparse": true}
    ],
    "ErrorFunction": "CrossEntropy",
    "Optimizer": {"Name": "Adam", "LearningRate": {"Range": [0.001, 0.1], "Scale": "log"}},
    "Training": {"BatchSize": 16, "Epochs": 2}
}
"""


@pytest.fixture(scope="module")
def samples(folder: Path) -> Samples:
    network = folder / "ranges.json"
    network.write_text(RANGES, encoding="utf-8")
    return Samples.taken_from(write_checkerboard(folder / "samples.txt"), network, share=0.2, seed=1)


def search(folder: Path, trials: int, *, ranges: str = RANGES, **own: Any) -> Search:
    path = folder / "ranges.json"
    path.write_text(ranges, encoding="utf-8")
    return Search(path, folder / "found", trials, 7, **own)


def tuned(wanted: Search, samples: Samples) -> list[Trial]:
    return tune(wanted, samples, mesh=mesh_of((1, 1)), say=lambda _: None)


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> list[NetworkSpec]:
    """Trials that take no time, and the networks that were tried."""
    seen: list[NetworkSpec] = []

    def tried(spec: NetworkSpec, *_: Any) -> Trial:
        seen.append(spec)
        assert spec.optimizer is not None
        rate = spec.optimizer.learning_rate or 0.0
        return Trial(0, {}, "complete", rate, 1, (rate,), 0.0)

    monkeypatch.setattr(tuning, "_tried", tried)
    return seen


def test_a_search_cut_short_goes_on_to_the_same_trials_and_repeats_none(
    tmp_path: Path, samples: Samples, instant: list[NetworkSpec]
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    whole = tuned(search(alone, 8), samples)
    assert tuned(search(tmp_path, 5), samples) == tuned(search(tmp_path, 3), samples)
    journal = tmp_path / "found" / "trials.jsonl"
    before = journal.read_bytes()
    journal.write_bytes(before + b'{"trial": 6, "val')
    found = tuned(search(tmp_path, 8), samples)
    assert journal.read_bytes().startswith(before)
    assert [replace(trial, seconds=0.0) for trial in found] == [replace(trial, seconds=0.0) for trial in whole]
    assert len({json.dumps(trial.values) for trial in found}) == 8
    assert instant[8:] == instant[:8], "those of the first call were not tried again"
    best = max(instant, key=lambda spec: spec.optimizer.learning_rate if spec.optimizer else 0.0)
    assert read_network(tmp_path / "found" / "best.json") == best
    assert (tmp_path / "found" / "trials.txt").read_text() == table(found) + "\n"


def test_when_every_combination_was_tried_it_ends(tmp_path: Path, samples: Samples, instant: list[NetworkSpec]) -> None:
    ranges = RANGES.replace('{"Range": [0.001, 0.1], "Scale": "log"}', '{"Choice": [0.1, 0.2, 0.3]}')
    found = tuned(search(tmp_path, 100, ranges=ranges), samples)
    assert len(found) == 6
    assert len({json.dumps(trial.values) for trial in found}) == 6
    activations = Counter(spec.layers[1].activation for spec in instant)
    assert activations == {Activation.RECTIFIED_LINEAR: 3, Activation.TANH: 3}


def test_without_time_none_is_begun(tmp_path: Path, samples: Samples, instant: list[NetworkSpec]) -> None:
    assert tuned(search(tmp_path, 100, minutes=0), samples) == []
    assert not (tmp_path / "found" / "best.json").exists()


def test_trials_of_another_search_are_refused(tmp_path: Path, samples: Samples, instant: list[NetworkSpec]) -> None:
    tuned(search(tmp_path, 1), samples)
    others: list[Search] = [
        search(tmp_path, 2, metric="recall@5"),
        replace(search(tmp_path, 2), seed=8),
        search(tmp_path, 2, ranges=RANGES.replace("0.001", "0.002")),
    ]
    for other in others:
        other.network.write_text(RANGES.replace("0.001", "0.002") if other is others[2] else RANGES, encoding="utf-8")
        with pytest.raises(InputError, match=r"trials\.jsonl: these trials are of another network"):
            tuned(other, samples)
    (tmp_path / "found" / "trials.jsonl").write_text("[1]\n[2]\n")
    with pytest.raises(InputError, match="these are no trials"):
        tuned(search(tmp_path, 2), samples)


def test_an_end_that_no_network_has_is_refused_before_any_trial(
    tmp_path: Path, samples: Samples, instant: list[NetworkSpec]
) -> None:
    with pytest.raises(NetworkError, match=r"\$\.Layers\[1\]\.Activation: .*Rela"):
        tuned(search(tmp_path, 1, ranges=RANGES.replace('"Relu"', '"Rela"')), samples)
    ranges = RANGES.replace("gl_input", PROFILES)
    with pytest.raises(SettingsError, match="the network wants attributes, which a split does not keep"):
        tuned(search(tmp_path, 1, ranges=ranges), samples)
    with pytest.raises(SettingsError, match="metric: mrr is none"):
        tuned(search(tmp_path, 1, metric="mrr"), samples)
    assert instant == []


def test_trials_are_trained_one_that_diverges_fails_and_the_best_network_is_one_that_trained(
    tmp_path: Path, samples: Samples
) -> None:
    ranges = RANGES.replace('{"Range": [0.001, 0.1], "Scale": "log"}', '{"Choice": [1e6, 0.01]}').replace("Adam", "SGD")
    ranges = ranges.replace('{"Choice": ["Tanh", "Relu"]}', '"Linear"').replace("CrossEntropy", "L2")
    ranges = ranges.replace('"Sparse": true}\n    ]', '"Sparse": true, "Activation": "Linear"}\n    ]')
    found = tuned(search(tmp_path, 2, ranges=ranges), samples)
    states = {trial.values["$.Optimizer.LearningRate"]: trial.state for trial in found}
    assert states == {1e6: "failed", 0.01: "complete"}
    good, bad = sorted(found, key=lambda trial: trial.state)
    assert good.score == good.curve[-1]
    assert good.epoch == len(good.curve) == 2
    assert "lower the learning rate" in bad.problem
    assert table(found).splitlines()[1].split()[3:] == ["complete", "0.01"]
    best = read_network(tmp_path / "found" / "best.json")
    assert best.optimizer is not None
    assert best.optimizer.learning_rate == 0.01


class Killed(Exception):
    pass


def test_a_job_tunes_then_trains_the_best_and_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    run, said, killing = tmp_path / "run", list[str](), ["trial 1/2", "epoch 2/3", "never"]
    run.mkdir()
    write_checkerboard(tmp_path / "samples.txt")
    (run / "network.json").write_text(RANGES.replace('"Epochs": 2', '"Epochs": 3'), encoding="utf-8")
    settings = {"tune_trials": 2, "tune_minutes": 60, "k": 2, "batch_size": 16}
    (run / "spec.json").write_text(json.dumps({"data": "../samples.txt", "settings": settings}))
    lines: list[list[str]] = []
    for word in killing:

        def say(text: str, word: str = word) -> None:
            said.append(text)
            if text.startswith(word):
                raise Killed

        with nullcontext() if word == "never" else pytest.raises(Killed):
            run_job(RunDirectory(run), say=say)
        lines.append((run / "checkpoints" / "tuning" / "trials.jsonl").read_text().splitlines())
    assert lines[1] == lines[2] == (run / "trials.jsonl").read_text().splitlines()
    assert lines[1][:2] == lines[0]
    trials = [json.loads(line) for line in lines[2][1:]]
    assert [trial["trial"] for trial in trials] == [1, 2]
    best = max(trials, key=lambda trial: trial["score"])["values"]
    learnt, _ = read_network_file(run / "gl.nc")
    assert learnt.optimizer is not None
    assert learnt.optimizer.learning_rate == pytest.approx(best["$.Optimizer.LearningRate"], rel=1e-6)
    assert learnt.layers[1].activation is ACTIVATIONS[best["$.Layers[1].Activation"]]
    assert sum(line.startswith("trial 2/2") for line in said) == 1
    assert len((run / "recs").read_text().splitlines()) == 60


def test_a_job_of_open_values_says_how_many_are_tried_and_states_none_of_them_itself(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(RANGES.replace('"BatchSize": 16', '"BatchSize": {"Choice": [8, 16]}'), encoding="utf-8")
    data = write_checkerboard(tmp_path / "samples.txt")
    found = check(path, data, TrainSettings(tune_trials=2))
    assert (found["samples"], found["batch_size"]) == (60, 8)
    with pytest.raises(NetworkError, match=r"\$\.Layers\[1\]\.Activation: the value is left open: say how many"):
        check(path, data)
    with pytest.raises(NetworkError, match=r"\$\.Training\.BatchSize: is left open, but the settings say batch_size"):
        check(path, data, TrainSettings(tune_trials=2, batch_size=32))
    path.write_text(RANGES.replace('"Relu"', '"Rela"'), encoding="utf-8")
    with pytest.raises(NetworkError, match=r"\$\.Layers\[1\]\.Activation: .*Rela"):
        check(path, data, TrainSettings(tune_trials=2))
    path.write_text(json.dumps(closed_network()), encoding="utf-8")
    with pytest.raises(NetworkError, match="nothing is open"):
        check(path, data, TrainSettings(tune_trials=2))


def closed_network() -> Any:
    return {"Layers": [{"N": "auto", "DataSet": "gl_input"}, {"N": 4}, {"N": "auto", "DataSet": "gl_output"}]}


def test_trials_are_judged_by_the_validation_part_of_a_split_and_trained_on_its_training_part(tmp_path: Path) -> None:
    rows = [range(number % 3, 40, 4) for number in range(12)]
    (tmp_path / "samples.txt").write_text("".join(f"s{n}\t{':'.join(map(str, row))}\n" for n, row in enumerate(rows)))
    source = Source(tmp_path / "samples.txt")
    made = make_split(source, SplitSettings(protocol="weak"))
    write_split(made, tmp_path / "split")
    found = Samples.of_split(tmp_path / "split")
    assert made.validation is not None
    for one, other in (
        (found.training, made.training),
        (found.validation.known, made.validation.known),
        (found.validation.wanted, made.validation.wanted),
    ):
        assert digest_of(one) == digest_of(other)
    assert found.validation.wanted.nnz == 12
    write_split(make_split(source, SplitSettings(protocol="weak", validation_part=0.0)), tmp_path / "split")
    with pytest.raises(SettingsError, match="has no validation part to judge by"):
        Samples.of_split(tmp_path / "split")


def test_a_trial_worse_than_most_is_behind_once_there_are_enough_to_compare_with() -> None:
    others = [np.linspace(0, best, 6).tolist() for best in (0.1, 0.3, 0.5, 0.7)]
    poor, good = [0.0, 0.1, 0.1, 0.1, 0.1], [0.4, 0.1, 0.1, 0.1, 0.1]
    assert tuning._is_behind(poor, others)
    assert not tuning._is_behind(good, others), "what it was best at counts"
    assert not tuning._is_behind(poor, others[1:]), "three are too few"
    assert not tuning._is_behind(poor[:4], others), "too early to tell"
