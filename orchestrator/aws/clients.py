"""The boto3 clients of a world: the real one with the caller's own credentials, the loopback one that can
reach nothing but a mocked AWS on this machine.
"""

import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config

from orchestrator.aws.errors import translated
from orchestrator.errors import CloudRefused, UsageError

PRICE_LIST_REGION = "us-east-1"
"""The price list answers in a few regions only, for all of them."""
_ADDRESS_URL = "https://checkip.amazonaws.com"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_READ_ATTEMPTS = 5
_CONNECT_SECONDS, _READ_SECONDS = 10, 60


@dataclass(frozen=True, slots=True)
class Clients:
    """Clients of one region. `creator` is EC2 without retries of its own: whoever creates has to know
    whether an answer was lost. `address_url` answers with the caller's public address.
    """

    region: str
    ec2: Any
    creator: Any
    ssm: Any
    sts: Any
    pricing: Any
    quotas: Any
    s3: Any
    address_url: str

    def ask_address(self) -> str:
        """What `address_url` answers; raises `OSError`. Asked without a proxy, as SSH goes without."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.address_url, timeout=_CONNECT_SECONDS) as answer:
            return answer.read(100).decode("ascii", errors="replace").strip()


def real_clients(region: str) -> Clients:
    """AWS, with credentials found as every AWS tool finds them."""
    with translated("reading the AWS settings"):
        return _clients(boto3.Session(region_name=region), region, {}, _ADDRESS_URL)


def loopback_clients(region: str, endpoint: str) -> Clients:
    """A mocked AWS at `endpoint`. Profile, settings, environment and credentials of the caller are not
    looked at, and a request to any other host is refused before it is sent.
    """
    if urlsplit(endpoint).hostname not in _LOOPBACK:
        raise UsageError(f"{endpoint}: the mocked AWS must be on this machine, say http://127.0.0.1:5000")
    core = botocore.session.Session(session_vars=_nothing_of_the_callers())
    core.set_credentials("dry-run", "dry-run")
    core.get_component("event_emitter").register("before-send", _refuse_other_hosts)
    session = boto3.Session(botocore_session=core, region_name=region)
    address_url = f"{endpoint.rstrip('/')}/checkip"
    return _clients(session, region, {"endpoint_url": endpoint, "verify": False}, address_url)


def _clients(session: Any, region: str, options: Mapping[str, Any], address_url: str) -> Clients:
    def client(service: str, *, of_region: str = region, attempts: int = _READ_ATTEMPTS) -> Any:
        return session.client(service, region_name=of_region, config=_config(options, attempts), **options)

    return Clients(
        region=region,
        ec2=client("ec2"),
        creator=client("ec2", attempts=1),
        ssm=client("ssm"),
        sts=client("sts"),
        pricing=client("pricing", of_region=PRICE_LIST_REGION),
        quotas=client("service-quotas"),
        s3=client("s3"),
        address_url=address_url,
    )


def _config(options: Mapping[str, Any], attempts: int) -> Config:
    direct: dict[str, Any] = {"proxies": {}, "s3": {"addressing_style": "path"}} if "endpoint_url" in options else {}
    return Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        user_agent_extra="launch-and-train",
        **direct,
    )


def _nothing_of_the_callers() -> dict[str, Any]:
    """Botocore's settings, none of them read from an environment variable or a file."""
    found: Mapping[str, Any] = botocore.session.Session.SESSION_VARIABLES
    blank = {name: (None, None, default, convert) for name, (_, _, default, convert) in found.items()}
    nowhere = (None, None, os.devnull, None)
    return blank | {"config_file": nowhere, "credentials_file": nowhere}


def _refuse_other_hosts(request: Any, **_: Any) -> None:
    host = urlsplit(request.url).hostname
    if host not in _LOOPBACK:
        raise CloudRefused(f"a dry run must not reach {host}; nothing was sent")
