"""Results brought home from an embedded machine."""

import hashlib
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from machines import Target, embedded_machine

from orchestrator.errors import CommandFailed, HostUnreachable, RunFailed, TransferMismatch
from orchestrator.fetch import fetch
from orchestrator.ports import Session

ROOT = "launch-and-train/run-1"


@pytest.fixture
def target(tmp_path: Path) -> Generator[Target]:
    with embedded_machine(tmp_path / "host") as target:
        (target.home / ROOT / "run").mkdir(parents=True)
        yield target


@pytest.fixture
def session(target: Target) -> Generator[Session]:
    session = target.session()
    yield session
    session.close()


@pytest.fixture
def run(target: Target) -> Path:
    return target.home / ROOT / "run"


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def ignore(message: str) -> None:
    pass


def test_results_come_home_whole_and_in_order(session: Session, run: Path, into: Path):
    contents = {"recs": b"1\t2,0.5:\n", "gl.nc": os.urandom(2_000_000), "empty": b""}
    for name, content in contents.items():
        (run / name).write_bytes(content)
    told: list[str] = []
    artifacts = fetch(session, ROOT, tuple(contents), into=into, tell=told.append)
    assert [artifact.name for artifact in artifacts] == list(contents)
    for artifact in artifacts:
        assert artifact.path == into / artifact.name
        assert artifact.path.read_bytes() == contents[artifact.name]
        assert artifact.size == len(contents[artifact.name])
        assert artifact.sha256 == hashlib.sha256(contents[artifact.name]).hexdigest()
    assert len(told) == 3
    assert {path.name for path in into.iterdir()} == set(contents)


def test_a_file_of_that_name_is_replaced_by_the_verified_one(session: Session, run: Path, into: Path):
    (run / "log.txt").write_text("the whole log\n")
    (into / "log.txt").write_text("the wh")
    fetch(session, ROOT, ("log.txt",), into=into, tell=ignore)
    assert (into / "log.txt").read_text() == "the whole log\n"


def test_titles_may_be_missing(session: Session, run: Path, into: Path):
    (run / "recs").touch()
    artifacts = fetch(session, ROOT, ("recs", "titles.json"), into=into, tell=ignore)
    assert [artifact.name for artifact in artifacts] == ["recs"]


def test_anything_else_that_is_missing_is_named_and_nothing_is_fetched(session: Session, run: Path, into: Path):
    (run / "recs").touch()
    with pytest.raises(RunFailed, match=r"gl\.nc, metrics\.jsonl"):
        fetch(session, ROOT, ("recs", "gl.nc", "metrics.jsonl"), into=into, tell=ignore)
    assert list(into.iterdir()) == []


def test_a_file_that_arrives_differently_gets_no_final_name(session: Session, run: Path, into: Path, target: Target):
    program = target.home.parent / "bin" / "sha256sum"
    program.write_text(f"#!/bin/sh\necho {'0' * 64} -\n")
    program.chmod(0o755)
    (run / "recs").write_text("1\n")
    (into / "recs").write_text("what was here before")
    with pytest.raises(TransferMismatch, match="0" * 64):
        fetch(session, ROOT, ("recs",), into=into, tell=ignore)
    assert {path.name: path.read_text() for path in into.iterdir()} == {"recs": "what was here before"}


def test_a_line_that_breaks_leaves_no_half_file(session: Session, run: Path, into: Path, target: Target):
    (run / "first").touch()
    with (run / "gl.nc").open("wb") as file:
        file.truncate(50_000_000)
    with pytest.raises(HostUnreachable):
        fetch(session, ROOT, ("first", "gl.nc"), into=into, tell=lambda _: target.drop_connections())
    assert [path.name for path in into.iterdir()] == ["first"]


def test_a_run_that_is_not_there_is_told(session: Session, into: Path):
    with pytest.raises(CommandFailed, match="no-such-run"):
        fetch(session, "no-such-run", ("recs",), into=into, tell=ignore)
