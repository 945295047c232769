from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from clocks import FakeClock

from orchestrator.books import Books, all_books, books_of
from orchestrator.ledger import Ledger
from orchestrator.record import MachineRecord, RunRecord, write_record
from orchestrator.report.books import costs_json, costs_text, runs_json, runs_text
from orchestrator.resources import Kind, Tagged

HOUR = 3600


class Run:
    """A run folder whose clock is ours."""

    def __init__(self, output: Path, name: str) -> None:
        self.folder = output / name
        self.folder.mkdir(parents=True)
        self.clock = FakeClock()
        self.record = RunRecord(run_id=name, region="us-east-1", account_id="1")
        self.ledger = Ledger(self.folder / "ledger.jsonl", clock=self.clock, run_id=name, region="us-east-1")
        write_record(self.folder, self.record)

    def rent(self, *, usd_per_hour: str = "1", token: str = "t", max_hours: str = "2") -> None:
        intended = self.ledger.intend(
            Kind.INSTANCE, name="i", token=token, instance_type="g6.xlarge", usd_per_hour=usd_per_hour,
            volume_gib="730", max_hours=max_hours,
        )  # fmt: skip
        self.entry = self.ledger.created(intended, f"i-{token}")
        now = self.clock.now()
        machine = MachineRecord(
            instance_id="i-1", instance_type="g6.xlarge", zone="z", address="192.0.2.1", user="ubuntu", host_key="k",
            usd_per_hour=Decimal(usd_per_hour), volume_gib=730, launched_at=now, ends_at=now,
        )  # fmt: skip
        self.record = self.record.model_copy(update={"machine": machine})

    def after(self, seconds: float) -> Books:
        self.clock.sleep(seconds)
        return books_of(self.folder, self.record, self.clock.now())


@pytest.fixture
def made(tmp_path: Path) -> Run:
    return Run(tmp_path, "r-1")


@pytest.mark.parametrize(("seconds", "hours"), [(20, 1 / 60), (HOUR, 1), (5 * HOUR, 2)])
def test_an_open_run_costs_by_the_second_a_minute_at_least_and_no_longer_than_its_timer(
    made: Run, seconds: float, hours: float
):
    made.rent()
    books = made.after(seconds)
    assert books.hours == pytest.approx(hours)
    (bill,) = books.bills
    # 730 GiB cost 0.08 × 730 a month, which has 730 hours.
    parts = (bill.instance_usd, bill.volume_usd, bill.address_usd)
    assert [float(part) for part in parts] == pytest.approx([hours, 0.08 * hours, 0.005 * hours])
    assert float(books.usd) == pytest.approx(1.085 * hours, abs=0.01)
    assert books.state == ("rented" if seconds < 2 * HOUR else "over time")


def test_every_machine_of_a_run_is_paid_for_until_it_was_gone(made: Run):
    made.rent(token="a")
    made.clock.sleep(HOUR)
    made.ledger.deleted(made.entry)
    made.rent(token="b", usd_per_hour="3")
    made.clock.sleep(HOUR)
    made.ledger.deleted(made.entry)
    books = made.after(10 * HOUR)
    assert (books.hours, books.state, books.machine) == (2, "given back", "g6.xlarge i-b")
    assert books.usd == Decimal("1.09") + Decimal("3.09")


def test_a_machine_whose_price_is_not_in_the_ledger_is_said_to_be_unpriced(made: Run):
    made.ledger.created(made.ledger.intend(Kind.INSTANCE, name="i", token="t"), "i-1")
    assert not made.after(1).priced
    assert costs_json([made.after(1)])["runs"][0]["usd"] is None


@pytest.mark.parametrize(("status", "state"), [(0, "done"), (1, "failed")])
def test_a_run_that_ended_is_done_or_failed(made: Run, status: int, state: str):
    made.record = made.record.model_copy(update={"outcome": {"exit_status": status}})
    assert made.after(0).state == state


def test_all_runs_are_summed_and_what_only_the_account_knows_is_named(tmp_path: Path):
    for name in ("r-1", "r-2"):
        made = Run(tmp_path, name)
        made.rent()
    (tmp_path / "data").mkdir()
    now = made.clock.now() + timedelta(hours=1)
    books = all_books(tmp_path, now)
    assert costs_json(books)["usd"] == pytest.approx(2 * 1.09)
    assert costs_text(books).splitlines()[-1].endswith("2.18")
    stray = Tagged(Kind.INSTANCE, "i-9", "n", "r-9", "running", "us-east-1")
    told = runs_json(books, now, {"r-9": (stray,)})
    assert [run["age_seconds"] for run in told["runs"]] == [HOUR, HOUR]
    assert told["cloud"]["r-9"][0]["id"] == "i-9"
    assert "in the cloud only" in runs_text(books, now, {"r-9": (stray,)})
