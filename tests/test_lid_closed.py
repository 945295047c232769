"""A run that is left alone, and who comes back to it from another shell: two rehearsals for many assertions. What
begins and ends them runs as real programs; the looks in between are the same commands in this process, for their haste.
"""

import json
import shutil
import stat
import subprocess
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from programs import ask, run

from orchestrator.dryrun.cloud import MockedCloud, running_cloud


@pytest.fixture(scope="module")
def cloud() -> Generator[MockedCloud]:
    with running_cloud({"pending_seconds": 0.1, "ending_seconds": 0.1}) as mock:
        yield mock


def billable(cloud: MockedCloud) -> list[str]:
    """Kinds of what still exists."""
    return [thing["kind"] for thing in cloud.state() if thing["state"] != "terminated"]


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ratings")
    done = run("trainer", "synthesize", str(folder / "films"), "--users", "90", "--items", "80", cwd=folder)
    assert done.exit_status == 0, done.stderr
    return folder / "films"


def answer(*arguments: str) -> Any:
    done = ask(*arguments, "--json")
    assert done.exit_status == 0, done.stderr
    return done.answer


def wait_for_training(*arguments: str):
    """Until the trainer has said something: starting takes as long as the machine is busy."""
    ends = time.monotonic() + 120
    while (state := answer("status", *arguments)["state"]) != "training":
        assert (state, time.monotonic() < ends) == ("starting", True)
        time.sleep(0.5)


def begin(cloud: MockedCloud, ratings: Path, output: Path, *flags: str) -> list[str]:
    return [
        "launch-and-train", "--dry-run", "--mock-cloud", cloud.endpoint, "--detach", "--data", str(ratings),
        "--batch-size", "32", "--output", str(output), *flags,
    ]  # fmt: skip


def run_folder(output: Path) -> Path:
    (folder,) = output.glob("*-movielens-*")
    return folder


def test_a_run_left_alone_is_looked_at_brought_home_and_given_back_from_elsewhere(
    cloud: MockedCloud, ratings: Path, tmp_path: Path
):
    begun = run(*begin(cloud, ratings, tmp_path / "runs", "--epochs", "2"), cwd=tmp_path)
    assert begun.exit_status == 0, begun.stderr
    folder = run_folder(tmp_path / "runs")
    assert f"orchestrator attach {folder.name}" in begun.stdout
    for secret in ("key.pem", "known_hosts"):
        assert stat.S_IMODE((folder / secret).stat().st_mode) == 0o600
    # From here on it is another machine, which has but the folder.
    moved = str(shutil.move(folder, tmp_path / "taken along"))
    assert "epoch 2/2" in ask("logs", "-f", moved).stdout
    looked = answer("status", moved)
    assert (looked["state"], looked["epoch"], looked["trainer_exit_status"]) == ("done", 2, 0)
    assert 50 < looked["minutes_to_timer"] < 60
    assert 0 < looked["usd"] <= looked["usd_at_most"] < 2
    assert "recs" in answer("fetch", moved)["artifacts"]
    assert billable(cloud).count("instance") == 1, "fetching keeps the machine"
    command = answer("ssh", moved)["command"]
    if shutil.which(command[0]):
        greeting = subprocess.run([*command, "echo $USER"], capture_output=True, text=True, timeout=30)
        assert greeting.stdout == "ubuntu\n", greeting.stderr
    ended = run("orchestrator", "attach", moved, "--json", cwd=tmp_path)
    assert ended.exit_status == 0, ended.stderr
    assert {"recs", "gl.nc"} <= set(ended.answer["artifacts"])
    assert ended.answer["teardown"]["survivors"] == []
    assert billable(cloud) == []
    assert not {"key.pem", "known_hosts"} & {path.name for path in Path(moved).iterdir()}
    assert json.loads((Path(moved) / "run.json").read_text())["outcome"]["exit_status"] == 0
    summary = (Path(moved) / "summary.md").read_text()
    assert summary.startswith(f"## {folder.name}: done\n")
    assert "g6.xlarge" in summary
    again = ask("fetch", moved)
    assert (again.exit_status, "was given back" in again.stderr) == (2, True)


def test_a_run_that_goes_on_is_in_the_books_and_stopped_when_its_money_is_spent(
    cloud: MockedCloud, ratings: Path, tmp_path: Path
):
    output = str(tmp_path / "runs")
    begun = ask(*begin(cloud, ratings, tmp_path / "runs", "--epochs", "100000", "--json"))
    assert begun.exit_status == 0, begun.stderr
    name, here = begun.answer["run_id"], ("--output", output)
    assert begun.answer["detached"]
    assert begun.answer["left_until"]
    wait_for_training(name, *here)
    early = ask("fetch", name, *here)
    assert (early.exit_status, "--partial" in early.stderr) == (2, True)
    assert "log.txt" in answer("fetch", "--partial", name, *here)["artifacts"]
    (listed,) = answer("ls", *here)["runs"]
    assert (listed["run_id"], listed["state"], listed["usd"] > 0) == (name, "rented", True)
    assert listed["machine"].startswith("g6.xlarge i-")
    (known,) = answer("ls", "--cloud", "--mock-cloud", cloud.endpoint, *here)["cloud"].items()
    assert known[0] == name
    assert {"instance", "key pair", "security group"} <= {thing["kind"] for thing in known[1]}
    assert answer("cost", name, *here)["usd"] > 0
    record = tmp_path / "runs" / name / "run.json"
    changed = json.loads(record.read_text())
    changed["machine"]["max_usd"] = "0.02"
    record.write_text(json.dumps(changed))
    stopped = ask("attach", name, *here)
    assert stopped.exit_status == 1
    (line,) = stopped.error_lines
    assert "max_usd = 0.02" in line
    assert billable(cloud) == []
    assert (record.parent / "log.txt").read_text()
    (closed,) = answer("ls", *here)["runs"]
    assert closed["state"] == "failed"
