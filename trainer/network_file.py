"""The trained network as a value, and as DSSTNE's network NetCDF (`gl.nc`, spec section 6): every attribute
by name and type, weights flat and row-major [in][out]. What DSSTNE has no place for travels in extra
attributes, which its readers ignore.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import netCDF4
import numpy as np
import numpy.typing as npt

from trainer.errors import DataError
from trainer.filing import replacing
from trainer.network import (
    Activation,
    ErrorFunction,
    LayerKind,
    LayerSpec,
    MarginalScale,
    NetworkKind,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    ResponseNormalization,
    Sparseness,
    WeightInit,
    WeightScheme,
)
from trainer.network_names import ACTIVATIONS_COMPUTED, SUPPORTED_ERROR_FUNCTIONS, fits_output

_VERSION = 0.9
_SPARSE, _DENOISING, _BATCH_NORMALIZATION = 1, 2, 4
_NONE_OR_ONE = (
    ("Ny", 1), ("Nz", 1), ("Nw", 1), ("dimensions", 1), ("kernelX", 1), ("kernelY", 1), ("kernelZ", 1),
    ("kernelDimensions", 1), ("kernelStrideX", 1), ("kernelStrideY", 1), ("kernelStrideZ", 1),
    ("kernelPaddingX", 0), ("kernelPaddingY", 0), ("kernelPaddingZ", 0),
)  # fmt: skip
"""Attributes of every layer that say nothing about a fully connected one."""
_ABSENT = -1.0
"""Stands for `None` among the numbers of an optimizer."""

Choice = TypeVar("Choice", bound=IntEnum)


class Connection(NamedTuple):
    """What leads into a layer."""

    kernel: npt.NDArray[np.float32]
    """[in, out]"""
    bias: npt.NDArray[np.float32]
    """[out]"""


def write_network(path: Path, spec: NetworkSpec, connections: Sequence[Connection]) -> None:
    """Write a network whose widths are resolved, aside and renamed; one connection a layer but the first."""
    with replacing(path) as aside, netCDF4.Dataset(aside, "w", format="NETCDF4") as file:
        put = _Putter(file, "")
        _write_globals(put, spec, len(connections))
        for number, layer in enumerate(spec.layers):
            _write_layer(_Putter(file, f"layer{number}_"), layer, spec)
        pairs = zip(spec.layers[:-1], spec.layers[1:], connections, strict=True)
        for number, (before, layer, connection) in enumerate(pairs):
            _write_connection(file, number, (before, layer), connection)


def read_network_file(path: Path) -> tuple[NetworkSpec, tuple[Connection, ...]]:
    """The network of a file that obeys spec section 6, as far as this trainer computes it; anything else
    raises `DataError`.
    """
    try:
        file = netCDF4.Dataset(path, "r")
    except OSError as error:
        raise DataError(f"cannot be opened as a network file: {error.strerror or error}", path) from error
    with file:
        file.set_auto_mask(False)
        get = _Getter(file, path, "")
        layers = [_read_layer(_Getter(file, path, f"layer{n}_"), n) for n in range(get.integer("layers"))]
        if len(layers) < 2 or get.integer("weights") != len(layers) - 1:
            raise DataError(f"{len(layers)} layers and {get.integer('weights')} weights are no chain", path)
        spec = _read_globals(get, tuple(layers))
        pairs = enumerate(pairwise(layers))
        _check_computed(spec, layers, path)
        return spec, tuple(_read_connection(file, path, n, before, layer) for n, (before, layer) in pairs)


class _Putter:
    """Writes attributes of one prefix, each with the type its reader wants."""

    def __init__(self, file: Any, prefix: str) -> None:
        self._file, self._prefix = file, prefix

    def text(self, name: str, value: str) -> None:
        # Bytes are stored as NC_CHAR, also where they are not ASCII.
        self._file.setncattr(self._prefix + name, np.bytes_(value.encode()))

    def unsigned(self, name: str, value: int) -> None:
        self._file.setncattr(self._prefix + name, np.uint32(value))

    def signed(self, name: str, value: int) -> None:
        self._file.setncattr(self._prefix + name, np.int32(value))

    def size(self, name: str, value: int) -> None:
        self._file.setncattr(self._prefix + name, np.uint64(value))

    def number(self, name: str, value: float) -> None:
        self._file.setncattr(self._prefix + name, np.float32(value))


class _Getter:
    """Reads attributes of one prefix."""

    def __init__(self, file: Any, path: Path, prefix: str) -> None:
        self._file, self.path, self._prefix = file, path, prefix

    def has(self, name: str) -> bool:
        return self._prefix + name in self._file.ncattrs()

    def _value(self, name: str) -> Any:
        if not self.has(name):
            raise DataError(f"has no attribute {self._prefix}{name}; is it a network file?", self.path)
        return self._file.getncattr(self._prefix + name)

    def text(self, name: str) -> str:
        return str(self._value(name))

    def integer(self, name: str, default: int | None = None) -> int:
        return default if default is not None and not self.has(name) else int(self._value(name))

    def number(self, name: str, default: float | None = None) -> float:
        if default is not None and not self.has(name):
            return default
        # The shortest decimal that gives the same float32: 0.2 and not 0.20000000298.
        return float(str(np.float32(self._value(name))))

    def choice(self, name: str, kind: Callable[[int], Choice]) -> Choice:
        value = self.integer(name)
        try:
            return kind(value)
        except ValueError as error:
            raise DataError(f"{self._prefix}{name} is {value}, which names nothing", self.path) from error


def _write_globals(put: _Putter, spec: NetworkSpec, connections: int) -> None:
    put.number("version", _VERSION)
    put.text("name", spec.name)
    put.unsigned("kind", spec.kind)
    put.unsigned("errorFunction", spec.loss)
    put.signed("maxout_k", spec.maxout_k)
    put.number("decay", spec.decay)
    normalization = spec.response_normalization
    put.number("LRN_k", normalization.k)
    put.signed("LRN_n", normalization.n)
    put.number("LRN_alpha", normalization.alpha)
    put.number("LRN_beta", normalization.beta)
    put.unsigned("bSparsenessPenalty", spec.sparseness.beta > 0)
    put.number("sparsenessPenalty_p", spec.sparseness.p)
    put.number("sparsenessPenalty_beta", spec.sparseness.beta)
    put.unsigned("bDenoising", spec.denoising > 0)
    put.number("denoising_p", spec.denoising)
    put.number("deltaBoost_one", 1.0)
    put.number("deltaBoost_zero", 1.0)
    put.number("SMCE_oneScale", spec.marginal.one_scale)
    put.number("SMCE_zeroScale", spec.marginal.zero_scale)
    put.number("SMCE_oneTarget", spec.marginal.one_target)
    put.number("SMCE_zeroTarget", spec.marginal.zero_target)
    put.unsigned("ShuffleIndices", spec.shuffle)
    put.unsigned("layers", len(spec.layers))
    put.unsigned("weights", connections)
    if spec.optimizer is not None:
        put.unsigned("optimizer", spec.optimizer.name)
        for name, value in _optimizer_numbers(spec.optimizer):
            put.number(name, _ABSENT if value is None else value)


def _optimizer_numbers(optimizer: OptimizerSpec) -> tuple[tuple[str, float | None], ...]:
    return (
        ("optimizer_learningRate", optimizer.learning_rate),
        ("optimizer_weightDecay", optimizer.weight_decay),
        ("optimizer_momentum", optimizer.momentum),
        ("optimizer_momentum2", optimizer.momentum2),
    )


def _write_layer(put: _Putter, layer: LayerSpec, spec: NetworkSpec) -> None:
    is_denoising = layer.kind is LayerKind.INPUT and layer.sparse and spec.denoising > 0
    put.text("name", layer.name)
    put.unsigned("kind", layer.kind)
    put.unsigned("type", 0)
    put.unsigned("poolingfunction", 0)
    put.text("dataSet", layer.dataset)
    put.unsigned("Nx", layer.width)
    for name, value in _NONE_OR_ONE:
        put.unsigned(name, value)
    put.number("pDropout", layer.dropout)
    put.unsigned("weightInit", layer.weight_init.scheme)
    put.number("weightInitScale", layer.weight_init.scale)
    put.number("biasInit", layer.weight_init.bias)
    put.number("weightNorm", 0.0)
    put.number("deltaNorm", 0.0)
    put.unsigned("activation", layer.activation)
    put.number("sparsenessPenalty_p", layer.sparseness.p)
    put.number("sparsenessPenalty_beta", layer.sparseness.beta)
    put.number("RELUSlope", layer.relu_slope)
    put.number("ELUAlpha", layer.elu_alpha)
    put.number("SELULambda", layer.selu_lambda)
    put.unsigned("attributes", (_SPARSE if layer.sparse else 0) | (_DENOISING if is_denoising else 0))
    put.unsigned("sources", len(layer.sources))
    for number, source in enumerate(layer.sources):
        put.text(f"source{number}", source)
    put.unsigned("skips", 0)
    if layer.normalize:
        put.unsigned("normalize", 1)
    if layer.weight_init.log_odds:
        put.unsigned("biasInitLogOdds", 1)


def _write_connection(file: Any, number: int, ends: tuple[LayerSpec, LayerSpec], connection: Connection) -> None:
    before, layer = ends
    prefix = f"weight{number}_"
    put = _Putter(file, prefix)
    put.text("inputLayer", before.name)
    put.text("outputLayer", layer.name)
    put.size("width", layer.width)
    put.size("height", before.width)
    for name in ("length", "depth", "breadth"):
        put.size(name, 1)
    put.unsigned("bShared", 0)
    put.unsigned("bLocked", 0)
    put.number("norm", 0.0)
    for name, values in (("bias", connection.bias), ("weight", connection.kernel.reshape(-1))):
        file.createDimension(f"{prefix}{name}Dim", len(values))
        variable = file.createVariable(
            f"{prefix}{'weights' if name == 'weight' else name}", "f4", (f"{prefix}{name}Dim",), contiguous=True
        )
        variable[:] = np.asarray(values, np.float32)


def _read_globals(get: _Getter, layers: tuple[LayerSpec, ...]) -> NetworkSpec:
    return NetworkSpec(
        name=get.text("name"),
        layers=layers,
        kind=get.choice("kind", NetworkKind),
        loss=get.choice("errorFunction", ErrorFunction),
        marginal=MarginalScale(
            one_target=get.number("SMCE_oneTarget"),
            zero_target=get.number("SMCE_zeroTarget"),
            one_scale=get.number("SMCE_oneScale"),
            zero_scale=get.number("SMCE_zeroScale"),
        ),
        denoising=get.number("denoising_p") if get.integer("bDenoising") else 0.0,
        sparseness=_read_sparseness(get, on=bool(get.integer("bSparsenessPenalty"))),
        shuffle=bool(get.integer("ShuffleIndices")),
        decay=get.number("decay", 0.0),
        optimizer=_read_optimizer(get),
        response_normalization=ResponseNormalization(
            k=get.number("LRN_k"),
            n=get.integer("LRN_n"),
            alpha=get.number("LRN_alpha"),
            beta=get.number("LRN_beta"),
        ),
        maxout_k=get.integer("maxout_k"),
    )


def _check_computed(spec: NetworkSpec, layers: Sequence[LayerSpec], path: Path) -> None:
    """Refuse what the JSON language would refuse, so that nothing is computed otherwise than asked."""
    kinds = [LayerKind.INPUT, *[LayerKind.HIDDEN] * (len(layers) - 2), LayerKind.OUTPUT]
    if [layer.kind for layer in layers] != kinds:
        raise DataError("the layers are not one Input, Hidden layers and one Output in this order", path)
    for number, layer in enumerate(layers[1:], start=1):
        last = number == len(layers) - 1
        if layer.activation not in ACTIVATIONS_COMPUTED or (layer.activation is Activation.SOFT_MAX and not last):
            raise DataError(f"layer{number}_activation {layer.activation.name} is not computed yet", path)
    if spec.loss not in SUPPORTED_ERROR_FUNCTIONS or not fits_output(spec.loss, spec.output.activation):
        raise DataError(f"errorFunction {spec.loss.name} on {spec.output.activation.name} is not computed yet", path)


def _read_sparseness(get: _Getter, *, on: bool = True) -> Sparseness:
    return Sparseness(get.number("sparsenessPenalty_p"), get.number("sparsenessPenalty_beta") if on else 0.0)


def _read_optimizer(get: _Getter) -> OptimizerSpec | None:
    if not get.has("optimizer"):
        return None
    names = [name for name, _ in _optimizer_numbers(OptimizerSpec())]
    numbers = [get.number(name, _ABSENT) for name in names]
    return OptimizerSpec(get.choice("optimizer", OptimizerName), *(None if n == _ABSENT else n for n in numbers))


def _read_layer(get: _Getter, number: int) -> LayerSpec:
    odd = get.integer("type") or get.integer("skips") or get.integer("attributes") & _BATCH_NORMALIZATION
    if odd or get.integer("sources") != (number > 0):
        raise DataError(
            f"layer {get.text('name')}: only chains of plain fully connected layers are computed yet", get.path
        )
    return LayerSpec(
        name=get.text("name"),
        kind=get.choice("kind", LayerKind),
        units=get.integer("Nx") * get.integer("Ny") * get.integer("Nz") * get.integer("Nw"),
        sources=(get.text("source0"),) if number > 0 else (),
        activation=get.choice("activation", Activation),
        sparse=bool(get.integer("attributes") & _SPARSE),
        dataset=get.text("dataSet"),
        weight_init=WeightInit(
            scheme=get.choice("weightInit", WeightScheme),
            scale=get.number("weightInitScale"),
            bias=get.number("biasInit"),
            log_odds=bool(get.integer("biasInitLogOdds", 0)),
        ),
        dropout=get.number("pDropout"),
        sparseness=_read_sparseness(get),
        relu_slope=get.number("RELUSlope"),
        elu_alpha=get.number("ELUAlpha"),
        selu_lambda=get.number("SELULambda"),
        normalize=bool(get.integer("normalize", 0)),
    )


def _read_connection(file: Any, path: Path, number: int, before: LayerSpec, layer: LayerSpec) -> Connection:
    prefix = f"weight{number}_"
    get = _Getter(file, path, prefix)
    if get.integer("bShared") or (get.text("inputLayer"), get.text("outputLayer")) != (before.name, layer.name):
        raise DataError(f"{prefix}inputLayer and outputLayer do not follow the layers", path)
    kernel = _vector(file, path, f"{prefix}weights", before.width * layer.width)
    return Connection(kernel.reshape(before.width, layer.width), _vector(file, path, f"{prefix}bias", layer.width))


def _vector(file: Any, path: Path, name: str, length: int) -> npt.NDArray[np.float32]:
    if name not in file.variables:
        raise DataError(f"has no variable {name}", path)
    values = np.asarray(file.variables[name][:], np.float32)
    if values.shape != (length,):
        raise DataError(f"{name} has shape {values.shape}, ({length},) is wanted", path)
    return values
