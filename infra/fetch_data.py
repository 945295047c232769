"""Fetches a run's data to the rented machine, in the run's folder, before the trainer starts: by https, or from a
bucket by the rights of the machine's instance profile. Verified and unpacked as on the user's computer; `run/spec.json`
then names what was found. What to fetch is told by `run/data.json`. One line and status 1 where it cannot be had.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from trainer.data.retrieve import opened, retrieve
from trainer.errors import TrainerError
from trainer.filing import replacing

_RUN, _DATA = Path("run"), Path("data")


class NotFetched(Exception):
    """A bucket did not give the data."""


def main() -> int:
    """The exit status."""
    errand = json.loads((_RUN / "data.json").read_text(encoding="utf-8"))
    _write("status.json", {"state": "fetching data"})
    try:
        found = fetched(errand)
    except (TrainerError, NotFetched, OSError) as error:
        _write("status.json", {"state": "failed"})
        print(f"the data was not fetched: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    job = json.loads((_RUN / "spec.json").read_text(encoding="utf-8"))
    _write("spec.json", {**job, "data": os.path.relpath(found, _RUN)})
    return 0


def fetched(errand: dict[str, Any]) -> Path:
    """The file or folder that was asked for."""
    url, sha256 = errand["url"], errand["sha256"]
    if not url.startswith("s3://"):
        return retrieve(url, into=_DATA, sha256=sha256)
    bucket, _, key = url.removeprefix("s3://").partition("/")
    _DATA.mkdir(exist_ok=True)
    file = _DATA / Path(key).name
    _download(bucket, key, file, errand)
    return opened(file, url, sha256=sha256)


def _download(bucket: str, key: str, file: Path, errand: dict[str, Any]) -> None:
    # Only buckets want boto3, which an environment that was there before may lack.
    import boto3
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.Session(region_name=errand["region"]).client("s3")
    try:
        found = client.head_object(Bucket=bucket, Key=key)["ETag"].strip('"')
        if found != errand["etag"]:
            raise NotFetched(f"{errand['url']}: has changed since the plan was made: its ETag is {found}")
        with replacing(file) as aside:
            client.download_file(bucket, key, str(aside))
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise NotFetched(
            f"{errand['url']}: {error}; the role of the instance profile must allow s3:GetObject"
        ) from error
    finally:
        client.close()


def _write(name: str, values: dict[str, Any]) -> None:
    with replacing(_RUN / name) as aside:
        aside.write_text(json.dumps(values, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
