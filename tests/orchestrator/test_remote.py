"""Preparing, starting and following on an embedded machine, with a trainer of a few lines."""

import io
import json
import os
import shutil
import signal
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from machines import SSHD, Target, embedded_machine, openssh_server
from programs import wait_for

from orchestrator.errors import CommandFailed, HostKeyMismatch, HostUnreachable, TrainingFailed
from orchestrator.events import Progress
from orchestrator.manifest import build_manifest
from orchestrator.ports import Session
from orchestrator.remote import Environment, follow, look_at, prepare, start_training, stop_training
from orchestrator.resources import Host
from orchestrator.ssh import connector
from orchestrator.upload import upload

INFRA = Path(__file__).resolve().parents[2] / "infra"
ROOT = "launch-and-train/run-1"


class HastyClock:
    """Its seconds pass `speed` times as fast."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
        time.sleep(seconds / self.speed)


@pytest.fixture
def target(tmp_path: Path) -> Generator[Target]:
    with embedded_machine(tmp_path / "host") as target:
        yield target


@pytest.fixture
def session(target: Target) -> Generator[Session]:
    session = target.session()
    yield session
    session.close()


@pytest.fixture
def run(target: Target) -> Path:
    return target.home / ROOT / "run"


Begin = Callable[[str], None]


@pytest.fixture
def begin(session: Session, tmp_path: Path) -> Begin:
    """Upload a trainer that does what is given, and start it."""

    def begin(program: str) -> None:
        send(session, program, root=ROOT, folder=tmp_path)
        start_training(session, ROOT, prepare(session, ROOT))

    return begin


def send(session: Session, program: str, *, root: str, folder: Path) -> None:
    for name in ("trainer", "data"):
        (folder / name).mkdir()
    (folder / "trainer" / "__init__.py").touch()
    (folder / "trainer" / "__main__.py").write_text(f"import json, os, sys, time\n{program}")
    (folder / "data" / "ratings.csv").touch()
    manifest = build_manifest(
        project=None, trainer=folder / "trainer", infra=INFRA, data=folder / "data", output=folder / "runs"
    )
    upload(session, manifest, root=root, extra={"run/spec.json": b"{}"}, tell=lambda message, progress: None)


class Follower:
    """What following a run gave."""

    def __init__(self, log: bytes = b"") -> None:
        self.log = io.BytesIO(log)
        self.log.seek(0, io.SEEK_END)
        self.messages: list[str] = []
        self.progress: list[Progress] = []

    def follow(self, host: Host, *, root: str = ROOT, speed: float = 50) -> int:
        return follow(connector(), host, root=root, clock=HastyClock(speed), log=self.log, tell=self.tell)

    def tell(self, message: str, progress: Progress | None) -> None:
        if progress is None:
            self.messages.append(message)
        else:
            self.progress.append(progress)


def test_a_ready_environment_is_used_as_it_is(session: Session, begin: Begin):
    begin("")
    environment = prepare(session, ROOT)
    assert environment == Environment(sys.executable, "cpu", "ready-made environment")


def test_a_machine_that_cannot_train_says_why(session: Session, begin: Begin, target: Target):
    begin("")
    (target.home / ".launch-and-train" / "environment").unlink()
    program = target.home.parent / "bin" / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '470.57.02, 7.5'\n")
    program.chmod(0o755)
    with pytest.raises(CommandFailed, match=r"bootstrap\.sh failed .*470\.57\.02 is too old"):
        prepare(session, ROOT)


SURROUNDINGS = """
print(json.dumps({
    "arguments": sys.argv[1:],
    "folder": os.getcwd(),
    "trainer": os.path.dirname(os.path.abspath(__file__)),
    "platform": os.environ.get("JAX_PLATFORMS"),
    "libraries": os.environ.get("LD_LIBRARY_PATH"),
    "leads": os.getsid(0) == os.getpgid(0) == os.getppid(),
    "input": sys.stdin.read(),
}))
"""


def test_the_trainer_runs_in_a_session_of_its_own_with_what_it_needs_and_no_more(
    session: Session, run: Path, target: Target, tmp_path: Path
):
    send(session, SURROUNDINGS, root=ROOT, folder=tmp_path)
    starter = ["sh", f"{ROOT}/tree/infra/start-trainer.sh", sys.executable, "cpu"]
    done = session.run(["env", "LD_LIBRARY_PATH=/usr/local/cuda/lib64", "JAX_PLATFORMS=tpu", *starter])
    assert done.exit_status == 0, done.stderr
    follower = Follower()
    assert follower.follow(target.host) == 0
    assert json.loads(follower.log.getvalue()) == {
        "arguments": ["train", "--run-dir", "run"],
        "folder": str(run.parent),
        "trainer": str(run.parent / "tree" / "trainer"),
        "platform": "cpu",
        "libraries": None,
        "leads": True,
        "input": "",
    }


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("print('fine')", 0),
        ("sys.exit(7)", 7),
        ("os.kill(os.getpid(), 9)", 137),
        ("open('run/exit', 'w').write('3\\n'); sys.exit(1)", 3),
    ],
)
def test_the_exit_status_is_the_trainers_own_word_or_else_its_processs(
    begin: Begin, target: Target, program: str, status: int
):
    begin(program)
    assert Follower().follow(target.host) == status


def test_words_after_the_exit_status_are_heard(begin: Begin, target: Target):
    begin("open('run/exit', 'w').write('1\\n'); time.sleep(0.2); print('last words'); sys.exit(1)")
    follower = Follower()
    assert follower.follow(target.host, speed=4) == 1
    assert follower.log.getvalue() == b"last words\n"


def test_a_trainer_that_does_not_end_after_its_exit_status_is_not_waited_for_long(begin: Begin, target: Target):
    begin("open('run/exit', 'w').write('0\\n'); time.sleep(60)")
    assert Follower().follow(target.host) == 0


STATUSES = """
def say(**status):
    with open("run/.status", "w") as file:
        json.dump(status, file)
    os.replace("run/.status", "run/status.json")
    time.sleep(0.3)

say(state="starting", epoch=0, epochs=0, loss=None)
say(state="training", epoch=1, epochs=2, loss=5.5, samples_per_second=100.0, seconds_left=3.0)
open("run/status.json", "w").write('{"state": "trai')
time.sleep(0.3)
say(state="done", epoch=2, epochs=2, loss=4.5, samples_per_second=None, seconds_left=None)
"""


def test_progress_is_told_when_it_changes(begin: Begin, target: Target):
    begin(STATUSES)
    follower = Follower()
    follower.follow(target.host)
    assert follower.progress == [
        Progress(1, 2, "epochs", loss=5.5, samples_per_second=100.0, seconds_left=3.0),
        Progress(2, 2, "epochs", loss=4.5),
    ]
    assert follower.messages == ["starting", "training", "done"]


COUNTING = "for n in range(60): print(n, 'x' * 2000); time.sleep(0.02)"


def counted(log: bytes) -> list[int]:
    return [int(line.split()[0]) for line in log.splitlines()]


@contextmanager
def cutting(target: Target) -> Generator[None]:
    """Break every line to the machine again and again, more rarely each time: a busy computer must get a word in."""
    done = threading.Event()

    def cut() -> None:
        pause = 0.25
        while not done.wait(pause):
            target.drop_connections()
            pause *= 1.2

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        yield
    finally:
        done.set()
        cutter.join()


def test_a_line_that_drops_again_and_again_costs_not_one_byte_of_the_log(begin: Begin, target: Target):
    begin(COUNTING)
    follower = Follower()
    with cutting(target):
        assert follower.follow(target.host) == 0
    assert counted(follower.log.getvalue()) == list(range(60))
    assert any("dialling again" in message for message in follower.messages)
    assert any("answers again" in message for message in follower.messages)


@pytest.mark.skipif(SSHD is None, reason="no sshd is installed here")
def test_a_true_ssh_server_that_drops_lines_costs_not_one_byte_either(tmp_path: Path):
    home = f".launch-and-train-test-{uuid4().hex}"
    root = f"{home}/run-1"
    with openssh_server(tmp_path / "sshd") as server:
        session = server.session()
        try:
            send(session, COUNTING, root=root, folder=tmp_path)
            start_training(session, root, Environment(sys.executable, "cpu", "of this computer"))
            session.close()
            follower = Follower()
            with cutting(server):
                assert follower.follow(server.host, root=root) == 0
        finally:
            shutil.rmtree(server.home / home)
    assert counted(follower.log.getvalue()) == list(range(60))
    assert any("dialling again" in message for message in follower.messages)


def test_following_goes_on_where_the_log_at_home_ends(begin: Begin, target: Target, run: Path):
    begin(COUNTING)
    first = Follower()
    first.follow(target.host)
    whole = (run / "log.txt").read_bytes()
    second = Follower(whole[:5000])
    assert second.follow(target.host) == 0
    assert first.log.getvalue() == second.log.getvalue() == whole


def test_a_trainer_killed_with_its_keeper_is_a_failure_not_a_wait(begin: Begin, target: Target, run: Path):
    begin("print('so far'); time.sleep(60)")
    deadline = time.monotonic() + 20
    while not (run / "log.txt").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(int((run / "pid").read_text()), signal.SIGKILL)
    follower = Follower()
    with pytest.raises(TrainingFailed, match="without an exit status"):
        follower.follow(target.host)
    assert follower.log.getvalue() == b"so far\n"


def test_a_machine_that_stays_away_is_given_up(begin: Begin, target: Target):
    begin("time.sleep(60)")
    started = time.monotonic()
    with pytest.raises(HostUnreachable, match="out of reach for 120 s"):
        Follower().follow(replace(target.host, port=1))
    assert time.monotonic() - started < 10


def test_another_machine_in_its_place_is_not_followed(begin: Begin, target: Target, tmp_path: Path):
    begin("time.sleep(60)")
    with embedded_machine(tmp_path / "stranger") as stranger:
        there = replace(target.host, port=stranger.host.port)
        with pytest.raises(HostKeyMismatch):
            Follower().follow(there)


def test_a_run_that_is_not_there_is_told(target: Target):
    with pytest.raises(CommandFailed, match=ROOT):
        Follower().follow(target.host)


def test_an_exit_file_that_holds_no_status_is_told(begin: Begin, target: Target):
    begin("open('run/exit', 'w').write('fine\\n')")
    with pytest.raises(TrainingFailed, match="'fine'"):
        Follower().follow(target.host)


def test_a_run_is_started_once(session: Session, begin: Begin):
    begin("time.sleep(60)")
    with pytest.raises(CommandFailed, match="already started"):
        start_training(session, ROOT, prepare(session, ROOT))


def test_a_trainer_that_is_stopped_is_gone_and_its_checkpoints_are_packed(begin: Begin, session: Session, run: Path):
    assert look_at(session, ROOT).state == "not started"
    begin("os.makedirs('run/checkpoints/7'); open('run/checkpoints/7/state', 'w').write('x'); time.sleep(60)")
    wait_for(lambda: (run / "checkpoints" / "7" / "state").exists(), what="a checkpoint")
    assert look_at(session, ROOT).going_on
    stop_training(session, ROOT)
    assert not look_at(session, ROOT).going_on
    with tarfile.open(run / "checkpoints.tar") as packed:
        assert "checkpoints/7/state" in packed.getnames()
