"""What the mocked AWS has on its shelves: images, the public parameters that name them, prices and
quotas. Plain values, dated 2026-08; ids are made up, yet the same at every start.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

CANONICAL = "099720109477"
DEEP_LEARNING = "898082745236"
ROOT_DEVICE = "/dev/sda1"
_MARKETPLACE = "679593333241"
_DEEP_LEARNING_PARAMETER = "/aws/service/deeplearning/ami/{}/base-oss-nvidia-driver-gpu-ubuntu-{}/latest/ami-id"
_CANONICAL_PARAMETER = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"


@dataclass(frozen=True, slots=True)
class ShelfImage:
    """An image on the shelf. `root_gib` is the size of its root snapshot."""

    key: str
    name: str
    owner_id: str
    root_gib: int
    architecture: str = "x86_64"
    ena_support: bool = True
    boot_mode: str = "uefi-preferred"
    created: str = "2026-10-16T08:12:44.000Z"
    deprecated: str | None = None
    product_code: str | None = None
    parameter: str | None = None


@dataclass(frozen=True, slots=True)
class ShelfQuota:
    """A quota of service `ec2`, in vCPUs. `families` are the leading letters of type names."""

    code: str
    name: str
    limit_vcpus: float
    families: tuple[str, ...]
    spot: bool


IMAGES = (
    ShelfImage(
        key="dlami-ubuntu-24.04",
        name="Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261016",
        owner_id=DEEP_LEARNING,
        root_gib=75,
        parameter=_DEEP_LEARNING_PARAMETER.format("x86_64", "24.04"),
    ),
    ShelfImage(
        key="dlami-ubuntu-22.04",
        name="Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20261016",
        owner_id=DEEP_LEARNING,
        root_gib=75,
        parameter=_DEEP_LEARNING_PARAMETER.format("x86_64", "22.04"),
    ),
    ShelfImage(
        key="dlami-arm64",
        name="Deep Learning ARM64 Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261016",
        owner_id=DEEP_LEARNING,
        root_gib=75,
        architecture="arm64",
        boot_mode="uefi",
        parameter=_DEEP_LEARNING_PARAMETER.format("arm64", "24.04"),
    ),
    ShelfImage(
        key="ubuntu-24.04",
        name="ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261015",
        owner_id=CANONICAL,
        root_gib=8,
        parameter=_CANONICAL_PARAMETER,
    ),
    ShelfImage(
        key="without-ena",
        name="ubuntu/images/hvm-ssd/ubuntu-trusty-14.04-amd64-server-20160114",
        owner_id=CANONICAL,
        root_gib=8,
        ena_support=False,
        boot_mode="legacy-bios",
        created="2016-01-14T18:22:01.000Z",
        deprecated="2018-01-14T18:22:01.000Z",
    ),
    ShelfImage(
        key="marketplace",
        name="vendor-gpu-desktop-ubuntu-24.04-20260902",
        owner_id=_MARKETPLACE,
        root_gib=30,
        product_code="3f8t6t8fp5m9xx18yzwriozxi",
    ),
)

_STANDARD = ("a", "c", "d", "h", "i", "m", "r", "t", "z")
QUOTAS = (
    ShelfQuota("L-DB2E81BA", "Running On-Demand G and VT instances", 768, ("g", "gr", "vt"), spot=False),
    ShelfQuota("L-417A185B", "Running On-Demand P instances", 192, ("p",), spot=False),
    ShelfQuota(
        "L-1216C47A",
        "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
        1152,
        _STANDARD,
        spot=False,
    ),
    ShelfQuota("L-3819A6DF", "All G and VT Spot Instance Requests", 768, ("g", "gr", "vt"), spot=True),
    ShelfQuota("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests", 192, ("p2", "p3", "p4"), spot=True),
    ShelfQuota("L-C4BD4855", "All P5 Spot Instance Requests", 192, ("p5",), spot=True),
    ShelfQuota(
        "L-34B43A08",
        "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
        640,
        _STANDARD,
        spot=True,
    ),
)

ON_DEMAND_USD: Mapping[str, str] = {
    "g4dn.xlarge": "0.526",
    "g4dn.2xlarge": "0.752",
    "g4dn.4xlarge": "1.204",
    "g4dn.8xlarge": "2.176",
    "g4dn.12xlarge": "3.912",
    "g4dn.16xlarge": "4.352",
    "g4dn.metal": "7.824",
    "g5.xlarge": "1.006",
    "g5.2xlarge": "1.212",
    "g5.4xlarge": "1.624",
    "g5.8xlarge": "2.448",
    "g5.12xlarge": "5.672",
    "g5.16xlarge": "4.096",
    "g5.24xlarge": "8.144",
    "g5.48xlarge": "16.288",
    "g6.xlarge": "0.8048",
    "g6.2xlarge": "0.9776",
    "g6.4xlarge": "1.3232",
    "g6.8xlarge": "2.0144",
    "g6.12xlarge": "4.6016",
    "g6.16xlarge": "3.3968",
    "g6.24xlarge": "6.6752",
    "g6.48xlarge": "13.3504",
    "g6e.xlarge": "1.861",
    "g6e.2xlarge": "2.24208",
    "g6e.4xlarge": "3.00424",
    "g6e.8xlarge": "4.52856",
    "g6e.12xlarge": "10.49264",
    "g6e.16xlarge": "7.57719",
    "g6e.24xlarge": "15.06559",
    "g6e.48xlarge": "30.13118",
    "g7.2xlarge": "2.52",
    "g7e.2xlarge": "3.3631",
    "g7e.12xlarge": "8.2861",
    "g7e.48xlarge": "33.1443",
    "p4d.24xlarge": "21.957642",
    "p4de.24xlarge": "27.44705",
    "p5.4xlarge": "6.88",
    "p5.48xlarge": "55.04",
    "p5en.48xlarge": "63.296",
    "p6-b200.48xlarge": "113.9328",
    "p6-b300.48xlarge": "142.416",
    "t3.micro": "0.0104",
    "m5.large": "0.096",
}
"""USD per hour: Linux, shared tenancy, us-east-1. The mock charges it in every region."""


def image_id(key: str, region: str) -> str:
    """The id that image `key` of the shelf has in a region."""
    return "ami-" + hashlib.sha256(f"{key} {region}".encode()).hexdigest()[:17]


def shelf_image(wanted_id: str, region: str) -> ShelfImage | None:
    """The image of this id in a region."""
    return next((image for image in IMAGES if image_id(image.key, region) == wanted_id), None)


def parameter_value(name: str, region: str) -> str | None:
    """Value of a public SSM parameter that names an image of the shelf."""
    return next((image_id(image.key, region) for image in IMAGES if image.parameter == name), None)


def quota_of(instance_type: str, *, spot: bool) -> ShelfQuota | None:
    """The quota that covers a type, if the shelf has one."""
    family = instance_type.split(".")[0]
    leading = family[: next((at for at, sign in enumerate(family) if sign.isdigit()), len(family))]
    names = {leading, family[: len(leading) + 1]}
    return next((quota for quota in QUOTAS if quota.spot is spot and names & set(quota.families)), None)


def spot_usd(instance_type: str, zone: str) -> Decimal | None:
    """A spot price per hour: about a third of on-demand, differing a little by zone."""
    if instance_type not in ON_DEMAND_USD:
        return None
    share = Decimal(32 + ord(zone[-1]) % 8) / 100
    return (Decimal(ON_DEMAND_USD[instance_type]) * share).quantize(Decimal("0.0001"))
