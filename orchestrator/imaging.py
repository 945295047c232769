"""Images: families and their newest members, one found for a run, and candidates to choose from. An owner is always
pinned: anybody may give an image any name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.compatible import image_misfits, pair_misfits
from orchestrator.errors import PermissionMissing, UsageError
from orchestrator.ports import CloudReader
from orchestrator.resources import Image, InstanceType
from orchestrator.spec import RunSpec

_PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-{}ubuntu-{}/latest/ami-id"
_NAME = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu {}) ????????"
_AMAZON = "amazon"
_DSSTNE_IMAGE = "ami-d6f2e6bc"
_DSSTNE_REASON = (
    "it is Amazon DSSTNE's image of 2016, made for g2 instances, which EC2 no longer offers; its NVIDIA "
    'driver is older than any that JAX runs on: set image = "dlami-base"'
)


@dataclass(frozen=True, slots=True)
class _Family:
    """SSM parameters that name its newest member, in the order in which they are asked; and owner and name of members,
    for callers who may not read parameters.
    """

    parameters: tuple[str, ...]
    owner_id: str
    name_pattern: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that could be chosen, and what speaks against it."""

    family: str
    image: Image
    misfits: tuple[str, ...]


def _base(*releases: str) -> _Family:
    # AWS's guide spells the name without `gpu-`; what is published has it.
    names = (_PARAMETER.format(gpu, release) for release in releases for gpu in ("gpu-", ""))
    return _Family(tuple(names), _AMAZON, _NAME.format(releases[0]))


FAMILIES: Mapping[str, _Family] = {
    "dlami-base": _base("24.04", "22.04"),
    "dlami-base-22.04": _base("22.04"),
}
"""https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html"""


def find_image(reader: CloudReader, spec: RunSpec) -> Image:
    """The image of a run. `UsageError` if there is none, or if it can serve on no instance type."""
    image_id = _image_id(reader, spec)
    image = reader.image(image_id)
    if image_id == _DSSTNE_IMAGE:
        raise UsageError(f"image {image_id}: {_DSSTNE_REASON}")
    if image is None:
        raise UsageError(
            f"image {image_id}: {spec.region} has no such image, or hides it from this account; ids differ "
            'from region to region: give one of this region, or "dlami-base"'
        )
    for misfit in image_misfits(image):
        raise UsageError(f"image {image_id} ({image.name}): {misfit}")
    return image


def image_candidates(reader: CloudReader, family: str | None, *, instance_type: str | None) -> tuple[Candidate, ...]:
    """Members of a family, or of all, newest first; held against an instance type where one is given."""
    if family is not None and family not in FAMILIES:
        raise UsageError(f"image family {family!r}: not known ({', '.join(FAMILIES)})")
    types = reader.instance_types([instance_type]) if instance_type else ()
    if instance_type and not types:
        raise UsageError(f"instance type {instance_type}: there is none of that name in {reader.region}")
    return tuple(
        Candidate(name, image, _misfits(image, types))
        for name in ([family] if family else FAMILIES)
        for image in reader.images(FAMILIES[name].owner_id, FAMILIES[name].name_pattern)
    )


def _misfits(image: Image, types: Sequence[InstanceType]) -> tuple[str, ...]:
    of_pairs = (f"{found.name}: {misfit}" for found in types for misfit in pair_misfits(image, found))
    return (*image_misfits(image), *of_pairs)


def _image_id(reader: CloudReader, spec: RunSpec) -> str:
    wanted = spec.image
    if wanted.startswith("ami-"):
        return wanted
    family = FAMILIES.get(wanted)
    if family is not None:
        return _newest(reader, spec, family)
    if not wanted.startswith("/"):
        raise UsageError(
            f"image {wanted!r}: neither an id (ami-…), nor an SSM parameter name (/aws/service/…), "
            f"nor a family that is known ({', '.join(FAMILIES)})"
        )
    value = reader.parameter(wanted)
    if value is None:
        raise UsageError(f"image {wanted!r}: {spec.region} has no SSM parameter {wanted}")
    return value


def _newest(reader: CloudReader, spec: RunSpec, family: _Family) -> str:
    """By parameter, else by owner and name."""
    try:
        for name in family.parameters:
            value = reader.parameter(name)
            if value is not None:
                return value
    except PermissionMissing:
        pass
    found = reader.images(family.owner_id, family.name_pattern)
    if not found:
        raise UsageError(
            f"image {spec.image!r}: {spec.region} has neither an SSM parameter {' or '.join(family.parameters)} "
            f"nor an image of {family.owner_id} named {family.name_pattern}"
        )
    return found[0].image_id
