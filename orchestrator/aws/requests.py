"""Pure builders: what we want, as the dictionaries that EC2 and the price list take."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.resources import MANAGED_BY, LaunchRequest, Market

_SSH_PORT = 22
_PRICED = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}


def filters(wanted: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """EC2's filters: any of the values, for every name."""
    return [{"Name": name, "Values": list(values)} for name, values in wanted.items()]


def ours(run_id: str | None) -> dict[str, Sequence[str]]:
    """What `filters` is to be given to find everything of ours, or of one run."""
    mine: dict[str, Sequence[str]] = {"tag:managed-by": (MANAGED_BY,)}
    return mine if run_id is None else mine | {"tag:run-id": (run_id,)}


def tagging(kinds: Sequence[str], tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """Tags for each of the resource types that a call creates."""
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": kind, "Tags": pairs} for kind in kinds]


def create_security_group(name: str, *, vpc_id: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """CreateSecurityGroup, of an empty group."""
    return {
        "GroupName": name,
        "Description": "launch-and-train: SSH from the caller's address to what one run rents",
        "VpcId": vpc_id,
        "TagSpecifications": tagging(("security-group",), tags),
    }


def allow_ssh(group_id: str, *, cidr: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """AuthorizeSecurityGroupIngress, of TCP port 22 for `cidr`."""
    return {
        "GroupId": group_id,
        "IpPermissions": [_ssh_from({"CidrIp": cidr, "Description": "the caller"})],
        "TagSpecifications": tagging(("security-group-rule",), tags),
    }


def revoke_ssh(group_id: str, *, cidr: str) -> dict[str, Any]:
    """RevokeSecurityGroupIngress, of TCP port 22 for `cidr`."""
    return {"GroupId": group_id, "IpPermissions": [_ssh_from({"CidrIp": cidr})]}


def allow_members(group_id: str, *, efa: bool, tags: Mapping[str, str]) -> dict[str, Any]:
    """AuthorizeSecurityGroupIngress, of whatever is in the group itself: all TCP, or, since an EFA speaks a protocol of
    its own, everything.
    """
    ports = {"IpProtocol": "-1"} if efa else {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535}
    rule = {**ports, "UserIdGroupPairs": [{"GroupId": group_id, "Description": "machines of the run"}]}
    return {
        "GroupId": group_id,
        "IpPermissions": [rule],
        "TagSpecifications": tagging(("security-group-rule",), tags),
    }


def create_placement_group(name: str, *, tags: Mapping[str, str]) -> dict[str, Any]:
    """CreatePlacementGroup, of machines close together in one zone."""
    return {
        "GroupName": name,
        "Strategy": "cluster",
        "TagSpecifications": tagging(("placement-group",), tags),
    }


def import_key_pair(name: str, *, public_openssh: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """ImportKeyPair."""
    return {
        "KeyName": name,
        "PublicKeyMaterial": public_openssh.encode("ascii"),
        "TagSpecifications": tagging(("key-pair",), tags),
    }


def run_instances(request: LaunchRequest) -> dict[str, Any]:
    """RunInstances, all or none, of instances that end themselves when they shut down."""
    return {
        "ClientToken": request.client_token,
        "MinCount": request.count,
        "MaxCount": request.count,
        "ImageId": request.image.image_id,
        "InstanceType": request.instance_type,
        "KeyName": request.key_name,
        "UserData": request.user_data,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpEndpoint": "enabled",
            "HttpPutResponseHopLimit": 1,
        },
        "BlockDeviceMappings": [_root_volume(request)],
        # The address is asked for here, whatever the subnet's own setting is.
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": request.subnet_id,
                "Groups": [request.group_id],
                "AssociatePublicIpAddress": True,
                "DeleteOnTermination": True,
                **({"InterfaceType": "efa"} if request.efa else {}),
            }
        ],
        **({"Placement": {"GroupName": request.placement_group}} if request.placement_group else {}),
        # Without this an open reservation of somebody else's may be used up.
        "CapacityReservationSpecification": {"CapacityReservationPreference": "none"},
        **({"IamInstanceProfile": {"Name": request.instance_profile}} if request.instance_profile else {}),
        **_market(request.market),
        "TagSpecifications": tagging(_tagged_kinds(request.market), request.tags),
    }


def price_filters(instance_types: Sequence[str], *, region: str) -> list[dict[str, str]]:
    """The price list's filters for the on-demand prices of types: Linux, shared tenancy."""
    exact = {"regionCode": region, **_PRICED}
    types = {"Type": "ANY_OF", "Field": "instanceType", "Value": ",".join(instance_types)}
    return [types, *({"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in exact.items())]


def _ssh_from(address: Mapping[str, str]) -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": _SSH_PORT, "ToPort": _SSH_PORT, "IpRanges": [dict(address)]}


def _root_volume(request: LaunchRequest) -> dict[str, Any]:
    return {
        # Another name than the image's would attach a second volume and leave the root as small as it was.
        "DeviceName": request.image.root_device_name,
        "Ebs": {
            "VolumeSize": request.volume_gib,
            "VolumeType": "gp3",
            "Encrypted": True,
            "DeleteOnTermination": True,
        },
    }


def _market(market: Market) -> dict[str, Any]:
    if market is Market.ON_DEMAND:
        return {}
    spot = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    return {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": spot}}


def _tagged_kinds(market: Market) -> tuple[str, ...]:
    kinds = ("instance", "volume", "network-interface")
    return kinds if market is Market.ON_DEMAND else (*kinds, "spot-instances-request")
