"""A machine that is kept after a run and used by the next one: one rehearsal, its commands in this process."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from programs import ROOT, Done, MockCloud
from typer.testing import CliRunner

from orchestrator.cli import app

NETWORK = ROOT / "configs" / "networks" / "dsstne-movielens.json"


@pytest.fixture
def cloud(tmp_path: Path) -> Generator[MockCloud]:
    mock = MockCloud(tmp_path, {"pending_seconds": 0.1, "ending_seconds": 0.1})
    yield mock
    mock.stop()


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Every user likes every third film, from a place of their own on."""
    liked = ((user, film) for user in range(1, 41) for film in range(1 + user % 3, 31, 3))
    lines = [f"{user},{film},5,{user + film}" for user, film in liked]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(["userId,movieId,rating,timestamp", *lines, ""]))
    return path


def ask(*arguments: str) -> Done:
    done = CliRunner().invoke(app, arguments)
    return Done(done.exit_code, done.stdout, done.stderr)


def answer(*arguments: str) -> Any:
    done = ask(*arguments, "--json")
    assert done.exit_status == 0, done.stderr
    return done.answer


def instances(cloud: MockCloud) -> list[str]:
    return [thing["id"] for thing in cloud.billable if thing["kind"] == "instance"]


def test_a_kept_machine_serves_the_next_run_and_is_given_back_by_it(cloud: MockCloud, films: Path, tmp_path: Path):
    here = ("--output", str(tmp_path / "runs"))
    begin = ["launch-and-train", "--data", str(films), "--network", str(NETWORK), "--epochs", "1", *here]
    first = answer(*begin, "--dry-run", "--mock-cloud", cloud.endpoint, "--keep-alive", "9")
    assert (first["exit_status"], first["teardown"]["survivors"]) == (0, [])
    assert first["kept_until"] is not None
    (machine,) = instances(cloud)
    one = first["run_id"]
    (listed,) = answer("ls", *here)["runs"]
    assert (listed["state"], listed["machine"].split()[1]) == ("kept", machine)
    standing = answer("status", one, *here)
    assert standing["state"] == "kept"
    assert 7 < standing["minutes_to_timer"] <= 9
    elsewhere = ask(*begin, "--on", one, "--region", "eu-west-1")
    assert (elsewhere.exit_status, "is in us-east-1" in elsewhere.stderr) == (2, True)
    other = ask(*begin, "--on", one, "--instance-type", "g5.xlarge")
    assert (other.exit_status, "is a g6.xlarge, the run wants g5.xlarge" in other.stderr) == (2, True)
    done = ask(*begin, "--on", one, "--json")
    assert done.exit_status == 0, done.stderr
    second, two = done.answer, done.answer["run_id"]
    assert "files were on the machine" in done.stderr
    assert two != one
    assert {"recs", "gl.nc"} <= set(second["artifacts"])
    assert second["teardown"]["survivors"] == []
    assert f"instance {machine}" in second["teardown"]["deleted"]
    assert cloud.billable == []
    states = {run["run_id"]: run["state"] for run in answer("ls", *here)["runs"]}
    assert states == {one: "done", two: "done"}
    assert not list((tmp_path / "runs").glob("*/key.pem"))
    assert json.loads((tmp_path / "runs" / one / "run.json").read_text())["handed_over_to"] == two
    for words in (("status", one), ("fetch", one)):
        told = ask(*words, *here)
        assert "handed over" in told.stdout + told.stderr
    again = ask(*begin, "--on", one)
    assert (again.exit_status, f"to {two}" in again.stderr) == (2, True)
    spent = ask(*begin, "--on", two)
    assert (spent.exit_status, "keeps no machine" in spent.stderr) == (2, True)
