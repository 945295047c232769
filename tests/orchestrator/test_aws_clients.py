import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber
from rentals import QUICK, REGION, aws

from orchestrator.aws.clients import Clients, loopback_clients, real_clients
from orchestrator.aws.network import caller_address
from orchestrator.aws.pricing import on_demand_prices
from orchestrator.dryrun.catalog import image_id
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.errors import CloudRefused, CloudUnavailable, CredentialsMissing, UsageError


@pytest.fixture(scope="module")
def clients(mock: MockedCloud) -> Clients:
    return loopback_clients(REGION, mock.endpoint)


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment and settings that would lead a client anywhere but to the mock."""
    settings = tmp_path / "config"
    settings.write_text("[profile me]\nendpoint_url = http://192.0.2.1:9\nrole_arn = arn:aws:iam::1:role/x\n")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "http://192.0.2.1:9")
    for name, value in {
        "AWS_PROFILE": "nobody",
        "AWS_CONFIG_FILE": str(settings),
        "AWS_SHARED_CREDENTIALS_FILE": str(settings),
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIAREAL",
        "AWS_SECRET_ACCESS_KEY": "real",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_RETRY_MODE": "nonsense",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("hostile")
def test_a_dry_run_looks_at_nothing_of_the_callers(mock: MockedCloud):
    mock.play(QUICK)
    clients = loopback_clients(REGION, mock.endpoint)
    cloud = aws(mock)
    assert clients.ec2._request_signer._credentials.access_key == "dry-run"
    assert cloud.account().account_id == "123456789012"
    assert cloud.on_demand_prices(["g6.xlarge"])["g6.xlarge"].usd_per_hour == Decimal("0.8048")
    assert cloud.caller_address() == "192.31.196.7"
    assert dict(os.environ)["AWS_PROFILE"] == "nobody", "the environment is left as it was"


@pytest.mark.parametrize("name", ["ec2", "creator", "ssm", "sts", "pricing", "quotas", "s3"])
def test_a_request_to_any_other_host_is_refused_before_it_is_sent(clients: Clients, name: str):
    client: Any = getattr(clients, name)
    calls = {
        "ssm": lambda: client.get_parameter(Name="/x"),
        "sts": lambda: client.get_caller_identity(),
        "pricing": lambda: client.get_products(ServiceCode="AmazonEC2"),
        "s3": lambda: client.list_objects_v2(Bucket="films"),
        "quotas": lambda: client.get_service_quota(ServiceCode="ec2", QuotaCode="L-1"),
    }
    client.meta.events.register("request-created", _elsewhere)
    with pytest.raises(CloudRefused, match=r"a dry run must not reach example\.com"):
        calls.get(name, lambda: client.describe_vpcs())()


def _elsewhere(request: Any, **_: Any) -> None:
    request.url = "https://example.com/"


@pytest.mark.parametrize("endpoint", ["http://192.0.2.1:5000", "https://ec2.amazonaws.com", "nonsense"])
def test_a_mocked_aws_elsewhere_is_refused(endpoint: str):
    with pytest.raises(UsageError, match="must be on this machine"):
        loopback_clients(REGION, endpoint)


def test_a_profile_that_does_not_exist_is_missing_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(CredentialsMissing, match="nobody"):
        real_clients(REGION)


def test_reads_are_repeated_when_aws_is_busy_and_creations_are_not(mock: MockedCloud):
    cloud = aws(mock)
    mock.play({**QUICK, "fail": [{"action": "DescribeImages", "times": 1, "code": "RequestLimitExceeded"}]})
    assert cloud.image(image_id("ubuntu-24.04", REGION)) is not None
    assert mock.calls()["DescribeImages"] == 2
    mock.play({**QUICK, "fail": [{"action": "CreateSecurityGroup", "code": "RequestLimitExceeded"}]})
    network = cloud.default_network()
    assert network is not None
    with pytest.raises(CloudUnavailable):
        cloud.create_security_group("g", vpc_id=network.vpc_id, tags={})
    assert mock.calls()["CreateSecurityGroup"] == 1


@pytest.mark.parametrize("answer", ["", "<html>", "10.0.0.7", "127.0.0.1", "2001:db8::1", "0.0.0.0"])
def test_what_is_no_public_ipv4_address_is_not_let_in(answer: str):
    with pytest.raises(CloudRefused, match="set ingress_cidr"):
        caller_address(answer)


def product(*prices: str, unit: str = "Hrs") -> str:
    dimensions = {str(number): {"unit": unit, "pricePerUnit": {"USD": usd}} for number, usd in enumerate(prices)}
    attributes = {"instanceType": "g6.xlarge"}
    return json.dumps(
        {"product": {"attributes": attributes}, "terms": {"OnDemand": {"offer": {"priceDimensions": dimensions}}}}
    )


@pytest.mark.parametrize(
    ("products", "expected"),
    [
        ([product("10.0000000000")], "10"),
        ([product("0.8048000000", "0.0000000000")], "0.8048"),
        ([product("0.5"), product("0.50")], "0.5"),
        ([product("0.5"), product("0.6")], None),
        ([product("12", unit="Quantity")], None),
        ([product("a lot")], None),
        ([], None),
    ],
)
def test_only_one_hourly_price_is_believed(clients: Clients, products: list[str], expected: str | None):
    client = clients.pricing
    with Stubber(client) as stub:
        stub.add_response("get_products", {"PriceList": products})
        told = on_demand_prices(client, ["g6.xlarge"], region=REGION)
    assert [str(price.usd_per_hour) for price in told.values()] == ([] if expected is None else [expected])
