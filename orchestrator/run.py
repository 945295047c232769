"""The story of one run: launch, connect, upload, prepare, train, fetch, tear down. It is told as
`Event`s to a callback and holds the one `try/finally` of the house; boto3, SSH and terminals are
unknown here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from orchestrator.errors import (
    HostUnreachable,
    Interrupted,
    OrchestratorError,
    SurvivorsLeft,
    TrainingFailed,
)
from orchestrator.fetch import fetch
from orchestrator.launch import Launched, forget_key, host_of, launch
from orchestrator.ledger import Ledger, read_ledger
from orchestrator.money import Bill, bill
from orchestrator.plan import Plan
from orchestrator.ports import Clock, CloudReader, CloudWriter, Connect, Session
from orchestrator.remote import follow, prepare, start_training
from orchestrator.resources import (
    Artifact,
    Host,
    Outcome,
    Stage,
    TeardownReport,
)
from orchestrator.teardown import teardown
from orchestrator.telling import Telling
from orchestrator.upload import upload
from orchestrator.wait import wait_until

ARTIFACTS = (
    "recs",
    "gl.nc",
    "features_input",
    "features_output",
    "features_attributes",
    "samples_input",
    "titles.json",
    "metrics.jsonl",
    "log.txt",
)
"""What a good run brings home."""

_CONNECT_LIMIT_SECONDS = 300.0
_CONNECT_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class World:
    """What a run touches. A dry run differs from a real one in these four values only."""

    reader: CloudReader
    writer: CloudWriter
    connect: Connect
    clock: Clock


@dataclass(slots=True)
class _Found:
    """What the run has come by so far; teardown and outcome need it however the run ends."""

    launched: Launched | None = None
    artifacts: tuple[Artifact, ...] = ()
    error: OrchestratorError | None = None


def run(plan: Plan, world: World, *, folder: Path, first_boot: str, telling: Telling) -> Outcome:
    """Carry out `plan`; everything it brings home lies in `folder`, where the ledger is kept.

    Failures do not rise: the outcome carries them, after teardown. Only what this program did not
    foresee rises, also after teardown.
    """
    found = _Found()
    ledger = Ledger(folder / "ledger.jsonl", clock=world.clock, run_id=plan.run_id, region=plan.spec.region)
    report = TeardownReport()
    try:
        with telling.stage(Stage.LAUNCH, "renting") as say:
            found.launched = launch(
                plan,
                reader=world.reader,
                writer=world.writer,
                ledger=ledger,
                clock=world.clock,
                folder=folder,
                first_boot=first_boot,
                tell=say,
            )
        found.artifacts = _work(plan, world, found.launched, telling=telling, folder=folder)
    except OrchestratorError as error:
        found.error = error
    except KeyboardInterrupt:
        found.error = Interrupted("interrupted")
    finally:
        with telling.stage(Stage.TEARDOWN, "giving everything back") as say:
            report = teardown(
                read_ledger(folder / "ledger.jsonl"),
                reader=world.reader,
                writer=world.writer,
                ledger=ledger,
                clock=world.clock,
                tell=say,
            )
            if not report.survivors:
                forget_key(folder)
    return _outcome(plan, world, telling=telling, found=found, folder=folder, report=report)


def _work(plan: Plan, world: World, launched: Launched, *, telling: Telling, folder: Path) -> tuple[Artifact, ...]:
    """From the first SSH connection to the last verified artifact."""
    host = host_of(launched, plan)
    root = f"launch-and-train/{plan.run_id}"
    with telling.stage(Stage.CONNECT, f"waiting for SSH at {host.address}") as say:
        session = _connect(world, host)
        say(f"{host.user}@{host.address}, host key as pinned")
    try:
        _prepare_and_start(plan, session, root=root, gpus=launched.offer.gpus, telling=telling)
    finally:
        session.close()
    with telling.stage(Stage.TRAIN, "training"), (folder / "log.txt").open("ab") as log:
        status = follow(
            world.connect,
            host,
            root=root,
            clock=world.clock,
            log=log,
            tell=lambda message, progress: telling.say(Stage.TRAIN, message, progress),
        )
    if status != 0:
        raise TrainingFailed(f"the trainer ended with status {status}: {_last_words(folder / 'log.txt')}")
    with telling.stage(Stage.FETCH, "bringing the results home") as say:
        session = _connect(world, host)
        try:
            return fetch(session, root, ARTIFACTS, into=folder, tell=say)
        finally:
            session.close()


def _prepare_and_start(plan: Plan, session: Session, *, root: str, gpus: int, telling: Telling) -> None:
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
        start_training(session, root, environment)


def _connect(world: World, host: Host) -> Session:
    def dialled() -> Session | None:
        try:
            return world.connect(host)
        except HostUnreachable:
            return None

    return wait_until(
        dialled,
        clock=world.clock,
        limit_seconds=_CONNECT_LIMIT_SECONDS,
        every_seconds=_CONNECT_EVERY_SECONDS,
        what=f"SSH at {host.address}",
    )


def job_files(plan: Plan, *, gpus: int) -> Mapping[str, bytes]:
    """The trainer's side of the contract: `run/spec.json` and `run/network.json`."""
    job = {
        "data": f"../data/{_data_name(plan)}",
        "network": "network.json",
        "min_devices": max(1, gpus),
        "settings": plan.spec.settings.model_dump(exclude_none=True),
    }
    return {
        "run/spec.json": json.dumps(job, indent=1).encode(),
        "run/network.json": plan.spec.network.read_bytes(),
    }


def _data_name(plan: Plan) -> str:
    """Name of the one file or folder under `data/`."""
    (name,) = {file.destination.parts[1] for file in plan.manifest.files if file.destination.parts[0] == "data"}
    return name


def read_metrics(path: Path) -> Mapping[str, float]:
    """The last value of each name in `metrics.jsonl`; nothing where there is no such file. A line
    that cannot be read is passed over, since a run may have ended in the middle of one.
    """
    metrics: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            report = json.loads(line)
            metrics[report["name"]] = float(report["value"])
        except (ValueError, KeyError, TypeError):
            continue
    return metrics


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"


def _outcome(
    plan: Plan, world: World, *, telling: Telling, found: _Found, folder: Path, report: TeardownReport
) -> Outcome:
    error = found.error
    if report.survivors:
        left = ", ".join(report.survivors)
        error = SurvivorsLeft(
            f"could not confirm that these are gone: {left}; run `orchestrator down {plan.run_id}`",
            report.survivors,
        )
    rent = _bill(plan, found.launched, world.clock)
    return Outcome(
        run_id=plan.run_id,
        exit_status=0 if error is None else error.exit_status,
        directory=folder,
        artifacts=found.artifacts,
        metrics=read_metrics(folder / "metrics.jsonl"),
        hours=rent.hours,
        estimated_usd=rent.usd,
        stages=tuple(telling.stages),
        teardown=report,
        error=None if error is None else str(error),
    )


def _bill(plan: Plan, launched: Launched | None, clock: Clock) -> Bill:
    if launched is None or launched.instance.launched_at is None:
        return Bill(0.0, Decimal(0))
    return bill(
        launched.offer.usd_per_hour,
        volume_gib=plan.volume_gib,
        launched_at=launched.instance.launched_at,
        ended_at=clock.now(),
    )
