"""The one table of AWS's error codes: what each is to us, and what to do about it in one line. The class decides what
happens (`errors.py` tells its next move); the advice is for whoever reads the message when nothing else can be done.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import (
    AlreadyExists,
    CloudRefused,
    CloudUnavailable,
    CredentialsMissing,
    HostUnreachable,
    InstanceDied,
    NoCapacity,
    PermissionMissing,
    QuotaExceeded,
    RunFailed,
    StillInUse,
)


@dataclass(frozen=True, slots=True)
class Reaction:
    """Our error for a code, or `None` where the caller decides what something missing means; and the advice."""

    error: type[RunFailed] | None
    advice: str


_ANOTHER = "try again later, or allow more instance types or the other market"
_LOG_IN = "log in again, and check this machine's clock"
_LATER = "AWS is busy or failing: try again in some minutes"
_POLICY = "see infra/iam-policy.json"
_SSM = "it takes a minute to report; its image must have the agent, its role AmazonSSMManagedInstanceCore"
_BUCKETS = "see PassMachineRolePolicy in infra/cloudformation"
_OTHERS = "something else still uses it: look at it in the EC2 console"
_AMI = "image ids differ from region to region: check id, region and whether it is shared with this account"
_BUG = "image, instance type and settings do not go together; if none of yours is to blame, report this message"

_GROUPS: Mapping[Reaction, tuple[str, ...]] = {
    # The next offer may be had.
    Reaction(NoCapacity, _ANOTHER): (
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientCapacity",
        "InsufficientReservedInstanceCapacity",
    ),
    Reaction(NoCapacity, "AWS asks more for spot than the most you pay: use the market on_demand"): (
        "SpotMaxPriceTooLow",
    ),
    Reaction(NoCapacity, "the reserved capacity is used up"): ("ReservationCapacityExceeded",),
    Reaction(NoCapacity, "the zone does not have the type: another zone of the message may"): ("Unsupported",),
    Reaction(NoCapacity, "the subnet has no free addresses: free some, or make another"): (
        "InsufficientFreeAddressesInSubnet",
    ),
    # Another class of types or another market may be had.
    Reaction(QuotaExceeded, ""): ("VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded"),
    # A person has to do something.
    Reaction(PermissionMissing, _POLICY): ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"),
    # S3's answers to HEAD have no body, and so no code.
    Reaction(PermissionMissing, _BUCKETS): ("403",),
    Reaction(PermissionMissing, "the first spot request of an account makes a role: see infra/iam-policy.json"): (
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    ),
    Reaction(CredentialsMissing, _LOG_IN): (
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
    Reaction(CloudRefused, "the region or the product is not enabled for this account"): ("OptInRequired",),
    Reaction(CloudRefused, "AWS is still verifying the account for this region; this may take hours"): (
        "PendingVerification",
    ),
    Reaction(CloudRefused, "AWS has blocked the account: ask its support"): ("Blocked",),
    Reaction(CloudRefused, _BUG): (
        "InvalidParameter",
        "InvalidParameterCombination",
        "InvalidParameterValue",
        "MissingParameter",
        "UnknownParameter",
        "UnsupportedOperation",
        "ValidationError",
    ),
    Reaction(CloudRefused, "set volume_gib to at least what the message says"): ("InvalidBlockDeviceMapping",),
    Reaction(CloudRefused, "check the name of the instance type and the region"): (
        "InvalidInstanceType",
        "InvalidInstanceType.NotFound",
    ),
    Reaction(CloudRefused, "the key is not one that EC2 takes; report this message"): (
        "InvalidKey.Format",
        "InvalidKeyPair.Format",
    ),
    Reaction(CloudRefused, "delete what is not needed, or ask AWS for a higher quota"): (
        "PlacementGroupLimitExceeded",
        "RulesPerSecurityGroupLimitExceeded",
        "SecurityGroupLimitExceeded",
        "VpcLimitExceeded",
    ),
    Reaction(CloudRefused, "there is no default VPC: `aws ec2 create-default-vpc` makes one"): (
        "MissingInput",
        "VPCIdNotSpecified",
        "VPCResourceNotSpecified",
    ),
    Reaction(CloudRefused, "termination protection was switched on by somebody: switch it off in the EC2 console"): (
        "OperationNotPermitted",
    ),
    Reaction(CloudRefused, "delete volumes that are not needed, or ask AWS for a higher quota of EBS"): (
        "MaxIOPSLimitExceeded",
        "VolumeLimitExceeded",
    ),
    Reaction(CloudRefused, "choose an instance type whose volumes can be encrypted"): ("EncryptedVolumesNotSupported",),
    Reaction(CloudRefused, "infra/first-boot.yaml is not what EC2 takes: see the message"): (
        "InvalidUserData.Malformed",
    ),
    Reaction(CloudRefused, "a tag policy of the organisation forbids our tags: ask its owner"): (
        "InvalidTagKey.Malformed",
        "TagLimitExceeded",
        "TagPolicyViolation",
    ),
    Reaction(CloudRefused, "an id of this form does not exist"): ("InvalidInstanceID.Malformed",),
    # The same call may work later.
    Reaction(CloudUnavailable, _LATER): (
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
    Reaction(StillInUse, _OTHERS): (
        "DependencyViolation",
        "IncorrectInstanceState",
        "IncorrectState",
        "InvalidGroup.InUse",
        "InvalidPlacementGroup.InUse",
        "ResourceInUse",
        "VolumeInUse",
    ),
    # Something of that name or token was there before.
    Reaction(AlreadyExists, "start the run again"): (
        "IdempotentParameterMismatch",
        "InvalidGroup.Duplicate",
        "InvalidKeyPair.Duplicate",
        "InvalidPermission.Duplicate",
        "InvalidPlacementGroup.Duplicate",
    ),
    Reaction(HostUnreachable, _SSM): ("TargetNotConnected",),
    Reaction(InstanceDied, "start the run again"): ("IdempotentInstanceTerminated",),
    # Not there: too early, already gone or never so, which the caller knows.
    Reaction(None, _AMI): ("InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable"),
    Reaction(None, ""): (
        "404",
        "InvalidGroup.NotFound",
        "InvalidGroupId.Malformed",
        "InvalidInstanceID.NotFound",
        "InvalidKeyPair.NotFound",
        "InvalidPermission.NotFound",
        "InvalidPlacementGroup.Unknown",
        "InvalidSubnetID.NotFound",
        "InvalidVolume.NotFound",
        "NoSuchBucket",
        "NoSuchKey",
        "NoSuchResourceException",
        "ParameterNotFound",
    ),
}
_BY_CODE = {code: reaction for reaction, codes in _GROUPS.items() for code in codes}
_SERVER_FAULT = 500


def reaction_to(code: str, *, status: int) -> Reaction:
    """The reaction to a code; to one that nobody knows by the HTTP status of the answer."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    return Reaction(CloudUnavailable, _LATER) if status >= _SERVER_FAULT else Reaction(CloudRefused, "")


def known_codes() -> Mapping[str, Reaction]:
    """The whole table."""
    return _BY_CODE
