"""The trained network as a value, and as DSSTNE's network NetCDF (`gl.nc`, spec section 6): every attribute by name
and type, weights flat, [in][out] or [filters][channels][z][y][x]. What DSSTNE has no place for travels in extra
attributes, which its readers ignore, and only where it is not the default.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import netCDF4
import numpy as np

from trainer.errors import NetworkError
from trainer.filing import replacing
from trainer.network_attributes import (
    MOST_UNITS,
    OPTIMIZER_FIELDS,
    STOPPING_FIELDS,
    Field,
    Getter,
    Putter,
    opened,
    read_closed_form,
    read_optimizer,
    read_stopping,
    single,
)
from trainer.network_graph import checked
from trainer.network_types import (
    Activation,
    ConnectionSpec,
    ErrorFunction,
    Kernel,
    LayerKind,
    LayerSpec,
    LayerType,
    Negatives,
    NetworkKind,
    NetworkSpec,
    OptimizerSpec,
    PoolingFunction,
    SharedWeights,
    WeightInit,
    WeightScheme,
)
from trainer.pace import EarlyStopping
from trainer.shapes import bias_size, weight_shape, window_padding
from trainer.weights import Connection, Floats, Normalization, Weights

_SPARSE, _DENOISING, _BATCH_NORMALIZATION = 1, 2, 4
_SIDES, _AXES, _SIZES = ("Nx", "Ny", "Nz", "Nw"), "XYZ", ("width", "height", "length", "depth", "breadth")
_SEED = 12134
"""DSSTNE's, for weights that a file leaves to be drawn."""
_MOST_DRAWN = 1 << 27
"""Weights or biases that a file may leave to be drawn: a small file must not take all memory."""
_NETWORK_FIELDS = (
    Field("name", "name", str), Field("kind", "kind", NetworkKind), Field("errorFunction", "loss", ErrorFunction),
    Field("maxout_k", "maxout_k", np.int32), Field("decay", "decay", optional=True),
    Field("LRN_k", "response_normalization.k"), Field("LRN_n", "response_normalization.n", np.int32),
    Field("LRN_alpha", "response_normalization.alpha"), Field("LRN_beta", "response_normalization.beta"),
    Field("sparsenessPenalty_p", "sparseness.p"), Field("sparsenessPenalty_beta", "sparseness.beta"),
    Field("denoising_p", "denoising"), Field("deltaBoost_one", "delta_boost.one"),
    Field("deltaBoost_zero", "delta_boost.zero"), Field("SMCE_oneScale", "marginal.one_scale"),
    Field("SMCE_zeroScale", "marginal.zero_scale"), Field("SMCE_oneTarget", "marginal.one_target"),
    Field("SMCE_zeroTarget", "marginal.zero_target"), Field("ShuffleIndices", "shuffle", bool),
    Field("checkpoint_name", "checkpoint_name", str, extra=True),
    Field("checkpoint_interval", "checkpoint_interval", np.int32, extra=True),
    Field("checkpoint_epochs", "checkpoint_epochs", np.int32, extra=True),
    Field("bfloat16", "bfloat16", bool, extra=True),
    Field("trainingBatchSize", "training.batch_size", int, extra=True),
    Field("trainingEpochs", "training.epochs", int, extra=True),
)  # fmt: skip
_LAYER_FIELDS = (
    Field("name", "name", str), Field("kind", "kind", LayerKind), Field("type", "type", LayerType),
    Field("poolingfunction", "pooling", PoolingFunction, optional=True), Field("dataSet", "dataset", str),
    Field("pDropout", "dropout"), Field("weightInit", "weight_init.scheme", WeightScheme),
    Field("weightInitScale", "weight_init.scale"), Field("biasInit", "weight_init.bias"),
    Field("weightNorm", "weight_norm"), Field("deltaNorm", "delta_norm"),
    Field("activation", "activation", Activation), Field("sparsenessPenalty_p", "sparseness.p"),
    Field("sparsenessPenalty_beta", "sparseness.beta"), Field("RELUSlope", "relu_slope"),
    Field("ELUAlpha", "elu_alpha"), Field("SELULambda", "selu_lambda"),
    Field("normalize", "normalize", bool, extra=True),
    Field("biasInitLogOdds", "weight_init.log_odds", bool, extra=True),
    Field("layerNormalization", "layer_normalization", bool, extra=True),
    Field("lossFunction", "loss", ErrorFunction, extra=True), Field("lossWeight", "loss_weight", extra=True),
    Field("analog", "analog", bool, extra=True), Field("ignoreZero", "ignore_zero", bool, extra=True),
    Field("margin", "contrast.margin", extra=True), Field("temperature", "contrast.temperature", extra=True),
    Field("klWeight", "divergence.weight", extra=True), Field("klAnneal", "divergence.anneal", int, extra=True),
    Field("klPerFeature", "divergence.per_feature", bool, extra=True),
    Field("zeroDiagonal", "zero_diagonal", bool, extra=True), Field("negativeWeight", "negative_weight", extra=True),
    Field("samplingBy", "sampling.by", Negatives, extra=True), Field("samplingCount", "sampling.count", extra=True),
)  # fmt: skip


def write_network(path: Path, spec: NetworkSpec, weights: Weights) -> None:
    """Write a network whose shapes are resolved, aside and renamed; `DataError` if the file cannot hold it."""
    connections = list(zip(spec.connections, weights.connections, strict=True))
    with replacing(path) as aside, netCDF4.Dataset(aside, "w", format="NETCDF4") as file:
        put = Putter(file, path)
        _write_globals(put, spec, len(connections))
        for number, layer in enumerate(spec.layers):
            _write_layer(put.at(f"layer{number}_"), layer, spec)
            _write_norms(put.at(f"layer{number}_"), layer, weights)
        for number, (connection, values) in enumerate(connections):
            owner = None if connection.owner == number else spec.connections[connection.owner]
            _write_connection(put.at(f"weight{number}_"), connection, owner, locked=number in weights.locked)
            _write_values(put.at(f"weight{number}_"), connection, values, own=owner is None)


def read_network_file(path: Path) -> tuple[NetworkSpec, Weights]:
    """The network of a file that obeys spec section 6, layers in the file's order; anything else raises `DataError`.

    An empty vector of weights or biases is drawn as the layer's `WeightInit` says, always the same.
    """
    with opened(path) as get:
        spec, numbers = _read_spec(get)
        parts = enumerate(spec.connections)
        connections = tuple(_read_weights(get.at(f"weight{numbers[n]}_"), c, own=c.owner == n) for n, c in parts)
        its = [(layer, get.at(f"layer{number}_")) for number, layer in enumerate(spec.layers)]
        batch_norms = {layer.name: _read_batch_norm(at, layer) for layer, at in its if layer.batch_normalization}
        layer_norms = {layer.name: _read_layer_norm(at, layer) for layer, at in its if layer.layer_normalization}
        locked = frozenset(n for n in range(len(connections)) if _is_locked(get.at(f"weight{numbers[n]}_")))
        return spec, Weights(connections, batch_norms, layer_norms, locked)


def _write_globals(put: Putter, spec: NetworkSpec, connections: int) -> None:
    put.put("version", 0.9, float)
    put.fields(_NETWORK_FIELDS, spec, NetworkSpec("", ()))
    put.put("bSparsenessPenalty", single(spec.sparseness.beta) > 0)
    put.put("bDenoising", single(spec.denoising) > 0)
    put.put("layers", len(spec.layers))
    put.put("weights", connections)
    if spec.optimizer is not None:
        put.fields(OPTIMIZER_FIELDS, spec.optimizer, OptimizerSpec())
    if spec.training.stopping is not None:
        put.fields(STOPPING_FIELDS, spec.training.stopping, EarlyStopping())


def _write_layer(put: Putter, layer: LayerSpec, spec: NetworkSpec) -> None:
    put.fields(_LAYER_FIELDS, layer, LayerSpec("", LayerKind.INPUT))
    denoises = single(spec.denoising) > 0
    is_denoised = layer.kind is LayerKind.INPUT and layer.sparse and layer.denoised and denoises
    bits = (layer.sparse, _SPARSE), (is_denoised, _DENOISING), (layer.batch_normalization, _BATCH_NORMALIZATION)
    if layer.closed_form is not None:
        put.put("closedForm", layer.closed_form.to_text(), str)
    put.put("attributes", sum(bit for is_set, bit in bits if is_set))
    put.put("dimensions", len(layer.sides))
    for name, side in zip(_SIDES, (*layer.sides, 1, 1, 1), strict=False):
        put.put(name, side)
    _write_kernel(put, layer, spec)
    for name, others in (("source", layer.sources), ("skip", layer.skips)):
        put.put(f"{name}s", len(others))
        for position, other in enumerate(others):
            put.put(f"{name}{position}", other, str)


def _write_kernel(put: Putter, layer: LayerSpec, spec: NetworkSpec) -> None:
    size, stride = layer.kernel.size, layer.kernel.stride[: len(layer.kernel.size)]
    padding = _padding(layer, spec)
    put.put("kernelDimensions", len(size))
    for position, axis in enumerate(_AXES):
        for name, values, default in (("", size, 1), ("Stride", stride, 1), ("Padding", padding, 0)):
            put.put(f"kernel{name}{axis}", values[position] if position < len(values) else default)


def _write_connection(put: Putter, connection: ConnectionSpec, owner: ConnectionSpec | None, *, locked: bool) -> None:
    source, target = connection.source, connection.target
    shape = weight_shape(source, target)
    sizes = shape[::-1] if target.type is LayerType.FULLY_CONNECTED else shape
    put.put("inputLayer", source.name, str)
    put.put("outputLayer", target.name, str)
    for name, size in zip(_SIZES, (*sizes, 1, 1, 1), strict=False):
        put.put(name, size, np.uint64)
    put.put("bLocked", locked)
    put.put("norm", target.weight_norm, float)
    put.put("bShared", owner is not None)
    if owner is not None:
        put.put("bTransposed", connection.transposed)
        put.put("sourceInputLayer", owner.source.name, str)
        put.put("sourceOutputLayer", owner.target.name, str)


def _write_norms(put: Putter, layer: LayerSpec, weights: Weights) -> None:
    if layer.batch_normalization:
        scale, bias, mean, variance = weights.batch_norms[layer.name]
        if mean is None or variance is None:
            raise ValueError(f"layer {layer.name}: a batch normalisation has running statistics")
        put.vectors("bnDim", scaleBN=scale, biasBN=bias, runningMeanBN=mean, runningVarianceBN=variance)
    if layer.layer_normalization:
        norm = weights.layer_norms[layer.name]
        put.vectors("lnDim", scaleLN=norm.scale, biasLN=norm.bias)


def _write_values(put: Putter, connection: ConnectionSpec, values: Connection, *, own: bool) -> None:
    source, target = connection.source, connection.target
    shape, size = weight_shape(source, target), bias_size(target)
    shapes = (None if values.kernel is None else values.kernel.shape, values.bias.shape)
    if shapes != (shape if own else None, (size,)):
        raise ValueError(f"weights from {source.name} to {target.name} have shapes {shapes}, not {shape} and {size}")
    put.vectors("biasDim", bias=values.bias)
    if values.kernel is not None:
        put.vectors("weightDim", weights=values.kernel)


def _read_spec(get: Getter) -> tuple[NetworkSpec, list[int]]:
    """The network, and for each of its connections the number that the file gives it."""
    spec = get.fields(_NETWORK_FIELDS, NetworkSpec("", ()))
    is_denoising, is_penalized = get.value("bDenoising", bool), get.value("bSparsenessPenalty", bool)
    beta = spec.sparseness.beta if is_penalized else min(spec.sparseness.beta, 0.0)
    denoising = _chance(get, "denoising_p", spec.denoising) if is_denoising else 0.0
    layers = _read_layers(get, denoises=denoising > 0)
    numbers = _read_numbers(get, layers)
    layers = [replace(layer, shared=_read_shared(get, layer, numbers)) for layer in layers]
    spec = replace(
        spec,
        layers=tuple(layers),
        denoising=denoising,
        sparseness=replace(spec.sparseness, beta=beta),
        optimizer=read_optimizer(get) if get.has("optimizer") else None,
        training=replace(spec.training, stopping=read_stopping(get) if get.has("earlyStopping") else None),
    )
    _check(get, spec)
    return spec, [numbers[connection.source.name, connection.target.name] for connection in spec.connections]


def _read_layers(get: Getter, *, denoises: bool) -> list[LayerSpec]:
    count = range(get.integer("layers", 1))
    layers = [_read_layer(get.at(f"layer{number}_"), denoises=denoises) for number in count]
    kinds = {layer.name: layer.kind for layer in layers}
    names: set[str] = set()
    for number, layer in enumerate(layers):
        at = get.at(f"layer{number}_")
        if layer.name in names:
            raise at.wrong("name", f"is {layer.name!r}, as of an earlier layer")
        names.add(layer.name)
        if layer.kind is LayerKind.INPUT and layer.sources:
            raise at.wrong("sources", "is not 0, but an Input layer has none")
        if layer.type is LayerType.POOLING and layer.skips:
            raise at.wrong("skips", "is not 0, but a Pooling layer has no sum that a skip could be added to")
        _check_names(at, layer, kinds)
    return layers


def _check_names(get: Getter, layer: LayerSpec, kinds: Mapping[str, LayerKind]) -> None:
    for end, others in (("source", layer.sources), ("skip", layer.skips)):
        for position, other in enumerate(others):
            if other not in kinds:
                raise get.wrong(f"{end}{position}", f"is {other!r}; no layer is called so")
            if kinds[other] is LayerKind.TARGET:
                raise get.wrong(f"{end}{position}", f"is {other!r}, a Target layer, which feeds none")
            if end == "source" and layer.type is not LayerType.POOLING and other in others[:position]:
                raise get.wrong(f"{end}{position}", f"is {other!r}, as an earlier one")


def _read_layer(get: Getter, *, denoises: bool) -> LayerSpec:
    layer = get.fields(_LAYER_FIELDS, LayerSpec("", LayerKind.INPUT))
    _chance(get, "pDropout", layer.dropout)
    bits = get.value("attributes", int)
    windows = get.integer("kernelDimensions", 1, len(_AXES))
    size, stride = (get.integers([f"kernel{name}{axis}" for axis in _AXES])[:windows] for name in ("", "Stride"))
    convolves = layer.type is LayerType.CONVOLUTIONAL
    dimensions = get.integer("dimensions", 1, len(_SIDES))
    shape = _read_sides(get, windows + 1 if convolves else dimensions)
    return replace(
        layer,
        shape=shape,
        sources=get.texts("source"),
        skips=get.texts("skip"),
        sparse=bool(bits & _SPARSE),
        denoised=not (layer.kind is LayerKind.INPUT and denoises and bits & _SPARSE) or bool(bits & _DENOISING),
        batch_normalization=bool(bits & _BATCH_NORMALIZATION),
        kernel=Kernel(size, stride),
        filters=shape[-1] if convolves else 0,
        closed_form=read_closed_form(get) if get.has("closedForm") else None,
    )


def _read_sides(get: Getter, dimensions: int) -> tuple[int, ...]:
    sides = get.integers(_SIDES)
    if math.prod(sides) > MOST_UNITS:
        raise get.wrong("Nx", f"and the other sides make {math.prod(sides)} units; at most {MOST_UNITS} are possible")
    while dimensions < len(sides) and math.prod(sides[dimensions:]) > 1:
        dimensions += 1
    return sides[:dimensions]


def _read_numbers(get: Getter, layers: Sequence[LayerSpec]) -> dict[tuple[str, str], int]:
    """The numbers of matrices by the names of the layers between which they lead."""
    weighted = [layer for layer in layers if layer.type is not LayerType.POOLING]
    ends = {(source, layer.name) for layer in weighted for source in layer.sources}
    count = get.value("weights", int)
    if count != len(ends):
        raise get.wrong("weights", f"is {count}, but the layers have {len(ends)} connections")
    numbers: dict[tuple[str, str], int] = {}
    for number in range(count):
        at = get.at(f"weight{number}_")
        its = (at.value("inputLayer", str), at.value("outputLayer", str))
        if its not in ends or its in numbers:
            raise at.wrong("inputLayer", f"and outputLayer are {its[0]!r} and {its[1]!r}: no connection, or one twice")
        numbers[its] = number
    return numbers


def _is_locked(get: Getter) -> bool:
    return get.has("bLocked") and get.value("bLocked", bool)


def _read_shared(get: Getter, layer: LayerSpec, numbers: Mapping[tuple[str, str], int]) -> tuple[SharedWeights, ...]:
    found: list[SharedWeights] = []
    for source in layer.sources if layer.type is not LayerType.POOLING else ():
        at = get.at(f"weight{numbers[source, layer.name]}_")
        if at.value("bShared", bool):
            lender = (at.value("sourceInputLayer", str), at.value("sourceOutputLayer", str))
            if lender not in numbers:
                raise at.wrong(
                    "sourceInputLayer", f"and sourceOutputLayer are {lender[0]!r} and {lender[1]!r}: no matrix"
                )
            found.append(SharedWeights(source, *lender, at.value("bTransposed", bool)))
    return tuple(found)


def _check(get: Getter, spec: NetworkSpec) -> None:
    """Refuse layers that do not fit each other."""
    try:
        derived = checked(spec)
    except NetworkError as error:
        message = re.sub(r"^\$\.Layers\[(\d+)\][^:]*", r"layer\1", str(error)).replace("$.Layers:", "layers:")
        raise get.error(message) from error
    for number, (layer, own) in enumerate(zip(derived.layers, spec.layers, strict=True)):
        at = get.at(f"layer{number}_")
        padding = tuple(at.integer(f"kernelPadding{axis}") for axis in _AXES)
        if _four(layer.sides) != _four(own.sides):
            raise at.wrong("Nx", f"and the other sides are {own.sides}; from the sources follows {layer.sides}")
        if layer.type is LayerType.CONVOLUTIONAL or layer.pooling in (PoolingFunction.MAX, PoolingFunction.AVERAGE):
            wanted = _padding(layer, spec)
            if padding[: len(wanted)] != wanted:
                raise at.wrong(
                    "kernelPaddingX", f"and its like are {padding[: len(wanted)]}; only {wanted} is computed"
                )


def _padding(layer: LayerSpec, spec: NetworkSpec) -> tuple[int, ...]:
    is_windowed = layer.type is not LayerType.FULLY_CONNECTED and layer.sources
    return window_padding(spec.layer(layer.sources[0]).sides, layer.kernel) if is_windowed else ()


def _read_weights(get: Getter, connection: ConnectionSpec, *, own: bool) -> Connection:
    source, target = connection.source, connection.target
    bias = get.vector("bias", bias_size(target), 0)
    if not len(bias):
        if bias_size(target) > _MOST_DRAWN:
            raise get.wrong("bias", f"is empty; {bias_size(target)} biases to be drawn are more than {_MOST_DRAWN}")
        bias = np.full(bias_size(target), target.weight_init.bias, np.float32)
    if not own:
        return Connection(None, bias)
    shape = weight_shape(source, target)
    kernel = get.vector("weights", math.prod(shape), 0)
    if not len(kernel) and math.prod(shape) > _MOST_DRAWN:
        raise get.wrong("weights", f"is empty; {math.prod(shape)} weights to be drawn are more than {_MOST_DRAWN}")
    kernel = kernel.reshape(shape) if len(kernel) else _drawn(target.weight_init, shape, (source.width, target.width))
    return Connection(kernel, bias)


def _drawn(init: WeightInit, shape: tuple[int, ...], fans: tuple[int, int]) -> Floats:
    """Initial weights by spec 5.12; `fans` are units in and out."""
    rng = np.random.default_rng(_SEED)
    half_ranges = {
        WeightScheme.XAVIER: 0.5 * init.scale * math.sqrt(6.0 / sum(fans)),
        WeightScheme.CAFFE_XAVIER: init.scale * math.sqrt(3.0 / fans[1]),
        WeightScheme.UNIFORM: init.scale,
    }
    if init.scheme in half_ranges:
        return np.float32(half_ranges[init.scheme]) * (2 * rng.random(shape, np.float32) - 1)
    if init.scheme is WeightScheme.CONSTANT:
        return np.full(shape, -init.scale, np.float32)
    if init.scheme is WeightScheme.UNIT_BALL:
        return np.float32(init.scale) * (1 - rng.random(shape, np.float32))
    deviation = 1 / fans[0] if init.scheme is WeightScheme.SELU else init.scale
    return np.float32(deviation) * rng.standard_normal(shape, np.float32)


def _read_batch_norm(get: Getter, layer: LayerSpec) -> Normalization:
    names = ("scaleBN", "biasBN", "runningMeanBN", "runningVarianceBN")
    return Normalization(*(get.vector(name, bias_size(layer)) for name in names))


def _read_layer_norm(get: Getter, layer: LayerSpec) -> Normalization:
    return Normalization(*(get.vector(name, layer.width) for name in ("scaleLN", "biasLN")))


def _chance(get: Getter, name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise get.wrong(name, f"is {value}; 0 or more and less than 1 is wanted")
    return value


def _four(sides: tuple[int, ...]) -> tuple[int, ...]:
    return (*sides, 1, 1, 1)[: len(_SIDES)]
