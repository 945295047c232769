"""Keeping a machine and handing it over: ledgers and teardown against the mocked AWS, the timer on an embedded
machine.
"""

from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from machines import Target, embedded_machine
from programs import wait_for
from rentals import REGION, Rental, aws, left_over, rental

from orchestrator.books import books_of
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.errors import UsageError
from orchestrator.keep_alive import Keeper, keep, keeper
from orchestrator.kept import KeptMachine, refuse_if_slow
from orchestrator.launch import records_of
from orchestrator.ledger import Ledger, read_ledger
from orchestrator.record import MachineRecord, RunRecord, read_record, remember_machines, remember_outcome, write_record
from orchestrator.record import Rental as Rented
from orchestrator.resources import Market
from orchestrator.teardown import teardown

INFRA = Path(__file__).resolve().parents[2] / "infra"
NUMBER = count(1)


@pytest.fixture
def rented(mock: MockedCloud, tmp_path: Path) -> Rental:
    """A run that is over; its machine kept for 20 minutes of its hour."""
    run_id, folder = f"run-{next(NUMBER)}", tmp_path / "old"
    folder.mkdir()
    found = rental(aws(mock), folder, run_id, keep_alive_minutes=20)
    write_record(folder, RunRecord(run_id=run_id, region=REGION, account_id=found.plan.account.account_id))
    (machine,) = records_of(found.launch(), found.plan, now=found.clock.now())
    until = found.clock.now() + timedelta(minutes=20)
    taken_back = {"number": 2, "hours_before": 1.5, "usd_before": Decimal(3)}
    changed = taken_back | {
        "kept_until": until,
        "launched_at": found.clock.now(),
        "ends_at": found.clock.now() + timedelta(hours=1),
    }
    remember_machines(folder, (machine.model_copy(update=changed),))
    remember_outcome(folder, {"exit_status": 0})
    return found


def kept(rented: Rental) -> Keeper:
    return keeper(rented.folder, read_record(rented.folder), rented.clock.now())


def hand_over(rented: Rental, tmp_path: Path) -> Ledger:
    new, run_id = tmp_path / "new", f"{rented.plan.run_id}-next"
    new.mkdir()
    write_record(new, RunRecord(run_id=run_id, region=REGION, account_id=rented.plan.account.account_id))
    ledger = Ledger(new / "ledger.jsonl", clock=rented.clock, run_id=run_id, region=REGION)
    found = kept(rented)
    spec = found.machine.asked(rented.plan.spec, rented.reader, rented.clock.now())
    found.hand_over(new, ledger, spec, rented.clock.now())
    return ledger


@pytest.mark.parametrize("by", ["old", "new"])
def test_either_run_can_end_a_machine_that_was_handed_over(mock: MockedCloud, rented: Rental, tmp_path: Path, by: str):
    ledger = hand_over(rented, tmp_path)
    assert (tmp_path / "new" / "key.pem").stat().st_mode & 0o077 == 0
    assert not (rented.folder / "key.pem").exists()
    if by == "old":
        report = rented.teardown()
    else:
        report = teardown(
            read_ledger(tmp_path / "new" / "ledger.jsonl"),
            reader=rented.reader,
            writer=rented.writer,
            ledger=ledger,
            clock=rented.clock,
            tell=rented.said.append,
        )
    assert report.survivors == ()
    assert {label.split()[0] for label in report.deleted} == {"instance", "key", "security"}
    assert left_over(mock, rented.plan.run_id) == set()


def test_each_run_pays_for_its_own_time(rented: Rental, tmp_path: Path):
    rented.clock.sleep(600)
    hand_over(rented, tmp_path)
    rented.clock.sleep(300)
    now = rented.clock.now()
    old, new = (books_of(folder, read_record(folder), now) for folder in (rented.folder, tmp_path / "new"))
    assert (old.state, new.state) == ("done", "rented")
    machine = read_record(tmp_path / "new").machine
    assert machine is not None
    assert (machine.number, machine.hours_before, machine.usd_before) == (1, 0.0, 0)
    assert new.hours == pytest.approx(300 / 3600)
    assert old.hours == pytest.approx(600 / 3600, abs=0.01)
    rented.clock.sleep(10 * 3600)
    assert books_of(tmp_path / "new", read_record(tmp_path / "new"), rented.clock.now()).state == "over time"


def test_a_kept_machine_costs_no_longer_than_its_idle_timer(rented: Rental):
    assert books_of(rented.folder, read_record(rented.folder), rented.clock.now()).state == "kept"
    rented.clock.sleep(5 * 3600)
    books = books_of(rented.folder, read_record(rented.folder), rented.clock.now())
    assert (books.state, books.hours) == ("over time", pytest.approx(20 / 60, abs=0.01))
    with pytest.raises(UsageError, match="ended itself at"):
        kept(rented)


def test_a_machine_that_is_not_what_the_run_wants_is_refused(rented: Rental):
    machine, now = kept(rented).machine, rented.clock.now()
    for changed, words in (
        ({"region": "eu-west-1"}, "is in us-east-1, the run is to be in eu-west-1"),
        ({"nodes": 2}, "the run wants nodes = 2"),
        ({"bucket": "s3://kept/runs"}, "leave bucket out"),
        ({"instance_profile": "p"}, "its instance profile is none, the run wants p"),
        ({"ssm": True}, "not rented to be reached through Session Manager"),
        ({"instance_types": ("p5.48xlarge",)}, "the run wants p5.48xlarge"),
        ({"image": "ami-0123"}, "the run wants ami-0123"),
        ({"instance_types": (), "gpus": 8}, "has 1 GPUs, the run wants 8"),
        ({"instance_types": (), "gpu_memory_gib": 40.0}, "the run wants 40.0"),
    ):
        with pytest.raises(UsageError, match=words):
            machine.asked(rented.plan.spec.model_copy(update=changed), rented.reader, now)


def test_a_run_that_the_machine_has_no_time_for_is_refused(rented: Rental):
    machine, spec = kept(rented).machine, rented.plan.spec
    with pytest.raises(UsageError, match="too soon for a run"):
        machine.asked(spec, rented.reader, rented.clock.now() + timedelta(minutes=59))
    asked = machine.asked(spec, rented.reader, rented.clock.now() + timedelta(minutes=30))
    assert asked.max_hours == Decimal("0.5")
    refuse_if_slow(rented.plan.fits, asked)


@pytest.fixture
def target(tmp_path: Path) -> Generator[Target]:
    with embedded_machine(tmp_path / "host") as target:
        scripts = target.home / "launch-and-train" / "run-1" / "tree" / "infra"
        scripts.mkdir(parents=True)
        (scripts / "keep-alive.sh").write_text((INFRA / "keep-alive.sh").read_text())
        yield target


def test_a_kept_machine_ends_itself_unless_somebody_takes_it(target: Target, tmp_path: Path):
    now = datetime.now(UTC)
    machine = MachineRecord(
        instance_id="i-1", instance_type="g6.xlarge", zone="z", address="192.0.2.1", user="ubuntu", host_key="k",
        usd_per_hour=Decimal(1), volume_gib=100, launched_at=now, ends_at=now + timedelta(hours=1),
        keep_alive_minutes=Decimal("0.05"),
    )  # fmt: skip
    write_record(tmp_path, RunRecord(run_id="run-1", region=REGION, account_id="1", machine=machine))
    rented, session = Rented(tmp_path, "run-1", machine), target.session()
    assert keep(session, rented, now) == now + timedelta(seconds=3)
    assert read_record(tmp_path).machine == machine.model_copy(update={"kept_until": now + timedelta(seconds=3)})
    keep(session, rented, now)
    kept = KeptMachine("run-1", REGION, "1", machine, "ami-1", Market.ON_DEMAND, "", "")
    Keeper(tmp_path, kept, ()).release(session)
    assert not (target.home.parent / "power-off-at").exists()
    keep(session, rented, now)
    session.close()
    wait_for(lambda: not target.home.exists(), what="the machine to end itself")


def test_no_machine_is_kept_past_its_first_timer(target: Target, tmp_path: Path):
    now = datetime.now(UTC)
    machine = MachineRecord(
        instance_id="i-1", instance_type="g6.xlarge", zone="z", address="192.0.2.1", user="ubuntu", host_key="k",
        usd_per_hour=Decimal(1), volume_gib=100, launched_at=now, ends_at=now + timedelta(minutes=2),
        keep_alive_minutes=Decimal(30),
    )  # fmt: skip
    write_record(tmp_path, RunRecord(run_id="run-1", region=REGION, account_id="1", machine=machine))
    with closing(target.session()) as session:
        assert keep(session, Rented(tmp_path, "run-1", machine), now) == machine.ends_at
