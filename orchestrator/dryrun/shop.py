"""The services around EC2 that moto does not play: the price list, service quotas and the public
parameters that name images.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import product
from typing import Any

from orchestrator.dryrun.catalog import ON_DEMAND_USD, QUOTAS, ShelfQuota, parameter_value
from orchestrator.dryrun.scenario import Scenario
from orchestrator.dryrun.wire import Answer, Call, Refusal, json_answer

_PUBLISHED = "2026-08-17T00:00:00Z"
_OFFER_TERM, _DIMENSION = "JRTCKXETXF", "6YS6EN2CT7"


def answer_service(call: Call, scenario: Scenario) -> Answer | None:
    """The answer to a call of these services, or `None` where moto is to answer. Raises `Refusal`."""
    rule = _RULES.get((call.service, call.action))
    return rule(call, scenario) if rule is not None else None


def _get_products(call: Call, _scenario: Scenario) -> Answer:
    if call.document.get("ServiceCode") != "AmazonEC2":
        raise Refusal("NotFoundException", "The mock's price list knows AmazonEC2 only.")
    filters = {given["Field"]: _accepted(given) for given in call.document.get("Filters", ())}
    names = filters.get("instanceType", tuple(ON_DEMAND_USD))
    (region,) = filters.get("regionCode", ("us-east-1",))
    found = (item for name in names for item in _products(name, region))
    chosen = [item for item in found if _matches(item["product"]["attributes"], filters)]
    return json_answer({"FormatVersion": "aws_v1", "PriceList": [json.dumps(item) for item in chosen]})


def _accepted(given: Mapping[str, str]) -> tuple[str, ...]:
    """The values that a filter lets pass."""
    return tuple(given["Value"].split(",")) if given.get("Type") == "ANY_OF" else (given["Value"],)


def _products(instance_type: str, region: str) -> Iterator[dict[str, Any]]:
    if instance_type not in ON_DEMAND_USD:
        return
    systems = (("Linux", Decimal(1)), ("Windows", Decimal("1.5")))
    tenancies = (("Shared", Decimal(1)), ("Dedicated", Decimal("1.1")))
    uses = ("Used", "UnusedCapacityReservation", "AllocatedCapacityReservation")
    for (system, dearer), (tenancy, extra), use in product(systems, tenancies, uses):
        free = use == "AllocatedCapacityReservation"
        price = Decimal(0) if free else Decimal(ON_DEMAND_USD[instance_type]) * dearer * extra
        attributes = {
            "instanceType": instance_type,
            "regionCode": region,
            "servicecode": "AmazonEC2",
            "operatingSystem": system,
            "tenancy": tenancy,
            "preInstalledSw": "NA",
            "licenseModel": "No License required",
            "capacitystatus": use,
            "marketoption": "OnDemand",
            "locationType": "AWS Region",
        }
        yield _product(attributes, price)


def _product(attributes: Mapping[str, str], price: Decimal) -> dict[str, Any]:
    sku = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest()[:16].upper()
    term, rate = f"{sku}.{_OFFER_TERM}", f"{sku}.{_OFFER_TERM}.{_DIMENSION}"
    dimension = {
        "unit": "Hrs",
        "beginRange": "0",
        "endRange": "Inf",
        "rateCode": rate,
        "appliesTo": [],
        "description": f"${price} per On Demand {attributes['operatingSystem']} {attributes['instanceType']}",
        "pricePerUnit": {"USD": f"{price:.10f}"},
    }
    offer = {
        "sku": sku,
        "offerTermCode": _OFFER_TERM,
        "effectiveDate": _PUBLISHED,
        "termAttributes": {},
        "priceDimensions": {rate: dimension},
    }
    return {
        "product": {"productFamily": "Compute Instance", "attributes": dict(attributes), "sku": sku},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {term: offer}},
        "version": "20260817000000",
        "publicationDate": _PUBLISHED,
    }


def _matches(attributes: Mapping[str, str], filters: Mapping[str, tuple[str, ...]]) -> bool:
    return all(attributes.get(field) in values for field, values in filters.items())


def _get_quota(call: Call, scenario: Scenario) -> Answer:
    quota = _quota(call)
    return json_answer({"Quota": _shown(quota, scenario.quota.get(quota.code, quota.limit_vcpus), call.region)})


def _get_default_quota(call: Call, _scenario: Scenario) -> Answer:
    quota = _quota(call)
    return json_answer({"Quota": _shown(quota, quota.limit_vcpus, call.region)})


def _list_quotas(call: Call, scenario: Scenario) -> Answer:
    limits = ((quota, scenario.quota.get(quota.code, quota.limit_vcpus)) for quota in QUOTAS)
    return json_answer({"Quotas": [_shown(quota, limit, call.region) for quota, limit in limits]})


def _quota(call: Call) -> ShelfQuota:
    code = call.document.get("QuotaCode")
    found = next((quota for quota in QUOTAS if quota.code == code), None)
    if call.document.get("ServiceCode") != "ec2" or found is None:
        raise Refusal("NoSuchResourceException", "The request failed because the specified service does not exist.")
    return found


def _shown(quota: ShelfQuota, limit: float, region: str) -> dict[str, Any]:
    return {
        "ServiceCode": "ec2",
        "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
        "QuotaArn": f"arn:aws:servicequotas:{region}:123456789012:ec2/{quota.code}",
        "QuotaCode": quota.code,
        "QuotaName": quota.name,
        "Value": float(limit),
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }


def _get_parameter(call: Call, _scenario: Scenario) -> Answer | None:
    name = str(call.document.get("Name", ""))
    value = parameter_value(name, call.region)
    if value is None:
        return None
    parameter = {
        "Name": name,
        "Type": "String",
        "Value": value,
        "Version": 1,
        "LastModifiedDate": float(int(time.time())),
        "ARN": f"arn:aws:ssm:{call.region}::parameter{name}",
        "DataType": "aws:ec2:image",
    }
    return json_answer({"Parameter": parameter})


_RULES: Mapping[tuple[str, str], Callable[[Call, Scenario], Answer | None]] = {
    ("pricing", "GetProducts"): _get_products,
    ("servicequotas", "GetServiceQuota"): _get_quota,
    ("servicequotas", "GetAWSDefaultServiceQuota"): _get_default_quota,
    ("servicequotas", "ListServiceQuotas"): _list_quotas,
    ("ssm", "GetParameter"): _get_parameter,
}
