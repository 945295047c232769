"""The machine that an instance is, met by two SSH libraries and by what AWS tells of it."""

import asyncio
import base64
import io
import os
import shlex
import sys
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import pytest
from machines import make_key

from orchestrator.dryrun.cloud import MockedCloud


@contextmanager
def dialled(aws: Any, instance_id: str, **changes: Any) -> Generator[paramiko.Transport]:
    """A line to the machine, as `ubuntu` with the login key, the host key pinned."""
    pinned = paramiko.Ed25519Key(data=base64.b64decode(aws.host_key.public.split()[1]))
    private = paramiko.Ed25519Key.from_private_key(io.StringIO(changes.get("login", aws.login).private))
    transport = paramiko.Transport(aws.dial(aws.address(instance_id), 22, 5.0))
    with closing(transport):
        transport.connect(pinned, username=changes.get("user", "ubuntu"), pkey=private)
        yield transport


def execute(transport: paramiko.Transport, command: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    channel = transport.open_session(timeout=10)
    channel.exec_command(command)
    channel.sendall(stdin)
    channel.shutdown_write()
    stdout, stderr = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
    return channel.recv_exit_status(), stdout, stderr


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def start_detached(transport: paramiko.Transport) -> int:
    status, stdout, _ = execute(transport, "setsid sleep 300 >/dev/null 2>&1 </dev/null & echo $!")
    assert status == 0
    return int(stdout)


@pytest.fixture
def line(aws: Any) -> Generator[paramiko.Transport]:
    with dialled(aws, aws.run_machine()) as transport:
        yield transport


def test_a_command_tells_its_status_and_keeps_its_two_outputs_apart(line: paramiko.Transport):
    assert execute(line, "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")
    assert execute(line, "no-such-program")[0] == 127


def test_standard_input_and_output_carry_any_bytes_of_any_size(line: paramiko.Transport):
    sent = bytes(range(256)) * 8192
    channel = line.open_session(timeout=10)
    channel.exec_command("cat > kept && cat kept")
    channel.sendall(sent)
    channel.shutdown_write()
    assert channel.makefile("rb").read() == sent
    assert channel.recv_exit_status() == 0


def test_sftp_puts_gets_and_renames_files_that_commands_see(line: paramiko.Transport):
    with closing(paramiko.SFTPClient.from_transport(line)) as sftp:
        sftp.mkdir("folder")
        sent = os.urandom(300_000)
        sftp.putfo(io.BytesIO(sent), "folder/aside")
        with sftp.open("folder/final", "wb") as old:
            old.write(b"old")
        sftp.posix_rename("folder/aside", "folder/final")
        received = io.BytesIO()
        sftp.getfo("folder/final", received)
        assert received.getvalue() == sent
        assert execute(line, "wc -c < folder/final")[1].strip() == b"300000"
        assert execute(line, "pwd")[1].decode().strip() == sftp.normalize(".")
        with pytest.raises(FileNotFoundError):
            sftp.stat("folder/aside")


@pytest.mark.parametrize("changes", [{"login": make_key()}, {"user": "root"}])
def test_a_wrong_key_or_user_is_not_let_in(aws: Any, changes: dict[str, Any]):
    with pytest.raises(paramiko.AuthenticationException), dialled(aws, aws.run_machine(), **changes):
        pass


def test_a_machine_can_present_another_host_key(aws: Any, play: Any):
    play(host_key="wrong")
    with pytest.raises(paramiko.SSHException), dialled(aws, aws.run_machine()):
        pass


def test_commands_find_nothing_of_ours_in_their_environment(aws: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ours")
    with dialled(aws, aws.run_machine()) as transport:
        lines = execute(transport, "env")[1].decode().splitlines()
        found = dict(line.split("=", 1) for line in lines)
        note = execute(transport, "cat ~/.launch-and-train/environment")[1].decode()
    assert not {name for name in found if name.startswith("AWS_")} - {"AWS_EC2_METADATA_DISABLED"}
    assert (found["USER"], found["CUDA_VISIBLE_DEVICES"]) == ("ubuntu", "")
    assert found["HOME"] != os.environ["HOME"]
    assert note == f"python={sys.executable}\nbackend=cpu\n"


def test_a_command_cannot_install_into_the_computer_it_runs_on(line: paramiko.Transport):
    status, _, stderr = execute(line, "sudo -n apt-get install -y something")
    assert status != 0
    assert b"dry run" in stderr


def test_nothing_is_forwarded(line: paramiko.Transport):
    with pytest.raises(paramiko.ChannelException):
        line.open_channel("direct-tcpip", ("127.0.0.1", 80), ("127.0.0.1", 1), timeout=5)


def test_hanging_up_leaves_a_process_running(aws: Any, wait: Any):
    instance_id = aws.run_machine()
    with dialled(aws, instance_id) as transport:
        channel = transport.open_session(timeout=10)
        channel.exec_command("echo $$ > pid; sleep 0.5; echo done > finished; exec sleep 300")
        wait(lambda: execute(transport, "test -s pid")[0] == 0, what="the command's start")
    with dialled(aws, instance_id) as transport:
        wait(lambda: execute(transport, "test -s finished")[0] == 0, what="what it does after the hang-up")
        assert is_running(int(execute(transport, "cat pid")[1]))


def test_terminating_ends_detached_processes_and_wipes_the_home(aws: Any):
    instance_id = aws.run_machine()
    with dialled(aws, instance_id) as transport:
        pid = start_detached(transport)
        home = Path(execute(transport, "pwd")[1].decode().strip())
        assert is_running(pid)
        aws.ec2.terminate_instances(InstanceIds=[instance_id])
        assert not is_running(pid)
        assert not home.exists()


@pytest.mark.parametrize(
    "command", ["sudo shutdown -P +0", "sudo shutdown -h now", "sudo systemctl poweroff --force", "poweroff"]
)
def test_powering_off_terminates_the_instance(aws: Any, command: str):
    instance_id = aws.run_machine()
    with dialled(aws, instance_id) as transport:
        pid = start_detached(transport)
        execute(transport, command)
    aws.reaches(instance_id, "terminated")
    assert not is_running(pid)
    assert aws.instance(instance_id)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_shutdown_that_lies_ahead_can_be_called_off(aws: Any):
    instance_id = aws.run_machine()
    with dialled(aws, instance_id) as transport:
        assert execute(transport, "sudo shutdown -P +1 && sudo shutdown -c")[0] == 0
        time.sleep(0.3)
    assert aws.state(instance_id) == "running"


def test_powering_off_stops_an_instance_that_was_launched_to_stop(aws: Any):
    instance_id = aws.run_machine(InstanceInitiatedShutdownBehavior="stop")
    with dialled(aws, instance_id) as transport:
        execute(transport, "sudo poweroff")
    aws.reaches(instance_id, "stopped")


def test_the_timer_of_the_user_data_ends_the_instance(aws: Any):
    instance_id = aws.run_machine(timer_seconds=3)
    with dialled(aws, instance_id) as transport:
        pid = start_detached(transport)
    aws.reaches(instance_id, "terminated")
    assert not is_running(pid)


def test_a_dropped_line_can_be_dialled_again_and_the_work_goes_on(aws: Any, cloud: MockedCloud, wait: Any):
    instance_id = aws.run_machine()
    with dialled(aws, instance_id) as transport:
        pid = start_detached(transport)
        cloud.drop_connections()
        wait(lambda: not transport.is_active(), what="the drop")
    with dialled(aws, instance_id) as transport:
        assert execute(transport, f"kill -0 {pid}")[0] == 0


def test_lines_can_be_made_to_break_once_by_themselves(aws: Any, play: Any, wait: Any):
    play(drop_ssh_after_seconds=0.3)
    instance_id = aws.run_machine()
    with dialled(aws, instance_id) as transport:
        wait(lambda: not transport.is_active(), what="the drop")
    with dialled(aws, instance_id) as transport:
        time.sleep(0.5)
        assert transport.is_active()


def test_a_machine_can_refuse_connections_at_first(aws: Any, play: Any):
    play(refuse_ssh_seconds=0.5)
    instance_id = aws.run_machine()
    with pytest.raises(ConnectionRefusedError), dialled(aws, instance_id):
        pass
    time.sleep(0.5)
    with dialled(aws, instance_id) as transport:
        assert execute(transport, "true")[0] == 0


def test_a_machine_can_know_no_key_at_first(aws: Any, play: Any):
    play(refuse_logins=2)
    instance_id = aws.run_machine()
    for _ in range(2):
        with pytest.raises(paramiko.AuthenticationException), dialled(aws, instance_id):
            pass
    with dialled(aws, instance_id):
        pass


def test_nobody_listens_on_other_ports_or_at_a_terminated_instance(aws: Any):
    instance_id = aws.run_machine()
    address = aws.address(instance_id)
    with pytest.raises(ConnectionRefusedError):
        aws.dial(address, 80, 1.0)
    aws.terminate(instance_id)
    with pytest.raises(ConnectionRefusedError):
        aws.dial(address, 22, 1.0)


def test_a_second_library_agrees(aws: Any, tmp_path: Path):
    line = aws.dial(aws.address(aws.run_machine()), 22, 5.0)
    line.setblocking(False)
    known = asyncssh.import_known_hosts(f"machine {aws.host_key.public}\n")
    key = asyncssh.import_private_key(aws.login.private)
    (tmp_path / "sent").write_bytes(os.urandom(100_000))

    async def talk() -> tuple[int | None, bytes]:
        async with asyncssh.connect(
            "machine", sock=line, known_hosts=known, username="ubuntu", client_keys=[key], config=None
        ) as connection:
            async with connection.start_sftp_client() as sftp:
                await sftp.put(str(tmp_path / "sent"), "arrived")
                await sftp.get("arrived", str(tmp_path / "back"))
            command = f"cat; echo {shlex.quote('a b')} >&2; exit 3"
            done = await connection.run(command, input=b"\x00\xff", encoding=None)
            return done.exit_status, bytes(done.stdout or b"") + bytes(done.stderr or b"")

    assert asyncio.run(talk()) == (3, b"\x00\xffa b\n")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()
