"""`Session` over SSH and SFTP: fabric on paramiko. The host key is pinned before the first byte is
exchanged and no other is ever accepted; nothing of the caller's own SSH setup (agent, keys, config)
takes part.
"""

import base64
import contextlib
import logging
import shlex
import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fabric import Config, Connection
from paramiko import (
    AuthenticationException,
    BadHostKeyException,
    PKey,
    RejectPolicy,
    SFTPClient,
    SSHClient,
    SSHConfig,
    SSHException,
    Transport,
)
from paramiko.pkey import UnknownKeyType

from orchestrator.errors import HostKeyMismatch, HostUnreachable, RunFailed, TimedOut
from orchestrator.ports import Connect, Session
from orchestrator.resources import CommandResult, Host
from orchestrator.ssh_talk import Ended, OutOfPatience, Patience, Talk

Dial = Callable[[str, int, float], socket.socket]
"""`(address, port, timeout_seconds) -> socket`."""

_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes256-ctr",
)
"""GCM first: it needs no separate MAC pass, which paramiko computes in Python."""
_DIAL_SECONDS = 10.0
_GREETING_SECONDS = 15.0
_KEEPALIVE_SECONDS = 15
_SILENCE_SECONDS = 60.0
"""How long a line may stay silent in the middle of a transfer, or leave our bytes unacknowledged."""
_CHUNK = 32768
_WRITE = 32000
"""With its header a write then is one SSH packet; 32 KiB would be two, which costs a tenth of the speed."""
_FEW_BYTES = 4 * _CHUNK
"""Read over SFTP at a round trip for each chunk; more is streamed."""
_SSH_PORT = 22
_KILLED = 255
"""Exit status of a command that a signal ended, as ssh(1) gives it: paramiko does not tell which signal."""
_LOG_CHANNEL = "orchestrator.ssh"


def connector(dial: Dial | None = None) -> Connect:
    """A `Connect` that reaches hosts by `dial`; `None`: plain TCP."""
    logger = logging.getLogger(_LOG_CHANNEL)
    # Without a handler of its own paramiko's warnings would reach stderr through logging's last resort.
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())

    def connect(host: Host) -> Session:
        return _SshSession(_open(host, dial or dial_tcp), host)

    return connect


class _SshSession:
    """An open connection. Not for several threads at once."""

    def __init__(self, connection: Connection, host: Host) -> None:
        self._connection = connection
        self._name = _name(host)

    def run(
        self, command: Sequence[str], *, timeout_seconds: float = 60.0, stdin: bytes | None = None
    ) -> CommandResult:
        """Run an argument list and wait for it. `TimedOut` if it takes longer; it then goes on there."""
        started = time.monotonic()
        stdout = bytearray()
        try:
            ended = self._converse(command, Patience(timeout_seconds), stdin=stdin, take=stdout.extend)
        except OutOfPatience as error:
            raise TimedOut(f"`{_short(command)}` on {self._name} did not end within {timeout_seconds:g} s") from error
        return CommandResult(
            command=tuple(command),
            exit_status=ended.status,
            stdout=stdout.decode(errors="replace"),
            stderr=ended.stderr,
            seconds=time.monotonic() - started,
        )

    def put(self, source: Path | BinaryIO, remote: str, *, on_bytes: Callable[[int], None] | None = None) -> None:
        """Upload over SFTP to a temporary name, then rename."""
        aside = f"{remote}.part"
        opened = source.open("rb") if isinstance(source, Path) else contextlib.nullcontext(source)
        with opened as stream, self._files(f"upload to {remote}") as sftp:
            _send(stream, sftp, aside, on_bytes)
            sftp.posix_rename(aside, remote)

    def get(self, remote: str, local: Path, *, on_bytes: Callable[[int], None] | None = None) -> None:
        """Download into `local` as it is. Streamed from `cat`: paramiko's SFTP asks for a whole file ahead
        in a thread that nobody can stop, and ends a broken download as if the file were shorter.
        """
        done = 0
        with local.open("wb") as target:

            def take(chunk: bytes) -> None:
                nonlocal done
                target.write(chunk)
                done += len(chunk)
                if on_bytes is not None:
                    on_bytes(done)

            self._stream(("cat", "--", remote), take, doing=f"download {remote}")

    def read(self, remote: str, *, offset: int = 0) -> bytes:
        """Bytes of a file from `offset` to its present end; empty if the file is not there."""
        with self._files(f"read {remote}") as sftp:
            try:
                file = sftp.open(remote, "rb")
            except FileNotFoundError:
                return b""
            with file:
                left = (file.stat().st_size or 0) - offset
                if left <= _FEW_BYTES:
                    file.seek(offset)
                    return file.read(left) if left > 0 else b""
        found = bytearray()
        self._stream(("tail", "-c", f"+{offset + 1}", "--", remote), found.extend, doing=f"read {remote}")
        return bytes(found)

    def close(self) -> None:
        """Hang up; harmless when already closed."""
        with contextlib.suppress(SSHException, EOFError, OSError):
            self._connection.close()
        # fabric closes only what it believes to be connected; a broken transport keeps its thread.
        _client(self._connection).close()

    def _stream(self, command: Sequence[str], take: Callable[[bytes], None], *, doing: str) -> None:
        try:
            ended = self._converse(command, Patience(_SILENCE_SECONDS, renewed=True), take=take)
        except OutOfPatience as error:
            raise HostUnreachable(f"cannot {doing}: {self._name} has fallen silent") from error
        if ended.status != 0:
            raise RunFailed(f"cannot {doing} on {self._name}: {ended.stderr.strip()}")

    def _converse(
        self,
        command: Sequence[str],
        patience: Patience,
        *,
        take: Callable[[bytes], None],
        stdin: bytes | None = None,
    ) -> Ended:
        """Run a command, hand its output to `take`. `OutOfPatience` where it takes too long."""
        with self._line(f"run `{_short(command)}`"):
            channel = self._connection.create_session()
            with contextlib.closing(channel):
                channel.exec_command(shlex.join(command))
                ended = Talk(channel, patience).hold(stdin, take)
        if ended.status >= 0:
            return ended
        if self._is_gone():
            raise HostUnreachable(f"the line to {self._name} broke while `{_short(command)}` ran")
        return Ended(_KILLED, ended.stderr)

    @contextmanager
    def _files(self, doing: str) -> Generator[SFTPClient]:
        with self._line(doing):
            sftp = self._connection.sftp()
            channel = sftp.get_channel()
            if channel is not None:
                channel.settimeout(_SILENCE_SECONDS)
            yield sftp

    @contextmanager
    def _line(self, doing: str) -> Generator[None]:
        """Translate what the library raises."""
        try:
            if not self._connection.is_connected:
                raise HostUnreachable(f"cannot {doing}: the line to {self._name} is closed")
            yield
        except OutOfPatience:
            raise
        except (SSHException, EOFError, TimeoutError, ConnectionError) as error:
            raise HostUnreachable(f"cannot {doing}: the line to {self._name} broke ({error})") from error
        except OSError as error:
            if self._is_gone():
                raise HostUnreachable(f"cannot {doing}: the line to {self._name} broke ({error})") from error
            raise RunFailed(f"cannot {doing} on {self._name}: {error}") from error

    def _is_gone(self) -> bool:
        transport = self._connection.transport
        if transport is None:
            return True
        # A dying transport closes its channels a moment before it calls itself dead.
        transport.join(0.5)
        return not transport.is_active()


def _open(host: Host, dial: Dial) -> Connection:
    key = _private_key(host.private_path)
    try:
        line = dial(host.address, host.port, _DIAL_SECONDS)
    except OSError as error:
        raise HostUnreachable(f"nobody answers at {host.address}:{host.port} ({error})") from error
    _expect_answers(line)
    connection = _connection(host, line, key)
    try:
        connection.open()
    except BadHostKeyException as error:
        raise HostKeyMismatch(
            f"{_name(host)} presents a host key other than the one this run gave it; another machine may be "
            "listening in its place, so nothing was sent to it"
        ) from error
    except AuthenticationException as error:
        raise HostUnreachable(f"{_name(host)} does not admit our key (yet)") from error
    except (SSHException, EOFError, OSError) as error:
        raise HostUnreachable(f"{_name(host)} answers, but not as an SSH server should (yet): {error}") from error
    finally:
        if not connection.is_connected:
            _client(connection).close()
            line.close()
    if connection.transport is not None:
        connection.transport.set_keepalive(_KEEPALIVE_SECONDS)
    return connection


def _connection(host: Host, line: socket.socket, key: PKey) -> Connection:
    connection = Connection(
        host.address,
        user=host.user,
        port=host.port,
        # `lazy` and an empty SSH configuration: no file of the caller may redirect the connection.
        config=Config(lazy=True, ssh_config=SSHConfig()),
        connect_kwargs={
            "sock": line,
            "pkey": key,
            "allow_agent": False,
            "look_for_keys": False,
            "transport_factory": _transport,
            "banner_timeout": _GREETING_SECONDS,
            "auth_timeout": _GREETING_SECONDS,
            "channel_timeout": _GREETING_SECONDS,
        },
    )
    # fabric would trust any host it has not met before.
    client = _client(connection)
    client.set_missing_host_key_policy(RejectPolicy())
    client.set_log_channel(_LOG_CHANNEL)
    kind, encoded = host.host_key.split()[:2]
    entry = host.address if host.port == _SSH_PORT else f"[{host.address}]:{host.port}"
    client.get_host_keys().add(entry, kind, _public_key(kind, encoded))
    return connection


def _client(connection: Connection) -> SSHClient:
    client: SSHClient | None = connection.client
    if client is None:
        raise TypeError("fabric makes its client when the connection is made")
    return client


def _transport(line: socket.socket, **options: Any) -> Transport:
    transport = Transport(line, **options)
    transport.get_security_options().ciphers = _CIPHERS
    return transport


def _private_key(path: Path) -> PKey:
    try:
        return PKey.from_path(path)
    except (OSError, SSHException, UnknownKeyType, ValueError) as error:
        raise RunFailed(f"{path}: cannot read the private key: {error}") from error


def _public_key(kind: str, encoded: str) -> PKey:
    return PKey.from_type_string(kind, base64.b64decode(encoded))


def dial_tcp(address: str, port: int, timeout_seconds: float) -> socket.socket:
    """Plain TCP."""
    line = socket.create_connection((address, port), timeout_seconds)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def _expect_answers(line: socket.socket) -> None:
    # A dead line is noticed by unanswered keepalives; else the kernel would go on for a quarter of an hour.
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None and line.family != socket.AF_UNIX:
        line.setsockopt(socket.IPPROTO_TCP, option, int(_SILENCE_SECONDS * 1000))


def _send(source: BinaryIO, sftp: SFTPClient, remote: str, on_bytes: Callable[[int], None] | None) -> None:
    """Write a file without waiting for each answer; what was refused shows in its size."""
    done = 0
    with sftp.open(remote, "wb") as file:
        file.set_pipelined(True)
        while True:
            chunk = source.read(_WRITE)
            file.write(chunk)
            done += len(chunk)
            if on_bytes is not None:
                on_bytes(done)
            if not chunk:
                break
    arrived = sftp.stat(remote).st_size
    if arrived != done:
        raise OSError(f"{remote}: {arrived} bytes of {done} arrived")


def _name(host: Host) -> str:
    return f"{host.user}@{host.address}"


def _short(command: Sequence[str]) -> str:
    line = shlex.join(command)
    return line if len(line) <= 120 else f"{line[:117]}…"
