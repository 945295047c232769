"""Verbs that measure: what is held out, how good a network finds it, and whether one is better than another."""

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import AsJson, AskedBatchSize, AskedEpochs, Seed, answering, app

_Data = Annotated[
    Path | None,
    typer.Option("--data", help="Ratings table, folder of one, or DSSTNE text; of `given`, the folder of its files."),
]
_Protocol = Annotated[
    str | None,
    typer.Option("--protocol", help="strong, weak, leave-one-out, temporal or given.", show_default="weak"),
]
_HeldOut = Annotated[
    float | None, typer.Option("--held-out", help="Share to be found: of a sample's features; temporal: of all.")
]
_TestUsers = Annotated[
    float | None, typer.Option("--test-users", help="strong: samples to test with, a share below 1, else how many.")
]
_ValidationPart = Annotated[
    float | None,
    typer.Option("--validation-part", help="As much for validation; strong: as --test-users; else a share; 0: none."),
]
_LeastFeatures = Annotated[
    int | None, typer.Option("--least-features", help="strong: samples with fewer are left out.")
]
_Last = Annotated[
    bool | None, typer.Option("--last", help="leave-one-out: the latest feature, not a random one.", show_default=False)
]
_MinRating = Annotated[float | None, typer.Option("--min-rating", help="Ratings below are left out.")]
_Train = Annotated[Path | None, typer.Option("--train", help="given: what is trained on.")]
_Test = Annotated[Path | None, typer.Option("--test", help="given: what is to be found.")]
_Validation = Annotated[Path | None, typer.Option("--validation", help="given: what is to be found before the test.")]

_Split = Annotated[Path | None, typer.Option("--split", help="Folder that `trainer split` wrote, instead of data.")]
_Baselines = Annotated[str, typer.Option("--baselines", help="Others to measure, by commas.")]
_Ks = Annotated[
    list[int] | None,
    typer.Option("--k", min=1, help="How many to recommend; once for each.", show_default="10, 20, 50, 100"),
]
_Show = Annotated[list[str] | None, typer.Option("--show", help="A column, as ndcg@100; once for each.")]
_Metric = Annotated[
    str | None,
    typer.Option("--metric", help="What early stopping goes by, as recall@20.", show_default="the network's own"),
]
_Out = Annotated[Path | None, typer.Option("--out", help="Folder to keep what every sample gave in.")]


@app.command()
def split(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Folder to write the split to.")],
    data: _Data = None,
    protocol: _Protocol = None,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same split.")] = 12134,
    held_out: _HeldOut = None,
    test_users: _TestUsers = None,
    validation_part: _ValidationPart = None,
    least_features: _LeastFeatures = None,
    last: _Last = None,
    min_rating: _MinRating = None,
    train: _Train = None,
    test: _Test = None,
    validation: _Validation = None,
    as_json: AsJson = False,
) -> None:
    """Split data to measure with: what is trained on, known and to be found, by a protocol."""
    from trainer.data.given import Source, make_split
    from trainer.data.split_files import counts, write_split
    from trainer.settings import SplitSettings

    with answering():
        settings = SplitSettings.of(**{name: ctx.params[name] for name in SplitSettings.model_fields})
        made = make_split(Source(data, train, validation, test), settings)
        write_split(made, out)
        found = counts(made)
        lines = (f"{part}: " + ", ".join(f"{n:,} {what}" for what, n in told.items()) for part, told in found.items())
        typer.echo(json.dumps(found) if as_json else "\n".join(lines))


@app.command()
def evaluate(
    ctx: typer.Context,
    network: Annotated[Path, typer.Option("--network", help="Definition (JSON) to train first, or gl.nc.")],
    data: _Data = None,
    folder: _Split = None,
    protocol: _Protocol = None,
    held_out: _HeldOut = None,
    test_users: _TestUsers = None,
    validation_part: _ValidationPart = None,
    least_features: _LeastFeatures = None,
    last: _Last = None,
    min_rating: _MinRating = None,
    train: _Train = None,
    test: _Test = None,
    validation: _Validation = None,
    baselines: _Baselines = "popularity",
    ks: _Ks = None,
    show: _Show = None,
    metric: _Metric = None,
    out: _Out = None,
    batch_size: AskedBatchSize = None,
    epochs: AskedEpochs = None,
    seed: Seed = 12134,
    as_json: AsJson = False,
) -> None:
    """Measure a network on held-out features, beside popularity and others."""
    from dataclasses import replace

    from trainer.comparing import as_json as told
    from trainer.comparing import keep, table
    from trainer.data.given import Source, find_split
    from trainer.measuring import Wishes, measure
    from trainer.settings import SplitSettings, TrainSettings

    with answering():
        wishes = replace(Wishes.of(baselines, ks or (), metric), tables=data)
        settings = TrainSettings.of(batch_size=batch_size, epochs=epochs, seed=seed)
        asked = SplitSettings.of(**{name: ctx.params[name] for name in SplitSettings.model_fields})
        made = find_split(folder, Source(data, train, validation, test), asked)
        results = measure(network, made, settings, wishes, say=lambda line: typer.echo(line, err=True))
        if out is not None:
            keep(results, out)
        typer.echo(json.dumps(told(results, seed=seed)) if as_json else table(results, shown=show or (), seed=seed))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A model's measurement, that `trainer evaluate --out` wrote.")],
    second: Annotated[Path, typer.Argument(help="Another's, of the same samples.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the resamples.")] = 12134,
    as_json: AsJson = False,
) -> None:
    """Compare two measurements sample by sample: differences with 95 % intervals, by a paired bootstrap."""
    from dataclasses import asdict

    from trainer.comparing import comparison, differences, read_result

    with answering():
        ours, theirs = read_result(first), read_result(second)
        if not as_json:
            typer.echo(comparison(ours, theirs, seed=seed))
            return
        found = differences(ours, theirs, seed=seed)
        typer.echo(json.dumps({name: asdict(one) for name, one in found.items()}))
