"""The training loop, told in one function. Knows neither flags nor the cloud: it is given a network, data
and a mesh, and tells how every epoch went.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from trainer.data.batches import paired_batches, sample_order
from trainer.errors import DevicesMissing, NonFiniteError
from trainer.network import NetworkSpec
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.sparse import SparseDataset
from trainer.state import TrainState, create_state, make_step


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What the network is shown and what it is asked for, row by row; often one and the same dataset."""

    inputs: SparseDataset
    targets: SparseDataset


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


def train(
    spec: NetworkSpec,
    data: TrainingData,
    settings: TrainSettings,
    *,
    mesh: Mesh,
    tell: Callable[[EpochReport], None],
) -> TrainState:
    """Train `spec` (widths resolved) from its initial weights. `NonFiniteError` as soon as an epoch's loss
    is no finite number.
    """
    samples = data.inputs.samples
    state = create_state(spec, settings, mesh, output_log_odds=_log_odds(spec, data.targets))
    step = make_step(spec, settings, mesh)
    steps = 0
    for epoch in range(1, settings.epochs + 1):
        started, first_step = time.monotonic(), steps + 1
        loss = regularization = jnp.zeros((), jnp.float32)
        order = sample_order(samples, shuffle=spec.shuffle, seed=settings.seed, epoch=epoch)
        for batch in paired_batches(
            data.inputs,
            data.targets,
            batch_size=settings.batch_size,
            shards=settings.data_shards,
            order=order,
        ):
            inputs, targets = to_mesh(batch, mesh)
            state, report = step(state, inputs, targets)
            # Summed on the devices: fetching each would wait for every step.
            loss, regularization = loss + report.loss_sum, regularization + report.regularization_sum
            steps += 1
        mean, decay = float(loss) / samples, float(regularization) / samples
        # Floored logarithms keep a loss finite for long; runaway weights show in their decay first.
        if not np.isfinite(mean + decay):
            raise NonFiniteError(first_step, steps)
        seconds = time.monotonic() - started
        if epoch % settings.report_every == 0 or epoch == settings.epochs:
            tell(
                EpochReport(
                    epoch=epoch,
                    epochs=settings.epochs,
                    step=steps,
                    loss=mean,
                    regularization=decay,
                    seconds=seconds,
                    samples_per_second=samples / seconds,
                    seconds_left=seconds * (settings.epochs - epoch),
                )
            )
    return state


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


def _log_odds(spec: NetworkSpec, targets: SparseDataset) -> npt.NDArray[np.float32] | None:
    """Log-odds of each feature's share of the samples, [width], for an output that begins there."""
    if not spec.output.weight_init.log_odds:
        return None
    counts = np.bincount(targets.indices, minlength=spec.output.width)
    # Half a sample more on either side keeps features that nobody or everybody has finite.
    share = (counts + 0.5) / (targets.samples + 1.0)
    return np.log(share / (1.0 - share)).astype(np.float32)
