"""The room that vCPU quotas leave, read before anything is rented. Advisory: where the right to read is missing it is
said, and RunInstances has the last word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import CloudRefused, CloudUnavailable, PermissionMissing, QuotaExceeded
from orchestrator.ports import CloudReader
from orchestrator.resources import InstanceType, LeftOut, Offer, Quota, Way

_UNREADABLE = (PermissionMissing, CloudRefused, CloudUnavailable)


@dataclass(frozen=True, slots=True)
class Room:
    """Offers that the quotas leave room for, the others, and what to tell."""

    offers: tuple[Offer, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def room_for(reader: CloudReader, offers: Sequence[Offer], types: Sequence[InstanceType], *, nodes: int = 1) -> Room:
    """Hold the offers, each of so many machines, against the account's quotas. `QuotaExceeded` if there is room
    for none.
    """
    vcpus = {found.name: found.vcpus * nodes for found in types}
    ways = tuple(dict.fromkeys(offer.way for offer in offers))
    notes: list[str] = []
    refusals = _refusals(reader, ways, vcpus, notes)
    kept = tuple(offer for offer in offers if offer.way not in refusals)
    if not kept:
        raise QuotaExceeded(next(iter(refusals.values())))
    left_out = tuple(LeftOut(offer, refusals[offer.way]) for offer in offers if offer.way in refusals)
    return Room(kept, left_out, tuple(dict.fromkeys((*notes, *refusals.values()))))


def raise_text(quota: Quota, *, wanted: int, region: str) -> str:
    """The command that asks AWS for more of a quota. It is only ever shown."""
    return (
        f"`aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {quota.code} "
        f"--desired-value {wanted} --region {region}`"
    )


def _refusals(
    reader: CloudReader, ways: Sequence[Way], vcpus: Mapping[str, int], notes: list[str]
) -> Mapping[Way, str]:
    try:
        quotas = reader.quotas(ways)
    except _UNREADABLE as error:
        notes.append(f"the vCPU quota was not checked: {error}")
        return {}
    unknown = sorted({f"{name} ({market.value})" for name, market in ways if (name, market) not in quotas})
    notes += [f"the vCPU quota of {name} is not known; AWS may refuse" for name in unknown]
    used: Mapping[Way, int] = {}
    try:
        used = reader.vcpus_in_use(tuple(quotas))
    except _UNREADABLE as error:
        notes.append(f"what is in use of the vCPU quota was not checked: {error}")
    return {
        way: _quota_text(quota, way, used=used.get(way, 0), vcpus=vcpus[way[0]], region=reader.region)
        for way, quota in quotas.items()
        if used.get(way, 0) + vcpus[way[0]] > quota.limit_vcpus
    }


def _quota_text(quota: Quota, way: Way, *, used: int, vcpus: int, region: str) -> str:
    return (
        f"quota {quota.code} ({quota.name}) allows {quota.limit_vcpus:g} vCPUs in {region}, {used} are in "
        f"use and {way[0]} takes {vcpus}: ask AWS for {used + vcpus} with "
        f"{raise_text(quota, wanted=used + vcpus, region=region)}"
    )
