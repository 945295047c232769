"""The upload, to an embedded machine."""

import gzip
import io
import itertools
import os
import random
import tarfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Target, embedded_machine

from orchestrator.errors import CommandFailed, TransferMismatch
from orchestrator.events import Progress
from orchestrator.manifest import build_manifest
from orchestrator.packing import pack_contents, pack_plain
from orchestrator.ports import Session
from orchestrator.resources import Manifest
from orchestrator.tar import Sink, header
from orchestrator.upload import upload

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
        ".uploaded": b"",
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
    assert not (target.home / ROOT / "tree" / "trainer").exists()


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
    assert not (target.home / ROOT / "data").exists()


def test_the_same_files_make_the_same_archive_and_nobody_owns_them(source: Path):
    first, second = io.BytesIO(), io.BytesIO()
    sums = [pack_contents(first, listed(source).files, on_bytes=str)]
    (source / "films" / "ratings.csv").touch()
    sums.append(pack_contents(second, reversed(listed(source).files), on_bytes=str))
    assert sums[0] == sums[1]
    assert first.getvalue() == second.getvalue()
    assert pack_plain((), {"b": b"", "a": b""}) == pack_plain((), {"a": b"", "b": b""})
    first.seek(0)
    with tarfile.open(fileobj=first) as tar:
        assert {(m.uid, m.gid, m.uname, m.mtime) for m in tar} == {(0, 0, "", 0)}


@pytest.mark.parametrize(("seconds", "compressed"), [(1e-6, False), (1.0, True)])
def test_what_gets_smaller_is_compressed_where_the_line_is_slow(seconds: float, compressed: bool):
    packed, ticks = io.BytesIO(), itertools.count()
    sink = Sink(packed, compressing=True, clock=lambda: next(ticks) * seconds)
    for _ in range(10):
        sink.write(b"1,2,3\n" * 50_000)
    sink.close()
    assert (len(packed.getvalue()) < 1_000_000) == compressed
    assert gzip.decompress(packed.getvalue()).count(b"1,2,3\n") == 500_000


def test_noise_is_sent_as_it_is(source: Path):
    (source / "films" / "ratings.csv").write_bytes(random.Random(1).randbytes(300_000))
    noise = io.BytesIO()
    pack_contents(noise, listed(source).files, on_bytes=str)
    assert noise.getvalue()[:2] != b"\x1f\x8b"


@settings(max_examples=30)
@given(
    name=st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=150),
    link=st.text("abc", max_size=150),
    size=st.sampled_from([0, 511, 8**11 - 1, 8**11, 10**13]),
    mode=st.sampled_from([0o444, 0o755]),
)
def test_headers_are_read_by_tarfile_as_they_were_meant(name: str, link: str, size: int, mode: int):
    size = 0 if link else size
    read = io.BytesIO(header(name, size=size, mode=mode, link=link))
    with tarfile.open(fileobj=read) as tar:
        member = tar.next()
    assert member is not None
    assert (member.name, member.linkname) == (name, link)
    assert (member.size, member.mode, member.mtime, member.uid) == (size, mode, 0, 0)


class Counting:
    """A session that remembers what was asked of it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._session, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.asked.append(name)
            return found(*arguments, **named)

        return call


def test_what_is_there_is_not_sent_again_and_little_is_asked(session: Session, source: Path, target: Target):
    store = target.home / "launch-and-train" / "store"
    for number, asked in ((1, ["run", "put", "run"]), (2, ["run", "run"])):
        counting = Counting(session)
        upload(
            counting, listed(source), root=f"launch-and-train/run-{number}", extra={"run/spec.json": b"{}"}, tell=ignore
        )
        assert counting.asked == asked
    found = [path.read_bytes() for path in sorted((target.home / ROOT / "data").rglob("*.csv"))]
    assert found == [path.read_bytes() for path in sorted((source / "films").iterdir())]
    assert {path.stat().st_mode & 0o222 for path in store.iterdir()} == {0}
    same = [target.home / f"launch-and-train/run-{number}/data/films/ratings.csv" for number in (1, 2)]
    assert same[0].samefile(same[1])
    assert not (target.home / "launch-and-train/run-2/.upload").exists()


@pytest.mark.parametrize("damage", ["written to", "cut short"])
def test_content_that_was_meddled_with_is_sent_again(session: Session, source: Path, target: Target, damage: str):
    upload(session, listed(source), root=ROOT, extra={}, tell=ignore)
    kept = (target.home / ROOT / "data" / "films" / "ratings.csv").resolve()
    before, kept_at = kept.read_bytes(), kept.stat().st_mtime
    kept.chmod(0o644)
    kept.write_bytes(before[::-1] if damage == "written to" else before[:100])
    kept.chmod(0o444)
    if damage == "cut short":
        os.utime(kept, (kept_at, kept_at))
    upload(session, listed(source), root="launch-and-train/run-2", extra={}, tell=ignore)
    assert (target.home / "launch-and-train/run-2/data/films/ratings.csv").read_bytes() == before
    assert kept.read_bytes() != before, "what an earlier run has is its own"


def test_the_same_text_may_be_a_program_here_and_a_text_there(session: Session, source: Path, target: Target):
    for name, mode in (("program", 0o755), ("text", 0o644)):
        path = source / "films" / name
        path.write_text("#!/bin/sh\necho ran\n")
        path.chmod(mode)
    upload(session, listed(source), root=ROOT, extra={}, tell=ignore)
    folder = f"{ROOT}/data/films"
    assert session.run([f"{folder}/program"]).stdout == "ran\n"
    assert (target.home / folder / "text").stat().st_mode & 0o111 == 0


def test_the_store_holds_what_the_last_three_runs_hold(session: Session, source: Path, target: Target):
    home = target.home / "launch-and-train"
    for number in range(1, 6):
        (source / "films" / "ratings.csv").write_text(f"{number},2,3\n")
        upload(
            session, listed(source), root=f"launch-and-train/run-{number}", extra={"run/spec.json": b"{}"}, tell=ignore
        )
    texts = {path.read_text() for path in (home / "store").iterdir()}
    assert texts == {"print()\n", "3,2,3\n", "4,2,3\n", "5,2,3\n"}
    assert sorted(path.parent.name for path in home.glob("*/data")) == ["run-3", "run-4", "run-5"]
    assert (home / "run-1" / "run" / "spec.json").exists(), "what a run has made stays"
