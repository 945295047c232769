"""How many vCPUs the account may rent, by class of types and by market, and how many of them it has rented."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.aws.errors import translated
from orchestrator.errors import AlreadyGone
from orchestrator.resources import Market, Quota, Running, Way

_GRAPHICS = ("g", "gr", "vt")


@dataclass(frozen=True, slots=True)
class _QuotaClass:
    """The types that a quota covers, by the letters they begin with, and the quota's codes."""

    families: tuple[str, ...]
    on_demand: str
    spot: Mapping[str, str]
    """By the beginning of a type's name."""


_CLASSES = (
    _QuotaClass(_GRAPHICS, "L-DB2E81BA", dict.fromkeys(_GRAPHICS, "L-3819A6DF")),
    _QuotaClass(
        ("p",),
        "L-417A185B",
        {"p2": "L-7212CCBC", "p3": "L-7212CCBC", "p4": "L-7212CCBC", "p5": "L-C4BD4855"},
    ),
)
"""Quotas of types with NVIDIA GPUs: https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html"""


def quotas(client: Any, ways: Sequence[Way]) -> Mapping[Way, Quota]:
    """The account's vCPU quota for each, AWS's default where it has no own; each quota is read once. Those that are
    not known are left out.
    """
    codes = {way: code_of(way) for way in ways}
    read = {code: _quota(client, code) for code in dict.fromkeys(codes.values()) if code is not None}
    found = {way: read[code] for way, code in codes.items() if code is not None}
    return {way: quota for way, quota in found.items() if quota is not None}


def in_use(running: Iterable[Running], ways: Sequence[Way]) -> Mapping[Way, int]:
    """vCPUs that `running` takes from the quota of each way whose quota is known."""
    taken: Counter[str] = Counter()
    for one in running:
        taken[code_of((one.instance_type, one.market)) or ""] += one.vcpus
    codes = {way: code_of(way) for way in ways}
    return {way: taken[code] for way, code in codes.items() if code is not None}


def code_of(way: Way) -> str | None:
    """The code of the quota that covers a type in a market, or `None` where we know none."""
    instance_type, market = way
    letters = instance_type[: next((at for at, sign in enumerate(instance_type) if not sign.isalpha()), None)]
    found = next((one for one in _CLASSES if letters in one.families), None)
    if found is None or market is Market.ON_DEMAND:
        return found.on_demand if found else None
    return next((code for start, code in found.spot.items() if instance_type.startswith(start)), None)


def _quota(client: Any, code: str) -> Quota | None:
    wanted = {"ServiceCode": "ec2", "QuotaCode": code}
    doing = f"reading the quota {code}"
    try:
        with translated(doing, service="servicequotas"):
            told = client.get_service_quota(**wanted)["Quota"]
    except AlreadyGone:
        try:
            with translated(doing, service="servicequotas"):
                told = client.get_aws_default_service_quota(**wanted)["Quota"]
        except AlreadyGone:
            return None
    return Quota(code=told["QuotaCode"], name=told["QuotaName"], limit_vcpus=float(told["Value"]))
