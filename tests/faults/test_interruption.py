"""For every call of a rental: fail there, and see that afterwards nothing survives that is not listed."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from rentals import QUICK, Between, Rental, left_over, rental

from orchestrator.aws.cloud import AwsCloud
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.errors import OrchestratorError

CALLS = ("create_security_group", "allow_ssh", "import_key_pair", "run_instances", "instance")
NUMBER = count(1)


@pytest.fixture
def rented(mock: MockedCloud, cloud: AwsCloud, tmp_path: Path) -> Rental:
    mock.play(QUICK)
    return rental(cloud, tmp_path, f"run-{next(NUMBER)}")


def play(mock: MockedCloud, **failure: Any) -> None:
    mock.play({**QUICK, "fail": [failure]})


def outcome_of_launch(rented: Rental) -> str:
    try:
        rented.launch()
    except (OrchestratorError, KeyboardInterrupt) as error:
        return type(error).__name__
    return "launched"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_at_any_call_of_launch_leaves_nothing(
    mock: MockedCloud, cloud: AwsCloud, rented: Rental, name: str, after: bool
):
    def interrupt(called: str) -> None:
        if called == name:
            raise KeyboardInterrupt

    rented.reader = rented.writer = Between(cloud, interrupt, after=after)
    assert outcome_of_launch(rented) == "KeyboardInterrupt"
    rented.reader = rented.writer = cloud
    report = rented.teardown()
    assert report.survivors == ()
    assert left_over(mock, rented.plan.run_id) == set()


@pytest.mark.parametrize("lasting", [1, 99], ids=["once", "for good"])
@pytest.mark.parametrize(
    "failure",
    [
        {"hang_up": True},
        {"hang_up": True, "after": True},
        {"code": "InternalError", "after": True},
        {"code": "UnauthorizedOperation"},
    ],
    ids=["no answer", "answer lost", "error after it was done", "right missing"],
)
@pytest.mark.parametrize("action", ["CreateSecurityGroup", "ImportKeyPair", "RunInstances"])
def test_a_failure_at_any_creation_leaves_nothing(
    mock: MockedCloud, rented: Rental, action: str, failure: dict[str, Any], lasting: int
):
    play(mock, action=action, times=lasting, **failure)
    ended = outcome_of_launch(rented)
    if lasting == 1 and failure.get("code") != "UnauthorizedOperation":
        assert ended == "launched"
    elif failure.get("code") == "UnauthorizedOperation":
        assert ended == "PermissionMissing"
    mock.play(QUICK)
    report = rented.teardown()
    assert report.survivors == ()
    assert left_over(mock, rented.plan.run_id) == set()


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "ExpiredToken"])
@pytest.mark.parametrize(
    "action",
    [
        "DescribeInstances",
        "TerminateInstances",
        "DescribeKeyPairs",
        "DeleteKeyPair",
        "DeleteSecurityGroup",
        "DescribeVolumes",
        "GetCallerIdentity",
    ],
)
def test_whatever_a_failing_call_of_teardown_leaves_is_listed(
    mock: MockedCloud, rented: Rental, action: str, code: str
):
    run_id = rented.plan.run_id
    rented.launch()
    # A use of the group ends with the instance, which is not to be waited for here.
    play(mock, action=action, times=99, code=code)
    report = rented.teardown()
    left = {name for name in left_over(mock, run_id) if name.split()[0] not in {"volume", "network"}}
    assert left <= set(report.survivors)
    assert report.survivors or action == "GetCallerIdentity"
    assert "key pair" in " ".join(report.deleted) or "KeyPair" in action, "one failure stopped the others"
    mock.play(QUICK)
    assert rented.teardown().survivors == ()
    assert left_over(mock, run_id) == set()


def test_an_interrupt_of_teardown_rises_and_teardown_can_be_repeated(
    mock: MockedCloud, cloud: AwsCloud, rented: Rental
):
    def interrupt(called: str) -> None:
        if called == "delete_key_pair":
            raise KeyboardInterrupt

    rented.launch()
    rented.writer = Between(cloud, interrupt)
    with pytest.raises(KeyboardInterrupt):
        rented.teardown()
    rented.writer = cloud
    assert rented.teardown().survivors == ()
    assert left_over(mock, rented.plan.run_id) == set()


def test_a_ledger_that_ends_in_the_middle_of_a_line_still_gives_everything_back(mock: MockedCloud, rented: Rental):
    rented.launch()
    text = rented.path.read_text()
    rented.path.write_text(text[: text.rindex('"created"') - 30])
    assert rented.teardown().survivors == ()
    assert left_over(mock, rented.plan.run_id) == set()
