from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from orchestrator.money import Meter, bill, rent_usd

START = datetime(2026, 11, 24, tzinfo=UTC)


def test_rent_adds_machine_volume_and_address_and_rounds_up_to_the_cent():
    # 0.8048 + 150 × 0.08 / 730 + 0.005 = 0.82623…
    assert rent_usd(Decimal("0.8048"), volume_gib=150, hours=Decimal(1)) == Decimal("0.83")
    assert rent_usd(Decimal("0.8048"), volume_gib=150, hours=Decimal(10)) == Decimal("8.27")
    assert rent_usd(Decimal(60), volume_gib=8, hours=Decimal("0.001")) > 1


def test_several_machines_cost_several_times_as_much_and_a_minute_at_least_each():
    assert rent_usd(Decimal(36), volume_gib=0, hours=Decimal(10), machines=3) == Decimal("1080.15")
    meter = Meter(Decimal(36), 0, START, START + timedelta(hours=1), 3)
    assert meter.until(START).hours == pytest.approx(3 * 60 / 3600)
    assert meter.at_most().usd == Decimal("108.02")
    assert meter.passes(Decimal("10.01"), START + timedelta(seconds=220), ahead_seconds=120)


@pytest.mark.parametrize(("seconds", "hours"), [(1, 60 / 3600), (60, 60 / 3600), (5400, 1.5)])
def test_time_is_billed_by_the_second_and_a_minute_at_least(seconds: int, hours: float):
    rent = bill(Decimal(1), volume_gib=8, launched_at=START, ended_at=START + timedelta(seconds=seconds))
    assert rent.hours == pytest.approx(hours)


def test_a_meter_tells_when_a_cap_would_be_passed():
    meter = Meter(Decimal(36), 0, START, START + timedelta(hours=1))
    # 36.005 USD an hour are 1.0002 cents a second.
    assert not meter.passes(Decimal("10.01"), START + timedelta(seconds=880), ahead_seconds=120)
    assert meter.passes(Decimal("10.01"), START + timedelta(seconds=882), ahead_seconds=120)
    assert meter.at_most().usd == Decimal("36.01")
