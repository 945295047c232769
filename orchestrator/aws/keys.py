"""Key pairs at EC2: import and delete. Private halves are unknown here."""

from collections.abc import Mapping
from typing import Any

from orchestrator.aws.errors import translated
from orchestrator.aws.requests import import_key_pair


def import_key(creator: Any, name: str, *, public_openssh: str, tags: Mapping[str, str]) -> str:
    """Import an ed25519 public key; returns AWS's fingerprint. `AlreadyExists` if the name is taken."""
    with translated(f"importing the key pair {name}"):
        told = creator.import_key_pair(**import_key_pair(name, public_openssh=public_openssh, tags=tags))
    return told["KeyFingerprint"]


def delete_key(ec2: Any, name: str) -> None:
    """Delete by name. `AlreadyGone` if there is none: EC2's own answer would not tell."""
    with translated(f"deleting the key pair {name}"):
        ec2.describe_key_pairs(KeyNames=[name])
        ec2.delete_key_pair(KeyName=name)
