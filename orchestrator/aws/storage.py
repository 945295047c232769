"""Buckets as the story sees them: a `Storage` over S3. Which objects matter is unknown here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from orchestrator.aws.clients import Clients
from orchestrator.aws.errors import translated
from orchestrator.errors import AlreadyGone
from orchestrator.resources import Stored

_REGION_HEADER = "x-amz-bucket-region"
_SHA256 = "sha256"
"""The metadata in which the machine's program notes it."""
_CHUNK = 1 << 20


class AwsStorage:
    """Reads from S3; raises only errors of `errors.py`."""

    def __init__(self, clients: Clients) -> None:
        self._s3 = clients.s3

    def region_of(self, bucket: str) -> str | None:
        """The region a bucket is in, or `None` if there is no such bucket. S3 tells it also to those who may not look
        into it.
        """
        try:
            with translated(f"looking for the bucket {bucket}", service="s3"):
                try:
                    answer = self._s3.head_bucket(Bucket=bucket)
                except ClientError as error:
                    answer = error.response
                    if _REGION_HEADER not in _headers(answer):
                        raise
        except AlreadyGone:
            return None
        return _headers(answer).get(_REGION_HEADER)

    def names(self, bucket: str, prefix: str) -> tuple[str, ...]:
        """What follows `prefix` in the keys of the bucket that begin with it, in order."""
        with translated(f"listing s3://{bucket}/{prefix}", service="s3"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        return tuple(key.removeprefix(prefix) for key in keys)

    def look(self, bucket: str, key: str) -> Stored | None:
        """The object, or `None` if there is none of that key."""
        try:
            with translated(f"looking at s3://{bucket}/{key}", service="s3"):
                return _stored(self._s3.head_object(Bucket=bucket, Key=key))
        except AlreadyGone:
            return None

    def read(self, bucket: str, key: str) -> bytes | None:
        """What a small object holds, or `None` if there is none of that key."""
        try:
            with translated(f"reading s3://{bucket}/{key}", service="s3"):
                return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except AlreadyGone:
            return None

    def download(self, bucket: str, key: str, local: Path) -> Stored:
        """Download an object into `local` as it is. `AlreadyGone` if there is none of that key."""
        with translated(f"downloading s3://{bucket}/{key}", service="s3"), local.open("wb") as target:
            answer = self._s3.get_object(Bucket=bucket, Key=key)
            target.writelines(answer["Body"].iter_chunks(_CHUNK))
        return _stored(answer)


def _headers(answer: Mapping[str, Any]) -> Mapping[str, str]:
    return answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})


def _stored(answer: Mapping[str, Any]) -> Stored:
    return Stored(answer["ContentLength"], answer["ETag"].strip('"'), answer.get("Metadata", {}).get(_SHA256))
