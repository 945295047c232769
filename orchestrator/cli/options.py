"""What the verbs share: the applications, options that several take, and how they answer."""

import json
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

_SETTINGS: dict[str, Any] = {
    "add_completion": True,
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
Data = Annotated[
    str | None, typer.Option("--data", help="Ratings: file, folder or URL (https, s3).", metavar="PATH|URL")
]
DataOnMachine = Annotated[
    bool | None,
    typer.Option(
        "--data-on-machine/--no-data-on-machine",
        help="The machine fetches what is at the URL, by its --data-sha256; always so for s3.",
        show_default="no-data-on-machine",
    ),
]
DataSha256 = Annotated[str | None, typer.Option("--data-sha256", help="SHA-256 of what is at the URL.", metavar="HEX")]
NetworkOption = Annotated[Path | None, typer.Option("--network", help="Network definition (JSON).")]
Ami = Annotated[
    str | None,
    typer.Option("--ami", help="Image: an id, an SSM parameter name or a family (dlami-base).", metavar="ID"),
]
InstanceTypes = Annotated[
    list[str] | None,
    typer.Option("--instance-type", help="Acceptable type; repeat it, best first.", metavar="T"),
]
Nodes = Annotated[
    int | None,
    typer.Option("--nodes", help="So many machines that train as one, all or none.", show_default="1", metavar="N"),
]
Node = Annotated[int, typer.Option("--node", help="Which machine, of a run on several.", min=0, metavar="I")]
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
Bucket = Annotated[
    str | None,
    typer.Option(
        "--bucket", help="The machine puts there what it makes, and then ends itself.", metavar="s3://NAME/PREFIX"
    ),
]
InstanceProfile = Annotated[
    str | None,
    typer.Option("--instance-profile", help="What the machine itself may do in AWS.", metavar="NAME"),
]
Ssm = Annotated[
    bool | None,
    typer.Option(
        "--ssm/--no-ssm", help="Open no port: reach the machine through Session Manager.", show_default="no-ssm"
    ),
]
Region = Annotated[str | None, typer.Option("--region", help="AWS region.", show_default="us-east-1")]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Samples a step.", show_default="the file's, the network's, else 256")
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
TuneTrials = Annotated[
    int | None,
    typer.Option(
        "--tune-trials", min=1, help="Trials of what the network leaves open, before it is trained.", metavar="N"
    ),
]
TuneMinutes = Annotated[
    float | None, typer.Option("--tune-minutes", help="Begin no trial after M minutes of them.", metavar="M")
]
MinRating = Annotated[float | None, typer.Option("--min-rating", help="Leave lower ratings out.", metavar="R")]
Analog = Annotated[
    bool | None,
    typer.Option("--analog/--indicator", help="Ratings are values, or mere signs.", show_default="indicator"),
]
HalfLifeDays = Annotated[
    float | None,
    typer.Option("--half-life-days", help="Halve a rating's value for each D days before the latest.", metavar="D"),
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
    str | None,
    typer.Option("--max-usd", help="Refuse a plan whose worst case costs more; stop a run in time.", metavar="D"),
]
MustFit = Annotated[
    bool | None,
    typer.Option(
        "--must-fit/--no-must-fit",
        help="Leave out types whose GPUs are too small.",
        show_default="must-fit",
    ),
]
KeepAlive = Annotated[
    str | None,
    typer.Option("--keep-alive", help="Keep the machine of a good run for so long, for --on.", metavar="MINUTES"),
]
On = Annotated[
    str | None,
    typer.Option("--on", help="Rent nothing: use the machine that this run has kept.", metavar="RUN"),
]
Detach = Annotated[bool, typer.Option("--detach", help="Leave once the training has begun; the machine trains on.")]
Continue = Annotated[
    Path | None,
    typer.Option("--continue", help="Go on from the checkpoint that an ended run brought home.", metavar="DIR"),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
MockCloud = Annotated[
    str | None,
    typer.Option("--mock-cloud", help="Use this running `orchestrator mock-cloud`.", metavar="URL"),
]
Run = Annotated[str, typer.Argument(help="A run id, or the path of a run folder.")]
Answer = Callable[[Mapping[str, Any], str], None]
"""Prints an answer: as JSON or as text."""
RUNS = Path("runs")
"""Where run folders are kept unless told otherwise."""
SURVIVORS = 3
"""Exit status where something may still cost money."""


def remark(text: str) -> None:
    """Tell something beside the answer."""
    typer.echo(text, err=True)


@contextmanager
def answering(as_json: bool, *, interrupted: str = "nothing was rented") -> Generator[Answer]:
    """Gives a function that prints the answer, and turns errors into one line and a status."""
    from orchestrator.errors import OrchestratorError

    def answer(values: Mapping[str, Any], text: str) -> None:
        typer.echo(json.dumps(values, indent=1) if as_json else text)

    try:
        yield answer
    except OrchestratorError as error:
        _fail(str(error), error.exit_status, as_json=as_json)
    except KeyboardInterrupt:
        _fail(f"interrupted; {interrupted}", 130, as_json=as_json)


def _fail(message: str, status: int, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"run_id": None, "exit_status": status, "error": message}))
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(status)


def asker(question: str, *, yes: bool) -> Callable[[], bool] | None:
    """Who agrees: `--yes`, the person at the terminal, or nobody."""
    if yes:
        return lambda: True
    if not sys.stdin.isatty():
        return None
    return lambda: typer.confirm(question, err=True)
