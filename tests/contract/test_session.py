"""`Session` and `Connect`, as `orchestrator/ports.py` promises them, against every kind of machine."""

import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from machines import Target, embedded_machine, make_key, write_key

from orchestrator.errors import HostKeyMismatch, HostUnreachable, RunFailed, TimedOut
from orchestrator.ports import Session
from orchestrator.ssh import connector


@pytest.fixture
def session(target: Target) -> Generator[Session]:
    session = target.session()
    yield session
    session.close()


@pytest.fixture
def folder(target: Target) -> Generator[str]:
    """A folder on the machine, relative to its home."""
    name = f".launch-and-train-test-{uuid4().hex}"
    (target.home / name).mkdir()
    yield name
    shutil.rmtree(target.home / name)


def test_a_command_tells_status_output_and_errors_apart(session: Session):
    done = session.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.exit_status, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert done.command == ("sh", "-c", "echo out; echo err >&2; exit 3")
    assert done.seconds > 0


@pytest.mark.parametrize("word", ["two words", "$HOME", "it's", "`id`", "a;b", "*", "", "día\n2", "-n", '"'])
def test_arguments_arrive_as_they_were_given(session: Session, word: str):
    assert session.run(["printf", "%s|", word, "end"]).stdout == f"{word}|end|"


def test_a_command_starts_at_home(session: Session, target: Target):
    assert Path(session.run(["pwd"]).stdout.strip()).resolve() == target.home.resolve()


def test_standard_input_arrives_whole_and_ends(session: Session):
    sent = os.urandom(3_000_000)
    done = session.run(["sha256sum"], stdin=sent)
    assert done.stdout.split()[0] == hashlib.sha256(sent).hexdigest()


def test_a_command_that_answers_while_it_is_fed_does_not_stand_still(session: Session):
    sent = b"0123456789abcde\n" * 400_000
    assert session.run(["cat"], stdin=sent, timeout_seconds=30).stdout.encode() == sent


def test_without_input_a_command_sees_its_end_at_once(session: Session):
    assert session.run(["cat"], timeout_seconds=10).stdout == ""


def test_a_command_may_leave_its_input_unread(session: Session):
    assert session.run(["true"], stdin=b"x" * 5_000_000, timeout_seconds=20).exit_status == 0


def test_much_output_on_both_streams_arrives_whole(session: Session):
    script = "head -c 3000000 /dev/zero | tr '\\0' o; head -c 3000000 /dev/zero | tr '\\0' e >&2"
    done = session.run(["sh", "-c", script])
    assert (done.stdout.count("o"), done.stderr.count("e")) == (3_000_000, 3_000_000)


def test_output_that_is_not_text_is_told_with_replacements(session: Session):
    assert session.run(["printf", "a\\377b"]).stdout == "a\ufffdb"


def test_a_missing_program_is_a_status_not_an_error(session: Session):
    assert session.run(["no-such-program"]).exit_status == 127


def test_a_command_killed_by_a_signal_has_no_status_of_success(session: Session):
    assert session.run(["sh", "-c", "kill -9 $$"]).exit_status > 0


def test_a_command_past_its_time_is_given_up(session: Session):
    started = time.monotonic()
    with pytest.raises(TimedOut, match="sleep 20"):
        session.run(["sleep", "20"], timeout_seconds=0.3)
    assert time.monotonic() - started < 5
    assert session.run(["echo", "still here"]).stdout == "still here\n"


def test_a_file_comes_back_as_it_was_put(session: Session, folder: str, tmp_path: Path):
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(1_500_001))
    sent: list[int] = []
    received: list[int] = []
    session.put(source, f"{folder}/file", on_bytes=sent.append)
    session.get(f"{folder}/file", back, on_bytes=received.append)
    assert back.read_bytes() == source.read_bytes()
    for told in (sent, received):
        assert told == sorted(told)
        assert told[-1] == 1_500_001


def test_put_replaces_a_file_and_leaves_nothing_beside_it(session: Session, folder: str, tmp_path: Path):
    source = tmp_path / "source"
    for text in ("first, and longer", "second"):
        source.write_text(text)
        session.put(source, f"{folder}/file")
    assert session.read(f"{folder}/file") == b"second"
    assert session.run(["ls", "-A", folder]).stdout == "file\n"


def test_an_empty_file_travels(session: Session, folder: str, tmp_path: Path):
    (tmp_path / "empty").touch()
    session.put(tmp_path / "empty", f"{folder}/empty")
    session.get(f"{folder}/empty", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


def test_commands_and_files_see_the_same_tree(session: Session, folder: str, tmp_path: Path):
    (tmp_path / "file").write_text("hello")
    session.put(tmp_path / "file", f"{folder}/file")
    assert session.run(["cat", f"{folder}/file"]).stdout == "hello"


def test_put_into_a_folder_that_is_not_there_fails_with_the_path(session: Session, tmp_path: Path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(RunFailed, match="no-such-folder/file"):
        session.put(tmp_path / "file", "no-such-folder/file")


def test_get_of_a_file_that_is_not_there_fails_with_the_path(session: Session, tmp_path: Path):
    with pytest.raises(RunFailed, match="no-such-file"):
        session.get("no-such-file", tmp_path / "file")


def test_read_goes_on_where_it_stopped(session: Session, folder: str):
    session.run(["sh", "-c", f"printf one > {folder}/log"])
    first = session.read(f"{folder}/log")
    session.run(["sh", "-c", f"printf two >> {folder}/log"])
    assert (first, session.read(f"{folder}/log", offset=3)) == (b"one", b"two")
    assert session.read(f"{folder}/log", offset=6) == b""
    assert session.read(f"{folder}/log", offset=99) == b""


def test_read_of_a_long_file_is_whole(session: Session, folder: str):
    session.run(["sh", "-c", f"seq 200000 > {folder}/log"])
    expected = "".join(f"{n}\n" for n in range(1, 200_001)).encode()
    assert session.read(f"{folder}/log") == expected
    assert session.read(f"{folder}/log", offset=500_000) == expected[500_000:]


def test_read_of_a_file_that_is_not_there_is_empty(session: Session):
    assert session.read("no-such-file") == b""


def test_a_line_that_breaks_under_a_command_is_told_as_unreachable(target: Target):
    session = target.session()
    breaker = threading.Timer(0.5, target.drop_connections)
    breaker.start()
    with pytest.raises(HostUnreachable):
        session.run(["sleep", "30"])
    breaker.join()
    for use in (lambda: session.run(["true"]), lambda: session.read("file")):
        with pytest.raises(HostUnreachable):
            use()
    session.close()


def test_a_line_that_breaks_under_a_transfer_is_told_as_unreachable(
    session: Session, folder: str, target: Target, tmp_path: Path
):
    assert session.run(["truncate", "-s", "100M", f"{folder}/long"]).exit_status == 0
    with (tmp_path / "long").open("wb") as file:
        file.truncate(100_000_000)
    down, up = target.session(), target.session()
    with pytest.raises(HostUnreachable):
        down.get(f"{folder}/long", tmp_path / "back", on_bytes=lambda _: target.drop_connections())
    with pytest.raises(HostUnreachable):
        up.put(tmp_path / "long", f"{folder}/arriving", on_bytes=lambda _: target.drop_connections())
    for broken in (down, up):
        broken.close()


def test_a_detached_process_outlives_the_line(session: Session, folder: str, target: Target):
    script = f"setsid sh -c 'sleep 3; echo done > {folder}/done' < /dev/null > /dev/null 2>&1 &"
    first = target.session()
    assert first.run(["sh", "-c", script], timeout_seconds=30).seconds < 2.9
    first.close()
    deadline = time.monotonic() + 60
    while session.read(f"{folder}/done") != b"done\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_close_may_be_said_twice_and_ends_the_session(target: Target):
    session = target.session()
    session.close()
    session.close()
    with pytest.raises(HostUnreachable, match="closed"):
        session.run(["true"])


def test_another_host_key_is_refused(target: Target):
    stranger = replace(target.host, host_key=make_key().public)
    with pytest.raises(HostKeyMismatch, match="host key"):
        connector()(stranger)


def test_a_pinned_key_of_another_kind_is_a_mismatch(target: Target, tmp_path: Path):
    made = tmp_path / "ecdsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(made)], check=True)
    public = " ".join(made.with_suffix(".pub").read_text().split()[:2])
    with pytest.raises(HostKeyMismatch):
        connector()(replace(target.host, host_key=public))


def test_a_key_that_is_not_admitted_means_not_yet(target: Target, tmp_path: Path):
    stranger = replace(target.host, private_path=write_key(tmp_path / "other.pem", make_key()))
    with pytest.raises(HostUnreachable, match="admit"):
        connector()(stranger)


def test_a_user_who_is_not_there_is_not_admitted(target: Target):
    with pytest.raises(HostUnreachable, match="nobody-of-this-name"):
        connector()(replace(target.host, user="nobody-of-this-name"))


def test_only_the_given_key_is_tried(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_text(target.host.private_path.read_text())
    (tmp_path / ".ssh" / "id_ed25519").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    stranger = replace(target.host, private_path=write_key(tmp_path / "other.pem", make_key()))
    with pytest.raises(HostUnreachable, match="admit"):
        connector()(stranger)


def test_the_callers_ssh_configuration_has_no_say(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(f"Host *\n  ProxyCommand touch {tmp_path}/called\n  User eve\n")
    (tmp_path / ".fabric.yaml").write_text("gateway: eve@127.0.0.2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    session = target.session()
    assert session.run(["id", "-u"]).exit_status == 0
    session.close()
    assert not (tmp_path / "called").exists()


def test_nobody_listening_is_unreachable(target: Target):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        empty = replace(target.host, port=unused.getsockname()[1])
        with pytest.raises(HostUnreachable, match="nobody answers"):
            connector()(empty)


def test_a_server_that_hangs_up_before_its_greeting_is_unreachable(target: Target):
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=lambda: server.accept()[0].close())
        answering.start()
        with pytest.raises(HostUnreachable):
            connector()(replace(target.host, port=server.getsockname()[1]))
        answering.join()


def test_the_line_is_encrypted_with_gcm(target: Target):
    session = target.session()
    transport = session._connection.transport
    assert transport.remote_cipher == transport.local_cipher == "aes128-gcm@openssh.com"
    session.close()


def test_dialling_goes_through_the_given_dialler(target: Target):
    asked: list[tuple[str, int]] = []

    def dial(address: str, port: int, timeout_seconds: float) -> socket.socket:
        asked.append((address, port))
        return socket.create_connection(("127.0.0.1", target.host.port), timeout_seconds)

    session = connector(dial)(replace(target.host, address="203.0.113.9", port=22))
    assert session.run(["echo", "here"]).stdout == "here\n"
    session.close()
    assert asked == [("203.0.113.9", 22)]


def test_a_machine_that_admits_us_late_lets_us_in_in_the_end(tmp_path: Path):
    with embedded_machine(tmp_path, {"refuse_logins": 2}) as target:
        for _ in range(2):
            with pytest.raises(HostUnreachable, match="yet"):
                target.session()
        target.session().close()


def test_a_machine_that_did_not_take_its_host_key_is_refused(tmp_path: Path):
    with (
        embedded_machine(tmp_path, {"host_key": "wrong"}) as target,
        pytest.raises(HostKeyMismatch),
    ):
        target.session()
