"""The two worlds a run can take place in. The real one speaks to AWS and dials machines where they
are; the dry one speaks to a mocked AWS on loopback and dials the machines it booted there. Nothing
else differs.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.aws.clients import loopback_clients, real_clients
from orchestrator.aws.cloud import AwsCloud
from orchestrator.dryrun.dial import loopback_dialler
from orchestrator.dryrun.process import start_cloud
from orchestrator.run import World
from orchestrator.ssh import connector


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
    cloud = AwsCloud(real_clients(region))
    return World(cloud, cloud, connector(), SystemClock())


def dry_world(region: str, endpoint: str) -> World:
    """The mocked AWS at `endpoint`, which must be loopback."""
    cloud = AwsCloud(loopback_clients(region, endpoint))
    return World(cloud, cloud, connector(loopback_dialler(endpoint)), SystemClock())


def world_at(region: str, endpoint: str | None) -> World:
    """The world a run took place in, by its record."""
    return real_world(region) if endpoint is None else dry_world(region, endpoint)


@contextmanager
def mocked_endpoint(folder: Path) -> Generator[str]:
    """A mocked AWS of our own, in `folder`, for as long as the context is open."""
    process = start_cloud(folder)
    try:
        yield process.endpoint
    finally:
        process.stop()
