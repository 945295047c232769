"""Verbs that measure networks."""

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import AsJson, AskedBatchSize, AskedEpochs, Data, Seed, answering, app


@app.command()
def evaluate(
    network: Annotated[Path, typer.Option("--network", help="Definition (JSON) to train first, or gl.nc.")],
    data: Data,
    held_out: Annotated[float, typer.Option("--held-out", help="Fraction of each sample hidden.")] = 0.2,
    batch_size: AskedBatchSize = None,
    epochs: AskedEpochs = None,
    seed: Seed = 12134,
    as_json: AsJson = False,
) -> None:
    """Measure a network on held-out features, beside popularity."""
    from trainer.job import measure
    from trainer.settings import TrainSettings

    with answering():
        settings = TrainSettings.of(batch_size=batch_size, epochs=epochs, held_out=held_out, seed=seed)
        metrics = measure(network, data, settings, say=lambda line: typer.echo(line, err=True))
        typer.echo(json.dumps(metrics) if as_json else _table(metrics))


def _table(metrics: dict[str, float]) -> str:
    names = [name.removeprefix("network.") for name in metrics if name.startswith("network.")]
    lines = [f"{'':<12}" + "".join(f"{name:>15}" for name in names)]
    lines += [
        f"{model:<12}" + "".join(f"{metrics[f'{model}.{name}']:>15.4f}" for name in names)
        for model in ("network", "popularity")
    ]
    return "\n".join(lines)
