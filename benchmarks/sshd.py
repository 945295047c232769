"""A true OpenSSH server on loopback for as long as a measurement takes, and a line to it that is far away."""

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.keys import make_host_key, make_login_key

_CHUNK = 1 << 18
_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/pid
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
Subsystem sftp internal-sftp
"""


class NoServer(Exception):
    """There is no sshd here, or it does not come up."""


@contextmanager
def openssh_server(folder: Path) -> Generator[dict[str, str]]:
    """How to dial it: address, port, user, private_path, host_key, known_hosts."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if sshd is None or shutil.which("sftp") is None:
        raise NoServer("not installed: OpenSSH's sshd and sftp")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    login, host_key = make_login_key(folder / "login.pem", "benchmark"), make_host_key()
    (folder / "host_key").write_text(host_key.private_openssh)
    (folder / "host_key").chmod(0o600)
    (folder / "authorized_keys").write_text(login.public_openssh)
    port = _free_port()
    (folder / "config").write_text(_CONFIG.format(port=port, folder=folder))
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key.public_openssh}\n")
    command = [sshd, "-D", "-e", "-f", str(folder / "config")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(port)
            yield {
                "address": "127.0.0.1",
                "port": str(port),
                "user": pwd.getpwuid(os.geteuid()).pw_name,
                "private_path": str(login.private_path),
                "host_key": host_key.public_openssh,
                "known_hosts": str(folder / "known_hosts"),
            }
        finally:
            server.terminate()


@contextmanager
def far_away(host: dict[str, str], folder: Path, *, round_trip_seconds: float) -> Generator[dict[str, str]]:
    """The same server behind a line whose every byte takes half a round trip, as wide as it may be."""
    loop, port = asyncio.new_event_loop(), _free_port()
    line = _Line(int(host["port"]), round_trip_seconds / 2)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(line.serve, "127.0.0.1", port), loop).result(10)
    known = folder / "known_hosts_far"
    known.write_text(f"[127.0.0.1]:{port} {host['host_key']}\n")
    try:
        yield {**host, "port": str(port), "known_hosts": str(known)}
    finally:
        asyncio.run_coroutine_threadsafe(_closed(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _closed(server: asyncio.Server) -> None:
    server.close()
    lines = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for line in lines:
        line.cancel()
    await asyncio.gather(*lines, return_exceptions=True)


class _Line:
    def __init__(self, port: int, delay_seconds: float) -> None:
        self._port, self._delay = port, delay_seconds

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        # The line is cut when the measurement ends.
        with suppress(asyncio.CancelledError):
            await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def arrive() -> None:
            while (due := await on_the_way.get())[1]:
                await asyncio.sleep(due[0] - loop.time())
                target.write(due[1])
                await target.drain()
            target.close()

        arriving = asyncio.ensure_future(arrive())
        with suppress(ConnectionError):
            while chunk := await source.read(_CHUNK):
                on_the_way.put_nowait((loop.time() + self._delay, chunk))
        on_the_way.put_nowait((0.0, b""))
        with suppress(ConnectionError):
            await arriving


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as line:
            if line.recv(4) == b"SSH-":
                return
        time.sleep(0.02)
    raise NoServer("sshd does not come up")
