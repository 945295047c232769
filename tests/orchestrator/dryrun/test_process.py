"""The mocked AWS as a process: it starts, outlives its client, and leaves nothing when it ends."""

import io
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest

from orchestrator.dryrun.cloud import running_cloud
from orchestrator.dryrun.dial import loopback_dialler
from orchestrator.dryrun.process import CloudProcess, serve, start_cloud
from orchestrator.errors import RunFailed, UsageError

CLIENT = """
import sys, tempfile, time
from pathlib import Path
from orchestrator.dryrun.process import start_cloud
with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
    cloud = start_cloud(Path(folder), idle_seconds=2)
    print(cloud.endpoint, cloud.pid, flush=True)
    time.sleep(600)
"""
SERVER = """
from orchestrator.dryrun.process import serve
serve(0, ready=lambda endpoint: print(endpoint, flush=True))
"""


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def working_in(folder: Path) -> list[str]:
    """Processes whose environment names the folder: those of its machines."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if not ended(int(entry.name)) and f"HOME={folder}".encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


def start_work(aws: Any, timer_seconds: float = 600) -> None:
    """An instance with a process on it that nobody waits for."""
    address = aws.address(aws.run_machine(timer_seconds=timer_seconds))
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(aws.login.private))
    client.connect("machine", username="ubuntu", pkey=key, sock=aws.dial(address, 22, 5.0), look_for_keys=False)
    _, stdout, _ = client.exec_command("setsid sleep 600 >/dev/null 2>&1 </dev/null & echo started")
    assert stdout.read() == b"started\n"
    client.close()


def test_a_cloud_runs_beside_us_and_stopping_it_leaves_nothing(tmp_path: Path, aws_at: Callable[[str], Any]):
    folder = tmp_path / "cloud"
    cloud = start_cloud(folder)
    assert os.getsid(cloud.pid) == cloud.pid
    start_work(aws_at(cloud.endpoint))
    assert working_in(folder)
    cloud.stop()
    cloud.stop()
    assert ended(cloud.pid)
    assert working_in(folder) == []
    assert not folder.exists()


def test_after_kill_9_of_the_client_the_machines_timer_and_idleness_end_everything(
    tmp_path: Path, aws_at: Callable[[str], Any], wait: Any
):
    with subprocess.Popen([sys.executable, "-c", CLIENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        endpoint, pid = client.stdout.readline().split()
        try:
            start_work(aws_at(endpoint), timer_seconds=4)
        finally:
            client.kill()
    (folder,) = tmp_path.iterdir()
    assert working_in(folder)
    assert not ended(int(pid))
    wait(lambda: ended(int(pid)), what="the abandoned cloud")
    assert working_in(folder) == []
    assert list(tmp_path.iterdir()) == []


def test_a_cloud_that_was_killed_says_so(tmp_path: Path):
    cloud = start_cloud(tmp_path)
    os.kill(cloud.pid, signal.SIGKILL)
    cloud.process.wait()
    with pytest.raises(RunFailed, match="does not answer"):
        cloud.wait_until_ready(2.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_served_cloud_without_a_trace(tmp_path: Path, number: signal.Signals):
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("http://127.0.0.1:")
        assert list(tmp_path.iterdir())
        server.send_signal(number)
        assert server.wait(60) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_cloud_ends_when_it_is_asked_to_and_leaves_what_is_not_its_own(tmp_path: Path, wait: Any):
    (tmp_path / "mine").write_text("kept")
    cloud: CloudProcess = start_cloud(tmp_path)
    cloud.wait_until_ready()
    with urllib.request.urlopen(f"{cloud.endpoint}/_stop", data=b"") as answer:
        assert answer.status == 200
    wait(lambda: ended(cloud.pid), what="the end")
    cloud.stop()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_taken_port_is_the_users_error():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} "):
            serve(port)


def test_a_bad_scenario_starts_nothing(tmp_path: Path):
    scenario = tmp_path / "scenario.json"
    scenario.write_text('{"host_key": "odd"}')
    with pytest.raises(UsageError, match="host_key"):
        start_cloud(tmp_path / "cloud", scenario=scenario)
    assert not (tmp_path / "cloud").exists()


def test_only_loopback_is_dialled():
    with pytest.raises(ValueError, match=r"must be on 127\.0\.0\.1"):
        loopback_dialler("http://192.0.2.1:80")


def test_dialling_by_a_cloud_that_is_gone_is_refused():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConnectionRefusedError, match="does not answer"):
        loopback_dialler(endpoint)("54.0.0.1", 22, 1.0)


def test_the_next_cloud_in_a_process_knows_nothing_of_the_last(aws_at: Callable[[str], Any]):
    for _ in range(2):
        with running_cloud({"pending_seconds": 0}) as cloud:
            assert cloud.state() == []
            aws = aws_at(cloud.endpoint)
            aws.ec2.create_key_pair(KeyName="left", KeyType="ed25519")
            aws.run(ClientToken="left")
