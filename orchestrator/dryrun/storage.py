"""S3 of the rehearsed account: moto's own, which answers as it is. A bucket that the scenario does not deny is there
when it is first asked for, as an instance profile is; a machine may use it if it was given such a profile.
"""

from collections.abc import Mapping
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from werkzeug.wrappers import Request

from orchestrator.dryrun.scenario import Scenario
from orchestrator.dryrun.wire import Call, Refusal, scope_of

_WORDS = {"GET": "Get", "HEAD": "Head", "PUT": "Put", "DELETE": "Delete"}


def storage_call(request: Request) -> Call | None:
    """The S3 call in a signed request, or `None` if it is for another service. Its form holds `Bucket` and `Key`."""
    scope = scope_of(request.headers.get("Authorization", ""))
    if scope is None or scope[1] != "s3":
        return None
    bucket, _, key = request.path.lstrip("/").partition("/")
    return Call("s3", scope[0], _action(request, key), {"Bucket": bucket, "Key": key}, {})


def have_bucket(call: Call, scenario: Scenario) -> None:
    """A bucket of the name that is asked for. `Refusal` where the scenario says that there is none."""
    name = call.form["Bucket"]
    if name in scenario.missing_buckets:
        raise Refusal("NoSuchBucket", "The specified bucket does not exist", status=404)
    backend: Any = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    if name and name not in backend.buckets:
        backend.create_bucket(name, call.region)


def machine_settings(endpoint: str) -> Mapping[str, str]:
    """What AWS's libraries find on a machine with a profile: credentials that are none, and S3 here."""
    return {
        "AWS_ACCESS_KEY_ID": "dry-run",
        "AWS_SECRET_ACCESS_KEY": "dry-run",
        "AWS_ENDPOINT_URL": endpoint,
        "NO_PROXY": "127.0.0.1",
    }


def _action(request: Request, key: str) -> str:
    if not key and request.method == "GET" and "list-type" in request.args:
        return "ListObjectsV2"
    word = _WORDS.get(request.method, request.method.capitalize())
    return f"{word}{'Object' if key else 'Bucket'}"
