"""What keeps image and instance type from working, each alone and both together: one sentence for every check. Pure."""

from collections.abc import Iterator

from orchestrator.resources import Image, InstanceType, Market

USAGE_CLASSES = {Market.ON_DEMAND: "on-demand", Market.SPOT: "spot"}
"""EC2's words for our markets."""


def image_misfits(image: Image) -> Iterator[str]:
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


def type_misfits(found: InstanceType, markets: tuple[Market, ...]) -> Iterator[str]:
    """Why the type can serve with no image, or is rented in none of the markets."""
    if found.gpus == 0 and found.gpu_name:
        yield f"it has a fraction of an {found.gpu_name}, which needs another driver; choose a whole GPU"
    elif found.gpus == 0:
        yield "it has no GPU; choose one that has, say g6.xlarge"
    elif found.gpu_manufacturer != "NVIDIA":
        yield f"its GPU is made by {found.gpu_manufacturer}; the trainer needs one by NVIDIA"
    if not markets_of(found, markets):
        offered = ", ".join(found.usage_classes) or "none"
        wanted = " or ".join(USAGE_CLASSES[market] for market in markets)
        yield f"it is not rented {wanted} (offered: {offered}); change market or choose another"


def markets_of(found: InstanceType, markets: tuple[Market, ...]) -> tuple[Market, ...]:
    """Those of the markets in which the type is rented."""
    return tuple(market for market in markets if USAGE_CLASSES[market] in found.usage_classes)


def pair_misfits(image: Image, found: InstanceType) -> Iterator[str]:
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
    if image.tpm is not None and not found.nitro_tpm:
        yield f"it has no NitroTPM, yet {name} needs TPM {image.tpm}"
