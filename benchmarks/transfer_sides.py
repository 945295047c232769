"""What `transfer` times: our session, upload and beginning of a training, and OpenSSH's own sftp; against a true sshd,
or a machine of the rehearsal's where one must be ready for training.
"""

import itertools
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from orchestrator.dryrun.first_boot import FirstBoot
from orchestrator.dryrun.fleet import Fleet
from orchestrator.dryrun.machine import MachineOrder
from orchestrator.dryrun.scenario import read_scenario
from orchestrator.events import Progress
from orchestrator.keys import make_host_key, make_login_key
from orchestrator.manifest import build_manifest
from orchestrator.packaged import packaged
from orchestrator.remote import prepare, start_training
from orchestrator.resources import Host, Manifest
from orchestrator.ssh import connector
from orchestrator.upload import upload

Work = Callable[[], float]


def put(host: dict[str, str], source: str, there: str) -> Work:
    """One file by our session, dialling included; counts bytes."""
    path = Path(source)

    def work() -> float:
        session = connector()(_host(host))
        session.put(path, f"{there}/ours")
        session.close()
        return path.stat().st_size

    return work


def sftp(host: dict[str, str], source: str, there: str, done: float) -> Work:
    """`sftp -r` of a file or folder, dialling included; counts what it is told to."""
    turn, is_folder = itertools.count(), Path(source).is_dir()
    options = {"UserKnownHostsFile": host["known_hosts"], "IdentitiesOnly": "yes"}
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    command = ["sftp", "-q", "-F", "/dev/null", "-i", host["private_path"], *flags, "-P", host["port"], "-b", "-"]
    command.append(f"{host['user']}@{host['address']}")

    def work() -> float:
        place = f"{there}/sftp-{os.getpid()}-{next(turn)}"
        batch = f"mkdir {place}\nput -r {source} {place}\n" if is_folder else f"put {source} {there}/sftp\n"
        subprocess.run(command, input=batch.encode(), check=True, capture_output=True)
        return done

    return work


def upload_all(host: dict[str, str], project: str, data: str, there: str, again: bool = False) -> Work:
    """Our whole upload of a project and its data, dialling included; counts files. Onto a machine that has nothing of
    it, or, with `again`, all of it.
    """
    manifest, turn = _manifest(project, data), itertools.count()
    if again:
        _upload(host, manifest, f"{there}/again/run-0")

    def work() -> float:
        number = next(turn)
        _upload(
            host, manifest, f"{there}/again/run-{number + 1}" if again else f"{there}/new-{os.getpid()}-{number}/run"
        )
        return len(manifest.files)

    return work


def begin(project: str, data: str) -> Work:
    """From a machine that listens to a trainer that was started, on a machine with an environment; counts once."""
    scratch, fleet, turn = Path(tempfile.mkdtemp()), Fleet(), itertools.count()
    login, host_key = make_login_key(scratch / "key.pem", "benchmark"), make_host_key()
    order = MachineOrder(
        instance_id="i-0",
        folder=scratch / "machine",
        public_key=login.public_openssh,
        first_boot=FirstBoot(host_key.private_openssh),
        scenario=read_scenario(None),
    )
    machine, manifest = fleet.boot(order), _manifest(project, data)
    host = Host("127.0.0.1", machine.port or 0, "ubuntu", login.private_path, host_key.public_openssh)

    def work() -> float:
        root = f"home-{next(turn)}/run"
        session = connector()(host)
        upload(session, manifest, root=root, extra={"run/spec.json": b"{}"}, tell=_unheard)
        start_training(session, root, prepare(session, root))
        session.close()
        return 1

    return work


def _upload(host: dict[str, str], manifest: Manifest, root: str) -> None:
    session = connector()(_host(host))
    upload(session, manifest, root=root, extra={"run/spec.json": b"{}"}, tell=_unheard)
    session.close()


def _unheard(message: str, progress: Progress | None) -> None:
    pass


def _manifest(project: str, data: str) -> Manifest:
    """With the project in the trainer's place: it need not be a git checkout."""
    return build_manifest(
        project=None,
        trainer=Path(project),
        infra=packaged("infra"),
        data=Path(data),
        output=Path(project).parent / "runs",
    )


def _host(host: dict[str, str]) -> Host:
    return Host(host["address"], int(host["port"]), host["user"], Path(host["private_path"]), host["host_key"])
