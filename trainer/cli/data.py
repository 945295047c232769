"""Verbs about data: fetch, make up, convert, check, and say what a training needs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.cli.options import AsJson, AskedBatchSize, Network, answering, app, echo_bytes
from trainer.flags import Required, flag_command


@app.command()
def retrieve(
    url: Annotated[str, typer.Argument(help="http, https or file URL, or a path.")],
    into: Annotated[Path, typer.Option("--into", help="Folder it is kept in.")] = Path("data"),
    sha256: Annotated[str | None, typer.Option("--sha256", help="Checksum it must have.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a dataset by URL, once; archives are unpacked."""
    from trainer.data.retrieve import retrieve as fetch

    with answering():
        path = fetch(url, into=into, sha256=sha256)
        typer.echo(json.dumps({"path": str(path)}) if as_json else str(path))


@app.command()
def synthesize(
    folder: Annotated[Path, typer.Argument(help="Folder to write ratings.csv, movies.csv and tags.csv to.")],
    users: Annotated[int, typer.Option("--users", min=1, help="Samples.")] = 600,
    items: Annotated[int, typer.Option("--items", min=2, help="Features.")] = 500,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same bytes.")] = 1,
) -> None:
    """Make up a MovieLens-shaped dataset with tastes and a long tail in it."""
    from trainer.data.synthesize import synthesize as make_up

    with answering():
        make_up(folder, users=users, items=items, seed=seed)


@app.command(
    "generate-netcdf",
    cls=flag_command(
        Required("-i", "input text file to convert."),
        Required("-o", "output netcdf file to generate."),
        Required("-d", "dataset name for the netcdf metadata."),
        Required("-f", "feature index file."),
        Required("-s", "samples index file."),
    ),
)
def generate_netcdf(
    context: typer.Context,
    dataset: Annotated[str, typer.Option("-d", "--dataset", help="Name stored in the file.")],
    source: Annotated[
        str,
        typer.Option("-i", "--input", metavar="<path>", help="Samples: DSSTNE text or ratings, file or folder."),
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="<path>", help="NetCDF file to write.")],
    features: Annotated[str, typer.Option("-f", "--features", metavar="<path>", help="Feature index file.")],
    samples: Annotated[str, typer.Option("-s", "--samples", metavar="<path>", help="Sample index file.")],
    create: Annotated[bool, typer.Option("-c", "--create", help="Begin an empty feature index.")] = False,
    merge: Annotated[bool, typer.Option("-m", "--merge", help="Add new features to the index.")] = False,
    kind: Annotated[str, typer.Option("-t", "--type", help="indicator or analog.")] = "indicator",
    min_rating: Annotated[
        float | None, typer.Option("--min-rating", help="Leave lower ratings out.", show_default=False)
    ] = None,
    half_life: Annotated[
        float | None,
        typer.Option("--half-life-days", help="Halve analog ratings for each such age.", show_default=False),
    ] = None,
) -> None:
    """Convert samples to a NetCDF dataset and its index files (DSSTNE's generateNetCDF)."""
    from trainer.data.generate import GenerateOptions
    from trainer.data.generate import generate_netcdf as generate
    from trainer.data.weighing import Weighing
    from trainer.errors import SettingsError, TrainerError

    weighing = Weighing(min_rating=min_rating, half_life_days=half_life)
    options = GenerateOptions(dataset, source, output, features, samples, create, merge, kind, weighing)
    try:
        generate(options, echo_bytes)
    except TrainerError as error:
        usage = f"\n{context.get_usage()}" if isinstance(error, SettingsError) else ""
        echo_bytes(f"Error: {error}{usage}", err=True)
        raise typer.Exit(1) from error


@app.command()
def check(
    network: Network,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Ratings table, folder of one, or DSSTNE text; none: the network alone."),
    ] = None,
    settings: Annotated[
        str, typer.Option("--settings", help="A run's settings, the JSON that spec.json has.", metavar="JSON")
    ] = "{}",
    as_json: AsJson = False,
) -> None:
    """Say whether network and data can be used, without JAX and without a device."""
    from trainer.inputs import check as look
    from trainer.settings import TrainSettings

    with answering():
        found = look(network, data, TrainSettings.of_json(settings))
        names = ("samples", "features", "nnz", "parameters") if data else ()
        counts = (f"{found[name]:,} {name}" for name in names)
        typer.echo(json.dumps(found) if as_json else ", ".join((*counts, _training_text(found))))


def _training_text(found: dict[str, Any]) -> str:
    stopping, batch = found["early_stopping"], found["batch_size"]
    ends = f", stops by {stopping['metric']}" if stopping else ""
    return f"batch {f'{batch:,}' if batch else 'by the data'}, {found['epochs']:,} epochs{ends}"


@app.command()
def capacity(
    network: Network,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Read for its shape; without it the next three are given.", show_default=False),
    ] = None,
    items: Annotated[int, typer.Option("--items", min=0, help="Features.", show_default=False)] = 0,
    samples: Annotated[int, typer.Option("--samples", min=0, help="Samples.", show_default=False)] = 0,
    per_sample: Annotated[
        float, typer.Option("--per-sample", min=0, help="Features a sample has on average.", show_default=False)
    ] = 0.0,
    batch_size: AskedBatchSize = None,
    devices: Annotated[int, typer.Option("--devices", min=1, help="GPUs.")] = 1,
    data_shards: Annotated[
        int | None,
        typer.Option("--data-shards", min=1, help="Parts of a batch.", show_default="as least passes between GPUs"),
    ] = None,
    optimizer: Annotated[str, typer.Option("--optimizer", help="Its name.", show_default="the network's own")] = "",
    as_json: AsJson = False,
) -> None:
    """Say what a training needs of each device, and which GPUs hold it, without a device."""
    from trainer.capacity import Question, capacity_text, use_virtual_devices
    from trainer.capacity import capacity as ask
    from trainer.settings import TrainSettings

    with answering():
        use_virtual_devices(devices)
        settings = TrainSettings.of(batch_size=batch_size, data_shards=data_shards)
        question = Question.of(network, data, (items, samples, per_sample), optimizer)
        answer = ask(question.network, question.shape, settings, devices=devices)
        typer.echo(json.dumps(answer.to_json()) if as_json else capacity_text(answer))
