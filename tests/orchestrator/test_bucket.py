"""A bucket looked at, filled by the program of the machine, and brought home from."""

import tarfile
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from machines import machines_program
from rentals import QUICK, REGION, run_spec

from orchestrator.aws.clients import Clients, loopback_clients
from orchestrator.aws.storage import AwsStorage
from orchestrator.bucket import bring_kept, bring_what_there_is, kept_run
from orchestrator.dryrun.cloud import MockedCloud, running_cloud
from orchestrator.errors import PermissionMissing, RunFailed, TransferMismatch, UsageError
from orchestrator.keeping import bucket_notes, folder_of_run
from orchestrator.resources import BucketFolder
from orchestrator.spec import read_spec

FOLDER = BucketFolder("films", "trained/run-1", REGION)
NAMES = ("recs", "titles.json", "log.txt")


@pytest.fixture(scope="module")
def cloud() -> Generator[MockedCloud]:
    with running_cloud(QUICK) as mock:
        yield mock


@pytest.fixture(scope="module")
def clients(cloud: MockedCloud) -> Clients:
    return loopback_clients(REGION, cloud.endpoint)


@pytest.fixture(scope="module")
def store(clients: Clients) -> AwsStorage:
    return AwsStorage(clients)


@pytest.fixture
def mock(cloud: MockedCloud, s3: Any) -> MockedCloud:
    cloud.play(QUICK)
    for found in s3.list_objects_v2(Bucket="films").get("Contents", ()):
        s3.delete_object(Bucket="films", Key=found["Key"])
    return cloud


@pytest.fixture
def s3(clients: Clients) -> Any:
    return clients.s3


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """The program of the machine."""
    return machines_program("bucket.py")


@pytest.fixture
def keeper(program: ModuleType, mock: MockedCloud, s3: Any, tmp_path: Path) -> Any:
    """Of a run that has left what a good run leaves."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "recs").write_bytes(b"1\t2,0.5:\n" * 1000)
    (run / "log.txt").write_text("epoch 1/2\n")
    (run / "exit").write_text("0\n")
    orders = program.Orders("films", FOLDER.prefix, REGION, NAMES, "checkpoints.tar")
    return program.Keeper(run, orders, s3)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def ignore(message: str) -> None:
    pass


def test_a_bucket_that_is_not_there_is_refused_with_the_command_that_makes_it(mock: MockedCloud, store: AwsStorage):
    spec = run_spec(bucket="s3://nowhere/here", instance_profile="machines")
    mock.play({**QUICK, "missing_buckets": ["nowhere"]})
    with pytest.raises(UsageError, match="no bucket nowhere; `aws s3 mb s3://nowhere --region us-east-1`"):
        folder_of_run(store, spec, "run-1")


def test_a_bucket_that_may_not_be_listed_is_refused(mock: MockedCloud, store: AwsStorage):
    spec = run_spec(bucket="s3://films/trained", instance_profile="machines")
    mock.play({**QUICK, "fail": [{"action": "ListObjectsV2", "code": "AccessDenied", "status": 403}]})
    with pytest.raises(PermissionMissing, match="must allow s3:ListBucket"):
        folder_of_run(store, spec, "run-1")
    assert folder_of_run(store, spec, "run-1") == FOLDER


def test_a_bucket_wants_a_profile_and_the_command_that_makes_one_is_told(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text('instance_types = ["g6.xlarge"]\nnetwork = "n"\ndata = "d"\nbucket = "s3://films/a/b"\n')
    with pytest.raises(UsageError, match=r"deploy .* Bucket=films BucketPrefix=a/b`"):
        read_spec(path, {})
    with pytest.raises(UsageError, match="bucket"):
        read_spec(path, {"bucket": "s3://films", "instance_profile": "machines"})


def test_a_bucket_elsewhere_is_remarked_on():
    assert bucket_notes(FOLDER, region=REGION) == ()
    (note,) = bucket_notes(FOLDER, region="eu-west-1")
    assert "AWS charges" in note


def test_what_a_machine_has_kept_comes_home_verified(keeper: Any, home: Path, store: AwsStorage):
    assert kept_run(store, FOLDER) is None
    keeper.finish()
    kept = kept_run(store, FOLDER)
    assert kept is not None
    assert kept.exit_status == 0
    artifacts = bring_kept(store, FOLDER, kept, NAMES, into=home, tell=ignore)
    assert [artifact.name for artifact in artifacts] == ["recs", "log.txt"]
    assert (home / "recs").read_bytes() == (keeper.run / "recs").read_bytes()


def test_an_object_that_was_changed_gets_no_final_name(keeper: Any, s3: Any, home: Path, store: AwsStorage):
    keeper.finish()
    s3.put_object(Bucket="films", Key=FOLDER.key("recs"), Body=b"1\t3,0.5:\n" * 1000)
    kept = kept_run(store, FOLDER)
    assert kept is not None
    with pytest.raises(TransferMismatch, match="recs: arrived as"):
        bring_kept(store, FOLDER, kept, NAMES, into=home, tell=ignore)
    assert list(home.iterdir()) == []


def test_a_good_run_that_lacks_something_is_named(keeper: Any, home: Path, store: AwsStorage):
    (keeper.run / "recs").unlink()
    keeper.finish()
    kept = kept_run(store, FOLDER)
    assert kept is not None
    with pytest.raises(RunFailed, match="left no recs"):
        bring_kept(store, FOLDER, kept, NAMES, into=home, tell=ignore)


def test_a_machine_that_ends_too_early_has_left_its_log_and_its_newest_checkpoint(
    mock: MockedCloud, keeper: Any, s3: Any, home: Path, store: AwsStorage
):
    for step in ("9", "10", ".11.aside"):
        (keeper.run / "checkpoints" / step).mkdir(parents=True)
        (keeper.run / "checkpoints" / step / "tree").write_text(step)
    now = [0.0]
    keeper.clock = lambda: now[0]
    keeper.look()
    mock.play(QUICK)
    keeper.look()
    assert mock.calls().get("PutObject", 0) == 0, "what has not changed is not sent again"
    now[0], log = 20.0, keeper.run / "log.txt"
    log.write_text("epoch 1/2\nepoch 2/2\n")
    keeper.look()
    assert mock.calls()["PutObject"] == 1
    names = ("checkpoints.tar", *NAMES)
    artifacts = bring_what_there_is(store, FOLDER, names, into=home, tell=ignore)
    assert [artifact.name for artifact in artifacts] == ["checkpoints.tar", "log.txt"]
    assert (home / "log.txt").read_text() == log.read_text()
    with tarfile.open(home / "checkpoints.tar") as archive:
        assert "checkpoints/10/tree" in archive.getnames()
        assert not any("9" in name or "aside" in name for name in archive.getnames())
    s3.put_object(Bucket="films", Key=FOLDER.key("log.txt"), Body=b"by somebody else")
    with pytest.raises(RunFailed, match="not noted"):
        bring_what_there_is(store, FOLDER, ("log.txt",), into=home, tell=ignore)


def test_a_machine_that_is_taken_back_keeps_its_checkpoint_and_does_not_say_that_the_run_is_over(
    keeper: Any, home: Path, store: AwsStorage
):
    (keeper.run / "exit").write_text("75\n")
    (keeper.run / "interruption.json").write_text("{}")
    (keeper.run / "checkpoints" / "7").mkdir(parents=True)
    keeper.finish()
    assert keeper.is_taken_back
    assert kept_run(store, FOLDER) is None
    found = bring_what_there_is(store, FOLDER, ("checkpoints.tar",), into=home, tell=ignore)
    assert [artifact.name for artifact in found] == ["checkpoints.tar"]


def test_a_machine_that_may_not_write_says_so_before_it_trains(
    mock: MockedCloud, program: ModuleType, keeper: Any, capsys: pytest.CaptureFixture[str], store: AwsStorage
):
    mock.play({**QUICK, "fail": [{"action": "PutObject", "code": "AccessDenied", "status": 403}]})
    assert program.first_object(keeper) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert FOLDER.url in line
    assert "s3:PutObject" in line
    keeper.finish()
    assert program.first_object(keeper) == 0
    assert kept_run(store, FOLDER) is None, "what a machine before it told counts no more"
