"""The command line: parses, calls, prints and gives the exit status. It decides nothing; a verb's modules
are imported when the verb is called, so that help answers at once and `check` runs without JAX.
"""

import json
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from trainer.flags import Required, absent, flag_command, readable

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


@app.command()
def retrieve(
    url: Annotated[str, typer.Argument(help="http, https or file URL, or a path.")],
    into: Annotated[Path, typer.Option("--into", help="Folder it is kept in.")] = Path("data"),
    sha256: Annotated[str | None, typer.Option("--sha256", help="Checksum it must have.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a dataset by URL, once; archives are unpacked."""
    from trainer.data.retrieve import retrieve as fetch

    with _answering():
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

    with _answering():
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
) -> None:
    """Convert samples to a NetCDF dataset and its index files (DSSTNE's generateNetCDF)."""
    from trainer.data.generate import GenerateOptions
    from trainer.data.generate import generate_netcdf as generate
    from trainer.errors import SettingsError, TrainerError

    options = GenerateOptions(dataset, source, output, features, samples, create, merge, kind)
    try:
        generate(options, _echo_bytes)
    except TrainerError as error:
        usage = f"\n{context.get_usage()}" if isinstance(error, SettingsError) else ""
        _echo_bytes(f"Error: {error}{usage}", err=True)
        raise typer.Exit(1) from error


@app.command()
def check(network: Network, data: Data, as_json: AsJson = False) -> None:
    """Say whether network and data can be used, without JAX and without a device."""
    from trainer.inputs import check as look

    with _answering():
        counts = look(network, data)
        text = ", ".join(f"{value:,} {name}" for name, value in counts.items())
        typer.echo(json.dumps(counts) if as_json else text)


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
    batch_size: BatchSize = 256,
    devices: Annotated[int, typer.Option("--devices", min=1, help="GPUs.")] = 1,
    data_shards: Annotated[int, typer.Option("--data-shards", min=1, help="Parts of a batch.")] = 1,
    optimizer: Annotated[str, typer.Option("--optimizer", help="Its name.", show_default="the network's own")] = "",
    as_json: AsJson = False,
) -> None:
    """Say what a training needs of each device, and which GPUs hold it, without a device."""
    from trainer.capacity import Question, capacity_text, use_virtual_devices
    from trainer.capacity import capacity as ask
    from trainer.settings import TrainSettings

    with _answering():
        use_virtual_devices(devices)
        settings = TrainSettings.of(batch_size=batch_size, data_shards=data_shards)
        question = Question.of(network, data, (items, samples, per_sample), optimizer)
        answer = ask(question.network, question.shape, settings, devices=devices)
        typer.echo(json.dumps(answer.to_json()) if as_json else capacity_text(answer))


@app.command(
    cls=flag_command(
        Required("-c", "config file was not specified.", readable("config file")),
        Required("-i", "input data file is not specified.", readable("input feature index file")),
        Required("-o", "output data  file is not specified.", readable("output feature index file")),
        Required("-n", "the output network file path is not specified.", absent("Network file")),
        unless="--run-dir",
    )
)
def train(
    run_dir: Annotated[
        Path | None,
        typer.Option("--run-dir", help="Do what DIR/spec.json asks; of the rest only the last three count."),
    ] = None,
    network: Annotated[
        Path, typer.Option("-c", "--network", help="Network definition (JSON).", show_default=False)
    ] = Path(),
    inputs: Annotated[
        Path, typer.Option("-i", "--input", help="NetCDF of the input datasets.", show_default=False)
    ] = Path(),
    targets: Annotated[
        Path, typer.Option("-o", "--output", help="NetCDF of the target datasets.", show_default=False)
    ] = Path(),
    result: Annotated[Path, typer.Option("-n", "--result", help="Network file to write.", show_default=False)] = Path(),
    batch_size: BatchSize = 1024,
    epochs: Epochs = 40,
    alpha: Annotated[float | None, typer.Option("-alpha", help="Learning rate.", show_default="0.025")] = None,
    l2: Annotated[float | None, typer.Option("-lambda", help="L2 decay.", show_default="0.0001")] = None,
    l1: Annotated[float, typer.Option("-lambda1", help="L1 decay.")] = 0.0,
    mu: Annotated[float | None, typer.Option("-mu", help="Momentum, beta1 or decay.", show_default="0.5")] = None,
    mu1: Annotated[float | None, typer.Option("-mu1", help="Adam's beta2.", show_default="0.999")] = None,
    seed: Seed = 12134,
    checkpoints: Annotated[
        Path | None, typer.Option("--checkpoints", help="Folder to go on from, if killed, and to leave checkpoints in.")
    ] = None,
    checkpoint_steps: CheckpointSteps = 0,
    strict: Annotated[bool, typer.Option("--strict-dsstne", help="Refuse extensions of the language.")] = False,
    data_memory: DataMemory = 1.0,
    coordinator: Coordinator = None,
    processes: Processes = None,
    process: Process = None,
) -> None:
    """Train a network: over a run directory, or with the flags of DSSTNE's train."""
    if run_dir is not None:
        with _ending_alone():
            _train_run(run_dir, coordinator, processes, process)
        return
    with _ending_alone(), _answering_as_dsstne():
        from trainer.distributed import Group, joined
        from trainer.programs import TrainFiles, settings_of, train_files
        from trainer.train import Checkpoints

        rates = {"-alpha": alpha, "-lambda": l2, "-lambda1": l1, "-mu": mu, "-mu1": mu1}
        settings = settings_of({"-b": batch_size, "-e": epochs, "--seed": seed, **rates})
        saved = None if checkpoints is None else Checkpoints(checkpoints, checkpoint_steps)
        with joined(Group.of(coordinator, processes, process)):
            files = TrainFiles(network, inputs, targets, result, saved, strict, data_memory * 2**30)
            train_files(files, settings, say=_voice(process))


@app.command(
    cls=flag_command(
        Required("-d", "dataset name is not specified."),
        Required("-f", "filter file is not specified.", readable("filter file"), unless="--exclude-seen"),
        Required("-i", "input feature index file is not specified.", readable("input feature index file")),
        Required("-n", "network file is not specified.", readable("network file")),
        Required("-o", "output feature index file is not specified.", readable("output feature index file")),
        Required("-r", "input text file is not specified.", readable("input_text_file")),
        Required("-s", "recommendations file is not specified."),
    )
)
def predict(
    dataset: Annotated[str, typer.Option("-d", help="Dataset name without its suffix _input.")],
    network: Annotated[Path, typer.Option("-n", help="Trained network.")],
    samples: Annotated[Path, typer.Option("-r", help="Samples to recommend for (DSSTNE text).")],
    input_features: Annotated[Path, typer.Option("-i", help="Feature index of the input layer.")],
    output_features: Annotated[Path, typer.Option("-o", help="Feature index of the output layer.")],
    result: Annotated[Path, typer.Option("-s", help="File of recommendations to write.")],
    filter_path: Annotated[
        Path | None, typer.Option("-f", help="Features not to recommend, by sample (DSSTNE text).")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Recommendations a sample.")] = 100,
    batch_size: Annotated[int, typer.Option("-b", min=1, help="Samples a step.")] = 1024,
    score_format: Annotated[str, typer.Option("-p", help="Score format, as of printf, without its percent.")] = "4.3f",
    layer: Annotated[str, typer.Option("-l", help="Write what this layer puts out, not recommendations.")] = "",
    kind: Annotated[
        str, typer.Option("-t", help="indicator or analog.", show_default="as the network was trained")
    ] = "",
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="Do not recommend what a sample has.")] = False,
    multiply: Annotated[
        bool, typer.Option("--multiply-filter", help="Multiply scores by the filter's values, as DSSTNE does.")
    ] = False,
    output_layer: Annotated[
        str, typer.Option("--output-layer", help="The Output layer to ask.", show_default="Output")
    ] = "",
    more: Annotated[
        list[str] | None,
        typer.Option("--also", help="Another input: DATASET=SAMPLES,FEATURES; once for each.", metavar="TEXT"),
    ] = None,
) -> None:
    """Recommend features for samples (DSSTNE's predict); what the filter lists is left out."""
    from trainer.serving import PredictFiles, PredictOptions, other_inputs, predict_files

    with _answering_as_dsstne():
        others = other_inputs(more or [])
        predict_files(
            PredictFiles(dataset, network, samples, input_features, output_features, result, filter_path, others),
            PredictOptions(
                k=k,
                batch_size=batch_size,
                exclude_seen=exclude_seen,
                multiply=multiply,
                score_format=score_format,
                output_layer=output_layer,
                layer=layer,
                kind=kind,
            ),
            say=typer.echo,
        )


@app.command(context_settings={"help_option_names": ["--help"]})
def encoder(
    cdl: Annotated[
        Path | None, typer.Argument(help="CDL file: what to do, in DSSTNE's words.", show_default=False)
    ] = None,
) -> None:
    """Train, predict or validate as a CDL file says (DSSTNE's encoder)."""
    from trainer.encoder import run_encoder

    with _answering_as_dsstne():
        run_encoder(cdl, say=typer.echo)


@app.command("dsstne-path")
def dsstne_path() -> None:
    """Put generateNetCDF, train, predict and encoder on the PATH: eval "$(trainer dsstne-path)"."""
    from trainer.shell import path_line

    with _answering():
        typer.echo(path_line())


@app.command()
def evaluate(
    network: Annotated[Path, typer.Option("--network", help="Definition (JSON) to train first, or gl.nc.")],
    data: Data,
    held_out: Annotated[float, typer.Option("--held-out", help="Fraction of each sample hidden.")] = 0.2,
    batch_size: BatchSize = 256,
    epochs: Epochs = 10,
    seed: Seed = 12134,
    as_json: AsJson = False,
) -> None:
    """Measure a network on held-out features, beside popularity."""
    from trainer.job import measure
    from trainer.settings import TrainSettings

    with _answering():
        settings = TrainSettings.of(batch_size=batch_size, epochs=epochs, held_out=held_out, seed=seed)
        metrics = measure(network, data, settings, say=lambda line: typer.echo(line, err=True))
        typer.echo(json.dumps(metrics) if as_json else _table(metrics))


def trainer_program() -> None:
    """The script `trainer`. Ctrl-C ends it at once, as it does DSSTNE's programs: JAX loses a `KeyboardInterrupt` that
    comes at a bad moment, and files are only ever renamed into place.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    app(prog_name="trainer")


def _echo_bytes(text: str, *, err: bool = False) -> None:
    # Names and lines that are no UTF-8 are told as they were read.
    typer.echo(text.encode("utf-8", "surrogateescape"), err=err)


def _train_run(run_dir: Path, coordinator: str | None, processes: int | None, process: int | None) -> None:
    from trainer.distributed import Group, joined
    from trainer.errors import TrainerError
    from trainer.job import fail, run_job
    from trainer.rundir import RunDirectory

    directory = RunDirectory(run_dir, ours=not process)
    try:
        with joined(Group.of(coordinator, processes, process)):
            run_job(directory, say=_voice(process))
    except TrainerError as error:
        # The error is the log's last line, and `exit` the last file.
        typer.echo(f"error: {error}", err=True)
        fail(directory, error)
        raise typer.Exit(error.exit_status) from error
    directory.write_exit(0)


def _voice(process: int | None) -> Callable[[str], None]:
    """What is said of the work, the first process says."""
    return (lambda _: None) if process else typer.echo


@contextmanager
def _ending_alone() -> Generator[None]:
    """A process that failed does not wait at its end for those that it trained with."""
    status = 1
    try:
        yield
        status = 0
    except typer.Exit as end:
        status = end.exit_code
        raise
    finally:
        if status:
            from trainer.distributed import end_at_exit

            end_at_exit(status)


@contextmanager
def _answering() -> Generator[None]:
    from trainer.errors import TrainerError

    try:
        yield
    except TrainerError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_status) from error


@contextmanager
def _answering_as_dsstne() -> Generator[None]:
    from trainer.errors import TrainerError

    try:
        yield
    except TrainerError as error:
        _echo_bytes(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


def _table(metrics: dict[str, float]) -> str:
    names = [name.removeprefix("network.") for name in metrics if name.startswith("network.")]
    lines = [f"{'':<12}" + "".join(f"{name:>15}" for name in names)]
    lines += [
        f"{model:<12}" + "".join(f"{metrics[f'{model}.{name}']:>15.4f}" for name in names)
        for model in ("network", "popularity")
    ]
    return "\n".join(lines)
