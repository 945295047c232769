"""What a run tells while it goes on and when it has ended: stages, progress, artifacts, how it stands, the outcome."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file brought home and verified."""

    name: str
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TeardownReport:
    """What became of everything the run created, as `kind resource_id` strings."""

    deleted: tuple[str, ...] = ()
    already_gone: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()


class Stage(StrEnum):
    """Chapters of the story, in order."""

    CHECK = "check"
    PLAN = "plan"
    LAUNCH = "launch"
    CONNECT = "connect"
    UPLOAD = "upload"
    PREPARE = "prepare"
    TRAIN = "train"
    FETCH = "fetch"
    KEEP = "keep"
    TEARDOWN = "teardown"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is. `done` and `total` are in `unit` ("bytes", "epochs")."""

    done: float
    total: float
    unit: str
    loss: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    usd: Decimal | None = None
    """What the machine has cost so far, and what it costs if only its timer ends it."""
    usd_at_most: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One thing the story tells: a remark, or progress, or the start or end of a stage."""

    at: datetime
    stage: Stage
    message: str
    progress: Progress | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class StageTime:
    """Seconds a stage took, and when it began: two may have gone on at once."""

    name: Stage
    seconds: float
    began: datetime | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, or, if `detached`, how it stood when it was left alone. `hours` is billed machine
    time, of all machines; metrics are the trainer's last values.
    """

    run_id: str
    exit_status: int
    directory: Path
    artifacts: tuple[Artifact, ...]
    metrics: Mapping[str, float]
    hours: float
    estimated_usd: Decimal
    stages: tuple[StageTime, ...]
    teardown: TeardownReport
    error: str | None = None
    left_until: datetime | None = None
    """When the timer ends a machine that was left alone; `None`: it was given back, or kept."""
    kept_until: datetime | None = None
    """When a machine that is kept for the next run ends itself; `None`: it is not kept."""
    machines: int = 1
    """How many were rented, one after another: AWS took all but the last one back, or that, too."""
    kept_in: str | None = None
    """URL of the folder of a bucket into which the machine puts what it makes, and then ends itself."""

    @property
    def seconds(self) -> float:
        """What the stages took together: what went on at once counts once."""
        timed = sorted((stage.began, stage.seconds) for stage in self.stages if stage.began is not None)
        total = sum(stage.seconds for stage in self.stages if stage.began is None)
        until: datetime | None = None
        for began, seconds in timed:
            ended = began + timedelta(seconds=seconds)
            start = began if until is None else max(began, until)
            total += max(0.0, (ended - start).total_seconds())
            until = ended if until is None else max(until, ended)
        return total

    @property
    def detached(self) -> bool:
        """Whether the machine goes on without us."""
        return self.left_until is not None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands. `state` is the trainer's word once it was started; before it `renting`; when the machine
    cannot be asked, `out of reach`; when it has ended by itself, `machine gone`; at the end `given back`, or `kept`
    for the next run, and then `handed over`.
    """

    run_id: str
    state: str
    note: str = ""
    machine: str = ""
    """`i-… g6.xlarge in us-east-1a at 192.0.2.1`."""
    others: tuple[str, ...] = ()
    """Where several train as one, the second and further, each with how its trainer stands."""
    progress: Progress | None = None
    exit_status: int | None = None
    """The trainer's."""
    hours: float = 0.0
    usd: Decimal = Decimal(0)
    usd_at_most: Decimal = Decimal(0)
    minutes_to_timer: float | None = None
