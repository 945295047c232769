from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from clocks import FakeClock
from rentals import QUICK, Altered, run_spec

from orchestrator.aws.cloud import AwsCloud
from orchestrator.doctor import Finding, examine
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.report.doctor import findings_json, findings_text

DENIED = "UnauthorizedOperation"


def findings(reader: Any, **spec: Any) -> Mapping[str, Finding]:
    clock = FakeClock()
    told = Altered(reader, server_time=clock.now()) if isinstance(reader, AwsCloud) else reader
    return {finding.name: finding for finding in examine(run_spec(**spec), told, clock)}


def verdicts(found: Mapping[str, Finding]) -> dict[str, str]:
    return {name: finding.verdict for name, finding in found.items() if finding.verdict != "ok"}


def test_where_all_is_well_nothing_is_to_mend_and_nothing_is_created(mock: MockedCloud, cloud: AwsCloud):
    mock.play(QUICK)
    found = findings(cloud)
    assert verdicts({name: finding for name, finding in found.items() if name != "ssh"}) == {}
    assert {"ec2:CreateSecurityGroup", "ec2:ImportKeyPair", "ec2:RunInstances"} <= set(found)
    assert cloud.tagged() == ()
    assert findings_json(tuple(found.values()))["ok"]


@pytest.mark.parametrize(
    ("scenario", "spec", "name", "verdict", "words"),
    [
        ({"quota": {"L-DB2E81BA": 0}}, {}, "quota", "bad", "--desired-value 4"),
        ({"fail": [{"action": "GetServiceQuota", "code": "AccessDenied"}]}, {}, "quota", "note", "could not be read"),
        ({}, {"account_id": "000000000000"}, "account", "bad", "change account_id"),
        ({}, {"image": "ami-0123456789abcdef0"}, "image", "bad", "no such image"),
        (
            {"fail": [{"action": "DescribeSubnets", "times": 9, "code": DENIED}]},
            {},
            "network",
            "bad",
            "ec2:DescribeSubnets",
        ),
        ({"fail": [{"action": "GetProducts", "code": DENIED}]}, {}, "price", "bad", "pricing:GetProducts"),
    ],
)
def test_what_is_wrong_is_red_and_says_what_to_do(
    mock: MockedCloud, cloud: AwsCloud, scenario: dict[str, Any], spec: dict[str, Any], name: str, verdict: str,
    words: str,
):  # fmt: skip
    mock.play({**QUICK, **scenario})
    found = findings(cloud, **spec)
    assert found[name].verdict == verdict
    assert words in findings_text(tuple(found.values()))
    assert findings_json(tuple(found.values()))["ok"] == (verdict == "note")


def test_who_is_not_logged_in_is_told_so_and_asked_nothing_else(mock: MockedCloud, cloud: AwsCloud):
    mock.play({**QUICK, "fail": [{"action": "GetCallerIdentity", "times": 9, "code": "ExpiredToken"}]})
    found = findings(cloud)
    assert found["credentials"].is_bad
    assert list(found)[-1] == "credentials"


def test_a_clock_that_is_off_and_rights_that_are_missing(mock: MockedCloud, cloud: AwsCloud):
    mock.play(QUICK)
    answers = {"ec2:CreateSecurityGroup": "denied", "ec2:ImportKeyPair": "", "ec2:RunInstances": "denied"}
    late = FakeClock().now() - timedelta(minutes=6)
    found = findings(Altered(cloud, server_time=late, rights=answers, default_network=cloud.default_network()))
    assert found["clock"].is_bad
    assert "360 s" in found["clock"].detail
    assert [found[name].verdict for name in answers] == ["bad", "ok", "note"]
