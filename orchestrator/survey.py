"""The survey: asks a `CloudReader` for the facts that a plan needs, and refuses early and kindly what
could not work. It is handed nothing that can write.
"""

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal

from orchestrator.errors import (
    CloudRefused,
    CloudUnavailable,
    PermissionMissing,
    PriceUnknown,
    QuotaExceeded,
    UsageError,
)
from orchestrator.plan import Facts, Placement
from orchestrator.ports import Clock, CloudReader
from orchestrator.resources import Account, Image, InstanceType, Market, Network, Offer, Quota
from orchestrator.spec import RunSpec

_BASE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-{}ubuntu-{}/latest/ami-id"
_FAMILIES: Mapping[str, tuple[str, ...]] = {
    # AWS's guide spells the name without `gpu-`; what is published has it.
    "dlami-base": tuple(_BASE.format(gpu, release) for release in ("24.04", "22.04") for gpu in ("gpu-", "")),
}
"""Families of images: the SSM parameters that name their newest member, in the order in which they are asked.
https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html
"""
_DSSTNE_IMAGE = "ami-d6f2e6bc"
_DSSTNE_REASON = (
    "it is Amazon DSSTNE's image of 2016, made for g2 instances, which EC2 no longer offers; its NVIDIA "
    'driver is older than any that JAX runs on: set image = "dlami-base"'
)
_USAGE_CLASSES = {Market.ON_DEMAND: "on-demand", Market.SPOT: "spot"}


OnTypes = Callable[[Sequence[InstanceType]], None]
"""Told of the instance types as soon as they are known, long before the survey ends."""


def survey(reader: CloudReader, spec: RunSpec, clock: Clock, *, on_types: OnTypes = lambda _: None) -> Facts:
    """Look at everything a run of `spec` depends on; change nothing. `UsageError` names what the user can
    mend; `PriceUnknown` and `QuotaExceeded` stop what must not or may not be rented.
    """
    account = _account(reader, spec)
    image = find_image(reader, spec)
    types = _instance_types(reader, spec, image)
    on_types(types)
    network = find_network(reader)
    offers = _offers(reader, spec, types, _subnets_by_zone(network))
    allowed, notes = _within_quota(reader, spec, types)
    return Facts(
        account=account,
        image=image,
        instance_types=types,
        offers=tuple(offer for offer in offers if offer.instance_type in allowed),
        placement=Placement(network.vpc_id, _subnets_by_zone(network)),
        ingress_cidr=ingress_of(reader, spec),
        quota_notes=notes,
        leftovers=reader.tagged(),
        observed_at=clock.now(),
    )


def _account(reader: CloudReader, spec: RunSpec) -> Account:
    account = reader.account()
    if spec.account_id is not None and account.account_id != spec.account_id:
        raise UsageError(
            f"account_id = {spec.account_id}: these credentials belong to account {account.account_id} "
            f"({account.arn}); log in to the other, or change account_id"
        )
    return account


def find_image(reader: CloudReader, spec: RunSpec) -> Image:
    """The image that `spec` names. `UsageError` where it is none that could serve."""
    image_id = _image_id(reader, spec)
    image = reader.image(image_id)
    if image_id == _DSSTNE_IMAGE:
        raise UsageError(f"image {image_id}: {_DSSTNE_REASON}")
    if image is None:
        raise UsageError(
            f"image {image_id}: {spec.region} has no such image, or hides it from this account; ids differ "
            'from region to region: give one of this region, or "dlami-base"'
        )
    for misfit in _image_misfits(image):
        raise UsageError(f"image {image_id} ({image.name}): {misfit}")
    return image


def _image_id(reader: CloudReader, spec: RunSpec) -> str:
    wanted = spec.image
    if wanted.startswith("ami-"):
        return wanted
    names = (wanted,) if wanted.startswith("/") else _FAMILIES.get(wanted, ())
    if not names:
        raise UsageError(
            f"image {wanted!r}: neither an id (ami-…), nor an SSM parameter name (/aws/service/…), "
            f"nor a family that is known ({', '.join(_FAMILIES)})"
        )
    for name in names:
        value = reader.parameter(name)
        if value is not None:
            return value
    raise UsageError(f"image {wanted!r}: {spec.region} has no SSM parameter {' or '.join(names)}")


def _image_misfits(image: Image) -> Iterator[str]:
    """Why the image can serve on no instance type."""
    if image.state != "available":
        yield f"its state is {image.state!r}; it must be 'available'"
    if image.platform is not None:
        yield f"its platform is {image.platform}; it must be Linux"
    if image.product_codes:
        yield (
            f"it is a Marketplace product ({', '.join(image.product_codes)}) and needs a subscription; "
            'choose another, say "dlami-base"'
        )
    if image.root_device_type != "ebs":
        yield f"its root device is of type {image.root_device_type!r}; it must be 'ebs'"


def _instance_types(reader: CloudReader, spec: RunSpec, image: Image) -> tuple[InstanceType, ...]:
    types = reader.instance_types(spec.instance_types)
    missing = set(spec.instance_types) - {found.name for found in types}
    for name in spec.instance_types:
        if name in missing:
            raise UsageError(f"instance type {name}: there is none of that name in {spec.region}")
    for found in types:
        for misfit in (*_type_misfits(found, spec.market), *_pair_misfits(image, found)):
            raise UsageError(f"instance type {found.name}: {misfit}")
    return types


def _type_misfits(found: InstanceType, market: Market) -> Iterator[str]:
    """Why the type can serve with no image."""
    if found.gpus == 0 and found.gpu_name:
        yield f"it has a fraction of an {found.gpu_name}, which needs another driver; choose a whole GPU"
    elif found.gpus == 0:
        yield "it has no GPU; choose one that has, say g6.xlarge"
    elif found.gpu_manufacturer != "NVIDIA":
        yield f"its GPU is made by {found.gpu_manufacturer}; the trainer needs one by NVIDIA"
    if _USAGE_CLASSES[market] not in found.usage_classes:
        offered = ", ".join(found.usage_classes) or "none"
        wanted = _USAGE_CLASSES[market]
        yield f"it is not rented {wanted} (offered: {offered}); change market or choose another"


def _pair_misfits(image: Image, found: InstanceType) -> Iterator[str]:
    """Why image and type do not fit each other."""
    name = f"image {image.image_id} ({image.name})"
    if image.architecture not in found.architectures:
        yield f"it is {'/'.join(found.architectures)}, yet {name} is {image.architecture}"
    if image.virtualization not in found.virtualization:
        yield f"it virtualizes by {'/'.join(found.virtualization)}, yet {name} by {image.virtualization}"
    if found.ena_required and not image.ena_support:
        yield f"it requires ENA networking, which {name} lacks: the image is too old"
    if image.boot_mode in {"uefi", "legacy-bios"} and image.boot_mode not in found.boot_modes:
        yield f"it boots by {'/'.join(found.boot_modes)}, yet {name} by {image.boot_mode}"
    if image.root_device_type not in found.root_device_types:
        yield f"its root device may be {'/'.join(found.root_device_types)}, yet that of {name} is not"


def find_network(reader: CloudReader) -> Network:
    """The default VPC. `UsageError` with the remedy where there is none."""
    network = reader.default_network()
    if network is None:
        raise UsageError(
            f"{reader.region} has no default VPC in this account; create one with "
            f"`aws ec2 create-default-vpc --region {reader.region}`, or choose another region"
        )
    return network


def _subnets_by_zone(network: Network) -> Mapping[str, str]:
    return {subnet.zone: subnet.subnet_id for subnet in network.subnets if subnet.free_addresses > 0}


def _offers(
    reader: CloudReader, spec: RunSpec, types: tuple[InstanceType, ...], subnets: Mapping[str, str]
) -> tuple[Offer, ...]:
    zones = reader.zones([found.name for found in types])
    offers: list[Offer] = []
    for found in types:
        usable = sorted(zones[found.name] & set(subnets))
        if not usable:
            raise UsageError(
                f"instance type {found.name}: {_nowhere(zones[found.name], reader.region)}; "
                "choose another type or region"
            )
        for zone, usd_per_hour in _prices(reader, spec, found.name, usable).items():
            offers.append(
                Offer(
                    instance_type=found.name,
                    zone=zone,
                    subnet_id=subnets[zone],
                    market=spec.market,
                    usd_per_hour=usd_per_hour,
                    gpus=found.gpus,
                    gpu_name=found.gpu_name,
                    gpu_memory_gib=found.gpu_memory_gib,
                )
            )
    return tuple(offers)


def _nowhere(zones: frozenset[str], region: str) -> str:
    if not zones:
        return f"no zone of {region} offers it"
    return f"it is offered in {', '.join(sorted(zones))}, where there is no default subnet with free addresses"


def _prices(reader: CloudReader, spec: RunSpec, name: str, zones: Sequence[str]) -> Mapping[str, Decimal]:
    """USD per hour in each of the zones that has a price."""
    if spec.market is Market.SPOT:
        told = reader.spot_prices(name)
        prices = {zone: told[zone] for zone in zones if zone in told}
    else:
        usd_per_hour = reader.on_demand_price(name)
        prices = {} if usd_per_hour is None else dict.fromkeys(zones, usd_per_hour)
    if not prices:
        raise PriceUnknown(
            f"instance type {name}: AWS tells no {spec.market.value} price in {reader.region}; "
            "nothing is rented blind: choose another type or market"
        )
    return prices


def _within_quota(
    reader: CloudReader, spec: RunSpec, types: tuple[InstanceType, ...]
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Names of the types that the quotas leave room for, and what to tell. `QuotaExceeded` if there is
    room for none.
    """
    allowed: set[str] = set()
    notes: list[str] = []
    refusals: list[str] = []
    for found in types:
        refusal = _refusal(reader, spec, found, notes)
        if refusal is None:
            allowed.add(found.name)
        else:
            refusals.append(refusal)
    if not allowed:
        raise QuotaExceeded(refusals[0])
    return frozenset(allowed), tuple(dict.fromkeys(notes + refusals))


def _refusal(reader: CloudReader, spec: RunSpec, found: InstanceType, notes: list[str]) -> str | None:
    """Why the quota leaves no room for a type. What could not be read becomes a note: RunInstances has
    the last word.
    """
    try:
        quota = reader.quota(found.name, spec.market)
        used = reader.vcpus_in_use(found.name) if spec.market is Market.ON_DEMAND else 0
    except (PermissionMissing, CloudRefused, CloudUnavailable) as error:
        notes.append(f"the vCPU quota was not checked: {error}")
        return None
    if quota is None:
        notes.append(f"the vCPU quota of {found.name} ({spec.market.value}) is not known; AWS may refuse")
        return None
    if used + found.vcpus <= quota.limit_vcpus:
        return None
    return _quota_text(quota, found, used=used, region=reader.region)


def _quota_text(quota: Quota, found: InstanceType, *, used: int, region: str) -> str:
    return (
        f"quota {quota.code} ({quota.name}) allows {quota.limit_vcpus:g} vCPUs in {region}, {used} are in "
        f"use and {found.name} takes {found.vcpus}: ask AWS for {used + found.vcpus} with "
        f"`aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {quota.code} "
        f"--desired-value {used + found.vcpus} --region {region}`"
    )


def ingress_of(reader: CloudReader, spec: RunSpec) -> str:
    """Who is to reach port 22: what `spec` says, or the caller's address."""
    if spec.ingress_cidr is None:
        return f"{reader.caller_address()}/32"
    try:
        network = ipaddress.IPv4Network(spec.ingress_cidr)
    except ValueError as error:
        raise UsageError(f"ingress_cidr = {spec.ingress_cidr!r}: not an IPv4 network: {error}") from error
    if network.prefixlen == 0:
        raise UsageError(f"ingress_cidr = {spec.ingress_cidr!r}: that is everybody; give your own address, /32")
    return str(network)
