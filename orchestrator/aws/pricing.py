"""What renting costs by the hour, on demand and spot."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from orchestrator.aws.errors import translated
from orchestrator.aws.requests import price_filters
from orchestrator.resources import Price

_TYPES_A_QUESTION = 50


def on_demand_prices(pricing: Any, instance_types: Sequence[str], *, region: str) -> Mapping[str, Price]:
    """By type; without those for which the price list has no such price, or more than one."""
    found: defaultdict[str, dict[Decimal, Price]] = defaultdict(dict)
    for start in range(0, len(instance_types), _TYPES_A_QUESTION):
        for product in _products(pricing, instance_types[start : start + _TYPES_A_QUESTION], region):
            for price in _prices(product):
                found[product["product"]["attributes"]["instanceType"]][price.usd_per_hour] = price
    return {name: next(iter(prices.values())) for name, prices in found.items() if len(prices) == 1}


def _products(pricing: Any, instance_types: Sequence[str], region: str) -> list[Mapping[str, Any]]:
    with translated(f"reading the price of {', '.join(instance_types)}", service="pricing"):
        pages = pricing.get_paginator("get_products").paginate(
            ServiceCode="AmazonEC2", Filters=price_filters(instance_types, region=region)
        )
        return [json.loads(item) for page in pages for item in page["PriceList"]]


def spot_prices(ec2: Any, instance_types: Sequence[str], *, now: datetime) -> Mapping[tuple[str, str], Price]:
    """In force, by type and zone."""
    with translated(f"reading the spot prices of {', '.join(instance_types)}"):
        pages = ec2.get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=list(instance_types), ProductDescriptions=["Linux/UNIX"], StartTime=now
        )
        told = [entry for page in pages for entry in page["SpotPriceHistory"]]
    told.sort(key=lambda entry: entry["Timestamp"])
    return {
        (entry["InstanceType"], entry["AvailabilityZone"]): Price(
            Decimal(entry["SpotPrice"]), entry["Timestamp"].astimezone(UTC)
        )
        for entry in told
    }


def _prices(product: Mapping[str, Any]) -> Iterator[Price]:
    for offer in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in offer["priceDimensions"].values():
            usd = _usd(dimension["pricePerUnit"].get("USD", ""))
            if dimension["unit"] == "Hrs" and usd > 0:
                yield Price(usd, _moment(offer.get("effectiveDate", "")))


def _usd(text: str) -> Decimal:
    try:
        # Without trailing zeros, and without an exponent.
        return Decimal(f"{Decimal(text).normalize():f}")
    except InvalidOperation:
        return Decimal(0)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
