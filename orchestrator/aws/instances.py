"""Instances and their types: what is offered where, what runs, starting some and ending one."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from orchestrator.aws.errors import translated
from orchestrator.aws.requests import filters, run_instances
from orchestrator.errors import AlreadyGone, NotYetVisible
from orchestrator.resources import Instance, InstanceType, LaunchRequest, Market, Running

_MIB_PER_GIB = 1024
_ALIVE = ("pending", "running")
_WITH_GPUS = ("g*", "p*")
"""Families that have GPUs; not every type of them does."""


def instance_types(ec2: Any, names: Sequence[str]) -> tuple[InstanceType, ...]:
    """Those of `names` that the region has, in that order."""
    # A filter, since the call refuses as a whole when one name in InstanceTypes is unknown.
    with translated(f"looking up the instance types {', '.join(names)}"):
        told = _pages(ec2, "describe_instance_types", "InstanceTypes", {"instance-type": tuple(names)})
    found = {entry["InstanceType"]: _instance_type(entry) for entry in told}
    return tuple(found[name] for name in names if name in found)


def gpu_types(ec2: Any) -> tuple[InstanceType, ...]:
    """Every type of the region that has whole GPUs by NVIDIA, by name."""
    with translated("listing the instance types with GPUs"):
        told = _pages(ec2, "describe_instance_types", "InstanceTypes", {"instance-type": _WITH_GPUS})
    found = (_instance_type(entry) for entry in told)
    return tuple(sorted((one for one in found if one.gpus and one.gpu_manufacturer == "NVIDIA"), key=_by_name))


def zones(ec2: Any, names: Sequence[str]) -> Mapping[str, frozenset[str]]:
    """Zones that offer each type; empty where none does."""
    with translated(f"asking which zones offer {', '.join(names)}"):
        told = _pages(
            ec2,
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            {"instance-type": tuple(names)},
            LocationType="availability-zone",
        )
    return {name: frozenset(entry["Location"] for entry in told if entry["InstanceType"] == name) for name in names}


def instance(ec2: Any, instance_id: str) -> Instance:
    """The instance. Raises `NotYetVisible` where EC2 does not know the id."""
    with translated(f"looking at {instance_id}", missing=NotYetVisible):
        told = ec2.describe_instances(InstanceIds=[instance_id])
    found = [entry for group in told["Reservations"] for entry in group["Instances"]]
    if not found:
        raise NotYetVisible(f"looking at {instance_id}: EC2 does not know it")
    return _instance(found[0])


def instances_of_token(ec2: Any, client_token: str) -> tuple[Instance, ...]:
    """Instances created with this client token, in any state."""
    with translated("looking for the instance of a client token"):
        return tuple(_instance(entry) for entry in _found(ec2, {"client-token": (client_token,)}))


def running_vcpus(ec2: Any) -> tuple[Running, ...]:
    """Every pending and running instance of the region with what it takes from its quota."""
    with translated("counting the vCPUs in use"):
        alive = _found(ec2, {"instance-state-name": _ALIVE})
    unknown = sorted({entry["InstanceType"] for entry in alive if not entry.get("CpuOptions")})
    of_type = {found.name: found.vcpus for found in (instance_types(ec2, unknown) if unknown else ())}
    return tuple(
        Running(
            entry["InstanceType"],
            Market.SPOT if entry.get("InstanceLifecycle") == "spot" else Market.ON_DEMAND,
            _vcpus(entry, of_type),
        )
        for entry in alive
    )


def run(creator: Any, request: LaunchRequest) -> tuple[Instance, ...]:
    """Start what is asked for. Raises `NotYetVisible` where key pair, groups or subnet are not seen yet."""
    number = f"{request.count} × " if request.count > 1 else ""
    doing = f"starting {number}{request.instance_type} in {request.subnet_id}"
    with translated(doing, missing=NotYetVisible):
        told = creator.run_instances(**run_instances(request))
    return tuple(_instance(entry) for entry in told["Instances"])


def terminate(ec2: Any, instance_id: str) -> None:
    """Ask for termination. `AlreadyGone` if it is over already."""
    with translated(f"terminating {instance_id}"):
        # One id a call: a single bad one fails the whole request.
        told = ec2.terminate_instances(InstanceIds=[instance_id])
    before = [entry["PreviousState"]["Name"] for entry in told["TerminatingInstances"]]
    if before == ["terminated"]:
        raise AlreadyGone(f"terminating {instance_id}: it is terminated already")


def _found(ec2: Any, wanted: Mapping[str, Sequence[str]]) -> list[Mapping[str, Any]]:
    groups = _pages(ec2, "describe_instances", "Reservations", wanted)
    return [entry for group in groups for entry in group["Instances"]]


def _pages(
    ec2: Any, operation: str, key: str, wanted: Mapping[str, Sequence[str]], **options: Any
) -> list[Mapping[str, Any]]:
    pages = ec2.get_paginator(operation).paginate(Filters=filters(wanted), **options)
    return [entry for page in pages for entry in page[key]]


def _instance_type(told: Mapping[str, Any]) -> InstanceType:
    gpu: Mapping[str, Any] = next(iter(told.get("GpuInfo", {}).get("Gpus", ())), {})
    return InstanceType(
        name=told["InstanceType"],
        vcpus=int(told["VCpuInfo"]["DefaultVCpus"]),
        memory_gib=told["MemoryInfo"]["SizeInMiB"] / _MIB_PER_GIB,
        gpus=int(gpu.get("Count", 0)),
        gpu_name=gpu.get("Name", ""),
        gpu_manufacturer=gpu.get("Manufacturer", ""),
        gpu_memory_gib=gpu.get("MemoryInfo", {}).get("SizeInMiB", 0) / _MIB_PER_GIB,
        architectures=tuple(told.get("ProcessorInfo", {}).get("SupportedArchitectures", ())),
        virtualization=tuple(told.get("SupportedVirtualizationTypes", ())),
        boot_modes=tuple(told.get("SupportedBootModes", ())),
        root_device_types=tuple(told.get("SupportedRootDeviceTypes", ())),
        ena_required=told.get("NetworkInfo", {}).get("EnaSupport") == "required",
        usage_classes=tuple(told.get("SupportedUsageClasses", ())),
        nitro_tpm=told.get("NitroTpmSupport", "supported") == "supported",
        efa=bool(told.get("NetworkInfo", {}).get("EfaSupported")),
    )


def _instance(told: Mapping[str, Any]) -> Instance:
    launched_at = told.get("LaunchTime")
    return Instance(
        instance_id=told["InstanceId"],
        state=told["State"]["Name"],
        zone=told.get("Placement", {}).get("AvailabilityZone", ""),
        public_ip=told.get("PublicIpAddress"),
        launched_at=launched_at.astimezone(UTC) if launched_at else None,
        state_reason=_state_reason(told),
        private_ip=told.get("PrivateIpAddress"),
    )


def _state_reason(told: Mapping[str, Any]) -> str | None:
    reason: Mapping[str, str] = told.get("StateReason") or {}
    code, message = reason.get("Code", ""), reason.get("Message", "")
    said = message if message.startswith(code) else f"{code}: {message}"
    return said or told.get("StateTransitionReason") or None


def _by_name(found: InstanceType) -> str:
    return found.name


def _vcpus(told: Mapping[str, Any], of_type: Mapping[str, int]) -> int:
    options: Mapping[str, int] = told.get("CpuOptions") or {}
    if not options:
        return of_type.get(told["InstanceType"], 0)
    return options["CoreCount"] * options["ThreadsPerCore"]
