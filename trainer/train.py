"""The training loop, told in one function. Knows neither flags nor the cloud: it is given a network, data
and a mesh, and tells how every epoch went.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from trainer import checkpoint
from trainer.data.batches import batch_size_of, paired_batches, sample_order
from trainer.data.netcdf import Dataset
from trainer.errors import DevicesMissing, InputError, NonFiniteError
from trainer.network_types import NetworkSpec
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.sparse import SparseDataset
from trainer.state import TrainState, abstract_state, create_state, make_step
from trainer.weights import Weights


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What the network is shown and what it is asked for, by layer name and row by row; often one and the same
    dataset.
    """

    inputs: Mapping[str, Dataset]
    targets: Mapping[str, Dataset]

    @property
    def samples(self) -> int:
        """Number of samples."""
        return next(iter(self.inputs.values())).samples


@dataclass(frozen=True, slots=True)
class EpochReport:
    """How an epoch went. Losses are means over its samples, measured before each update."""

    epoch: int
    epochs: int
    step: int
    loss: float
    regularization: float
    seconds: float
    samples_per_second: float
    seconds_left: float
    braked: int = 0
    """Batches left out because the loss jumped."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where a training leaves what it needs to go on after it was killed, and how often: after every `steps` steps
    (0: never), and after epochs if the last is `seconds` old.
    """

    folder: Path
    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Start:
    """What a training begins with instead of weights drawn by the seed: `weights`, or a checkpoint that is there."""

    weights: Weights | None = None
    checkpoints: Checkpoints | None = None


@dataclass(slots=True)
class _Progress:
    """How far a training is: `done` batches of `epoch`, and what they summed up to."""

    state: TrainState
    epoch: int
    done: int
    sums: Any
    """loss, regularization and braked batches, [3], on the devices: fetching each would wait for every step."""


def train(
    spec: NetworkSpec,
    data: TrainingData,
    settings: TrainSettings,
    *,
    mesh: Mesh,
    tell: Callable[[EpochReport], None],
    start: Start | None = None,
    after_epoch: Callable[[int, TrainState], None] = lambda _, __: None,
) -> TrainState:
    """Train `spec` (shapes resolved), from its initial weights or from `start`; `after_epoch` is given each epoch's
    number and state, 0 and the first one too. Killed and begun again with the same checkpoints it ends at the
    same weights. `NonFiniteError` as soon as an epoch's loss is no finite number.
    """
    start = start or Start()
    samples, size = data.samples, batch_size_of(settings.batch_size, data.samples, settings.data_shards)
    per_epoch = -(-samples // size)
    saver = _Saver(start.checkpoints, partial(_fingerprint, spec, data, settings))
    progress = saver.load(spec, settings, mesh, steps=per_epoch * settings.epochs)
    if progress is None:
        progress = _begin(spec, data, settings, mesh, weights=start.weights, steps=per_epoch * settings.epochs)
        after_epoch(0, progress.state)
    step = make_step(spec, settings, mesh, steps=per_epoch * settings.epochs)
    for epoch in range(progress.epoch, settings.epochs + 1):
        started = time.monotonic()
        order = sample_order(samples, shuffle=spec.shuffle, seed=settings.seed, epoch=epoch)
        for batch in paired_batches(
            data.inputs,
            data.targets,
            batch_size=settings.batch_size,
            shards=settings.data_shards,
            order=order[progress.done * size :],
        ):
            inputs, targets = to_mesh(batch, mesh)
            progress.state, report = step(progress.state, inputs, targets)
            progress.sums = [one + more for one, more in zip(progress.sums, report, strict=True)]
            progress.done += 1
            saver.after_step(progress)
        loss, decay, braked = (float(value) for value in progress.sums)
        # Floored logarithms keep a loss finite for long; runaway weights show in their decay first.
        if not np.isfinite(loss + decay):
            raise NonFiniteError((epoch - 1) * per_epoch + 1, epoch * per_epoch)
        seconds = time.monotonic() - started
        progress.epoch, progress.done, progress.sums = epoch + 1, 0, _zeros(mesh)
        after_epoch(epoch, progress.state)
        if epoch % settings.report_every == 0 or epoch == settings.epochs:
            tell(
                EpochReport(
                    epoch=epoch,
                    epochs=settings.epochs,
                    step=epoch * per_epoch,
                    loss=loss / samples,
                    regularization=decay / samples,
                    seconds=seconds,
                    samples_per_second=samples / seconds,
                    seconds_left=seconds * (settings.epochs - epoch),
                    braked=int(braked),
                )
            )
        saver.after_epoch(progress, last=epoch == settings.epochs)
    return progress.state


def find_devices(at_least: int = 1) -> list[Any]:
    """The devices JAX sees; `DevicesMissing` if they are fewer than promised, or of none of the platforms
    asked for.
    """
    try:
        devices = jax.devices()
    except RuntimeError as error:
        raise DevicesMissing(f"JAX finds no device: {error}") from error
    if len(devices) < at_least:
        raise DevicesMissing(
            f"JAX sees {len(devices)} {devices[0].platform} devices, {at_least} were promised; "
            "the job would be slower than what is paid for"
        )
    return devices


class _Saver:
    """Leaves checkpoints and finds them again; does nothing where none are wanted."""

    def __init__(self, wanted: Checkpoints | None, fingerprint: Callable[[], str]) -> None:
        self._wanted, self._last = wanted, time.monotonic()
        self._fingerprint = "" if wanted is None else fingerprint()

    def load(self, spec: NetworkSpec, settings: TrainSettings, mesh: Mesh, *, steps: int) -> _Progress | None:
        """Where the training was when it last left a checkpoint."""
        saved = None if self._wanted is None else checkpoint.latest(self._wanted.folder)
        if saved is None:
            return None
        if saved.about.get("fingerprint") != self._fingerprint:
            raise InputError(
                f"{saved.path}: this checkpoint is of another network, data, batch size or seed; "
                "give another folder, or remove it to begin anew"
            )
        everywhere = NamedSharding(mesh, P())
        sums = [jax.ShapeDtypeStruct(one.shape, one.dtype, sharding=everywhere) for one in _zeros(mesh)]
        like = {"state": abstract_state(spec, settings, mesh, steps=steps), "sums": sums}
        tree = checkpoint.restore(saved, like)
        return _Progress(tree["state"], int(saved.about["epoch"]), int(saved.about["done"]), tree["sums"])

    def after_step(self, progress: _Progress) -> None:
        if self._wanted is not None and self._wanted.steps and int(progress.state.step) % self._wanted.steps == 0:
            self._save(progress)

    def after_epoch(self, progress: _Progress, *, last: bool) -> None:
        if self._wanted is not None and not last and time.monotonic() - self._last >= self._wanted.seconds:
            self._save(progress)

    def _save(self, progress: _Progress) -> None:
        if self._wanted is None:
            return
        about = {"epoch": progress.epoch, "done": progress.done, "fingerprint": self._fingerprint}
        tree = {"state": progress.state, "sums": progress.sums}
        checkpoint.save(self._wanted.folder, int(progress.state.step), tree, about=about)
        self._last = time.monotonic()


def _begin(
    spec: NetworkSpec,
    data: TrainingData,
    settings: TrainSettings,
    mesh: Mesh,
    *,
    weights: Weights | None,
    steps: int,
) -> _Progress:
    biases = _log_odds(spec, data.targets) if weights is None else {}
    state = create_state(spec, settings, mesh, weights=weights, biases=biases, steps=steps)
    return _Progress(state, 1, 0, _zeros(mesh))


def _zeros(mesh: Mesh) -> list[jax.Array]:
    everywhere = NamedSharding(mesh, P())
    zeros = (jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))
    return [jax.device_put(zero, everywhere) for zero in zeros]


def _fingerprint(spec: NetworkSpec, data: TrainingData, settings: TrainSettings) -> str:
    """Of everything that decides the weights at a step; the number of epochs does only by a cosine schedule."""
    lasting = settings.model_dump_json(exclude={"epochs", "report_every", "k", "held_out"})
    digest = hashlib.sha256(f"{spec!r}{lasting}".encode())
    for role in (data.inputs, data.targets):
        for name, dataset in role.items():
            parts = (dataset.indptr, dataset.indices) if isinstance(dataset, SparseDataset) else (dataset.values,)
            digest.update(name.encode())
            for part in parts:
                digest.update(np.ascontiguousarray(part).view(np.uint8).data)
    return digest.hexdigest()


def _log_odds(spec: NetworkSpec, targets: Mapping[str, Dataset]) -> dict[str, npt.NDArray[np.float32]]:
    """Log-odds of each feature's share of the samples, [width], for Output layers that begin there."""
    found: dict[str, npt.NDArray[np.float32]] = {}
    for layer in spec.outputs:
        if not layer.weight_init.log_odds:
            continue
        dataset = targets[layer.name]
        if not isinstance(dataset, SparseDataset):
            raise InputError(f"layer {layer.name}: LogOdds needs sparse targets, dataset {dataset.name} is dense")
        counts = np.bincount(dataset.indices, minlength=layer.width)
        # Half a sample more on either side keeps features that nobody or everybody has finite.
        share = (counts + 0.5) / (dataset.samples + 1.0)
        found[layer.name] = np.log(share / (1.0 - share)).astype(np.float32)
    return found
