"""The upload, to an embedded machine."""

import io
import random
import tarfile
from collections.abc import Generator
from pathlib import Path

import pytest
from machines import Target, embedded_machine

from orchestrator.errors import CommandFailed, TransferMismatch
from orchestrator.events import Progress
from orchestrator.manifest import build_manifest
from orchestrator.ports import Session
from orchestrator.resources import Manifest
from orchestrator.upload import upload, write_archive

ROOT = "launch-and-train/run-1"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Generator[Target]:
    with embedded_machine(tmp_path_factory.mktemp("host")) as target:
        yield target


@pytest.fixture
def session(target: Target) -> Generator[Session]:
    session = target.session()
    yield session
    session.run(["rm", "-rf", "launch-and-train"])
    session.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, text in {
        "trainer/cli.py": "print()\n",
        "infra/bootstrap.sh": "#!/bin/sh\n",
        "films/ratings.csv": "1,2,3\n" * 50_000,
        "films/-rf * día.csv": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "infra" / "bootstrap.sh").chmod(0o755)
    return tmp_path


def listed(source: Path) -> Manifest:
    return build_manifest(
        project=None,
        trainer=source / "trainer",
        infra=source / "infra",
        data=source / "films",
        output=source / "runs",
    )


def ignore(message: str, progress: Progress | None) -> None:
    pass


def test_everything_lies_there_as_it_lies_here(session: Session, source: Path, target: Target):
    extra = {"run/spec.json": b"{}"}
    upload(session, listed(source), root=ROOT, extra=extra, tell=ignore)
    there = target.home / ROOT
    found = {str(path.relative_to(there)): path for path in there.rglob("*") if path.is_file()}
    expected = {
        "tree/trainer/cli.py": b"print()\n",
        "tree/infra/bootstrap.sh": b"#!/bin/sh\n",
        "data/films/ratings.csv": b"1,2,3\n" * 50_000,
        "data/films/-rf * día.csv": b"",
        "run/spec.json": b"{}",
    }
    assert {name: path.read_bytes() for name, path in found.items()} == expected
    assert found["tree/infra/bootstrap.sh"].stat().st_mode & 0o777 == 0o755
    assert there.stat().st_mode & 0o077 == 0, "the run's folder is nobody else's business"


def test_progress_is_told_up_to_the_end(session: Session, source: Path):
    (source / "films" / "noise").write_bytes(random.Random(1).randbytes(3_000_000))
    told: list[Progress | None] = []
    upload(session, listed(source), root=ROOT, extra={}, tell=lambda _, progress: told.append(progress))
    progress = [one for one in told if one is not None]
    done = [one.done for one in progress]
    assert done == sorted(done)
    assert progress[-1].done == progress[-1].total > 3_000_000
    assert 2 <= len(done) <= 110


def test_a_directory_that_is_already_there_is_not_unpacked_into(session: Session, source: Path):
    upload(session, listed(source), root=ROOT, extra={}, tell=ignore)
    with pytest.raises(CommandFailed, match="File exists"):
        upload(session, listed(source), root=ROOT, extra={}, tell=ignore)


def test_an_archive_that_arrives_differently_is_not_unpacked(session: Session, source: Path, target: Target):
    program = target.home.parent / "bin" / "sha256sum"
    program.write_text(f"#!/bin/sh\necho {'0' * 64} $1\n")
    program.chmod(0o755)
    try:
        with pytest.raises(TransferMismatch, match="0" * 64):
            upload(session, listed(source), root=ROOT, extra={}, tell=ignore)
    finally:
        program.unlink()
    assert not (target.home / ROOT / "tree").exists()


@pytest.mark.parametrize("text", ["2,2,3\n" * 50_000, "1,2,3\n" * 50_001, "1,2,3\n", None])
def test_a_file_that_changed_after_the_plan_stops_the_upload_before_it_begins(
    session: Session, source: Path, target: Target, text: str | None
):
    manifest = listed(source)
    if text is None:
        (source / "films" / "ratings.csv").unlink()
    else:
        (source / "films" / "ratings.csv").write_text(text)
    with pytest.raises(TransferMismatch, match=r"ratings\.csv: has changed"):
        upload(session, manifest, root=ROOT, extra={}, tell=ignore)
    assert not (target.home / ROOT).exists()


def test_the_same_files_make_the_same_archive_and_nobody_owns_them(source: Path):
    first, second = io.BytesIO(), io.BytesIO()
    sums = [write_archive(first, listed(source), {"b": b"", "a": b""})]
    (source / "films" / "ratings.csv").touch()
    sums.append(write_archive(second, listed(source), {"a": b"", "b": b""}))
    assert sums[0] == sums[1]
    assert first.getvalue() == second.getvalue()
    first.seek(0)
    with tarfile.open(fileobj=first) as tar:
        assert {(m.uid, m.gid, m.uname, m.mtime) for m in tar} == {(0, 0, "", 0)}


def test_what_compresses_is_compressed_and_what_does_not_is_not(source: Path):
    text, noise = io.BytesIO(), io.BytesIO()
    write_archive(text, listed(source), {})
    (source / "films" / "ratings.csv").write_bytes(random.Random(1).randbytes(300_000))
    write_archive(noise, listed(source), {})
    assert len(text.getvalue()) < 20_000
    assert text.getvalue()[:2] == b"\x1f\x8b"
    assert noise.getvalue()[:2] != b"\x1f\x8b"
