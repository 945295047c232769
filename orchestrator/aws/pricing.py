"""What renting costs by the hour, and how many vCPUs the account may rent."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from orchestrator.aws.errors import translated
from orchestrator.aws.requests import price_filters
from orchestrator.errors import AlreadyGone
from orchestrator.resources import Market, Quota

_GRAPHICS = ("g", "gr", "vt")


@dataclass(frozen=True, slots=True)
class QuotaClass:
    """The types that a quota covers, by the letters they begin with, and the quota's codes."""

    families: tuple[str, ...]
    on_demand: str
    spot: Mapping[str, str]
    """By the beginning of a type's name."""


_CLASSES = (
    QuotaClass(_GRAPHICS, "L-DB2E81BA", dict.fromkeys(_GRAPHICS, "L-3819A6DF")),
    QuotaClass(
        ("p",),
        "L-417A185B",
        {"p2": "L-7212CCBC", "p3": "L-7212CCBC", "p4": "L-7212CCBC", "p5": "L-C4BD4855"},
    ),
)
"""Quotas of types with NVIDIA GPUs: https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html"""


def on_demand_price(pricing: Any, instance_type: str, *, region: str) -> Decimal | None:
    """USD per hour, or `None` if the price list has no such price, or more than one."""
    with translated(f"reading the price of {instance_type}", service="pricing"):
        pages = pricing.get_paginator("get_products").paginate(
            ServiceCode="AmazonEC2", Filters=price_filters(instance_type, region=region)
        )
        products = [json.loads(item) for page in pages for item in page["PriceList"]]
    prices = {price for product in products for price in _prices(product)}
    return prices.pop() if len(prices) == 1 else None


def spot_prices(ec2: Any, instance_type: str, *, now: datetime) -> Mapping[str, Decimal]:
    """USD per hour in force, by zone."""
    with translated(f"reading the spot prices of {instance_type}"):
        pages = ec2.get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=[instance_type], ProductDescriptions=["Linux/UNIX"], StartTime=now
        )
        told = [entry for page in pages for entry in page["SpotPriceHistory"]]
    told.sort(key=lambda entry: entry["Timestamp"])
    return {entry["AvailabilityZone"]: Decimal(entry["SpotPrice"]) for entry in told}


def families_of(instance_type: str) -> tuple[str, ...]:
    """Beginnings of the types that share a quota with this one; none where we know no quota."""
    found = _class_of(instance_type)
    return found.families if found is not None else ()


def quota(quotas: Any, instance_type: str, market: Market) -> Quota | None:
    """The account's vCPU quota for the type, AWS's default where it has no own, or `None` if unknown."""
    code = _code(instance_type, market)
    if code is None:
        return None
    wanted = {"ServiceCode": "ec2", "QuotaCode": code}
    doing = f"reading the quota {code}"
    try:
        with translated(doing, service="servicequotas"):
            told = quotas.get_service_quota(**wanted)["Quota"]
    except AlreadyGone:
        try:
            with translated(doing, service="servicequotas"):
                told = quotas.get_aws_default_service_quota(**wanted)["Quota"]
        except AlreadyGone:
            return None
    return Quota(code=told["QuotaCode"], name=told["QuotaName"], limit_vcpus=float(told["Value"]))


def _prices(product: Mapping[str, Any]) -> list[Decimal]:
    dimensions = [
        dimension
        for offer in product.get("terms", {}).get("OnDemand", {}).values()
        for dimension in offer["priceDimensions"].values()
    ]
    hourly = (entry["pricePerUnit"].get("USD", "") for entry in dimensions if entry["unit"] == "Hrs")
    return [price for price in map(_usd, hourly) if price > 0]


def _usd(text: str) -> Decimal:
    try:
        # Without trailing zeros, and without an exponent.
        return Decimal(f"{Decimal(text).normalize():f}")
    except InvalidOperation:
        return Decimal(0)


def _class_of(instance_type: str) -> QuotaClass | None:
    letters = instance_type[: next((at for at, sign in enumerate(instance_type) if not sign.isalpha()), None)]
    return next((found for found in _CLASSES if letters in found.families), None)


def _code(instance_type: str, market: Market) -> str | None:
    found = _class_of(instance_type)
    if found is None:
        return None
    if market is Market.ON_DEMAND:
        return found.on_demand
    return next((code for start, code in found.spot.items() if instance_type.startswith(start)), None)
