"""Checkpoints home from an embedded machine, and along to the next."""

import tarfile
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from machines import Target, embedded_machine
from rentals import run_spec

from orchestrator.draft import draft
from orchestrator.errors import InstanceDied, TrainingFailed, TransferMismatch, UsageError
from orchestrator.homing import Homing, continuing, held, refuse_other_training, take_along
from orchestrator.ports import Session
from orchestrator.record import MachineRecord, Rental, RunRecord, write_record
from orchestrator.telling import Telling


@dataclass(slots=True)
class Home:
    """A run folder here, its run directory on the machine, and a line between."""

    rental: Rental
    run: Path
    session: Session
    clock: FakeClock = field(default_factory=FakeClock)
    said: list[str] = field(default_factory=list[str])

    @property
    def homing(self) -> Homing:
        return Homing(self.rental, self.clock, self.said.append)

    def save(self, *names: str) -> None:
        for name in names:
            folder = self.run / "checkpoints" / name
            folder.mkdir(parents=True)
            (folder / "index.json").write_text(name)
        (self.run / "metrics.jsonl").write_text(f"{names}")


@pytest.fixture
def target(tmp_path: Path) -> Generator[Target]:
    with embedded_machine(tmp_path / "host") as target:
        yield target


@pytest.fixture
def home(target: Target, tmp_path: Path) -> Generator[Home]:
    folder = tmp_path / "home"
    folder.mkdir()
    clock = FakeClock()
    machine = MachineRecord(
        instance_id="i-1", instance_type="g6.xlarge", zone="a", address="192.0.2.1", user="ubuntu", host_key="k",
        usd_per_hour=Decimal("0.4"), volume_gib=150, launched_at=clock.now(), ends_at=clock.now(),
        checkpoint_seconds=60,
    )  # fmt: skip
    rental = Rental(folder, "r-1", machine)
    run = target.home / rental.root / "run"
    run.mkdir(parents=True)
    session = target.session()
    yield Home(rental, run, session, clock)
    session.close()


def names(home: Home) -> set[str]:
    with tarfile.open(home.rental.folder / "checkpoints.tar") as packed:
        return {name for name in packed.getnames() if name.endswith("index.json")}


def test_the_newest_of_each_training_comes_home_whole_and_once(home: Home):
    assert not home.homing.bring(home.session), "there is none yet"
    home.save("9", "10", ".11.aside")
    assert home.homing.bring(home.session)
    assert names(home) == {"checkpoints/10/index.json"}
    assert not home.homing.bring(home.session), "it is here"
    home.save("refit/4", "refit/3")
    assert home.homing.bring(home.session)
    assert names(home) == {"checkpoints/10/index.json", "checkpoints/refit/4/index.json"}
    assert held(home.rental.folder) == "10/4"
    assert (home.rental.folder / "metrics.jsonl").read_text() == "('refit/4', 'refit/3')"
    assert [path.name for path in home.rental.folder.glob(".*")] == []


def test_the_next_comes_when_the_last_is_old_enough_for_what_it_took(home: Home):
    homing, took = home.homing, 6.0

    def slowly() -> None:
        home.clock.time += timedelta(seconds=took)

    homing.on_bytes = slowly
    home.save("1")
    homing(home.session)
    home.save("2")
    for seconds, expected in ((61, "1/"), (150, "1/"), (40, "2/")):
        home.clock.sleep(seconds)
        homing(home.session)
        assert held(home.rental.folder) == expected


def test_what_takes_too_long_is_given_up_and_what_was_home_stays(home: Home):
    homing = home.homing
    home.save("1")
    homing(home.session)

    def stuck() -> None:
        home.clock.time += timedelta(seconds=301)

    homing.on_bytes = stuck
    home.save("2")
    home.clock.sleep(3600)
    homing(home.session)
    assert homing.given_up
    assert held(home.rental.folder) == "1/"
    assert any("checkpoints stay on the machine" in remark for remark in home.said)


def test_a_checkpoint_taken_along_lies_where_the_trainer_looks_for_it(home: Home):
    home.save("7", "refit/2")
    home.homing.bring(home.session)
    (home.rental.folder / "log.txt").write_text("so far\n")
    home.run.rename(home.run.with_name("lost"))
    home.run.mkdir()
    assert take_along(home.session, home.rental) == "the training goes on from the checkpoint of step 2"
    assert (home.run / "checkpoints" / "7" / "index.json").read_text() == "7"
    assert (home.run / "checkpoints" / "refit" / "2" / "index.json").exists()
    assert (home.run / "log.txt").read_text() == "so far\n"
    assert not (home.run / "checkpoints.tar").exists()


def test_a_checkpoint_that_arrives_otherwise_is_not_gone_on_from(home: Home, target: Target):
    home.save("7")
    home.homing.bring(home.session)
    program = target.home.parent / "bin" / "sha256sum"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho '0000  -'\n")
    program.chmod(0o755)
    with pytest.raises(TransferMismatch, match=r"checkpoints\.tar|metrics"):
        take_along(home.session, home.rental)


def test_a_run_without_a_checkpoint_is_not_gone_on_from(tmp_path: Path):
    nobody: Any = None
    telling = Telling(FakeClock(), lambda _: None)
    with pytest.raises(UsageError, match=r"checkpoints\.tar: no checkpoint to go on from"):
        draft(run_spec(continue_from=tmp_path), nobody, telling=telling, storage=nobody)


def test_another_training_is_not_gone_on_with(tmp_path: Path):
    plan = {"inputs": {"samples": 60, "batch_size": 256}, "settings": {"batch_size": 16, "learning_rate": None}}
    write_record(tmp_path, RunRecord(run_id="r-1", region="us-east-1", account_id="1", plan=plan))
    same = {"samples": 60, "batch_size": 16, "learning_rate": None, "epochs": 9}
    refuse_other_training(tmp_path, same)
    with pytest.raises(UsageError, match="had samples = 60, this one has 61"):
        refuse_other_training(tmp_path, same | {"samples": 61})


def test_how_to_go_on_is_said_where_there_is_something_to_go_on_from(home: Home):
    folder, died = home.rental.folder, InstanceDied("it is gone")
    assert continuing(died, folder) == "it is gone"
    (folder / "checkpoints.tar").write_bytes(b"no archive")
    assert continuing(died, folder) == "it is gone"
    home.save("7")
    home.homing.bring(home.session)
    assert continuing(died, folder).endswith(f"`launch-and-train --continue {folder}` goes on from it")
    assert continuing(TrainingFailed("it diverged"), folder) == "it diverged"
