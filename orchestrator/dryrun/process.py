"""The mocked AWS as a process of its own, so that killing the client leaves the cloud standing as in
life. Owns its start, its abandonment (it ends itself when nobody has used it for a while) and its end.
"""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import orchestrator
from orchestrator.dryrun.hardware import MACHINES
from orchestrator.dryrun.scenario import Scenario, read_scenario
from orchestrator.errors import RunFailed, UsageError

IDLE_SECONDS = 600.0
_BACKLOG = 128
_WATCH_SECONDS = 0.05
_LOG = "mocked-aws.log"
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class CloudProcess:
    """A mocked AWS that runs beside us. Its machines and its log lie in `folder`."""

    endpoint: str
    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def pid(self) -> int:
        """The process, which leads a session of its own."""
        return self.process.pid

    def wait_until_ready(self, limit_seconds: float = 60.0) -> None:
        """Wait until it answers. Raises `RunFailed`, with its last words, if it has ended."""
        if not _answers(self.endpoint, limit_seconds):
            raise RunFailed(f"the mocked AWS (process {self.pid}) does not answer: {self._last_words()}")

    def stop(self, limit_seconds: float = 10.0) -> None:
        """End it with its machines; harmless if it is gone."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.folder / _LOG).read_text(encoding="utf-8", errors="replace").split("\n")
            return next((line for line in reversed(lines) if line.strip()), f"see {self.folder / _LOG}")
        return "it left no log"


def start_cloud(folder: Path, *, idle_seconds: float = IDLE_SECONDS, scenario: Path | None = None) -> CloudProcess:
    """Start a mocked AWS in a session of its own and return at once: its socket listens already, and
    what is asked of it waits the second or two that it takes to get ready. What it puts into `folder`
    goes when it ends, and so does the folder if nothing else is in it: the caller may be dead by then.
    """
    read_scenario(scenario)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["--folder", str(folder), "--idle-seconds", str(idle_seconds)]
    arguments += ["--scenario", str(scenario.resolve())] if scenario is not None else []
    with _listener() as listener, (folder / _LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.dryrun", "--listener", str(listener.fileno()), *arguments],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
        )
        return CloudProcess(f"http://127.0.0.1:{listener.getsockname()[1]}", folder, process)


def serve(
    port: int = 0,
    *,
    scenario: Path | None = None,
    idle_seconds: float | None = None,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Be the mocked AWS on a loopback port (0: a free one) until SIGTERM, SIGHUP, SIGINT, `POST /_stop`
    or `idle_seconds` without use (`None`: for ever). `ready` is told the endpoint. Machines live in a
    temporary folder. Raises `UsageError` if the port is taken or the scenario cannot be used.
    """
    found = read_scenario(scenario)
    with _listener(port) as listener, tempfile.TemporaryDirectory(prefix="mocked-aws-") as scratch:
        stop = _stop_signal()
        ready(f"http://127.0.0.1:{listener.getsockname()[1]}")
        _serve(listener, stop, folder=Path(scratch), idle_seconds=idle_seconds, scenario=found)


def serve_alone(listener: socket.socket, *, folder: Path, idle_seconds: float, scenario: Scenario) -> None:
    """Be the process that `start_cloud` started; `folder` goes with it."""
    _serve(listener, _stop_signal(), folder=folder, idle_seconds=idle_seconds, scenario=scenario)
    shutil.rmtree(folder / MACHINES, ignore_errors=True)
    (folder / _LOG).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _stop_signal() -> threading.Event:
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    return stop


def _serve(
    listener: socket.socket,
    stop: threading.Event,
    *,
    folder: Path,
    idle_seconds: float | None,
    scenario: Scenario,
) -> None:
    # Moto takes its seconds to import: only here, where its server runs, and once signals are heeded.
    from orchestrator.dryrun.cloud import MockedCloud

    cloud = MockedCloud(folder, scenario=scenario, listener=listener)
    cloud.start()
    while not stop.wait(_WATCH_SECONDS) and not cloud.stopping.is_set():
        if idle_seconds is not None and cloud.idle_seconds() > idle_seconds:
            break
    cloud.stop()


def _listener(port: int = 0) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(f"port {port} of 127.0.0.1 cannot be listened on: {error}") from error
    return listener


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    package = Path(orchestrator.__file__).parent.parent
    return {**kept, "PYTHONPATH": str(package), "AWS_EC2_METADATA_DISABLED": "true"}


def _answers(endpoint: str, limit_seconds: float) -> bool:
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=limit_seconds)
        try:
            connection.request("GET", "/checkip")
            return connection.getresponse().read() != b""
        except ConnectionRefusedError:
            return False
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
        finally:
            connection.close()
    return False
