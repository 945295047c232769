import json
from pathlib import Path

from trainer.rundir import RunDirectory, State, Status


def test_status_is_replaced_whole_and_nothing_stays_beside_it(tmp_path: Path):
    directory = RunDirectory(tmp_path)
    directory.write_status(Status(State.STARTING))
    directory.write_status(Status(State.TRAINING, 3, 10, loss=1.5, samples_per_second=20.0, seconds_left=7.0))
    assert json.loads((tmp_path / "status.json").read_text()) == {
        "state": "training",
        "epoch": 3,
        "epochs": 10,
        "loss": 1.5,
        "samples_per_second": 20.0,
        "seconds_left": 7.0,
        "metric": None,
        "best": None,
        "best_epoch": None,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_metrics_are_one_object_a_line(tmp_path: Path):
    directory = RunDirectory(tmp_path)
    directory.report(1, "loss", 0.5)
    directory.report(2, "loss", 0.25)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "name": "loss", "value": 0.5}, {"step": 2, "name": "loss", "value": 0.25}]
