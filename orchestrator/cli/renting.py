"""Verbs that rent and give back."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import (
    RUNS,
    SURVIVORS,
    Ami,
    Analog,
    Answer,
    AsJson,
    BatchSize,
    Bucket,
    Config,
    Continue,
    Data,
    DataOnMachine,
    DataSha256,
    Detach,
    DryRun,
    Epochs,
    Fallback,
    GpuMemory,
    Gpus,
    HalfLifeDays,
    HeldOut,
    InstanceProfile,
    InstanceTypes,
    KeepAlive,
    MarketOption,
    MaxHours,
    MaxUsd,
    MaxUsdPerHour,
    MinRating,
    MockCloud,
    MustFit,
    NetworkOption,
    Nodes,
    On,
    Output,
    Project,
    Recommendations,
    Region,
    Run,
    Ssm,
    TuneMinutes,
    TuneTrials,
    WaitCapacity,
    Yes,
    answering,
    app,
    asker,
    whole_job,
)

if TYPE_CHECKING:
    from orchestrator.events import Outcome
    from orchestrator.resources import Tagged
    from orchestrator.spec import RunSpec
    from orchestrator.worlds import Where

_FLAGS = {
    "data": "data",
    "data_on_machine": "data_on_machine",
    "data_sha256": "data_sha256",
    "network": "network",
    "ami": "image",
    "instance_type": "instance_types",
    "nodes": "nodes",
    "gpus": "gpus",
    "gpu_memory": "gpu_memory_gib",
    "market": "market",
    "fallback": "fallback",
    "wait_capacity": "wait_capacity_minutes",
    "max_usd_per_hour": "max_usd_per_hour",
    "bucket": "bucket",
    "instance_profile": "instance_profile",
    "ssm": "ssm",
    "region": "region",
    "batch_size": "settings.batch_size",
    "epochs": "settings.epochs",
    "k": "settings.k",
    "held_out": "settings.held_out",
    "tune_trials": "settings.tune_trials",
    "tune_minutes": "settings.tune_minutes",
    "min_rating": "settings.min_rating",
    "analog": "settings.analog",
    "half_life_days": "settings.half_life_days",
    "output": "output",
    "project": "project",
    "max_hours": "max_hours",
    "max_usd": "max_usd",
    "must_fit": "must_fit",
    "continue_from": "continue_from",
    "keep_alive": "keep_alive_minutes",
}
"""Parameters of `launch-and-train` and the key of the run spec that each one overrides."""


@app.command("launch-and-train")
@whole_job.command()
def launch_and_train(
    ctx: typer.Context,
    config: Config = None,
    dry_run: DryRun = False,
    data: Data = None,
    data_on_machine: DataOnMachine = None,
    data_sha256: DataSha256 = None,
    network: NetworkOption = None,
    ami: Ami = None,
    instance_type: InstanceTypes = None,
    nodes: Nodes = None,
    gpus: Gpus = None,
    gpu_memory: GpuMemory = None,
    market: MarketOption = None,
    fallback: Fallback = None,
    wait_capacity: WaitCapacity = None,
    bucket: Bucket = None,
    instance_profile: InstanceProfile = None,
    ssm: Ssm = None,
    region: Region = None,
    batch_size: BatchSize = None,
    epochs: Epochs = None,
    k: Recommendations = None,
    held_out: HeldOut = None,
    tune_trials: TuneTrials = None,
    tune_minutes: TuneMinutes = None,
    min_rating: MinRating = None,
    analog: Analog = None,
    half_life_days: HalfLifeDays = None,
    output: Output = None,
    project: Project = None,
    max_hours: MaxHours = None,
    max_usd: MaxUsd = None,
    max_usd_per_hour: MaxUsdPerHour = None,
    must_fit: MustFit = None,
    continue_from: Continue = None,
    keep_alive: KeepAlive = None,
    on: On = None,
    detach: Detach = False,
    yes: Yes = False,
    as_json: AsJson = False,
    mock_cloud: MockCloud = None,
) -> None:
    """Rent a GPU machine, train there, bring the recommendations home, give everything back."""
    from orchestrator.worlds import Where

    with answering(as_json) as answer:
        outcome = _carried_out(config, ctx.params, Where(dry_run, mock_cloud), answer)
        raise typer.Exit(outcome.exit_status)


@app.command()
def plan(
    ctx: typer.Context,
    config: Config = None,
    dry_run: DryRun = False,
    data: Data = None,
    data_on_machine: DataOnMachine = None,
    data_sha256: DataSha256 = None,
    network: NetworkOption = None,
    ami: Ami = None,
    instance_type: InstanceTypes = None,
    nodes: Nodes = None,
    gpus: Gpus = None,
    gpu_memory: GpuMemory = None,
    market: MarketOption = None,
    fallback: Fallback = None,
    wait_capacity: WaitCapacity = None,
    bucket: Bucket = None,
    instance_profile: InstanceProfile = None,
    ssm: Ssm = None,
    region: Region = None,
    batch_size: BatchSize = None,
    epochs: Epochs = None,
    k: Recommendations = None,
    held_out: HeldOut = None,
    tune_trials: TuneTrials = None,
    tune_minutes: TuneMinutes = None,
    min_rating: MinRating = None,
    analog: Analog = None,
    half_life_days: HalfLifeDays = None,
    output: Output = None,
    project: Project = None,
    max_hours: MaxHours = None,
    max_usd: MaxUsd = None,
    max_usd_per_hour: MaxUsdPerHour = None,
    must_fit: MustFit = None,
    files: Annotated[bool, typer.Option("--files", help="List every file of the upload.")] = False,
    as_json: AsJson = False,
    mock_cloud: MockCloud = None,
) -> None:
    """Show what launch-and-train would do, and change nothing anywhere."""
    from orchestrator.report.plan import plan_json, plan_text
    from orchestrator.verbs import look
    from orchestrator.worlds import Where

    with answering(as_json) as answer:
        made = look(_spec(config, ctx.params), Where(dry_run, mock_cloud), stream=sys.stderr)
        summary = made.inputs.summary
        answer(plan_json(made.plan, summary), plan_text(made.plan, summary, with_files=files))


@app.command()
def offers(
    ctx: typer.Context,
    config: Config = None,
    dry_run: DryRun = False,
    data: Data = None,
    data_on_machine: DataOnMachine = None,
    data_sha256: DataSha256 = None,
    network: NetworkOption = None,
    ami: Ami = None,
    instance_type: InstanceTypes = None,
    nodes: Nodes = None,
    gpus: Gpus = None,
    gpu_memory: GpuMemory = None,
    market: MarketOption = None,
    fallback: Fallback = None,
    region: Region = None,
    batch_size: BatchSize = None,
    epochs: Epochs = None,
    tune_trials: TuneTrials = None,
    tune_minutes: TuneMinutes = None,
    min_rating: MinRating = None,
    analog: Analog = None,
    half_life_days: HalfLifeDays = None,
    max_hours: MaxHours = None,
    max_usd: MaxUsd = None,
    max_usd_per_hour: MaxUsdPerHour = None,
    must_fit: MustFit = None,
    as_json: AsJson = False,
    mock_cloud: MockCloud = None,
) -> None:
    """Show what launch-and-train would try to rent, in that order, and what it leaves out."""
    from orchestrator.report.offers import offers_json, offers_text
    from orchestrator.verbs import look
    from orchestrator.worlds import Where

    with answering(as_json) as answer:
        made = look(_spec(config, ctx.params), Where(dry_run, mock_cloud), stream=sys.stderr)
        answer(offers_json(made.plan), offers_text(made.plan))


@app.command()
def images(
    family: Annotated[str | None, typer.Argument(help="A family; none: every one.")] = None,
    instance_type: Annotated[
        str | None, typer.Option("--instance-type", help="Say which of them do not fit this type.", metavar="T")
    ] = None,
    region: Region = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    mock_cloud: MockCloud = None,
) -> None:
    """List images to run on, by family, newest first."""
    from orchestrator.report.images import images_json, images_text
    from orchestrator.verbs import candidates
    from orchestrator.worlds import Where

    with answering(as_json) as answer:
        found = candidates(family, region or "us-east-1", Where(dry_run, mock_cloud), instance_type=instance_type)
        answer(images_json(found), images_text(found))


@app.command()
def down(
    run: Run,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Give back everything a run created, by its ledger and its tags; repeating it is harmless."""
    from orchestrator.report.outcome import teardown_json, teardown_text
    from orchestrator.verbs import take_down

    with answering(as_json) as answer:
        report = take_down(run, output=output or RUNS, stream=sys.stderr)
        answer(teardown_json(report), teardown_text(report))
        raise typer.Exit(SURVIVORS if report.survivors else 0)


@app.command()
def sweep(
    region: Region = None,
    all_regions: Annotated[bool, typer.Option("--all-regions", help="Look in every region.")] = False,
    dry_run: DryRun = False,
    mock_cloud: MockCloud = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """List everything in the account that carries this tool's tag, ask, and delete it."""
    from orchestrator.errors import UsageError
    from orchestrator.events import TeardownReport
    from orchestrator.report.outcome import teardown_json, teardown_text
    from orchestrator.verbs import leftovers, sweep_away
    from orchestrator.worlds import Where

    with answering(as_json) as answer:
        where = Where(dry_run, mock_cloud)
        found = leftovers(region or "us-east-1", where, all_regions=all_regions)
        for tagged in (one for several in found.values() for one in several):
            typer.echo(_tagged_line(tagged), err=True)
        agree = asker("Delete these?", yes=yes)
        if found and (agree is None or not agree()):
            raise UsageError("not agreed to; nothing was deleted (pass --yes to delete without asking)")
        report = sweep_away(found, where, stream=sys.stderr) if found else TeardownReport()
        answer(teardown_json(report), teardown_text(report))
        raise typer.Exit(SURVIVORS if report.survivors else 0)


@app.command("mock-cloud")
def mock_cloud(
    port: Annotated[int, typer.Option("--port", help="Loopback port; 0 takes a free one.")] = 0,
    scenario: Annotated[
        Path | None, typer.Option("--scenario", help="Faults to play (JSON).", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Serve a mocked AWS with machines that really boot, on loopback, until interrupted."""
    from orchestrator.dryrun.process import serve

    with answering(False):
        serve(port, scenario=scenario, ready=typer.echo)


def _carried_out(config: Path | None, params: Mapping[str, Any], where: "Where", answer: Answer) -> "Outcome":
    from orchestrator.report.outcome import outcome_json, outcome_text
    from orchestrator.report.standing import detached_text
    from orchestrator.verbs import carry_out

    outcome = carry_out(
        _spec(config, params),
        where,
        stream=sys.stderr,
        agree=asker("Rent this?", yes=params["yes"]),
        quiet=params["as_json"],
        detach=params["detach"],
        on=params["on"],
    )
    answer(outcome_json(outcome), detached_text(outcome) if outcome.detached else outcome_text(outcome))
    if outcome.error:
        typer.echo(f"error: {outcome.error}", err=True)
    return outcome


def _spec(config: Path | None, params: Mapping[str, Any]) -> "RunSpec":
    from orchestrator.manifest import checkout_of
    from orchestrator.packaged import packaged
    from orchestrator.spec import read_spec

    overrides = {key: params[flag] for flag, key in _FLAGS.items() if params.get(flag) not in (None, [], ())}
    overrides.setdefault("project", checkout_of(Path.cwd()))
    return read_spec(config or packaged("configs") / "runs" / "movielens.toml", overrides)


def _tagged_line(tagged: "Tagged") -> str:
    return f"{tagged.region}  {tagged.kind.value} {tagged.resource_id}  {tagged.state}  run {tagged.run_id}"
