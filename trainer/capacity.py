"""What a training needs, told before anything is rented: from the compiled step for so many virtual devices, bytes,
flops and collectives of a device, and by roofline the time on GPUs. No device, no data, no prices.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from trainer.compiled import Collective, CompiledProgram
from trainer.data.batches import batch_size_of, capacity_of
from trainer.data.load import load_data
from trainer.deal import ON_ACCELERATOR, deal_of, with_deals
from trainer.errors import SettingsError
from trainer.inputs import read_widest
from trainer.meshing import Machine, choose, imbalance
from trainer.network import parameter_count, resolve_shapes
from trainer.network_closed_form import trained_part
from trainer.network_names import OPTIMIZERS
from trainer.network_types import NetworkSpec, OptimizerName, OptimizerSpec
from trainer.optimizer import rates_of
from trainer.pace import pace_of
from trainer.settings import TrainSettings
from trainer.sharding import make_mesh
from trainer.sparse import round_up
from trainer.state import abstract_arguments, abstract_state, jitted_step

MOST_DEVICES = 64
"""That JAX is made to show at least; the fewest that hold a training are sought up to here."""
USABLE = 0.75
"""Of a GPU's memory, what JAX takes by default
(https://docs.jax.dev/en/latest/gpu_memory_allocation.html)."""
_GIB = 2**30
_MOST_ITEMS = 2**31 - 2**16
"""Below what int32 holds by enough for padding to any mesh."""
_ASSUMPTIONS = (
    "products at the GPU's peak: float32 without TF32, or bfloat16 where the network says so",
    "every argument read once, every result written once, every temporary written and read once",
    "collectives follow computation, as a ring over one machine's links; host and input cost nothing",
    "temporaries as compiled for CPU; a GPU's compiler fuses otherwise",
    f"{USABLE:.0%} of a GPU's memory is usable, which is JAX's default",
)


@dataclass(frozen=True, slots=True)
class DataShape:
    """What is known of the data: all that a step's shapes depend on."""

    items: int
    """Features of every layer whose size is `auto`."""
    samples: int
    per_sample: float
    """Mean non-zeros of a sample."""
    popularity: npt.NDArray[np.int64] | None = None
    """[features] how many samples have each, where data were read."""


@dataclass(frozen=True, slots=True)
class Question:
    """A network, its shapes open, and the data it is to learn from."""

    network: NetworkSpec
    shape: DataShape

    @classmethod
    def of(cls, network: Path, data: Path | None, given: tuple[int, int, float], optimizer: str) -> "Question":
        """The question of a network file, and of `data`, which is read, or else of `given` items, samples and non-zeros
        a sample; `optimizer` replaces the network's own unless it is empty. `SettingsError` where something is missing.
        """
        spec = read_widest(network)
        if optimizer:
            spec = replace(spec, optimizer=replace(spec.optimizer or OptimizerSpec(), name=_optimizer_name(optimizer)))
        if data is not None:
            if any(given):
                raise SettingsError("data: either --data or --items, --samples and --per-sample, not both")
            dataset = load_data(data).dataset
            counts = np.bincount(dataset.indices, minlength=dataset.width)
            return cls(spec, DataShape(dataset.width, dataset.samples, dataset.nnz / max(dataset.samples, 1), counts))
        if not all(given):
            raise SettingsError("items, samples, per_sample: without --data all three must be given, and be above 0")
        return cls(spec, DataShape(*given))


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of GPU. Peaks are the manufacturer's data sheets' for dense products, memory what EC2 states."""

    name: str
    memory_gib: float
    float32_tflops: float
    bfloat16_tflops: float
    memory_gb_per_second: float
    link_gb_per_second: float
    """To the other GPUs of the machine, one direction: NVLink or else PCIe."""


GPUS = (
    # T4 has no bfloat16 units.
    Gpu("T4", 16.0, 8.1, 8.1, 320.0, 16.0),
    Gpu("L4", 22.4, 30.3, 121.0, 300.0, 32.0),
    Gpu("A10G", 22.4, 35.0, 70.0, 600.0, 32.0),
    Gpu("L40S", 44.7, 91.6, 362.0, 864.0, 32.0),
    Gpu("A100-40", 40.0, 19.5, 312.0, 1555.0, 300.0),
    Gpu("A100-80", 80.0, 19.5, 312.0, 2039.0, 300.0),
    Gpu("H100", 80.0, 67.0, 989.0, 3350.0, 450.0),
)


@dataclass(frozen=True, slots=True)
class DeviceBytes:
    """Bytes of one device while a step runs."""

    parameters: int
    """Weights, biases and running statistics."""
    optimizer: int
    batch: int
    """The batch, and the scalars of the state."""
    temporaries: int
    """At their peak, results that take no argument's place included."""

    @property
    def total(self) -> int:
        """Everything."""
        return self.parameters + self.optimizer + self.batch + self.temporaries


@dataclass(frozen=True, slots=True)
class Fit:
    """One kind of GPU: whether so many hold the training, and how long a step would take."""

    gpu: str
    holds: bool
    fewest: int | None
    """Devices that hold it: those asked for, or the data shards times a power of two; `None`: more than JAX shows."""
    step_seconds: float
    epoch_seconds: float
    bound: str
    """What takes longest: compute, memory or collectives."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The answer, for a mesh of `devices`."""

    devices: int
    data_shards: int
    batch_size: int
    parameters: int
    """In the network, padding left out."""
    bytes_per_device: DeviceBytes
    flops_per_step: float
    """Of all devices together."""
    traffic_per_device: int
    """Bytes a step moves between a device and its memory, as assumed."""
    collectives: tuple[Collective, ...]
    steps_per_epoch: int
    gpus: tuple[Fit, ...]
    mesh_reason: str = ""
    """Why the devices are dealt so; `""` where nobody had to choose."""
    imbalance: float | None = None
    """Entries of the fullest device along axis `model`, as a multiple of the mean; `None` where no data were read."""
    assumptions: tuple[str, ...] = _ASSUMPTIONS

    @property
    def collective_bytes(self) -> int:
        """Bytes of a step's collectives on one device."""
        return sum(one.bytes * one.count for one in self.collectives)

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        told = asdict(self)
        told["bytes_per_device"]["total"] = self.bytes_per_device.total
        return told | {"collective_bytes": self.collective_bytes}


def use_virtual_devices(devices: int) -> None:
    """Have JAX make `devices` of the CPU, at least `MOST_DEVICES`. To be called before it has made any."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(devices, MOST_DEVICES))


def capacity(network: NetworkSpec, shape: DataShape, settings: TrainSettings, *, devices: int) -> Capacity:
    """What a training of `network` (shapes open) needs on `devices` devices, of which JAX must show as many. Nothing of
    the size of the network is allocated.
    """
    if not 1 <= devices <= len(jax.devices()):
        raise SettingsError(f"devices: from 1 to {len(jax.devices())} can be asked for, not {devices}")
    if not 1 <= shape.items <= _MOST_ITEMS:
        raise SettingsError(f"items: from 1 to {_MOST_ITEMS:,} fit a 32-bit id, {shape.items:,} do not")
    whole = _resolved(network, shape)
    spec = trained_part(whole)
    if not spec.layers:
        raise SettingsError("network: it has nothing to train; what is fitted in closed form takes the host's memory")
    size = batch_size_of(pace_of(spec.training, settings).batch_size, shape.samples, settings.data_shards or 1)
    settings = settings.model_copy(update={"batch_size": size})
    shards, reason = _shards(spec, settings, devices)
    asked = _compile(spec, shape, settings, devices)
    steps = -(-shape.samples // size)
    fewest = _fewest(spec, shape, settings, {devices: asked.bytes})
    answer = Capacity(
        devices=devices,
        data_shards=shards,
        batch_size=size,
        parameters=parameter_count(whole),
        bytes_per_device=asked.bytes,
        flops_per_step=asked.flops * devices,
        traffic_per_device=asked.traffic,
        collectives=asked.collectives,
        steps_per_epoch=steps,
        gpus=(),
        mesh_reason=reason,
        imbalance=_imbalance(spec, shape, settings, devices),
    )
    return replace(answer, gpus=tuple(_fit(answer, gpu, fewest[gpu.name], bfloat16=spec.bfloat16) for gpu in GPUS))


def capacity_text(answer: Capacity) -> str:
    """The answer, for people."""
    parts, model = answer.bytes_per_device, answer.devices // answer.data_shards
    lines = [
        f"{answer.parameters:,} parameters on {answer.devices} devices (data {answer.data_shards} × model {model}), "
        f"batch {answer.batch_size:,}, {answer.steps_per_epoch:,} steps an epoch",
        *([f"chosen mesh: {answer.mesh_reason}"] if answer.mesh_reason else []),
        *([f"the fullest device has {answer.imbalance:.2f} times the mean entries"] if answer.imbalance else []),
        "",
        "GiB a device",
        *(f"  {name:<12}{size / _GIB:>12,.3f}" for name, size in (*asdict(parts).items(), ("total", parts.total))),
        "",
        f"{answer.flops_per_step:.3e} flops a step on all devices, "
        f"{answer.traffic_per_device / _GIB:,.3f} GiB of memory traffic a device",
        f"{answer.collective_bytes:,} bytes in collectives a step and device",
        *(
            f"  {one.count} × {one.name} {one.shape}, {one.bytes:,} bytes, {one.devices} devices"
            for one in answer.collectives
        ),
        "",
        f"{'GPU':<10}{f'{answer.devices} hold it':>12}{'fewest':>8}{'ms a step':>12}{'s an epoch':>13}  bound by",
        *(_fit_line(fit) for fit in answer.gpus),
        "",
        "Assumed:",
        *(f"  {line}" for line in answer.assumptions),
    ]
    return "\n".join(lines)


def _fit_line(fit: Fit) -> str:
    fewest = f"> {MOST_DEVICES}" if fit.fewest is None else str(fit.fewest)
    return (
        f"{fit.gpu:<10}{'yes' if fit.holds else 'no':>12}{fewest:>8}"
        f"{fit.step_seconds * 1000:>12,.2f}{fit.epoch_seconds:>13,.1f}  {fit.bound}"
    )


def _optimizer_name(text: str) -> OptimizerName:
    known = {name.lower(): value for name, value in OPTIMIZERS.items()}
    if text.lower() not in known:
        raise SettingsError(f"optimizer: {text!r} is none of {', '.join(OPTIMIZERS)}")
    return known[text.lower()]


def _resolved(network: NetworkSpec, shape: DataShape) -> NetworkSpec:
    width = (round_up(shape.items),)
    spec = resolve_shapes(network, {layer.dataset: width for layer in (*network.inputs, *network.outputs)})
    return replace(spec, training=spec.training.over(shape.samples))


class _Compiled(NamedTuple):
    """A compiled step's figures, of one device."""

    bytes: DeviceBytes
    flops: float
    traffic: int
    collectives: tuple[Collective, ...]


def _shards(spec: NetworkSpec, settings: TrainSettings, devices: int) -> tuple[int, str]:
    """Those asked for, or chosen and why."""
    if settings.data_shards is not None:
        return settings.data_shards, ""
    return choose(spec, settings, pace_of(spec.training, settings).batch_size, Machine(devices))


def _mesh(spec: NetworkSpec, settings: TrainSettings, devices: int) -> Mesh:
    return make_mesh(_shards(spec, settings, devices)[0], jax.devices()[:devices])


def _dealt(spec: NetworkSpec, settings: TrainSettings, mesh: Mesh) -> NetworkSpec:
    sparse = [layer.name for layer in spec.layers if layer.sparse]
    is_local = rates_of(spec, settings).touches_rows_only(mesh.shape["data"])
    return with_deals(spec, sparse, shards=mesh.shape["model"], weights=ON_ACCELERATOR, is_local=is_local)


def _imbalance(spec: NetworkSpec, shape: DataShape, settings: TrainSettings, devices: int) -> float | None:
    if shape.popularity is None:
        return None
    mesh = _mesh(spec, settings, devices)
    shards = mesh.shape["model"]
    return imbalance(shape.popularity, deal_of(_dealt(spec, settings, mesh).output, shards), shards)


def _compile(spec: NetworkSpec, shape: DataShape, settings: TrainSettings, devices: int) -> _Compiled:
    mesh = _mesh(spec, settings, devices)
    spec = _dealt(spec, settings, mesh)
    part = pace_of(spec.training, settings).batch_size // mesh.shape["data"]
    arguments = abstract_arguments(spec, settings, mesh, capacity=capacity_of(math.ceil(shape.per_sample * part)))
    with jax.set_mesh(mesh):
        compiled = jitted_step(spec, settings, mesh, steps=1).lower(*arguments).compile()
    memory = compiled.memory_analysis()
    parameters, optimizer = _state_bytes(spec, settings, mesh)
    of_device = DeviceBytes(
        parameters=parameters,
        optimizer=optimizer,
        batch=memory.argument_size_in_bytes - parameters - optimizer,
        temporaries=memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
    )
    program = CompiledProgram(compiled.as_text())
    return _Compiled(
        bytes=of_device,
        flops=compiled.cost_analysis()["flops"] + program.repeated_flops(),
        traffic=memory.argument_size_in_bytes + memory.output_size_in_bytes + 2 * memory.temp_size_in_bytes,
        collectives=tuple(program.collectives(devices)),
    )


def _state_bytes(spec: NetworkSpec, settings: TrainSettings, mesh: Mesh) -> tuple[int, int]:
    """Bytes a device holds of parameters with statistics, and of the optimizer's state."""
    state = abstract_state(spec, settings, mesh, steps=1)
    return _shard_bytes((state.params, state.statistics)), _shard_bytes(state.opt_state)


def _shard_bytes(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def _fewest(
    spec: NetworkSpec, shape: DataShape, settings: TrainSettings, known: dict[int, DeviceBytes]
) -> dict[str, int | None]:
    """By kind of GPU the fewest that hold the training, the data shards doubled again and again; compiles until the
    smallest kind holds it.
    """
    found: dict[str, int | None] = dict.fromkeys(gpu.name for gpu in GPUS)
    doubled = {(settings.data_shards or 1) * 2**power for power in range(MOST_DEVICES.bit_length())}
    for count in sorted(doubled | set(known)):
        if count > len(jax.devices()) or None not in found.values():
            break
        largest = max(USABLE * gpu.memory_gib * _GIB for gpu in GPUS if found[gpu.name] is None)
        if count not in known and _surely_needed(spec, settings, count) > largest:
            continue
        needed = known[count] if count in known else _compile(spec, shape, settings, count).bytes
        for gpu in GPUS:
            if found[gpu.name] is None and _holds(gpu, needed):
                found[gpu.name] = count
    return found


def _surely_needed(spec: NetworkSpec, settings: TrainSettings, devices: int) -> int:
    """Bytes of the state alone, which takes no compiling."""
    return sum(_state_bytes(spec, settings, _mesh(spec, settings, devices)))


def _holds(gpu: Gpu, needed: DeviceBytes) -> bool:
    return needed.total <= USABLE * gpu.memory_gib * _GIB


def _fit(answer: Capacity, gpu: Gpu, fewest: int | None, *, bfloat16: bool) -> Fit:
    """Roofline (Williams, Waterman, Patterson 2009): the longer of computing and moving, then the collectives."""
    tflops = gpu.bfloat16_tflops if bfloat16 else gpu.float32_tflops
    sent = sum(one.count * one.bytes * _ring_factor(one) for one in answer.collectives)
    seconds = {
        "compute": answer.flops_per_step / answer.devices / (tflops * 1e12),
        "memory": answer.traffic_per_device / (gpu.memory_gb_per_second * 1e9),
        "collectives": sent / (gpu.link_gb_per_second * 1e9),
    }
    step = max(seconds["compute"], seconds["memory"]) + seconds["collectives"]
    return Fit(
        gpu=gpu.name,
        holds=_holds(gpu, answer.bytes_per_device),
        fewest=fewest,
        step_seconds=step,
        epoch_seconds=step * answer.steps_per_epoch,
        bound=max(seconds, key=lambda name: seconds[name]),
    )


def _ring_factor(collective: Collective) -> float:
    """Bytes a device sends in a ring, as a multiple of its result's (Patarasuk and Yuan 2009)."""
    n = collective.devices
    passed = (n - 1) / n
    # A reduce-scatter's result is one n-th of what goes around.
    factors = {"all-reduce": 2 * passed, "reduce-scatter": n - 1, "collective-permute": 1.0}
    return factors.get(collective.name, passed)
