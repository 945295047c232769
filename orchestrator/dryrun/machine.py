"""The embedded machine: what an instance is once it runs. An SSH and SFTP server on a random loopback
port that holds the host key of its user data, admits the imported key as `ubuntu`, runs commands
as real local processes, and powers itself off when a command or its timer says so.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from orchestrator.dryrun.commands import CommandSession
from orchestrator.dryrun.first_boot import FirstBoot
from orchestrator.dryrun.hardware import Hardware
from orchestrator.dryrun.metadata import Metadata
from orchestrator.dryrun.scenario import Scenario

LOGIN_USER = "ubuntu"
_WATCH_SECONDS = 0.1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MachineOrder:
    """What a machine is built from. `public_key` is the imported key in OpenSSH form."""

    instance_id: str
    folder: Path
    public_key: str
    first_boot: FirstBoot = field(repr=False)
    scenario: Scenario
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    """What its commands find in their environment besides."""


class Machine:
    """A running machine. Every method but `boot` and `shut_down` may be called from any thread."""

    def __init__(self, order: MachineOrder) -> None:
        self._order = order
        machine_id = f"{order.instance_id}-{time.time_ns():x}"
        self._hardware = Hardware(order.folder, machine_id, order.settings, devices=order.scenario.devices)
        self._host_key = _host_key(order)
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._watch: asyncio.Task[None] | None = None
        self._booted_at = 0.0
        self._first_connection_at: float | None = None
        self._refusals_left = order.scenario.refuse_logins
        self._ending: asyncio.Task[None] | None = None
        self._metadata = Metadata()
        self.trains_since: float | None = None
        """By the monotonic clock; known where the scenario heeds it."""
        self.off = False

    @property
    def port(self) -> int | None:
        """The loopback port, or `None` while nobody listens."""
        settled = time.monotonic() - self._booted_at >= self._order.scenario.refuse_ssh_seconds
        return self._acceptor.get_port() if self._acceptor and settled and not self.off else None

    @property
    def host_key_public(self) -> str:
        """The host key it presents, in OpenSSH form."""
        return self._host_key.export_public_key("openssh").decode("ascii").strip()

    @property
    def connections(self) -> int:
        """How many SSH connections are open."""
        return len(self._connections)

    async def boot(self) -> None:
        """Assemble the hardware, listen, and start to watch timer and power switch."""
        self._hardware.assemble()
        await self._metadata.open()
        self._hardware.surroundings = {
            "LAUNCH_AND_TRAIN_METADATA": self._metadata.url,
            **({"LAUNCH_AND_TRAIN_METADATA_SECONDS": "0.2"} if self._order.scenario.interrupt else {}),
        }
        self._acceptor = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _Door(self),
            server_host_keys=[self._host_key],
            encoding=None,
            agent_forwarding=False,
            x11_forwarding=False,
            allow_scp=False,
            keepalive_interval=0,
            server_version="OpenSSH_9.6p1",
        )
        self._booted_at = time.monotonic()
        self._watch = asyncio.get_running_loop().create_task(self._watch_power())

    async def shut_down(self) -> None:
        """Power off: no more connections, processes or files once this returns, whoever began it."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._power_down())
        await asyncio.shield(self._ending)

    def drop_connections(self) -> None:
        """Break every open SSH connection without a farewell. Only from the machine's own loop."""
        for connection in tuple(self._connections):
            connection.abort()

    def announce_end(self, seconds: float) -> None:
        """Tell programs on the machine that AWS takes it back in so many seconds."""
        self._metadata.announce(seconds)

    def turns_away(self) -> bool:
        """Whether a connection that begins to log in is to find no key accepted."""
        if not self._refusals_left:
            return False
        self._refusals_left -= 1
        return True

    def admits(self, key: asyncssh.SSHKey) -> bool:
        """Whether this is the key that the instance was launched with."""
        try:
            wanted = asyncssh.import_public_key(self._order.public_key)
        except asyncssh.KeyImportError:
            return False
        return key.public_data == wanted.public_data

    def arrived(self, connection: asyncssh.SSHServerConnection) -> None:
        """Count a connection in."""
        self._connections.add(connection)
        if self._first_connection_at is None:
            self._first_connection_at = time.monotonic()
            if self._order.scenario.drop_ssh_after_seconds is not None:
                loop = asyncio.get_running_loop()
                loop.call_later(self._order.scenario.drop_ssh_after_seconds, self.drop_connections)

    def left(self, connection: asyncssh.SSHServerConnection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)

    def session(self, line: "asyncssh.SSHServerChannel[bytes]") -> CommandSession:
        """What serves a channel: a command, or SFTP."""
        return CommandSession(line, self._hardware)

    async def _power_down(self) -> None:
        self.off = True
        if self._watch:
            self._watch.cancel()
        if self._acceptor:
            self._acceptor.close()
        self._metadata.close()
        self.drop_connections()
        await asyncio.get_running_loop().run_in_executor(None, self._hardware.cut_power)

    async def _watch_power(self) -> None:
        limit = self._order.first_boot.self_destruct_seconds
        while not self.off:
            await asyncio.sleep(_WATCH_SECONDS)
            if self._order.scenario.heeds_training and self.trains_since is None and self._hardware.trains():
                self.trains_since = time.monotonic()
            timer_rang = limit is not None and time.monotonic() - self._booted_at >= limit
            if timer_rang or self._hardware.wants_off(time.time()):
                _log.info("%s powers itself off", self._order.instance_id)
                await self.shut_down()


class _Door(asyncssh.SSHServer):
    """Lets the one key in, and forwards nothing."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._connection: asyncssh.SSHServerConnection | None = None
        self._turned_away = False

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        if self._machine.off:
            conn.abort()
        self._machine.arrived(conn)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the library's signature
        if self._connection:
            self._machine.left(self._connection)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002 - the library's signature
        self._turned_away = self._machine.turns_away()
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return False

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return not self._turned_away and username == LOGIN_USER and self._machine.admits(key)

    def session_requested(self) -> "tuple[asyncssh.SSHServerChannel[bytes], CommandSession] | bool":
        if self._connection is None:
            return False
        line = self._connection.create_server_channel(None)
        return line, self._machine.session(line)


def _host_key(order: MachineOrder) -> asyncssh.SSHKey:
    private = order.first_boot.host_key_private
    if private is not None and order.scenario.host_key == "right":
        with suppress(asyncssh.KeyImportError):
            return asyncssh.import_private_key(private)
    return asyncssh.generate_private_key("ssh-ed25519")
