"""Upload and environment at once, on an embedded machine whose environment is made by a script of the test's."""

import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from machines import Target, embedded_machine

from orchestrator.beginning import begin_training
from orchestrator.errors import CommandFailed, HostUnreachable, TransferMismatch
from orchestrator.events import Event, Stage
from orchestrator.manifest import build_manifest
from orchestrator.ports import Session
from orchestrator.record import MachineRecord, Rental
from orchestrator.telling import Telling
from orchestrator.together import Crew

ROOT = "launch-and-train/run-1"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
INFRA = Path(__file__).resolve().parents[2] / "infra"
READY = f"echo python={sys.executable}; echo backend=cpu; echo note=made"


class WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.fixture
def target(tmp_path: Path) -> Generator[Target]:
    with embedded_machine(tmp_path / "host") as target:
        yield target


def rental(folder: Path, count: int = 1) -> Rental:
    """One machine or several, whose addresses nobody dials."""
    first, *others = (
        MachineRecord(
            instance_id=f"i-{number}", instance_type="g6.xlarge", zone="z", address=f"192.0.2.{number}", user="ubuntu",
            host_key="k", usd_per_hour=Decimal(1), volume_gib=8, launched_at=NOON, ends_at=NOON + timedelta(hours=1),
        )
        for number in range(count)
    )  # fmt: skip
    return Rental(folder, "run-1", first, tuple(others))


Begin = Callable[..., Telling]


@pytest.fixture
def begin(target: Target, tmp_path: Path) -> Begin:
    """Begin a training whose environment is made by `script`."""

    def begin(script: str, session: Session, *, spoil: bool = False) -> Telling:
        for name, text in {
            "infra/bootstrap.sh": script,
            "trainer/__main__.py": "",
            "data/ratings.csv": "1,2\n",
        }.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        starter = (INFRA / "start-trainer.sh").read_text()
        (tmp_path / "infra" / "start-trainer.sh").write_text(starter)
        (tmp_path / "trainer" / "__init__.py").touch()
        manifest = build_manifest(
            project=None,
            trainer=tmp_path / "trainer",
            infra=tmp_path / "infra",
            data=tmp_path / "data",
            output=tmp_path / "runs",
        )
        if spoil:
            (tmp_path / "data" / "ratings.csv").write_text("3,4\n")
        heard: list[Event] = []
        telling = Telling(WallClock(), heard.append)
        extra = {"run/spec.json": b"{}"}
        with closing(Crew(rental(tmp_path), [session], dial=lambda _host: target.session())) as crew:
            begin_training(crew, manifest, extra=extra, telling=telling)
        return telling

    return begin


def test_the_environment_is_made_while_files_travel(begin: Begin, target: Target):
    arrived = f"[ -e {ROOT}/data/data/ratings.csv ]"
    script = f"for _ in $(seq 200); do if {arrived}; then {READY}; exit; fi; sleep 0.05; done; exit 1"
    telling = begin(script, target.session())
    seconds = {stage.name: stage for stage in telling.stages}
    upload, prepare = seconds[Stage.UPLOAD], seconds[Stage.PREPARE]
    assert upload.began is not None
    assert prepare.began is not None
    assert upload.began < prepare.began < telling.clock.now()
    assert (prepare.began - upload.began).total_seconds() < upload.seconds, "they overlap"
    assert (target.home / ROOT / "run" / "pid").exists()


class Slow:
    """A session whose uploads take until it is closed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._closed = threading.Event()

    def put(self, *_: Any, **__: Any) -> None:
        assert self._closed.wait(20), "nobody stopped the upload"
        raise HostUnreachable("the line is closed")

    def close(self) -> None:
        self._closed.set()
        self._session.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def test_an_environment_that_cannot_be_made_stops_the_upload_and_is_what_is_told(begin: Begin, target: Target):
    with pytest.raises(CommandFailed, match=r"bootstrap\.sh failed .*driver 470 is too old"):
        begin("echo driver 470 is too old >&2; exit 1", Slow(target.session()))


def test_an_upload_that_fails_does_not_wait_for_the_environment(begin: Begin, target: Target):
    started = time.monotonic()
    with pytest.raises(TransferMismatch, match=r"ratings\.csv: has changed"):
        begin("sleep 60", target.session(), spoil=True)
    assert time.monotonic() - started < 20
