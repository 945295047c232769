"""The command line: parses, calls, renders and gives the exit status. It decides nothing; a verb's
modules are imported when the verb is called, so that help answers at once.
"""

import json
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from orchestrator.resources import Tagged
    from orchestrator.spec import RunSpec

_SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 110},
}
app = typer.Typer(help="Rent a GPU on EC2, train there, fetch the results, give everything back.", **_SETTINGS)
whole_job = typer.Typer(**_SETTINGS)

Config = Annotated[
    Path | None,
    typer.Option("--config", help="Run spec (TOML).", show_default="configs/runs/movielens.toml"),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Do all of it on this machine: mocked AWS, real SSH, real training.")
]
Data = Annotated[str | None, typer.Option("--data", help="Ratings: file, folder or URL.", metavar="PATH|URL")]
NetworkOption = Annotated[Path | None, typer.Option("--network", help="Network definition (JSON).")]
Ami = Annotated[
    str | None,
    typer.Option("--ami", help="Image: an id, an SSM parameter name or a family (dlami-base).", metavar="ID"),
]
InstanceTypes = Annotated[
    list[str] | None,
    typer.Option("--instance-type", help="Acceptable type; repeat it, best first.", metavar="T"),
]
Gpus = Annotated[
    int | None, typer.Option("--gpus", help="Any type with so many GPUs or more, in place of names.", metavar="N")
]
GpuMemory = Annotated[
    float | None, typer.Option("--gpu-memory", help="Any type with so much memory a GPU or more.", metavar="GIB")
]
MarketOption = Annotated[
    str | None,
    typer.Option("--market", help="on_demand, spot or cheapest.", show_default="on_demand", metavar="M"),
]
Fallback = Annotated[
    bool | None,
    typer.Option("--fallback/--no-fallback", help="Rent on demand where spot is refused.", show_default="no-fallback"),
]
WaitCapacity = Annotated[
    str | None,
    typer.Option("--wait-capacity", help="While AWS has none, ask again for so long.", metavar="MINUTES"),
]
MaxUsdPerHour = Annotated[
    str | None, typer.Option("--max-usd-per-hour", help="Leave out offers that cost more an hour.", metavar="D")
]
Region = Annotated[str | None, typer.Option("--region", help="AWS region.", show_default="us-east-1")]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", help="Samples a step.", show_default="the file's, the network's, else 256"),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", help="Passes over the data.", show_default="the file's, the network's, else 10"),
]
Recommendations = Annotated[int | None, typer.Option("--k", help="Recommendations per sample.", show_default="10")]
HeldOut = Annotated[
    float | None,
    typer.Option("--held-out", help="Fraction of each sample hidden from training, to measure with."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", help="Where run folders are kept.", show_default="runs", metavar="DIR"),
]
Project = Annotated[
    Path | None,
    typer.Option(
        "--project",
        help="Git checkout whose files travel.",
        show_default="the one you stand in, if any",
        metavar="DIR",
    ),
]
MaxHours = Annotated[
    str | None, typer.Option("--max-hours", help="The machine ends itself after H hours.", metavar="H")
]
MaxUsd = Annotated[
    str | None, typer.Option("--max-usd", help="Refuse a plan whose worst case costs more.", metavar="D")
]
MustFit = Annotated[
    bool | None,
    typer.Option(
        "--must-fit/--no-must-fit",
        help="Leave out types whose GPUs are too small.",
        show_default="must-fit",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
MockCloud = Annotated[
    str | None,
    typer.Option("--mock-cloud", help="Use this running `orchestrator mock-cloud`.", metavar="URL"),
]


_FLAGS = {
    "data": "data",
    "network": "network",
    "ami": "image",
    "instance_type": "instance_types",
    "gpus": "gpus",
    "gpu_memory": "gpu_memory_gib",
    "market": "market",
    "fallback": "fallback",
    "wait_capacity": "wait_capacity_minutes",
    "max_usd_per_hour": "max_usd_per_hour",
    "region": "region",
    "batch_size": "settings.batch_size",
    "epochs": "settings.epochs",
    "k": "settings.k",
    "held_out": "settings.held_out",
    "output": "output",
    "project": "project",
    "max_hours": "max_hours",
    "max_usd": "max_usd",
    "must_fit": "must_fit",
}
"""Parameters of `launch-and-train` and the key of the run spec that each one overrides."""


@app.command("launch-and-train")
@whole_job.command()
def launch_and_train(
    ctx: typer.Context,
    config: Config = None,
    dry_run: DryRun = False,
    data: Data = None,
    network: NetworkOption = None,
    ami: Ami = None,
    instance_type: InstanceTypes = None,
    gpus: Gpus = None,
    gpu_memory: GpuMemory = None,
    market: MarketOption = None,
    fallback: Fallback = None,
    wait_capacity: WaitCapacity = None,
    region: Region = None,
    batch_size: BatchSize = None,
    epochs: Epochs = None,
    k: Recommendations = None,
    held_out: HeldOut = None,
    output: Output = None,
    project: Project = None,
    max_hours: MaxHours = None,
    max_usd: MaxUsd = None,
    max_usd_per_hour: MaxUsdPerHour = None,
    must_fit: MustFit = None,
    yes: Yes = False,
    as_json: AsJson = False,
    mock_cloud: MockCloud = None,
) -> None:
    """Rent a GPU machine, train there, bring the recommendations home, give everything back."""
    from orchestrator.report.outcome import outcome_json, outcome_text
    from orchestrator.verbs import Where, carry_out

    with _answering(as_json) as answer:
        outcome = carry_out(
            _spec(config, ctx.params),
            Where(dry_run, mock_cloud),
            stream=sys.stderr,
            agree=_asker("Rent this?", yes=yes),
            quiet=as_json,
        )
        answer(outcome_json(outcome), outcome_text(outcome))
        if outcome.error:
            typer.echo(f"error: {outcome.error}", err=True)
        raise typer.Exit(outcome.exit_status)


@app.command()
def plan(
    ctx: typer.Context,
    config: Config = None,
    dry_run: DryRun = False,
    data: Data = None,
    network: NetworkOption = None,
    ami: Ami = None,
    instance_type: InstanceTypes = None,
    gpus: Gpus = None,
    gpu_memory: GpuMemory = None,
    market: MarketOption = None,
    fallback: Fallback = None,
    wait_capacity: WaitCapacity = None,
    region: Region = None,
    batch_size: BatchSize = None,
    epochs: Epochs = None,
    k: Recommendations = None,
    held_out: HeldOut = None,
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
    from orchestrator.verbs import Where, look

    with _answering(as_json) as answer:
        made = look(_spec(config, ctx.params), Where(dry_run, mock_cloud), stream=sys.stderr)
        summary = made.inputs.summary
        answer(plan_json(made.plan, summary), plan_text(made.plan, summary, with_files=files))


@app.command()
def offers(
    ctx: typer.Context,
    config: Config = None,
    dry_run: DryRun = False,
    data: Data = None,
    network: NetworkOption = None,
    ami: Ami = None,
    instance_type: InstanceTypes = None,
    gpus: Gpus = None,
    gpu_memory: GpuMemory = None,
    market: MarketOption = None,
    fallback: Fallback = None,
    region: Region = None,
    batch_size: BatchSize = None,
    epochs: Epochs = None,
    max_hours: MaxHours = None,
    max_usd: MaxUsd = None,
    max_usd_per_hour: MaxUsdPerHour = None,
    must_fit: MustFit = None,
    as_json: AsJson = False,
    mock_cloud: MockCloud = None,
) -> None:
    """Show what launch-and-train would try to rent, in that order, and what it leaves out."""
    from orchestrator.report.offers import offers_json, offers_text
    from orchestrator.verbs import Where, look

    with _answering(as_json) as answer:
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
    from orchestrator.verbs import Where, candidates

    with _answering(as_json) as answer:
        found = candidates(family, region or "us-east-1", Where(dry_run, mock_cloud), instance_type=instance_type)
        answer(images_json(found), images_text(found))


@app.command()
def down(
    run: Annotated[str, typer.Argument(help="A run id, or the path of a run folder.")],
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Give back everything a run created, by its ledger and its tags; repeating it is harmless."""
    from orchestrator.report.outcome import teardown_json, teardown_text
    from orchestrator.verbs import take_down

    with _answering(as_json) as answer:
        report = take_down(run, output=output or Path("runs"), stream=sys.stderr)
        answer(teardown_json(report), teardown_text(report))
        raise typer.Exit(_SURVIVORS if report.survivors else 0)


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
    from orchestrator.report.outcome import teardown_json, teardown_text
    from orchestrator.resources import TeardownReport
    from orchestrator.verbs import Where, leftovers, sweep_away

    with _answering(as_json) as answer:
        where = Where(dry_run, mock_cloud)
        found = leftovers(region or "us-east-1", where, all_regions=all_regions)
        for tagged in (one for several in found.values() for one in several):
            typer.echo(_tagged_line(tagged), err=True)
        agree = _asker("Delete these?", yes=yes)
        if found and (agree is None or not agree()):
            raise UsageError("not agreed to; nothing was deleted (pass --yes to delete without asking)")
        report = sweep_away(found, where, stream=sys.stderr) if found else TeardownReport()
        answer(teardown_json(report), teardown_text(report))
        raise typer.Exit(_SURVIVORS if report.survivors else 0)


@app.command("mock-cloud")
def mock_cloud(
    port: Annotated[int, typer.Option("--port", help="Loopback port; 0 takes a free one.")] = 0,
    scenario: Annotated[
        Path | None, typer.Option("--scenario", help="Faults to play (JSON).", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Serve a mocked AWS with machines that really boot, on loopback, until interrupted."""
    from orchestrator.dryrun.process import serve

    with _answering(False):
        serve(port, scenario=scenario, ready=typer.echo)


def launch_and_train_program() -> None:
    """The script `launch-and-train`."""
    whole_job(prog_name="launch-and-train")


def orchestrator_program() -> None:
    """The script `orchestrator`."""
    app(prog_name="orchestrator")


_SURVIVORS = 3


def _spec(config: Path | None, params: Mapping[str, Any]) -> "RunSpec":
    from orchestrator.manifest import checkout_of
    from orchestrator.packaged import packaged
    from orchestrator.spec import read_spec

    overrides = {key: params[flag] for flag, key in _FLAGS.items() if params.get(flag) not in (None, [], ())}
    overrides.setdefault("project", checkout_of(Path.cwd()))
    return read_spec(config or packaged("configs") / "runs" / "movielens.toml", overrides)


@contextmanager
def _answering(as_json: bool) -> Generator[Callable[[Mapping[str, Any], str], None]]:
    """Gives a function that prints the answer, and turns errors into one line and a status."""
    from orchestrator.errors import OrchestratorError

    def answer(values: Mapping[str, Any], text: str) -> None:
        typer.echo(json.dumps(values, indent=1) if as_json else text)

    try:
        yield answer
    except OrchestratorError as error:
        _fail(str(error), error.exit_status, as_json=as_json)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was rented", 130, as_json=as_json)


def _fail(message: str, status: int, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"run_id": None, "exit_status": status, "error": message}))
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(status)


def _asker(question: str, *, yes: bool) -> Callable[[], bool] | None:
    """Who agrees: `--yes`, the person at the terminal, or nobody."""
    if yes:
        return lambda: True
    if not sys.stdin.isatty():
        return None
    return lambda: typer.confirm(question, err=True)


def _tagged_line(tagged: "Tagged") -> str:
    return f"{tagged.region}  {tagged.kind.value} {tagged.resource_id}  {tagged.state}  run {tagged.run_id}"
