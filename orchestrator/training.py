"""The chapter of a run's story about the training: it is followed, its cost and its checkpoints watched, and what it
made brought home, from the machine or from the bucket into which that has put it. Another process may begin here.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from orchestrator import bucket
from orchestrator.brought import last_words
from orchestrator.errors import (
    HostUnreachable,
    InstanceDied,
    OrchestratorError,
    OverBudget,
    RunFailed,
    TimedOut,
    TrainingFailed,
)
from orchestrator.events import Artifact, Progress, Stage
from orchestrator.fetch import fetch
from orchestrator.homing import LOG, Homing
from orchestrator.interruption import (
    ASKED_TO_END,
    Lookout,
    bring_what_was_saved,
    refuse_if_ended,
    telling_ends_apart,
)
from orchestrator.ledger import Ledger
from orchestrator.money import Bill
from orchestrator.ports import Clock, CloudReader, CloudWriter, Connect, Session, Storage
from orchestrator.record import Rental
from orchestrator.remote import Care, follow, stop_training
from orchestrator.resources import Host
from orchestrator.rundir import ARTIFACTS, CHECKPOINTS, FETCHED
from orchestrator.telling import Telling
from orchestrator.together import Watch, naming_the_cause
from orchestrator.wait import wait_until

_CONNECT_LIMIT_SECONDS = 300.0
_CONNECT_EVERY_SECONDS = 1.0
_GIVING_BACK_SECONDS = 120.0
"""What is left of the budget when a run is stopped, in seconds of its machine."""


@dataclass(frozen=True, slots=True)
class World:
    """What a run touches. A dry run differs from a real one in these five values only."""

    reader: CloudReader
    writer: CloudWriter
    connect: Connect
    clock: Clock
    storage: Storage


@dataclass(slots=True)
class Found:
    """What the run has come by so far; teardown and outcome need it however the run ends."""

    rental: Rental | None = None
    artifacts: tuple[Artifact, ...] = ()
    error: OrchestratorError | None = None
    detached: bool = False
    ended: list[str] = field(default_factory=list[str])
    """Machines that were taken back, and are gone."""
    spent: Bill | None = None
    """What they cost, while none lives."""
    ended_at: datetime | None = None
    """When the machine ended itself, if it did."""
    kept_until: datetime | None = None
    """When the machine ends itself, if it is kept for the next run."""

    @property
    def left_alone(self) -> bool:
        """Whether the machine is to go on without us."""
        return (self.detached or self.kept_until is not None) and self.error is None


def connected(world: World, host: Host, *, limit_seconds: float = _CONNECT_LIMIT_SECONDS) -> Session:
    """A line to a machine that may need a while to answer."""

    def dialled() -> Session | None:
        try:
            return world.connect(host)
        except HostUnreachable:
            return None

    return wait_until(
        dialled,
        clock=world.clock,
        limit_seconds=limit_seconds,
        every_seconds=_CONNECT_EVERY_SECONDS,
        what=f"SSH at {host.address}",
    )


def refuse_if_lost(world: World, found: Found, rental: Rental, *, telling: Telling) -> None:
    """Raises `InstanceDied` unless the machine runs, or has kept everything in a bucket. Where it ended too early, what
    it had put there is brought home.
    """
    kept_in = rental.machine.kept_in
    try:
        refuse_if_ended(world.reader, rental.machine)
    except InstanceDied as error:
        if kept_in is None:
            raise
        if _is_kept(world, rental):
            return
        with telling.stage(Stage.FETCH, f"bringing home what lies in {kept_in.url}") as say:
            found.artifacts = bucket.bring_what_there_is(world.storage, kept_in, FETCHED, into=rental.folder, tell=say)
        raise InstanceDied(f"{error}; what it had put into {kept_in.url} was brought home") from error


def finish(world: World, found: Found, rental: Rental, *, ledger: Ledger, telling: Telling) -> None:
    """From the start of the trainer to the last verified artifact."""
    with telling_ends_apart(world.reader, rental.machine):
        _train_and_fetch(world, found, rental, ledger=ledger, telling=telling)
    (rental.folder / CHECKPOINTS).unlink(missing_ok=True)


def _train_and_fetch(world: World, found: Found, rental: Rental, *, ledger: Ledger, telling: Telling) -> None:
    try:
        status = _followed(world, rental, ledger=ledger, telling=telling)
    except OverBudget:
        with telling.stage(Stage.FETCH, "stopping the trainer and bringing home what there is") as say:
            found.artifacts = _salvaged(world, rental, say)
        raise
    # Where the bucket has everything, the run is over, whatever the machine was asked.
    if status in ASKED_TO_END and not _is_kept(world, rental):
        with (
            telling.stage(Stage.FETCH, "the trainer was asked to end; bringing home what it saved") as say,
            contextlib.closing(connected(world, rental.host)) as session,
        ):
            bring_what_was_saved(session, rental, world.clock, say)
    if status == 0 or rental.machine.kept_in is not None:
        with telling.stage(Stage.FETCH, "bringing the results home") as say:
            _bring_home(world, found, rental, say, partial=status != 0)
    if status != 0:
        raise _failed(rental, status)


def _bring_home(world: World, found: Found, rental: Rental, say: Callable[[str], None], *, partial: bool) -> None:
    """What a training that has ended left: from the bucket, where there is one, else from the machine."""
    kept_in = rental.machine.kept_in
    if kept_in is not None:
        try:
            kept = bucket.wait_for_kept(world.storage, kept_in, clock=world.clock)
        except TimedOut as error:
            say(f"{error}; asking the machine itself")
        else:
            found.ended_at = kept.ended_at
            found.artifacts = bucket.bring_kept(world.storage, kept_in, kept, FETCHED, into=rental.folder, tell=say)
            return
    session = connected(world, rental.host)
    try:
        found.artifacts = fetch(session, rental.root, ARTIFACTS, into=rental.folder, tell=say, partial=partial)
    finally:
        session.close()


def _followed(world: World, rental: Rental, *, ledger: Ledger, telling: Telling) -> int:
    def say(remark: str) -> None:
        telling.say(Stage.TRAIN, remark)

    def tell(message: str, progress: Progress | None) -> None:
        telling.say(Stage.TRAIN, message, progress and _with_cost(progress, rental, world.clock.now()))

    lookout = Lookout(world.reader, world.writer, world.clock, ledger, rental, say)

    def while_lost() -> bool:
        try:
            return lookout()
        except InstanceDied:
            # It ends itself once it has put everything into the bucket: the next look there tells.
            if not _is_kept(world, rental):
                raise
            return False

    watching = _watching(world, rental)

    def always() -> int | None:
        others()
        return watching()

    def check(node: Rental) -> None:
        refuse_if_ended(world.reader, node.machine)

    care = Care(
        always=always,
        with_line=Homing(rental, world.clock, say, on_bytes=lambda: _watch_budget(rental, world.clock.now())),
        while_lost=while_lost,
    )
    with (
        telling.stage(Stage.TRAIN, "training"),
        naming_the_cause(rental, connect=world.connect, check=check, tell=say),
        contextlib.closing(Watch(rental, connect=world.connect, clock=world.clock, check=check)) as others,
        (rental.folder / LOG).open("ab") as log,
    ):
        status = follow(
            world.connect,
            rental.host,
            root=rental.root,
            clock=world.clock,
            log=log,
            tell=tell,
            care=care,
        )
        if status != 0 and rental.others:
            raise _failed(rental, status)
        return status


def _failed(rental: Rental, status: int) -> TrainingFailed:
    return TrainingFailed(f"the trainer ended with status {status}: {last_words(rental.folder / LOG)}")


def _watching(world: World, rental: Rental) -> Callable[[], int | None]:
    """What to look at beside the machine: what it costs, and the bucket into which it has put everything when it ends
    itself.
    """
    kept = rental.machine.kept_in and bucket.Watch(world.storage, rental.machine.kept_in, world.clock)

    def watch() -> int | None:
        _watch_budget(rental, world.clock.now())
        return kept.exit_status() if kept else None

    return watch


def _with_cost(progress: Progress, rental: Rental, now: datetime) -> Progress:
    """Progress, and what it has cost and may cost."""
    return replace(progress, usd=rental.meter.until(now).usd, usd_at_most=rental.meter.at_most().usd)


def _watch_budget(rental: Rental, now: datetime) -> None:
    cap = rental.machine.max_usd
    if cap is not None and rental.meter.passes(cap, now, ahead_seconds=_GIVING_BACK_SECONDS):
        raise OverBudget(
            f"stopped at {rental.meter.until(now).usd} USD: to bring the results home and give the machine back takes "
            f"up to {_GIVING_BACK_SECONDS:g} s, after which it would have cost more than max_usd = {cap}; "
            f"what there was lies in {rental.folder}"
        )


def _salvaged(world: World, rental: Rental, say: Callable[[str], None]) -> tuple[Artifact, ...]:
    """What a training that is stopped has made. Failures are told: the machine must go, whatever comes home."""
    try:
        session = world.connect(rental.host)
        try:
            stop_training(session, rental.root)
            return fetch(session, rental.root, FETCHED, into=rental.folder, tell=say, partial=True)
        finally:
            session.close()
    except RunFailed as error:
        say(f"nothing more could be brought home: {error}")
        return ()


def _is_kept(world: World, rental: Rental) -> bool:
    """Whether everything lies in a bucket."""
    kept_in = rental.machine.kept_in
    return kept_in is not None and bucket.kept_run(world.storage, kept_in) is not None
