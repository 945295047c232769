"""Machines that AWS takes back, callers who move: whole runs against a mocked AWS, with a trainer of a few lines that
keeps the contract of the run directory.
"""

import re
import tarfile
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from rentals import QUICK, REGION, aws, left_over, run_spec, storage

from orchestrator.aws.cloud import AwsCloud
from orchestrator.books import books_of
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.dryrun.dial import loopback_dialler
from orchestrator.events import Event, Outcome
from orchestrator.homing import copy_from, held
from orchestrator.ledger import LedgerEvent, read_ledger
from orchestrator.manifest import build_manifest
from orchestrator.packaged import packaged
from orchestrator.plan import make_plan
from orchestrator.record import RunRecord, read_record, write_record
from orchestrator.resources import Kind
from orchestrator.run import run
from orchestrator.ssh import connector
from orchestrator.survey import survey
from orchestrator.telling import Telling
from orchestrator.training import World
from orchestrator.worlds import SystemClock

NUMBER = count(1)
STEPS = 40
TRAINER = f"""
import json, os, pathlib, signal, sys, time
run = pathlib.Path("run")

def write(name, text):
    (run / (name + ".new")).write_text(text)
    os.replace(run / (name + ".new"), run / name)

def save(step):
    folder = run / "checkpoints" / str(step)
    folder.mkdir(parents=True)
    (folder / "state").write_text(str(step))

def end(status):
    write("exit", str(status))
    sys.exit(status)

asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
step = max((int(path.name) for path in run.glob("checkpoints/*")), default=0)
print("goes on from", step, flush=True)
while step < {STEPS}:
    time.sleep(0.02)
    step += 1
    print("step", step, flush=True)
    with (run / "metrics.jsonl").open("a") as metrics:
        print(json.dumps({{"step": step, "name": "loss", "value": step}}), file=metrics)
    if asked or (step % 10 == 0 and step < {STEPS}):
        save(step)
    if asked:
        end(75)
    write("status.json", json.dumps({{"state": "training", "epoch": step, "epochs": {STEPS}}}))
for name in ("recs", "gl.nc", "features_input", "features_output", "samples_input"):
    write(name, name)
end(0)
"""


@dataclass(slots=True)
class Story:
    """A whole run, in a world whose clock is on the wall."""

    mock: MockedCloud
    folder: Path
    cloud: AwsCloud
    events: list[Event] = field(default_factory=list[Event])

    def told(self, scenario: dict[str, Any], **spec: Any) -> Outcome:
        self.mock.play({**QUICK, **scenario})
        sources = self.folder / "sources"
        for name in ("trainer", "data"):
            (sources / name).mkdir(parents=True)
        (sources / "trainer" / "__init__.py").touch()
        (sources / "trainer" / "__main__.py").write_text(TRAINER)
        (sources / "data" / "ratings.csv").touch()
        (sources / "network.json").write_text("{}")
        clock = SystemClock()
        asked = {"market": "spot", "network": sources / "network.json", "checkpoint_seconds": 0}
        wanted = run_spec(**asked | spec)
        manifest = build_manifest(
            project=None,
            trainer=sources / "trainer",
            infra=packaged("infra"),
            data=sources / "data",
            output=self.folder,
        )
        facts = survey(self.cloud, wanted, clock)
        plan = make_plan(wanted, facts, manifest=manifest, run_id=f"spot-{next(NUMBER)}")
        write_record(self.folder, RunRecord(run_id=plan.run_id, region=REGION, account_id=plan.account.account_id))
        outcome = run(
            plan,
            World(self.cloud, self.cloud, connector(loopback_dialler(self.mock.endpoint)), clock, storage(self.mock)),
            folder=self.folder,
            first_boot=(packaged("infra") / "first-boot.yaml").read_text(encoding="utf-8"),
            telling=Telling(clock, self.events.append),
        )
        assert outcome.teardown.survivors == ()
        assert left_over(self.mock, plan.run_id) == set()
        return outcome

    @property
    def said(self) -> str:
        return "\n".join(event.message for event in self.events)

    @property
    def steps(self) -> list[int]:
        """What the log at home says was done, in order."""
        lines = (self.folder / "log.txt").read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith("step")]

    @property
    def machines(self) -> list[str]:
        entries = read_ledger(self.folder / "ledger.jsonl")
        made = [one for one in entries if one.kind is Kind.INSTANCE and one.event is LedgerEvent.CREATED]
        return [str(entry.resource_id) for entry in made]


@pytest.fixture
def story(mock: MockedCloud, tmp_path: Path) -> Story:
    return Story(mock, tmp_path, aws(mock))


def test_a_run_goes_on_on_other_machines_with_notice_and_without_also_when_hardware_fails(story: Story):
    lost = {"after_seconds": 0.3, "notice_seconds": 0, "reason": "Server.InternalError"}
    outcome = story.told({"interrupt": [{"notice_seconds": 60}, lost]}, market="cheapest")
    assert (outcome.exit_status, outcome.error, outcome.machines) == (0, None, 3)
    first, second, third = story.machines
    assert f"AWS takes {first} back at " in story.said
    assert "Server.InternalError" in story.said
    home = {int(step) for step in re.findall(r"the checkpoint of step (\d+) is home", story.said)}
    again = [step for before, step in pairwise(story.steps) if step != before + 1]
    assert len(again) <= 1, "where there was notice, nothing is done again"
    assert {step - 1 for step in again} <= home
    assert (story.steps[0], story.steps[-1]) == (1, STEPS)
    record = read_record(story.folder)
    assert record.machine is not None
    assert (record.machine.instance_id, record.machine.number) == (third, 3)
    assert story.mock.calls()["CreateSecurityGroup"] == story.mock.calls()["ImportKeyPair"] == 1
    assert {f"instance {name}" for name in (first, second, third)} <= set(outcome.teardown.deleted)
    books = books_of(story.folder, record, SystemClock().now())
    assert len(books.bills) == 3
    assert outcome.estimated_usd == books.usd
    assert outcome.hours == pytest.approx(books.hours, abs=1e-3)
    assert not (story.folder / "checkpoints.tar").exists(), "of no use any more"


def test_without_room_for_another_machine_the_checkpoint_is_home_and_how_to_go_on_is_said(story: Story):
    outcome = story.told({"interrupt": [{"notice_seconds": 60}]}, max_hours=Decimal("0.02"))
    assert (outcome.exit_status, outcome.machines) == (1, 1)
    assert outcome.error is not None
    assert "AWS takes " in outcome.error
    assert "of max_hours = 0.02 no time is left for another machine" in outcome.error
    assert f"`launch-and-train --continue {story.folder}`" in outcome.error
    assert held(story.folder) == f"{story.steps[-1]}/"
    with tarfile.open(story.folder / "checkpoints.tar") as packed:
        member = packed.extractfile(f"checkpoints/{story.steps[-1]}/state")
        assert member is not None
        assert int(member.read()) == story.steps[-1]
    later = Story(story.mock, story.folder / "later", story.cloud)
    later.folder.mkdir()
    copy_from(story.folder, later.folder)
    assert later.told({}).exit_status == 0
    assert later.steps == list(range(1, STEPS + 1)), "begun again, it is gone on with"


def test_a_caller_who_moves_while_it_trains_is_let_in_again_and_their_old_address_out(story: Story):
    outcome = story.told({"caller_moves": {"to": "192.31.196.9"}, "ending_seconds": 0.5})
    assert (outcome.exit_status, outcome.machines) == (0, 1)
    assert story.steps == list(range(1, STEPS + 1))
    assert "was open to 192.31.196.7/32, now to 192.31.196.9/32" in story.said
    calls = story.mock.calls()
    assert (calls["AuthorizeSecurityGroupIngress"], calls["RevokeSecurityGroupIngress"]) == (2, 1)
