"""A machine without an open port: launched so, and reached through Session Manager's stand-in."""

import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from rentals import REGION, Rental, rental

from orchestrator.aws.clients import Clients, loopback_clients
from orchestrator.aws.cloud import AwsCloud
from orchestrator.aws.tunnel import tunnelling
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.dryrun.dial import loopback_dialler
from orchestrator.errors import HostUnreachable, UsageError
from orchestrator.launch import records_of
from orchestrator.ports import Connect
from orchestrator.record import Rental as Rented
from orchestrator.ssh import connector
from orchestrator.worlds import Where, refuse_without_plugin, tunnel_of

PLUGIN = (sys.executable, "-P", "-m", "orchestrator.dryrun.plugin")


@pytest.fixture(scope="module")
def clients(mock: MockedCloud) -> Clients:
    return loopback_clients(REGION, mock.endpoint)


@pytest.fixture
def run(clients: Clients, tmp_path: Path) -> Generator[Rental]:
    rented = rental(AwsCloud(clients), tmp_path, f"run-{tmp_path.name}", ssm=True, instance_profile="machines")
    yield rented
    assert rented.teardown().survivors == ()


def launched(run: Rental) -> Rented:
    (machine,) = records_of(run.launch(), run.plan, now=run.clock.now())
    return Rented(run.folder, run.plan.run_id, machine)


def connect(mock: MockedCloud, clients: Clients, plugin: tuple[str, ...] = PLUGIN) -> Connect:
    return connector(tunnelling(clients, loopback_dialler(mock.endpoint), plugin=plugin))


def test_it_is_open_to_nobody_and_answers_all_the_same(mock: MockedCloud, clients: Clients, run: Rental):
    rented = launched(run)
    assert rented.host.address == rented.machine.instance_id
    (group,) = clients.ec2.describe_security_groups(Filters=[{"Name": "tag:run-id", "Values": [run.plan.run_id]}])[
        "SecurityGroups"
    ]
    assert group["IpPermissions"] == []
    session = connect(mock, clients)(rented.host)
    assert session.run(("cat",), stdin=b"through").stdout == "through"
    session.close()
    with pytest.raises(HostUnreachable, match="nobody answers"):
        connect(mock, clients, ("/nowhere/plugin",))(rented.host)
    proxy = tunnel_of(rented.host, REGION, None)
    assert proxy is not None
    assert f"--target {rented.machine.instance_id} --document-name AWS-StartSSHSession" in proxy


def test_one_that_has_not_reported_is_dialled_again(mock: MockedCloud, clients: Clients, run: Rental):
    rented = launched(run)
    clients.ec2.terminate_instances(InstanceIds=[rented.machine.instance_id])
    with pytest.raises(HostUnreachable, match="AmazonSSMManagedInstanceCore"):
        connect(mock, clients)(rented.host)


def test_without_the_plugin_nothing_is_rented(run: Rental, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="session-manager-plugin is not on the PATH"):
        refuse_without_plugin(run.plan.spec, Where())
    refuse_without_plugin(run.plan.spec, Where(dry_run=True))
