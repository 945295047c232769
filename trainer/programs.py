"""DSSTNE's program `train` over its own files, with its messages (spec 4.1): what each flag names is read, used, and
the result written. `predict` lies in `serving.py`, `generateNetCDF` in `data/generate.py`.
"""

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from trainer.attach import attached, check_samples, resolve
from trainer.data.netcdf import DATA_MEMORY_BYTES, Dataset, held_bytes, read_datasets
from trainer.errors import InputError, SettingsError
from trainer.filing import check_writable
from trainer.fitting import data_of, finished, trainable
from trainer.hosts import first_alone
from trainer.meshing import mesh_for
from trainer.network import read_network
from trainer.network_file import write_network
from trainer.network_types import LayerKind, NetworkSpec
from trainer.optimizer import rates_of
from trainer.pace import UNSTATED, pace_of
from trainer.settings import TrainSettings
from trainer.state import TrainState, weights_of
from trainer.train import Checkpoints, EpochReport, TrainingData, find_devices, train

Say = Callable[[str], None]

_INITIAL = Path("initial_network.nc")
_SETTINGS = {
    "-b": "batch_size",
    "-e": "epochs",
    "-alpha": "learning_rate",
    "-lambda": "l2",
    "-lambda1": "l1",
    "-mu": "momentum",
    "-mu1": "momentum2",
    "--seed": "seed",
}
_SAVE_EVERY = 10
"""Epochs between two network files, as DSSTNE's `train` does."""


@dataclass(frozen=True, slots=True)
class TrainFiles:
    """`train -c network -i inputs -o targets -n result`."""

    network: Path
    inputs: Path
    targets: Path
    result: Path
    checkpoints: Checkpoints | None = None
    strict_dsstne: bool = False
    data_memory_bytes: float = DATA_MEMORY_BYTES
    """That the data of both files may take; larger ones stay there."""


def settings_of(flags: Mapping[str, object]) -> TrainSettings:
    """The settings that flags of `train` ask for; one outside its range raises `SettingsError` naming the flag."""
    try:
        return TrainSettings.of(**{_SETTINGS[flag]: value for flag, value in flags.items()})
    except SettingsError as error:
        name, _, problem = str(error).partition(":")
        flag = next((flag for flag, setting in _SETTINGS.items() if setting == name), name)
        raise SettingsError(f"{flag}:{problem}") from error


def train_files(files: TrainFiles, settings: TrainSettings, *, say: Say) -> None:
    """Train a network on NetCDF datasets and write it, the network before training as `initial_network.nc`, and
    after each tenth epoch as `<result><epoch>.nc`; a result that exists is not replaced. Several processes do it
    together, and the first one writes.
    """
    started = time.monotonic()
    for line in _train_opening(files, settings):
        say(line)
    check_writable(files.result)
    if files.checkpoints is not None and files.checkpoints.folder.exists() and not files.checkpoints.folder.is_dir():
        raise InputError(f"{files.checkpoints.folder}: is no folder; checkpoints are kept in one")
    network = read_network(files.network, strict_dsstne=files.strict_dsstne)
    _say_what_is_left_out(network, say)
    inputs, targets = _datasets(files, say)
    spec = resolve(network, inputs, targets)
    data = TrainingData(
        attached(spec, inputs, files.inputs, kind=LayerKind.INPUT, tell=say),
        attached(spec, targets, files.targets, kind=LayerKind.OUTPUT, tell=say),
    )
    check_samples({**data.inputs, **data.targets}, files.targets)
    part, mesh = trainable(spec), _mesh(spec, settings, data, say)
    kept: dict[str, Any] = {"checkpoint_name": str(files.result), "checkpoint_interval": _SAVE_EVERY}
    named = replace(part, **kept)
    say(f"NNNetwork::SetCheckPoint: filename set to {files.result}, interval set to {_SAVE_EVERY} epochs.")
    say(f"NNNetwork::SetTrainingMode: Optimizer is now {_OPTIMIZER_NAMES[rates_of(spec, settings).name.name]}")

    def after_epoch(epoch: int, state: Callable[[], TrainState]) -> None:
        if epoch == 0:
            _write(_INITIAL, named, state())
        elif epoch % _SAVE_EVERY == 0:
            path = files.result.with_name(f"{files.result.name}{epoch}.nc")
            say(f"NNNetwork::Train: saving checkpoint {path}")
            _write(path, named, state())

    state = train(
        part,
        data_of(part, data),
        settings,
        mesh=mesh,
        tell=lambda report: _tell(report, say),
        checkpoints=files.checkpoints,
        after_epoch=after_epoch,
    )
    if part is not spec:
        state = finished(spec, (part, state), data, settings, mesh)
    _write(files.result, replace(spec, **kept), state)
    say(
        f"Total Training Time {time.monotonic() - started:f}GPU Memory Usage: {_device_kib()} KB\n"
        f"CPU Memory Usage: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} KB"
    )


def _mesh(spec: NetworkSpec, settings: TrainSettings, data: TrainingData, say: Say) -> Mesh:
    mesh, why = mesh_for(spec, settings, data.samples, find_devices())
    if why:
        say(f"Mesh of data {mesh.shape['data']} × model {mesh.shape['model']}: {why}")
    return mesh


def _say_what_is_left_out(network: NetworkSpec, say: Say) -> None:
    if network.training.stopping is not None:
        say("EarlyStopping is left to run directories: every epoch asked for is trained")


def _datasets(files: TrainFiles, say: Say) -> tuple[Mapping[str, Dataset], Mapping[str, Dataset]]:
    """Those of the inputs' and of the targets' file."""
    inputs = read_datasets(files.inputs, memory_bytes=files.data_memory_bytes, tell=say)
    if files.targets == files.inputs:
        return inputs, inputs
    left = files.data_memory_bytes - sum(map(held_bytes, inputs.values()))
    return inputs, read_datasets(files.targets, memory_bytes=left, tell=say)


def _write(path: Path, spec: NetworkSpec, state: TrainState) -> None:
    weights = weights_of(state, spec)
    first_alone(lambda: write_network(path, spec, weights))


def _tell(report: EpochReport, say: Say) -> None:
    if report.braked:
        say("NNNetwork::Train: Detected network divergence, attempting recovery.")
    say(epoch_text(report))


def epoch_text(report: EpochReport) -> str:
    """DSSTNE's line about an epoch."""
    return (
        f"NNNetwork::Train: Epoch {report.epoch}, average error {report.loss + report.regularization:f}, "
        f"average training error {report.loss:f}, average regularization error {report.regularization:f}, "
        f"elapsed time {report.seconds:f}s"
    )


def _train_opening(files: TrainFiles, settings: TrainSettings) -> list[str]:
    rates, pace = rates_of(NetworkSpec("", ()), settings), pace_of(UNSTATED, settings)
    return [
        f"Train will use configuration file: {files.network}",
        f"Train will use input data file: {files.inputs}",
        f"Train will use output data file: {files.targets}",
        f"Train will produce networkFileName: {files.result}",
        f"Train will use batchSize: {pace.batch_size}",
        f"Train will use number of epochs: {pace.epochs}",
        f"Train alpha {rates.learning_rate:g}, lambda {rates.l2:g}, mu {rates.momentum:g}",
        f"Train alpha {rates.learning_rate:g}, lambda1 {rates.l1:g}, mu1 {rates.momentum2:g}",
    ]


def _device_kib() -> int:
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(stats.get("peak_bytes_in_use", 0)) // 1024


_OPTIMIZER_NAMES = {
    "SGD": "SGD",
    "MOMENTUM": "Momentum",
    "ADAGRAD": "AdaGrad",
    "NESTEROV": "Nesterov",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}
