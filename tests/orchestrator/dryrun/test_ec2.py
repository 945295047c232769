"""EC2 as the mock plays it: what moto lacks, asked by a real client."""

import urllib.request
from typing import Any

import pytest
from ec2_calls import code_of, instance_count

from orchestrator.dryrun.cloud import MockedCloud


@pytest.mark.parametrize(
    ("parameter", "architecture"),
    [
        ("deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id", "x86_64"),
        ("deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id", "x86_64"),
        ("deeplearning/ami/arm64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id", "arm64"),
        ("canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id", "x86_64"),
    ],
)
def test_public_parameters_name_images_that_can_be_launched(aws: Any, parameter: str, architecture: str):
    image_id = aws.image(f"/aws/service/{parameter}")
    (image,) = aws.ec2.describe_images(ImageIds=[image_id])["Images"]
    assert (image["Architecture"], image["State"], image["EnaSupport"]) == (architecture, "available", True)
    (root,) = image["BlockDeviceMappings"]
    assert root["DeviceName"] == image["RootDeviceName"]
    assert root["Ebs"]["VolumeSize"] == (75 if "deeplearning" in parameter else 8)


def test_a_parameter_that_is_not_on_the_shelf_is_not_found(aws: Any):
    wanted = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-ubuntu-22.04/latest/ami-id"
    assert code_of(lambda: aws.image(wanted)) == "ParameterNotFound"


def test_the_newest_image_is_found_by_name_and_owner(aws: Any):
    pattern = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) ????????"
    answer = aws.ec2.describe_images(Owners=["amazon"], Filters=[{"Name": "name", "Values": [pattern]}])
    assert [image["ImageId"] for image in answer["Images"]] == [aws.image()]


def test_an_old_image_says_that_it_is_deprecated_and_lacks_drivers(aws: Any):
    old = aws.image_named("*trusty*")
    (image,) = aws.ec2.describe_images(ImageIds=[old])["Images"]
    assert not image.get("EnaSupport", False)
    assert image["DeprecationTime"].startswith("2018-")


def test_the_image_of_the_old_days_is_unknown(aws: Any):
    assert code_of(lambda: aws.ec2.describe_images(ImageIds=["ami-d6f2e6bc"])) == "InvalidAMIID.NotFound"


def root_of(size: int) -> dict[str, Any]:
    return {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": size}}]}


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        ("InvalidAMIID.NotFound", {"ImageId": "ami-0123456789abcdef0"}),
        ("InvalidInstanceType.NotFound", {"InstanceType": "g99.xlarge"}),
        ("InvalidKeyPair.NotFound", {"KeyName": "nobody's"}),
        ("InvalidBlockDeviceMapping", root_of(74)),
        ("InvalidParameterValue", {"UserData": "x" * (16 * 1024 + 1)}),
        ("InvalidParameterCombination", {"SubnetId": "zone a", "NetworkInterfaces": [{"DeviceIndex": 0}]}),
        ("Unsupported", {"SubnetId": "zone without g6"}),
        (
            "InvalidParameterValue",
            {"TagSpecifications": [{"ResourceType": "spot-instances-request", "Tags": []}]},
        ),
    ],
)
def test_a_launch_that_aws_would_refuse_is_refused(aws: Any, cloud: MockedCloud, code: str, asked: dict[str, Any]):
    given = dict(asked)
    if "SubnetId" in given:
        offered = aws.ec2.describe_instance_type_offerings(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["g6.xlarge"]}]
        )
        zones = {offer["Location"] for offer in offered["InstanceTypeOfferings"]}
        every = {zone["ZoneName"] for zone in aws.ec2.describe_availability_zones()["AvailabilityZones"]}
        given["SubnetId"] = aws.subnet(sorted(every - zones if "without" in given["SubnetId"] else zones)[0])
    before = instance_count(cloud)
    assert code_of(lambda: aws.run(**given)) == code
    assert instance_count(cloud) == before


@pytest.mark.parametrize(
    ("code", "image"),
    [
        ("InvalidParameterCombination", "*trusty*"),
        ("InvalidParameterValue", "*ARM64*"),
        ("OptInRequired", "vendor-*"),
    ],
)
def test_an_image_that_does_not_fit_the_type_is_refused_even_in_a_dry_run(aws: Any, code: str, image: str):
    image_id = aws.image_named(image)
    assert code_of(lambda: aws.run(ImageId=image_id)) == code
    assert code_of(lambda: aws.run(ImageId=image_id, DryRun=True)) == code


def test_user_data_of_exactly_the_limit_and_a_volume_of_exactly_the_snapshot_pass(aws: Any):
    instance_id = aws.run(UserData="x" * (16 * 1024), **root_of(75))
    assert root_volumes(aws, instance_id) == [75]


def test_without_a_mapping_the_root_volume_is_as_large_as_its_image(aws: Any):
    assert root_volumes(aws, aws.run()) == [75]


def root_volumes(aws: Any, instance_id: str) -> list[int]:
    filters = [{"Name": "attachment.instance-id", "Values": [instance_id]}]
    return [volume["Size"] for volume in aws.ec2.describe_volumes(Filters=filters)["Volumes"]]


@pytest.mark.parametrize("kept", [False, True])
def test_volume_and_interface_go_with_their_instance_unless_it_is_asked_to_leave_them(
    aws: Any, cloud: MockedCloud, kept: bool
):
    interface: dict[str, Any] = {"DeviceIndex": 0, "SubnetId": aws.subnet("us-east-1a")}
    asked: dict[str, Any] = {"InstanceType": "m5.large", "NetworkInterfaces": [interface]}
    if kept:
        interface["DeleteOnTermination"] = False
        asked["BlockDeviceMappings"] = [
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 80, "DeleteOnTermination": False}}
        ]
    before = {thing["id"] for thing in cloud.state()}
    aws.terminate(aws.run(**asked))
    left = [thing["kind"] for thing in cloud.state() if thing["id"] not in before]
    assert left[1:] == (["volume", "network interface"] if kept else [])


def test_a_dry_run_of_the_launch_creates_nothing(aws: Any, cloud: MockedCloud):
    before = cloud.state()
    assert code_of(lambda: aws.run(DryRun=True, ClientToken="dry")) == "DryRunOperation"
    assert cloud.state() == before
    assert aws.run(ClientToken="dry").startswith("i-")


def test_the_same_token_gives_the_same_instance(aws: Any, cloud: MockedCloud):
    before = instance_count(cloud)
    first = aws.run(ClientToken="once")
    assert aws.run(ClientToken="once") == first
    assert instance_count(cloud) == before + 1


def test_a_token_with_other_parameters_is_refused(aws: Any):
    aws.run(ClientToken="mine")
    assert code_of(lambda: aws.run(ClientToken="mine", InstanceType="g5.xlarge")) == ("IdempotentParameterMismatch")


def test_the_token_of_a_terminated_instance_is_spent(aws: Any):
    aws.terminate(aws.run(ClientToken="spent"))
    assert code_of(lambda: aws.run(ClientToken="spent")) == "IdempotentInstanceTerminated"


def test_instances_are_found_by_their_token(aws: Any):
    wanted = aws.run(ClientToken="look for me")
    aws.run(ClientToken="not me")

    def found(token: str) -> list[str]:
        answer = aws.ec2.describe_instances(Filters=[{"Name": "client-token", "Values": [token]}])
        return [i["InstanceId"] for r in answer["Reservations"] for i in r["Instances"]]

    assert found("look for me") == [wanted]
    assert found("never used") == []


def test_an_instance_is_pending_before_it_runs_and_has_no_address_until_then(aws: Any, play: Any):
    play(pending_seconds=0.6)
    answer = aws.ec2.run_instances(ImageId=aws.image(), InstanceType="g6.xlarge", MinCount=1, MaxCount=1)
    (told,) = answer["Instances"]
    assert told["State"]["Name"] == "pending"
    assert "PublicIpAddress" not in told
    seen = aws.instance(told["InstanceId"])
    assert seen["State"]["Name"] == "pending"
    assert "PublicIpAddress" not in seen
    aws.reaches(told["InstanceId"], "running")
    assert aws.address(told["InstanceId"]).count(".") == 3


def test_an_instance_shuts_down_before_it_is_terminated_and_says_why(aws: Any, play: Any):
    instance_id = aws.run()
    play(ending_seconds=0.5)
    (change,) = aws.ec2.terminate_instances(InstanceIds=[instance_id])["TerminatingInstances"]
    assert change["CurrentState"]["Name"] == "shutting-down"
    assert aws.state(instance_id) == "shutting-down"
    aws.reaches(instance_id, "terminated")
    assert aws.instance(instance_id)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_terminating_again_is_harmless(aws: Any):
    instance_id = aws.run()
    aws.terminate(instance_id)
    aws.terminate(instance_id)
    assert code_of(lambda: aws.terminate("i-0123456789abcdef0")) == "InvalidInstanceID.NotFound"


def test_a_group_is_in_use_until_its_instance_is_terminated(aws: Any, play: Any):
    play(ending_seconds=0.4)
    group_id = aws.ec2.create_security_group(GroupName="held", Description="held")["GroupId"]
    interface = {"DeviceIndex": 0, "SubnetId": aws.subnet("us-east-1a"), "Groups": [group_id]}
    instance_id = aws.run(NetworkInterfaces=[interface], InstanceType="m5.large")

    def delete() -> object:
        return aws.ec2.delete_security_group(GroupId=group_id)

    assert code_of(delete) == "DependencyViolation"
    aws.ec2.terminate_instances(InstanceIds=[instance_id])
    assert code_of(delete) == "DependencyViolation"
    aws.reaches(instance_id, "terminated")
    delete()
    assert code_of(delete) == "InvalidGroup.NotFound"


@pytest.mark.parametrize("by", ["KeyName", "KeyPairId"])
def test_a_key_pair_is_deleted_by_name_and_by_id(aws: Any, by: str):
    made = aws.ec2.create_key_pair(KeyName="short-lived", KeyType="ed25519")
    aws.ec2.delete_key_pair(**{by: made[by]})
    assert code_of(lambda: aws.ec2.describe_key_pairs(KeyNames=["short-lived"])) == "InvalidKeyPair.NotFound"


def test_the_console_shows_the_host_key_of_the_user_data(aws: Any):
    instance_id = aws.run_machine()
    text = aws.ec2.get_console_output(InstanceId=instance_id, Latest=True)["Output"]
    lines = text.replace("\r", "").split("\n")
    begin = lines.index("-----BEGIN SSH HOST KEY KEYS-----")
    assert lines[begin + 1 : lines.index("-----END SSH HOST KEY KEYS-----")] == [aws.host_key.public]


def test_the_console_is_empty_while_the_instance_is_pending(aws: Any, play: Any):
    play(pending_seconds=5)
    assert aws.ec2.get_console_output(InstanceId=aws.run()).get("Output", "") == ""


def test_interfaces_and_volumes_carry_the_tags_of_the_launch(aws: Any):
    tags = [{"Key": "run-id", "Value": "tagged-run"}]
    kinds = ("instance", "volume", "network-interface")
    aws.run(TagSpecifications=[{"ResourceType": kind, "Tags": tags} for kind in kinds])
    filters = [{"Name": "tag:run-id", "Values": ["tagged-run"]}]
    assert len(aws.ec2.describe_volumes(Filters=filters)["Volumes"]) == 1
    assert len(aws.ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]) == 1
    assert len(aws.ec2.describe_instances(Filters=filters)["Reservations"]) == 1


def test_spot_prices_are_by_zone_and_below_on_demand(aws: Any):
    answer = aws.ec2.describe_spot_price_history(
        InstanceTypes=["g6.xlarge"], ProductDescriptions=["Linux/UNIX"], StartTime="2026-11-24T00:00:00Z"
    )
    prices = {found["AvailabilityZone"]: float(found["SpotPrice"]) for found in answer["SpotPriceHistory"]}
    assert len(set(prices.values())) > 1
    assert all(0 < price < 0.8048 for price in prices.values())


def test_what_is_not_played_says_so(aws: Any):
    def ask() -> object:
        return aws.ec2.get_spot_placement_scores(TargetCapacity=1, InstanceTypes=["g6.xlarge"])

    assert code_of(ask) == "NotMocked"


def test_the_inventory_names_what_a_run_left_and_nothing_else(aws: Any, cloud: MockedCloud):
    tagged = [{"Key": "run-id", "Value": "run-7"}]

    def tags(*kinds: str) -> list[Any]:
        return [{"ResourceType": kind, "Tags": tagged} for kind in kinds]

    group_id = aws.ec2.create_security_group(
        GroupName="ours", Description="ours", TagSpecifications=tags("security-group")
    )["GroupId"]
    aws.ec2.create_key_pair(KeyName="our key", KeyType="ed25519", TagSpecifications=tags("key-pair"))
    interface = {"DeviceIndex": 0, "SubnetId": aws.subnet("us-east-1a"), "Groups": [group_id]}
    instance_id = aws.run(
        NetworkInterfaces=[interface],
        InstanceType="m5.large",
        TagSpecifications=tags("instance", "volume", "network-interface"),
    )

    def found() -> list[Any]:
        return [thing for thing in cloud.state() if thing["run_id"] == "run-7"]

    by_kind = {thing["kind"]: thing for thing in found()}
    assert len(by_kind) == len(found()) == 5
    assert by_kind["key pair"]["id"] == "our key"
    assert by_kind["security group"]["id"] == group_id
    assert (by_kind["instance"]["id"], by_kind["instance"]["region"]) == (instance_id, "us-east-1")
    aws.terminate(instance_id)
    aws.ec2.delete_key_pair(KeyName="our key")
    aws.ec2.delete_security_group(GroupId=group_id)
    (left,) = found()
    assert (left["kind"], left["id"], left["state"]) == ("instance", instance_id, "terminated")


def test_regions_do_not_see_each_other(aws: Any, cloud: MockedCloud):
    aws.run()
    assert {thing["region"] for thing in cloud.state()} == {"us-east-1"}


def test_a_stopped_instance_has_no_address(aws: Any):
    instance_id = aws.run_machine()
    aws.ec2.stop_instances(InstanceIds=[instance_id])
    aws.reaches(instance_id, "stopped")
    assert "PublicIpAddress" not in aws.instance(instance_id)


def test_the_caller_is_known_and_so_is_the_address_it_calls_from(aws: Any):
    assert aws.sts.get_caller_identity()["Account"] == "123456789012"
    with urllib.request.urlopen(f"{aws.endpoint}/checkip") as answer:
        assert answer.read() == b"192.31.196.7\n"


def test_an_unsigned_request_is_refused(aws: Any):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{aws.endpoint}/", data=b"Action=DescribeVpcs")
    with caught.value as refused:
        assert refused.code == 400
