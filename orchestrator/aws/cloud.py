"""AWS as the story sees it: the functions of this package gathered into a `CloudReader` and a
`CloudWriter` of one region. Policy and order of work are unknown here.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from orchestrator.aws import images, instances, keys, network, pricing, quotas
from orchestrator.aws.clients import Clients
from orchestrator.aws.errors import translated
from orchestrator.aws.rights import rights
from orchestrator.aws.tagged import tagged
from orchestrator.errors import CloudUnavailable
from orchestrator.resources import (
    Account,
    Image,
    Instance,
    InstanceType,
    Kind,
    LaunchRequest,
    Network,
    Price,
    Quota,
    Tagged,
    Way,
)


class AwsCloud:
    """Reads from and writes to AWS through real boto3 clients; raises only errors of `errors.py`."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._ec2 = clients.ec2

    @property
    def region(self) -> str:
        """The region every answer is about."""
        return self._clients.region

    def account(self) -> Account:
        """Who calls."""
        with translated("asking AWS who we are", service="sts"):
            told = self._clients.sts.get_caller_identity()
        return Account(account_id=told["Account"], arn=told["Arn"])

    def server_time(self) -> datetime | None:
        """AWS's present, or `None` if it does not tell."""
        with translated("asking AWS for its time", service="sts"):
            told = self._clients.sts.get_caller_identity()
        date = told["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date) if date else None

    def rights(self, request: LaunchRequest, *, vpc_id: str) -> Mapping[str, str]:
        """For each action that begins a rental what AWS says against it, empty where it would be allowed."""
        return rights(self._clients.creator, request, vpc_id=vpc_id)

    def parameter(self, name: str) -> str | None:
        """Value of a public SSM parameter, or `None` if there is none of that name."""
        return images.parameter(self._clients.ssm, name)

    def image(self, image_id: str) -> Image | None:
        """The image, or `None` if the region has none of that id."""
        return images.image(self._ec2, image_id)

    def images(self, owner_id: str, name_pattern: str) -> tuple[Image, ...]:
        """Available images of one owner whose name matches (`*`, `?`), newest first."""
        return images.images(self._ec2, owner_id, name_pattern)

    def instance_types(self, names: Sequence[str]) -> tuple[InstanceType, ...]:
        """Those of `names` that exist, in that order."""
        return instances.instance_types(self._ec2, names)

    def gpu_types(self) -> tuple[InstanceType, ...]:
        """Every type of the region that has whole GPUs by NVIDIA, by name."""
        return instances.gpu_types(self._ec2)

    def zones(self, instance_types: Sequence[str]) -> Mapping[str, frozenset[str]]:
        """Zones that offer each type."""
        return instances.zones(self._ec2, instance_types)

    def default_network(self) -> Network | None:
        """The default VPC, or `None` if the account has none."""
        return network.default_network(self._ec2)

    def on_demand_prices(self, instance_types: Sequence[str]) -> Mapping[str, Price]:
        """By type (Linux, shared tenancy); without those for which the price list has none or several."""
        return pricing.on_demand_prices(self._clients.pricing, instance_types, region=self.region)

    def spot_prices(self, instance_types: Sequence[str]) -> Mapping[tuple[str, str], Price]:
        """Now in force, by type and zone."""
        return pricing.spot_prices(self._ec2, instance_types, now=datetime.now(UTC))

    def quotas(self, ways: Sequence[Way]) -> Mapping[Way, Quota]:
        """The vCPU quota that covers each; without those for which it cannot be told."""
        return quotas.quotas(self._clients.quotas, ways)

    def vcpus_in_use(self, ways: Sequence[Way]) -> Mapping[Way, int]:
        """vCPUs that pending and running instances take from the quota that covers each."""
        running = instances.running_vcpus(self._ec2) if any(map(quotas.code_of, ways)) else ()
        return quotas.in_use(running, ways)

    def caller_address(self) -> str:
        """The public IPv4 address from which the caller reaches the Internet."""
        try:
            answer = self._clients.ask_address()
        except OSError as error:
            raise CloudUnavailable(
                f"asking {self._clients.address_url} for your public address: {error}; "
                "try again, or set ingress_cidr in the run spec"
            ) from error
        return network.caller_address(answer)

    def instance(self, instance_id: str) -> Instance:
        """The instance. Raises `NotYetVisible` where EC2 does not know the id."""
        return instances.instance(self._ec2, instance_id)

    def instances_of_token(self, client_token: str) -> tuple[Instance, ...]:
        """Instances created with this client token, in any state."""
        return instances.instances_of_token(self._ec2, client_token)

    def tagged(self, run_id: str | None = None, *, kinds: Sequence[Kind] = tuple(Kind)) -> tuple[Tagged, ...]:
        """Everything of ours in the region that still exists (terminated instances excluded)."""
        return tagged(self._ec2, self.region, run_id, kinds=kinds)

    def regions(self) -> tuple[str, ...]:
        """Regions enabled for the account."""
        return network.regions(self._ec2)

    def create_security_group(self, name: str, *, vpc_id: str, tags: Mapping[str, str]) -> str:
        """Create an empty group; returns its id. `AlreadyExists` if the name is taken."""
        return network.create_group(self._clients.creator, name, vpc_id=vpc_id, tags=tags)

    def allow_ssh(self, group_id: str, *, cidr: str, tags: Mapping[str, str]) -> None:
        """Admit `cidr` on TCP port 22; already so is fine. `NotYetVisible` if the group is not seen."""
        network.admit(self._ec2, group_id, cidr=cidr, tags=tags)

    def revoke_ssh(self, group_id: str, *, cidr: str) -> None:
        """Admit `cidr` on TCP port 22 no longer; already so is fine."""
        network.turn_away(self._ec2, group_id, cidr=cidr)

    def allow_members(self, group_id: str, *, efa: bool, tags: Mapping[str, str]) -> None:
        """Let members of the group reach each other; already so is fine. `NotYetVisible` if it is not seen."""
        network.admit_members(self._ec2, group_id, efa=efa, tags=tags)

    def create_placement_group(self, name: str, *, tags: Mapping[str, str]) -> None:
        """Create a group whose instances stand close together. `AlreadyExists` if the name is taken."""
        network.create_cluster(self._clients.creator, name, tags=tags)

    def import_key_pair(self, name: str, *, public_openssh: str, tags: Mapping[str, str]) -> str:
        """Import an ed25519 public key; returns AWS's fingerprint. `AlreadyExists` if the name is taken."""
        return keys.import_key(self._clients.creator, name, public_openssh=public_openssh, tags=tags)

    def run_instances(self, request: LaunchRequest) -> tuple[Instance, ...]:
        """Start as many as asked for, or none. Repeating a request with its token returns the same ones;
        another request with it is `AlreadyExists`. `NotYetVisible` if key pair or groups are not seen yet.
        """
        return instances.run(self._clients.creator, request)

    def terminate_instance(self, instance_id: str) -> None:
        """Ask for termination; repeating it is harmless. `AlreadyGone` once it is over."""
        instances.terminate(self._ec2, instance_id)

    def delete_key_pair(self, name: str) -> None:
        """Delete by name."""
        keys.delete_key(self._ec2, name)

    def delete_security_group(self, group_id: str) -> None:
        """Delete by id."""
        network.delete_group(self._ec2, group_id)

    def delete_placement_group(self, name: str) -> None:
        """Delete by name."""
        network.delete_cluster(self._ec2, name)

    def delete_volume(self, volume_id: str) -> None:
        """Delete a volume that is attached to nothing."""
        with translated(f"deleting {volume_id}"):
            self._ec2.delete_volume(VolumeId=volume_id)
