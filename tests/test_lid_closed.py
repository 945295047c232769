"""A run that is left alone, and who comes back to it from another shell: through the real commands, one rehearsal for
many assertions.
"""

import json
import shutil
import stat
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from programs import Done, MockCloud, run


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[MockCloud]:
    mock = MockCloud(tmp_path_factory.mktemp("cloud"), {"pending_seconds": 0.2, "ending_seconds": 0.2})
    yield mock
    mock.stop()


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ratings")
    done = run("trainer", "synthesize", str(folder / "films"), "--users", "90", "--items", "80", cwd=folder)
    assert done.exit_status == 0, done.stderr
    return folder / "films"


def detached(cloud: MockCloud, ratings: Path, *flags: str, cwd: Path) -> Done:
    done = run(
        "launch-and-train", "--dry-run", "--mock-cloud", cloud.endpoint, "--detach",
        "--data", str(ratings), "--batch-size", "32", *flags, cwd=cwd,
    )  # fmt: skip
    assert done.exit_status == 0, done.stderr
    return done


def ask(*arguments: str, cwd: Path) -> Done:
    return run("orchestrator", *arguments, "--json", cwd=cwd)


def test_a_run_left_alone_is_looked_at_brought_home_and_given_back_from_elsewhere(
    cloud: MockCloud, ratings: Path, tmp_path: Path
):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    said = detached(cloud, ratings, "--epochs", "2", cwd=here).stdout
    (folder,) = (here / "runs").glob("*-movielens-*")
    name = folder.name
    assert f"orchestrator attach {name}" in said
    for secret in ("key.pem", "known_hosts"):
        assert stat.S_IMODE((folder / secret).stat().st_mode) == 0o600
    # From here on it is another machine, which has but the folder.
    moved = there / "taken along"
    shutil.copytree(folder, moved)
    shutil.rmtree(here)
    looked = ask("status", str(moved), cwd=there).answer
    assert looked["state"] in {"starting", "training", "predicting", "done"}
    assert 50 < looked["minutes_to_timer"] < 60
    assert 0 < looked["usd"] <= looked["usd_at_most"] < 2
    heard = run("orchestrator", "logs", "-f", str(moved), cwd=there)
    assert (heard.exit_status, "epoch 2/2" in heard.stdout) == (0, True), heard.stdout
    fetched = ask("fetch", str(moved), cwd=there)
    assert "recs" in fetched.answer["artifacts"], fetched.stderr
    assert [thing["kind"] for thing in cloud.billable].count("instance") == 1, "fetching keeps the machine"
    command = ask("ssh", str(moved), cwd=there).answer["command"]
    if shutil.which(command[0]):
        greeting = subprocess.run([*command, "echo $USER"], capture_output=True, text=True, timeout=30)
        assert greeting.stdout == "ubuntu\n", greeting.stderr
    ended = ask("attach", str(moved), cwd=there)
    assert ended.exit_status == 0, ended.stderr
    assert {"recs", "gl.nc"} <= set(ended.answer["artifacts"])
    assert ended.answer["teardown"]["survivors"] == []
    assert cloud.billable == []
    assert not {"key.pem", "known_hosts"} & {path.name for path in moved.iterdir()}
    assert json.loads((moved / "run.json").read_text())["outcome"]["exit_status"] == 0
    assert ask("status", str(moved), cwd=there).answer["state"] == "given back"
    again = ask("fetch", str(moved), cwd=there)
    assert (again.exit_status, "was given back" in again.answer["error"]) == (2, True)
