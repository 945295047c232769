"""The story of one run: launch, connect, upload, prepare, train, fetch, tear down; from the training on it may
be gone on with by another process. It is told as `Event`s to a callback and holds the one `try/finally` of the
house; boto3, SSH and terminals are unknown here.
"""

import contextlib
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator import bucket
from orchestrator.brought import read_metrics
from orchestrator.errors import Interrupted, OrchestratorError, SurvivorsLeft, TakenBack
from orchestrator.events import Outcome, Stage, TeardownReport
from orchestrator.homing import CHECKPOINTS, LOG, continuing, take_along
from orchestrator.interruption import follow_up, telling_ends_apart
from orchestrator.keeping import orders
from orchestrator.launch import launch, record_of
from orchestrator.ledger import Ledger, open_entries, read_ledger
from orchestrator.money import NOTHING
from orchestrator.plan import Plan
from orchestrator.ports import Session
from orchestrator.record import LEDGER_FILE, Rental, Turn, forget_keys, remember_machine
from orchestrator.remote import prepare, start_training
from orchestrator.teardown import teardown
from orchestrator.telling import Telling
from orchestrator.training import ARTIFACTS, Found, World, connected, finish, refuse_if_lost
from orchestrator.upload import upload


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
        record = record_of(launched, current, now=world.clock.now(), turn=turn)
        found.rental, found.spent = remember_machine(folder, record), None
        with telling_ends_apart(world.reader, record):
            _begin(current, world, found.rental, gpus=launched.offer.gpus, telling=telling)
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


def go_on(rental: Rental, world: World, *, ledger: Ledger, telling: Telling) -> Outcome:
    """What `run` does from the training on, for a run whose training was begun before."""
    found = Found(rental)

    def story() -> None:
        refuse_if_lost(world, found, rental, telling=telling)
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
    except OrchestratorError as error:
        found.error = error
    except KeyboardInterrupt:
        found.error = Interrupted("interrupted")
    finally:
        if not found.left_alone:
            with _naming_what_is_left(folder):
                report = give_back(world, ledger, folder=folder, telling=telling)
    return _outcome(ledger.run_id, world, telling=telling, found=found, folder=folder, report=report)


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
    """From the first SSH connection to the start of the trainer."""
    host = rental.host
    with telling.stage(Stage.CONNECT, f"waiting for SSH at {host.address}") as say:
        session = connected(world, host)
        say(f"{host.user}@{host.address}, host key as pinned")
    try:
        _prepare_and_start(plan, session, rental, gpus=gpus, telling=telling)
    finally:
        session.close()


def _again(
    plan: Plan, world: World, error: TakenBack, found: Found, *, ledger: Ledger, telling: Telling
) -> tuple[Plan, Turn]:
    """The plan after an interruption. `TakenBack` if there is to be no other machine."""
    if found.rental is None:
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


def _prepare_and_start(plan: Plan, session: Session, rental: Rental, *, gpus: int, telling: Telling) -> None:
    root = rental.root
    with telling.stage(Stage.UPLOAD, f"{len(plan.manifest.files)} files"):
        upload(
            session,
            plan.manifest,
            root=root,
            extra=job_files(plan, gpus=gpus),
            tell=lambda message, progress: telling.say(Stage.UPLOAD, message, progress),
        )
    with telling.stage(Stage.PREPARE, "finding or making the Python environment") as say:
        environment = prepare(session, root)
        say(environment.note)
        if any((rental.folder / name).exists() for name in (LOG, CHECKPOINTS)):
            say(take_along(session, rental))
        start_training(session, root, environment)


def job_files(plan: Plan, *, gpus: int) -> Mapping[str, bytes]:
    """The trainer's side of the contract: `run/spec.json` and `run/network.json`; and what to do with a bucket."""
    job = {
        "data": f"../data/{_data_name(plan)}",
        "network": "network.json",
        "min_devices": max(1, gpus),
        "checkpoint_seconds": plan.spec.checkpoint_seconds,
        "settings": plan.spec.settings.model_dump(exclude_none=True),
    }
    kept_in = plan.kept_in
    return {
        "run/spec.json": json.dumps(job, indent=1).encode(),
        "run/network.json": plan.spec.network.read_bytes(),
        **({"run/bucket.json": orders(kept_in, names=ARTIFACTS, checkpoints=CHECKPOINTS)} if kept_in else {}),
    }


def _data_name(plan: Plan) -> str:
    """Name of the one file or folder under `data/`."""
    (name,) = {file.destination.parts[1] for file in plan.manifest.files if file.destination.parts[0] == "data"}
    return name


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
        left_until=found.rental.machine.ends_at if found.left_alone and found.rental else None,
        kept_in=found.rental.machine.kept_in.url if found.rental and found.rental.machine.kept_in else None,
    )
