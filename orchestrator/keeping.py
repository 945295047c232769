"""Where a run is to be kept: the bucket looked at before anything is rented, and what the machine is told, which puts
there what it makes and then ends itself.
"""

import json
from collections.abc import Sequence

from orchestrator.errors import UsageError
from orchestrator.ports import Storage
from orchestrator.resources import BucketFolder
from orchestrator.spec import BucketUrl, RunSpec


def folder_of_run(storage: Storage, spec: RunSpec, run_id: str) -> BucketFolder | None:
    """Where a run of `spec` is to be kept, once the bucket was looked at; `None` where it names none. `UsageError` if
    there is no such bucket, `PermissionMissing` if what lies there may not be listed: nobody could bring it home.
    """
    if spec.bucket is None:
        return None
    place = BucketUrl.parse(spec.bucket)
    region = storage.region_of(place.bucket)
    if region is None:
        raise UsageError(
            f"bucket = {spec.bucket!r}: there is no bucket {place.bucket}; "
            f"`aws s3 mb s3://{place.bucket} --region {spec.region}` makes one"
        )
    folder = BucketFolder(place.bucket, f"{place.prefix}/{run_id}", region)
    storage.names(folder.bucket, folder.key(""))
    return folder


def bucket_notes(folder: BucketFolder, *, region: str) -> tuple[str, ...]:
    """What to tell beside the plan."""
    if folder.region == region:
        return ()
    return (
        f"the bucket {folder.bucket} is in {folder.region}, the machine in {region}: "
        "AWS charges for what passes between",
    )


def orders(folder: BucketFolder, *, names: Sequence[str], checkpoints: str) -> bytes:
    """What the machine's program is to do (`infra/bucket.py`)."""
    told = {
        "bucket": folder.bucket,
        "prefix": folder.prefix,
        "region": folder.region,
        "names": list(names),
        "checkpoints": checkpoints,
    }
    return json.dumps(told, indent=1).encode()
