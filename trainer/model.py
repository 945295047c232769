"""From `NetworkSpec` to one flax module that returns logits, and between its parameters and the plain
matrices of a network file. Denoising, dropout and the sparseness penalty live here; no loss does.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from trainer.layers import (
    Corruption,
    Dense,
    FeatureOutput,
    Size,
    SparseDense,
    activation_function,
    dropout,
)
from trainer.network import LayerSpec, NetworkSpec, Sparseness
from trainer.network_file import Connection
from trainer.sparse import SparseBatch, round_up


class Forward(NamedTuple):
    """What the network says about a batch."""

    logits: jax.Array
    """[batch, stored output features]"""
    penalty: jax.Array
    """Sparseness penalty, to be added to the mean loss; 0 outside training."""


class Network(nnx.Module):
    """A chain: sparse input, dense hidden layers, features."""

    def __init__(self, spec: NetworkSpec, *, shards: int, rng: jax.Array) -> None:
        inputs, outputs = stored_sizes(spec, shards=shards)
        rngs = jax.random.split(rng, len(spec.layers))
        middle = spec.layers[1:-1]
        first = spec.layers[1]
        units = Size(first.width, first.width) if middle else outputs
        self.spec = spec
        self.input = SparseDense(inputs, units, init=first.weight_init, rng=rngs[1])
        self.hidden = nnx.List(
            [
                Dense(before.width, layer.width, init=layer.weight_init, rng=rngs[position])
                for position, (before, layer) in enumerate(pairwise(middle), start=2)
            ]
        )
        last = spec.output.weight_init
        self.output = FeatureOutput(middle[-1].width, outputs, init=last, rng=rngs[0]) if middle else None

    def __call__(self, batch: SparseBatch, *, rng: jax.Array | None = None) -> Forward:
        """Logits of a batch; with `rng` as in training: denoised, with dropout, with the penalty."""
        corruption = Corruption(self.spec.input.normalize, self._denoising(), rng)
        sums = self.input(batch, corruption=corruption)
        penalty = jnp.zeros((), jnp.float32)
        if self.output is None:
            return Forward(jax.lax.with_sharding_constraint(sums, P("data", "model")), penalty)
        for position, layer in enumerate(self.spec.layers[1:-1]):
            sums = sums if position == 0 else self.hidden[position - 1](sums)
            sums = activation_function(layer)(sums)
            if rng is not None:
                sums = _dropped(layer, sums, jax.random.fold_in(rng, position))
                penalty = penalty + _layer_penalty(self.spec, layer, sums, batch.sample_mask)
        return Forward(self.output(sums), penalty)

    def _denoising(self) -> float:
        return self.spec.denoising if self.spec.input.sparse else 0.0

    def set_output_bias(self, bias: jax.Array) -> None:
        """Replace the biases of the output layer, [stored output features]."""
        (self.input if self.output is None else self.output).bias[...] = bias


def stored_sizes(spec: NetworkSpec, *, shards: int) -> tuple[Size, Size]:
    """Sizes of the input and output features, stored so that they divide by `shards`."""
    inputs, outputs = spec.input.width, spec.output.width
    return Size(inputs, round_up(inputs, shards)), Size(outputs, round_up(outputs, shards))


def to_connections(spec: NetworkSpec, params: Mapping[str, Any]) -> tuple[Connection, ...]:
    """Parameters, gathered on the host, as matrices [in, out], padding stripped."""
    last = len(spec.layers) - 2
    parts = [params["input"], *(params["hidden"][number] for number in range(max(last - 1, 0)))]
    parts += [params["output"]] if last > 0 else []
    connections: list[Connection] = []
    for number, (before, layer, part) in enumerate(zip(spec.layers[:-1], spec.layers[1:], parts, strict=True)):
        kernel, bias = jax.device_get((part["kernel"], part["bias"]))
        matrix = kernel.T if number == last and last > 0 else kernel
        connections.append(Connection(matrix[: before.width, : layer.width], bias[: layer.width]))
    return tuple(connections)


def from_connections(
    spec: NetworkSpec, connections: Sequence[Connection], *, shards: int
) -> dict[str, dict[str, np.ndarray]]:
    """Host arrays by module path (`hidden/0`) and name, padded for `shards`; inverse of `to_connections`."""
    inputs, outputs = stored_sizes(spec, shards=shards)
    last = len(connections) - 1
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for position, (kernel, bias) in enumerate(connections):
        path = "input" if position == 0 else "output" if position == last else f"hidden/{position - 1}"
        rows = inputs.stored if position == 0 else kernel.shape[0]
        columns = outputs.stored if position == last else kernel.shape[1]
        padded = np.pad(kernel, ((0, rows - kernel.shape[0]), (0, columns - kernel.shape[1])))
        arrays[path] = {
            "kernel": padded.T if path == "output" else padded,
            "bias": np.pad(bias, (0, columns - len(bias))),
        }
    return arrays


def _dropped(layer: LayerSpec, activations: jax.Array, rng: jax.Array) -> jax.Array:
    return dropout(layer, activations, rng) if layer.dropout > 0 else activations


def _layer_penalty(spec: NetworkSpec, layer: LayerSpec, activations: jax.Array, mask: jax.Array) -> jax.Array:
    if spec.sparseness.beta <= 0 or not layer.sparse:
        return jnp.zeros((), jnp.float32)
    own, common = layer.sparseness, spec.sparseness
    chosen = Sparseness(own.p if own.p > 0 else common.p, own.beta if own.beta > 0 else common.beta)
    return sparseness_penalty(chosen, activations, mask)


def sparseness_penalty(sparseness: Sparseness, activations: jax.Array, mask: jax.Array) -> jax.Array:
    """beta · Σ_units KL(p ‖ m), m the mean activation over the real samples (DSSTNE spec 5.6).

    m is clipped to [1e-6, 0.999999] where the formula needs it, and the gradient passes the clip,
    as DSSTNE adds beta (-p/m + (1 - p)/(1 - m)) whatever m was.
    """
    p = sparseness.p
    # [batch, units] -> [units]
    mean = (activations * mask[:, None]).sum(axis=0) / jnp.maximum(mask.sum(), 1.0)
    mean = mean + jax.lax.stop_gradient(jnp.clip(mean, 1e-6, 0.999999) - mean)
    divergence = -p * jnp.log(mean) - (1.0 - p) * jnp.log1p(-mean) - _entropy(p)
    return sparseness.beta * divergence.sum()


def _entropy(p: float) -> float:
    return float(-sum(share * np.log(share) for share in (p, 1.0 - p) if share > 0))
