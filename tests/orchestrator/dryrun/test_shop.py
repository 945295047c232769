"""The price list and the service quotas as the mock plays them."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

EXACT = {
    "regionCode": "us-east-1",
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}


def products(aws: Any, **wanted: str) -> list[Any]:
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()]
    answer = aws.pricing.get_products(ServiceCode="AmazonEC2", Filters=filters)
    return [json.loads(item) for item in answer["PriceList"]]


def test_exact_filters_leave_one_price(aws: Any):
    (item,) = products(aws, instanceType="g6.xlarge", **EXACT)
    (offer,) = item["terms"]["OnDemand"].values()
    (dimension,) = offer["priceDimensions"].values()
    assert dimension["unit"] == "Hrs"
    assert float(dimension["pricePerUnit"]["USD"]) == 0.8048


@pytest.mark.parametrize("left_out", ["operatingSystem", "tenancy", "capacitystatus"])
def test_a_forgotten_filter_leaves_several_prices(aws: Any, left_out: str):
    wanted = {key: value for key, value in EXACT.items() if key != left_out}
    prices = [item["terms"] for item in products(aws, instanceType="g6.xlarge", **wanted)]
    assert len(prices) > 1


def test_a_type_without_on_demand_price_has_none(aws: Any):
    assert products(aws, instanceType="p5e.48xlarge", **EXACT) == []


def test_a_quota_tells_its_value_and_the_scenario_sets_it(aws: Any, play: Any):
    def limit(method: str) -> float:
        return getattr(aws.quotas, method)(ServiceCode="ec2", QuotaCode="L-DB2E81BA")["Quota"]["Value"]

    assert limit("get_service_quota") > 0
    play(quota={"L-DB2E81BA": 0})
    assert limit("get_service_quota") == 0
    assert limit("get_aws_default_service_quota") > 0


def test_quotas_are_listed_by_name(aws: Any, play: Any):
    play(quota={"L-C4BD4855": 5})
    listed = aws.quotas.list_service_quotas(ServiceCode="ec2")["Quotas"]
    by_name = {quota["QuotaName"]: quota for quota in listed}
    assert by_name["All P5 Spot Instance Requests"]["Value"] == 5
    assert by_name["Running On-Demand G and VT instances"]["QuotaCode"] == "L-DB2E81BA"


def test_an_unknown_quota_does_not_exist(aws: Any):
    with pytest.raises(ClientError) as caught:
        aws.quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-00000000")
    assert caught.value.response["Error"]["Code"] == "NoSuchResourceException"
