"""Placement groups, which moto does not play: made, described and deleted by name, and in use for as long as an
instance in them is not terminated.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape

from orchestrator.dryrun.wire import Answer, Call, Refusal, xml_answer


@dataclass(frozen=True, slots=True)
class PlacementGroup:
    """One group of a region."""

    region: str
    name: str
    tags: Mapping[str, str]

    @property
    def group_id(self) -> str:
        """`pg-…`."""
        return f"pg-{hashlib.sha256(f'{self.region} {self.name}'.encode()).hexdigest()[:17]}"


class Placements:
    """Every placement group that exists."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], PlacementGroup] = {}

    def of(self, region: str) -> tuple[PlacementGroup, ...]:
        """Those of a region."""
        return tuple(group for group in self._groups.values() if group.region == region)

    def create(self, call: Call) -> Answer:
        """CreatePlacementGroup."""
        name = call.form.get("GroupName", "")
        if (call.region, name) in self._groups:
            raise Refusal("InvalidPlacementGroup.Duplicate", f"The placement group '{name}' already exists.")
        if call.form.get("Strategy") not in {"cluster", "spread", "partition"}:
            raise Refusal("MissingParameter", "The request must contain the parameter strategy")
        specifications = (found for found in call.groups("TagSpecification"))
        tags = [tags_of(found) for found in specifications if found.get("ResourceType") == "placement-group"]
        if call.dry_run:
            raise Refusal("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", status=412)
        group = PlacementGroup(call.region, name, dict(pair for found in tags for pair in found.items()))
        self._groups[call.region, name] = group
        return xml_answer(call.action, f"<return>true</return><placementGroup>{_shown(group)}</placementGroup>")

    def describe(self, call: Call) -> Answer:
        """DescribePlacementGroups, by names and by tags."""
        names = call.values("GroupName")
        found = [group for group in self.of(call.region) if not names or group.name in names]
        for given in call.groups("Filter"):
            wanted = {value for key, value in given.items() if key.startswith("Value.")}
            key = given.get("Name", "").removeprefix("tag:")
            found = [group for group in found if group.tags.get(key) in wanted]
        items = "".join(f"<item>{_shown(group)}</item>" for group in found)
        return xml_answer(call.action, f"<placementGroupSet>{items}</placementGroupSet>")

    def delete(self, call: Call, *, in_use: bool) -> Answer:
        """DeletePlacementGroup."""
        name = call.form.get("GroupName", "")
        self.check(name, call.region)
        if in_use:
            raise Refusal("InvalidPlacementGroup.InUse", f"The placement group '{name}' is in use.")
        del self._groups[call.region, name]
        return xml_answer(call.action, "<return>true</return>")

    def check(self, name: str, region: str) -> None:
        """Refuse a name that no group has."""
        if (region, name) not in self._groups:
            raise Refusal("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")


def tags_of(specification: Mapping[str, str]) -> dict[str, str]:
    """The tags of one TagSpecification."""
    keys = (key for key in specification if key.startswith("Tag.") and key.endswith(".Key"))
    return {specification[key]: specification.get(key[:-3] + "Value", "") for key in keys}


def _shown(group: PlacementGroup) -> str:
    tags = "".join(
        f"<item><key>{escape(key)}</key><value>{escape(value)}</value></item>" for key, value in group.tags.items()
    )
    return (
        f"<groupName>{escape(group.name)}</groupName><groupId>{group.group_id}</groupId>"
        f"<strategy>cluster</strategy><state>available</state><tagSet>{tags}</tagSet>"
    )
