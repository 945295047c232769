"""What of ours exists: one Describe a kind, by tag. Nothing without our tag is ever listed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.aws.errors import translated
from orchestrator.aws.requests import filters, ours
from orchestrator.resources import Kind, Tagged

_EXISTING = ("pending", "running", "shutting-down", "stopping", "stopped")


@dataclass(frozen=True, slots=True)
class _Shelf:
    """Where a kind is described, and under which keys it tells its id, name and state."""

    kind: Kind
    operation: str
    key: str
    id_key: str
    name_key: str = ""
    state_key: str = ""


_SHELVES = (
    _Shelf(Kind.INSTANCE, "describe_instances", "Reservations", "InstanceId"),
    _Shelf(Kind.KEY_PAIR, "describe_key_pairs", "KeyPairs", "KeyName", name_key="KeyName"),
    _Shelf(Kind.VOLUME, "describe_volumes", "Volumes", "VolumeId", state_key="State"),
    _Shelf(
        Kind.NETWORK_INTERFACE,
        "describe_network_interfaces",
        "NetworkInterfaces",
        "NetworkInterfaceId",
        state_key="Status",
    ),
    _Shelf(
        Kind.PLACEMENT_GROUP,
        "describe_placement_groups",
        "PlacementGroups",
        "GroupName",
        name_key="GroupName",
        state_key="State",
    ),
    _Shelf(Kind.SECURITY_GROUP, "describe_security_groups", "SecurityGroups", "GroupId", name_key="GroupName"),
)


def tagged(ec2: Any, region: str, run_id: str | None, *, kinds: Sequence[Kind]) -> tuple[Tagged, ...]:
    """Everything of ours, or of one run, that still exists in the region. The id of a key pair or placement
    group is its name, by which it is deleted.
    """
    shelves = (shelf for shelf in _SHELVES if shelf.kind in kinds)
    return tuple(_tagged(entry, shelf, region) for shelf in shelves for entry in _told(ec2, shelf, run_id))


def _told(ec2: Any, shelf: _Shelf, run_id: str | None) -> list[Mapping[str, Any]]:
    wanted: dict[str, Sequence[str]] = ours(run_id)
    if shelf.kind is Kind.INSTANCE:
        wanted["instance-state-name"] = _EXISTING
    with translated(f"listing each {shelf.kind} of ours"):
        if not ec2.can_paginate(shelf.operation):
            return getattr(ec2, shelf.operation)(Filters=filters(wanted))[shelf.key]
        pages = ec2.get_paginator(shelf.operation).paginate(Filters=filters(wanted))
        found = [entry for page in pages for entry in page[shelf.key]]
    if shelf.kind is Kind.INSTANCE:
        return [entry for reservation in found for entry in reservation["Instances"]]
    return found


def _tagged(told: Mapping[str, Any], shelf: _Shelf, region: str) -> Tagged:
    # Network interfaces keep their tags under another key than everything else.
    pairs = told.get("Tags") or told.get("TagSet") or ()
    tags = {pair["Key"]: pair["Value"] for pair in pairs}
    state = told["State"]["Name"] if shelf.kind is Kind.INSTANCE else told.get(shelf.state_key, "")
    return Tagged(
        kind=shelf.kind,
        resource_id=told[shelf.id_key],
        name=told.get(shelf.name_key) or tags.get("Name", ""),
        run_id=tags.get("run-id", ""),
        state=state,
        region=region,
        expires_at=_moment(tags.get("expires-at", "")),
    )


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
