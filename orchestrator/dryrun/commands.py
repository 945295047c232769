"""A channel of the embedded machine: a command that runs as a local process, or SFTP rooted nowhere
and starting at home. Behaves as OpenSSH does where our tool could tell the difference: hanging up
leaves the process running, and output that nobody reads any more breaks its pipe.
"""

import asyncio
import logging
import signal
import socket
from pathlib import PurePosixPath

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR
from asyncssh.stream import SSHServerStreamSession

from orchestrator.dryrun.hardware import Hardware

_STDOUT, _STDERR = 1, 2
_SFTP_VERSION = 3
_log = logging.getLogger(__name__)


class CommandSession(SSHServerStreamSession[bytes]):
    """One channel. The library calls its methods, in the machine's loop."""

    def __init__(self, line: "asyncssh.SSHServerChannel[bytes]", hardware: Hardware) -> None:
        super().__init__(_unused_factory, lambda _: HomeFiles(line, hardware), _SFTP_VERSION)
        self._line = line
        self._hardware = hardware
        self._process: _Process | None = None
        self._early = bytearray()
        self._early_end = False
        self._gone = False

    def subsystem_requested(self, subsystem: str) -> bool:
        """Only SFTP."""
        return subsystem == "sftp"

    def session_started(self) -> None:
        """Start the command, or the SFTP server."""
        if self._line.get_subsystem() == "sftp":
            super().session_started()
            return
        command = self._line.get_command()
        arguments = ("/bin/sh",) if command is None else ("/bin/sh", "-c", command)
        self._line.get_connection().create_task(self._start(arguments))

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Pass what the client sends to the command's standard input."""
        if self._line.get_subsystem() == "sftp":
            super().data_received(data, datatype)
        elif self._process is None:
            self._early += data
        else:
            self._process.write(data)

    def eof_received(self) -> bool:
        """Close the command's standard input; keep the channel for its output."""
        if self._line.get_subsystem() == "sftp":
            return bool(super().eof_received())
        if self._process is None:
            self._early_end = True
        else:
            self._process.end_input()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: let go of the pipes, not of the process."""
        super().connection_lost(exc)
        self._gone = True
        if self._process is not None:
            self._process.let_go()

    def pause_writing(self) -> None:
        """The client reads slower than the command writes."""
        super().pause_writing()
        if self._process is not None:
            self._process.pause_output()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        if self._process is not None:
            self._process.resume_output()

    async def _start(self, arguments: tuple[str, ...]) -> None:
        loop = asyncio.get_running_loop()
        # A socket pair, as sshd has it: unlike a pipe it can be half closed in any order.
        ours, theirs = socket.socketpair()
        try:
            _, process = await loop.subprocess_exec(
                lambda: _Process(self._line, self._hardware),
                *arguments,
                stdin=theirs.fileno(),
                cwd=self._hardware.home,
                env=dict(self._hardware.environment()),
                start_new_session=True,
            )
        except OSError as error:
            _log.info("cannot start %s: %s", arguments[0], error)
            ours.close()
            self._line.exit(127)
            return
        finally:
            theirs.close()
        process.input, _ = await loop.create_unix_connection(lambda: _Input(self._line), sock=ours)
        self._begin(process)

    def _begin(self, process: "_Process") -> None:
        self._process = process
        if self._early:
            process.write(bytes(self._early))
            self._early.clear()
        if self._early_end:
            process.end_input()
        if self._gone:
            process.let_go()


class _Input(asyncio.Protocol):
    """Our end of the command's standard input: slows the client down when the command is slow."""

    def __init__(self, channel: "asyncssh.SSHServerChannel[bytes]") -> None:
        self._channel = channel

    def pause_writing(self) -> None:
        self._channel.pause_reading()

    def resume_writing(self) -> None:
        self._channel.resume_reading()


class _Process(asyncio.SubprocessProtocol):
    """A local process and the channel it talks to."""

    def __init__(self, channel: "asyncssh.SSHServerChannel[bytes]", hardware: Hardware) -> None:
        self._channel = channel
        self._hardware = hardware
        self._process: asyncio.SubprocessTransport | None = None
        self._hung_up = False
        self.input: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.SubprocessTransport):
            self._process = transport
            self._hardware.started(transport.get_pid())

    def process_exited(self) -> None:
        if self._process is not None:
            self._hardware.ended(self._process.get_pid())

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if not self._hung_up:
            self._channel.write(data, EXTENDED_DATA_STDERR if fd == _STDERR else None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the library's signature
        # The process has ended, and whoever else held its output has let go of it.
        status = self._close()
        if self._hung_up:
            return
        if status < 0:
            self._channel.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            self._channel.exit(status)

    def write(self, data: bytes) -> None:
        """Bytes for standard input; dropped once the process has closed it."""
        if self.input is not None and not self.input.is_closing():
            self.input.write(data)

    def end_input(self) -> None:
        """Nothing more comes."""
        if self.input is not None and not self.input.is_closing():
            self.input.write_eof()

    def pause_output(self) -> None:
        """Leave output in the pipes for now."""
        for pipe in self._outputs():
            pipe.pause_reading()

    def resume_output(self) -> None:
        """Take output from the pipes again."""
        for pipe in self._outputs():
            pipe.resume_reading()

    def let_go(self) -> None:
        """Close our ends of input and output; the process itself goes on."""
        self._hung_up = True
        if self.input is not None:
            self.input.close()
        for pipe in self._outputs():
            pipe.close()

    def _close(self) -> int:
        if self.input is not None:
            self.input.close()
        if self._process is None:
            return 0
        self._process.close()
        return self._process.get_returncode() or 0

    def _outputs(self) -> tuple[asyncio.ReadTransport, ...]:
        running = self._process
        pipes = (running.get_pipe_transport(fd) for fd in (_STDOUT, _STDERR)) if running else ()
        return tuple(p for p in pipes if isinstance(p, asyncio.ReadTransport) and not p.is_closing())


class HomeFiles(asyncssh.SFTPServer):
    """SFTP on the machine's files; relative paths count from home, as with OpenSSH."""

    def __init__(self, channel: "asyncssh.SSHServerChannel[bytes]", hardware: Hardware) -> None:
        super().__init__(channel)
        self._home = str(hardware.home).encode()

    def map_path(self, path: bytes) -> bytes:
        """The local path of a path the client gave."""
        if PurePosixPath(path.decode("utf-8", "surrogateescape")).is_absolute():
            return path
        return self._home + b"/" + path


def _unused_factory(*_: object) -> None:
    raise AssertionError("commands are started by the session itself")
