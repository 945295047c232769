"""Both programs' sides of the run directory: what the orchestrator writes the trainer reads, and what the
trainer leaves the orchestrator fetches and shows.
"""

import json
from pathlib import Path

import pytest
from trainer_checkerboard import write_checkerboard, write_network

from orchestrator.brought import read_metrics
from orchestrator.errors import UsageError
from orchestrator.inputs import check_inputs
from orchestrator.interruption import ASKED_TO_END
from orchestrator.remote import SAVED, Look
from orchestrator.rundir import ARTIFACTS
from orchestrator.spec import RunSettings, RunSpec
from trainer.errors import Interrupted
from trainer.job import run_job
from trainer.rundir import RunDirectory, State
from trainer.settings import JobSpec, TrainSettings


def test_every_setting_a_run_spec_knows_is_one_of_the_trainers_with_the_same_default():
    ours = RunSettings().model_dump(exclude_none=True)
    theirs = TrainSettings().model_dump()
    assert {name: theirs[name] for name in ours} == ours
    assert set(RunSettings.model_fields) <= set(TrainSettings.model_fields)


def test_both_mean_the_same_by_the_end_that_was_asked_for_and_by_the_age_of_checkpoints():
    assert Interrupted.exit_status == SAVED
    assert Interrupted.exit_status in ASKED_TO_END
    assert Look(True, False, SAVED, 0, {}).state == State.INTERRUPTED
    assert RunSpec.model_fields["checkpoint_seconds"].default == JobSpec.model_fields["checkpoint_seconds"].default


def test_the_trainer_reads_what_the_orchestrator_asks(tmp_path: Path):
    asked = {
        "data": "../data/films",
        "network": "network.json",
        "min_devices": 8,
        "checkpoint_seconds": 5,
        "settings": RunSettings(epochs=3).model_dump(exclude_none=True),
    }
    (tmp_path / "spec.json").write_text(json.dumps(asked))
    job = JobSpec.read(tmp_path / "spec.json")
    assert (job.data, job.min_devices, job.settings.epochs) == ("../data/films", 8, 3)


def test_the_trainer_checks_what_a_run_leaves_open_and_what_it_wants_of_ratings_before_anything_is_rented(
    tmp_path: Path,
):
    data = write_checkerboard(tmp_path / "samples.txt")
    network = write_network(tmp_path / "network.json")
    network.write_text(network.read_text().replace('"LearningRate": 0.05', '"LearningRate": {"Range": [0.01, 0.1]}'))
    assert check_inputs(network, data, RunSettings(tune_trials=3)).summary.samples == 60
    with pytest.raises(UsageError, match=r"\$\.Optimizer\.LearningRate: the value is left open"):
        check_inputs(network, data, RunSettings())
    with pytest.raises(UsageError, match=r"min_rating: .*samples\.txt is no ratings table"):
        check_inputs(network, data, RunSettings(tune_trials=3, min_rating=4))


def test_a_finished_job_leaves_every_artifact_and_metrics_that_are_shown(tmp_path: Path):
    write_checkerboard(tmp_path / "samples.txt")
    run = tmp_path / "run"
    run.mkdir()
    write_network(run / "network.json")
    settings = RunSettings(batch_size=16, epochs=2, held_out=0.2).model_dump(exclude_none=True)
    (run / "spec.json").write_text(json.dumps({"data": "../samples.txt", "settings": settings}))
    run_job(RunDirectory(run), say=lambda _: None)
    # The log is what the trainer prints; whoever starts it keeps it. Text data has neither titles nor attributes, and
    # this network leaves nothing to be tried.
    expected = set(ARTIFACTS) - {
        "log.txt", "titles.json", "features_attributes", "trials.jsonl", "trials.txt", "best.json",
    }  # fmt: skip
    assert expected <= {path.name for path in run.iterdir()}
    metrics = read_metrics(run / "metrics.jsonl")
    assert {"loss", "network.ndcg@10", "popularity.ndcg@10"} <= set(metrics)
