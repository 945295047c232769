"""The only table from AWS error codes to ours, and the one place where botocore's exceptions are
translated.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    LoginError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError

from orchestrator.errors import (
    AlreadyExists,
    AlreadyGone,
    CloudRefused,
    CloudUnavailable,
    CredentialsMissing,
    InstanceDied,
    NoCapacity,
    PermissionMissing,
    QuotaExceeded,
    RunFailed,
    StillInUse,
)

_CODES: Mapping[type[RunFailed], tuple[str, ...]] = {
    NoCapacity: (
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientFreeAddressesInSubnet",
        "ReservationCapacityExceeded",
        "SpotMaxPriceTooLow",
        "Unsupported",
    ),
    QuotaExceeded: ("VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded"),
    PermissionMissing: ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"),
    CredentialsMissing: (
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    ),
    CloudUnavailable: (
        "EC2ThrottledException",
        "InternalError",
        "InternalFailure",
        "RequestLimitExceeded",
        "ServerInternal",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "Unavailable",
    ),
    StillInUse: (
        "DependencyViolation",
        "IncorrectInstanceState",
        "IncorrectState",
        "InvalidGroup.InUse",
        "ResourceInUse",
        "VolumeInUse",
    ),
    AlreadyExists: (
        "IdempotentParameterMismatch",
        "InvalidGroup.Duplicate",
        "InvalidKeyPair.Duplicate",
        "InvalidPermission.Duplicate",
    ),
    InstanceDied: ("IdempotentInstanceTerminated",),
}
_BY_CODE = {code: error for error, codes in _CODES.items() for code in codes}
_NOT_THERE = frozenset(
    {
        "InvalidAMIID.NotFound",
        "InvalidAMIID.Malformed",
        "InvalidAMIID.Unavailable",
        "InvalidGroup.NotFound",
        "InvalidGroupId.Malformed",
        "InvalidInstanceID.NotFound",
        "InvalidKeyPair.NotFound",
        "InvalidVolume.NotFound",
        "NoSuchResourceException",
        "ParameterNotFound",
    }
)
_SERVER_FAULT = 500
_LONGEST = 400
_NOT_LOGGED_IN = (
    CredentialRetrievalError,
    LoginError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)


@contextmanager
def translated(doing: str, *, service: str = "ec2", missing: type[RunFailed] = AlreadyGone) -> Generator[None]:
    """Turn what AWS and botocore raise inside the block into our errors. `doing` opens the message;
    `missing` is raised for what is not there; `service` is the prefix of the action's name in IAM.
    """
    try:
        yield
    except ClientError as error:
        raise _ours(error, doing, service=service, missing=missing) from error
    except _NOT_LOGGED_IN as error:
        raise CredentialsMissing(f"{doing}: {error}; log in, say with `aws sso login`") from error
    except (HTTPClientError, NoConnection) as error:
        raise CloudUnavailable(f"{doing}: AWS cannot be reached: {error}") from error
    except ResponseParserError as error:
        raise CloudUnavailable(f"{doing}: AWS's answer cannot be read: {_short(str(error))}") from error


def _ours(error: ClientError, doing: str, *, service: str, missing: type[RunFailed]) -> RunFailed:
    details = error.response.get("Error", {})
    code, message = details.get("Code", ""), _short(details.get("Message", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _NOT_THERE:
        kind = missing
    else:
        kind = _BY_CODE.get(code, CloudUnavailable if status >= _SERVER_FAULT else CloudRefused)
    said = f"{doing}: {code}: {message}"
    if kind is PermissionMissing:
        action = f"{service}:{error.operation_name}"
        return kind(f"{said}; the caller's policy must allow {action} (see infra/iam-policy.json)")
    if kind is CredentialsMissing:
        return kind(f"{said}; log in again, and check this machine's clock")
    return kind(said)


def _short(text: str) -> str:
    """One line, without the page-long token that explains a refusal to machines only."""
    line = " ".join(text.partition("Encoded authorization failure message")[0].split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
