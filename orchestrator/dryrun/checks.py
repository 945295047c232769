"""What RunInstances refuses on real AWS and moto lets pass: combinations of image, type, zone and volume,
user data that is too long, missing capacity and spent quota.
"""

from collections.abc import Mapping
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

from orchestrator.dryrun.catalog import ROOT_DEVICE, ShelfImage, quota_of, shelf_image
from orchestrator.dryrun.estate import Estate, Wanted
from orchestrator.dryrun.first_boot import decode_user_data
from orchestrator.dryrun.wire import Call, Refusal

_USER_DATA_LIMIT = 16 * 1024


def check_launch(call: Call, estate: Estate) -> Wanted:
    """What the call wants. Raises `Refusal` where AWS would refuse it."""
    wanted = _wanted(call, estate)
    _check_user_data(wanted)
    _check_network(call)
    _check_tags(call, wanted)
    facts = INSTANCE_TYPES.get(wanted.instance_type)
    image = shelf_image(call.form.get("ImageId", ""), call.region)
    if facts is not None and image is not None:
        _check_image(image, facts, call)
        _check_volumes(image, call)
        _check_zone(call, wanted)
    if wanted.placement_group is not None:
        estate.placements.check(wanted.placement_group, call.region)
    if not call.dry_run:
        _check_quota(wanted, estate, call.region)
        _check_capacity(wanted, estate)
    return wanted


def zones_of(instance_type: str, region: str) -> tuple[str, ...]:
    """Zones of a region that offer a type."""
    offerings = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, ())
    return tuple(sorted({o["Location"] for o in offerings if o["InstanceType"] == instance_type}))


def _wanted(call: Call, estate: Estate) -> Wanted:
    instance_type = call.form.get("InstanceType", "m1.small")
    spot = call.form.get("InstanceMarketOptions.MarketType") == "spot"
    facts = INSTANCE_TYPES.get(instance_type, {})
    try:
        user_data = decode_user_data(call.form.get("UserData", ""))
    except ValueError as error:
        raise Refusal("InvalidUserData.Malformed", f"Invalid BASE64 encoding of user data: {error}") from error
    return Wanted(
        instance_type=instance_type,
        zone=_zone(call, estate),
        spot=spot,
        user_data=user_data,
        quota=quota_of(instance_type, spot=spot),
        vcpus=int(facts.get("VCpuInfo", {}).get("DefaultVCpus", 0)),
        count=int(call.form.get("MinCount", "1")),
        placement_group=call.form.get("Placement.GroupName"),
    )


def _zone(call: Call, estate: Estate) -> str | None:
    subnet_id = call.form.get("SubnetId") or call.form.get("NetworkInterface.1.SubnetId")
    if subnet_id is None:
        return call.form.get("Placement.AvailabilityZone")
    subnets = estate.backend(call.region).describe_subnets()
    return next((subnet.availability_zone for subnet in subnets if subnet.id == subnet_id), None)


def _check_user_data(wanted: Wanted) -> None:
    if len(wanted.user_data) > _USER_DATA_LIMIT:
        raise Refusal("InvalidParameterValue", f"User data is limited to {_USER_DATA_LIMIT} bytes")


def _check_network(call: Call) -> None:
    top_level = "SubnetId" in call.form or call.values("SecurityGroupId") or call.values("SecurityGroup")
    if top_level and call.groups("NetworkInterface"):
        raise Refusal(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level subnet ID or security groups may not be specified"
            " on the same request",
        )


def _check_tags(call: Call, wanted: Wanted) -> None:
    kinds = {group.get("ResourceType") for group in call.groups("TagSpecification")}
    if "spot-instances-request" in kinds and not wanted.spot:
        raise Refusal("InvalidParameterValue", "'spot-instances-request' is not a valid taggable resource here")


def _check_image(image: ShelfImage, facts: Mapping[str, Any], call: Call) -> None:
    architectures = facts["ProcessorInfo"]["SupportedArchitectures"]
    if image.architecture not in architectures:
        raise Refusal(
            "InvalidParameterValue",
            f"The architecture '{','.join(architectures)}' of the specified instance type does not match the"
            f" architecture '{image.architecture}' of the specified AMI.",
        )
    if facts["NetworkInfo"].get("EnaSupport") == "required" and not image.ena_support:
        raise Refusal(
            "InvalidParameterCombination",
            "Enhanced networking with the Elastic Network Adapter (ENA) is required for the"
            f" '{call.form['InstanceType']}' instance type. Ensure that you are using an AMI that is enabled"
            " for ENA.",
        )
    if image.product_code:
        raise Refusal(
            "OptInRequired",
            "In order to use this AWS Marketplace product you need to accept terms and subscribe."
            f" Product code: {image.product_code}",
        )


def _check_volumes(image: ShelfImage, call: Call) -> None:
    for mapping in call.groups("BlockDeviceMapping"):
        size = mapping.get("Ebs.VolumeSize")
        if mapping.get("DeviceName") == ROOT_DEVICE and size is not None and int(size) < image.root_gib:
            raise Refusal(
                "InvalidBlockDeviceMapping",
                f"Volume of size {size}GB is smaller than snapshot of '{image.key}', expect size >= {image.root_gib}GB",
            )


def _check_zone(call: Call, wanted: Wanted) -> None:
    zones = zones_of(wanted.instance_type, call.region)
    if wanted.zone is not None and zones and wanted.zone not in zones:
        raise Refusal(
            "Unsupported",
            f"Your requested instance type ({wanted.instance_type}) is not supported in your requested"
            f" Availability Zone ({wanted.zone}). Please retry your request by not specifying an Availability"
            f" Zone or choosing {', '.join(zones)}.",
        )


def _check_quota(wanted: Wanted, estate: Estate, region: str) -> None:
    if wanted.quota is None:
        return
    limit = estate.scenario.quota.get(wanted.quota.code, wanted.quota.limit_vcpus)
    if estate.vcpus_in_use(wanted.quota, region) + wanted.vcpus * wanted.count > limit:
        code = "MaxSpotInstanceCountExceeded" if wanted.spot else "VcpuLimitExceeded"
        raise Refusal(
            code,
            f"You have requested more vCPU capacity than your current vCPU limit of {limit:g} allows for the"
            f" instance bucket that the specified instance type belongs to ({wanted.quota.code}).",
        )


def _check_capacity(wanted: Wanted, estate: Estate) -> None:
    keys = (f"{wanted.instance_type}@{wanted.zone}", wanted.zone or "")
    found = next((estate.scenario.capacity[key] for key in keys if key in estate.scenario.capacity), "plenty")
    most = found if isinstance(found, int) else {"none": 0, "plenty": wanted.count}[found]
    if wanted.count > most:
        raise Refusal(
            "InsufficientInstanceCapacity",
            f"We currently do not have sufficient {wanted.instance_type} capacity in the Availability Zone"
            f" you requested ({wanted.zone}).",
        )
