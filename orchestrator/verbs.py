"""What the verbs do that rent and give back: open the world, draft, ask, record, run. The command line above only
parses and renders.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from orchestrator.draft import Draft, draft
from orchestrator.errors import UsageError
from orchestrator.events import Outcome, Stage, TeardownReport
from orchestrator.homing import copy_from
from orchestrator.imaging import Candidate, image_candidates
from orchestrator.keep_alive import Keeper, keeper
from orchestrator.ledger import Ledger
from orchestrator.packaged import packaged
from orchestrator.ports import CloudReader
from orchestrator.record import LEDGER_FILE, PLAN_FILE, RunRecord, find_run, write_record
from orchestrator.report.plan import plan_json, plan_text
from orchestrator.report.progress import progress
from orchestrator.report.summary import close_books
from orchestrator.resources import Tagged
from orchestrator.run import give_back, run, run_on
from orchestrator.spec import RunSpec
from orchestrator.stopping import stoppable
from orchestrator.teardown import sweep
from orchestrator.telling import Telling
from orchestrator.worlds import SystemClock, Where, opened_world, refuse_without_plugin, standing_world, world_at

_REHEARSED = "a rehearsal takes no GPU; `orchestrator plan` works it out"


def look(spec: RunSpec, where: Where, *, stream: TextIO) -> Draft:
    """The plan of `spec`; nothing changes anywhere."""
    with opened_world(spec.region, where) as opened, progress(stream) as tell:
        world = opened.world
        return draft(spec, world.reader, storage=world.storage, telling=Telling(world.clock, tell))


def candidates(family: str | None, region: str, where: Where, *, instance_type: str | None) -> tuple[Candidate, ...]:
    """Images of a family, or of every one."""
    with opened_world(region, where) as opened:
        return image_candidates(opened.world.reader, family, instance_type=instance_type)


def carry_out(
    spec: RunSpec,
    where: Where,
    *,
    stream: TextIO,
    agree: Callable[[], bool] | None,
    quiet: bool,
    detach: bool = False,
    on: str | None = None,
) -> Outcome:
    """The whole job, or, with `detach`, that part of it which needs us; `on` the machine that a run has kept, if one is
    named. `agree` is asked before a real rental (`None`: there is nobody to ask); remarks and progress go to `stream`,
    the plan too unless `quiet`.
    """
    kept, where = (None, where) if on is None else _kept(on, where, output=spec.output)
    if where.is_real and agree is None:
        raise UsageError("no terminal to ask on; pass --yes to rent without asking")
    refuse_without_plugin(spec if kept is None else spec.model_copy(update={"ssm": kept.machine.by_ssm}), where)
    with stoppable(), opened_world(spec.region, where) as opened:
        world = opened.world
        with progress(stream) as tell:
            telling = Telling(world.clock, tell)
            unweighed = "" if where.is_real else _REHEARSED
            made = draft(
                spec,
                world.reader,
                storage=world.storage,
                telling=telling,
                unweighed=unweighed,
                on=kept and kept.machine,
            )
        planned = plan_text(made.plan, made.inputs.summary)
        if not quiet:
            stream.write(f"\n{planned}\n\n")
        if where.is_real and agree is not None and not agree():
            raise UsageError("not agreed to; nothing was rented")
        folder = spec.output / made.plan.run_id
        folder.mkdir(parents=True, mode=0o700)
        write_record(folder, _record(made, opened.endpoint))
        if spec.continue_from is not None:
            copy_from(spec.continue_from, folder)
        (folder / PLAN_FILE).write_text(f"{planned}\n", encoding="utf-8")
        with progress(stream) as tell:
            told = Telling(world.clock, tell, telling.stages)
            begun = partial(run_on, keeper=kept) if kept else partial(run, first_boot=_first_boot())
            outcome = begun(made.plan, world=world, folder=folder, telling=told, detach=detach)
        opened.kept = outcome.detached or outcome.kept_until is not None
        if not outcome.detached:
            close_books(folder, outcome)
        return outcome


def _first_boot() -> str:
    return (packaged("infra") / "first-boot.yaml").read_text(encoding="utf-8")


def _kept(run_name: str, where: Where, *, output: Path) -> tuple[Keeper, Where]:
    """The machine that a run has kept, and the world that it stands in."""
    if where.dry_run or where.mock_cloud is not None:
        raise UsageError(f"--on {run_name} says where the machine is: leave out --dry-run and --mock-cloud")
    folder, record = find_run(run_name, output=output)
    return keeper(folder, record, SystemClock().now()), Where(mock_cloud=record.endpoint)


def take_down(run_name: str, *, output: Path, stream: TextIO) -> TeardownReport:
    """Give back whatever a run's ledger and tags still name."""
    folder, record = find_run(run_name, output=output)
    world = world_at(record.region, record.endpoint)
    ledger = Ledger(folder / LEDGER_FILE, clock=world.clock, run_id=record.run_id, region=record.region)
    with progress(stream) as tell:
        return give_back(world, ledger, folder=folder, telling=Telling(world.clock, tell))


def leftovers(region: str, where: Where, *, all_regions: bool) -> Mapping[str, tuple[Tagged, ...]]:
    """Everything of ours that exists, by region; regions without any are left out."""
    first = standing_world(region, where)
    regions = first.reader.regions() if all_regions else (region,)
    found: dict[str, tuple[Tagged, ...]] = {}
    for name in regions:
        reader: CloudReader = first.reader if name == region else standing_world(name, where).reader
        if tagged := reader.tagged():
            found[name] = tagged
    return found


def sweep_away(found: Mapping[str, Sequence[Tagged]], where: Where, *, stream: TextIO) -> TeardownReport:
    """Delete what `leftovers` found."""
    reports: list[TeardownReport] = []
    with progress(stream) as tell:
        for region, tagged in found.items():
            world = standing_world(region, where)
            telling = Telling(world.clock, tell)
            with telling.stage(Stage.TEARDOWN, f"sweeping {region}") as say:
                reports.append(sweep(world.reader, world.writer, clock=world.clock, tagged=tagged, tell=say))
    return TeardownReport(
        deleted=tuple(name for report in reports for name in report.deleted),
        already_gone=tuple(name for report in reports for name in report.already_gone),
        survivors=tuple(name for report in reports for name in report.survivors),
    )


def _record(made: Draft, endpoint: str | None) -> RunRecord:
    return RunRecord(
        run_id=made.plan.run_id,
        region=made.plan.spec.region,
        account_id=made.plan.account.account_id,
        endpoint=endpoint,
        plan=plan_json(made.plan, made.inputs.summary),
    )
