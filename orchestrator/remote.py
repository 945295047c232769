"""What happens on the machine between upload and fetch: the Python environment is found or made, the
trainer is started detached, its log followed by offset and its exit status read. A line that drops costs
nothing: the trainer goes on, and so does the log, where it stopped.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

from orchestrator.errors import CommandFailed, HostUnreachable, TimedOut, TrainingFailed
from orchestrator.events import Progress
from orchestrator.ports import Clock, Connect, Session
from orchestrator.resources import Host

Tell = Callable[[str, Progress | None], None]

_PREPARE_SECONDS = 1800.0
_LOOK_SECONDS = 30.0
_STOP_SECONDS = 300.0
_POLL_SECONDS = 0.5
_LOST_LIMIT_SECONDS = 120.0
"""How long the machine may stay out of reach; an instance that is gone for good never comes back."""
_LINGER_SECONDS = 5.0
"""How long a trainer that has written its exit status may take to end, so that its last words are heard."""
SAVED = 75
"""Exit status of a trainer that was asked to end, and has saved what it needs to go on."""
_LOOK = """\
if ! cd "$1/run" 2> /dev/null || [ ! -e pid ]; then
  printf 'unborn\n\n0\n\n'
  exit
fi
pid= state=gone
{ read -r pid < pid; } 2> /dev/null
if [ -n "$pid" ] && kill -0 "$pid" 2> /dev/null && ! grep -q '^State:.*Z' "/proc/$pid/status" 2> /dev/null
then state=alive
fi
echo "$state"
exit=
{ read -r exit < exit; } 2> /dev/null
echo "$exit"
size=$(wc -c < log.txt 2> /dev/null)
echo "${size:-0}"
cat status.json 2> /dev/null || echo
"""
"""Prints four things about a run, in this order: a trainer seen as gone has already written its exit."""
_SNAPSHOT = """\
cd "$1" && shift && rm -rf snapshot && mkdir -p snapshot/run || exit 1
for name do
  if [ -f "run/$name" ]; then cp "run/$name" "snapshot/run/$name" || exit 1; fi
done
"""
_STOP = """\
cd "$1/run" || exit 1
read -r pid < pid || exit 1
kill -s TERM -- "-$pid" 2> /dev/null
left=40
while [ "$left" -gt 0 ] && kill -s 0 -- "-$pid" 2> /dev/null; do
  left=$((left - 1))
  sleep 0.5
done
kill -s KILL -- "-$pid" 2> /dev/null
if [ -d checkpoints ]; then tar -cf .checkpoints.new checkpoints && mv .checkpoints.new checkpoints.tar || true; fi
"""


def _nothing(*_: object) -> None:
    """Of what else might be done."""


@dataclass(frozen=True, slots=True)
class Care:
    """What is done while a trainer is followed. What any of it raises ends the following, but `HostUnreachable` and
    `TimedOut`, which are a lost line's.
    """

    always: Callable[[], int | None] = _nothing
    """Before every look: the exit status, where it was learnt elsewhere."""
    with_line: Callable[[Session], None] = _nothing
    """After every look that found the trainer at work."""
    while_lost: Callable[[], bool] = lambda: False
    """After every attempt that found no line: whether it is we who are cut off, a time that does not count."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine's Python, the JAX platform it is to use (`cuda` or `cpu`), and how it came about."""

    python: str
    backend: str
    note: str


def prepare(session: Session, root: str) -> Environment:
    """Find or make the environment. `CommandFailed` carries the script's last words."""
    said = _script(session, f"{root}/tree/infra/bootstrap.sh", patience=_PREPARE_SECONDS)
    values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    try:
        return Environment(values["python"], values["backend"], values["note"])
    except KeyError as error:
        raise CommandFailed(f"bootstrap.sh on the machine did not say its {error}") from error


def start_training(session: Session, root: str, environment: Environment, *, options: Sequence[str] = ()) -> None:
    """Start the trainer, with options of `trainer train`, in a session of its own. It outlives this line."""
    _script(session, f"{root}/tree/infra/start-trainer.sh", environment.python, environment.backend, *options)


def stop_training(session: Session, root: str) -> None:
    """End the trainer, if it still runs, and pack its checkpoints into `run/checkpoints.tar`."""
    done = session.run(("sh", "-c", _STOP, "stop", root), timeout_seconds=_STOP_SECONDS)
    if done.exit_status != 0:
        raise CommandFailed(f"cannot stop the trainer in {root}/run: {_last_line(done.stderr)}")


def snapshot(session: Session, root: str, names: Sequence[str]) -> str:
    """Copy those of `run/NAME` that exist aside, so that they hold still; the root to fetch them from."""
    done = session.run(("sh", "-c", _SNAPSHOT, "snapshot", root, *names), timeout_seconds=_STOP_SECONDS)
    if done.exit_status != 0:
        raise CommandFailed(f"cannot copy the results so far in {root}/run: {_last_line(done.stderr)}")
    return f"{root}/snapshot"


def follow(
    connect: Connect,
    host: Host,
    *,
    root: str,
    clock: Clock,
    log: BinaryIO,
    tell: Tell,
    offset: int | None = None,
    care: Care = Care(),
) -> int:
    """Follow a trainer to its end and return its exit status. Its log is added to `log`, which goes on
    where it ends, or from `offset`. A lost line is dialled again; `HostUnreachable` rises if the machine stays
    away for two minutes in which we are not, `TrainingFailed` if the trainer has ended without a status,
    `CommandFailed` if none was started.
    """
    trail = _Trail(root, log, clock, tell, log.tell() if offset is None else offset)
    lost: datetime | None = None
    with contextlib.ExitStack() as line:
        session: Session | None = None
        while True:
            if (learnt := care.always()) is not None:
                return learnt
            try:
                if session is None:
                    session = connect(host)
                    line.callback(session.close)
                if (status := trail.step(session)) is not None:
                    return status
                if lost is not None:
                    tell(f"{host.address} answers again", None)
                lost = None
                care.with_line(session)
            except (HostUnreachable, TimedOut) as error:
                line.close()
                session = None
                lost = lost or _told_lost(clock, tell, error)
                if care.while_lost():
                    lost = clock.now()
                if (clock.now() - lost).total_seconds() > _LOST_LIMIT_SECONDS:
                    raise _gave_up(host) from error
            clock.sleep(_POLL_SECONDS)


@dataclass(slots=True)
class _Trail:
    """What has been seen of a run so far."""

    root: str
    log: BinaryIO
    clock: Clock
    tell: Tell
    offset: int
    ended_at: datetime | None = None
    state: str = ""
    progress: Progress | None = None

    def step(self, session: Session) -> int | None:
        """Look once: add to the log, tell what is new; the exit status if the trainer has ended."""
        look = look_at(session, self.root)
        if look.log_size > self.offset:
            self._add(session.read(f"{self.root}/run/log.txt", offset=self.offset))
        self._tell_status(look.status)
        if not look.started:
            raise CommandFailed(f"no trainer was started in {self.root}")
        if look.exit_status is None and not look.alive:
            raise TrainingFailed(
                f"the trainer in {self.root} ended without an exit status: it was killed, or the machine restarted"
            )
        if look.exit_status is not None and (not look.alive or self._has_lingered()):
            return look.exit_status
        return None

    def _add(self, new: bytes) -> None:
        self.log.write(new)
        self.log.flush()
        self.offset += len(new)

    def _has_lingered(self) -> bool:
        now = self.clock.now()
        self.ended_at = self.ended_at or now
        return (now - self.ended_at).total_seconds() > _LINGER_SECONDS

    def _tell_status(self, status: Mapping[str, Any]) -> None:
        state = str(status.get("state", self.state))
        if state != self.state:
            self.state = state
            self.tell(state, None)
        progress = progress_of(status)
        if progress is not None and progress != self.progress:
            self.progress = progress
            self.tell("", progress)


@dataclass(frozen=True, slots=True)
class Look:
    """A run at one moment. `status` is what `status.json` says, empty if it says nothing."""

    started: bool
    alive: bool
    exit_status: int | None
    log_size: int
    status: Mapping[str, Any]

    @property
    def going_on(self) -> bool:
        """Whether the trainer has not ended yet."""
        return self.alive and self.exit_status is None

    @property
    def state(self) -> str:
        """`not started`, or the trainer's word: `starting`, `training`, `predicting`, `done`, `interrupted`,
        `failed`.
        """
        if not self.started:
            return "not started"
        if self.going_on:
            return str(self.status.get("state", "starting"))
        return {0: "done", SAVED: "interrupted"}.get(self.exit_status or 0, "failed")


def look_at(session: Session, root: str) -> Look:
    """Look once."""
    done = session.run(("sh", "-c", _LOOK, "look", root), timeout_seconds=_LOOK_SECONDS)
    if done.exit_status != 0:
        raise CommandFailed(f"cannot look into {root}/run on the machine: {_last_line(done.stderr)}")
    alive, status, size, rest = done.stdout.split("\n", 3)
    return Look(alive != "unborn", alive == "alive", _exit_status(status, root), int(size), _read_status(rest))


def _exit_status(text: str, root: str) -> int | None:
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise TrainingFailed(f"{root}/run/exit on the machine holds no exit status: {text[:80]!r}") from error


def _read_status(text: str) -> dict[str, Any]:
    """Leniently: a status that cannot be read tells nothing."""
    try:
        status = json.loads(text)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def progress_of(status: Mapping[str, Any]) -> Progress | None:
    """How far the training is, if it has begun."""
    epoch, epochs = _number(status, "epoch"), _number(status, "epochs")
    if epoch is None or not epochs:
        return None
    return Progress(
        done=epoch,
        total=epochs,
        unit="epochs",
        loss=_number(status, "loss"),
        samples_per_second=_number(status, "samples_per_second"),
        seconds_left=_number(status, "seconds_left"),
    )


def _number(status: Mapping[str, Any], name: str) -> float | None:
    value = status.get(name)
    return value if isinstance(value, int | float) else None


def _told_lost(clock: Clock, tell: Tell, error: Exception) -> datetime:
    tell(f"{error}; the trainer goes on, dialling again", None)
    return clock.now()


def _gave_up(host: Host) -> HostUnreachable:
    return HostUnreachable(
        f"{host.address} has been out of reach for {_LOST_LIMIT_SECONDS:g} s while it trained; "
        "the instance may have ended (spot interruption, or its time was over)"
    )


def _script(session: Session, path: str, *arguments: str, patience: float = 60.0) -> str:
    done = session.run(("sh", path, *arguments), timeout_seconds=patience)
    if done.exit_status != 0:
        name = path.rpartition("/")[2]
        raise CommandFailed(f"{name} failed on the machine: {_last_line(done.stderr)}")
    return done.stdout


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
