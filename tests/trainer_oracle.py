"""What a network computes by DSSTNE's specification, in NumPy and float64, sharing only types with the trainer."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from trainer_graphs import SAMPLES, Given

from trainer.network_types import (
    Activation,
    ErrorFunction,
    Kernel,
    LayerKind,
    LayerSpec,
    LayerType,
    NetworkSpec,
    PoolingFunction,
)
from trainer.weights import Weights

Array = npt.NDArray[np.float64]

Statistics = tuple[Array, Array]
"""Mean and unbiased variance of a batch."""

_EPSILON = 1e-5


class Oracle:
    """A network by DSSTNE spec 5.1 to 5.9 and 5.13, without dropout and denoising, over real samples alone; `noise`
    [samples, units] is what Gaussian layers draw in training, by name.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        weights: Weights,
        given: Mapping[str, Given],
        *,
        training: bool,
        noise: Mapping[str, Array] | None = None,
    ) -> None:
        self._spec, self._weights, self._given, self._training = spec, weights, given, training
        self._noise = noise or {}
        self.sums: dict[str, Array] = {}
        self.outputs: dict[str, Array] = {}
        self.statistics: dict[str, Statistics] = {}
        """By layer that is batch-normalised."""
        for layer in spec.layers:
            self.output(layer.name)

    def output(self, name: str) -> Array:
        """What a layer says, [samples, units]."""
        if name not in self.outputs:
            layer = self._spec.layer(name)
            self.outputs[name] = self._read(layer) if layer.kind is LayerKind.INPUT else self._compute(layer)
        return self.outputs[name]

    def losses(self) -> Array:
        """Loss of each sample, [samples]."""
        return sum((layer.loss_weight * self._losses(layer) for layer in self._spec.outputs), start=np.zeros(SAMPLES))

    def objective(self) -> float:
        """Mean loss and sparseness penalty."""
        sparse = [layer for layer in self._spec.layers if layer.kind is LayerKind.HIDDEN and layer.sparse]
        p, beta = self._spec.sparseness.p, self._spec.sparseness.beta
        penalty = 0.0
        for layer in sparse:
            m = self.outputs[layer.name].mean(axis=0)
            penalty += beta * (p * np.log(p / m) + (1.0 - p) * np.log((1.0 - p) / (1.0 - m))).sum()
        return float(self.losses().mean() + penalty + sum(map(self._divergence, self._spec.layers)))

    def _divergence(self, layer: LayerSpec) -> float:
        """Of a Gaussian layer from the standard normal, annealed to the end."""
        if layer.pooling is not PoolingFunction.GAUSSIAN:
            return 0.0
        mean, log_variance = (self.outputs[name] for name in layer.sources)
        variance = np.exp(log_variance)
        found = (variance + mean**2 - 1.0 - log_variance).sum(axis=1)
        if layer.divergence.per_feature:
            found = found * (self._given[self._spec.input.name].dense != 0).sum(axis=1)
        return layer.divergence.weight * 0.5 * float(found.mean())

    def _read(self, layer: LayerSpec) -> Array:
        given = self._given[layer.name]
        x = given.dense if given.weights is None else given.dense * given.weights[:, None]
        return _of_length_one(x) if layer.normalize else x

    def _compute(self, layer: LayerSpec) -> Array:
        if layer.type is LayerType.POOLING:
            sources = [self.output(name) for name in layer.sources]
            pooled = _pooled(layer, sources, self._spec)
            if layer.name in self._noise:
                pooled = pooled + np.exp(0.5 * sources[1]) * self._noise[layer.name]
            self.sums[layer.name] = pooled
            return pooled
        z = np.zeros((SAMPLES, layer.width))
        for number, connection in enumerate(self._spec.connections):
            if connection.target.name == layer.name:
                z = z + self._product(number)
        z = z + sum((self.output(name) for name in layer.skips), start=np.zeros(()))
        if layer.batch_normalization:
            z = self._batch_normalized(layer, z)
        if layer.layer_normalization:
            scale, bias = self._weights.layer_norms[layer.name][:2]
            z = (z - z.mean(axis=1, keepdims=True)) / np.sqrt(z.var(axis=1, keepdims=True) + _EPSILON) * scale + bias
        self.sums[layer.name] = z
        return _of_length_one(_activated(layer, z)) if layer.normalize else _activated(layer, z)

    def _product(self, number: int) -> Array:
        connection = self._spec.connections[number]
        bias = self._weights.connections[number].bias.astype(np.float64)
        kernel = self._weights.connections[connection.owner].kernel
        assert kernel is not None
        x = self.output(connection.source.name)
        if connection.target.type is LayerType.CONVOLUTIONAL:
            return _convolved(connection.target, x, connection.source, kernel, bias)
        return x @ (kernel.T if connection.transposed else kernel) + bias

    def _batch_normalized(self, layer: LayerSpec, z: Array) -> Array:
        scale, bias, mean, variance = self._weights.batch_norms[layer.name]
        channels = z.reshape(SAMPLES, len(scale), -1)
        if self._training:
            mean, variance = channels.mean(axis=(0, 2)), channels.var(axis=(0, 2))
            self.statistics[layer.name] = mean, channels.var(axis=(0, 2), ddof=1)
        assert mean is not None
        assert variance is not None
        normal = (channels - mean[:, None]) / np.sqrt(variance + _EPSILON)[:, None]
        return (normal * scale[:, None] + bias[:, None]).reshape(z.shape)

    def _losses(self, layer: LayerSpec) -> Array:
        given, a = self._given[layer.name], self.outputs[layer.name]
        t = given.dense
        weights = np.ones(SAMPLES) if given.weights is None else given.weights
        if self._spec.loss_of(layer) is ErrorFunction.L2:
            return weights * (0.5 * (a - t) ** 2).sum(axis=1)
        if layer.activation is Activation.SOFT_MAX:
            stored = np.maximum(t.sum(axis=1, keepdims=True), 1.0)
            return weights * -(t / stored * np.log(a)).sum(axis=1)
        return weights * -(t * np.log(a) + (1.0 - t) * np.log(1.0 - a)).sum(axis=1)


def _activated(layer: LayerSpec, z: Array) -> Array:
    functions: dict[Activation, Callable[[Array], Array]] = {
        Activation.SIGMOID: lambda z: 1.0 / (1.0 + np.exp(-z)),
        Activation.TANH: np.tanh,
        Activation.LINEAR: lambda z: z,
        Activation.SOFT_PLUS: lambda z: np.log1p(np.exp(z)),
        Activation.SOFT_MAX: lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
        Activation.EXPONENTIAL_LINEAR: lambda z: np.where(z > 0, z, layer.elu_alpha * np.expm1(z)),
    }
    return functions[layer.activation](z)


def _of_length_one(x: Array) -> Array:
    return x / np.maximum(np.sqrt((x**2).sum(axis=1, keepdims=True)), 1e-6)


def _patches(x: Array, source: LayerSpec, kernel: Kernel) -> Array:
    """[samples, channels, places …, kernel …], x last in both; what lies outside is not a number (spec 3.3)."""
    dimensions = len(kernel.size)
    sides = source.sides[:dimensions]
    placed = x.reshape(SAMPLES, -1, *sides[::-1])
    stops: list[int] = []
    for axis, (side, size, stride) in enumerate(zip(sides, kernel.size, kernel.stride, strict=True)):
        stops.append(1 if side <= size else side if stride == 1 else (side - size) // stride + 1)
        before = size // 2 if stride == 1 else 0
        around = [(0, 0)] * placed.ndim
        around[-1 - axis] = (before, size)
        placed = np.pad(placed, around, constant_values=np.nan)
    axes = tuple(range(2, 2 + dimensions))
    windows = np.lib.stride_tricks.sliding_window_view(placed, kernel.size[::-1], axes)
    for axis, (stop, stride) in enumerate(zip(stops[::-1], kernel.stride[::-1], strict=True), start=2):
        windows = np.take(windows, np.arange(stop) * stride, axis)
    return windows


def _convolved(layer: LayerSpec, x: Array, source: LayerSpec, filters: npt.NDArray[Any], bias: Array) -> Array:
    patches = np.nan_to_num(_patches(x, source, layer.kernel))
    dimensions = len(layer.kernel.size)
    inside = [1, *range(2 + dimensions, 2 + 2 * dimensions)]
    # [samples, places …, filters] -> [samples, filters, places …]
    sums = np.tensordot(patches, filters.astype(np.float64), (inside, range(1, 2 + dimensions)))
    return np.moveaxis(sums + bias, -1, 1).reshape(SAMPLES, -1)


def _pooled(layer: LayerSpec, sources: list[Array], spec: NetworkSpec) -> Array:
    first, others = sources[0], sources[1:]
    lengths = [np.sqrt((x**2).sum(axis=1)) + 1e-8 for x in sources]
    source = spec.layer(layer.sources[0])
    inside = tuple(range(-len(layer.kernel.size), 0))
    match layer.pooling:
        case PoolingFunction.MAX:
            return np.nanmax(_patches(first, source, layer.kernel), inside).reshape(SAMPLES, -1)
        case PoolingFunction.AVERAGE:
            return np.nanmean(_patches(first, source, layer.kernel), inside).reshape(SAMPLES, -1)
        case PoolingFunction.MAXOUT:
            return np.max(sources, axis=0)
        case PoolingFunction.DOT_PRODUCT:
            return np.stack([(first * x).sum(axis=1) for x in others], axis=1)
        case PoolingFunction.COSINE:
            dots = [(first * x).sum(axis=1) / length for x, length in zip(others, lengths[1:], strict=True)]
            return np.stack(dots, axis=1) / lengths[0][:, None]
        case PoolingFunction.GAUSSIAN:
            return first
        case _:
            return _response(first, source, spec)


def _response(x: Array, source: LayerSpec, spec: NetworkSpec) -> Array:
    own = spec.response_normalization
    maps = x.reshape(SAMPLES, source.sides[-1], -1)
    result = np.empty_like(maps)
    for channel in range(maps.shape[1]):
        around = maps[:, max(channel - own.n // 2, 0) : channel + own.n // 2 + 1]
        squares = (around**2).sum(axis=1)
        result[:, channel] = maps[:, channel] / (own.k + own.alpha / own.n * squares) ** own.beta
    return result.reshape(x.shape)
