"""The training loop, told in one function. Knows neither flags nor the cloud: it is given a network, data
and a mesh, and tells how every epoch went.
"""

import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
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
from trainer.data.batches import batch_size_of, sample_order
from trainer.data.netcdf import Dataset
from trainer.deal import ON_ACCELERATOR, ON_CPU, with_deals
from trainer.errors import DevicesMissing, InputError, Interrupted, NonFiniteError
from trainer.feeding import Feed
from trainer.filing import cache_folder
from trainer.hosts import agreed, check_same, placed
from trainer.network_types import NetworkSpec, OptimizerSpec, Schedule
from trainer.optimizer import rates_of
from trainer.pace import UNSTATED, pace_of
from trainer.settings import TrainSettings
from trainer.sparse import SparseDataset
from trainer.state import StepReport, TrainState, abstract_state, create_state, in_order, make_step
from trainer.stopping import Judged, Stopper, shapes_kept
from trainer.stored import Stored, blocks

_WORTH_KEEPING_SECONDS = 0.3
_NAMES = {"name", "sample_names", "features"}
"""Of a dataset: what decides nothing."""
_IDLE = frozenset(
    ["report_every", "k", "held_out", "tune_trials", "tune_minutes", "min_rating", "analog", "half_life_days"]
)
"""Of settings: what decides nothing, or by the data and the network alone."""


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
    judged: Judged | None = None
    """What validation says, where there is one."""
    refit: bool = False
    """Whether the network is trained anew, for as many epochs as were best."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where a training leaves what it needs to go on after it was killed, and how often: after every `steps` steps
    (0: never), and after epochs if the last is `seconds` old. Once it is `asked_to_end` it leaves one more and raises
    `Interrupted`: after the step, or, of several processes, after the epoch, where they ask the first one.
    """

    folder: Path
    steps: int = 0
    seconds: float = 0.0
    asked_to_end: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class _Progress:
    """How far a training is: `done` batches of `epoch`, and what they summed up to."""

    state: TrainState
    epoch: int
    done: int
    sums: StepReport
    """On the devices: fetching each would wait for every step."""


def train(
    spec: NetworkSpec,
    data: TrainingData,
    settings: TrainSettings,
    *,
    mesh: Mesh,
    tell: Callable[[EpochReport], None],
    checkpoints: Checkpoints | None = None,
    after_epoch: Callable[[int, Callable[[], TrainState]], None] = lambda _, __: None,
    stopper: Stopper | None = None,
    until: int | None = None,
) -> TrainState:
    """Train `spec` (shapes resolved) from its initial weights; `after_epoch` is given each epoch's number and what
    brings the state, 0 and the first one too. Killed and begun again with the same `checkpoints` it ends at the same
    weights. A `stopper` ends it early, and then the best epoch's state is returned; `until` is its last epoch, though
    its schedule is of more. The state returned has no optimizer's part. `NonFiniteError` as soon as an epoch's loss is
    not finite.
    """
    pace = pace_of(spec.training, settings)
    last = pace.epochs if until is None else min(until, pace.epochs)
    plain, spec = spec, _dealt(spec, data, settings, mesh)
    samples, size = data.samples, batch_size_of(pace.batch_size, data.samples, mesh.shape["data"])
    per_epoch = -(-samples // size)
    steps = per_epoch * pace.epochs
    saver = _Saver(checkpoints, lambda: _fingerprint(spec, data, settings, stopper), stopper)
    check_same(lambda: f"{_fingerprint(spec, data, settings, stopper)}{settings!r}{checkpoints and checkpoints.steps}")
    progress = saver.load((plain, spec), settings, mesh, steps=steps)
    if progress is None:
        progress = _begin(spec, data, settings, mesh, steps=steps)
        after_epoch(0, partial(in_order, progress.state, spec, mesh))
    step = make_step(spec, settings, mesh, steps=steps)
    feed = Feed.of(spec, data.inputs, data.targets, mesh, pace.batch_size)
    add = jax.jit(lambda sums, report: jax.tree.map(jnp.add, sums, report), donate_argnums=0)
    for epoch in _epochs(progress.epoch, last, stopper):
        started, before = time.monotonic(), progress.done * size
        order = sample_order(samples, shuffle=spec.shuffle, seed=settings.seed, epoch=epoch)
        for inputs, targets in feed.batches(order[progress.done * size :], (settings.seed, epoch)):
            progress.state, report = step(progress.state, inputs, targets)
            progress.sums = add(progress.sums, report)
            progress.done += 1
            saver.after_step(progress, step=(epoch - 1) * per_epoch + progress.done)
        loss, decay, braked = (float(value) for value in progress.sums)
        # Floored logarithms keep a loss finite for long; runaway weights show in their decay first.
        if not np.isfinite(loss + decay):
            raise NonFiniteError((epoch - 1) * per_epoch + 1, epoch * per_epoch)
        seconds = time.monotonic() - started
        progress.epoch, progress.done, progress.sums = epoch + 1, 0, _zeros(mesh)
        bring = partial(in_order, progress.state, spec, mesh)
        judged = None if stopper is None else stopper.after_epoch(epoch, bring)
        over = epoch == last or (stopper is not None and stopper.ended)
        if epoch % settings.report_every == 0 or over:
            tell(
                EpochReport(
                    epoch=epoch,
                    epochs=last,
                    step=epoch * per_epoch,
                    loss=loss / samples,
                    regularization=decay / samples,
                    seconds=seconds,
                    samples_per_second=max(samples - before, 0) / seconds,
                    seconds_left=(time.monotonic() - started) * (last - epoch) * (not over),
                    braked=int(braked),
                    judged=judged,
                    refit=until is not None,
                )
            )
        after_epoch(epoch, bring)
        saver.after_epoch(progress, over=over)
    return _result(progress, spec, mesh, stopper)


def find_devices(at_least: int = 1) -> list[Any]:
    """The devices JAX sees; `DevicesMissing` if they are fewer than promised, or of none of the platforms
    asked for.
    """
    _keep_programs()
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


def _keep_programs() -> None:
    """Let JAX keep what it compiled for the next run on this kind of processor, unless the user says otherwise."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = cache_folder() / "jax" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING_SECONDS)


def _processor() -> str:
    """A name for what this processor can do: a program compiled for another may not run here."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = platform.processor()
    lines = sorted({line for line in text.splitlines() if line.startswith(("flags", "Features", "model name"))})
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


class _Saver:
    """Leaves checkpoints and finds them again; does nothing where none are wanted."""

    def __init__(
        self, wanted: Checkpoints | None, fingerprint: Callable[[], str], stopper: Stopper | None = None
    ) -> None:
        self._wanted, self._stopper, self._last = wanted, stopper, time.monotonic()
        self._fingerprint = "" if wanted is None else fingerprint()

    def load(
        self, specs: tuple[NetworkSpec, NetworkSpec], settings: TrainSettings, mesh: Mesh, *, steps: int
    ) -> _Progress | None:
        """Where the training was when it last left a checkpoint, of a network without deals and with them."""
        plain, spec = specs
        saved = None if self._wanted is None else checkpoint.latest(self._wanted.folder)
        if saved is None:
            return None
        if saved.about.get("fingerprint") != self._fingerprint:
            raise InputError(
                f"{saved.path}: this checkpoint is of another network, other data or other settings; "
                "give another folder, or remove it to begin anew"
            )
        epoch, done = int(saved.about["epoch"]), int(saved.about["done"])
        epochs = pace_of(spec.training, settings).epochs
        if epoch - 1 + (done > 0) > epochs:
            raise InputError(
                f"{saved.path}: this checkpoint is of epoch {epoch - (done == 0)}, {epochs} are asked for; "
                "give another folder, or remove it to begin anew"
            )
        like: dict[str, Any] = {"state": abstract_state(spec, settings, mesh, steps=steps), "sums": _zeros(mesh)}
        stopped = saved.about.get("stopper")
        if stopped and stopped["judged"]:
            like["kept"] = shapes_kept(abstract_state(plain, settings, mesh, steps=steps))
        tree = checkpoint.restore(saved, like)
        if self._stopper is not None and stopped:
            self._stopper.restore(stopped, tree.get("kept", {}))
        return _Progress(tree["state"], epoch, done, tree["sums"])

    def after_step(self, progress: _Progress, *, step: int) -> None:
        if self._wanted is None:
            return
        asked = jax.process_count() == 1 and self._wanted.asked_to_end()
        if asked or (self._wanted.steps and step % self._wanted.steps == 0):
            self._save(progress)
        if asked:
            raise _interrupted(progress)

    def after_epoch(self, progress: _Progress, *, over: bool) -> None:
        if self._wanted is None:
            return
        asked = agreed(self._wanted.asked_to_end())
        # What follows a training that is done anew may take as long again.
        ends = over and (self._stopper is None or not self._stopper.rule.refit)
        # Clocks differ between processes, and all save or none.
        if asked or (not ends and agreed(over or time.monotonic() - self._last >= self._wanted.seconds)):
            self._save(progress)
        if asked and not over:
            raise _interrupted(progress)

    def _save(self, progress: _Progress) -> None:
        if self._wanted is None:
            return
        about: dict[str, Any] = {"epoch": progress.epoch, "done": progress.done, "fingerprint": self._fingerprint}
        tree: dict[str, Any] = {"state": progress.state, "sums": progress.sums}
        if self._stopper is not None:
            about["stopper"] = self._stopper.to_json()
            tree |= {"kept": self._stopper.kept} if self._stopper.kept else {}
        checkpoint.save(self._wanted.folder, int(progress.state.step), tree, about=about)
        self._last = time.monotonic()


def _interrupted(progress: _Progress) -> Interrupted:
    after = f"{progress.done} steps of epoch {progress.epoch}" if progress.done else f"epoch {progress.epoch - 1}"
    return Interrupted(f"asked to end, saved after {after}; begun again, the training goes on from there")


def _dealt(spec: NetworkSpec, data: TrainingData, settings: TrainSettings, mesh: Mesh) -> NetworkSpec:
    weights = ON_CPU if mesh.devices.flat[0].platform == "cpu" else ON_ACCELERATOR
    is_local = rates_of(spec, settings).touches_rows_only(mesh.shape["data"])
    return with_deals(spec, _sparse_layers(data), shards=mesh.shape["model"], weights=weights, is_local=is_local)


def _epochs(first: int, last: int, stopper: Stopper | None) -> Iterator[int]:
    for epoch in range(first, last + 1):
        if stopper is not None and stopper.ended:
            return
        yield epoch


def _result(progress: _Progress, spec: NetworkSpec, mesh: Mesh, stopper: Stopper | None) -> TrainState:
    """The last epoch's state, or the best one's, features in order."""
    if stopper is not None and 0 < stopper.best_epoch < progress.epoch - 1:
        return stopper.best(progress.state, mesh)
    return in_order(progress.state, spec, mesh, release=True)


def _begin(spec: NetworkSpec, data: TrainingData, settings: TrainSettings, mesh: Mesh, *, steps: int) -> _Progress:
    state = create_state(spec, settings, mesh, biases=_log_odds(spec, data.targets), steps=steps)
    return _Progress(state, 1, 0, _zeros(mesh))


def _sparse_layers(data: TrainingData) -> set[str]:
    roles = (*data.inputs.items(), *data.targets.items())
    return {name for name, dataset in roles if isinstance(dataset, SparseDataset)}


def _zeros(mesh: Mesh) -> StepReport:
    zeros = StepReport(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))
    return placed(zeros, NamedSharding(mesh, P()))


def _fingerprint(spec: NetworkSpec, data: TrainingData, settings: TrainSettings, stopper: Stopper | None) -> str:
    """Of everything that decides the weights at a step, and which of them are kept."""
    idle, pace = {*_IDLE, "batch_size", "epochs"}, pace_of(spec.training, settings)
    asked = spec.optimizer or OptimizerSpec()
    # A training may be given more epochs than it had.
    epochs = pace.epochs if asked.schedule is Schedule.COSINE and not asked.steps else None
    lasting = settings.model_dump_json(exclude=idle)
    kept = stopper and (stopper.rule, stopper.about)
    spec = replace(spec, training=UNSTATED)
    digest = hashlib.sha256(f"{spec!r}{lasting}{pace.batch_size}{epochs}{kept}".encode())
    for role in (data.inputs, data.targets):
        for name, dataset in role.items():
            digest.update(name.encode())
            digest.update(digest_of(dataset))
    return digest.hexdigest()


def digest_of(dataset: Dataset) -> bytes:
    """Of everything in a dataset that decides what is learnt from it."""
    digest = hashlib.sha256()
    for part in (getattr(dataset, field.name) for field in fields(dataset) if field.name not in _NAMES):
        if isinstance(part, np.ndarray | Stored):
            digest.update(f"{part.dtype}{part.shape}".encode())
            for block in blocks(part):
                digest.update(np.ascontiguousarray(block).view(np.uint8).data)
        else:
            digest.update(repr(part).encode())
    return digest.digest()


def _log_odds(spec: NetworkSpec, targets: Mapping[str, Dataset]) -> dict[str, npt.NDArray[np.float32]]:
    """Log-odds of each feature's share of the samples, [width], for Output layers that begin there."""
    found: dict[str, npt.NDArray[np.float32]] = {}
    for layer in spec.outputs:
        if not layer.weight_init.log_odds:
            continue
        dataset = targets[layer.name]
        if not isinstance(dataset, SparseDataset):
            raise InputError(f"layer {layer.name}: LogOdds needs sparse targets, dataset {dataset.name} is dense")
        counts = np.zeros(layer.width, np.int64)
        for block in blocks(dataset.indices):
            counts += np.bincount(block, minlength=layer.width)
        # Half a sample more on either side keeps features that nobody or everybody has finite.
        share = (counts + 0.5) / (dataset.samples + 1.0)
        found[layer.name] = np.log(share / (1.0 - share)).astype(np.float32)
    return found
