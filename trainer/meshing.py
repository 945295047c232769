"""How devices are dealt to the axes `data` and `model` where nobody says: by what a step of the network would pass
between them, and by what they hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from trainer.deal import Deal, is_wide
from trainer.hosts import from_first
from trainer.network_closed_form import trained_part
from trainer.network_types import NetworkSpec, OptimizerName
from trainer.optimizer import rates_of
from trainer.pace import pace_of
from trainer.settings import TrainSettings
from trainer.shapes import weight_shape
from trainer.sharding import make_mesh

_FLOPS_A_BYTE = 500
"""What a GPU computes while a byte passes to its neighbour: from 150 (H100 by NVLink) to 1,100 (A10G by PCIe)."""
_ACROSS = 10
"""How much longer a byte takes to another machine."""
_BYTES_A_START = 1 << 18
"""What would pass in the time in which a collective begins."""
_USABLE = 0.5
"""Share of a device's memory for parameters and optimizer; batches, gradients and temporaries want the rest."""
_COPIES = {OptimizerName.SGD: 1, OptimizerName.ADAM: 3, OptimizerName.ADADELTA: 3}
"""Numbers kept for a weight, itself included; 2 for the others."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a training runs on."""

    devices: int
    processes: int = 1
    memory_bytes: int | None = None
    """Of a device; `None` where it does not say."""


class Choice(NamedTuple):
    """So many shards of a batch, and why."""

    data_shards: int
    reason: str


def mesh_for(
    spec: NetworkSpec, settings: TrainSettings, samples: int, devices: Sequence[Any] | None = None
) -> tuple[Mesh, str]:
    """The mesh of the devices that the settings ask for, else the chosen one, the same in every process; and why, `""`
    where there was no choice. Shapes of `spec` are resolved.
    """
    if settings.data_shards is not None:
        return make_mesh(settings.data_shards, devices), ""
    found = jax.devices() if devices is None else devices
    processes = len({device.process_index for device in found})
    choice = choose(spec, settings, samples, Machine(len(found), processes, _memory_bytes()))
    shards = int(from_first(np.array([choice.data_shards]))[0])
    return make_mesh(shards, found), choice.reason


def choose(spec: NetworkSpec, settings: TrainSettings, samples: int, machine: Machine) -> Choice:
    """The mesh with which a step passes least between devices, of those whose devices hold parameters and optimizer,
    and whose shards divide batch and devices.

    Weights that touch features are spread over `model`: what crosses it is [batch / data, units] of each such matrix
    and way. Gradients cross `data`. Both are sums around a ring. Other layers are computed anew on every shard of
    `model`, which counts as what could have passed meanwhile.
    """
    if machine.devices == 1:
        return Choice(1, "")
    part = trained_part(spec)
    rates, batch = rates_of(part, settings), pace_of(part.training, settings).batch_size
    step = _Step.of(part, batch, machine, _COPIES.get(rates.name, 2))
    if rates.is_local or any(layer.sampling.by for layer in part.outputs):
        return Choice(1, f"{_named(1, machine)}: whole batches change few of the features' weights")
    fitting = [
        shards
        for shards in range(1, min(batch, max(samples, 1), machine.devices) + 1)
        if machine.devices % shards == 0 and batch % shards == 0 and step.fits(shards)
    ]
    costs = {shards: step.passed(shards) for shards in fitting or [1]}
    order = sorted(costs, key=lambda shards: (costs[shards], shards))
    others = [f"; with {_named(shards, machine)} for {costs[shards] / 1e6:,.1f} MB" for shards in order[1:2]]
    said = f"a step passes or waits for {costs[order[0]] / 1e6:,.1f} MB between devices{''.join(others)}"
    return Choice(order[0], said)


def imbalance(popularity: npt.NDArray[np.int64], deal: Deal, devices: int) -> float:
    """Entries of the fullest of so many devices of axis `model`, as a multiple of their mean; `popularity` [features]
    is how many entries each feature has.
    """
    device = deal.place(np.arange(len(popularity))) // (deal.stored // devices)
    entries = np.bincount(device, weights=popularity, minlength=devices)
    return float(entries.max() / max(entries.mean(), 1.0))


@dataclass(frozen=True, slots=True)
class _Step:
    """What a step's traffic depends on."""

    wide: int
    """Weights that touch features."""
    hidden: int
    """The other weights."""
    units: int
    """Of the layers that wide ones lead to or come from, once for each matrix."""
    batch: int
    copies: int
    machine: Machine

    @classmethod
    def of(cls, spec: NetworkSpec, batch: int, machine: Machine, copies: int) -> "_Step":
        wide = hidden = units = 0
        for number, one in enumerate(spec.connections):
            weights = int(np.prod(weight_shape(one.source, one.target))) if one.owner == number else 0
            if is_wide(one.source) or is_wide(one.target):
                wide += weights
                units += one.target.width if is_wide(one.source) else one.source.width
            else:
                hidden += weights
        return cls(wide, hidden, units, batch, copies, machine)

    def fits(self, shards: int) -> bool:
        """Whether a device holds its share of parameters and optimizer."""
        most = self.machine.memory_bytes
        held = 4 * self.copies * (self.wide * shards / self.machine.devices + self.hidden)
        return most is None or held <= _USABLE * most

    def passed(self, shards: int) -> float:
        """Bytes a device sends in a step, and what it could have sent while it works or waits."""
        model, batch = self.machine.devices // shards, self.batch / shards
        is_together = model <= self.machine.devices // self.machine.processes
        along_model = _ring(model, 4 * batch * self.units) * (1 if is_together else _ACROSS)
        gradients = _ring(shards, 4 * (self.wide / model + self.hidden))
        along_data = gradients * (1 if self.machine.processes == 1 else _ACROSS)
        return along_model + along_data + 6 * batch * self.hidden / _FLOPS_A_BYTE


def _ring(devices: int, size: float) -> float:
    """Bytes a device sends for a sum of `size` bytes (Patarasuk and Yuan 2009)."""
    return 0.0 if devices == 1 else 2 * (devices - 1) / devices * size + _BYTES_A_START


def _named(shards: int, machine: Machine) -> str:
    return f"data {shards} × model {machine.devices // shards}"


def _memory_bytes() -> int | None:
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
