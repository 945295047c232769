"""The whole job through the real command, as a subprocess, against a mocked cloud that outlives it. One program of each
exit status runs as a user's does; what else is asked of a verb is asked in this process, for its haste.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from programs import ROOT, MockCloud, ask, run, start, wait_for

from orchestrator.dryrun.cloud import running_cloud

SMALL = ["--epochs", "2", "--batch-size", "32"]


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ratings")
    done = run("trainer", "synthesize", str(folder / "films"), "--users", "90", "--items", "80", cwd=folder)
    assert done.exit_status == 0, done.stderr
    return folder / "films"


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Generator[MockCloud]:
    mock = MockCloud(tmp_path_factory.mktemp("cloud"), {})
    yield mock
    mock.stop()


@pytest.fixture
def cloud(standing: MockCloud) -> Generator[MockCloud]:
    """The module's cloud; what a test that fails leaves there is not the next one's trouble."""
    yield standing
    if standing.billable:
        ask("sweep", "--dry-run", "--mock-cloud", standing.endpoint, "--yes")


def job(endpoint: str, ratings: Path, *flags: str) -> list[str]:
    return [
        "launch-and-train", "--dry-run", "--mock-cloud", endpoint, "--json", "--data", str(ratings), *SMALL, *flags,
    ]  # fmt: skip


def only_run_folder(cwd: Path) -> Path:
    (folder,) = [path for path in (cwd / "runs").iterdir() if (path / "run.json").exists()]
    return folder


def rated_by(ratings: Path) -> dict[str, set[str]]:
    rated: dict[str, set[str]] = {}
    for line in (ratings / "ratings.csv").read_text().splitlines()[1:]:
        user, item, *_ = line.split(",")
        rated.setdefault(user, set()).add(item)
    return rated


def row(markdown: str, name: str) -> str:
    (found,) = [line for line in markdown.splitlines() if line.startswith(f"| {name} |")]
    return found


def test_the_whole_job_brings_recommendations_home_and_leaves_nothing(cloud: MockCloud, ratings: Path, tmp_path: Path):
    done = run(*job(cloud.endpoint, ratings, "--k", "7"), cwd=tmp_path)
    assert done.exit_status == 0, done.stderr
    answer = done.answer
    folder = only_run_folder(tmp_path)
    rated = rated_by(ratings)
    titles = json.loads((folder / "titles.json").read_text())
    recommended = dict(line.split("\t") for line in (folder / "recs").read_text().splitlines())
    assert set(recommended) == set(rated)
    for user, items in recommended.items():
        names = [item.split(",")[0] for item in items.rstrip(":").split(":")]
        assert len(set(names)) == 7
        assert not rated[user] & set(names)
        assert set(names) <= set(titles)
    wanted = {
        "recs",
        "gl.nc",
        "features_input",
        "features_output",
        "samples_input",
        "metrics.jsonl",
        "log.txt",
    }
    assert wanted <= set(answer["artifacts"])
    assert all(Path(artifact["path"]).stat().st_size == artifact["bytes"] for artifact in answer["artifacts"].values())
    assert answer["teardown"]["survivors"] == []
    assert {name.split()[0] for name in answer["teardown"]["deleted"]} == {"instance", "key", "security"}
    assert answer["metrics"]["network.ndcg@100"] > 0
    assert answer["hours"] > 0
    assert cloud.billable == []
    assert json.loads((folder / "run.json").read_text())["outcome"]["exit_status"] == 0
    summary = (folder / "summary.md").read_text()
    assert summary.startswith(f"## {answer['run_id']}: done\n")
    assert "- survivors: none\n" in summary
    for model in ("network", "popularity"):
        assert f"| {answer['metrics'][f'{model}.ndcg@100']:.4f} |" in row(summary, model)
    assert "123456789012" not in summary, "pages of CI jobs are public, the account's number is not"
    assert not list(folder.glob("*.pem")), "the private key outlived the machine it opened"
    assert "PRIVATE KEY" not in "".join(path.read_text(errors="replace") for path in folder.glob("*.json*"))


def test_a_machine_with_another_host_key_is_refused_and_torn_down(
    ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with running_cloud({"host_key": "wrong"}) as mock:
        done = ask(*job(mock.endpoint, ratings))
        left = [thing for thing in mock.state() if thing["state"] != "terminated"]
    assert done.exit_status == 1
    assert "host key" in done.answer["error"]
    assert done.answer["teardown"]["survivors"] == []
    assert left == []


def test_a_failing_trainer_is_told_in_its_own_words_and_torn_down(cloud: MockCloud, ratings: Path, tmp_path: Path):
    spec = tmp_path / "diverge.toml"
    spec.write_text(
        f'instance_types = ["g6.xlarge"]\nnetwork = "{ROOT / "configs/networks/dsstne-movielens.json"}"\n'
        f'data = "{ratings}"\n[settings]\nlearning_rate = 1e38\nepochs = 3\n'
    )
    done = run(
        "launch-and-train",
        "--mock-cloud",
        cloud.endpoint,
        "--config",
        str(spec),
        "--json",
        "--yes",
        cwd=tmp_path,
    )
    assert done.exit_status == 1
    assert "finite" in done.answer["error"]
    assert done.answer["teardown"]["survivors"] == []
    assert cloud.billable == []
    folder = only_run_folder(tmp_path)
    assert (folder / "log.txt").read_text()
    assert f": failed\n\n````text\n{done.answer['error']}\n````\n" in (folder / "summary.md").read_text()


def started_training(cwd: Path) -> bool:
    return any("epoch" in path.read_text() for path in cwd.glob("runs/*/log.txt"))


def has_a_machine(cwd: Path) -> bool:
    """Whether the ledger names one: it boots, or is being sent files."""
    lines = [json.loads(line) for path in cwd.glob("runs/*/ledger.jsonl") for line in path.read_text().splitlines()]
    return any(entry["event"] == "created" and entry["kind"] == "instance" for entry in lines)


def has_its_address(cwd: Path) -> bool:
    """Whether the run's record holds the machine: from here on another shell can come back to it."""
    return any(json.loads(path.read_text()).get("machine") for path in cwd.glob("runs/*/run.json"))


@pytest.mark.parametrize(("sent", "when"), [(signal.SIGINT, started_training), (signal.SIGTERM, has_a_machine)])
def test_an_interrupted_run_is_torn_down(
    cloud: MockCloud, ratings: Path, tmp_path: Path, sent: signal.Signals, when: Callable[[Path], bool]
):
    process = start(
        "launch-and-train", "--dry-run", "--mock-cloud", cloud.endpoint, "--json",
        "--data", str(ratings), "--epochs", "100000", cwd=tmp_path,
    )  # fmt: skip
    wait_for(lambda: when(tmp_path), what=when.__name__)
    process.send_signal(sent)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(stdout)["teardown"]["survivors"] == []
    assert cloud.billable == []


def killed(cloud: MockCloud, ratings: Path, tmp_path: Path, *flags: str, when: Callable[[Path], bool]) -> Path:
    process = start(
        "launch-and-train", "--dry-run", "--mock-cloud", cloud.endpoint,
        "--data", str(ratings), "--epochs", "100000", *flags, cwd=tmp_path,
    )  # fmt: skip
    wait_for(lambda: when(tmp_path), what=when.__name__)
    process.kill()
    process.communicate(timeout=60)
    return only_run_folder(tmp_path)


def test_after_kill_9_a_sweep_finds_and_deletes_all_that_the_ledger_names(
    cloud: MockCloud, ratings: Path, tmp_path: Path
):
    folder = killed(cloud, ratings, tmp_path, when=has_a_machine)
    ledger = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    created = {entry["resource_id"] for entry in ledger if entry["event"] == "created"}
    left = {thing["id"] for thing in cloud.billable}
    assert left
    came_along = {"volume", "network interface"}
    assert left - created <= {thing["id"] for thing in cloud.billable if thing["kind"] in came_along}
    done = ask("sweep", "--dry-run", "--mock-cloud", cloud.endpoint, "--yes", "--json")
    assert done.exit_status == 0, done.stderr
    assert done.answer["survivors"] == []
    assert cloud.billable == []


def test_after_kill_9_down_gives_back_what_the_ledger_names(cloud: MockCloud, ratings: Path, tmp_path: Path):
    folder = str(killed(cloud, ratings, tmp_path, when=started_training))
    looked = ask("status", folder, "--json")
    assert looked.answer["state"] == "training", "the machine trains on without its client"
    done = ask("down", folder, "--json")
    assert done.exit_status == 0, done.stderr
    assert cloud.billable == []
    again = ask("down", folder, "--json")
    assert (again.exit_status, again.answer["survivors"]) == (0, [])


def test_after_kill_9_the_machine_ends_itself_when_its_time_is_over(cloud: MockCloud, ratings: Path, tmp_path: Path):
    folder = killed(cloud, ratings, tmp_path, "--max-hours", "0.003", when=has_its_address)
    wait_for(
        lambda: not [thing for thing in cloud.billable if thing["kind"] == "instance"],
        what="the self-destruct timer",
    )
    late = ask("attach", str(folder), "--json")
    assert (late.exit_status, "not brought home" in late.answer["error"]) == (1, True)
    assert cloud.billable == []


BAD_NETWORK = '{"Kind": "FeedForward", "Layerz": []}'


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", "bad.csv"], "bad.csv:3: "),
        (["--network", "nowhere.json"], "nowhere.json"),
        (["--network", "bad.json"], "Layerz"),
        (["--instance-type", "g99.xlarge"], "g99.xlarge"),
        (["--ami", "ami-0123456789abcdef0"], "ami-0123456789abcdef0"),
        (["--ami", "ami-d6f2e6bc"], "dlami-base"),
        (["--max-usd", "0.01"], "0.01"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--epochs", "0"], "epochs"),
    ],
)
def test_bad_input_gives_one_clear_line_and_creates_nothing(
    cloud: MockCloud, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], expected: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,4\n1,abc\n")
    (tmp_path / "bad.json").write_text(BAD_NETWORK)
    given = flags if "--data" in flags else ["--data", str(ratings), *flags]
    done = ask("launch-and-train", "--dry-run", "--mock-cloud", cloud.endpoint, *given)
    assert done.exit_status == 2, done.stderr
    assert len(done.error_lines) == 1
    assert expected in done.error_lines[0]
    assert "Traceback" not in done.stderr
    assert cloud.billable == []
    assert not (tmp_path / "runs").exists()


def test_a_real_rental_is_not_begun_without_a_terminal_or_yes(ratings: Path, tmp_path: Path):
    done = run("launch-and-train", "--data", str(ratings), cwd=tmp_path)
    assert done.exit_status == 2
    assert done.error_lines == ["error: no terminal to ask on; pass --yes to rent without asking"]
    assert list(tmp_path.iterdir()) == []


MISLEADING = "[default]\nendpoint_url = http://192.0.2.1:9\nregion = eu-west-1\n"


@pytest.fixture(scope="module")
def planned(standing: MockCloud, ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The plan, by a run in a folder with AWS settings alone, of a training that a T4 is too small for."""
    folder, files = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("files")
    network = (ROOT / "configs/networks/movielens.json").read_text()
    changes = {'"N": 200,': '"N": 6000000,', '"Epochs": 100': '"Epochs": 7', "ndcg@100": "recall@20"}
    for before, after in changes.items():
        network = network.replace(before, after)
    (folder / ".aws").mkdir()
    (folder / ".aws" / "config").write_text(MISLEADING)
    (files / "large.json").write_text(network)
    (files / "run.toml").write_text(f'instance_types = ["g6e.xlarge"]\nnetwork = "large.json"\ndata = "{ratings}"\n')
    done = run(
        "orchestrator", "plan", "--dry-run", "--mock-cloud", standing.endpoint, "--data", str(ratings), "--json",
        "--config", str(files / "run.toml"), "--batch-size", "8",
        "--instance-type", "g4dn.xlarge", "--instance-type", "g6e.xlarge", cwd=folder,
    )  # fmt: skip
    assert done.exit_status == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == [".aws"]
    return done.answer


def test_the_plan_lists_what_goes_and_changes_nothing(planned: Any, cloud: MockCloud, ratings: Path):
    paths = {file["path"] for file in planned["upload"]["files"]}
    assert f"data/{ratings.name}/ratings.csv" in paths
    assert "tree/trainer/cli/__init__.py" in paths
    assert planned["open_to"][0]["port"] == 22
    assert planned["open_to"][0]["cidr"].endswith("/32")
    assert float(planned["worst_case_usd"]) > float(planned["offers"][0]["usd_per_hour"])
    assert cloud.billable == []


def test_the_plan_says_what_fits_how_long_it_takes_and_what_it_costs(planned: Any):
    fits = {one["instance_type"]: one["fits"] for one in planned["fit"]["types"]}
    assert fits == {"g4dn.xlarge": False, "g6e.xlarge": True}
    assert {offer["instance_type"] for offer in planned["offers"]} == {"g6e.xlarge"}
    assert any(note.startswith("left out: g4dn.xlarge would need") for note in planned["notes"])
    assert (planned["settings"]["batch_size"], planned["settings"]["epochs"]) == (8, 7), "flag, network"
    assert planned["inputs"]["early_stopping"] == {"metric": "recall@20", "refit": True}
    hourly, fit = planned["offers"][0]["usd_per_hour"], planned["offers"][0]["fit"]
    assert 16 * 0.75 < fit["gib_per_gpu"] < fit["gpu_memory_gib"]
    assert fit["training_seconds"] == pytest.approx(fit["epoch_seconds"] * planned["settings"]["epochs"])
    assert float(fit["training_usd"]) == pytest.approx(fit["training_seconds"] * float(hourly) / 3600, abs=1e-6)
    smallest = {one["instance_type"]: one["usd_per_hour"] for one in planned["fit"]["smallest"]}
    assert (smallest["g6e.xlarge"], smallest["p5.4xlarge"]) == (hourly, None)


@pytest.mark.parametrize("program", ["launch-and-train", "orchestrator", "trainer"])
def test_help_does_not_import_what_is_heavy(program: str, tmp_path: Path):
    module = "trainer.cli" if program == "trainer" else "orchestrator.cli"
    code = (
        f"import sys, {module}; heavy = {{'jax', 'boto3', 'numpy', 'pydantic', 'paramiko', 'moto'}};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert run(program, "--help", cwd=tmp_path).exit_status == 0


def test_programs_do_not_read_the_callers_aws_settings_in_a_dry_run(planned: Any):
    assert planned["account_id"] == "123456789012"
