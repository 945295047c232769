"""The best features of each sample: top-k on every shard, exclusion there, then a merge of the few that are left.
Names are unknown here.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from trainer.model import Batches
from trainer.network_types import NetworkSpec
from trainer.objective import forward_function
from trainer.sparse import SparseBatch, round_up

_SMALLEST_GROUP = 8
"""Neighbours that are worth being looked at together."""
_ASKED = 4
"""Networks whose compiled question is kept for the next time: validation asks after every epoch."""
NOBODY = -1
"""Id that stands where a sample has no feature left."""


class Recommendations(NamedTuple):
    """Best first; ties by lower id. Both [batch, k]."""

    ids: jax.Array
    """int32, `NOBODY` where there is none."""
    scores: jax.Array
    """float32 outputs of the network, -inf where there is none."""


Learnt = tuple[Any, Any]
"""Parameters and running statistics, as in `TrainState`."""

Recommend = Callable[[Learnt, Batches, SparseBatch | None, SparseBatch | None, int], Recommendations]


@lru_cache(maxsize=_ASKED)
def make_recommend(spec: NetworkSpec, mesh: Mesh, *, k: int, layer: str = "") -> Recommend:
    """`((params, statistics), inputs, exclude, multiply, live) -> Recommendations` from the Output layer `layer`, else
    from `spec.output`. Features of `exclude`, and those at or beyond `live`, are never listed; those of `multiply`
    have their score multiplied by its value first. The full [batch, features] is never brought to one device.
    """
    forward = forward_function(spec, mesh)
    output = spec.layer(layer) if layer else spec.output
    columns = round_up(output.width, mesh.shape["model"])
    shards = jax.shard_map(
        partial(_best_of_shard, k=k),
        in_specs=(P("data", "model"), P("data"), P("data"), P()),
        out_specs=P("data", "model"),
    )

    @jax.jit
    def ask(
        learnt: Learnt, inputs: Batches, exclude: SparseBatch | None, multiply: SparseBatch | None, live: Any
    ) -> Recommendations:
        scores = forward(learnt[0], learnt[1], inputs, None)[0].outputs[output.name]
        scores = jnp.pad(scores, ((0, 0), (0, columns - scores.shape[1])))
        found = shards(scores, exclude, multiply, jnp.minimum(live, output.width))
        # Shards lie in the order of their features, so that top_k's preference for the earlier holds overall.
        scores, place = jax.lax.top_k(found.scores, min(k, found.scores.shape[1]))
        ids = jnp.where(scores > -jnp.inf, jnp.take_along_axis(found.ids, place, axis=1), NOBODY)
        missing = ((0, 0), (0, k - ids.shape[1]))
        return Recommendations(
            jnp.pad(ids, missing, constant_values=NOBODY), jnp.pad(scores, missing, constant_values=-jnp.inf)
        )

    def recommend(
        learnt: Learnt, inputs: Batches, exclude: SparseBatch | None, multiply: SparseBatch | None, live: int
    ) -> Recommendations:
        with jax.set_mesh(mesh):
            return ask(learnt, inputs, exclude, multiply, jnp.int32(live))

    return recommend


def make_outputs(spec: NetworkSpec, mesh: Mesh, *, layer: str) -> Callable[[Learnt, Batches], jax.Array]:
    """`((params, statistics), inputs) -> [batch, units]`: the output of any layer but a sparse Input."""
    forward = forward_function(spec, mesh)
    wanted = spec.layer(layer)

    @jax.jit
    def ask(learnt: Learnt, inputs: Batches) -> jax.Array:
        return forward(learnt[0], learnt[1], inputs, None)[0].outputs[layer][:, : wanted.width]

    def outputs(learnt: Learnt, inputs: Batches) -> jax.Array:
        with jax.set_mesh(mesh):
            return ask(learnt, inputs)

    return outputs


def _best_of_shard(
    scores: jax.Array,
    exclude: SparseBatch | None,
    multiply: SparseBatch | None,
    live: jax.Array,
    *,
    k: int,
) -> Recommendations:
    units = scores.shape[1]
    first = jax.lax.axis_index("model") * units
    if multiply is not None:
        row, column = multiply.rows, _columns(multiply, first, units)
        old = scores.at[row, column].get(mode="fill", fill_value=0.0)
        scores = scores.at[row, column].set(old * multiply.values, mode="drop")
    # top_k would put 0 before -0, which are a tie, and what is no number before all.
    scores = jnp.where(scores == 0.0, 0.0, scores)
    scores = jnp.where(jnp.isnan(scores), jnp.finfo(scores.dtype).min, scores)
    scores = jnp.where((jnp.arange(units) + first < live)[None, :], scores, -jnp.inf)
    if exclude is not None:
        scores = scores.at[exclude.rows, _columns(exclude, first, units)].set(-jnp.inf, mode="drop")
    # [batch, units of the shard] -> [batch, k of the shard]
    best, column = _top(scores, min(k, units))
    return Recommendations(column + first, best)


def _top(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """As `jax.lax.top_k`, by groups of neighbours: what is among the best lies in the `k` groups whose best is best. Of
    ties the earlier groups come first, as their members do.
    """
    batch, units = scores.shape
    size = 1 << round(math.log2(math.sqrt(units / k)))
    if size < _SMALLEST_GROUP:
        return jax.lax.top_k(scores, k)
    groups = -(-units // size)
    grouped = jnp.pad(scores, ((0, 0), (0, groups * size - units)), constant_values=-jnp.inf)
    grouped = grouped.reshape(batch, groups, size)
    chosen = jnp.sort(jax.lax.top_k(grouped.max(axis=2), min(k, groups))[1], axis=1)
    # [batch, k, size] -> [batch, k * size]
    left = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1).reshape(batch, -1)
    best, place = jax.lax.top_k(left, k)
    return best, jnp.take_along_axis(chosen, place // size, axis=1) * size + place % size


def _columns(batch: SparseBatch, first: jax.Array, units: int) -> jax.Array:
    """Columns of this shard; what is not its own lies past the last, where nothing is written."""
    column = batch.indices - first
    return jnp.where((column >= 0) & (column < units), column, units)
