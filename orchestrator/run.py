"""The story of one run: launch, connect, upload and prepare at once, train, fetch, tear down; from the training on it
may be gone on with by another process. It is told as `Event`s to a callback and holds the one `try/finally` of the
house; boto3, SSH and terminals are unknown here.
"""

from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from orchestrator import bucket
from orchestrator.admission import admit_caller
from orchestrator.beginning import begin_training
from orchestrator.brought import last_words, read_metrics
from orchestrator.errors import (
    HostUnreachable,
    InstanceDied,
    Interrupted,
    NotYetVisible,
    OrchestratorError,
    OverBudget,
    RunFailed,
    SurvivorsLeft,
    TimedOut,
    TrainingFailed,
)
from orchestrator.events import Artifact, Outcome, Progress, Stage, TeardownReport
from orchestrator.fetch import fetch
from orchestrator.keep_alive import Keeper, keep
from orchestrator.launch import launch, records_of
from orchestrator.ledger import Ledger, open_entries, read_ledger
from orchestrator.money import Bill
from orchestrator.plan import Plan
from orchestrator.ports import Clock, CloudReader, CloudWriter, Connect, Session, Storage
from orchestrator.record import LEDGER_FILE, Rental, forget_keys, remember_machines
from orchestrator.remote import follow, stop_training
from orchestrator.resources import Host
from orchestrator.rundir import ARTIFACTS, FETCHED, job_files
from orchestrator.teardown import teardown
from orchestrator.telling import Telling
from orchestrator.together import Crew, Watch, naming_the_cause
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
class _Found:
    """What the run has come by so far; teardown and outcome need it however the run ends."""

    rental: Rental | None = None
    artifacts: tuple[Artifact, ...] = ()
    error: OrchestratorError | None = None
    detached: bool = False
    ended_at: datetime | None = None
    """When the machine ended itself, if it did."""
    kept_until: datetime | None = None
    """When the machine ends itself, if it is kept for the next run."""

    @property
    def left_alone(self) -> bool:
        """Whether the machine is to go on without us."""
        return (self.detached or self.kept_until is not None) and self.error is None


def run(plan: Plan, world: World, *, folder: Path, first_boot: str, telling: Telling, detach: bool = False) -> Outcome:
    """Carry out `plan`; everything it brings home lies in `folder`, where record and ledger are kept. With
    `detach` it ends once the training has begun, and leaves the machine to itself.

    Failures do not rise: the outcome carries them, after teardown. Only what this program did not
    foresee rises, also after teardown.
    """
    found = _Found()
    ledger = Ledger(folder / LEDGER_FILE, clock=world.clock, run_id=plan.run_id, region=plan.spec.region)

    def story() -> None:
        with telling.stage(Stage.LAUNCH, "renting") as say:
            launched = launch(
                plan,
                reader=world.reader,
                writer=world.writer,
                ledger=ledger,
                clock=world.clock,
                folder=folder,
                first_boot=first_boot,
                tell=say,
            )
        found.rental = remember_machines(folder, records_of(launched, plan, now=world.clock.now()))
        gpus = launched.offer.gpus * plan.spec.nodes
        _begin(plan, world, found.rental, gpus=gpus, telling=telling)
        if not detach:
            _finish(world, found, found.rental, telling=telling)
        found.detached = detach

    return _told(story, world, found=found, ledger=ledger, folder=folder, telling=telling)


def run_on(
    plan: Plan, keeper: Keeper, world: World, *, folder: Path, telling: Telling, detach: bool = False
) -> Outcome:
    """What `run` does, on a machine that an earlier run has kept."""
    found = _Found()
    ledger = Ledger(folder / LEDGER_FILE, clock=world.clock, run_id=plan.run_id, region=plan.spec.region)

    def story() -> None:
        refuse_if_ended(world, keeper.rental)
        with telling.stage(Stage.LAUNCH, f"taking over {keeper.machine.machine.instance_id}") as say:
            admit_caller(plan.run_id, keeper.entries, reader=world.reader, writer=world.writer, tell=say)
            found.rental = keeper.hand_over(folder, ledger, plan.spec, world.clock.now())
            with closing(connected(world, found.rental.host)) as session:
                keeper.release(session)
        _begin(plan, world, found.rental, gpus=plan.offers[0].gpus, telling=telling)
        if not detach:
            _finish(world, found, found.rental, telling=telling)
        found.detached = detach

    return _told(story, world, found=found, ledger=ledger, folder=folder, telling=telling)


def go_on(rental: Rental, world: World, *, ledger: Ledger, telling: Telling) -> Outcome:
    """What `run` does from the training on, for a run whose training was begun before."""
    found = _Found(rental)

    def story() -> None:
        for node in rental.nodes:
            _refuse_if_lost(world, found, node, telling=telling)
        _finish(world, found, rental, telling=telling)

    return _told(story, world, found=found, ledger=ledger, folder=rental.folder, telling=telling)


def give_back(world: World, ledger: Ledger, *, folder: Path, telling: Telling) -> TeardownReport:
    """Tear down whatever a run's ledger and tags still name, and forget its keys once that is done."""
    with telling.stage(Stage.TEARDOWN, "giving everything back") as say:
        bucket.date_own_end(world.reader, world.storage, ledger, folder)
        report = teardown(
            read_ledger(folder / LEDGER_FILE),
            reader=world.reader,
            writer=world.writer,
            ledger=ledger,
            clock=world.clock,
            tell=say,
        )
        if not report.survivors:
            forget_keys(folder)
    return report


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


def _told(
    story: Callable[[], None], world: World, *, found: _Found, ledger: Ledger, folder: Path, telling: Telling
) -> Outcome:
    report = TeardownReport()
    try:
        story()
        found.kept_until = _kept(world, found, telling=telling)
    except OrchestratorError as error:
        found.error = error
    except KeyboardInterrupt:
        found.error = Interrupted("interrupted")
    finally:
        if not found.left_alone:
            with _naming_what_is_left(folder):
                report = give_back(world, ledger, folder=folder, telling=telling)
    return _outcome(ledger.run_id, world, telling=telling, found=found, folder=folder, report=report)


def _kept(world: World, found: _Found, *, telling: Telling) -> datetime | None:
    """Until when the machine of a run that ended well is kept; `None` where it is to be given back, or must be, since
    it could not be told when to end itself.
    """
    rental = found.rental
    if rental is None or found.detached or not rental.machine.keep_alive_minutes:
        return None
    with telling.stage(Stage.KEEP, f"for {rental.machine.keep_alive_minutes} min after this run") as say:
        try:
            with closing(connected(world, rental.host)) as session:
                return keep(session, rental, world.clock.now())
        except RunFailed as error:
            say(f"{error}; it is given back")
            return None


@contextmanager
def _naming_what_is_left(folder: Path) -> Generator[None]:
    """An interrupted teardown says what may still exist."""
    try:
        yield
    except KeyboardInterrupt:
        entries = open_entries(read_ledger(folder / LEDGER_FILE))
        left = ", ".join(f"{entry.kind} {entry.resource_id or entry.name}" for entry in entries)
        raise Interrupted(
            f"interrupted during teardown; may still exist: {left or 'nothing'}; run `orchestrator down {folder}`"
        ) from None


def _begin(plan: Plan, world: World, rental: Rental, *, gpus: int, telling: Telling) -> None:
    """From the first SSH connections to the start of the trainers; `gpus` are those of all machines."""
    places = ", ".join(node.host.address for node in rental.nodes)
    with telling.stage(Stage.CONNECT, f"waiting for SSH at {places}") as say:
        crew = Crew.dialled(rental, lambda host: connected(world, host))
        say(f"{rental.host.user}@{places}, host key as pinned")
    with closing(crew):
        begin_training(crew, plan.manifest, extra=job_files(plan, gpus=gpus), telling=telling)


def _finish(world: World, found: _Found, rental: Rental, *, telling: Telling) -> None:
    """From the start of the trainer to the last verified artifact."""
    try:
        status = _followed(world, rental, telling=telling)
    except OverBudget:
        with telling.stage(Stage.FETCH, "stopping the trainer and bringing home what there is") as say:
            found.artifacts = _salvaged(world, rental, say)
        raise
    with telling.stage(Stage.FETCH, "bringing the results home") as say:
        _bring_home(world, found, rental, say, partial=status != 0)
    if status != 0:
        raise _failed(rental, status)


def _bring_home(world: World, found: _Found, rental: Rental, say: Callable[[str], None], *, partial: bool) -> None:
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


def _followed(world: World, rental: Rental, *, telling: Telling) -> int:
    """To the end of the training: its exit status, which is 0 but where the run is kept in a bucket, from which what
    there is comes home all the same.
    """
    kept_in = rental.machine.kept_in
    kept = kept_in and bucket.Watch(world.storage, kept_in, world.clock)

    def check(node: Rental) -> None:
        refuse_if_ended(world, node)

    def watch() -> int | None:
        _watch_budget(rental, world.clock.now())
        others()
        return kept.exit_status() if kept else None

    def tell(message: str, progress: Progress | None) -> None:
        telling.say(Stage.TRAIN, message, progress and _with_cost(progress, rental, world.clock.now()))

    with (
        telling.stage(Stage.TRAIN, "training") as say,
        naming_the_cause(rental, connect=world.connect, check=check, tell=say),
        closing(Watch(rental, connect=world.connect, clock=world.clock, check=check)) as others,
        (rental.folder / "log.txt").open("ab") as log,
    ):
        status = follow(
            world.connect,
            rental.host,
            root=rental.root,
            clock=world.clock,
            log=log,
            tell=tell,
            watch=watch,
        )
        if status != 0 and kept_in is None:
            raise _failed(rental, status)
        return status


def _failed(rental: Rental, status: int) -> TrainingFailed:
    last = last_words(rental.folder / "log.txt")
    return TrainingFailed(f"the trainer ended with status {status}: {last}")


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


def refuse_if_ended(world: World, rental: Rental) -> None:
    """Raises `InstanceDied` unless the machine runs."""
    name = rental.machine.instance_id
    try:
        seen = world.reader.instance(name)
    except NotYetVisible:
        raise InstanceDied(f"{name} is gone, and with it what was not brought home") from None
    if seen.state != "running":
        reason = f" ({seen.state_reason})" if seen.state_reason else ""
        raise InstanceDied(f"{name} is {seen.state}{reason}, and gone is what was not brought home")


def _refuse_if_lost(world: World, found: _Found, rental: Rental, *, telling: Telling) -> None:
    """Raises `InstanceDied` unless the machine runs, or has kept everything in a bucket. Where it ended too early, what
    it had put there is brought home.
    """
    kept_in = rental.machine.kept_in
    try:
        refuse_if_ended(world, rental)
    except InstanceDied as error:
        if kept_in is None:
            raise
        if bucket.kept_run(world.storage, kept_in) is not None:
            return
        with telling.stage(Stage.FETCH, f"bringing home what lies in {kept_in.url}") as say:
            found.artifacts = bucket.bring_what_there_is(world.storage, kept_in, FETCHED, into=rental.folder, tell=say)
        raise InstanceDied(f"{error}; what it had put into {kept_in.url} was brought home") from error


def _outcome(
    run_id: str, world: World, *, telling: Telling, found: _Found, folder: Path, report: TeardownReport
) -> Outcome:
    error = found.error
    if report.survivors:
        left = ", ".join(report.survivors)
        error = SurvivorsLeft(
            f"could not confirm that these are gone: {left}; run `orchestrator down {run_id}`",
            report.survivors,
        )
    rent = found.rental.meter.until(found.ended_at or world.clock.now()) if found.rental else Bill(0.0, Decimal(0))
    return Outcome(
        run_id=run_id,
        exit_status=0 if error is None else error.exit_status,
        directory=folder,
        artifacts=found.artifacts,
        metrics=read_metrics(folder / "metrics.jsonl"),
        hours=rent.hours,
        estimated_usd=rent.usd,
        stages=tuple(telling.stages),
        teardown=report,
        error=None if error is None else str(error),
        left_until=found.rental.machine.ends_at if found.detached and found.left_alone and found.rental else None,
        kept_until=found.kept_until if found.left_alone else None,
        kept_in=found.rental.machine.kept_in.url if found.rental and found.rental.machine.kept_in else None,
    )
