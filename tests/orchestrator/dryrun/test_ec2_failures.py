"""EC2 as it fails when it is told to: quotas, capacity, lost answers, late and short lives."""

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from ec2_calls import code_of, instance_count

from orchestrator.dryrun.cloud import MockedCloud


def test_a_quota_refuses_what_exceeds_it_and_is_free_again_afterwards(aws: Any, play: Any):
    play(quota={"L-DB2E81BA": 7})
    first = aws.run(InstanceType="g6.xlarge")
    assert code_of(lambda: aws.run(InstanceType="g5.xlarge")) == "VcpuLimitExceeded"
    aws.run(InstanceType="t3.micro")
    aws.terminate(first)
    assert aws.run(InstanceType="g5.xlarge")


def test_a_spot_quota_refuses_spot_only(aws: Any, play: Any):
    play(quota={"L-3819A6DF": 0})
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}}
    assert code_of(lambda: aws.run(**spot)) == "MaxSpotInstanceCountExceeded"
    assert aws.run()


@pytest.mark.parametrize("where", ["us-east-1a", "m5.large@us-east-1a"])
def test_a_zone_without_capacity_refuses_and_the_next_one_does_not(aws: Any, play: Any, where: str):
    play(capacity={where: "none"})
    empty, other = aws.subnet("us-east-1a"), aws.subnet("us-east-1b")
    with pytest.raises(ClientError) as caught:
        aws.run(InstanceType="m5.large", SubnetId=empty)
    assert caught.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert aws.run(InstanceType="m5.large", SubnetId=other)


def test_a_failure_is_played_from_its_nth_call_as_often_as_told(aws: Any, cloud: MockedCloud, play: Any):
    play(fail=[{"action": "DescribeVpcs", "nth": 2, "times": 2, "code": "RequestLimitExceeded"}])
    aws.ec2.describe_vpcs()
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            aws.ec2.describe_vpcs()
        assert caught.value.response["Error"]["Code"] == "RequestLimitExceeded"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    aws.ec2.describe_vpcs()
    assert cloud.calls()["DescribeVpcs"] == 4


@pytest.mark.parametrize(
    ("action", "client", "method", "given"),
    [
        ("GetCallerIdentity", "sts", "get_caller_identity", {}),
        ("GetParameter", "ssm", "get_parameter", {"Name": "/aws/service/x"}),
        ("GetProducts", "pricing", "get_products", {"ServiceCode": "AmazonEC2"}),
        ("ListServiceQuotas", "quotas", "list_service_quotas", {"ServiceCode": "ec2"}),
    ],
)
def test_a_failure_can_be_played_in_every_service(
    aws: Any, play: Any, action: str, client: str, method: str, given: dict[str, str]
):
    play(fail=[{"action": action, "code": "ExpiredTokenException", "message": "log in again"}])
    with pytest.raises(ClientError, match="log in again") as caught:
        getattr(getattr(aws, client), method)(**given)
    assert caught.value.response["Error"]["Code"] == "ExpiredTokenException"


@pytest.mark.parametrize("hang_up", [False, True])
def test_an_instance_whose_answer_was_lost_is_found_again_by_its_token(
    aws: Any, cloud: MockedCloud, play: Any, hang_up: bool
):
    before = instance_count(cloud)
    token = f"lost {hang_up}"
    play(fail=[{"action": "RunInstances", "after": True, "hang_up": hang_up}])
    with pytest.raises((ClientError, ConnectionClosedError)):
        aws.run(ClientToken=token)
    assert instance_count(cloud) == before + 1
    assert aws.run(ClientToken=token)
    assert instance_count(cloud) == before + 1


def test_a_new_instance_can_be_invisible_at_first(aws: Any, play: Any):
    play(invisible_seconds=0.5)
    instance_id = aws.run()
    by_tag = [{"Name": "image-id", "Values": [aws.image()]}]

    def listed() -> list[str]:
        answer = aws.ec2.describe_instances(Filters=by_tag)
        return [i["InstanceId"] for r in answer["Reservations"] for i in r["Instances"]]

    assert code_of(lambda: aws.state(instance_id)) == "InvalidInstanceID.NotFound"
    assert instance_id not in listed()
    time.sleep(0.5)
    assert aws.state(instance_id)
    assert instance_id in listed()


def test_an_instance_can_die_before_it_runs_and_says_why(aws: Any, play: Any):
    play(dies="Server.InsufficientInstanceCapacity")
    instance_id = aws.run()
    aws.reaches(instance_id, "terminated")
    assert aws.instance(instance_id)["StateReason"]["Code"] == "Server.InsufficientInstanceCapacity"
