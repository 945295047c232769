"""What the verbs share: the application, options that several take, and how errors are told."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Read sparse data, train a network over every device, predict and measure.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Network = Annotated[Path, typer.Option("--network", "-c", help="Network definition (JSON).")]
Data = Annotated[Path, typer.Option("--data", help="Ratings table, folder of one, or DSSTNE text.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
BatchSize = Annotated[int, typer.Option("-b", "--batch-size", help="Samples a step.")]
Epochs = Annotated[int, typer.Option("-e", "--epochs", help="Passes over the data.")]
AskedBatchSize = Annotated[
    int | None,
    typer.Option("-b", "--batch-size", help="Samples a step.", show_default="the network's own, else 256"),
]
AskedEpochs = Annotated[
    int | None,
    typer.Option("-e", "--epochs", help="Passes over the data.", show_default="the network's own, else 10"),
]
Coordinator = Annotated[
    str | None, typer.Option("--coordinator", help="HOST:PORT where process 0 listens, if several train as one.")
]
Processes = Annotated[int | None, typer.Option("--processes", help="How many processes those are.")]
Process = Annotated[int | None, typer.Option("--process", help="Which of them this is; process 0 writes.")]
CheckpointSteps = Annotated[
    int, typer.Option("--checkpoint-steps", min=0, help="Steps between two; 0: one after each epoch.")
]
DataMemory = Annotated[
    float, typer.Option("--data-memory", min=0, help="GiB of data to hold in memory; the rest is read when needed.")
]
Seed = Annotated[int, typer.Option("--seed", help="Of weights, order, corruption and split.")]


def echo_bytes(text: str, *, err: bool = False) -> None:
    """Print a text whose names and lines that are no UTF-8 are told as they were read."""
    typer.echo(text.encode("utf-8", "surrogateescape"), err=err)


@contextmanager
def answering() -> Generator[None]:
    """Tell an error in one line and end with its exit status."""
    from trainer.errors import TrainerError

    try:
        yield
    except TrainerError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_status) from error


@contextmanager
def answering_as_dsstne() -> Generator[None]:
    """Tell an error as DSSTNE's programs do, and end with 1."""
    from trainer.errors import TrainerError

    try:
        yield
    except TrainerError as error:
        echo_bytes(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
