"""The network: default VPC and subnets, security groups and placement groups, the caller's address."""

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from orchestrator.aws.errors import translated
from orchestrator.aws.requests import (
    allow_members,
    allow_ssh,
    create_placement_group,
    create_security_group,
    filters,
    revoke_ssh,
)
from orchestrator.errors import AlreadyExists, AlreadyGone, CloudRefused, NotYetVisible
from orchestrator.resources import Network, Subnet


def default_network(ec2: Any) -> Network | None:
    """The default VPC with its default subnets, or `None` if the account has none in the region. Default subnets lie
    in default VPCs only, so that one question is enough.
    """
    with translated("looking up the default subnets"):
        told = ec2.describe_subnets(Filters=filters({"default-for-az": ("true",)}))["Subnets"]
    return Network(told[0]["VpcId"], tuple(_subnet(entry) for entry in told)) if told else None


def regions(ec2: Any) -> tuple[str, ...]:
    """Regions enabled for the account."""
    with translated("listing the regions"):
        return tuple(sorted(entry["RegionName"] for entry in ec2.describe_regions()["Regions"]))


def caller_address(answer: str) -> str:
    """The public IPv4 address that an echo service answered."""
    try:
        address = ipaddress.IPv4Address(answer)
    except ValueError:
        address = None
    if address is None or not address.is_global:
        raise CloudRefused(
            f"asking for your public address: {answer[:50]!r} is no public IPv4 address; "
            "set ingress_cidr in the run spec"
        )
    return str(address)


def create_group(creator: Any, name: str, *, vpc_id: str, tags: Mapping[str, str]) -> str:
    """Create an empty group; returns its id. `AlreadyExists` if the name is taken."""
    with translated(f"creating the security group {name}"):
        told = creator.create_security_group(**create_security_group(name, vpc_id=vpc_id, tags=tags))
    return told["GroupId"]


def admit(ec2: Any, group_id: str, *, cidr: str, tags: Mapping[str, str]) -> None:
    """Admit `cidr` on TCP port 22; already so is fine. `NotYetVisible` if the group is not seen yet."""
    opening = translated(f"opening port 22 of {group_id} to {cidr}", missing=NotYetVisible)
    with suppress(AlreadyExists), opening:
        ec2.authorize_security_group_ingress(**allow_ssh(group_id, cidr=cidr, tags=tags))


def turn_away(ec2: Any, group_id: str, *, cidr: str) -> None:
    """Admit `cidr` on TCP port 22 no longer; already so is fine."""
    with suppress(AlreadyGone), translated(f"closing port 22 of {group_id} to {cidr}"):
        ec2.revoke_security_group_ingress(**revoke_ssh(group_id, cidr=cidr))


def admit_members(ec2: Any, group_id: str, *, efa: bool, tags: Mapping[str, str]) -> None:
    """Let members of a group reach each other; already so is fine. `NotYetVisible` if the group is not seen yet."""
    rule = allow_members(group_id, efa=efa, tags=tags)
    doing = f"opening {group_id} to its own members"
    with suppress(AlreadyExists), translated(doing, missing=NotYetVisible):
        ec2.authorize_security_group_ingress(**rule)
    if efa:
        # What every group lets out to any address does not hold for an EFA:
        # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-start.html
        with suppress(AlreadyExists), translated(doing, missing=NotYetVisible):
            ec2.authorize_security_group_egress(**rule)


def create_cluster(creator: Any, name: str, *, tags: Mapping[str, str]) -> None:
    """Create a cluster placement group. `AlreadyExists` if the name is taken."""
    with translated(f"creating the placement group {name}"):
        creator.create_placement_group(**create_placement_group(name, tags=tags))


def delete_cluster(ec2: Any, name: str) -> None:
    """Delete by name. `StillInUse` while an instance is in it."""
    with translated(f"deleting the placement group {name}"):
        ec2.delete_placement_group(GroupName=name)


def delete_group(ec2: Any, group_id: str) -> None:
    """Delete by id. `StillInUse` while an interface is in it."""
    with translated(f"deleting {group_id}"):
        ec2.delete_security_group(GroupId=group_id)


def _subnet(told: Mapping[str, Any]) -> Subnet:
    return Subnet(
        subnet_id=told["SubnetId"],
        zone=told["AvailabilityZone"],
        zone_id=told.get("AvailabilityZoneId", ""),
        free_addresses=told["AvailableIpAddressCount"],
        public=told["MapPublicIpOnLaunch"],
    )
