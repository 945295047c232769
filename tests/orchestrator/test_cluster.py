"""Several machines rented as one, all or none: placed together, admitted to each other, given up together."""

from collections.abc import Generator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from rentals import QUICK, Between, Rental, left_over, rental, run_spec

from orchestrator.aws.cloud import AwsCloud
from orchestrator.aws.requests import run_instances
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.errors import InstanceDied, NoCapacity, QuotaExceeded
from orchestrator.launch import records_of
from orchestrator.ledger import LedgerEvent, read_ledger
from orchestrator.record import RunRecord, read_record, remember_machines, write_record
from orchestrator.resources import Kind, LaunchRequest
from orchestrator.survey import survey

NUMBER = count(1)


@pytest.fixture
def pair(mock: MockedCloud, cloud: AwsCloud, tmp_path: Path) -> Generator[Rental]:
    mock.play(QUICK)
    made = rental(cloud, tmp_path, f"pair-{next(NUMBER)}", nodes=2)
    yield made
    mock.play(QUICK)
    made.reader = made.writer = cloud
    assert made.teardown().survivors == ()
    assert left_over(mock, made.plan.run_id) == set()


def instances(mock: MockedCloud, rented: Rental) -> set[str]:
    return {name for name in left_over(mock, rented.plan.run_id) if name.startswith("instance")}


def events(rented: Rental) -> list[LedgerEvent]:
    return [entry.event for entry in read_ledger(rented.path) if entry.kind is Kind.INSTANCE]


def the_group(cloud: AwsCloud, group_id: str) -> Mapping[str, Any]:
    (group,) = cloud._clients.ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
    return group


def test_both_run_in_one_zone_and_group_and_each_is_in_the_record(mock: MockedCloud, cloud: AwsCloud, pair: Rental):
    launched = pair.launch()
    first, second = launched.instances
    assert (first.state, second.state, first.zone) == ("running", "running", second.zone)
    assert mock.calls()["RunInstances"] == 1
    assert f"placement group launch-and-train-{pair.plan.run_id}" in left_over(mock, pair.plan.run_id)
    (members,) = [
        rule for rule in the_group(cloud, launched.group.group_id)["IpPermissions"] if rule["UserIdGroupPairs"]
    ]
    assert members["IpProtocol"] == "tcp"
    write_record(pair.folder, RunRecord(run_id=pair.plan.run_id, region="us-east-1", account_id="1"))
    machines = records_of(launched, pair.plan, now=pair.clock.now())
    remembered = remember_machines(pair.folder, machines)
    record = read_record(pair.folder)
    assert (record.machine, *record.others) == machines
    assert [node.host.address for node in remembered.nodes] == [first.public_ip, second.public_ip]
    assert [line.split()[0] for line in (pair.folder / "known_hosts").read_text().splitlines()] == [
        first.public_ip,
        second.public_ip,
    ]
    alone = remembered.nodes[0].meter
    assert remembered.meter.at_most().hours == 2 * alone.at_most().hours
    assert remembered.meter.at_most().usd > 2 * machines[0].usd_per_hour


def test_room_for_only_one_of_both_is_no_room_and_the_next_zone_is_tried(mock: MockedCloud, pair: Rental):
    first, second, *_ = pair.plan.offers
    mock.play({**QUICK, "capacity": {first.zone: 1}})
    assert pair.launch().offer == second
    assert len(instances(mock, pair)) == 2
    assert events(pair) == [
        *([LedgerEvent.INTENDED] * 2 + [LedgerEvent.FAILED] * 2),
        *([LedgerEvent.INTENDED] * 2 + [LedgerEvent.CREATED] * 2),
    ]


def test_room_for_only_one_of_both_everywhere_rents_nothing(mock: MockedCloud, pair: Rental):
    mock.play({**QUICK, "capacity": {offer.zone: 1 for offer in pair.plan.offers}})
    with pytest.raises(NoCapacity):
        pair.launch()
    assert instances(mock, pair) == set()


def test_one_that_dies_at_boot_is_named_and_the_other_is_given_back(mock: MockedCloud, pair: Rental):
    mock.play({**QUICK, "dies": "Client.VolumeLimitExceeded", "dies_only": 1})
    with pytest.raises(InstanceDied, match=r"Client\.VolumeLimitExceeded") as died:
        pair.launch()
    names = {entry.resource_id for entry in read_ledger(pair.path) if entry.kind is Kind.INSTANCE} - {None}
    (alive,) = {name.split()[1] for name in instances(mock, pair)}
    assert {name for name in names if name and name in str(died.value)} == names - {alive}


def test_where_one_loses_its_capacity_both_are_ended_before_the_next_zone(
    mock: MockedCloud, cloud: AwsCloud, pair: Rental
):
    mock.play(
        {"pending_seconds": 0, "ending_seconds": 0.05, "dies": "Server.InsufficientInstanceCapacity", "dies_only": 1}
    )
    alive: list[set[str]] = []
    pair.writer = Between(cloud, lambda name: alive.append(instances(mock, pair)) if name == "run_instances" else None)
    with pytest.raises(NoCapacity):
        pair.launch()
    assert alive == [set()] * len(pair.plan.offers)


def test_both_are_asked_to_end_before_either_is_waited_for(cloud: AwsCloud, pair: Rental):
    pair.launch()
    called: list[str] = []
    pair.writer = pair.reader = Between(cloud, called.append)
    pair.teardown()
    asked = [name for name in called if name in {"terminate_instance", "instance"}]
    assert asked[:3] == ["terminate_instance", "terminate_instance", "instance"]


@pytest.mark.parametrize(
    ("call", "running"), [("allow_members", 0), ("create_placement_group", 0), ("run_instances", 2)]
)
def test_an_interrupt_just_after_a_call_leaves_nothing(
    mock: MockedCloud, cloud: AwsCloud, pair: Rental, call: str, running: int
):
    def struck(name: str):
        if name == call:
            raise KeyboardInterrupt

    pair.writer = Between(cloud, struck, after=True)
    with pytest.raises(KeyboardInterrupt):
        pair.launch()
    assert len(instances(mock, pair)) == running
    pair.writer = cloud
    assert pair.teardown().survivors == ()
    assert left_over(mock, pair.plan.run_id) == set()


def test_a_machine_alone_has_no_placement_group_and_asks_for_no_right_to_one(
    mock: MockedCloud, cloud: AwsCloud, tmp_path: Path
):
    mock.play(QUICK)
    alone = rental(cloud, tmp_path, f"alone-{next(NUMBER)}")
    group_id = alone.launch().group.group_id
    assert [rule["UserIdGroupPairs"] for rule in the_group(cloud, group_id)["IpPermissions"]] == [[]]
    assert alone.teardown().survivors == ()
    assert not {name for name in mock.calls() if "Placement" in name}


def test_the_quota_must_have_room_for_all_of_them(mock: MockedCloud, cloud: AwsCloud):
    mock.play({**QUICK, "quota": {"L-DB2E81BA": 7}})
    assert survey(cloud, run_spec(), FakeClock()).offers
    with pytest.raises(QuotaExceeded, match=r"g6\.xlarge takes 8: ask AWS for 8"):
        survey(cloud, run_spec(nodes=2), FakeClock())


def test_an_elastic_fabric_adapter_is_asked_for_where_machines_can_use_one(
    mock: MockedCloud, cloud: AwsCloud, tmp_path: Path
):
    mock.play(QUICK)
    asked: list[LaunchRequest] = []

    class Keeping(Between):
        def run_instances(self, request: LaunchRequest) -> Any:
            asked.append(request)
            return cloud.run_instances(request)

    for nodes in (1, 2):
        made = rental(cloud, tmp_path, f"efa-{nodes}", nodes=nodes, instance_types=("g6.8xlarge",))
        made.writer = Keeping(cloud, lambda _: None)
        made.launch()
        assert made.teardown().survivors == ()
    alone, two = (run_instances(request) for request in asked)
    assert "InterfaceType" not in alone["NetworkInterfaces"][0]
    assert "Placement" not in alone
    assert two["NetworkInterfaces"][0]["InterfaceType"] == "efa"
    assert two["Placement"] == {"GroupName": "launch-and-train-efa-2"}
    assert (two["MinCount"], two["MaxCount"]) == (2, 2)
    assert "AuthorizeSecurityGroupEgress" in mock.calls()
