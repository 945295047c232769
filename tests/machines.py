"""Machines to dial in tests: the embedded one, and a true OpenSSH server with a configuration of its own."""

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from orchestrator.dryrun.first_boot import FirstBoot
from orchestrator.dryrun.fleet import Fleet
from orchestrator.dryrun.machine import MachineOrder
from orchestrator.dryrun.scenario import read_scenario
from orchestrator.packaged import packaged
from orchestrator.ports import Session
from orchestrator.resources import Host
from orchestrator.ssh import connector

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/pid
AllowUsers {user}
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Key:
    """An ed25519 key in OpenSSH's text forms."""

    private: str
    public: str


def make_key() -> Key:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return Key(private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


def write_key(path: Path, key: Key) -> Path:
    path.write_text(key.private)
    path.chmod(0o600)
    return path


@dataclass(frozen=True)
class Target:
    """A machine that listens, where its home lies on this computer, and how to break its lines."""

    host: Host
    home: Path
    drop_connections: Callable[[], None]

    def session(self) -> Session:
        return connector()(self.host)


@contextmanager
def embedded_machine(folder: Path, scenario: Mapping[str, Any] | None = None) -> Generator[Target]:
    folder.mkdir(parents=True, exist_ok=True)
    login, host_key = make_key(), make_key()
    fleet = Fleet()
    try:
        machine = fleet.boot(
            MachineOrder(
                instance_id="i-0123456789abcdef0",
                folder=folder / "machine",
                public_key=login.public,
                first_boot=FirstBoot(host_key.private),
                scenario=read_scenario(scenario),
            )
        )
        assert machine.port is not None
        private = write_key(folder / "login.pem", login)
        host = Host("127.0.0.1", machine.port, "ubuntu", private, host_key.public)
        yield Target(host, folder / "machine" / "home", fleet.drop_connections)
    finally:
        fleet.close()


@contextmanager
def openssh_server(folder: Path) -> Generator[Target]:
    """Needs `SSHD`. Its home is the real home of whoever runs the tests: relative paths lie there."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    me = pwd.getpwuid(os.geteuid())
    login, host_key = make_key(), make_key()
    write_key(folder / "host_key", host_key)
    (folder / "authorized_keys").write_text(login.public)
    port = _free_port()
    (folder / "config").write_text(_CONFIG.format(port=port, folder=folder, user=me.pw_name))
    command = [str(SSHD), "-D", "-e", "-f", str(folder / "config")]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log) as server,
    ):
        try:
            _wait_for_banner(port, folder / "log")
            private = write_key(folder / "login.pem", login)
            host = Host("127.0.0.1", port, me.pw_name, private, host_key.public)
            yield Target(host, Path(me.pw_dir), lambda: _end_children(server.pid))
        finally:
            _end_children(server.pid)
            server.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_banner(port: int, log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as line:
                if line.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"sshd did not come up: {log.read_text()}")


def _end_children(pid: int) -> None:
    """End the processes that serve sshd's connections."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = entry.read_text(errors="replace").rpartition(")")[2].split()
            if int(words[1]) == pid:
                os.kill(int(entry.parent.name), 9)
        except (OSError, IndexError, ValueError):
            continue


def machines_program(name: str) -> ModuleType:
    """A program of `infra/` that runs on machines, as a module."""
    spec = importlib.util.spec_from_file_location(f"machines_{Path(name).stem}", packaged("infra") / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
