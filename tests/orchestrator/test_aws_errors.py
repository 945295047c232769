from typing import Any

import botocore.exceptions
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from orchestrator import errors
from orchestrator.aws.errors import translated


def refused(code: str, message: str = "words", status: int = 400) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "RunInstances")


def ours(error: Exception, **options: Any) -> errors.RunFailed:
    with pytest.raises(errors.RunFailed) as raised, translated("starting g6.xlarge", **options):
        raise error
    assert raised.value.__cause__ is error
    return raised.value


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("InsufficientInstanceCapacity", "NoCapacity"),
        ("Unsupported", "NoCapacity"),
        ("InsufficientFreeAddressesInSubnet", "NoCapacity"),
        ("SpotMaxPriceTooLow", "NoCapacity"),
        ("VcpuLimitExceeded", "QuotaExceeded"),
        ("MaxSpotInstanceCountExceeded", "QuotaExceeded"),
        ("UnauthorizedOperation", "PermissionMissing"),
        ("AccessDeniedException", "PermissionMissing"),
        ("AuthFailure", "CredentialsMissing"),
        ("ExpiredToken", "CredentialsMissing"),
        ("RequestExpired", "CredentialsMissing"),
        ("RequestLimitExceeded", "CloudUnavailable"),
        ("InternalError", "CloudUnavailable"),
        ("DependencyViolation", "StillInUse"),
        ("VolumeInUse", "StillInUse"),
        ("InvalidGroup.Duplicate", "AlreadyExists"),
        ("IdempotentParameterMismatch", "AlreadyExists"),
        ("IdempotentInstanceTerminated", "InstanceDied"),
        ("InvalidInstanceID.NotFound", "AlreadyGone"),
        ("InvalidGroup.NotFound", "AlreadyGone"),
        ("OptInRequired", "CloudRefused"),
        ("PendingVerification", "CloudRefused"),
        ("InvalidParameterCombination", "CloudRefused"),
        ("OperationNotPermitted", "CloudRefused"),
        ("SomethingNobodyKnows", "CloudRefused"),
    ],
)
def test_each_code_has_one_class(code: str, expected: str):
    error = ours(refused(code))
    assert type(error).__name__ == expected
    assert str(error).startswith(f"starting g6.xlarge: {code}: words")


def test_an_unknown_code_of_a_broken_server_may_be_tried_again():
    assert type(ours(refused("Strange", status=502))) is errors.CloudUnavailable


def test_what_is_missing_is_what_the_caller_says_it_is():
    error = ours(refused("InvalidGroup.NotFound"), missing=errors.NotYetVisible)
    assert type(error) is errors.NotYetVisible


def test_a_missing_right_is_named_and_the_unreadable_part_left_out():
    message = "You are not authorized. Encoded authorization failure message: " + "x" * 3000
    said = str(ours(refused("UnauthorizedOperation", message)))
    assert "must allow ec2:RunInstances" in said
    assert "xxx" not in said


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (botocore.exceptions.NoCredentialsError(), "CredentialsMissing"),
        (botocore.exceptions.ProfileNotFound(profile="me"), "CredentialsMissing"),
        (botocore.exceptions.UnauthorizedSSOTokenError(), "CredentialsMissing"),
        (botocore.exceptions.TokenRetrievalError(provider="sso", error_msg="over"), "CredentialsMissing"),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"), "CloudUnavailable"),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"), "CloudUnavailable"),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="http://x"), "CloudUnavailable"),
        (ResponseParserError("<html>"), "CloudUnavailable"),
    ],
)
def test_what_botocore_raises_by_itself_is_translated(error: Exception, expected: str):
    assert type(ours(error)).__name__ == expected


def test_a_mistake_of_our_own_rises_untouched():
    with pytest.raises(botocore.exceptions.ParamValidationError), translated("x"):
        raise botocore.exceptions.ParamValidationError(report="no such field")
