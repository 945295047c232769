"""The nouns: frozen values that name what exists, what is offered and what happened. How any of
them is obtained is somebody else's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path, PurePosixPath


class Market(StrEnum):
    """How an instance is bought."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"


Way = tuple[str, Market]
"""An instance type and how it is bought: what quotas are counted by."""


class Kind(StrEnum):
    """Kinds of billable or left-behind resource, as the ledger and reports name them."""

    INSTANCE = "instance"
    KEY_PAIR = "key pair"
    SECURITY_GROUP = "security group"
    PLACEMENT_GROUP = "placement group"
    VOLUME = "volume"
    NETWORK_INTERFACE = "network interface"


MANAGED_BY = "launch-and-train"
"""Value of the tag `managed-by` on everything the tool creates."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who the credentials belong to."""

    account_id: str
    arn: str


@dataclass(frozen=True, slots=True)
class Image:
    """A machine image (AMI) as DescribeImages gives it. Sizes in GiB."""

    image_id: str
    name: str
    owner_id: str
    state: str
    architecture: str
    virtualization: str
    root_device_name: str
    root_device_type: str
    root_size_gib: int
    ena_support: bool
    boot_mode: str | None
    platform: str | None
    product_codes: tuple[str, ...]
    deprecated_at: datetime | None
    ssh_user: str
    created_at: datetime | None = None
    tpm: str | None = None
    """`v2.0`: it boots only where the type has NitroTPM."""


@dataclass(frozen=True, slots=True)
class InstanceType:
    """What DescribeInstanceTypes tells of one type."""

    name: str
    vcpus: int
    memory_gib: float
    gpus: int
    gpu_name: str
    gpu_manufacturer: str
    gpu_memory_gib: float
    """Per GPU."""
    architectures: tuple[str, ...]
    virtualization: tuple[str, ...]
    boot_modes: tuple[str, ...]
    root_device_types: tuple[str, ...]
    ena_required: bool
    usage_classes: tuple[str, ...]
    nitro_tpm: bool = True
    efa: bool = False
    """Whether it may have an Elastic Fabric Adapter, by which GPUs of several machines talk past the kernel."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """A default subnet."""

    subnet_id: str
    zone: str
    zone_id: str
    free_addresses: int
    public: bool


@dataclass(frozen=True, slots=True)
class Network:
    """The default VPC and its subnets."""

    vpc_id: str
    subnets: tuple[Subnet, ...]


@dataclass(frozen=True, slots=True)
class Quota:
    """vCPUs the account may run of a class of types."""

    code: str
    name: str
    limit_vcpus: float


@dataclass(frozen=True, slots=True)
class Running:
    """An instance that takes from a quota."""

    instance_type: str
    market: Market
    vcpus: int


@dataclass(frozen=True, slots=True)
class Price:
    """What AWS charges for an hour, and since when, where it says so."""

    usd_per_hour: Decimal
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """An instance type in a zone at a price."""

    instance_type: str
    zone: str
    subnet_id: str
    market: Market
    usd_per_hour: Decimal
    gpus: int
    gpu_name: str
    gpu_memory_gib: float
    price_since: datetime | None = None
    efa: bool = False

    @property
    def way(self) -> Way:
        """What quotas count it by."""
        return self.instance_type, self.market

    @property
    def text(self) -> str:
        """`g6.xlarge in us-east-1a`, and if so `(spot)`."""
        return f"{self.instance_type} in {self.zone}" + (" (spot)" if self.market is Market.SPOT else "")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An offer that will not be tried, and why."""

    offer: Offer
    reason: str


@dataclass(frozen=True, slots=True)
class TravelFile:
    """A file that travels: where it lies here, where it goes there."""

    source: Path
    destination: PurePosixPath
    """Relative to the root of the upload."""
    size: int
    mode: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every file of the upload, sorted by destination."""

    files: tuple[TravelFile, ...]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class HostKeyPair:
    """An SSH host key made here: both halves in OpenSSH text form."""

    private_openssh: str = field(repr=False)
    public_openssh: str
    """`ssh-ed25519 AAAA…`, no comment."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The caller's key pair: the private half never leaves `private_path` (mode 0600)."""

    name: str
    fingerprint: str
    public_openssh: str
    private_path: Path


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """A security group and whom it admits on port 22."""

    group_id: str
    name: str
    ingress_cidr: str


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance as last seen. `state` is EC2's word (`pending`, `running`, …)."""

    instance_id: str
    state: str
    zone: str
    public_ip: str | None
    launched_at: datetime | None
    state_reason: str | None = None
    private_ip: str | None = None
    """By which machines of one subnet reach each other."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """Everything RunInstances is told, of one machine or of several alike; turned into EC2's dictionary by
    `aws/requests.py`.
    """

    client_token: str
    image: Image
    instance_type: str
    market: Market
    subnet_id: str
    group_id: str
    key_name: str
    volume_gib: int
    user_data: str = field(repr=False)
    tags: Mapping[str, str]
    instance_profile: str | None = None
    count: int = 1
    """So many or none."""
    placement_group: str | None = None
    efa: bool = False


@dataclass(frozen=True, slots=True)
class Tagged:
    """A resource found by tag. `state` is empty where the kind has none."""

    kind: Kind
    resource_id: str
    name: str
    run_id: str
    state: str
    region: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """A machine to be dialled: address, user, our private key and its pinned public host key."""

    address: str
    port: int
    user: str
    private_path: Path
    host_key: str


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command that ran on a host. Output is text, undecodable bytes replaced."""

    command: tuple[str, ...]
    exit_status: int
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True, slots=True)
class BucketFolder:
    """A folder of a bucket, and the region that the bucket is in."""

    bucket: str
    prefix: str
    """Without slashes at its ends."""
    region: str

    @property
    def url(self) -> str:
        """`s3://NAME/PREFIX`."""
        return f"s3://{self.bucket}/{self.prefix}"

    def key(self, name: str) -> str:
        """The key of an object in it."""
        return f"{self.prefix}/{name}"


@dataclass(frozen=True, slots=True)
class Stored:
    """An object of a bucket."""

    size: int
    etag: str
    sha256: str | None
    """As whoever put it there says, or S3 has reckoned; `None`: it is not known."""


@dataclass(frozen=True, slots=True)
class FarData:
    """Data that goes straight to the machine. What is not known here is `None`."""

    url: str
    sha256: str | None
    size: int | None = None
    etag: str | None = None
    region: str | None = None
