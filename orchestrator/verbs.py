"""What each verb does, from spec to outcome: opens the world, drafts, asks, records, runs. The command
line above only parses and renders.
"""

import signal
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from orchestrator.draft import Draft, draft
from orchestrator.errors import Interrupted, UsageError
from orchestrator.imaging import Candidate, image_candidates
from orchestrator.launch import forget_key
from orchestrator.ledger import Ledger, open_entries, read_ledger
from orchestrator.packaged import packaged
from orchestrator.ports import CloudReader
from orchestrator.record import RunRecord, find_run, write_record
from orchestrator.report.outcome import outcome_json
from orchestrator.report.plan import plan_json, plan_text
from orchestrator.report.progress import progress
from orchestrator.resources import Outcome, Stage, Tagged, TeardownReport
from orchestrator.run import World, run
from orchestrator.spec import RunSpec
from orchestrator.teardown import sweep, teardown
from orchestrator.telling import Telling
from orchestrator.worlds import dry_world, mocked_endpoint, real_world, world_at

_REHEARSED = "a rehearsal takes no GPU; `orchestrator plan` works it out"


@dataclass(frozen=True, slots=True)
class Where:
    """Which world a verb works in."""

    dry_run: bool = False
    mock_cloud: str | None = None

    @property
    def is_real(self) -> bool:
        """Whether money can be spent."""
        return not self.dry_run and self.mock_cloud is None


def look(spec: RunSpec, where: Where, *, stream: TextIO) -> Draft:
    """The plan of `spec`; nothing changes anywhere."""
    with _world(spec.region, where) as (world, _), progress(stream) as tell:
        return draft(spec, world.reader, telling=Telling(world.clock, tell))


def candidates(family: str | None, region: str, where: Where, *, instance_type: str | None) -> tuple[Candidate, ...]:
    """Images of a family, or of every one."""
    with _world(region, where) as (world, _):
        return image_candidates(world.reader, family, instance_type=instance_type)


def carry_out(spec: RunSpec, where: Where, *, stream: TextIO, agree: Callable[[], bool] | None, quiet: bool) -> Outcome:
    """The whole job. `agree` is asked before a real rental (`None`: there is nobody to ask); remarks and
    progress go to `stream`, the plan too unless `quiet`.
    """
    if where.is_real and agree is None:
        raise UsageError("no terminal to ask on; pass --yes to rent without asking")
    with _stoppable(), _world(spec.region, where) as (world, endpoint):
        with progress(stream) as tell:
            telling = Telling(world.clock, tell)
            made = draft(spec, world.reader, telling=telling, unweighed="" if where.is_real else _REHEARSED)
        if not quiet:
            stream.write(f"\n{plan_text(made.plan, made.inputs.summary)}\n\n")
        if where.is_real and agree is not None and not agree():
            raise UsageError("not agreed to; nothing was rented")
        folder = spec.output / made.plan.run_id
        folder.mkdir(parents=True, mode=0o700)
        record = _record(made, endpoint)
        write_record(folder, record)
        with progress(stream) as tell:
            outcome = _run(made, world, folder=folder, telling=Telling(world.clock, tell, telling.stages))
        write_record(folder, record.model_copy(update={"outcome": outcome_json(outcome)}))
        return outcome


def take_down(run_name: str, *, output: Path, stream: TextIO) -> TeardownReport:
    """Give back whatever a run's ledger and tags still name."""
    folder, record = find_run(run_name, output=output)
    world = world_at(record.region, record.endpoint)
    path = folder / "ledger.jsonl"
    with progress(stream) as tell:
        telling = Telling(world.clock, tell)
        with telling.stage(Stage.TEARDOWN, "giving everything back") as say:
            report = teardown(
                read_ledger(path),
                reader=world.reader,
                writer=world.writer,
                ledger=Ledger(path, clock=world.clock, run_id=record.run_id, region=record.region),
                clock=world.clock,
                tell=say,
            )
    if not report.survivors:
        forget_key(folder)
    return report


def leftovers(region: str, where: Where, *, all_regions: bool) -> Mapping[str, tuple[Tagged, ...]]:
    """Everything of ours that exists, by region; regions without any are left out."""
    first = _standing_world(region, where)
    regions = first.reader.regions() if all_regions else (region,)
    found: dict[str, tuple[Tagged, ...]] = {}
    for name in regions:
        reader: CloudReader = first.reader if name == region else _standing_world(name, where).reader
        if tagged := reader.tagged():
            found[name] = tagged
    return found


def sweep_away(found: Mapping[str, Sequence[Tagged]], where: Where, *, stream: TextIO) -> TeardownReport:
    """Delete what `leftovers` found."""
    reports: list[TeardownReport] = []
    with progress(stream) as tell:
        for region, tagged in found.items():
            world = _standing_world(region, where)
            telling = Telling(world.clock, tell)
            with telling.stage(Stage.TEARDOWN, f"sweeping {region}") as say:
                reports.append(sweep(world.reader, world.writer, clock=world.clock, tagged=tagged, tell=say))
    return TeardownReport(
        deleted=tuple(name for report in reports for name in report.deleted),
        already_gone=tuple(name for report in reports for name in report.already_gone),
        survivors=tuple(name for report in reports for name in report.survivors),
    )


def _run(made: Draft, world: World, *, folder: Path, telling: Telling) -> Outcome:
    first_boot = (packaged("infra") / "first-boot.yaml").read_text(encoding="utf-8")
    try:
        return run(made.plan, world, folder=folder, first_boot=first_boot, telling=telling)
    except KeyboardInterrupt:
        entries = open_entries(read_ledger(folder / "ledger.jsonl"))
        left = ", ".join(f"{entry.kind} {entry.resource_id or entry.name}" for entry in entries)
        raise Interrupted(
            f"interrupted during teardown; may still exist: {left or 'nothing'}; run `orchestrator down {folder}`"
        ) from None


def _record(made: Draft, endpoint: str | None) -> RunRecord:
    return RunRecord(
        run_id=made.plan.run_id,
        region=made.plan.spec.region,
        account_id=made.plan.account.account_id,
        endpoint=endpoint,
        plan=plan_json(made.plan, made.inputs.summary),
    )


@contextmanager
def _world(region: str, where: Where) -> Generator[tuple[World, str | None]]:
    with ExitStack() as stack:
        endpoint = where.mock_cloud
        if where.dry_run and endpoint is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="launch-and-train-"))
            endpoint = stack.enter_context(mocked_endpoint(Path(folder)))
        yield world_at(region, endpoint), endpoint


def _standing_world(region: str, where: Where) -> World:
    if where.mock_cloud is not None:
        return dry_world(region, where.mock_cloud)
    if where.dry_run:
        raise UsageError("--dry-run needs --mock-cloud URL here: a fresh mocked cloud holds nothing to sweep")
    return real_world(region)


@contextmanager
def _stoppable() -> Generator[None]:
    """SIGTERM and SIGHUP stop a run as Ctrl-C does."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
