"""What `CloudReader` and `CloudWriter` promise, held against the AWS adapter and the mocked AWS."""

import inspect
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from rentals import QUICK, REGION, aws

from orchestrator.aws.cloud import AwsCloud
from orchestrator.dryrun.catalog import image_id
from orchestrator.dryrun.cloud import MockedCloud, running_cloud
from orchestrator.errors import (
    AlreadyExists,
    AlreadyGone,
    CloudRefused,
    InstanceDied,
    NoCapacity,
    NotYetVisible,
    StillInUse,
)
from orchestrator.keys import make_host_key
from orchestrator.ports import CloudReader, CloudWriter
from orchestrator.resources import Instance, Kind, LaunchRequest, Market, Way

NUMBER = count(1)
WAYS = [(name, market) for name in ("g5.xlarge", "p5.48xlarge") for market in Market]
NOBODY = "i-0123456789abcdef0"


@pytest.fixture(scope="module")
def mock() -> Generator[MockedCloud]:
    with running_cloud(QUICK) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def adapter(mock: MockedCloud) -> AwsCloud:
    return aws(mock)


@pytest.fixture
def cloud(mock: MockedCloud, adapter: AwsCloud) -> AwsCloud:
    mock.play(QUICK)
    return adapter


def tags(run_id: str) -> dict[str, str]:
    return {"managed-by": "launch-and-train", "run-id": run_id, "expires-at": "2026-11-24T13:00:00Z"}


@contextmanager
def ordered(cloud: AwsCloud, market: Market = Market.ON_DEMAND) -> Iterator[LaunchRequest]:
    """A request that can be carried out; what was made for it, and by it, is gone afterwards."""
    run_id = f"run-{next(NUMBER)}"
    network, image = cloud.default_network(), cloud.image(image_id("dlami-ubuntu-24.04", REGION))
    assert network is not None
    assert image is not None
    group_id = cloud.create_security_group(run_id, vpc_id=network.vpc_id, tags=tags(run_id))
    cloud.import_key_pair(run_id, public_openssh=make_host_key().public_openssh, tags=tags(run_id))
    yield LaunchRequest(
        client_token=run_id,
        image=image,
        instance_type="g6.xlarge",
        market=market,
        subnet_id=network.subnets[0].subnet_id,
        group_id=group_id,
        key_name=run_id,
        volume_gib=75,
        user_data="#cloud-config\n",
        tags=tags(run_id),
    )
    for found in cloud.tagged(run_id):
        if found.kind is Kind.INSTANCE:
            terminate(cloud, found.resource_id)
        if found.kind is Kind.PLACEMENT_GROUP:
            cloud.delete_placement_group(found.resource_id)
    cloud.delete_security_group(group_id)
    cloud.delete_key_pair(run_id)
    assert cloud.tagged(run_id) == ()


def in_use(cloud: AwsCloud) -> Mapping[Way, int]:
    return cloud.vcpus_in_use(WAYS)


def terminate(cloud: AwsCloud, instance_id: str) -> Instance:
    cloud.terminate_instance(instance_id)
    while (seen := cloud.instance(instance_id)).state != "terminated":
        pass
    return seen


@pytest.mark.parametrize("port", [CloudReader, CloudWriter])
def test_the_adapter_has_every_method_with_the_ports_signature(port: Any, cloud: AwsCloud):
    promised = {name: found for name, found in vars(port).items() if not name.startswith("_")}
    assert promised
    for name, method in promised.items():
        if isinstance(method, property):
            assert isinstance(getattr(AwsCloud, name), property)
            continue
        assert inspect.signature(getattr(AwsCloud, name)) == inspect.signature(method), name


def test_types_come_in_the_order_asked_for_without_those_that_do_not_exist(cloud: AwsCloud):
    found = cloud.instance_types(["p5.48xlarge", "g99.xlarge", "g6.xlarge", "g2.2xlarge"])
    assert [one.name for one in found] == ["p5.48xlarge", "g6.xlarge"]
    assert [(one.gpus, one.gpu_name, one.vcpus) for one in found] == [(8, "H100", 192), (1, "L4", 4)]
    assert found[1].gpu_memory_gib == pytest.approx(22.35, abs=0.01)
    assert found[1].ena_required


def test_zones_are_told_for_every_type_asked_for(cloud: AwsCloud):
    zones = cloud.zones(["g6.xlarge", "g99.xlarge"])
    assert "us-east-1a" in zones["g6.xlarge"]
    assert zones["g99.xlarge"] == frozenset()


def test_what_does_not_exist_is_none(cloud: AwsCloud):
    assert cloud.parameter("/aws/service/nothing") is None
    assert cloud.image("ami-0123456789abcdef0") is None
    assert cloud.image("ami-nonsense") is None
    assert cloud.on_demand_prices(["g99.xlarge"]) == {}
    assert cloud.quotas([("m5.large", Market.ON_DEMAND)]) == {}
    assert cloud.quotas([("p6-b200.48xlarge", Market.SPOT)]) == {}


def test_a_deprecated_image_is_still_found_by_its_id(cloud: AwsCloud):
    image = cloud.image(image_id("without-ena", REGION))
    assert image is not None
    assert image.deprecated_at is not None
    assert image.deprecated_at.tzinfo is not None
    assert (image.ena_support, image.boot_mode, image.root_size_gib) == (False, "legacy-bios", 8)


def test_prices_are_exact(cloud: AwsCloud):
    told = cloud.on_demand_prices(["p4d.24xlarge", "g6.xlarge", "p5e.48xlarge"])
    assert {name: str(price.usd_per_hour) for name, price in told.items()} == {
        "p4d.24xlarge": "21.957642",
        "g6.xlarge": "0.8048",
    }
    assert all(price.since == datetime(2026, 8, 17, tzinfo=UTC) for price in told.values())


@pytest.mark.parametrize(
    ("name", "market", "code"),
    [
        ("g6.xlarge", Market.ON_DEMAND, "L-DB2E81BA"),
        ("gr6.4xlarge", Market.ON_DEMAND, "L-DB2E81BA"),
        ("p5.48xlarge", Market.ON_DEMAND, "L-417A185B"),
        ("g6e.xlarge", Market.SPOT, "L-3819A6DF"),
        ("p4d.24xlarge", Market.SPOT, "L-7212CCBC"),
        ("p5.48xlarge", Market.SPOT, "L-C4BD4855"),
    ],
)
def test_each_class_of_types_has_its_quota(cloud: AwsCloud, name: str, market: Market, code: str):
    quota = cloud.quotas([(name, market)])[name, market]
    assert quota.code == code
    assert quota.limit_vcpus > 0


def test_a_quota_the_account_does_not_have_is_awss_default(mock: MockedCloud, cloud: AwsCloud):
    fail = [{"action": "GetServiceQuota", "code": "NoSuchResourceException"}]
    mock.play({**QUICK, "quota": {"L-DB2E81BA": 1}, "fail": fail})
    (quota,) = cloud.quotas([("g6.xlarge", Market.ON_DEMAND)]).values()
    assert quota.limit_vcpus == 768


def test_the_callers_address_and_the_regions_are_told(cloud: AwsCloud):
    assert cloud.caller_address() == "192.31.196.7"
    assert {REGION, "eu-west-1"} <= set(cloud.regions())
    assert cloud.region == REGION


def test_an_instance_takes_vcpus_of_its_class_only(cloud: AwsCloud):
    with ordered(cloud) as request:
        assert set(in_use(cloud).values()) == {0}
        cloud.run_instances(request)
        assert in_use(cloud) == {way: 4 if way == ("g5.xlarge", Market.ON_DEMAND) else 0 for way in WAYS}
    assert set(in_use(cloud).values()) == {0}


def test_repeating_a_request_gives_the_same_instance_and_another_with_its_token_is_refused(cloud: AwsCloud):
    with ordered(cloud) as request:
        (first,) = cloud.run_instances(request)
        assert [one.instance_id for one in cloud.run_instances(request)] == [first.instance_id]
        with pytest.raises(AlreadyExists):
            cloud.run_instances(replace(request, volume_gib=80))
        assert [i.instance_id for i in cloud.instances_of_token(request.client_token)] == [first.instance_id]
        terminate(cloud, first.instance_id)
        with pytest.raises(InstanceDied):
            cloud.run_instances(request)
        assert [i.state for i in cloud.instances_of_token(request.client_token)] == ["terminated"]


def test_several_instances_are_started_together_or_not_at_all(mock: MockedCloud, cloud: AwsCloud):
    with ordered(cloud) as request:
        cloud.create_placement_group(request.key_name, tags=request.tags)
        pair = replace(request, count=2, placement_group=request.key_name)
        mock.play({**QUICK, "capacity": {"us-east-1a": 1}})
        with pytest.raises(NoCapacity):
            cloud.run_instances(pair)
        assert cloud.instances_of_token(request.client_token) == ()
        mock.play(QUICK)
        names = [one.instance_id for one in cloud.run_instances(pair)]
        assert len(set(names)) == 2
        assert [one.instance_id for one in cloud.run_instances(pair)] == names
        assert {one.instance_id for one in cloud.instances_of_token(request.client_token)} == set(names)
        assert in_use(cloud)["g5.xlarge", Market.ON_DEMAND] == 8
        seen = [cloud.instance(name) for name in names]
        assert len({one.public_ip for one in seen}) == len({one.private_ip for one in seen}) == 2
        with pytest.raises(StillInUse):
            cloud.delete_placement_group(request.key_name)


def test_a_placement_group_has_a_name_and_tags_and_is_needed_before_its_instances(cloud: AwsCloud):
    with ordered(cloud) as request:
        pair = replace(request, count=2, placement_group=request.key_name)
        with pytest.raises(NotYetVisible):
            cloud.run_instances(pair)
        cloud.create_placement_group(request.key_name, tags=request.tags)
        with pytest.raises(AlreadyExists):
            cloud.create_placement_group(request.key_name, tags=request.tags)
        (found,) = cloud.tagged(request.client_token, kinds=[Kind.PLACEMENT_GROUP])
        assert (found.resource_id, found.name, found.run_id) == (request.key_name, request.key_name, request.key_name)
        assert found.expires_at is not None


@pytest.mark.parametrize(
    ("efa", "ways"), [(False, ["IpPermissions"]), (True, ["IpPermissions", "IpPermissionsEgress"])]
)
def test_members_of_a_group_reach_each_other_and_an_efa_needs_both_ways(cloud: AwsCloud, efa: bool, ways: list[str]):
    with ordered(cloud) as request:
        for _ in range(2):
            cloud.allow_members(request.group_id, efa=efa, tags=request.tags)
        (group,) = cloud._clients.ec2.describe_security_groups(GroupIds=[request.group_id])["SecurityGroups"]
        found = {
            way: [rule for rule in group[way] if rule["UserIdGroupPairs"]]
            for way in ("IpPermissions", "IpPermissionsEgress")
        }
        assert [way for way, rules in found.items() if rules] == ways
        (rule,) = found["IpPermissions"]
        assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [request.group_id]
        assert rule["IpRanges"] == []
        assert (rule["IpProtocol"], rule.get("ToPort")) == (("-1", None) if efa else ("tcp", 65535))


def test_spot_instances_are_started_by_the_same_call(cloud: AwsCloud):
    with ordered(cloud, Market.SPOT) as request:
        (started,) = cloud.run_instances(request)
        assert started.state == "pending"
        assert started.launched_at is not None
        assert started.launched_at.tzinfo is UTC
        assert in_use(cloud) == {way: 4 if way == ("g5.xlarge", Market.SPOT) else 0 for way in WAYS}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"key_name": "nobody's"}, NotYetVisible),
        ({"volume_gib": 8}, CloudRefused),
        ({"instance_type": "g99.xlarge"}, CloudRefused),
    ],
)
def test_a_request_that_cannot_be_carried_out_starts_nothing(
    cloud: AwsCloud, changes: dict[str, Any], error: type[Exception]
):
    with ordered(cloud) as request:
        with pytest.raises(error):
            cloud.run_instances(replace(request, **changes))
        assert cloud.instances_of_token(request.client_token) == ()


def test_a_lack_of_capacity_is_told_at_once(mock: MockedCloud, cloud: AwsCloud):
    with ordered(cloud) as request:
        mock.play({**QUICK, "capacity": {"g6.xlarge@us-east-1a": "none"}})
        with pytest.raises(NoCapacity, match="us-east-1a"):
            cloud.run_instances(request)
        assert mock.calls()["RunInstances"] == 1


def test_names_that_are_taken_are_told(cloud: AwsCloud):
    with ordered(cloud) as request:
        network = cloud.default_network()
        assert network is not None
        with pytest.raises(AlreadyExists):
            cloud.create_security_group(request.key_name, vpc_id=network.vpc_id, tags=request.tags)
        with pytest.raises(AlreadyExists):
            cloud.import_key_pair(request.key_name, public_openssh=make_host_key().public_openssh, tags=request.tags)


def test_opening_the_port_twice_is_fine(cloud: AwsCloud):
    with ordered(cloud) as request:
        for _ in range(2):
            cloud.allow_ssh(request.group_id, cidr="192.31.196.7/32", tags=request.tags)
        (group,) = cloud._clients.ec2.describe_security_groups(GroupIds=[request.group_id])["SecurityGroups"]
        assert [rule["IpRanges"][0]["CidrIp"] for rule in group["IpPermissions"]] == ["192.31.196.7/32"]


def test_a_port_is_closed_to_one_address_alone_and_twice_is_fine(cloud: AwsCloud):
    with ordered(cloud) as request:
        for last in (7, 8):
            cloud.allow_ssh(request.group_id, cidr=f"192.31.196.{last}/32", tags=request.tags)
        for _ in range(2):
            cloud.revoke_ssh(request.group_id, cidr="192.31.196.7/32")
        (group,) = cloud._clients.ec2.describe_security_groups(GroupIds=[request.group_id])["SecurityGroups"]
        assert [one["CidrIp"] for rule in group["IpPermissions"] for one in rule["IpRanges"]] == ["192.31.196.8/32"]


def test_a_group_is_in_use_until_its_instance_is_terminated(mock: MockedCloud, cloud: AwsCloud):
    with ordered(cloud) as request:
        instance_id = cloud.run_instances(request)[0].instance_id
        mock.play({"pending_seconds": 0, "ending_seconds": 30})
        cloud.terminate_instance(instance_id)
        cloud.terminate_instance(instance_id)
        assert cloud.instance(instance_id).state == "shutting-down"
        with pytest.raises(StillInUse):
            cloud.delete_security_group(request.group_id)
        mock.play(QUICK)


def test_an_instance_that_ended_tells_why(cloud: AwsCloud):
    with ordered(cloud) as request:
        ended = terminate(cloud, cloud.run_instances(request)[0].instance_id)
        assert ended.state_reason is not None
        assert ended.state_reason.startswith("Client.UserInitiatedShutdown")
        with pytest.raises(AlreadyGone):
            cloud.terminate_instance(ended.instance_id)


@pytest.mark.parametrize(
    ("delete", "name"),
    [
        ("terminate_instance", NOBODY),
        ("delete_key_pair", "nobody's"),
        ("delete_security_group", "sg-0123456789abcdef0"),
        ("delete_placement_group", "nobody's"),
        ("delete_volume", "vol-0123456789abcdef0"),
    ],
)
def test_deleting_what_is_not_there_is_already_gone(cloud: AwsCloud, delete: str, name: str):
    with pytest.raises(AlreadyGone, match=name):
        getattr(cloud, delete)(name)


def test_an_unknown_instance_is_not_yet_visible(cloud: AwsCloud):
    with pytest.raises(NotYetVisible, match=NOBODY):
        cloud.instance(NOBODY)


def test_everything_of_a_run_is_found_by_its_tag_and_by_nothing_else(cloud: AwsCloud):
    with ordered(cloud) as request:
        (started,) = cloud.run_instances(request)
        found = cloud.tagged(request.client_token)
        by_kind = {one.kind: one.resource_id for one in found}
        assert set(by_kind) == set(Kind) - {Kind.PLACEMENT_GROUP}
        assert by_kind[Kind.INSTANCE] == started.instance_id
        assert by_kind[Kind.KEY_PAIR] == request.key_name
        assert by_kind[Kind.SECURITY_GROUP] == request.group_id
        assert {one.run_id for one in found} == {request.client_token}
        assert set(found) <= set(cloud.tagged())
        assert cloud.tagged("another-run") == ()


def test_other_regions_hold_other_things(mock: MockedCloud, cloud: AwsCloud):
    with ordered(cloud):
        assert aws(mock, "eu-west-1").tagged() == ()


def test_what_the_caller_may_do_is_asked_without_creating_anything(cloud: AwsCloud):
    with ordered(cloud) as request:
        network = cloud.default_network()
        assert network is not None
        before = cloud.tagged()
        assert set(cloud.rights(request, vpc_id=network.vpc_id).values()) == {""}
        elsewhere = cloud.rights(replace(request, volume_gib=8), vpc_id=network.vpc_id)
        assert [action for action, refusal in elsewhere.items() if refusal] == ["ec2:RunInstances"]
        several = cloud.rights(replace(request, count=2, placement_group="none yet"), vpc_id=network.vpc_id)
        assert set(several.values()) == {""}
        assert set(several) - set(elsewhere) == {"ec2:CreatePlacementGroup"}
        assert cloud.tagged() == before


def test_aws_tells_its_time(cloud: AwsCloud):
    told = cloud.server_time()
    assert told is not None
    assert abs((datetime.now(UTC) - told).total_seconds()) < 5
