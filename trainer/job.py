"""Whole jobs: a run directory from its `spec.json` to its artifacts, and a measurement of one network on one
dataset. Each is told step by step to `say`; the steps themselves live below.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jax.sharding import Mesh

from trainer.content import layer_datasets
from trainer.data.features import write_index
from trainer.data.netcdf import write_dataset
from trainer.errors import NetworkError, SettingsError, TrainerError
from trainer.evaluate import evaluate
from trainer.hosts import first_alone, is_first
from trainer.inputs import Inputs, prepare
from trainer.network import parameter_count, read_network
from trainer.network_file import read_network_file, write_network
from trainer.network_types import NetworkSpec
from trainer.predict import Ready, question_of, ranked, write_recommendations
from trainer.rundir import RunDirectory, State, Status
from trainer.settings import JobSpec, TrainSettings
from trainer.sharding import make_mesh
from trainer.sparse import FeatureIndex, SparseDataset
from trainer.state import create_state, weights_of
from trainer.train import Checkpoints, EpochReport, TrainingData, find_devices, train

Say = Callable[[str], None]

_CHECKPOINT_SECONDS = 60.0
"""A machine that is lost costs no more than about this."""


def run_job(directory: RunDirectory, *, say: Say) -> None:
    """Do what `spec.json` asks: convert, train, measure, recommend; every result lies in the directory. Several
    processes do it together, and the first one writes.
    """
    directory.write_status(Status(State.STARTING))
    job = JobSpec.read(directory.spec)
    inputs = prepare(read_network(directory.path / job.network), directory.path / job.data, job.settings)
    mesh = make_mesh(job.settings.data_shards, find_devices(job.min_devices))
    first_alone(lambda: _write_inputs(directory, inputs))
    say(_opening(inputs, mesh))

    def on_epoch(report: EpochReport) -> None:
        say(epoch_text(report))
        directory.report(report.step, "loss", report.loss)
        directory.report(report.step, "samples_per_second", report.samples_per_second)
        directory.write_status(_status(State.TRAINING, report))

    state = train(
        inputs.spec,
        training_data(inputs.spec, inputs.training, inputs.attributes),
        job.settings,
        mesh=mesh,
        tell=on_epoch,
        checkpoints=Checkpoints(directory.checkpoints, seconds=_CHECKPOINT_SECONDS),
    )
    weights = weights_of(state, inputs.spec)
    first_alone(lambda: write_network(directory.network_file, inputs.spec, weights))
    epochs = job.settings.epochs
    directory.write_status(Status(State.PREDICTING, epochs, epochs))
    ready = Ready(inputs.spec, state.params, mesh, state.statistics, attributes=inputs.attributes)
    _measure_and_recommend(directory, inputs, ready, settings=job.settings, say=say)
    directory.write_status(Status(State.DONE, epochs, epochs))


def measure(network: Path, data: Path, settings: TrainSettings, *, say: Say) -> dict[str, float]:
    """`network.ndcg@100`, `popularity.ndcg@100`, … on the held-out part of `data`. A definition (JSON) is
    trained on the rest first; a trained network (NetCDF) is asked as it is.
    """
    if settings.held_out == 0:
        raise SettingsError("held_out: something must be held out to measure with")
    mesh = make_mesh(settings.data_shards, find_devices())
    trained = network.suffix == ".nc"
    spec, weights = read_network_file(network) if trained else (read_network(network), None)
    inputs = prepare(spec, data, settings)
    if inputs.held_out is None:
        raise ValueError("held_out is not 0, so there is a held-out part")
    if trained and spec.input.width != inputs.spec.input.width:
        raise NetworkError(f"has {spec.input.width} input units, the data {inputs.spec.input.width}", "input", network)
    if weights is not None:
        state = create_state(inputs.spec, settings, mesh, weights=weights, steps=1)
    else:
        state = train(
            inputs.spec,
            training_data(inputs.spec, inputs.training, inputs.attributes),
            settings,
            mesh=mesh,
            tell=lambda report: say(epoch_text(report)),
        )
    ready = Ready(inputs.spec, state.params, mesh, state.statistics, attributes=inputs.attributes)
    live = len(inputs.features)
    return evaluate(ready, inputs.training, inputs.held_out, batch_size=settings.batch_size, live=live)


def training_data(spec: NetworkSpec, both: SparseDataset, attributes: SparseDataset | None = None) -> TrainingData:
    """One dataset as every layer's input and target, or what is made of it where a layer wants attributes."""
    found = layer_datasets((*spec.inputs, *spec.outputs), both, attributes)
    inputs, targets = ({layer.name: found[layer.dataset] for layer in role} for role in (spec.inputs, spec.outputs))
    return TrainingData(inputs, targets)


def epoch_text(report: EpochReport) -> str:
    """One line of the log."""
    return (
        f"epoch {report.epoch}/{report.epochs}: loss {report.loss:.4f}, "
        f"regularization {report.regularization:.4f}, {report.samples_per_second:,.0f} samples/s"
    )


def fail(directory: RunDirectory, error: TrainerError) -> None:
    """Leave word of a failure."""
    directory.write_status(Status(State.FAILED))
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
        metrics = evaluate(ready, inputs.training, inputs.held_out, batch_size=settings.batch_size, live=live)
        for name, value in metrics.items():
            directory.report(0, name, value)
            say(f"{name} {value:.4f}")
    whole = inputs.loaded.dataset
    samples = ranked(
        ready,
        question_of(ready, whole),
        k=settings.k,
        batch_size=settings.batch_size,
        feature_names=inputs.features.names(),
        sample_names=whole.sample_names or (),
    )
    count = write_recommendations(directory.recommendations, samples) if is_first() else sum(1 for _ in samples)
    say(f"recommendations for {count:,} samples in {directory.recommendations.name}")


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
    )
