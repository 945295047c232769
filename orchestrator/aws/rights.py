"""What the caller may do, asked as EC2's dry runs: nothing is created."""

from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from orchestrator.aws.errors import translated
from orchestrator.aws.requests import (
    create_placement_group,
    create_security_group,
    import_key_pair,
    run_instances,
)
from orchestrator.errors import RunFailed
from orchestrator.resources import LaunchRequest

_WOULD_WORK = "DryRunOperation"
_SOME_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
"""The public half of no key: nobody holds a private one to it."""


def rights(creator: Any, request: LaunchRequest, *, vpc_id: str) -> Mapping[str, str]:
    """For each action that begins a rental what AWS says against it; empty where it would be allowed. The launch is
    asked for without groups and key pair, which do not exist yet.
    """
    name = "launch-and-train-doctor"
    later = {"KeyName", "ClientToken", "Placement"}
    launch = {key: value for key, value in run_instances(request).items() if key not in later}
    launch["NetworkInterfaces"] = [
        {k: v for k, v in one.items() if k != "Groups"} for one in launch["NetworkInterfaces"]
    ]
    asked: Mapping[str, tuple[Callable[..., Any], Mapping[str, Any]]] = {
        "ec2:CreateSecurityGroup": (
            creator.create_security_group,
            create_security_group(name, vpc_id=vpc_id, tags=request.tags),
        ),
        "ec2:ImportKeyPair": (
            creator.import_key_pair,
            import_key_pair(name, public_openssh=_SOME_KEY, tags=request.tags),
        ),
        "ec2:RunInstances": (creator.run_instances, launch),
    }
    if request.count > 1:
        cluster = create_placement_group(name, tags=request.tags)
        asked = {"ec2:CreatePlacementGroup": (creator.create_placement_group, cluster), **asked}
    return {action: _refusal(action, call, parameters) for action, (call, parameters) in asked.items()}


def _refusal(action: str, call: Callable[..., Any], parameters: Mapping[str, Any]) -> str:
    try:
        with translated(f"asking whether {action} is allowed"):
            try:
                call(DryRun=True, **parameters)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != _WOULD_WORK:
                    raise
    except RunFailed as error:
        return str(error)
    return ""
