"""What GitHub is asked to run: with which rights, and what its scripts do, run here by the same shell."""

import os
import re
import signal
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from orchestrator.cli import whole_job

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"
GIVE_BACK, TELL = "give back whatever is left", "tell"

pytestmark = pytest.mark.skipif(not WORKFLOWS.exists(), reason="no checkout: .github is not packed")


def workflow(name: str) -> dict[Any, Any]:
    return yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())


def jobs() -> list[dict[str, Any]]:
    return [job for path in WORKFLOWS.glob("*.yml") for job in workflow(path.stem)["jobs"].values()]


def steps() -> list[dict[str, Any]]:
    return workflow("launch-and-train")["jobs"]["run"]["steps"]


def place(name: str) -> int:
    return next(number for number, step in enumerate(steps()) if name in (step.get("name"), step.get("uses")))


@pytest.fixture
def runner(tmp_path: Path) -> "Runner":
    return Runner(tmp_path)


class Runner:
    """A folder with programs that only note how they are called, and GitHub's way to run a step in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()

    def program(self, name: str, *lines: str) -> None:
        path = self.folder / "bin" / name
        path.write_text("\n".join(["#!/bin/sh", f'echo "$@" >> {self.folder}/{name}.called', *lines]) + "\n")
        path.chmod(0o755)

    def run(self, name: str, summary: str = "") -> Path:
        folder = self.folder / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
        if summary:
            (folder / "summary.md").write_text(summary)
        return folder

    def called(self, name: str) -> list[str]:
        path = self.folder / f"{name}.called"
        return path.read_text().splitlines() if path.exists() else []

    def start(self, step: str, **environment: str) -> "subprocess.Popen[str]":
        found = steps()[place(step)]
        (self.folder / "step.sh").write_text(found["run"])
        strict = ["--noprofile", "--norc", "-o", "pipefail"] if found.get("shell") == "bash" else []
        given = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        files = {name: str(self.folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        return subprocess.Popen(
            ["bash", *strict, "-e", "step.sh"], cwd=self.folder, env=given | files | environment, text=True
        )

    def step(self, step: str, **environment: str) -> int:
        return self.start(step, **environment).wait(timeout=20)


def test_only_the_job_that_rents_may_ask_for_credentials_and_none_may_write() -> None:
    train = workflow("train")
    assert train["permissions"] == {}
    assert train["jobs"]["rehearse"]["permissions"] == {"contents": "read"}
    assert train["jobs"]["rent"]["permissions"] == {"contents": "read", "id-token": "write"}
    assert workflow("ci")["permissions"] == {"contents": "read"}
    # What it does not state is the caller's.
    assert "permissions" not in (WORKFLOWS / "launch-and-train.yml").read_text()


def test_a_pull_request_rehearses_and_only_what_is_merged_rents() -> None:
    train = workflow("train")
    assert train[True]["push"]["branches"] == ["main"]
    assert "pull_request_target" not in train[True]
    rehearse, rent = train["jobs"]["rehearse"], train["jobs"]["rent"]
    assert rehearse["if"] == "${{ github.event_name == 'pull_request' }}"
    assert rehearse["with"]["dry-run"] is True
    assert "github.event_name == 'push'" in rent["if"]
    assert "dry-run" not in rent["with"]
    for job in (rehearse, rent):
        assert set(job["with"]) <= set(workflow("launch-and-train")[True]["workflow_call"]["inputs"])


def test_every_action_is_named_by_a_version_or_a_commit() -> None:
    used = [job["uses"] for job in jobs() if "uses" in job]
    used += [step["uses"] for job in jobs() for step in job.get("steps", ()) if "uses" in step]
    assert len(used) > 5
    assert [one for one in used if not re.search(r"^\./|@(v\d+(\.\d+)*|[0-9a-f]{40})$", one)] == []


def test_no_script_is_pasted_together_from_what_others_wrote() -> None:
    scripts = [step["run"] for job in jobs() for step in job.get("steps", ()) if "run" in step]
    assert [script for script in scripts if "${{" in script] == []


def test_a_run_asks_nobody_and_answers_in_json(runner: Runner) -> None:
    runner.program("launch-and-train", "echo answer")
    assert runner.step("run", CONFIG="my run.toml", REGION="us-east-1", DRY_RUN="true") == 0
    (called,) = runner.called("launch-and-train")
    wanted = "--yes --json --region us-east-1 --output runs --config my run.toml --dry-run"
    assert called == wanted
    assert (runner.folder / "outcome.json").read_text() == "answer\n"
    get_command(whole_job).make_context("launch-and-train", wanted.replace("my run", "my-run").split())
    assert runner.step("run", CONFIG="", REGION="eu-north-1", DRY_RUN="false") == 0
    assert runner.called("launch-and-train")[1] == "--yes --json --region eu-north-1 --output runs"


def test_the_signal_of_a_cancelled_job_reaches_the_program_itself(runner: Runner) -> None:
    runner.program(
        "launch-and-train",
        "trap 'echo torn down; exit 130' INT",
        "touch ready",
        "for i in $(seq 500); do sleep 0.02; done",
    )
    process = runner.start("run", CONFIG="", REGION="us-east-1", DRY_RUN="false")
    until = time.monotonic() + 20
    while not (runner.folder / "ready").exists() and time.monotonic() < until:
        time.sleep(0.01)
    # As the runner does: to the one process that it started.
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert (runner.folder / "outcome.json").read_text() == "torn down\n"


def test_every_run_is_given_back_whatever_happened_before(runner: Runner) -> None:
    runner.program("orchestrator", 'case $2 in *first) exit 3 ;; esac; echo "survivors: none"')
    assert runner.step(GIVE_BACK) == 0
    runner.run("first")
    runner.run("second")
    (runner.folder / "runs" / "no run").mkdir()
    assert runner.step(GIVE_BACK) == 3
    assert runner.called("orchestrator") == ["down runs/first", "down runs/second"]
    assert (runner.folder / "down.txt").read_text() == "survivors: none\n"


def test_giving_back_is_always_tried_with_fresh_credentials_before_results_are_kept() -> None:
    again = place("take the role again")
    assert place("run") < again < place(GIVE_BACK) < place(TELL) < place("actions/upload-artifact@v4")
    for name in ("take the role again", GIVE_BACK):
        assert steps()[place(name)]["if"] == "${{ always() && !inputs.dry-run }}"
    for name in (TELL, "actions/upload-artifact@v4"):
        assert steps()[place(name)]["if"] == "${{ always() }}"


def test_the_key_of_a_machine_is_not_kept_with_the_results() -> None:
    kept = steps()[place("actions/upload-artifact@v4")]["with"]["path"].split()
    assert kept == ["runs/", "!runs/**/*.pem"]


def test_the_summary_is_the_runs_own_or_else_its_answer(runner: Runner) -> None:
    (runner.folder / "outcome.json").write_text('{"error": "no capacity"}')
    assert runner.step(TELL) == 0
    page = runner.folder / "GITHUB_STEP_SUMMARY"
    assert page.read_text() == '\n````text\n{"error": "no capacity"}\n````\n'
    page.unlink()
    runner.run("r-1", summary="## r-1: done\n")
    assert runner.step(TELL) == 0
    assert page.read_text() == "## r-1: done\n"
    assert (runner.folder / "GITHUB_OUTPUT").read_text() == "run-id=r-1\n"


def test_a_job_outlasts_its_machine_and_its_credentials_the_job() -> None:
    given = {
        name: one.get("default") for name, one in workflow("launch-and-train")[True]["workflow_call"]["inputs"].items()
    }
    hours = tomllib.loads((ROOT / "configs" / "runs" / "movielens.toml").read_text())["max_hours"]
    template = (ROOT / "infra" / "cloudformation" / "launch-and-train.yaml").read_text()
    (allowed,) = re.findall(r"SessionSeconds:.*?Default: (\d+)", template, re.DOTALL)
    assert hours * 3600 < given["timeout-minutes"] * 60 <= given["session-seconds"] <= int(allowed)


def test_what_rents_is_not_cancelled_by_the_next_one() -> None:
    concurrency = workflow("launch-and-train")["jobs"]["run"]["concurrency"]
    assert concurrency["cancel-in-progress"] == "${{ inputs.dry-run }}"
    assert "'rents'" in concurrency["group"]
