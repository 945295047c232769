"""What goes wrong while a machine is got, each to its end: what comes of it, what is said, with which status, and that
nothing is left.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from rentals import QUICK, REGION, aws, left_over, planned, run_spec, storage

from orchestrator.aws.cloud import AwsCloud
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.errors import HostKeyMismatch, QuotaExceeded
from orchestrator.events import Event, Outcome
from orchestrator.ledger import LedgerEvent, read_ledger
from orchestrator.packaged import packaged
from orchestrator.plan import Plan
from orchestrator.ports import Session
from orchestrator.record import RunRecord, write_record
from orchestrator.resources import Host, Kind, Market
from orchestrator.run import run
from orchestrator.survey import survey
from orchestrator.telling import Telling
from orchestrator.training import World

NUMBER = count(1)
ARRIVED = "a machine runs and was dialled"
CAPACITY = {"code": "InsufficientInstanceCapacity", "action": "RunInstances"}


@dataclass(slots=True)
class Story:
    """A run up to its first SSH connection, which ends it."""

    mock: MockedCloud
    cloud: AwsCloud
    folder: Path
    clock: FakeClock = field(default_factory=lambda: FakeClock(really=0.002))
    events: list[Event] = field(default_factory=list[Event])
    dialled: Callable[[], None] = lambda: None

    def plan(self, **spec: Any) -> Plan:
        self.mock.play(QUICK)
        return planned(self.cloud, f"run-{next(NUMBER)}", **spec)

    def told(self, plan: Plan, **scenario: Any) -> Outcome:
        """How `plan` ends in a scenario; that nothing is left afterwards is seen to here."""
        self.mock.play({**QUICK, **scenario})
        write_record(self.folder, RunRecord(run_id=plan.run_id, region=REGION, account_id=plan.account.account_id))
        outcome = run(
            plan,
            World(self.cloud, self.cloud, self._dial, self.clock, storage(self.mock)),
            folder=self.folder,
            first_boot=(packaged("infra") / "first-boot.yaml").read_text(encoding="utf-8"),
            telling=Telling(self.clock, self.events.append),
        )
        assert outcome.teardown.survivors == ()
        assert left_over(self.mock, plan.run_id) == set()
        return outcome

    def _dial(self, host: Host) -> Session:
        self.dialled()
        raise HostKeyMismatch(ARRIVED)

    @property
    def said(self) -> str:
        return "\n".join(event.message for event in self.events)

    @property
    def rented(self) -> list[tuple[str, str, str]]:
        """Type, zone and market of every instance that was started."""
        entries = [entry for entry in read_ledger(self.folder / "ledger.jsonl") if entry.kind is Kind.INSTANCE]
        intents = {entry.token: entry.detail for entry in entries if entry.event is LedgerEvent.INTENDED}
        made = [intents[entry.token] for entry in entries if entry.event is LedgerEvent.CREATED]
        return [(detail["instance_type"], detail["zone"], detail["market"]) for detail in made]

    @property
    def tokens(self) -> list[str | None]:
        entries = read_ledger(self.folder / "ledger.jsonl")
        return [e.token for e in entries if e.kind is Kind.INSTANCE and e.event is LedgerEvent.INTENDED]


@pytest.fixture
def story(mock: MockedCloud, cloud: AwsCloud, tmp_path: Path) -> Story:
    return Story(mock, cloud, tmp_path)


def test_no_capacity_in_two_zones_leads_to_the_third(story: Story):
    plan = story.plan()
    first, second, third = (offer.zone for offer in plan.offers[:3])
    outcome = story.told(plan, capacity={first: "none", second: "none"})
    assert (outcome.exit_status, outcome.error) == (1, ARRIVED)
    assert story.rented == [("g6.xlarge", third, "on_demand")]
    assert f"no g6.xlarge in {first}" in story.said
    assert story.mock.calls()["RunInstances"] == 3


def test_without_capacity_of_one_type_the_next_type_is_rented(story: Story):
    plan = story.plan(instance_types=("g6.xlarge", "g5.xlarge"))
    story.told(plan, capacity={f"g6.xlarge@{offer.zone}": "none" for offer in plan.offers})
    assert [name for name, _, _ in story.rented] == ["g5.xlarge"]


def test_no_capacity_anywhere_ends_with_what_was_tried_and_what_to_do(story: Story):
    plan = story.plan()
    outcome = story.told(plan, fail=[CAPACITY | {"times": 99}])
    assert outcome.exit_status == 1
    assert str(outcome.error).startswith("AWS has none of the offers now: g6.xlarge in us-east-1a")
    assert "--wait-capacity" in str(outcome.error)
    assert story.mock.calls()["RunInstances"] == len(plan.offers), "botocore repeats none of them"


def test_waiting_for_capacity_goes_round_with_growing_pauses_and_a_new_token_each_time(story: Story):
    plan = story.plan(wait_capacity_minutes=5)
    rounds = 3
    story.told(plan, fail=[CAPACITY | {"times": rounds * len(plan.offers)}])
    assert story.rented == [("g6.xlarge", plan.offers[0].zone, "on_demand")]
    assert [pause for pause in story.clock.slept if pause >= 15] == [15.0, 30.0, 60.0]
    assert len(set(story.tokens)) == len(story.tokens) == rounds * len(plan.offers) + 1


def test_waiting_for_capacity_has_an_end(story: Story):
    outcome = story.told(story.plan(wait_capacity_minutes=2), fail=[CAPACITY | {"times": 99}])
    assert outcome.exit_status == 1
    assert "AWS has none of the offers after 2 min" in str(outcome.error)
    assert sum(story.clock.slept) == pytest.approx(120, abs=15)


def test_a_quota_of_0_is_refused_before_anything_is_created(story: Story):
    story.mock.play({**QUICK, "quota": {"L-DB2E81BA": 0}})
    with pytest.raises(QuotaExceeded) as refused:
        survey(story.cloud, run_spec(), story.clock)
    assert refused.value.exit_status == 1
    assert "L-DB2E81BA" in str(refused.value)
    assert "allows 0 vCPUs" in str(refused.value)
    assert "--desired-value 4" in str(refused.value)
    assert not {"CreateSecurityGroup", "ImportKeyPair", "RunInstances"} & set(story.mock.calls())


def test_a_quota_of_0_that_only_run_instances_knows_ends_the_run_after_one_request(story: Story):
    outcome = story.told(story.plan(instance_types=("g6.xlarge", "g5.xlarge")), quota={"L-DB2E81BA": 0})
    assert outcome.exit_status == 1
    assert "VcpuLimitExceeded" in str(outcome.error)
    assert "ask AWS for more of quota L-DB2E81BA" in str(outcome.error)
    assert story.mock.calls()["RunInstances"] == 1, "the other type takes from the same quota"


@pytest.mark.parametrize(
    "refusal",
    [
        {"quota": {"L-3819A6DF": 0}},
        {"fail": [CAPACITY | {"times": 5}]},
        {"fail": [{"action": "RunInstances", "code": "SpotMaxPriceTooLow", "times": 5}]},
    ],
    ids=["quota", "capacity", "price"],
)
def test_spot_refused_is_rented_on_demand_where_that_is_allowed(story: Story, refusal: dict[str, Any]):
    plan = story.plan(market="spot", fallback=True)
    assert [offer.market for offer in plan.offers] == [Market.SPOT] * 5 + [Market.ON_DEMAND] * 5
    outcome = story.told(plan, **refusal)
    assert (outcome.exit_status, outcome.error) == (1, ARRIVED)
    assert story.rented == [("g6.xlarge", "us-east-1a", "on_demand")]
    assert "(spot)" in story.said


def test_spot_refused_is_not_rented_on_demand_unasked(story: Story):
    outcome = story.told(story.plan(market="spot"), quota={"L-3819A6DF": 0})
    assert outcome.exit_status == 1
    assert "MaxSpotInstanceCountExceeded" in str(outcome.error)
    assert "L-3819A6DF" in str(outcome.error)
    assert story.rented == []


def test_a_lost_answer_to_run_instances_is_found_by_its_token(story: Story):
    outcome = story.told(story.plan(), fail=[{"action": "RunInstances", "after": True, "hang_up": True}])
    assert outcome.error == ARRIVED
    assert len(story.tokens) == 1
    assert story.mock.calls()["RunInstances"] == 2
    assert len([name for name in outcome.teardown.deleted if name.startswith("instance")]) == 1


def test_a_client_that_loses_every_answer_still_gives_the_instance_back(story: Story):
    outcome = story.told(story.plan(), fail=[{"action": "RunInstances", "after": True, "hang_up": True, "times": 99}])
    assert outcome.exit_status == 1
    assert "cannot be reached" in str(outcome.error)
    assert len([name for name in outcome.teardown.deleted if name.startswith("instance")]) == 1


def test_an_instance_not_found_three_times_is_waited_for(story: Story):
    missing = {"action": "DescribeInstances", "times": 3, "code": "InvalidInstanceID.NotFound"}
    outcome = story.told(story.plan(), fail=[missing])
    assert (outcome.exit_status, outcome.error) == (1, ARRIVED)
    assert len(story.rented) == 1


def test_an_instance_that_dies_at_boot_tells_ec2s_reason(story: Story):
    outcome = story.told(story.plan(), dies="Client.InvalidKMSKey.InvalidState")
    assert outcome.exit_status == 1
    assert "before it could be used: Client.InvalidKMSKey.InvalidState" in str(outcome.error)


def test_throttling_is_repeated_by_us_alone(story: Story):
    outcome = story.told(story.plan(), fail=[{"action": "RunInstances", "code": "RequestLimitExceeded", "times": 99}])
    assert outcome.exit_status == 1
    assert "try again in some minutes" in str(outcome.error)
    assert story.mock.calls()["RunInstances"] == 6


@pytest.mark.parametrize("market", ["on_demand", "spot", "cheapest"])
def test_from_start_to_a_running_instance_it_takes_at_most_20_calls_and_none_twice(story: Story, market: str):
    calls = Calls(aws(story.mock))
    story.cloud = calls.cloud
    story.dialled = calls.stop
    plan = story.plan(market=market, instance_types=("g6.xlarge", "g5.xlarge", "g4dn.xlarge"))
    assert story.told(plan).error == ARRIVED
    assert 15 <= len(calls.different) <= 20, calls.different
    # How often a new instance is looked at is up to EC2.
    assert [call for call in calls.made if calls.made.count(call) > 1 and call[0] != "DescribeInstances"] == []


class Calls:
    """Every call that a cloud makes until `stop`, with its parameters."""

    def __init__(self, cloud: AwsCloud) -> None:
        self.cloud = cloud
        self.made: list[tuple[str, str]] = []
        self._stopped = False
        clients = cloud._clients
        for client in (clients.ec2, clients.creator, clients.ssm, clients.sts, clients.pricing, clients.quotas):
            client.meta.events.register("provide-client-params", self._note)

    @property
    def different(self) -> set[tuple[str, str]]:
        return set(self.made)

    def stop(self) -> None:
        self._stopped = True

    def _note(self, params: Any, model: Any, **_: Any) -> None:
        if not self._stopped:
            self.made.append((model.name, repr(params)))
