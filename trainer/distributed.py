"""Processes, on one machine or on many, that train as one: who they are, how they find each other, and how they part.
JAX ends a process with a stack trace where another does not come, so they meet here first, on the port that becomes
the coordinator's, and whoever is missing is named.
"""

import atexit
import json
import os
import re
import socket
import sys
import time
from collections.abc import Container, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Self

import jax

from trainer.errors import SettingsError, TrainerError

_JOIN_SECONDS = 300.0
_HEARTBEAT_SECONDS = 30
"""A process that was not heard for so long is lost, and every other one ends."""
_ANSWER_SECONDS = 5.0
_RETRY_SECONDS = 0.1
_LONGEST = 1000
_GO = "go"


@dataclass(frozen=True, slots=True)
class Group:
    """So many processes, and which of them this one is."""

    host: str
    """An address of the machine of process 0, where it listens; nowhere else."""
    port: int
    processes: int
    process: int

    @property
    def coordinator(self) -> str:
        """`HOST:PORT`, an address of IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def of(cls, coordinator: str | None, processes: int | None, process: int | None) -> Self | None:
        """The group that the three options ask for; `None` where none of them is given: one process alone.
        `SettingsError` for one outside its range, or missing beside the others.
        """
        if coordinator is None and processes is None and process is None:
            return None
        if coordinator is None or processes is None or process is None:
            raise SettingsError("--coordinator, --processes and --process are given together or not at all")
        found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+):(\d{1,5})", coordinator)
        if found is None or not 0 < int(found[2]) < 1 << 16:
            raise SettingsError(f"--coordinator: HOST:PORT is wanted (given: {coordinator!r})")
        if processes < 1:
            raise SettingsError(f"--processes: at least 1 is wanted (given: {processes})")
        if not 0 <= process < processes:
            raise SettingsError(f"--process: a number from 0 to {processes - 1} is wanted (given: {process})")
        return cls(found[1].strip("[]"), int(found[2]), processes, process)


@contextmanager
def joined(group: Group | None) -> Generator[None]:
    """All processes of a group as one: JAX sees the devices of all. Entered before anything else is asked of JAX.
    `TrainerError` where they do not come together, or where one is lost on the way.
    """
    if group is None:
        yield
        return
    meet(group)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        group.coordinator,
        group.processes,
        group.process,
        # Every process uses all devices of its machine, whatever a cluster's scheduler would give it.
        cluster_detection_method="deactivate",
        # By default it would listen on every address of the machine.
        coordinator_bind_address=group.coordinator,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
    )
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        told = " ".join(str(error).split())
        raise TrainerError(
            f"process {group.process}: a computation of all {group.processes} processes failed; "
            f"if another one ended, its log says why: {told}"
        ) from error
    jax.distributed.shutdown()


def end_at_exit(status: int) -> None:
    """After a failure: end with `status` when Python does, though others wait for this process. JAX would have it wait
    for them, too.
    """
    if jax.distributed.is_initialized():
        # What is registered last comes first, before JAX's own.
        atexit.register(_end, status)


def meet(group: Group, *, seconds: float = _JOIN_SECONDS) -> None:
    """Returns once all processes of the group are here, within `seconds`. `TrainerError` names who did not come,
    `SettingsError` says what another process was told differently.
    """
    end = time.monotonic() + seconds
    if group.process == 0:
        _gather(group, end)
    else:
        _report(group, end)


def _gather(group: Group, end: float) -> None:
    """Process 0: listens until each of the others has said who it is, then lets all of them go on."""
    family = socket.AF_INET6 if ":" in group.host else socket.AF_INET
    lines: dict[int, socket.socket] = {}
    with ExitStack() as here:
        try:
            server = here.enter_context(socket.create_server((group.host, group.port), family=family))
        except OSError as error:
            raise TrainerError(f"process 0 cannot listen at {group.coordinator}: {error.strerror or error}") from error
        while missing := set(range(1, group.processes)) - set(lines):
            server.settimeout(max(end - time.monotonic(), 0.001))
            try:
                line = here.enter_context(server.accept()[0])
            except TimeoutError as error:
                names = ", ".join(map(str, sorted(missing)))
                raise TrainerError(
                    f"of {group.processes} processes these did not come to {group.coordinator}: {names}"
                ) from error
            # Whoever else dials this port is passed over.
            with suppress(OSError, ValueError, KeyError, TypeError):
                said = json.loads(_heard(line, seconds=_ANSWER_SECONDS))
                problem = _problem(group, processes=int(said["processes"]), process=int(said["process"]), here=lines)
                if problem:
                    _say(line, problem)
                else:
                    lines[said["process"]] = line
        # The port must be free for JAX before the others look for it there.
        server.close()
        for line in lines.values():
            with suppress(OSError):
                _say(line, _GO)


def _problem(group: Group, *, processes: int, process: int, here: Container[int]) -> str:
    if processes != group.processes:
        return f"--processes: process 0 was given {group.processes}, process {process} {processes}"
    if process in here:
        return f"--process: there is a process {process} already"
    return ""


def _report(group: Group, end: float) -> None:
    """Any other process: tells process 0 who it is and waits until it may go on."""
    line = _dialled(group, end)
    with line:
        try:
            _say(line, json.dumps({"processes": group.processes, "process": group.process}))
            answer = _heard(line, seconds=max(end - time.monotonic(), _ANSWER_SECONDS))
        except OSError:
            answer = ""
    if answer.startswith("--process"):
        raise SettingsError(answer)
    if answer != _GO:
        raise TrainerError(f"process 0 at {group.coordinator} went away before all processes had come")
    # JAX listens there next; it would wait for a whole second before it dials again.
    _dialled(group, time.monotonic() + _JOIN_SECONDS).close()


def _dialled(group: Group, end: float) -> socket.socket:
    while True:
        try:
            return socket.create_connection((group.host, group.port), timeout=_ANSWER_SECONDS)
        except OSError as error:
            if time.monotonic() >= end:
                raise TrainerError(
                    f"process 0 cannot be reached at {group.coordinator}: {error.strerror or error}"
                ) from error
        time.sleep(_RETRY_SECONDS)


def _say(line: socket.socket, text: str) -> None:
    line.sendall(f"{text}\n".encode())


def _heard(line: socket.socket, *, seconds: float) -> str:
    """One line without its end; what came of it if the other side hung up."""
    line.settimeout(seconds)
    with line.makefile("r", encoding="utf-8", errors="replace", newline="\n") as text:
        return text.readline(_LONGEST).removesuffix("\n")


def _end(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
