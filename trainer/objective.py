"""What a network computes of a batch, and what a training minimises, as functions of plain parameters. To be called
within `jax.set_mesh(mesh)`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from trainer.dense import DenseBatch
from trainer.losses import Shard, loss_spec, sample_losses
from trainer.model import Batches, Forward, Network, Targets, fused_outputs
from trainer.network_names import takes_logits
from trainer.network_types import LayerSpec, NetworkSpec
from trainer.sparse import SampledBatch, SparseBatch, round_up


class Measured(NamedTuple):
    """What a forward pass tells besides what is minimised. Layers updated block by block are left out."""

    loss_sum: jax.Array
    """Sum over the real samples of their losses."""
    samples: jax.Array
    """How many those are."""
    statistics: dict[str, Any]
    """Running statistics after the batch."""
    outputs: dict[str, jax.Array]
    """By layer, of the sources of what is left out."""


class ForwardFunction:
    """`(params, statistics, batches, rng or None) -> (Forward, statistics)`, to be called within
    `jax.set_mesh(mesh)`.
    """

    def __init__(self, spec: NetworkSpec, mesh: Mesh) -> None:
        shards = mesh.shape["model"]
        abstract = nnx.eval_shape(lambda: Network(spec, shards=shards, rng=jax.random.key(0)))
        self._graph, self._params, self._statistics = nnx.split(abstract, nnx.Param, nnx.BatchStat)

    def __call__(
        self,
        params: Any,
        statistics: Any,
        batches: Batches,
        rng: jax.Array | None,
        probes: Mapping[int, jax.Array] | None = None,
        step: jax.Array | None = None,
    ) -> tuple[Forward, dict[str, Any]]:
        """Every layer of a batch, and the running statistics after it; `probes`, `step` as `Network` takes them."""
        network = self._network(params, statistics)
        said = network(batches, rng=rng, probes=probes, step=step)
        return said, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))

    def into(self, params: Any, statistics: Any, layer: LayerSpec) -> list[tuple[str, jax.Array, jax.Array]]:
        """What leads into a fully connected layer, as `Network` says it."""
        return self._network(params, statistics).into(layer)

    def _network(self, params: Any, statistics: Any) -> Network:
        filled = [jax.tree.map(lambda variable: variable, own) for own in (self._params, self._statistics)]
        nnx.replace_by_pure_dict(filled[0], dict(params))
        nnx.replace_by_pure_dict(filled[1], dict(statistics))
        return nnx.merge(self._graph, *filled)


def forward_function(spec: NetworkSpec, mesh: Mesh) -> ForwardFunction:
    """What computes `spec` on `mesh`."""
    return ForwardFunction(spec, mesh)


def objective_function(spec: NetworkSpec, mesh: Mesh) -> Callable[..., tuple[jax.Array, Measured]]:
    """`(params, statistics, inputs, targets, rng, probes=None, step=None) -> (what is minimised, what was measured on
    the way)`: the mean loss of the real samples plus the penalties of update `step`; with `probes`, as `Network` takes
    them, that of layers which are not updated block by block. To be called within `jax.set_mesh(mesh)`.
    """
    forward = forward_function(spec, mesh)

    def objective(
        params: Any,
        statistics: Any,
        inputs: Batches,
        targets: Targets,
        rng: jax.Array,
        probes: Mapping[int, jax.Array] | None = None,
        step: jax.Array | None = None,
    ) -> tuple[jax.Array, Measured]:
        said, statistics = forward(params, statistics, inputs, rng, probes, step)
        mask = next(iter(targets.values())).sample_mask
        losses, apart = jnp.zeros_like(mask), [] if probes is None else fused_outputs(spec)
        for layer in spec.outputs:
            own = targets[layer.name]
            if layer not in apart and not isinstance(own, SampledBatch):
                losses = losses + layer.loss_weight * output_losses(spec, layer, said, own, mesh)
        summed = jnp.where(mask > 0, losses, 0.0).sum()
        samples = jnp.maximum(mask.sum(), 1.0)
        sources = {name: said.outputs[name] for layer in apart for name in layer.sources}
        return summed / samples + said.penalty, Measured(summed, samples, statistics, sources)

    return objective


def output_losses(
    spec: NetworkSpec, layer: LayerSpec, said: Forward, targets: SparseBatch | DenseBatch, mesh: Mesh
) -> jax.Array:
    """Loss of each sample at one Output layer, [batch]."""
    loss = loss_spec(spec, layer)
    values = (said.sums if takes_logits(loss.loss, loss.activation) else said.outputs)[layer.name]
    columns = round_up(layer.width, mesh.shape["model"])
    values = jnp.pad(values, ((0, 0), (0, columns - values.shape[1])))
    of_targets: Any = P("data")
    if isinstance(targets, DenseBatch):
        missing = columns - targets.values.shape[1]
        targets = targets._replace(values=jnp.pad(targets.values, ((0, 0), (0, missing))))
        weights = None if targets.weights is None else P("data")
        of_targets = DenseBatch(P("data", "model"), P("data"), weights)

    def of_shard(values: jax.Array, targets: SparseBatch | DenseBatch) -> jax.Array:
        first = jax.lax.axis_index("model") * values.shape[1]
        shard = Shard(first, layer.width, "model")
        return sample_losses(loss, values, targets, shard=shard, ignore_zero=layer.ignore_zero)

    return jax.shard_map(of_shard, in_specs=(P("data", "model"), of_targets), out_specs=P("data"))(values, targets)
