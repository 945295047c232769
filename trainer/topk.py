"""The best features of each sample: top-k on every shard, exclusion there, then a merge of the few that are left.
Names are unknown here.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from trainer.layers import activation_function
from trainer.network import Activation, NetworkSpec
from trainer.sparse import SparseBatch
from trainer.state import forward_function

NOBODY = -1
"""Id that stands where a sample has no feature left."""


class Recommendations(NamedTuple):
    """Best first; ties by lower id. Both [batch, k]."""

    ids: jax.Array
    """int32, `NOBODY` where there is none."""
    scores: jax.Array
    """float32 outputs of the network, -inf where there is none."""


Recommend = Callable[[Any, SparseBatch, SparseBatch | None, SparseBatch | None, int], Recommendations]


def make_recommend(spec: NetworkSpec, mesh: Mesh, *, k: int) -> Recommend:
    """`(params, inputs, exclude, multiply, live) -> Recommendations`. Features of `exclude`, and those at or
    beyond `live`, are never listed; those of `multiply` have their score multiplied by its value first. The
    full [batch, features] is never brought to one device.
    """
    forward = forward_function(spec, mesh)
    shards = jax.shard_map(
        partial(_best_of_shard, spec=spec, k=k),
        in_specs=(P("data", "model"), P("data"), P("data"), P()),
        out_specs=P("data", "model"),
    )

    @jax.jit
    def ask(
        params: Any, inputs: SparseBatch, exclude: SparseBatch | None, multiply: SparseBatch | None, live: Any
    ) -> Recommendations:
        found = shards(forward(params, inputs, None).logits, exclude, multiply, live)
        # Shards lie in the order of their features, so that top_k's preference for the earlier holds overall.
        scores, place = jax.lax.top_k(found.scores, min(k, found.scores.shape[1]))
        ids = jnp.where(scores > -jnp.inf, jnp.take_along_axis(found.ids, place, axis=1), NOBODY)
        missing = ((0, 0), (0, k - ids.shape[1]))
        return Recommendations(
            jnp.pad(ids, missing, constant_values=NOBODY), jnp.pad(scores, missing, constant_values=-jnp.inf)
        )

    def recommend(
        params: Any, inputs: SparseBatch, exclude: SparseBatch | None, multiply: SparseBatch | None, live: int
    ) -> Recommendations:
        with jax.set_mesh(mesh):
            return ask(params, inputs, exclude, multiply, jnp.int32(live))

    return recommend


def _best_of_shard(
    logits: jax.Array,
    exclude: SparseBatch | None,
    multiply: SparseBatch | None,
    live: jax.Array,
    *,
    spec: NetworkSpec,
    k: int,
) -> Recommendations:
    units = logits.shape[1]
    first = jax.lax.axis_index("model") * units
    softmax = spec.output.activation is Activation.SOFT_MAX
    output = activation_function(spec.output)
    scores = _softmax(logits, first, spec.output.width) if softmax else output(logits)
    if multiply is not None:
        row, column = multiply.rows, _columns(multiply, first, units)
        old = scores.at[row, column].get(mode="fill", fill_value=0.0)
        scores = scores.at[row, column].set(old * multiply.values, mode="drop")
    scores = jnp.where((jnp.arange(units) + first < live)[None, :], scores, -jnp.inf)
    if exclude is not None:
        scores = scores.at[exclude.rows, _columns(exclude, first, units)].set(-jnp.inf, mode="drop")
    # [batch, units of the shard] -> [batch, k of the shard]
    best, column = jax.lax.top_k(scores, min(k, units))
    return Recommendations(column + first, best)


def _columns(batch: SparseBatch, first: jax.Array, units: int) -> jax.Array:
    """Columns of this shard; what is not its own lies past the last, where nothing is written."""
    column = batch.indices - first
    return jnp.where((column >= 0) & (column < units), column, units)


def _softmax(logits: jax.Array, first: jax.Array, width: int) -> jax.Array:
    # Over all units the network has, as in training; those stored beyond them have no share.
    masked = jnp.where((jnp.arange(logits.shape[1]) + first < width)[None, :], logits, -jnp.inf)
    largest = jax.lax.pmax(masked.max(axis=1, keepdims=True), "model")
    powers = jnp.exp(masked - largest)
    return powers / jax.lax.psum(powers.sum(axis=1, keepdims=True), "model")
