from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rentals import run_spec

from orchestrator.errors import UsageError
from orchestrator.fit import GIB, NOT_ASKED, DeviceBytes, GpuAnswer, Need, Needs
from orchestrator.inputs import EarlyStopping, InputSummary, settled
from orchestrator.money import rent_usd
from orchestrator.plan import Facts, Placement, Plan, make_plan, new_run_id
from orchestrator.report.offers import offers_json, offers_text
from orchestrator.report.plan import plan_text
from orchestrator.resources import Account, Image, Kind, LeftOut, Manifest, Market, Offer, Tagged

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
IMAGE = Image(
    image_id="ami-1", name="Ubuntu", owner_id="1", state="available", architecture="x86_64",
    virtualization="hvm", root_device_name="/dev/sda1", root_device_type="ebs", root_size_gib=75,
    ena_support=True, boot_mode=None, platform=None, product_codes=(), deprecated_at=None, ssh_user="ubuntu",
)  # fmt: skip


def offer(name: str, zone: str, usd: str) -> Offer:
    return Offer(name, zone, f"subnet-{zone}", Market.ON_DEMAND, Decimal(usd), 1, "L4", 22.4)


def facts(*offers: Offer, **changes: Any) -> Facts:
    known: dict[str, Any] = {
        "account": Account("123456789012", "arn:aws:iam::123456789012:user/me"),
        "image": IMAGE,
        "instance_types": (),
        "offers": offers,
        "placement": Placement("vpc-1", {}),
        "ingress_cidr": "192.31.196.7/32",
        "quota_notes": (),
        "leftovers": (),
        "observed_at": NOON,
    }
    return Facts(**(known | changes))


def plan(found: Facts, needs: Needs = NOT_ASKED, **spec: Any) -> Plan:
    wanted = {"instance_types": ("g6.xlarge", "g5.xlarge")} | spec
    return make_plan(run_spec(**wanted), found, manifest=Manifest(()), run_id="r-1", needs=needs)


CHEAP, DEAR = offer("g6.xlarge", "b", "0.80"), offer("g6.xlarge", "a", "0.90")
OTHER = offer("g5.xlarge", "a", "0.10")


def test_offers_are_tried_in_the_users_order_of_types_and_then_by_price():
    assert plan(facts(OTHER, DEAR, CHEAP)).offers == (CHEAP, DEAR, OTHER)


def test_of_several_machines_caps_and_worst_case_are_of_all():
    three = plan(facts(CHEAP, DEAR), nodes=3, max_usd_per_hour="2.5", max_hours=2)
    assert three.offers == (CHEAP,), "3 × 0.90 is above 2.5"
    assert three.worst_case_usd == rent_usd(Decimal("0.80"), volume_gib=150, hours=Decimal(6))
    with pytest.raises(UsageError, match=r"3 × g6.xlarge in b, costs 2.40 USD per hour"):
        plan(facts(CHEAP, DEAR), nodes=3, max_usd_per_hour="2")
    with pytest.raises(UsageError, match=r"max_usd = 4"):
        plan(facts(CHEAP), nodes=3, max_usd="4", max_hours=2)
    summary = InputSummary(samples=1, features=1, nnz=1, parameters=1, batch_size=1, epochs=1, early_stopping=None)
    text = plan_text(three, summary)
    assert "machines   3 × g6.xlarge, 1 × L4 22.4 GiB each, b, on demand" in text
    assert "3 × 0.8 = 2.4 USD per hour" in text
    assert "nobody else, and each other" in text
    assert offers_json(three)["offers"][0]["at_most_usd"] == str(three.worst_case_usd)


def spot(made: Offer, usd: str, since: datetime = NOON) -> Offer:
    return replace(made, market=Market.SPOT, usd_per_hour=Decimal(usd), price_since=since)


def test_cheapest_goes_by_price_whatever_was_named_first():
    assert plan(facts(OTHER, DEAR, CHEAP), market="cheapest").offers == (OTHER, CHEAP, DEAR)


def test_with_fallback_every_spot_offer_comes_before_any_other():
    dear_spot = spot(OTHER, "5.00")
    made = plan(facts(CHEAP, dear_spot, spot(CHEAP, "0.30")), market="spot", fallback=True)
    assert made.offers == (spot(CHEAP, "0.30"), dear_spot, CHEAP)


def test_types_found_by_need_go_by_what_the_run_costs_where_that_is_known():
    fast, slow, strange = (
        replace(CHEAP, instance_type="fast", usd_per_hour=Decimal(2)),
        replace(CHEAP, instance_type="slow", gpu_name="T4", gpu_memory_gib=16.0),
        replace(CHEAP, instance_type="strange", gpu_name="Z9", usd_per_hour=Decimal("0.01")),
    )
    answers = tuple(
        GpuAnswer(gpu=gpu, holds=True, fewest=1, epoch_seconds=seconds, bound="memory")
        for gpu, seconds in (("L4", 100.0), ("T4", 3600.0))
    )
    need = Need(devices=1, bytes_per_device=DeviceBytes(total=GIB), gpus=answers, assumptions=())
    spec: dict[str, Any] = {"instance_types": (), "gpus": 1, "max_usd": "90", "settings": {"epochs": 10}}
    made = plan(facts(strange, slow, fast), Needs({1: need}), **spec)
    assert [one.instance_type for one in made.offers] == ["fast", "slow", "strange"]
    assert [one.instance_type for one in plan(facts(strange, slow, fast), **spec).offers] == ["strange", "slow", "fast"]


def test_what_is_left_out_is_kept_with_its_reason():
    full = LeftOut(spot(CHEAP, "0.30"), "no room")
    made = plan(facts(OTHER, CHEAP, left_out=(full,)), max_usd_per_hour="0.5")
    assert made.left_out == (full, LeftOut(CHEAP, "it costs more than you allow"))


def test_a_spot_price_of_long_ago_is_said_to_be_doubtful():
    old = spot(CHEAP, "0.30", since=NOON - timedelta(days=3))
    price, risk = plan(facts(old), market="spot").notes
    assert price.startswith("the spot price of g6.xlarge in b is from 2026-11-21 12:00 UTC")
    assert plan(facts(spot(CHEAP, "0.30")), market="spot").notes == (risk,)
    assert "the training then goes on on another" in risk


def test_the_table_of_offers_shows_each_with_its_price_and_what_is_left_out():
    made = plan(facts(OTHER, spot(CHEAP, "0.30"), CHEAP), market="cheapest", max_usd_per_hour="0.5")
    head, first, second, *rest = offers_text(made).splitlines()
    assert first.split() == ["g5.xlarge", "1", "×", "L4", "22.4", "GiB", "a", "on", "demand", "0.1", "not", "told",
                             "0.13", "?"]  # fmt: skip
    assert second.split()[6:10] == ["b", "spot", "0.3", "2026-11-24"]
    assert first.index("on demand") == head.index("market")
    assert "left out: g6.xlarge (on demand): it costs more than you allow" in rest
    told = offers_json(made)
    assert [one["usd_per_hour"] for one in told["offers"]] == ["0.10", "0.30"]
    assert [(one["market"], one["reason"]) for one in told["left_out"]] == [
        ("on_demand", "it costs more than you allow")
    ]


def test_the_worst_case_is_the_dearest_offer_for_all_the_hours():
    made = plan(facts(CHEAP, DEAR, OTHER), max_hours="3")
    assert made.worst_case_usd == rent_usd(Decimal("0.90"), volume_gib=150, hours=Decimal(3))
    assert made.expires_at == NOON + timedelta(hours=3)


def test_a_cap_on_the_hour_drops_dearer_offers_and_says_so():
    made = plan(facts(OTHER, CHEAP, DEAR), max_usd_per_hour="0.5")
    assert made.offers == (OTHER,)
    assert made.notes == ("g6.xlarge costs more than you allow",)


@pytest.mark.parametrize(
    ("caps", "said"),
    [
        ({"max_usd_per_hour": "0.05"}, "max_usd_per_hour = 0.05: the cheapest offer, g5.xlarge in a"),
        ({"max_usd": "0.01"}, "max_usd = 0.01: 1 h of the cheapest offer, g5.xlarge in a"),
    ],
)
def test_caps_that_no_offer_meets_are_answered_with_the_cheapest(caps: dict[str, str], said: str):
    with pytest.raises(UsageError, match=said):
        plan(facts(OTHER, CHEAP), **caps)


def test_types_too_small_for_the_training_are_left_out_unless_the_user_insists():
    kinds = (GpuAnswer(gpu="L4", holds=False, fewest=2, epoch_seconds=1.0, bound="memory"),)
    need = Need(devices=1, bytes_per_device=DeviceBytes(total=20 * GIB), gpus=kinds, assumptions=())
    needs, found = Needs({1: need}), facts(replace(OTHER, gpu_name="A10G"), CHEAP, DEAR)
    made = plan(found, needs)
    assert {one.instance_type for one in made.offers} == {"g5.xlarge"}
    assert made.notes == ("left out: g6.xlarge would need 20.0 GiB usable on each GPU and has 1 × L4 of 22.4 GiB",)
    assert plan(found, needs, must_fit=False).offers[0] == CHEAP
    with pytest.raises(UsageError, match=r"g6\.12xlarge"):
        plan(facts(CHEAP, DEAR), needs)


def test_the_volume_is_never_smaller_than_the_image_needs():
    made = plan(facts(CHEAP), volume_gib=20)
    assert made.volume_gib == 75
    assert made.notes == ("volume raised from 20 to 75 GiB: the image needs it",)


def test_leftovers_of_earlier_runs_are_noted():
    left = Tagged(Kind.INSTANCE, "i-1", "", "r-0", "running", "us-east-1")
    assert "earlier runs that still exist: 1;" in plan(facts(CHEAP, leftovers=(left,))).notes[0]


@given(st.lists(st.sampled_from(["0.10", "0.80", "0.90", "7.00"]), min_size=1, max_size=6), st.integers(1, 9))
def test_no_offer_of_a_plan_costs_more_than_its_worst_case_or_its_cap(prices: list[str], cap: int):
    found = facts(*(offer("g6.xlarge", str(number), usd) for number, usd in enumerate(prices)))
    try:
        made = plan(found, max_usd=str(cap))
    except UsageError:
        assert all(rent_usd(Decimal(usd), volume_gib=150, hours=Decimal(1)) > cap for usd in prices)
        return
    costs = [rent_usd(o.usd_per_hour, volume_gib=made.volume_gib, hours=Decimal(1)) for o in made.offers]
    assert max(costs) == made.worst_case_usd <= cap


def test_run_ids_sort_by_time_and_tell_the_name():
    early = new_run_id("movielens", NOON, "ff")
    assert early == "20261124-1200-movielens-ff"
    assert early < new_run_id("a", NOON + timedelta(minutes=1), "00")


@pytest.mark.parametrize(
    ("settings", "stopping", "expected"),
    [
        ({}, None, ["training   batch 64, 30 epochs, 10 recommendations a sample"]),
        (
            {"epochs": 5},
            EarlyStopping(metric="recall@20", refit=True),
            [
                "training   batch 64, at most 5 epochs, 10 recommendations a sample",
                "           stops early by recall@20; then as many epochs anew, on all samples",
            ],
        ),
    ],
)
def test_a_plan_shows_the_networks_own_training_where_the_run_spec_says_nothing(
    settings: dict[str, Any], stopping: EarlyStopping | None, expected: list[str]
) -> None:
    found = InputSummary(samples=9, features=9, nnz=9, parameters=9, batch_size=64, epochs=30, early_stopping=stopping)
    spec = settled(run_spec(settings=settings), found)
    made = make_plan(spec, facts(CHEAP), manifest=Manifest(()), run_id="r-1")
    lines = [line[2:] for line in plan_text(made, found).splitlines()]
    place = next(number for number, line in enumerate(lines) if line.startswith("training"))
    assert lines[place : place + len(expected)] == expected
