"""The verb that looks for a network's best values."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import AsJson, Data, Seed, answering, app


@app.command()
def tune(
    network: Annotated[
        Path, typer.Option("--network", "-c", help='Network definition (JSON) with {"Range": …} and {"Choice": …}.')
    ],
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Folder for trials.jsonl, trials.txt and best.json; goes on.")],
    trials: Annotated[int, typer.Option("--trials", min=1, help="Combinations tried altogether.")] = 30,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0, help="Begin none after so many.", show_default="no limit")
    ] = float("inf"),
    validation: Annotated[float, typer.Option("--validation", help="Share of the samples to judge by.")] = 0.1,
    metric: Annotated[
        str, typer.Option("--metric", help="What is to be high.", show_default="the network's own, else ndcg@100")
    ] = "",
    seed: Seed = 12134,
    as_json: AsJson = False,
) -> None:
    """Look for the best values of what a network leaves open, on validation samples."""
    from trainer.errors import SettingsError
    from trainer.sharding import make_mesh
    from trainer.train import find_devices
    from trainer.tuning import Samples, Search, table
    from trainer.tuning import tune as search_for

    with answering():
        if not 0 < validation < 1:
            raise SettingsError(f"--validation: {validation:g} is no share; between 0 and 1 is wanted")
        search = Search(network, out, trials, seed, minutes, metric)
        samples = Samples.taken_from(data, share=validation, seed=seed)
        found = search_for(
            search, samples, mesh=make_mesh(1, find_devices()), say=lambda line: typer.echo(line, err=True)
        )
        if as_json:
            typer.echo(json.dumps([asdict(trial) for trial in found]))
        else:
            typer.echo(table(found, most=10))
            if any(trial.state == "complete" for trial in found):
                typer.echo(f"the best network lies in {out / 'best.json'}", err=True)
