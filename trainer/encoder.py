"""DSSTNE's program `encoder` (spec 4.6): what a CDL file asks for, done."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.attach import attached, check_samples, resolve
from trainer.cdl import Cdl, Command, read_cdl
from trainer.data.netcdf import Dataset, read_datasets
from trainer.errors import DataError, InputError, SettingsError, TrainerError
from trainer.filing import check_writable
from trainer.fitting import data_of, finished, trainable
from trainer.network import read_network
from trainer.network_file import read_network_file, write_network
from trainer.network_types import LayerKind, NetworkSpec, OptimizerSpec
from trainer.predict import Question, Ready, recommend
from trainer.programs import epoch_text
from trainer.settings import TrainSettings
from trainer.sharding import make_mesh
from trainer.sparse import SparseDataset
from trainer.state import TrainState, create_state, weights_of
from trainer.train import TrainingData, find_devices, train
from trainer.validate import largest_errors

Say = Callable[[str], None]

_KS = 10
_STEP = 1e-3
"""Of the numeric gradient; errors up to 20 times this are let pass."""


def run_encoder(path: Path | None, *, say: Say) -> None:
    """Do what the CDL file at `path` asks for; its paths are relative to the working directory."""
    if path is None:
        raise SettingsError("a CDL file is wanted")
    cdl = read_cdl(path)
    {Command.TRAIN: _train, Command.PREDICT: _predict, Command.VALIDATE: _validate}[cdl.command](cdl, say)


def _train(cdl: Cdl, say: Say) -> None:
    for path in (cdl.results, Path(f"{cdl.checkpoint_name}1.nc")):
        check_writable(path)
    spec, data = _network_and_data(cdl)
    settings = _settings(cdl)
    part = trainable(spec)
    kept: dict[str, Any] = {"checkpoint_name": cdl.checkpoint_name, "checkpoint_interval": cdl.checkpoint_interval}

    def after_epoch(epoch: int, state: Callable[[], TrainState]) -> None:
        if epoch and epoch % cdl.checkpoint_interval == 0:
            path = Path(f"{cdl.checkpoint_name}{epoch}.nc")
            say(f"NNNetwork::Train: saving checkpoint {path}")
            write_network(path, replace(part, **kept), weights_of(state(), part))

    mesh = make_mesh(1, find_devices())
    own = data_of(part, data)
    state = train(part, own, settings, mesh=mesh, tell=lambda report: say(epoch_text(report)), after_epoch=after_epoch)
    if part is not spec:
        state = finished(spec, (part, state), data, settings, mesh)
    write_network(cdl.results, replace(spec, **kept), weights_of(state, spec))
    say(f"Network written to {cdl.results}")


def _predict(cdl: Cdl, say: Say) -> None:
    """Print `k,precision,recall,ndcg` for k = 1 to 10, means over the samples that have targets."""
    spec, weights = read_network_file(cdl.network)
    found = _datasets(cdl)
    inputs = attached(spec, found, cdl.data[0], kind=LayerKind.INPUT)
    targets = attached(spec, found, cdl.data[0], kind=LayerKind.OUTPUT)
    check_samples({**inputs, **targets}, cdl.data[0])
    wanted = targets[spec.output.name]
    if not isinstance(wanted, SparseDataset):
        raise DataError(
            f"dataset {wanted.name} is dense; sparse targets are what a ranking is measured by", cdl.data[0]
        )
    mesh = make_mesh(1, find_devices())
    state = create_state(spec, TrainSettings(), mesh, weights=weights, steps=1)
    ready = Ready(spec, state.params, mesh, state.statistics)
    answers = recommend(ready, Question(inputs), k=_KS, batch_size=cdl.batch_size, live=spec.output.width)
    for k, means in enumerate(_means((ids for ids, _ in answers), wanted), start=1):
        say(f"{k},{means[0]:6.4f},{means[1]:6.4f},{means[2]:6.4f}")


def _validate(cdl: Cdl, say: Say) -> None:
    """Hold the gradient of the first batch against differences of the loss."""
    spec, data = _network_and_data(cdl)
    errors = largest_errors(spec, data, _settings(cdl), mesh=make_mesh(1, find_devices()[:1]), step=_STEP)
    for name, error in errors.items():
        say(f"{name}: largest error of the gradient {error:.6f}")
    worst = max(errors, key=lambda name: errors[name])
    if errors[worst] > 20 * _STEP:
        raise TrainerError(f"{worst}: the gradient is {errors[worst]:g} off, {20 * _STEP:g} is let pass")
    say("Validation passed")


def _network_and_data(cdl: Cdl) -> tuple[NetworkSpec, TrainingData]:
    found = _datasets(cdl)
    spec = resolve(read_network(cdl.network), found, found)
    asked = spec.optimizer or OptimizerSpec()
    spec = replace(
        spec,
        optimizer=asked if cdl.optimizer is None else replace(asked, name=cdl.optimizer),
        shuffle=spec.shuffle if cdl.shuffle is None else cdl.shuffle,
    )
    data = TrainingData(
        attached(spec, found, cdl.data[0], kind=LayerKind.INPUT),
        attached(spec, found, cdl.data[0], kind=LayerKind.OUTPUT),
    )
    check_samples({**data.inputs, **data.targets}, cdl.data[0])
    return spec, data


def _datasets(cdl: Cdl) -> dict[str, Dataset]:
    found: dict[str, Dataset] = {}
    for path in cdl.data:
        for name, dataset in read_datasets(path).items():
            if name in found:
                raise InputError(f"{path}: dataset {name} is in another file of Data, too")
            found[name] = dataset
    return found


def _settings(cdl: Cdl) -> TrainSettings:
    return TrainSettings.of(
        batch_size=cdl.batch_size,
        epochs=cdl.epochs,
        seed=cdl.seed,
        learning_rate=cdl.alpha,
        rate_interval=cdl.alpha_interval,
        rate_factor=cdl.alpha_multiplier,
        momentum=cdl.mu,
        l2=cdl.decay,
    )


def _means(answers: Iterator[npt.NDArray[Any]], wanted: SparseDataset) -> npt.NDArray[np.float64]:
    """precision, recall and ndcg, [k, 3]: tp / k, tp / p, and dcg over the ideal of all p targets."""
    discount = 1.0 / np.log2(np.arange(2, max(_KS, wanted.width) + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    totals, counted, sample = np.zeros((_KS, 3)), 0, 0
    for ids in answers:
        for row in ids:
            stored = sample if wanted.rows is None else int(wanted.rows[sample])
            targets = np.unique(wanted.indices[wanted.indptr[stored] : wanted.indptr[stored + 1]])
            sample += 1
            if len(targets) == 0:
                continue
            hits = np.isin(row, targets) & (row >= 0)
            hits = np.pad(hits, (0, _KS - len(hits)))
            found = np.cumsum(hits)
            totals[:, 0] += found / np.arange(1, _KS + 1)
            totals[:, 1] += found / len(targets)
            totals[:, 2] += np.cumsum(hits * discount[:_KS]) / ideal[len(targets)]
            counted += 1
    return totals / max(counted, 1)
