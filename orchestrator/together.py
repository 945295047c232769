"""Several machines as one: a step is taken on all of them at once, their trainers are told of each other, and when one
fails all are given up and the one is named. A machine alone goes the same way.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self, TypeVar

from orchestrator.errors import (
    CommandFailed,
    HostUnreachable,
    InstanceDied,
    RunFailed,
    TimedOut,
    TrainingFailed,
)
from orchestrator.ports import Clock, Connect, Session
from orchestrator.record import Rental
from orchestrator.remote import Look, look_at
from orchestrator.resources import Host

_PORT = 8476
"""Where the first trainer listens for the others; the run's security group lets nobody else in."""
_LOOK_EVERY_SECONDS = 3.0
_LOST_LIMIT_SECONDS = 120.0
_SIGNALLED = 128
"""A shell's exit status of what a signal ended begins here."""
_FOR_OTHERS = ("if another one ended", "went away before all processes had come", "distributed service")
"""In the last words of a trainer that failed because another one did."""

T = TypeVar("T")
Check = Callable[[Rental], None]
"""Raises `InstanceDied` where a machine does not run any more."""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of a run, a line to it, and which process of the training it is."""

    rental: Rental
    """Of this machine alone."""
    session: Session
    number: int
    group: tuple[str, ...]
    """What its trainer is told of the others."""


class Crew:
    """Lines to all machines of a run."""

    def __init__(self, rental: Rental, sessions: Sequence[Session], *, dial: Callable[[Host], Session]) -> None:
        self._rental = rental
        self._dial = dial
        self._more: list[Session] = []
        self._closed = False
        self._lock = threading.Lock()
        self._nodes = tuple(
            Node(one, session, number, group_options(rental, number))
            for number, (one, session) in enumerate(zip(rental.nodes, sessions, strict=True))
        )

    @classmethod
    def dialled(cls, rental: Rental, dial: Callable[[Host], Session]) -> Self:
        """Dial all of them at once."""
        return cls(rental, _at_once(rental, lambda number: dial(rental.nodes[number].host), late=_hang_up), dial=dial)

    def each(self, step: Callable[[Node], T]) -> tuple[T, ...]:
        """Take a step on every machine at once; what came of it, in order. The first failure names its machine, and
        breaks the lines to the others.
        """
        try:
            return _at_once(self._rental, lambda number: step(self._nodes[number]), late=_forget)
        except BaseException:
            self.close()
            raise

    def another_line(self, node: Node) -> Session:
        """A second line to a machine, for what is done there meanwhile. It is broken with the others."""
        session = self._dial(node.rental.host)
        with self._lock:
            self._more.append(session)
            closed = self._closed
        if closed:
            session.close()
        return session

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            self._closed = True
            more = tuple(self._more)
        for session in (*(node.session for node in self._nodes), *more):
            session.close()


class Watch:
    """Looks at the trainers beside the first one, every few seconds. To be called often, and closed."""

    def __init__(self, rental: Rental, *, connect: Connect, clock: Clock, check: Check) -> None:
        self._rental = rental
        self._connect = connect
        self._clock = clock
        self._check = check
        self._next = clock.now()
        self._sessions: dict[int, Session] = {}
        self._lost: dict[int, datetime] = {}

    def __call__(self) -> None:
        """Raises `TrainingFailed`, `InstanceDied` or `HostUnreachable` where one of them is not well."""
        if self._clock.now() < self._next:
            return
        for number in range(1, len(self._rental.nodes)):
            self._look(number)
        self._next = self._clock.now() + timedelta(seconds=_LOOK_EVERY_SECONDS)

    def close(self) -> None:
        """Hang up."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def _look(self, number: int) -> None:
        node = self._rental.nodes[number]
        try:
            if number not in self._sessions:
                self._sessions[number] = self._connect(node.host)
            look = look_at(self._sessions[number], node.root)
        except (HostUnreachable, TimedOut) as error:
            self._away(number, error)
            return
        self._lost.pop(number, None)
        if (problem := _problem(look)) is not None:
            raise TrainingFailed(f"{name_of(self._rental, number)}: {problem}")

    def _away(self, number: int, error: RunFailed) -> None:
        if (session := self._sessions.pop(number, None)) is not None:
            session.close()
        self._check(self._rental.nodes[number])
        lost = self._lost.setdefault(number, self._clock.now())
        if (self._clock.now() - lost).total_seconds() > _LOST_LIMIT_SECONDS:
            raise HostUnreachable(
                f"{name_of(self._rental, number)}: out of reach for {_LOST_LIMIT_SECONDS:g} s while it trained"
            ) from error


@contextmanager
def naming_the_cause(rental: Rental, *, connect: Connect, check: Check, tell: Callable[[str], None]) -> Generator[None]:
    """When a training of several machines fails inside the block: look at each of them, bring home what the trainers
    beside the first one said (`log-1.txt`, …), and raise the error of the machine that was the first to fail.
    """
    try:
        yield
    except (TrainingFailed, InstanceDied, HostUnreachable, CommandFailed) as error:
        if not rental.others:
            raise
        findings = [_examined(rental, number, connect, check, tell) for number in range(len(rental.nodes))]
        cause = min(findings, key=lambda finding: finding.rank)
        raise error if cause.error is None else cause.error from error


def group_options(rental: Rental, number: int) -> tuple[str, ...]:
    """What `trainer train` is told of the others; nothing where there are none."""
    if not rental.others:
        return ()
    group = {
        "--coordinator": f"{rental.machine.private_address}:{_PORT}",
        "--processes": str(len(rental.nodes)),
        "--process": str(number),
    }
    return tuple(word for pair in group.items() for word in pair)


def name_of(rental: Rental, number: int) -> str:
    """`node 1 of 2 (i-… at 192.0.2.1)`."""
    machine = rental.nodes[number].machine
    return f"node {number} of {len(rental.nodes)} ({machine.instance_id} at {machine.address})"


@dataclass(frozen=True, slots=True)
class _Finding:
    """What is wrong with a machine; the lower the rank, the more likely it is why the others failed."""

    rank: int
    error: RunFailed | None = None


_GONE, _AWAY, _KILLED, _FAILED, _DRAGGED_ALONG, _WELL = range(6)


def _examined(rental: Rental, number: int, connect: Connect, check: Check, tell: Callable[[str], None]) -> _Finding:
    node, name = rental.nodes[number], name_of(rental, number)
    try:
        check(node)
    except InstanceDied as error:
        return _Finding(_GONE, InstanceDied(f"{name}: {error}"))
    except RunFailed as error:
        tell(f"{name}: {error}")
    with ExitStack() as line:
        try:
            session = connect(node.host)
            line.callback(session.close)
            look, log = look_at(session, node.root), session.read(f"{node.root}/run/log.txt")
        except RunFailed as error:
            return _Finding(_AWAY, HostUnreachable(f"{name}: {error}"))
    if number:
        path = rental.folder / f"log-{number}.txt"
        path.write_bytes(log)
        tell(f"{name}: what its trainer said is in {path}")
    problem, words = _problem(look), _last_words(log)
    if problem is None:
        return _Finding(_WELL)
    signalled = look.exit_status is None or look.exit_status > _SIGNALLED
    dragged = any(told in words for told in _FOR_OTHERS)
    rank = _DRAGGED_ALONG if dragged else _KILLED if signalled else _FAILED
    return _Finding(rank, TrainingFailed(f"{name}: {problem}: {words}"))


def _problem(look: Look) -> str | None:
    if not look.started:
        return "no trainer was started"
    if look.exit_status is None and not look.alive:
        return "the trainer ended without an exit status: it was killed, or the machine restarted"
    return f"the trainer ended with status {look.exit_status}" if look.exit_status else None


def _last_words(log: bytes) -> str:
    lines = log.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"


def _at_once(rental: Rental, step: Callable[[int], T], *, late: Callable[[T], None]) -> tuple[T, ...]:
    """`step` for the number of every machine, each in a thread of its own. The first failure, or an interrupt, is not
    kept waiting for the rest; `late` gets what came of those, or comes yet.
    """
    count = len(rental.nodes)
    if count == 1:
        return (step(0),)
    futures = [Future[T]() for _ in range(count)]
    for number, future in enumerate(futures):
        threading.Thread(target=_fulfil, args=(future, step, number), daemon=True).start()
    try:
        done = wait(futures, return_when=FIRST_EXCEPTION).done
        for number, future in enumerate(futures):
            if future in done and (error := future.exception()) is not None:
                raise _named(error, rental, number) from error
        return tuple(future.result() for future in futures)
    except BaseException:
        for future in futures:
            future.add_done_callback(lambda done: None if done.exception() else late(done.result()))
        raise


def _fulfil(future: "Future[T]", step: Callable[[int], T], number: int) -> None:
    try:
        future.set_result(step(number))
    except BaseException as error:  # noqa: BLE001 - it rises where it is waited for
        future.set_exception(error)


def _named(error: BaseException, rental: Rental, number: int) -> BaseException:
    """The error with its machine's name; what nobody foresaw, as it is."""
    if isinstance(error, RunFailed):
        return type(error)(f"{name_of(rental, number)}: {error}")
    return error


def _hang_up(session: Session) -> None:
    with suppress(RunFailed):
        session.close()


def _forget(_value: object) -> None:
    pass
