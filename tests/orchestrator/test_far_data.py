"""Data that goes straight to the machine: asked for in a run spec, looked at from here, fetched there."""

import hashlib
import json
import shutil
import threading
from collections.abc import Generator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from machines import machines_program
from rentals import QUICK, REGION, run_spec

from orchestrator.aws.clients import Clients, loopback_clients
from orchestrator.aws.storage import AwsStorage
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.dryrun.storage import machine_settings
from orchestrator.errors import UsageError
from orchestrator.far_data import errand, far_data, far_data_notes
from orchestrator.resources import FarData
from orchestrator.spec import read_spec


@pytest.fixture(scope="module")
def clients(mock: MockedCloud) -> Clients:
    return loopback_clients(REGION, mock.endpoint)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of one folder with a table in it."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "films").mkdir()
    (folder / "films" / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,5,0\n")
    return Path(shutil.make_archive(str(folder / "films"), "zip", folder, "films"))


@pytest.fixture(scope="module")
def served(archive: Path) -> Generator[str]:
    """The URL of the archive, by plain HTTP on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(archive.parent))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{archive.name}"
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """The program of the machine."""
    return machines_program("fetch_data.py")


@pytest.fixture
def run(tmp_path: Path, mock: MockedCloud, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run folder of a machine with a profile, which is the present folder's."""
    for name, value in machine_settings(mock.endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "spec.json").write_text(json.dumps({"data": "somewhere", "min_devices": 8}))
    return tmp_path / "run"


def fetch(program: ModuleType, run: Path, data: FarData) -> tuple[int, str]:
    """The program's exit status, and where the trainer then finds the data."""
    (run / "data.json").write_bytes(errand(data))
    status = program.main()
    job = json.loads((run / "spec.json").read_text())
    assert job["min_devices"] == 8
    return status, job["data"]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data": "https://example.com/films.zip", "data_on_machine": True}, "wants data_sha256"),
        ({"data": "films.zip", "data_on_machine": True}, "for data at a URL"),
        ({"data": "s3://films/all/", "instance_profile": "m"}, "is a folder"),
        ({"data": "s3://films"}, "s3://NAME/PREFIX"),
        ({"data": "s3://films/all.zip"}, "DataObjects=arn:aws:s3:::films/all.zip`"),
    ],
)
def test_what_cannot_go_straight_to_a_machine_is_refused(given: dict[str, Any], said: str, tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text('instance_types = ["g6.xlarge"]\nnetwork = "n"\ndata = "d"\n')
    with pytest.raises(UsageError, match=said):
        read_spec(path, given)


def test_data_in_a_bucket_is_looked_at_from_here(clients: Clients, archive: Path):
    storage = AwsStorage(clients)
    spec = run_spec(data="s3://films/all.zip", instance_profile="m")
    clients.s3.put_object(Bucket="films", Key="all.zip", Body=archive.read_bytes())
    found = far_data(storage, spec)
    assert found is not None
    assert (found.size, found.region) == (archive.stat().st_size, REGION)
    assert any("data_sha256" in note for note in far_data_notes(found, region=REGION))
    assert any("AWS charges" in note for note in far_data_notes(found, region="eu-west-1"))
    with pytest.raises(UsageError, match=r"holds no some\.zip"):
        far_data(storage, spec.model_copy(update={"data": "s3://films/some.zip"}))


def test_data_in_a_bucket_is_fetched_and_unpacked_by_the_machine(
    clients: Clients, archive: Path, program: ModuleType, run: Path
):
    spec = run_spec(data="s3://films/by/machine.zip", instance_profile="m", data_sha256=sha256(archive))
    clients.s3.put_object(Bucket="films", Key="by/machine.zip", Body=archive.read_bytes())
    data = far_data(AwsStorage(clients), spec)
    assert data is not None
    status, found = fetch(program, run, data)
    assert status == 0
    assert (run / found / "ratings.csv").read_text().endswith("1,2,5,0\n")


def test_data_in_a_bucket_that_has_changed_or_may_not_be_read_stops_the_run_with_one_line(
    clients: Clients, mock: MockedCloud, program: ModuleType, run: Path, capsys: pytest.CaptureFixture[str]
):
    clients.s3.put_object(Bucket="films", Key="other.csv", Body=b"other")
    status, _ = fetch(program, run, FarData("s3://films/other.csv", None, 3, "etag of before", REGION))
    (line,) = capsys.readouterr().err.splitlines()
    assert (status, "has changed since the plan" in line) == (1, True)
    mock.play({**QUICK, "fail": [{"action": "HeadObject", "code": "AccessDenied", "status": 403}]})
    status, _ = fetch(program, run, FarData("s3://films/other.csv", None, 3, "etag of before", REGION))
    mock.play(QUICK)
    (line,) = capsys.readouterr().err.splitlines()
    assert (status, "must allow s3:GetObject" in line) == (1, True)


def test_data_at_a_url_is_fetched_verified_and_unpacked_by_the_machine(
    served: str, archive: Path, program: ModuleType, run: Path, capsys: pytest.CaptureFixture[str]
):
    status, _ = fetch(program, run, FarData(served, "0" * 64))
    (line,) = capsys.readouterr().err.splitlines()
    assert (status, f"has SHA-256 {sha256(archive)}" in line) == (1, True)
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    status, found = fetch(program, run, FarData(served, sha256(archive)))
    assert (status, (run / found / "ratings.csv").is_file()) == (0, True)
