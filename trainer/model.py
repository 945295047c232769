"""From `NetworkSpec` to one flax module that computes every layer of a batch, and between its parameters and the plain
matrices of a network file. Denoising, dropout and penalties are applied here; no loss is known.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from trainer.activations import activate, drawn, dropout
from trainer.deal import Deal, deal_of, is_wide
from trainer.dense import DenseBatch
from trainer.hosts import gathered
from trainer.layers import (
    BatchNorm,
    Convolution,
    Corruption,
    LayerNorm,
    Layout,
    Linear,
    keep_diagonal,
    layout_of,
    limit_deltas,
    matmul,
    of_length_one,
    scale_gradient,
    stored_features,
)
from trainer.network_types import (
    Activation,
    ConnectionSpec,
    LayerKind,
    LayerSpec,
    LayerType,
    NetworkSpec,
    PoolingFunction,
)
from trainer.penalties import divergence_penalty, layer_penalty
from trainer.shapes import has_zero_diagonal, topological
from trainer.sparse import SampledBatch, SparseBatch
from trainer.spatial import convolve, pool
from trainer.weights import Connection, Normalization, Weights

_LONG = np.int32(99)
"""Batches that statistics read from a file count for: the next one weighs a hundredth."""

Batch = SparseBatch | DenseBatch
Batches = Mapping[str, Batch]
"""By layer name."""
Targets = Mapping[str, Batch | SampledBatch]
"""By layer name."""


class Forward(NamedTuple):
    """What the network says about a batch; arrays are [batch, columns], columns beyond a layer's width are 0."""

    sums: dict[str, jax.Array]
    """By layer, before the activation."""
    outputs: dict[str, jax.Array]
    """By layer, after activation and dropout."""
    penalty: jax.Array
    """Of sparseness and of Gaussian layers, to be added to the mean loss; 0 outside training."""


class Training(NamedTuple):
    """What a forward pass knows in training only."""

    rng: jax.Array
    mask: jax.Array
    """[batch], 1 for a real sample."""
    samples: jax.Array
    """How many those are."""
    probes: Mapping[int, jax.Array]
    """By connection, added to its product."""
    step: jax.Array | None
    """Updates before this one, for what depends on them."""


class Network(nnx.Module):
    """The graph of layers."""

    def __init__(self, spec: NetworkSpec, *, shards: int, rng: jax.Array) -> None:
        self.spec, self.shards = spec, shards
        self.inputs, self.outputs, self.hidden = nnx.Dict({}), nnx.Dict({}), nnx.Dict({})
        connections = spec.connections
        rngs = jax.random.split(rng, len(connections))
        for number, connection in enumerate(connections):
            own = connection.owner == number
            group: Any = getattr(self, group_of(connection, shards))
            group[str(number)] = (
                Convolution(connection, own=own, rng=rngs[number])
                if connection.target.type is LayerType.CONVOLUTIONAL
                else Linear(connection, own=own, shards=shards, rng=rngs[number])
            )
        self.batch_norms, self.layer_norms = nnx.Dict({}), nnx.Dict({})
        for position, layer in enumerate(spec.layers):
            if layer.batch_normalization:
                self.batch_norms[str(position)] = BatchNorm(_channels(layer))
            if layer.layer_normalization:
                self.layer_norms[str(position)] = LayerNorm(layer.width)

    def __call__(
        self,
        batches: Batches,
        *,
        rng: jax.Array | None = None,
        probes: Mapping[int, jax.Array] | None = None,
        step: jax.Array | None = None,
    ) -> Forward:
        """Every layer of a batch; with `rng` as in training: denoised, with dropout, Gaussian layers drawn, with the
        penalties of update `step`. With `probes` all but the layers that are updated block by block: their sources are
        there, and what input matrices contribute is taken for given, with `probes` [batch, units] by connection added,
        whose gradient is theirs.
        """
        training = None
        if rng is not None:
            mask = next(iter(batches.values())).sample_mask
            training = Training(rng, mask, jnp.maximum(mask.sum(), 1.0), probes or {}, step)
        said = Forward({}, {}, jnp.zeros((), jnp.float32))
        for layer in topological(self.spec.layers):
            if layer.kind is LayerKind.INPUT:
                self._read(layer, batches[layer.name], said, training)
            elif layer.kind is not LayerKind.TARGET and (probes is None or layer.parts == 0):
                said = self._compute(layer, batches, said, training)
        return said

    def into(self, layer: LayerSpec) -> list[tuple[str, jax.Array, jax.Array]]:
        """Source, kernel as `layout_of` has it and bias of every connection into a fully connected layer."""
        leading = [pair for pair in enumerate(self.spec.connections) if pair[1].target.name == layer.name]
        return [(one.source.name, self._kernel(number), self._bias(number, one)) for number, one in leading]

    def _read(self, layer: LayerSpec, batch: Batch, said: Forward, training: Training | None) -> None:
        if isinstance(batch, SparseBatch):
            return
        values = batch.values
        if layer.normalize:
            values = of_length_one(values)
        if training is not None and layer.dropout > 0:
            values = dropout(layer, values, self._kept(layer, values.shape, training))
        missing = deal_of(layer, self.shards).stored - values.shape[1]
        said.outputs[layer.name] = jnp.pad(values, ((0, 0), (0, missing)))

    def _compute(self, layer: LayerSpec, batches: Batches, said: Forward, training: Training | None) -> Forward:
        sums = self._sums(layer, batches, said, training)
        position = str(self.spec.layers.index(layer))
        if layer.batch_normalization:
            sums = self.batch_norms[position](sums, mask=None if training is None else training.mask)
        if layer.layer_normalization:
            sums = self.layer_norms[position](sums)
        if training is not None and layer.delta_norm > 0:
            sums = limit_deltas(sums, training.samples, length=layer.delta_norm)
        if is_wide(layer):
            sums = jax.lax.with_sharding_constraint(sums, P("data", "model"))
        output = sums if layer.type is LayerType.POOLING else activate(layer, sums)
        output = of_length_one(output) if layer.normalize else output
        penalty = said.penalty
        if training is not None and layer.dropout > 0 and layer.type is not LayerType.POOLING:
            kept = self._kept(layer, (sums.shape[0], layer.width), training)
            kept = jnp.pad(kept, ((0, 0), (0, sums.shape[1] - layer.width)), constant_values=True)
            # What is added to every unit of an ELU layer must not reach columns beyond the units.
            live = (jnp.arange(sums.shape[1]) < layer.width)[None, :]
            output = jnp.where(live, dropout(layer, output, kept), 0.0)
            if layer.kind is LayerKind.OUTPUT and layer.activation is Activation.SIGMOID:
                # Losses that take sums see the dropped unit's ½, and pass nothing back through it.
                sums = jnp.where(kept, sums, 0.0)
        if training is not None and layer.kind is LayerKind.HIDDEN:
            penalty = penalty + layer_penalty(self.spec, layer, output, training.mask)
        if training is not None and layer.pooling is PoolingFunction.GAUSSIAN:
            mean, log_variance = self._pooled(layer, batches, said, training)
            features = self._features(batches) if layer.divergence.per_feature else None
            penalty = penalty + divergence_penalty(
                layer.divergence, mean, log_variance, training.mask, training.step, features=features
            )
        said.sums[layer.name], said.outputs[layer.name] = sums, output
        return said._replace(penalty=penalty)

    def _sums(self, layer: LayerSpec, batches: Batches, said: Forward, training: Training | None) -> jax.Array:
        columns = deal_of(layer, self.shards).stored
        parts: list[jax.Array] = []
        if layer.pooling is PoolingFunction.GAUSSIAN:
            mean, log_variance = self._pooled(layer, batches, said, training)
            rng = None if training is None else self._rng(layer, training)
            parts.append(mean if rng is None else drawn(mean, log_variance, rng))
        elif layer.type is LayerType.POOLING:
            values = self._pooled(layer, batches, said, training)
            sides = [self.spec.layer(name).sides for name in layer.sources]
            parts.append(pool(layer.pooling, values, sides, layer.kernel, self.spec.response_normalization))
        for number, connection in enumerate(self.spec.connections):
            if connection.target.name == layer.name:
                batch = batches.get(connection.source.name)
                sparse = batch if isinstance(batch, SparseBatch) else None
                if layer.type is LayerType.FULLY_CONNECTED and sparse is not None:
                    corruption = self._corruption(connection.source, training)
                    probe = None if training is None else training.probes.get(number)
                    kernel = self._kernel(number) if probe is None else jax.lax.stop_gradient(self._kernel(number))
                    product = corruption.product(kernel, sparse, spread=is_wide(layer))
                    product = product if probe is None else product + probe
                else:
                    values = self._output(connection.source.name, batches, said, training)
                    product = self._product(number, connection, values)
                parts.append(product + self._bias(number, connection)[None, :])
        parts += [_fitted(self._output(name, batches, said, training), columns) for name in layer.skips]
        return sum(parts[1:], start=parts[0])

    def _output(self, name: str, batches: Batches, said: Forward, training: Training | None) -> jax.Array:
        if name in said.outputs:
            return said.outputs[name]
        source = self.spec.layer(name)
        return self._corruption(source, training).dense(_sparse(batches[name]), deal_of(source, self.shards).stored)

    def _pooled(self, layer: LayerSpec, batches: Batches, said: Forward, training: Training | None) -> list[jax.Array]:
        """What a layer without weights is made of, [batch, units] of each source."""
        sources = [self.spec.layer(name) for name in layer.sources]
        return [self._output(one.name, batches, said, training)[:, : one.width] for one in sources]

    def _product(self, number: int, connection: ConnectionSpec, values: jax.Array) -> jax.Array:
        kernel, layer, source = self._kernel(number), connection.target, connection.source
        if layer.type is LayerType.CONVOLUTIONAL:
            values = values[:, : source.width]
            if self.spec.bfloat16:
                values, kernel = values.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
            return convolve(values, kernel, source.sides, layer.kernel, out_sides=layer.sides)
        by_output = layout_of(connection, self.shards).by_output
        return matmul(values, kernel, transposed=by_output, bfloat16=self.spec.bfloat16)

    def _kernel(self, number: int) -> jax.Array:
        """The kernel a connection uses, as its own layout stores it."""
        connections = self.spec.connections
        user = connections[number]
        owner = connections[user.owner]
        users = sum(other.owner == user.owner for other in connections)
        kernel = self._part(user.owner, owner).kernel[...]
        if users > 1:
            kernel = scale_gradient(kernel, 1.0 / users)
        if has_zero_diagonal(owner):
            kernel = keep_diagonal(kernel)
        if user.owner == number or user.target.type is LayerType.CONVOLUTIONAL:
            return kernel
        stored, wanted = layout_of(owner, self.shards), layout_of(user, self.shards)
        rows, columns = stored.rows, stored.columns
        if stored.by_output ^ wanted.by_output ^ user.transposed:
            kernel, rows, columns = kernel.T, columns, rows
        kernel = kernel[: rows.units, : columns.units]
        missing = (wanted.rows.stored - rows.units, wanted.columns.stored - columns.units)
        return jnp.pad(kernel, ((0, missing[0]), (0, missing[1])))

    def _bias(self, number: int, connection: ConnectionSpec) -> jax.Array:
        bias = self._part(number, connection).bias[...]
        layer = connection.target
        return jnp.repeat(bias, layer.width // layer.filters) if layer.type is LayerType.CONVOLUTIONAL else bias

    def _part(self, number: int, connection: ConnectionSpec) -> Any:
        return getattr(self, group_of(connection, self.shards))[str(number)]

    def _corruption(self, layer: LayerSpec, training: Training | None) -> Corruption:
        return corruption_of(self.spec, layer, self.shards, None if training is None else training.rng)

    def _features(self, batches: Batches) -> jax.Array:
        """How much the first Input has of each sample, [batch]."""
        batch = batches[self.spec.input.name]
        if isinstance(batch, SparseBatch):
            return stored_features(batch)
        return (batch.values != 0).sum(axis=1).astype(jnp.float32)

    def _rng(self, layer: LayerSpec, training: Training) -> jax.Array:
        return _layer_rng(self.spec, layer, training.rng)

    def _kept(self, layer: LayerSpec, shape: tuple[int, ...], training: Training) -> jax.Array:
        return jax.random.uniform(self._rng(layer, training), shape) >= layer.dropout


def corruption_of(spec: NetworkSpec, layer: LayerSpec, shards: int, rng: jax.Array | None) -> Corruption:
    """What happens to the values of a sparse Input layer; `rng` of the step in training."""
    deal = deal_of(layer, shards)
    p = layer.dropout or (spec.denoising if layer.denoised else 0.0)
    if rng is None or p == 0 or not layer.sparse:
        return Corruption(layer.normalize, 0.0, None, deal)
    return Corruption(layer.normalize, p, _layer_rng(spec, layer, rng), deal)


def fused_outputs(spec: NetworkSpec) -> list[LayerSpec]:
    """The Output layers whose sums, loss and update are made block by block."""
    return [layer for layer in spec.outputs if layer.parts > 0]


def _layer_rng(spec: NetworkSpec, layer: LayerSpec, rng: jax.Array) -> jax.Array:
    return jax.random.fold_in(rng, [one.name for one in spec.layers].index(layer.name))


def group_of(connection: ConnectionSpec, shards: int) -> str:
    """The name under which a connection's parameters stand: `inputs`, `outputs` or `hidden`."""
    convolves = connection.target.type is LayerType.CONVOLUTIONAL
    return "hidden" if convolves else layout_of(connection, shards).group


def to_weights(spec: NetworkSpec, params: Mapping[str, Any], statistics: Mapping[str, Any]) -> Weights:
    """Parameters and running statistics, gathered in every process, padding stripped."""
    connections: list[Connection] = []
    for number, connection in enumerate(spec.connections):
        layout = None if connection.target.type is LayerType.CONVOLUTIONAL else layout_of(connection, 1)
        part = gathered(params[group_of(connection, 1)][str(number)])
        kernel = part.get("kernel")
        bias = part["bias"]
        if layout is not None:
            bias = _in_order(bias, layout.rows if layout.by_output else layout.columns)
        if kernel is not None and layout is not None:
            kernel = _in_order(kernel, layout.rows)[:, : layout.columns.units]
            kernel = kernel.T if layout.by_output else kernel
        connections.append(Connection(kernel, bias))
    return Weights(
        tuple(connections), _norms(spec, "batch_norms", params, statistics), _norms(spec, "layer_norms", params)
    )


def from_weights(spec: NetworkSpec, weights: Weights, *, shards: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Host arrays of parameters and of running statistics, padded for `shards`; inverse of `to_weights`."""
    params: dict[str, Any] = {}
    for number, (connection, (kernel, bias)) in enumerate(zip(spec.connections, weights.connections, strict=True)):
        layout = None if connection.target.type is LayerType.CONVOLUTIONAL else layout_of(connection, shards)
        part = {"bias": bias if layout is None else _padded_bias(bias, layout)}
        if kernel is not None:
            part["kernel"] = kernel if layout is None else _padded_kernel(kernel, layout)
            if has_zero_diagonal(connection):
                np.fill_diagonal(part["kernel"], 0.0)
        params.setdefault(group_of(connection, shards), {})[str(number)] = part
    statistics: dict[str, Any] = {}
    for group, norms in (("batch_norms", weights.batch_norms), ("layer_norms", weights.layer_norms)):
        for position, layer in enumerate(spec.layers):
            if layer.name in norms:
                scale, bias, mean, variance = norms[layer.name]
                params.setdefault(group, {})[str(position)] = {"scale": scale, "bias": bias}
                if mean is not None:
                    found = {"mean": mean, "variance": variance, "count": _LONG}
                    statistics.setdefault(group, {})[str(position)] = found
    return params, statistics


def _norms(
    spec: NetworkSpec, group: str, params: Mapping[str, Any], statistics: Mapping[str, Any] | None = None
) -> dict[str, Normalization]:
    found: dict[str, Normalization] = {}
    for number, part in gathered(params.get(group, {})).items():
        own = gathered((statistics or {}).get(group, {}).get(number, {}))
        learnt = Normalization(part["scale"], part["bias"], own.get("mean"), own.get("variance"))
        found[spec.layers[int(number)].name] = learnt
    return found


def _in_order(stored: np.ndarray, deal: Deal) -> np.ndarray:
    # [places of any mesh, …] -> [units, …]
    return replace(deal, stored=len(stored)).gathered(stored)[: deal.units]


def _padded_kernel(kernel: np.ndarray, layout: Layout) -> np.ndarray:
    stored = kernel.T if layout.by_output else kernel
    missing = (layout.rows.stored - layout.rows.units, layout.columns.stored - layout.columns.units)
    return layout.rows.dealt(np.pad(stored, ((0, missing[0]), (0, missing[1]))))


def _padded_bias(bias: np.ndarray, layout: Layout) -> np.ndarray:
    side = layout.rows if layout.by_output else layout.columns
    return side.dealt(np.pad(bias, (0, side.stored - side.units)))


def _channels(layer: LayerSpec) -> int:
    return layer.filters if layer.type is LayerType.CONVOLUTIONAL else layer.width


def _sparse(batch: Batch) -> SparseBatch:
    if not isinstance(batch, SparseBatch):
        raise TypeError("a dense input is read before the layers that use it")
    return batch


def _fitted(values: jax.Array, columns: int) -> jax.Array:
    """Values of a layer of equal width, with the columns another one stores."""
    cut = values[:, :columns]
    return jnp.pad(cut, ((0, 0), (0, columns - cut.shape[1])))
