import re
from collections.abc import Generator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from clocks import FakeClock
from rentals import QUICK, Altered, run_spec

from orchestrator.aws.cloud import AwsCloud
from orchestrator.dryrun.catalog import image_id
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.errors import PermissionMissing, PriceUnknown, QuotaExceeded, UsageError
from orchestrator.imaging import FAMILIES, image_candidates
from orchestrator.plan import Facts
from orchestrator.resources import Market, Network
from orchestrator.survey import survey

REGION = "us-east-1"
NOBLE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"


@pytest.fixture
def reader(mock: MockedCloud, cloud: AwsCloud) -> Generator[AwsCloud]:
    mock.play(QUICK)
    yield cloud
    writes = {"CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "ImportKeyPair", "RunInstances"}
    assert not writes & set(mock.calls()), "a survey changes nothing"


def look(reader: Any, **spec: Any) -> Facts:
    return survey(reader, run_spec(**spec), FakeClock())


def refusal(reader: Any, **spec: Any) -> str:
    with pytest.raises(UsageError) as refused:
        look(reader, **spec)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_it_finds_account_image_offers_price_and_address(reader: AwsCloud):
    facts = look(reader, instance_types=("g6.xlarge", "g5.xlarge"))
    assert facts.account.account_id == "123456789012"
    assert facts.image.image_id == image_id("dlami-ubuntu-24.04", REGION)
    assert facts.image.ssh_user == "ubuntu"
    assert {offer.instance_type for offer in facts.offers} == {"g6.xlarge", "g5.xlarge"}
    g6 = [offer for offer in facts.offers if offer.instance_type == "g6.xlarge"]
    assert {offer.usd_per_hour for offer in g6} == {Decimal("0.8048")}
    assert "us-east-1e" not in {offer.zone for offer in g6}, "that zone has no g6"
    assert all(facts.placement.subnet_ids[offer.zone] == offer.subnet_id for offer in facts.offers)
    assert facts.ingress_cidr == "192.31.196.7/32"
    assert (facts.quota_notes, facts.leftovers) == ((), ())


def test_spot_prices_are_those_of_each_zone(reader: AwsCloud):
    facts = look(reader, market="spot")
    told = {zone: price.usd_per_hour for (_, zone), price in reader.spot_prices(["g6.xlarge"]).items()}
    assert {offer.zone: offer.usd_per_hour for offer in facts.offers} == told
    assert len(set(told.values())) > 1
    assert {offer.market for offer in facts.offers} == {Market.SPOT}


@pytest.mark.parametrize("wanted", [NOBLE, image_id("dlami-ubuntu-24.04", REGION)])
def test_an_image_may_be_given_by_parameter_or_id(reader: AwsCloud, wanted: str):
    assert look(reader, image=wanted).image.image_id == image_id("dlami-ubuntu-24.04", REGION)


def test_a_parameter_that_is_missing_gives_way_to_the_next_candidate(mock: MockedCloud, reader: AwsCloud):
    mock.play({**QUICK, "fail": [{"action": "GetParameter", "times": 2, "code": "ParameterNotFound"}]})
    assert look(reader).image.image_id == image_id("dlami-ubuntu-22.04", REGION)
    assert mock.calls()["GetParameter"] == 3


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"image": "ami-0123456789abcdef0"}, "ami-0123456789abcdef0: us-east-1 has no such image"),
        ({"image": "ami-zz"}, "ami-zz: us-east-1 has no such image"),
        ({"image": "dlami"}, "neither an id"),
        ({"image": "/aws/service/nothing"}, "no SSM parameter /aws/service/nothing"),
        ({"image": image_id("marketplace", REGION)}, "Marketplace"),
        ({"image": image_id("without-ena", REGION)}, "ENA"),
        ({"image": image_id("dlami-arm64", REGION)}, "arm64"),
        ({"instance_types": ("g99.xlarge",)}, "instance type g99.xlarge: there is none"),
        ({"instance_types": ("g6.xlarge", "g2.2xlarge")}, "instance type g2.2xlarge: there is none"),
        ({"instance_types": ("m5.large",)}, "no GPU"),
        ({"instance_types": ("g6f.large",)}, "fraction"),
        ({"account_id": "000000000000"}, "belong to account 123456789012"),
        ({"ingress_cidr": "0.0.0.0/0"}, "everybody"),
        ({"ingress_cidr": "192.31.196.7/24"}, "not an IPv4 network"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(reader: AwsCloud, spec: dict[str, Any], said: str):
    assert said in refusal(reader, **spec)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": "disabled"}, "its state is 'disabled'"),
        ({"platform": "windows"}, "it must be Linux"),
        ({"product_codes": ("abc",)}, "Marketplace product (abc)"),
        ({"root_device_type": "instance-store"}, "root device is of type 'instance-store'"),
        ({"virtualization": "paravirtual"}, "by paravirtual"),
        ({"ena_support": False}, "requires ENA networking"),
        ({"architecture": "arm64"}, "is arm64"),
    ],
)
def test_each_property_of_an_image_that_does_not_fit_has_its_own_words(
    reader: AwsCloud, changes: dict[str, Any], said: str
):
    image = reader.image(image_id("dlami-ubuntu-24.04", REGION))
    assert image is not None
    assert said in refusal(Altered(reader, image=replace(image, **changes)))


@pytest.mark.parametrize(
    ("image_changes", "type_changes", "said"),
    [
        ({"boot_mode": "uefi"}, {"boot_modes": ("legacy-bios",)}, "it boots by legacy-bios"),
        ({"boot_mode": "legacy-bios"}, {"boot_modes": ("uefi",)}, "it boots by uefi"),
        ({"tpm": "v2.0"}, {"nitro_tpm": False}, "it has no NitroTPM"),
        ({}, {"gpu_manufacturer": "AMD"}, "made by AMD"),
        ({}, {"usage_classes": ("capacity-block",)}, "not rented on-demand (offered: capacity-block)"),
        ({}, {"root_device_types": ("instance-store",)}, "its root device may be instance-store"),
    ],
)
def test_each_property_of_a_type_that_does_not_fit_has_its_own_words(
    reader: AwsCloud, image_changes: dict[str, Any], type_changes: dict[str, Any], said: str
):
    image = reader.image(image_id("dlami-ubuntu-24.04", REGION))
    assert image is not None
    (found,) = reader.instance_types(["g6.xlarge"])
    altered = Altered(reader, image=replace(image, **image_changes), instance_types=(replace(found, **type_changes),))
    assert said in refusal(altered)


@pytest.mark.parametrize("boot_mode", [None, "uefi-preferred"])
def test_an_image_that_boots_either_way_fits_every_type(reader: AwsCloud, boot_mode: str | None):
    image = reader.image(image_id("dlami-ubuntu-24.04", REGION))
    assert image is not None
    assert look(Altered(reader, image=replace(image, boot_mode=boot_mode))).offers


def test_the_dsstne_image_is_looked_up_and_answered_with_what_to_use(mock: MockedCloud, reader: AwsCloud):
    said = refusal(reader, image="ami-d6f2e6bc")
    assert '"dlami-base"' in said
    assert "g2 instances, which EC2 no longer offers" in said
    assert mock.calls()["DescribeImages"] == 1


def test_without_a_default_network_it_says_how_to_make_one(reader: AwsCloud):
    assert "aws ec2 create-default-vpc --region us-east-1" in refusal(Altered(reader, default_network=None))


def test_a_subnet_without_free_addresses_offers_nothing(reader: AwsCloud):
    network = reader.default_network()
    assert network is not None
    full = Network(network.vpc_id, tuple(replace(subnet, free_addresses=0) for subnet in network.subnets))
    said = refusal(Altered(reader, default_network=full))
    assert "no default subnet with free addresses" in said
    first, *others = full.subnets
    free = Network(network.vpc_id, (replace(first, free_addresses=9), *others))
    facts = look(Altered(reader, default_network=free))
    assert {offer.zone for offer in facts.offers} == {first.zone}


def test_a_type_that_no_zone_offers_is_refused(reader: AwsCloud):
    said = refusal(Altered(reader, zones={"g6.xlarge": frozenset[str]()}))
    assert "no zone of us-east-1 offers it" in said


@pytest.mark.parametrize("market", ["on_demand", "spot"])
def test_nothing_is_rented_at_an_unknown_price(reader: AwsCloud, market: str):
    altered = Altered(reader, on_demand_prices={}, spot_prices={})
    with pytest.raises(PriceUnknown, match=r"g6\.xlarge"):
        look(altered, market=market)


@pytest.mark.parametrize(("limit", "wanted", "need"), [(0, ("g6.xlarge",), 4), (7, ("g6.2xlarge", "g6.12xlarge"), 8)])
def test_a_quota_without_room_is_named_with_what_to_ask_for(
    mock: MockedCloud, reader: AwsCloud, limit: int, wanted: tuple[str, ...], need: int
):
    mock.play({**QUICK, "quota": {"L-DB2E81BA": limit}})
    with pytest.raises(QuotaExceeded) as refused:
        look(reader, instance_types=wanted)
    assert f"allows {limit} vCPUs" in str(refused.value)
    assert f"--quota-code L-DB2E81BA --desired-value {need} --region us-east-1" in str(refused.value)


def test_a_spot_quota_is_another_one(mock: MockedCloud, reader: AwsCloud):
    mock.play({**QUICK, "quota": {"L-3819A6DF": 0}})
    assert look(reader).offers
    with pytest.raises(QuotaExceeded, match="L-3819A6DF"):
        look(reader, market="spot")


def test_types_are_found_by_what_they_have(reader: AwsCloud):
    facts = look(reader, instance_types=(), gpus=4, gpu_memory_gib=40, max_usd=50)
    kinds = {(offer.gpus, offer.gpu_name) for offer in facts.offers}
    assert {(4, "L40S"), (8, "A100"), (8, "H100")} <= kinds
    assert all(gpus >= 4 and name not in {"L4", "A10G", "T4", "V100"} for gpus, name in kinds)
    assert not any(offer.instance_type.startswith("g5g") for offer in facts.offers), "ARM does not fit the image"


def test_a_gpu_is_as_large_as_it_is_sold(reader: AwsCloud):
    facts = look(reader, instance_types=(), gpu_memory_gib=24, max_usd=50)
    assert "g6.xlarge" in {offer.instance_type for offer in facts.offers}, "an L4 of 24 GB tells 22.4 GiB"


def test_a_need_that_nothing_meets_is_refused(reader: AwsCloud):
    assert "gpus = 16, gpu_memory_gib = 24: no instance type of us-east-1 has it" in refusal(
        reader, instance_types=(), gpus=16, gpu_memory_gib=24, max_usd=50
    )


def test_cheapest_has_both_markets_and_says_what_has_no_price(reader: AwsCloud):
    facts = look(Altered(reader, on_demand_prices={}), market="cheapest")
    assert {offer.market for offer in facts.offers} == {Market.SPOT}
    assert facts.price_notes == ("not on offer, as AWS tells no on demand price: g6.xlarge",)
    both = look(reader, market="cheapest")
    assert {offer.market for offer in both.offers} == {Market.SPOT, Market.ON_DEMAND}


def test_running_spot_instances_are_counted_against_the_spot_quota_only(mock: MockedCloud, reader: AwsCloud):
    way = ("g6.xlarge", Market.SPOT)
    taken = Altered(reader, vcpus_in_use={way: 4})
    mock.play({**QUICK, "quota": {"L-3819A6DF": 7, "L-DB2E81BA": 4}})
    facts = look(taken, market="cheapest")
    assert {offer.market for offer in facts.offers} == {Market.ON_DEMAND}
    assert {one.offer.market for one in facts.left_out} == {Market.SPOT}
    assert "allows 7 vCPUs in us-east-1, 4 are in use and g6.xlarge takes 4" in facts.quota_notes[0]
    assert "--desired-value 8" in facts.quota_notes[0]


def test_without_the_right_to_read_parameters_the_family_is_found_by_owner_and_name(
    mock: MockedCloud, reader: AwsCloud
):
    mock.play({**QUICK, "fail": [{"action": "GetParameter", "code": "AccessDeniedException"}]})
    assert look(reader).image.image_id == image_id("dlami-ubuntu-24.04", REGION)


def test_candidates_are_the_members_of_a_family_and_say_what_does_not_fit(reader: AwsCloud):
    (found,) = image_candidates(reader, "dlami-base", instance_type="g5g.xlarge")
    assert (found.image.image_id, found.image.ssh_user) == (image_id("dlami-ubuntu-24.04", REGION), "ubuntu")
    assert found.image.created_at is not None
    assert found.misfits[0].startswith("g5g.xlarge: it is arm64")
    assert [one.family for one in image_candidates(reader, None, instance_type=None)] == list(FAMILIES)


@pytest.mark.parametrize(
    ("family", "instance_type", "said"),
    [("dlami", None, "'dlami': not known (dlami-base"), (None, "g99.xlarge", "g99.xlarge: there is none")],
)
def test_candidates_that_cannot_be_asked_for(reader: AwsCloud, family: str, instance_type: str, said: str):
    with pytest.raises(UsageError, match=re.escape(said)):
        image_candidates(reader, family, instance_type=instance_type)


def test_a_type_too_large_for_the_quota_is_left_out_where_another_fits(mock: MockedCloud, reader: AwsCloud):
    mock.play({**QUICK, "quota": {"L-DB2E81BA": 8}})
    facts = look(reader, instance_types=("g6.12xlarge", "g6.xlarge"))
    assert {offer.instance_type for offer in facts.offers} == {"g6.xlarge"}
    assert "g6.12xlarge takes 48" in facts.quota_notes[0]


@pytest.mark.parametrize("action", ["GetServiceQuota", "DescribeInstances"])
def test_a_quota_that_may_not_be_read_is_a_note(mock: MockedCloud, reader: AwsCloud, action: str):
    mock.play({**QUICK, "fail": [{"action": action, "code": "AccessDeniedException"}]})
    facts = look(reader)
    assert facts.offers
    assert "not checked" in facts.quota_notes[0]


def test_a_missing_right_names_the_action(mock: MockedCloud, reader: AwsCloud):
    mock.play({**QUICK, "fail": [{"action": "DescribeSubnets", "code": "UnauthorizedOperation"}]})
    with pytest.raises(PermissionMissing, match="ec2:DescribeSubnets"):
        look(reader)
