"""The verb that looks for a network's best values."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.options import AsJson, Seed, answering, app

if TYPE_CHECKING:
    from trainer.tuning import Samples


@app.command()
def tune(
    network: Annotated[
        Path, typer.Option("--network", "-c", help='Network definition (JSON) with {"Range": …} and {"Choice": …}.')
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for trials.jsonl, trials.txt and best.json; goes on.")],
    data: Annotated[Path | None, typer.Option("--data", help="Ratings table, folder of one, or DSSTNE text.")] = None,
    split: Annotated[
        Path | None,
        typer.Option("--split", help="Folder that `trainer split` wrote, instead of data; its test part is not read."),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Combinations tried altogether.")] = 30,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0, help="Begin none after so many.", show_default="no limit")
    ] = float("inf"),
    validation: Annotated[
        float | None,
        typer.Option("--validation", help="Share of the samples to judge by, of --data.", show_default="0.1"),
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", help="What is to be high.", show_default="the network's own, else ndcg@100")
    ] = "",
    seed: Seed = 12134,
    as_json: AsJson = False,
) -> None:
    """Look for the best values of what a network leaves open, on validation samples."""
    from trainer.sharding import make_mesh
    from trainer.train import find_devices
    from trainer.tuning import Search, table
    from trainer.tuning import tune as search_for

    with answering():
        search = Search(network, out, trials, seed, minutes, metric)
        samples = _samples((data, split), network, validation, seed)
        found = search_for(
            search, samples, mesh=make_mesh(1, find_devices()), say=lambda line: typer.echo(line, err=True)
        )
        if as_json:
            typer.echo(json.dumps([asdict(trial) for trial in found]))
        else:
            typer.echo(table(found, most=10))
            if any(trial.state == "complete" for trial in found):
                typer.echo(f"the best network lies in {out / 'best.json'}", err=True)


def _samples(places: tuple[Path | None, Path | None], network: Path, validation: float | None, seed: int) -> "Samples":
    """Of data or of a split."""
    from trainer.errors import SettingsError
    from trainer.tuning import Samples

    data, split = places
    share = 0.1 if validation is None else validation
    if not 0 < share < 1:
        raise SettingsError(f"--validation: {share:g} is no share; between 0 and 1 is wanted")
    if split is not None and (data is not None or validation is not None):
        raise SettingsError("--split: the split brings data and validation; leave --data and --validation out")
    if split is not None:
        return Samples.of_split(split)
    if data is None:
        raise SettingsError("data: either --data or --split is wanted")
    return Samples.taken_from(data, network, share=share, seed=seed)
