"""What a machine's end is, and whether another one follows it: decisions, on values."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clocks import FakeClock
from rentals import run_spec

from orchestrator.errors import CloudUnavailable, CommandFailed, InstanceDied, NotYetVisible, TakenBack
from orchestrator.fit import NOT_ASKED, fits_of
from orchestrator.interruption import Lookout, planned_again, refuse_if_ended, telling_ends_apart
from orchestrator.ledger import Ledger
from orchestrator.money import Bill, usd_per_hour
from orchestrator.plan import Placement, Plan
from orchestrator.record import MachineRecord, Rental
from orchestrator.resources import Account, Image, Instance, Manifest, Market, Offer

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TAKEN = TakenBack("AWS takes i-1 back")
IMAGE = Image(
    image_id="ami-1", name="Ubuntu", owner_id="1", state="available", architecture="x86_64",
    virtualization="hvm", root_device_name="/dev/sda1", root_device_type="ebs", root_size_gib=75,
    ena_support=True, boot_mode=None, platform=None, product_codes=(), deprecated_at=None, ssh_user="ubuntu",
)  # fmt: skip


def offer(zone: str, usd: str, market: Market = Market.SPOT) -> Offer:
    return Offer("g6.xlarge", zone, f"subnet-{zone}", market, Decimal(usd), 1, "L4", 22.4)


A, B, DEAR = offer("a", "0.40"), offer("b", "0.42"), offer("a", "0.80", Market.ON_DEMAND)


def plan(*offers: Offer, **spec: Any) -> Plan:
    wanted = run_spec(market="spot", fallback=True, **spec)
    return Plan(
        run_id="r-1",
        spec=wanted,
        account=Account("123456789012", "arn:aws:iam::123456789012:user/me"),
        image=IMAGE,
        offers=offers,
        placement=Placement("vpc-1", {}),
        ingress_cidr="192.31.196.7/32",
        manifest=Manifest(()),
        created_at=NOON,
        expires_at=NOON + timedelta(hours=2),
        worst_case_usd=Decimal(2),
        volume_gib=150,
        fits=fits_of(offers, NOT_ASKED, epochs=None),
        notes=(),
    )


def machine(number: int = 1, market: Market = Market.SPOT) -> MachineRecord:
    return MachineRecord(
        instance_id="i-1", instance_type="g6.xlarge", zone="a", address="192.0.2.1", user="ubuntu", host_key="k",
        usd_per_hour=Decimal("0.40"), volume_gib=150, launched_at=NOON, ends_at=NOON, market=market, number=number,
    )  # fmt: skip


def again(made: Plan, *, hours: float = 0.5, usd: str = "0.3", number: int = 1) -> Plan:
    return planned_again(made, TAKEN, machine(number), Bill(hours, Decimal(usd)), NOON)


def test_the_next_machine_has_the_hours_that_are_left_and_comes_from_elsewhere_first():
    made = again(plan(A, B, DEAR, max_hours=2))
    assert made.offers == (B, DEAR, A)
    assert made.spec.max_hours == Decimal("1.5")
    assert made.expires_at >= NOON + timedelta(hours=1.5)
    assert made.spec.wait_capacity_minutes > 0, "while nothing runs, waiting costs nothing"


@pytest.mark.parametrize(
    ("spec", "spent", "said"),
    [
        ({"max_hours": 2, "max_interruptions": 1}, {"number": 2}, "max_interruptions = 1"),
        ({"max_hours": 2, "max_interruptions": 0}, {}, "max_interruptions = 0"),
        ({"max_hours": 2}, {"hours": 1.97}, "max_hours = 2"),
        ({"max_hours": 2, "max_usd": "1"}, {"usd": "0.98"}, "0.98 USD are spent, max_usd = 1"),
    ],
)
def test_where_there_is_no_room_for_another_the_interruption_ends_the_run_and_says_why(
    spec: dict[str, Any], spent: dict[str, Any], said: str
):
    with pytest.raises(TakenBack) as ended:
        again(plan(A, B, **spec), **spent)
    assert str(ended.value).startswith(f"{TAKEN}; ")
    assert said in str(ended.value)


def test_an_offer_for_which_the_money_does_not_last_is_left_out_where_another_lasts():
    made = again(plan(A, B, DEAR, max_hours=2, max_usd="1.2"), usd="0.3")
    assert made.offers == (B, A)
    assert made.spec.max_hours == Decimal("1.5")


def test_where_the_money_lasts_for_none_the_timer_rings_when_it_is_spent():
    made = again(plan(B, DEAR, max_hours=20, max_usd="1.2"), usd="0.3")
    assert made.offers == (B, DEAR)
    most = max(usd_per_hour(one.usd_per_hour, volume_gib=150) for one in made.offers) * made.spec.max_hours
    assert Decimal("0.89") < most <= Decimal("0.9")


def seen(state: str = "", reason: str | None = None) -> Any:
    """A reader that has seen one instance, or none."""

    def instance(instance_id: str) -> Instance:
        if not state:
            raise NotYetVisible(instance_id)
        return Instance(instance_id, state, "a", None, None, reason)

    return SimpleNamespace(instance=instance)


@pytest.mark.parametrize(
    ("reader", "market", "expected"),
    [
        (seen("shutting-down", "Server.SpotInstanceTermination: Spot instance termination"), Market.SPOT, TakenBack),
        (seen("terminated", "Server.SpotInstanceShutdown: Spot instance shutdown"), Market.SPOT, TakenBack),
        (seen("terminated", "Server.InternalError: Internal error on launch"), Market.ON_DEMAND, TakenBack),
        (seen("terminated", "Client.UserInitiatedShutdown: User initiated shutdown"), Market.SPOT, InstanceDied),
        (seen("terminated", "Client.InstanceInitiatedShutdown: its timer"), Market.SPOT, InstanceDied),
        (seen("terminated"), Market.SPOT, InstanceDied),
        (seen(), Market.SPOT, TakenBack),
        (seen(), Market.ON_DEMAND, InstanceDied),
    ],
)
def test_an_end_is_an_interruption_where_aws_is_the_cause(reader: Any, market: Market, expected: type[InstanceDied]):
    with pytest.raises(InstanceDied, match="not brought home") as ended:
        refuse_if_ended(reader, machine(market=market))
    assert type(ended.value) is expected


def test_a_failure_of_a_machine_that_runs_is_told_as_it_is():
    with pytest.raises(CommandFailed), telling_ends_apart(seen("running"), machine()):
        raise CommandFailed("no such file")
    with pytest.raises(TakenBack), telling_ends_apart(seen("terminated", "Server.SpotInstanceTermination"), machine()):
        raise CommandFailed("no such file")


def lookout(reader: Any, folder: Path, said: list[str]) -> Lookout:
    nobody: Any = None
    clock = FakeClock()
    ledger = Ledger(folder / "ledger.jsonl", clock=clock, run_id="r-1", region="us-east-1")
    return Lookout(reader, nobody, clock, ledger, Rental(folder, "r-1", machine()), said.append)


def test_who_is_cut_off_from_aws_too_does_not_give_the_machine_up(tmp_path: Path):
    def unavailable(_: str) -> Instance:
        raise CloudUnavailable("no answer")

    said: list[str] = []
    reader = SimpleNamespace(instance=unavailable)
    look = lookout(reader, tmp_path, said)
    for _ in range(3):
        assert look()
        look.clock.sleep(10)
    assert len(said) == 1, "the same is not said again and again"
    reader.instance = seen("running").instance
    assert not look()


def test_a_machine_that_does_not_answer_because_aws_took_it_back_is_not_waited_for(tmp_path: Path):
    with pytest.raises(TakenBack):
        lookout(seen("shutting-down", "Server.SpotInstanceTermination"), tmp_path, [])()
