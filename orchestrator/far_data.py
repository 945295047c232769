"""Data that goes straight to the machine: what can be looked at from here before anything is rented, and what the
machine is told, which fetches, verifies and unpacks it before it trains.
"""

import json
from dataclasses import asdict

from orchestrator.errors import UsageError
from orchestrator.ports import Storage
from orchestrator.resources import FarData
from orchestrator.spec import BucketUrl, RunSpec


def far_data(storage: Storage, spec: RunSpec) -> FarData | None:
    """The data of `spec`, if it goes straight to the machine. What is at an s3 URL is looked at: `UsageError` if it is
    not there. What is elsewhere nobody looks at.
    """
    if not spec.skips_us:
        return None
    if not spec.data.startswith("s3://"):
        return FarData(spec.data, spec.data_sha256)
    place = BucketUrl.parse(spec.data)
    region = storage.region_of(place.bucket)
    if region is None:
        raise UsageError(f"data = {spec.data!r}: there is no bucket {place.bucket}")
    stored = storage.look(place.bucket, place.prefix)
    if stored is None:
        raise UsageError(f"data = {spec.data!r}: the bucket {place.bucket} holds no {place.prefix}")
    return FarData(spec.data, spec.data_sha256, stored.size, stored.etag, region)


def far_data_notes(data: FarData, *, region: str) -> tuple[str, ...]:
    """What to tell beside the plan."""
    notes = ["the data goes straight to the machine: what it holds is looked at there, once that is rented"]
    if data.sha256 is None:
        notes.append("no data_sha256: whether the machine fetches what you mean is not checked")
    if data.region is not None and data.region != region:
        notes.append(f"the data is in {data.region}, the machine in {region}: AWS charges for what passes between")
    return tuple(notes)


def errand(data: FarData) -> bytes:
    """What the machine's program is to fetch (`infra/fetch_data.py`)."""
    return json.dumps(asdict(data), indent=1).encode()
