"""A run that nobody need come back to: left alone, it is kept in a bucket by its machine, which ends itself; brought
home and its books closed from another folder, by the commands a user gives.
"""

import shutil
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from programs import Done, MockCloud, run
from typer.testing import CliRunner

from orchestrator.aws.clients import loopback_clients
from orchestrator.cli import app
from orchestrator.ledger import LedgerEvent, read_ledger
from orchestrator.resources import Kind

NETWORK = """{"Version": 0.7, "Name": "AE", "Kind": "FeedForward", "ErrorFunction": "CrossEntropy",
"Layers": [
{"Name": "Input", "Kind": "Input", "N": "auto", "DataSet": "gl_input", "Sparse": true},
{"Name": "Hidden", "Kind": "Hidden", "N": 16, "Activation": "Sigmoid"},
{"Name": "Output", "Kind": "Output", "N": "auto", "DataSet": "gl_output", "Activation": "Sigmoid", "Sparse": true}]}"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[MockCloud]:
    scenario = {"pending_seconds": 0.1, "ending_seconds": 0.1, "missing_buckets": ["nowhere"]}
    mock = MockCloud(tmp_path_factory.mktemp("cloud"), scenario)
    yield mock
    mock.stop()


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ratings")
    done = run("trainer", "synthesize", str(folder / "films"), "--users", "90", "--items", "80", cwd=folder)
    assert done.exit_status == 0, done.stderr
    return folder / "films"


def ask(*arguments: str) -> Done:
    done = CliRunner().invoke(app, arguments)
    return Done(done.exit_code, done.stdout, done.stderr)


def small_network(folder: Path) -> Path:
    """What is trained does not matter here."""
    path = folder / "network.json"
    path.write_text(NETWORK)
    return path


def launch(cloud: MockCloud, output: Path, *flags: str) -> Done:
    return ask(
        "launch-and-train", "--dry-run", "--mock-cloud", cloud.endpoint, "--batch-size", "32", "--epochs", "2",
        "--network", str(small_network(output)), "--instance-profile", "machines", "--output", str(output), "--json",
        *flags,
    )  # fmt: skip


def wait_until_no_machine_lives(cloud: MockCloud):
    ends = time.monotonic() + 120
    while any(thing["kind"] == "instance" for thing in cloud.billable):
        assert time.monotonic() < ends
        time.sleep(0.2)


def test_a_bucket_that_is_not_there_is_one_clear_error_and_nothing_is_rented(
    cloud: MockCloud, ratings: Path, tmp_path: Path
):
    refused = launch(cloud, tmp_path, "--data", str(ratings), "--bucket", "s3://nowhere/here")
    assert refused.exit_status == 2
    (line,) = refused.error_lines
    assert "no bucket nowhere" in line
    assert cloud.billable == []


def test_a_run_kept_in_a_bucket_needs_nobody_until_it_is_brought_home(cloud: MockCloud, ratings: Path, tmp_path: Path):
    s3 = loopback_clients("us-east-1", cloud.endpoint).s3
    packed = Path(shutil.make_archive(str(tmp_path / "films"), "zip", ratings))
    s3.upload_file(str(packed), "films", "data/films.zip")
    begun = launch(cloud, tmp_path, "--data", "s3://films/data/films.zip", "--bucket", "s3://films/trained", "--detach")
    assert begun.exit_status == 0, begun.stderr
    name = begun.answer["run_id"]
    assert begun.answer["kept_in"] == f"s3://films/trained/{name}"
    wait_until_no_machine_lives(cloud)
    assert {thing["kind"] for thing in cloud.billable} == {"key pair", "security group"}
    moved = Path(shutil.move(tmp_path / name, tmp_path / "taken along"))
    looked = ask("status", str(moved), "--json").answer
    assert (looked["state"], looked["trainer_exit_status"]) == ("done", 0)
    assert "cost nothing" in looked["note"]
    assert "epoch 2/2" in ask("logs", str(moved)).stdout
    fetched = ask("fetch", str(moved), "--json")
    assert {"recs", "gl.nc"} <= set(fetched.answer["artifacts"])
    ended = ask("attach", str(moved), "--json")
    assert ended.exit_status == 0, ended.stderr
    assert ended.answer["artifacts"] == fetched.answer["artifacts"]
    assert ended.answer["metrics"]["network.recall@10"] > 0
    assert ended.answer["teardown"]["survivors"] == []
    assert cloud.billable == []
    (deleted,) = [
        entry
        for entry in read_ledger(moved / "ledger.jsonl")
        if (entry.kind, entry.event) == (Kind.INSTANCE, LedgerEvent.DELETED)
    ]
    assert deleted.at < books_closed_at(moved), "the machine cost nothing once it had ended itself"
    assert ask("status", str(moved), "--json").answer["state"] == "given back"
    (moved / "recs").unlink()
    assert ask("fetch", str(moved), "--json").answer["artifacts"] == fetched.answer["artifacts"]


def test_data_that_is_not_what_was_promised_ends_the_run_with_one_line(cloud: MockCloud, ratings: Path, tmp_path: Path):
    url = f"{cloud.endpoint}/checkip"
    ended = launch(cloud, tmp_path, "--data", url, "--data-on-machine", "--data-sha256", "0" * 64, "--ssm")
    assert ended.exit_status == 1
    (line,) = ended.error_lines
    assert f"{url}: has SHA-256" in line
    assert "open to nobody" in ended.stderr
    assert ended.answer["teardown"]["survivors"] == []
    assert cloud.billable == []


def books_closed_at(folder: Path):
    """When the books were closed."""
    entries = read_ledger(folder / "ledger.jsonl")
    return next(entry.at for entry in reversed(entries) if entry.kind is Kind.SECURITY_GROUP)
