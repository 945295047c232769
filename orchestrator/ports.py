"""The protocols between the story and the world: `CloudReader`, `CloudWriter`, `Storage`, `Session`, `Clock`.
Adapters implement them and raise only errors of `errors.py`; `tests/contract/` holds them to it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from orchestrator.resources import (
    Account,
    CommandResult,
    Host,
    Image,
    Instance,
    InstanceType,
    Kind,
    LaunchRequest,
    Network,
    Price,
    Quota,
    Stored,
    Tagged,
    Way,
)


class Clock(Protocol):
    """Time, so that tests need not wait."""

    def now(self) -> datetime:
        """The present, aware UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        ...


class CloudReader(Protocol):
    """Looks and changes nothing. One region. Any call may raise `CredentialsMissing`,
    `PermissionMissing` or `CloudUnavailable`.
    """

    @property
    def region(self) -> str:
        """The region every answer is about."""
        ...

    def account(self) -> Account:
        """Who calls."""
        ...

    def server_time(self) -> datetime | None:
        """AWS's present, or `None` if it does not tell."""
        ...

    def rights(self, request: LaunchRequest, *, vpc_id: str) -> Mapping[str, str]:
        """For each action that begins a rental what AWS says against it, empty where it would be allowed.
        Nothing is created. The request's group and key pair are left out.
        """
        ...

    def parameter(self, name: str) -> str | None:
        """Value of a public SSM parameter, or `None` if there is none of that name."""
        ...

    def image(self, image_id: str) -> Image | None:
        """The image, or `None` if the region has none of that id."""
        ...

    def images(self, owner_id: str, name_pattern: str) -> tuple[Image, ...]:
        """Available images of one owner whose name matches (`*`, `?`), newest first."""
        ...

    def instance_types(self, names: Sequence[str]) -> tuple[InstanceType, ...]:
        """Those of `names` that exist, in that order."""
        ...

    def gpu_types(self) -> tuple[InstanceType, ...]:
        """Every type of the region that has whole GPUs by NVIDIA, by name."""
        ...

    def zones(self, instance_types: Sequence[str]) -> Mapping[str, frozenset[str]]:
        """Zones that offer each type."""
        ...

    def default_network(self) -> Network | None:
        """The default VPC, or `None` if the account has none."""
        ...

    def on_demand_prices(self, instance_types: Sequence[str]) -> Mapping[str, Price]:
        """By type (Linux, shared tenancy); without those for which the price list has none or several."""
        ...

    def spot_prices(self, instance_types: Sequence[str]) -> Mapping[tuple[str, str], Price]:
        """Now in force, by type and zone."""
        ...

    def quotas(self, ways: Sequence[Way]) -> Mapping[Way, Quota]:
        """The vCPU quota that covers each; without those for which it cannot be told."""
        ...

    def vcpus_in_use(self, ways: Sequence[Way]) -> Mapping[Way, int]:
        """vCPUs that pending and running instances take from the quota that covers each."""
        ...

    def caller_address(self) -> str:
        """The public IPv4 address from which the caller reaches the Internet."""
        ...

    def instance(self, instance_id: str) -> Instance:
        """The instance. Raises `NotYetVisible` where EC2 does not know the id."""
        ...

    def instances_of_token(self, client_token: str) -> tuple[Instance, ...]:
        """Instances created with this client token, in any state."""
        ...

    def tagged(self, run_id: str | None = None, *, kinds: Sequence[Kind] = tuple(Kind)) -> tuple[Tagged, ...]:
        """Everything of ours in the region that still exists (terminated instances excluded)."""
        ...

    def regions(self) -> tuple[str, ...]:
        """Regions enabled for the account."""
        ...


class CloudWriter(Protocol):
    """Creates and deletes. Deletes raise `AlreadyGone` for what is not there, `StillInUse` for
    what is held. Every create carries its tags in the creating call.
    """

    def create_security_group(self, name: str, *, vpc_id: str, tags: Mapping[str, str]) -> str:
        """Create an empty group; returns its id. `AlreadyExists` if the name is taken."""
        ...

    def allow_ssh(self, group_id: str, *, cidr: str, tags: Mapping[str, str]) -> None:
        """Admit `cidr` on TCP port 22; already so is fine."""
        ...

    def revoke_ssh(self, group_id: str, *, cidr: str) -> None:
        """Admit `cidr` on TCP port 22 no longer; already so is fine."""
        ...

    def allow_members(self, group_id: str, *, efa: bool, tags: Mapping[str, str]) -> None:
        """Let whatever is in the group reach each other over TCP, and over an EFA if so; already so is fine."""
        ...

    def create_placement_group(self, name: str, *, tags: Mapping[str, str]) -> None:
        """Create a group whose instances stand close together. `AlreadyExists` if the name is taken."""
        ...

    def import_key_pair(self, name: str, *, public_openssh: str, tags: Mapping[str, str]) -> str:
        """Import an ed25519 public key; returns AWS's fingerprint."""
        ...

    def run_instances(self, request: LaunchRequest) -> tuple[Instance, ...]:
        """Start as many as the request counts, or none. Repeating it with its token returns the same instances."""
        ...

    def terminate_instance(self, instance_id: str) -> None:
        """Ask for termination; repeating it is harmless."""
        ...

    def delete_key_pair(self, name: str) -> None:
        """Delete by name."""
        ...

    def delete_security_group(self, group_id: str) -> None:
        """Delete by id."""
        ...

    def delete_placement_group(self, name: str) -> None:
        """Delete by name."""
        ...

    def delete_volume(self, volume_id: str) -> None:
        """Delete a volume that is attached to nothing."""
        ...


class Storage(Protocol):
    """Looks into buckets and changes nothing there; what a run leaves in one its machine puts there. Any call may raise
    `CredentialsMissing`, `PermissionMissing` or `CloudUnavailable`.
    """

    def region_of(self, bucket: str) -> str | None:
        """The region a bucket is in, or `None` if there is no such bucket."""
        ...

    def names(self, bucket: str, prefix: str) -> tuple[str, ...]:
        """What follows `prefix` in the keys of the bucket that begin with it, in order."""
        ...

    def look(self, bucket: str, key: str) -> Stored | None:
        """The object, or `None` if there is none of that key."""
        ...

    def read(self, bucket: str, key: str) -> bytes | None:
        """What a small object holds, or `None` if there is none of that key."""
        ...

    def download(self, bucket: str, key: str, local: Path) -> Stored:
        """Download an object into `local` as it is. `AlreadyGone` if there is none of that key."""
        ...


class Session(Protocol):
    """An open line to a host. Remote paths are relative to the login user's home. Raises
    `HostUnreachable` when the line breaks.
    """

    def run(
        self, command: Sequence[str], *, timeout_seconds: float = 60.0, stdin: bytes | None = None
    ) -> CommandResult:
        """Run an argument list (quoted here, once) and wait for it."""
        ...

    def put(self, source: Path | BinaryIO, remote: str, *, on_bytes: Callable[[int], None] | None = None) -> None:
        """Upload a file, or what a stream holds up to its end, over SFTP to a temporary name, then rename. `on_bytes`
        gets bytes sent so far.
        """
        ...

    def get(self, remote: str, local: Path, *, on_bytes: Callable[[int], None] | None = None) -> None:
        """Download into `local` as it is; `on_bytes` gets bytes received so far."""
        ...

    def read(self, remote: str, *, offset: int = 0) -> bytes:
        """Bytes of a file from `offset` to its present end; empty if the file is not there."""
        ...

    def close(self) -> None:
        """Hang up; harmless when already closed."""
        ...


class Connect(Protocol):
    """Dials a host."""

    def __call__(self, host: Host) -> Session:
        """An open session. `HostUnreachable` if nobody answers (or not yet), `HostKeyMismatch`
        if another machine does.
        """
        ...
