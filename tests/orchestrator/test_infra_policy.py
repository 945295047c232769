"""The rights of `infra/iam-policy.json` against what the program really calls."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from rentals import QUICK, REGION, aws, rental

from orchestrator.dryrun.cloud import running_cloud
from orchestrator.packaged import packaged
from orchestrator.resources import MANAGED_BY, Market

NOT_CALLED = {
    "ec2:CreateTags": "asked of whoever creates something with tags",
    "iam:CreateServiceLinkedRole": "asked of an account's first spot request",
    "ec2:DeleteVolume": "only where a volume outlives its instance",
    "servicequotas:GetAWSDefaultServiceQuota": "only where the account has no quota of its own",
}


@pytest.fixture(scope="module")
def statements() -> list[Mapping[str, Any]]:
    return json.loads((packaged("infra") / "iam-policy.json").read_text())["Statement"]


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Actions of a whole flow: both markets surveyed, a rental of several machines, its teardown, the look around."""
    with running_cloud(QUICK) as mock:
        cloud = aws(mock)
        rented = rental(cloud, tmp_path_factory.mktemp("run"), "run-1", nodes=2, instance_types=("g6.8xlarge",))
        cloud.spot_prices(["g6.xlarge"])
        cloud.quotas([("g6.xlarge", Market.SPOT)])
        cloud.regions()
        group_id = rented.launch().group.group_id
        cloud.revoke_ssh(group_id, cidr=rented.plan.ingress_cidr)
        assert rented.teardown().survivors == ()
        return set(mock.calls())


def actions(statements: list[Mapping[str, Any]]) -> set[str]:
    found: set[str] = set()
    for statement in statements:
        named = statement["Action"]
        found |= {named} if isinstance(named, str) else set(named)
    return found


def test_every_call_is_allowed_and_nothing_is_allowed_that_is_never_called(
    statements: list[Mapping[str, Any]], called: set[str]
):
    # Asking who one is needs no right at all.
    needed = called - {"GetCallerIdentity"}
    allowed = {name.partition(":")[2] for name in actions(statements) - set(NOT_CALLED)}
    assert needed == allowed


def test_statements_have_names_of_their_own(statements: list[Mapping[str, Any]]):
    names = [statement["Sid"] for statement in statements]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9]+", name) for name in names)


def test_whatever_changes_something_is_tied_to_our_tag_or_to_a_place(statements: list[Mapping[str, Any]]):
    places = {"LaunchFromTrustedImages", "LaunchIntoSubnets", "CreateGroupInVpc", "TagOnlyWhileCreating"}
    for statement in statements:
        reads = all(
            re.match(r"(ec2:Describe|ssm:Get|pricing:Get|servicequotas:Get)", name) for name in actions([statement])
        )
        if reads or statement["Sid"] in places | {"SpotServiceLinkedRole"}:
            assert statement["Resource"] != "*" or reads
            continue
        condition = statement["Condition"]["StringEquals"]
        assert MANAGED_BY in {
            condition.get("aws:RequestTag/managed-by"),
            condition.get("aws:ResourceTag/managed-by"),
        }


def test_the_policy_fits_a_managed_policy(statements: list[Mapping[str, Any]]):
    text = json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))
    assert len(text) < 6144


def test_the_types_rented_by_default_may_be_launched(statements: list[Mapping[str, Any]]):
    (launch,) = [statement for statement in statements if statement["Sid"] == "LaunchTaggedInstance"]
    listed = launch["Condition"]["StringEquals"]["ec2:InstanceType"]
    spec = (packaged("configs") / "runs" / "movielens.toml").read_text()
    (line,) = [line for line in spec.splitlines() if line.startswith("instance_types")]
    assert set(re.findall(r'"([^"]+)"', line)) <= set(listed)


def test_the_policy_is_for_the_region_of_the_default_run():
    assert REGION in (packaged("infra") / "iam-policy.json").read_text()
