from itertools import count
from pathlib import Path
from typing import Any

import pytest
from clocks import FakeClock
from rentals import QUICK, REGION, Between, Rental, left_over, rental

from orchestrator.aws.cloud import AwsCloud
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.errors import AlreadyGone, CloudUnavailable, NotYetVisible
from orchestrator.events import TeardownReport
from orchestrator.ledger import open_entries, read_ledger
from orchestrator.resources import Account, Instance, Kind
from orchestrator.teardown import sweep

NUMBER = count(1)


@pytest.fixture
def rented(mock: MockedCloud, cloud: AwsCloud, tmp_path: Path) -> Rental:
    mock.play(QUICK)
    return rental(cloud, tmp_path, f"run-{next(NUMBER)}")


def sweep_all(cloud: AwsCloud, run_id: str | None = None) -> TeardownReport:
    said: list[str] = []
    clock = FakeClock(really=0.002)
    return sweep(cloud, cloud, clock=clock, tagged=cloud.tagged(run_id), tell=said.append)


def kinds(names: tuple[str, ...]) -> list[str]:
    return [name.rpartition(" ")[0] for name in names]


def test_everything_is_given_back_in_reverse_order_and_the_ledger_is_closed(mock: MockedCloud, rented: Rental):
    rented.launch()
    report = rented.teardown()
    assert kinds(report.deleted) == ["instance", "key pair", "security group"]
    assert (report.already_gone, report.survivors) == ((), ())
    assert left_over(mock, rented.plan.run_id) == set()
    assert open_entries(read_ledger(rented.path)) == ()


def test_every_instance_is_asked_to_end_before_one_is_waited_for(rented: Rental, cloud: AwsCloud, tmp_path: Path):
    rented.launch()
    (tmp_path / "other").mkdir()
    other = rental(cloud, tmp_path / "other", f"run-{next(NUMBER)}").launch()
    rented.ledger.created(rented.ledger.intend(Kind.INSTANCE, name="second"), other.instance.instance_id)
    calls: list[str] = []
    rented.reader = rented.writer = Between(cloud, calls.append)
    assert kinds(rented.teardown().deleted).count("instance") == 2
    asked = [call for call in calls if call in {"terminate_instance", "instance"}]
    assert asked[:3] == ["terminate_instance", "terminate_instance", "instance"]
    assert asked.count("terminate_instance") == 2


def test_a_second_teardown_finds_nothing_to_do(mock: MockedCloud, rented: Rental):
    rented.launch()
    rented.teardown()
    mock.play(QUICK)
    assert rented.teardown() == TeardownReport()
    assert not {name for name in mock.calls() if name.startswith(("Terminate", "Delete"))}


def test_where_nothing_was_ever_asked_for_aws_is_not_asked_either(mock: MockedCloud, rented: Rental):
    mock.play(QUICK)
    assert rented.teardown() == TeardownReport()
    assert mock.calls() == {}


def test_what_is_gone_already_counts_as_given_back(mock: MockedCloud, rented: Rental, cloud: AwsCloud):
    rented.launch()
    sweep_all(cloud, rented.plan.run_id)
    report = rented.teardown()
    assert kinds(report.already_gone) == ["instance", "key pair", "security group"]
    assert (report.deleted, report.survivors) == ((), ())
    assert open_entries(read_ledger(rented.path)) == ()


def test_the_group_waits_until_the_instance_is_out_of_it(mock: MockedCloud, rented: Rental):
    rented.launch()
    fail = [{"action": "DeleteSecurityGroup", "times": 3, "code": "DependencyViolation"}]
    mock.play({**QUICK, "ending_seconds": 0.1, "fail": fail})
    assert rented.teardown().survivors == ()
    assert mock.calls()["DeleteSecurityGroup"] == 4
    assert left_over(mock, rented.plan.run_id) == set()


def test_a_group_that_stays_in_use_is_a_survivor_and_nothing_else_is(mock: MockedCloud, rented: Rental):
    launched = rented.launch()
    mock.play({**QUICK, "fail": [{"action": "DeleteSecurityGroup", "times": 9999, "code": "DependencyViolation"}]})
    report = rented.teardown()
    assert report.survivors == (f"security group {launched.group.group_id}",)
    assert kinds(report.deleted) == ["instance", "key pair"]
    assert [entry.kind for entry in open_entries(read_ledger(rented.path))] == [Kind.SECURITY_GROUP]
    mock.play(QUICK)
    assert rented.teardown().survivors == ()


def test_where_an_instance_survives_nothing_it_holds_is_waited_for(mock: MockedCloud, rented: Rental):
    rented.launch()
    fail = [{"action": "TerminateInstances", "times": 999, "code": "OperationNotPermitted"}]
    mock.play({**QUICK, "fail": fail})
    rented.clock.slept.clear()
    report = rented.teardown()
    assert "instance" in kinds(report.survivors)
    assert kinds(report.deleted) == ["key pair"]
    assert sum(rented.clock.slept) == 0
    assert any("OperationNotPermitted" in line for line in rented.said)
    mock.play(QUICK)
    assert rented.teardown().survivors == ()
    assert left_over(mock, rented.plan.run_id) == set()


def test_a_disturbance_that_is_over_when_the_sweep_comes_leaves_no_survivor(mock: MockedCloud, rented: Rental):
    rented.launch()
    fail = [{"action": "DeleteKeyPair", "times": 1, "code": "UnauthorizedOperation"}]
    mock.play({**QUICK, "fail": fail})
    report = rented.teardown()
    assert report.survivors == ()
    assert sorted(kinds(report.deleted)) == ["instance", "key pair", "security group"]
    assert open_entries(read_ledger(rented.path)) == ()


def test_credentials_that_ended_make_everything_a_survivor(mock: MockedCloud, rented: Rental):
    launched = rented.launch()
    actions = ("TerminateInstances", "DescribeKeyPairs", "DeleteSecurityGroup", "DescribeInstances")
    mock.play({**QUICK, "fail": [{"action": a, "times": 999, "code": "ExpiredToken"} for a in actions]})
    report = rented.teardown()
    assert report.deleted == ()
    assert {
        f"instance {launched.instance.instance_id}",
        f"key pair {launched.key_pair.name}",
        f"security group {launched.group.group_id}",
    } < set(report.survivors)
    assert f"anything tagged run-id={rented.plan.run_id}" in report.survivors
    mock.play(QUICK)
    assert rented.teardown().survivors == ()


def test_with_credentials_of_another_account_nothing_is_taken_for_gone(rented: Rental, cloud: AwsCloud):
    rented.launch()
    stranger: Any = Between(cloud, lambda _: None)
    stranger.account = lambda: Account("000000000000", "arn:aws:iam::000000000000:user/you")
    rented.reader = stranger
    report = rented.teardown()
    assert kinds(report.survivors) == ["security group", "key pair", "instance"]
    assert any("log in to the other account" in line for line in rented.said)
    rented.reader = cloud
    assert rented.teardown().survivors == ()


def test_an_instance_too_young_to_be_seen_is_not_taken_for_gone(mock: MockedCloud, rented: Rental, cloud: AwsCloud):
    launched = rented.launch()
    reader: Any = Between(cloud, lambda _: None)
    hidden = iter(range(3))

    def unseen(instance_id: str) -> Instance:
        if next(hidden, None) is not None:
            raise NotYetVisible(instance_id)
        return cloud.instance(instance_id)

    reader.instance = unseen
    rented.reader = reader
    report = rented.teardown()
    assert report.deleted[0] == f"instance {launched.instance.instance_id}"
    assert left_over(mock, rented.plan.run_id) == set()


def test_an_instance_too_young_to_be_terminated_is_terminated_once_it_is_seen(
    mock: MockedCloud, rented: Rental, cloud: AwsCloud
):
    launched = rented.launch()
    writer: Any = Between(cloud, lambda _: None)
    unknown = iter(range(1))

    def too_young(instance_id: str) -> None:
        if next(unknown, None) is not None:
            raise AlreadyGone(instance_id)
        cloud.terminate_instance(instance_id)

    writer.terminate_instance = too_young
    rented.writer = writer
    assert rented.teardown().deleted[0] == f"instance {launched.instance.instance_id}"
    assert left_over(mock, rented.plan.run_id) == set()


def test_an_instance_whose_id_never_arrived_is_found_by_its_token_even_if_it_shows_late(
    mock: MockedCloud, rented: Rental, cloud: AwsCloud
):
    def die_after(name: str) -> None:
        if name == "run_instances":
            raise KeyboardInterrupt

    rented.writer = Between(cloud, die_after, after=True)
    with pytest.raises(KeyboardInterrupt):
        rented.launch()
    reader: Any = Between(cloud, lambda _: None)
    late = iter(range(4))
    reader.instances_of_token = lambda token: () if next(late, None) is not None else cloud.instances_of_token(token)
    rented.reader, rented.writer = reader, cloud
    report = rented.teardown()
    assert kinds(report.deleted) == ["instance", "key pair", "security group"]
    assert left_over(mock, rented.plan.run_id) == set()


def test_a_foreign_resource_of_the_same_account_is_never_touched(mock: MockedCloud, rented: Rental, cloud: AwsCloud):
    ec2 = cloud._clients.ec2
    network = cloud.default_network()
    assert network is not None
    foreign = ec2.create_security_group(GroupName="theirs", Description="d", VpcId=network.vpc_id)["GroupId"]
    rented.launch()
    other = f"{rented.plan.run_id}-other"
    cloud.create_security_group(
        "other", vpc_id=network.vpc_id, tags={"managed-by": "launch-and-train", "run-id": other}
    )
    rented.teardown()
    assert left_over(mock, other), "another run's group is not this run's business"
    assert sweep_all(cloud).survivors == ()
    left = {thing["id"] for thing in mock.state() if thing["kind"] == "security group"}
    assert left == {foreign}
    ec2.delete_security_group(GroupId=foreign)


def test_a_sweep_without_a_ledger_takes_back_whole_runs(mock: MockedCloud, cloud: AwsCloud, rented: Rental):
    rented.launch()
    report = sweep_all(cloud, rented.plan.run_id)
    assert report.survivors == ()
    assert {"instance", "key pair", "security group"} <= set(kinds(report.deleted))
    assert left_over(mock, rented.plan.run_id) == set()


def test_a_volume_that_outlived_its_instance_is_deleted(mock: MockedCloud, cloud: AwsCloud, rented: Rental):
    rented.launch()
    tags = [
        {"Key": "managed-by", "Value": "launch-and-train"},
        {"Key": "run-id", "Value": rented.plan.run_id},
    ]
    volume = cloud._clients.ec2.create_volume(
        Size=8,
        AvailabilityZone=f"{REGION}a",
        TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
    )["VolumeId"]
    report = rented.teardown()
    assert f"volume {volume}" in report.deleted
    assert left_over(mock, rented.plan.run_id) == set()


def test_a_failing_deletion_of_a_sweep_does_not_stop_the_others(mock: MockedCloud, cloud: AwsCloud, rented: Rental):
    launched = rented.launch()
    writer: Any = Between(cloud, lambda _: None)

    def unavailable(name: str) -> None:
        raise CloudUnavailable(f"deleting {name}: later")

    writer.delete_key_pair = unavailable
    said: list[str] = []
    clock = FakeClock(really=0.002)
    tagged = cloud.tagged(rented.plan.run_id)
    report = sweep(cloud, writer, clock=clock, tagged=tagged, tell=said.append)
    assert report.survivors == (f"key pair {launched.key_pair.name}",)
    assert left_over(mock, rented.plan.run_id) == set(report.survivors)
    assert sweep_all(cloud, rented.plan.run_id).survivors == ()
