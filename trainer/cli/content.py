"""Verbs that recommend by attributes of items, and items that nobody has yet."""

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import AsJson, BatchSize, Data, Epochs, Seed, answering, app

Tables = Annotated[
    list[Path] | None,
    typer.Option("--attributes", help="CSV with a header item,attribute[,weight]; besides the data folder's own."),
]
Out = Annotated[Path, typer.Option("--out", help="File of recommendations to write.")]
Count = Annotated[int, typer.Option("-k", min=1, help="Recommendations a sample.")]


@app.command()
def content(
    data: Data,
    tables: Tables = None,
    k: Count = 10,
    out: Out = Path("recs"),
    also_cold: Annotated[
        bool, typer.Option("--also-cold", help="Recommend items, too, that only the attributes know.")
    ] = False,
) -> None:
    """Recommend by what items are: those whose attributes are nearest to those of what a sample has."""
    from trainer.cold import recommend_content

    with answering():
        count = recommend_content(data, out, k=k, tables=tables or [], also_cold=also_cold)
        typer.echo(f"recommendations for {count:,} samples in {out}")


@app.command("recommend-cold")
def recommend_cold(
    network: Annotated[Path, typer.Option("--network", help="Trained network (gl.nc).")],
    data: Data,
    tables: Tables = None,
    k: Count = 10,
    out: Out = Path("recs"),
    batch_size: BatchSize = 256,
) -> None:
    """Recommend items that nobody has yet, and no others, by a trained network and attributes."""
    from trainer.cold import recommend_cold as recommend

    with answering():
        count = recommend(network, data, out=out, k=k, tables=tables or [], batch_size=batch_size)
        typer.echo(f"recommendations for {count:,} samples in {out}")


@app.command("cold-items")
def cold_items(
    data: Data,
    tables: Tables = None,
    network: Annotated[
        Path | None, typer.Option("--network", help="Definition (JSON) to train beside.", show_default=False)
    ] = None,
    fraction: Annotated[float, typer.Option("--fraction", help="Share of the items that is hidden.")] = 0.05,
    k: Annotated[int, typer.Option("-k", min=1, help="Recommendations a sample.")] = 50,
    batch_size: BatchSize = 256,
    epochs: Epochs = 10,
    seed: Seed = 12134,
    per_sample: Annotated[
        Path | None, typer.Option("--per-sample", help="CSV of each sample's recall to write.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hide items entirely and measure who finds them again, beside chance."""
    from trainer.cold import cold_items as measure
    from trainer.cold import write_per_sample
    from trainer.job import epoch_text
    from trainer.settings import TrainSettings

    with answering():
        settings = TrainSettings.of(batch_size=batch_size, epochs=epochs, k=k, seed=seed)
        report = measure(
            data,
            network,
            settings=settings,
            fraction=fraction,
            tables=tables or [],
            tell=lambda one: typer.echo(epoch_text(one), err=True),
        )
        if per_sample is not None:
            write_per_sample(per_sample, report)
        means = {**report.means(), "cold_items": report.cold, "samples": len(report.samples)}
        typer.echo(
            json.dumps(means) if as_json else "\n".join(f"{name:<28}{value:.4g}" for name, value in means.items())
        )
