"""Everything that exists in the mocked AWS and was not there at the start, so that a test or a person
can see what a run left behind.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.dryrun.estate import Estate


def take_inventory(estate: Estate) -> list[dict[str, str]]:
    """Instances in any state, key pairs, security groups but the default ones, placement groups, volumes and
    network interfaces, each with `kind`, `id`, `name`, `state`, `region` and `run_id`. The id of a key pair or
    placement group is its name: by that it is deleted.
    """
    return [thing for region in sorted(estate.regions) for thing in _region(estate, region)]


def _region(estate: Estate, region: str) -> Iterator[dict[str, str]]:
    backend = estate.backend(region)
    for instance in backend.all_instances():
        yield _thing("instance", instance.id, instance, region, state=instance.state)
    for pair in backend.describe_key_pairs([]):
        yield _thing("key pair", pair.key_name, pair, region, name=pair.key_name)
    for group in backend.describe_security_groups():
        if group.name != "default":
            yield _thing("security group", group.id, group, region, name=group.name)
    for cluster in estate.placements.of(region):
        yield _told("placement group", cluster.name, cluster.tags, region, name=cluster.name)
    for volume in backend.describe_volumes():
        yield _thing("volume", volume.id, volume, region, state=volume.status)
    for nic in backend.get_all_network_interfaces():
        yield _thing("network interface", nic.id, nic, region, state=nic.status)


def _thing(kind: str, thing_id: str, resource: Any, region: str, *, state: str = "", name: str = "") -> dict[str, str]:
    tags = {tag["key"]: tag["value"] for tag in resource.get_tags()}
    return _told(kind, thing_id, tags, region, state=state, name=name)


def _told(
    kind: str, thing_id: str, tags: Mapping[str, str], region: str, *, state: str = "", name: str = ""
) -> dict[str, str]:
    return {
        "kind": kind,
        "id": thing_id,
        "name": name or tags.get("Name", ""),
        "state": state,
        "region": region,
        "run_id": tags.get("run-id", ""),
    }
