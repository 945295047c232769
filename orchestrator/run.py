"""The story of one run: launch, connect, upload and prepare at once, train, fetch, tear down; from the training on it
may be gone on with by another process. It is told as `Event`s to a callback and holds the one `try/finally` of the
house; boto3, SSH and terminals are unknown here.
"""

import contextlib
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from orchestrator import bucket
from orchestrator.admission import admit_caller
from orchestrator.beginning import begin_training
from orchestrator.brought import read_metrics
from orchestrator.errors import Interrupted, OrchestratorError, RunFailed, SurvivorsLeft, TakenBack
from orchestrator.events import Outcome, Stage, TeardownReport
from orchestrator.homing import continuing
from orchestrator.interruption import follow_up, refuse_if_ended, telling_ends_apart
from orchestrator.keep_alive import Keeper, keep
from orchestrator.launch import launch, records_of
from orchestrator.ledger import Ledger, open_entries, read_ledger
from orchestrator.money import NOTHING
from orchestrator.plan import Plan
from orchestrator.record import LEDGER_FILE, Rental, Turn, forget_keys, remember_machines
from orchestrator.rundir import job_files
from orchestrator.teardown import teardown
from orchestrator.telling import Telling
from orchestrator.together import Crew
from orchestrator.training import Found, World, connected, finish, refuse_if_lost


def run(plan: Plan, world: World, *, folder: Path, first_boot: str, telling: Telling, detach: bool = False) -> Outcome:
    """Carry out `plan`; everything it brings home lies in `folder`, where record and ledger are kept. With
    `detach` it ends once the training has begun, and leaves the machine to itself.

    Failures do not rise: the outcome carries them, after teardown. Only what this program did not
    foresee rises, also after teardown.
    """
    found = Found()
    ledger = Ledger(folder / LEDGER_FILE, clock=world.clock, run_id=plan.run_id, region=plan.spec.region)

    def rent(current: Plan, turn: Turn) -> Rental:
        with telling.stage(Stage.LAUNCH, f"renting machine {turn.number}" if turn.number > 1 else "renting") as say:
            launched = launch(
                current,
                reader=world.reader,
                writer=world.writer,
                ledger=ledger,
                clock=world.clock,
                folder=folder,
                first_boot=first_boot,
                tell=say,
                turn=turn,
            )
        records = records_of(launched, current, now=world.clock.now(), turn=turn)
        found.rental, found.spent = remember_machines(folder, records), None
        gpus = launched.offer.gpus * plan.spec.nodes
        with telling_ends_apart(world.reader, found.rental.machine):
            _begin(current, world, found.rental, gpus=gpus, telling=telling)
        return found.rental

    def story() -> None:
        current, turn = plan, Turn()
        while True:
            try:
                rental = rent(current, turn)
                if not detach:
                    finish(world, found, rental, ledger=ledger, telling=telling)
                break
            except TakenBack as error:
                current, turn = _again(current, world, error, found, ledger=ledger, telling=telling)
        found.detached = detach

    return _told(story, world, found=found, ledger=ledger, folder=folder, telling=telling)


def run_on(
    plan: Plan, keeper: Keeper, world: World, *, folder: Path, telling: Telling, detach: bool = False
) -> Outcome:
    """What `run` does, on a machine that an earlier run has kept. If AWS takes it back, no other is rented."""
    found = Found()
    ledger = Ledger(folder / LEDGER_FILE, clock=world.clock, run_id=plan.run_id, region=plan.spec.region)

    def story() -> None:
        refuse_if_ended(world.reader, keeper.machine.machine)
        with telling.stage(Stage.LAUNCH, f"taking over {keeper.machine.machine.instance_id}") as say:
            found.rental = keeper.hand_over(folder, ledger, plan.spec, world.clock.now())
            entries = read_ledger(folder / LEDGER_FILE)
            admit_caller(entries, reader=world.reader, writer=world.writer, ledger=ledger, tell=say)
            with contextlib.closing(connected(world, found.rental.host)) as session:
                keeper.release(session)
        with telling_ends_apart(world.reader, found.rental.machine):
            _begin(plan, world, found.rental, gpus=plan.offers[0].gpus, telling=telling)
        if not detach:
            finish(world, found, found.rental, ledger=ledger, telling=telling)
        found.detached = detach

    return _told(story, world, found=found, ledger=ledger, folder=folder, telling=telling)


def go_on(rental: Rental, world: World, *, ledger: Ledger, telling: Telling) -> Outcome:
    """What `run` does from the training on, for a run whose training was begun before."""
    found = Found(rental)

    def story() -> None:
        for node in rental.nodes:
            refuse_if_lost(world, found, node, telling=telling)
        finish(world, found, rental, ledger=ledger, telling=telling)

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


def _told(
    story: Callable[[], None], world: World, *, found: Found, ledger: Ledger, folder: Path, telling: Telling
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


def _kept(world: World, found: Found, *, telling: Telling) -> datetime | None:
    """Until when the machine of a run that ended well is kept; `None` where it is to be given back, or must be, since
    it could not be told when to end itself.
    """
    rental = found.rental
    if rental is None or found.detached or not rental.machine.keep_alive_minutes:
        return None
    with telling.stage(Stage.KEEP, f"for {rental.machine.keep_alive_minutes} min after this run") as say:
        try:
            with contextlib.closing(connected(world, rental.host)) as session:
                return keep(session, rental, world.clock.now())
        except RunFailed as error:
            say(f"{error}; it is given back")
            return None


@contextlib.contextmanager
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
    with contextlib.closing(crew):
        begin_training(crew, plan.manifest, extra=job_files(plan, gpus=gpus), telling=telling)


def _again(
    plan: Plan, world: World, error: TakenBack, found: Found, *, ledger: Ledger, telling: Telling
) -> tuple[Plan, Turn]:
    """The plan after an interruption. `TakenBack` if there is to be no other machine."""
    if found.rental is None or found.rental.others:
        raise error
    with telling.stage(Stage.TEARDOWN, f"interrupted: {error}") as say:
        again, turn, report = follow_up(
            plan,
            error,
            found.rental,
            reader=world.reader,
            writer=world.writer,
            ledger=ledger,
            clock=world.clock,
            tell=say,
        )
    found.ended += [*report.deleted, *report.already_gone]
    found.spent = turn.before
    return again, turn


def _outcome(
    run_id: str, world: World, *, telling: Telling, found: Found, folder: Path, report: TeardownReport
) -> Outcome:
    error = found.error
    if report.survivors:
        left = ", ".join(report.survivors)
        error = SurvivorsLeft(
            f"could not confirm that these are gone: {left}; run `orchestrator down {run_id}`",
            report.survivors,
        )
    rent = found.spent or (found.rental.meter.until(found.ended_at or world.clock.now()) if found.rental else NOTHING)
    return Outcome(
        run_id=run_id,
        exit_status=0 if error is None else error.exit_status,
        directory=folder,
        artifacts=found.artifacts,
        metrics=read_metrics(folder / "metrics.jsonl"),
        hours=rent.hours,
        estimated_usd=rent.usd,
        stages=tuple(telling.stages),
        teardown=replace(report, deleted=(*found.ended, *report.deleted)),
        error=None if error is None else continuing(error, folder),
        machines=found.rental.machine.number if found.rental else 0,
        left_until=found.rental.machine.ends_at if found.detached and found.left_alone and found.rental else None,
        kept_until=found.kept_until if found.left_alone else None,
        kept_in=found.rental.machine.kept_in.url if found.rental and found.rental.machine.kept_in else None,
    )
