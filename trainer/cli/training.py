"""Verbs that train and predict, DSSTNE's programs among them."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import (
    BatchSize,
    CheckpointSteps,
    Coordinator,
    DataMemory,
    Epochs,
    Process,
    Processes,
    Seed,
    answering,
    answering_as_dsstne,
    app,
)
from trainer.flags import Required, absent, flag_command, readable


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
    with _ending_alone(), answering_as_dsstne():
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

    with answering_as_dsstne():
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

    with answering_as_dsstne():
        run_encoder(cdl, say=typer.echo)


@app.command("dsstne-path")
def dsstne_path() -> None:
    """Put generateNetCDF, train, predict and encoder on the PATH: eval "$(trainer dsstne-path)"."""
    from trainer.shell import path_line

    with answering():
        typer.echo(path_line())


def _train_run(run_dir: Path, coordinator: str | None, processes: int | None, process: int | None) -> None:
    from trainer.distributed import Group, joined
    from trainer.errors import TrainerError
    from trainer.job import fail, run_job
    from trainer.notice import heeding_sigterm
    from trainer.rundir import RunDirectory

    directory = RunDirectory(run_dir, ours=not process)
    try:
        with joined(Group.of(coordinator, processes, process)), heeding_sigterm() as came:
            run_job(directory, say=_voice(process), asked_to_end=came)
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
