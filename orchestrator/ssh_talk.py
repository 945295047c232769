"""A command's three streams over its SSH channel, and how long it may take."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from paramiko import Channel

_CHUNK = 32768


class OutOfPatience(TimeoutError):
    """The command did not do in time what it should."""


class Patience:
    """Seconds that a command may take; `renewed`: that it may stay silent."""

    def __init__(self, seconds: float, *, renewed: bool = False) -> None:
        self._seconds = seconds
        self._renewed = renewed
        self._deadline = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, never negative."""
        return max(0.0, self._deadline - time.monotonic())

    def heard(self) -> None:
        """The command has said something."""
        if self._renewed:
            self._deadline = time.monotonic() + self._seconds


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended; status -1 if it did not tell."""

    status: int
    stderr: str


class Talk:
    """A command's three streams over its channel."""

    def __init__(self, channel: Channel, patience: Patience) -> None:
        self._channel = channel
        self._patience = patience
        self._stderr = bytearray()

    def hold(self, stdin: bytes | None, take: Callable[[bytes], None]) -> Ended:
        """Feed standard input, hand output to `take` and collect standard error until all end. The three
        move at once: a command that waits for one of them must not hold up the others.
        """
        threads = [threading.Thread(target=self._collect_stderr, daemon=True)]
        if stdin is None:
            self._channel.shutdown_write()
        else:
            threads.append(threading.Thread(target=self._feed, args=(stdin,), daemon=True))
        for thread in threads:
            thread.start()
        try:
            while chunk := self._timed(self._channel.recv):
                self._patience.heard()
                take(chunk)
        except TimeoutError as error:
            raise OutOfPatience from error
        for thread in threads:
            thread.join(self._patience.left())
        if not self._channel.status_event.wait(self._patience.left()):
            raise OutOfPatience
        return Ended(self._channel.exit_status, self._stderr.decode(errors="replace"))

    def _collect_stderr(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := self._timed(self._channel.recv_stderr):
                self._stderr += chunk

    def _feed(self, data: bytes) -> None:
        # A command may end without reading all of its input; its exit status tells.
        with contextlib.suppress(OSError):
            self._channel.sendall(data)
            self._channel.shutdown_write()

    def _timed(self, receive: Callable[[int], bytes]) -> bytes:
        self._channel.settimeout(self._patience.left())
        return receive(_CHUNK)
