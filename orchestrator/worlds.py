"""The two worlds a run can take place in. The real one speaks to AWS and dials machines where they
are; the dry one speaks to a mocked AWS on loopback and dials the machines it booted there. Nothing
else differs.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.aws.clients import loopback_clients, real_clients
from orchestrator.aws.cloud import AwsCloud
from orchestrator.aws.storage import AwsStorage
from orchestrator.aws.tunnel import DOCUMENT, PLUGIN, tunnelling
from orchestrator.dryrun.dial import loopback_dialler, loopback_port
from orchestrator.dryrun.process import start_cloud
from orchestrator.errors import HostUnreachable, UsageError
from orchestrator.resources import Host
from orchestrator.spec import RunSpec
from orchestrator.ssh import connector, dial_tcp
from orchestrator.training import World

_STAND_IN = (sys.executable, "-P", "-m", "orchestrator.dryrun.plugin")


@dataclass(frozen=True, slots=True)
class Where:
    """Which world a verb works in."""

    dry_run: bool = False
    mock_cloud: str | None = None

    @property
    def is_real(self) -> bool:
        """Whether money can be spent."""
        return not self.dry_run and self.mock_cloud is None


@dataclass(slots=True)
class Opened:
    """A world and the address of its mocked AWS, if it has one; one of our own ends with the context, unless it is
    `kept`: it then ends itself once nothing lives in it and nobody asks any more.
    """

    world: World
    endpoint: str | None
    kept: bool = False


class SystemClock:
    """The clock on the wall."""

    def now(self) -> datetime:
        """The present, aware UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        time.sleep(seconds)


def real_world(region: str) -> World:
    """AWS with the caller's own credentials."""
    clients = real_clients(region)
    cloud = AwsCloud(clients)
    return World(cloud, cloud, connector(tunnelling(clients, dial_tcp)), SystemClock(), AwsStorage(clients))


def dry_world(region: str, endpoint: str) -> World:
    """The mocked AWS at `endpoint`, which must be loopback."""
    clients = loopback_clients(region, endpoint)
    cloud = AwsCloud(clients)
    dialler = tunnelling(clients, loopback_dialler(endpoint), plugin=_STAND_IN)
    return World(cloud, cloud, connector(dialler), SystemClock(), AwsStorage(clients))


def world_at(region: str, endpoint: str | None) -> World:
    """The world a run took place in, by its record."""
    return real_world(region) if endpoint is None else dry_world(region, endpoint)


def standing_world(region: str, where: Where) -> World:
    """A world that stood before and will stand after."""
    if where.mock_cloud is not None:
        return dry_world(region, where.mock_cloud)
    if where.dry_run:
        raise UsageError("--dry-run needs --mock-cloud URL here: a fresh mocked cloud holds nothing")
    return real_world(region)


@contextmanager
def opened_world(region: str, where: Where) -> Generator[Opened]:
    """The world a verb works in; a dry run that names no mocked AWS gets one of its own."""
    if not where.dry_run or where.mock_cloud is not None:
        yield Opened(world_at(region, where.mock_cloud), where.mock_cloud)
        return
    # It takes its folder with it when it ends.
    process = start_cloud(Path(tempfile.mkdtemp(prefix="launch-and-train-")))
    opened = Opened(dry_world(region, process.endpoint), process.endpoint)
    try:
        yield opened
    finally:
        if not opened.kept:
            process.stop()


def refuse_without_plugin(spec: RunSpec, where: Where) -> None:
    """Raises `UsageError` where a machine is to be reached through Session Manager, without AWS's plugin for it."""
    if spec.ssm and where.is_real and shutil.which(PLUGIN) is None:
        raise UsageError(
            f"ssm = true: {PLUGIN} is not on the PATH; install it (AWS Systems Manager's user guide, `Install the "
            "Session Manager plugin`), or leave ssm out"
        )


def tunnel_of(host: Host, region: str, endpoint: str | None) -> str | None:
    """The ProxyCommand by which ssh(1) finds a machine without an open port; `None` where it finds it without one."""
    if endpoint is not None or not host.address.startswith("i-"):
        return None
    return (
        f"aws ssm start-session --region {region} --target {host.address} --document-name {DOCUMENT} "
        f"--parameters portNumber={host.port}"
    )


def door_of(host: Host, endpoint: str | None) -> tuple[str, int]:
    """Address and port at which ssh(1) finds a machine. Raises `HostUnreachable` while nobody listens there."""
    if endpoint is None:
        return host.address, host.port
    try:
        return "127.0.0.1", loopback_port(endpoint, host.address)
    except ConnectionRefusedError as error:
        raise HostUnreachable(f"nobody answers at {host.address}:{host.port} ({error})") from error
