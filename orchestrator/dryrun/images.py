"""Images of the shelf as moto's own kind of object, with the fields that moto leaves out."""

from typing import Any

from moto.core.parse import default_timestamp_parser
from moto.ec2.models.amis import Ami

from orchestrator.dryrun.catalog import ROOT_DEVICE, ShelfImage, image_id


class MockedImage(Ami):
    """An image that knows its size, its drivers and its age."""

    def __init__(self, backend: Any, shelf: ShelfImage) -> None:
        self._root_gib = shelf.root_gib
        super().__init__(
            backend,
            image_id(shelf.key, backend.region_name),
            name=shelf.name,
            description=shelf.name,
            owner_id=shelf.owner_id,
            owner_alias="aws-marketplace" if shelf.product_code else "amazon",
            public=True,
            virtualization_type="hvm",
            architecture=shelf.architecture,
            creation_date=default_timestamp_parser(shelf.created),
            image_location=f"amazon/{shelf.name}",
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name=ROOT_DEVICE,
            region_name=backend.region_name + "a",
            boot_mode=shelf.boot_mode,
        )
        self.ena_support = shelf.ena_support
        self.deprecation_time = shelf.deprecated
        self.imds_support = None if shelf.deprecated else "v2.0"
        if shelf.product_code:
            product = {"ProductCodeId": shelf.product_code, "ProductCodeType": "marketplace"}
            self.product_codes: Any = [product]

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """The root volume, at the size of its snapshot."""
        ebs = {
            "SnapshotId": self.ebs_snapshot.id,
            "VolumeSize": self._root_gib,
            "DeleteOnTermination": True,
            "VolumeType": "gp3",
            "Encrypted": False,
        }
        return [{"DeviceName": self.root_device_name, "Ebs": ebs}]
