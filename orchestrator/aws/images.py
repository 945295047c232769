"""Images: the public parameters that name them, and what DescribeImages tells."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from orchestrator.aws.errors import translated
from orchestrator.aws.requests import filters
from orchestrator.errors import AlreadyGone
from orchestrator.resources import Image

_USERS = (
    ("ubuntu", "ubuntu"),
    ("debian", "admin"),
    ("rocky", "rocky"),
    ("centos", "centos"),
    ("fedora", "fedora"),
)
"""A word in an image's name and the user it lets in; `ec2-user` where no word fits."""


def parameter(ssm: Any, name: str) -> str | None:
    """Value of a public SSM parameter, or `None` if there is none of that name."""
    try:
        with translated(f"reading the parameter {name}", service="ssm"):
            return ssm.get_parameter(Name=name)["Parameter"]["Value"]
    except AlreadyGone:
        return None


def image(ec2: Any, image_id: str) -> Image | None:
    """The image, deprecated or not, or `None` if the region shows the caller none of that id."""
    try:
        with translated(f"looking up the image {image_id}"):
            found = ec2.describe_images(ImageIds=[image_id])["Images"]
    except AlreadyGone:
        return None
    return _image(found[0]) if found else None


def images(ec2: Any, owner_id: str, name_pattern: str) -> tuple[Image, ...]:
    """Available images of one owner whose name matches, newest first. Never asked without an owner: anybody may give
    an image any name.
    """
    wanted = filters({"name": (name_pattern,), "state": ("available",)})
    with translated(f"listing the images {name_pattern} of {owner_id}"):
        pages = ec2.get_paginator("describe_images").paginate(Owners=[owner_id], Filters=wanted)
        told = [entry for page in pages for entry in page["Images"]]
    return tuple(_image(entry) for entry in sorted(told, key=_created, reverse=True))


def _created(told: Mapping[str, Any]) -> str:
    return told.get("CreationDate", "")


def _image(told: Mapping[str, Any]) -> Image:
    deprecated = told.get("DeprecationTime")
    return Image(
        image_id=told["ImageId"],
        name=told.get("Name", ""),
        owner_id=told.get("OwnerId", ""),
        state=told.get("State", ""),
        architecture=told.get("Architecture", ""),
        virtualization=told.get("VirtualizationType", ""),
        root_device_name=told.get("RootDeviceName", ""),
        root_device_type=told.get("RootDeviceType", ""),
        root_size_gib=_root_size_gib(told),
        ena_support=bool(told.get("EnaSupport")),
        boot_mode=told.get("BootMode"),
        platform=told.get("Platform"),
        product_codes=tuple(code["ProductCodeId"] for code in told.get("ProductCodes", ())),
        deprecated_at=datetime.fromisoformat(deprecated) if deprecated else None,
        ssh_user=_ssh_user(told.get("Name", "")),
        created_at=datetime.fromisoformat(told["CreationDate"]) if told.get("CreationDate") else None,
        tpm=told.get("TpmSupport"),
    )


def _root_size_gib(told: Mapping[str, Any]) -> int:
    sizes = (
        mapping.get("Ebs", {}).get("VolumeSize", 0)
        for mapping in told.get("BlockDeviceMappings", ())
        if mapping.get("DeviceName") == told.get("RootDeviceName")
    )
    return int(next(sizes, 0))


def _ssh_user(name: str) -> str:
    return next((user for word, user in _USERS if word in name.lower()), "ec2-user")
