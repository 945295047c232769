"""A whole job: a run directory from its `spec.json` to its artifacts, told step by step to `say`; the steps themselves
live below.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jax.sharding import Mesh

from trainer.compilations import compilations_of
from trainer.content import layer_datasets
from trainer.data.features import write_index
from trainer.data.netcdf import write_dataset
from trainer.ending import train_to_its_end
from trainer.errors import Interrupted, TrainerError
from trainer.evaluate import evaluate
from trainer.fitting import training_data
from trainer.hosts import first_alone, is_first
from trainer.inputs import Inputs, prepare, read_candidates, without_open
from trainer.meshing import mesh_for
from trainer.network import parameter_count
from trainer.network_file import write_network
from trainer.pace import pace_of
from trainer.predict import Ready, question_of, ranked, write_recommendations
from trainer.rundir import RunDirectory, State, Status
from trainer.settings import JobSpec, TrainSettings
from trainer.sparse import FeatureIndex
from trainer.state import weights_of
from trainer.stopping import Judged
from trainer.train import Checkpoints, EpochReport, find_devices
from trainer.tuning import tuned

Say = Callable[[str], None]


def run_job(directory: RunDirectory, *, say: Say, asked_to_end: Callable[[], bool] = lambda: False) -> None:
    """Do what `spec.json` asks: convert, train, measure, recommend; every result lies in the directory. Several
    processes do it together, and the first one writes. A training that is `asked_to_end` saves and raises
    `Interrupted`; begun again in the same directory, it goes on.
    """
    directory.write_status(Status(State.STARTING))
    job = JobSpec.read(directory.spec)
    network, settings = directory.path / job.network, job.settings
    if settings.tune_trials:
        settings = without_open(network, settings)
    inputs = prepare(read_candidates(network, settings)[0], directory.path / job.data, settings)
    devices = find_devices(job.min_devices)
    if settings.tune_trials:
        directory.write_status(Status(State.TUNING))
        mesh, _ = mesh_for(inputs.spec, settings, inputs.training.samples, devices)
        inputs = tuned(inputs, network, job, directory, mesh=mesh, say=say, asked_to_end=asked_to_end)
    mesh, why = mesh_for(inputs.spec, settings, inputs.training.samples, devices)
    first_alone(lambda: _write_inputs(directory, inputs))
    say(_opening(inputs, mesh) + (f": {why}" if why else ""))

    def on_epoch(report: EpochReport) -> None:
        say(epoch_text(report))
        first = "refit." if report.refit else ""
        directory.report(report.step, f"{first}loss", report.loss)
        directory.report(report.step, f"{first}samples_per_second", report.samples_per_second)
        if report.judged is not None:
            directory.report(report.step, f"validation.{report.judged.metric}", report.judged.value)
        directory.write_status(_status(State.TRAINING, report))

    with compilations_of("step") as compiled:
        trained = train_to_its_end(
            inputs.spec,
            training_data(inputs.spec, inputs.training, inputs.attributes),
            settings,
            mesh=mesh,
            tell=on_epoch,
            checkpoints=Checkpoints(directory.checkpoints, seconds=job.checkpoint_seconds, asked_to_end=asked_to_end),
            attributes=inputs.attributes,
        )
    directory.report(0, "compilations", compiled.count)
    say(f"training step {compiled}")
    if trained.judged is not None or trained.fits:
        say(str(trained))
    weights = weights_of(trained.state, inputs.spec)
    first_alone(lambda: write_network(directory.network_file, inputs.spec, weights))
    epochs, judged = trained.epochs, _judged(trained.judged)
    directory.write_status(Status(State.PREDICTING, epochs, epochs, **judged))
    ready = Ready(inputs.spec, trained.state.params, mesh, trained.state.statistics, attributes=inputs.attributes)
    _measure_and_recommend(directory, inputs, ready, settings=settings, say=say)
    directory.write_status(Status(State.DONE, epochs, epochs, **judged))


def epoch_text(report: EpochReport) -> str:
    """One line of the log."""
    judged = report.judged
    said = judged and f"{judged.metric} {judged.value:.4f} (best {judged.best:.4f} at {judged.best_epoch}), "
    return (
        f"{'refit ' if report.refit else ''}epoch {report.epoch}/{report.epochs}: loss {report.loss:.4f}, "
        f"regularization {report.regularization:.4f}, {said or ''}{report.samples_per_second:,.0f} samples/s"
    )


def fail(directory: RunDirectory, error: TrainerError) -> None:
    """Leave word of a failure, or of an end that was asked for."""
    directory.write_status(Status(State.INTERRUPTED if isinstance(error, Interrupted) else State.FAILED))
    directory.write_exit(error.exit_status)


def _write_inputs(directory: RunDirectory, inputs: Inputs) -> None:
    """What the network is trained on, in DSSTNE's files."""
    found = layer_datasets((*inputs.spec.inputs, *inputs.spec.outputs), inputs.training, inputs.attributes)
    for name, dataset in sorted(found.items()):
        write_dataset(replace(dataset, name=name), directory.dataset(name))
    if inputs.attributes is not None and inputs.attributes.features is not None:
        write_index(inputs.attributes.features, directory.index("features_attributes"))
    write_index(inputs.features, directory.index("features_input"))
    write_index(inputs.features, directory.index("features_output"))
    names = inputs.loaded.dataset.sample_names or ()
    samples = FeatureIndex({name: row for row, name in enumerate(names)})
    write_index(samples, directory.index("samples_input"))
    if inputs.loaded.titles:
        directory.write(directory.titles.name, json.dumps(dict(inputs.loaded.titles), ensure_ascii=False))


def _measure_and_recommend(
    directory: RunDirectory, inputs: Inputs, ready: Ready, *, settings: TrainSettings, say: Say
) -> None:
    if inputs.held_out is not None:
        live = len(inputs.features)
        metrics = evaluate(ready, inputs.training, inputs.held_out, batch_size=_batch_size(inputs, settings), live=live)
        for name, value in metrics.items():
            directory.report(0, name, value)
            say(f"{name} {value:.4f}")
    whole = inputs.loaded.dataset
    samples = ranked(
        ready,
        question_of(ready, whole),
        k=settings.k,
        batch_size=_batch_size(inputs, settings),
        feature_names=inputs.features.names(),
        sample_names=whole.sample_names or (),
    )
    count = write_recommendations(directory.recommendations, samples) if is_first() else sum(1 for _ in samples)
    say(f"recommendations for {count:,} samples in {directory.recommendations.name}")


def _batch_size(inputs: Inputs, settings: TrainSettings) -> int:
    return pace_of(inputs.spec.training, settings).batch_size


def _opening(inputs: Inputs, mesh: Mesh) -> str:
    training, whole = inputs.training, inputs.loaded.dataset
    kind = mesh.devices.flat[0].device_kind
    return (
        f"{training.samples:,} samples × {len(inputs.features):,} features, {training.nnz:,} of "
        f"{whole.nnz:,} interactions, {parameter_count(inputs.spec):,} parameters, {mesh.size} × {kind} "
        f"(data {mesh.shape['data']} × model {mesh.shape['model']})"
    )


def _status(state: State, report: EpochReport) -> Status:
    return Status(
        state=state,
        epoch=report.epoch,
        epochs=report.epochs,
        loss=report.loss,
        samples_per_second=report.samples_per_second,
        seconds_left=report.seconds_left,
        **_judged(report.judged),
    )


def _judged(judged: Judged | None) -> dict[str, Any]:
    """The part of a status that validation fills."""
    return {} if judged is None else {"metric": judged.metric, "best": judged.best, "best_epoch": judged.best_epoch}
