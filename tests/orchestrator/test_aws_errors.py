from typing import Any

import botocore.exceptions
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from orchestrator import errors
from orchestrator.aws.codes import known_codes
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


LISTED = [
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientCapacity",
    "InsufficientReservedInstanceCapacity",
    "VcpuLimitExceeded",
    "InstanceLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "ReservationCapacityExceeded",
    "Unsupported",
    "UnsupportedOperation",
    "UnauthorizedOperation",
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "MissingAuthenticationToken",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "EC2ThrottledException",
    "InternalError",
    "InternalFailure",
    "ServerInternal",
    "Unavailable",
    "ServiceUnavailable",
    "InvalidAMIID.NotFound",
    "InvalidAMIID.Unavailable",
    "InvalidAMIID.Malformed",
    "InvalidParameterValue",
    "InvalidParameterCombination",
    "InvalidParameter",
    "MissingParameter",
    "UnknownParameter",
    "ValidationError",
    "InvalidBlockDeviceMapping",
    "InvalidInstanceType",
    "InvalidInstanceType.NotFound",
    "InvalidKeyPair.Duplicate",
    "InvalidGroup.Duplicate",
    "InvalidKeyPair.NotFound",
    "InvalidKey.Format",
    "InvalidKeyPair.Format",
    "InvalidGroup.NotFound",
    "InvalidGroupId.Malformed",
    "InvalidPermission.Duplicate",
    "InvalidPermission.NotFound",
    "RulesPerSecurityGroupLimitExceeded",
    "SecurityGroupLimitExceeded",
    "VpcLimitExceeded",
    "InvalidSubnetID.NotFound",
    "InsufficientFreeAddressesInSubnet",
    "VPCIdNotSpecified",
    "VPCResourceNotSpecified",
    "MissingInput",
    "IdempotentParameterMismatch",
    "IdempotentInstanceTerminated",
    "InvalidInstanceID.NotFound",
    "InvalidInstanceID.Malformed",
    "IncorrectInstanceState",
    "IncorrectState",
    "OperationNotPermitted",
    "DependencyViolation",
    "InvalidGroup.InUse",
    "ResourceInUse",
    "OptInRequired",
    "PendingVerification",
    "Blocked",
    "VolumeLimitExceeded",
    "MaxIOPSLimitExceeded",
    "EncryptedVolumesNotSupported",
    "InvalidUserData.Malformed",
    "TagPolicyViolation",
    "TagLimitExceeded",
    "InvalidTagKey.Malformed",
    "ParameterNotFound",
    "NoSuchResourceException",
]
"""What EC2, SSM and the quotas may answer to us."""


def test_every_code_has_its_reaction_and_whoever_ends_a_run_its_advice():
    table = known_codes()
    assert [code for code in LISTED if code not in table] == []
    told_elsewhere = {"QuotaExceeded"}  # by the launch, which knows the quota
    for code, reaction in table.items():
        assert "\n" not in reaction.advice
        if reaction.error is not None and reaction.error.__name__ not in told_elsewhere:
            assert reaction.advice, code
            assert str(ours(refused(code))).count(reaction.advice) == 1
