"""Rows taken block by block out of a device's share of a wide layer, and put back."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from trainer.dense import DenseBatch
from trainer.losses import Shard
from trainer.network_types import LayerSpec, NetworkSpec
from trainer.sparse import SampledBatch, SparseBatch

Carry = TypeVar("Carry")
Tree = TypeVar("Tree")


class Part(NamedTuple):
    """Parameters that are updated apart from the others, and their optimizer's state. The numbers in it, which count
    updates, go on: whether the batch counts is known only when all layers are done.
    """

    params: Any
    opt_state: Any


class Update(NamedTuple):
    """What decides about an update besides the gradient."""

    rate_scale: jax.Array
    """Factor of the learning rate."""
    before: jax.Array
    """Summed loss of the batch at other layers."""
    limit: jax.Array
    """Summed loss above which the batch is left out."""


class OutputPass(NamedTuple):
    """What a pass over an Output layer has found."""

    part: Part
    losses: jax.Array
    """[batch], the layer's weight and the samples' included."""
    deltas: tuple[jax.Array, ...]
    """By source, [batch, units]."""
    regularization: jax.Array


class Entries(NamedTuple):
    """Entries of a batch, each of one shape; places beyond the rows that are meant, or below 0, are of others."""

    places: jax.Array
    rows: jax.Array
    values: jax.Array

    def brought(self, deltas: jax.Array) -> jax.Array:
        """What each brings to the gradient of its place, [entries, units]."""
        return self.values[:, None] * deltas.at[self.rows].get(mode="fill", fill_value=0.0)


def added(rows: jax.Array, entries: Entries, brought: jax.Array) -> jax.Array:
    """`rows` with what entries bring added at their places."""
    place = jnp.where((entries.places >= 0) & (entries.places < len(rows)), entries.places, len(rows))
    return rows.at[place].add(brought, mode="drop")


def in_turn(blocks: int, of_block: Callable[[jax.Array | int, Carry], Carry], start: Carry) -> Carry:
    """`of_block(block, carry)` for block after block."""
    return of_block(0, start) if blocks == 1 else jax.lax.fori_loop(0, blocks, of_block, start)


class Total(NamedTuple):
    """The sum of e^logit of each sample, as `total` · e^`largest`; [batch, 1] both."""

    largest: jax.Array
    total: jax.Array

    @classmethod
    def none(cls, samples: int) -> "Total":
        """Of no logit yet."""
        return cls(jnp.full((samples, 1), -jnp.inf), jnp.zeros((samples, 1)))

    def with_block(self, logits: jax.Array) -> "Total":
        """With [batch, block] more, -inf where there is none (Milakov and Gimelshein 2018)."""
        larger = jnp.maximum(self.largest, logits.max(axis=1, keepdims=True))
        # Before the first live unit both are -inf.
        floor = jnp.maximum(larger, jnp.finfo(jnp.float32).min)
        sums = jnp.exp(logits - floor).sum(axis=1, keepdims=True)
        return Total(larger, self.total * jnp.exp(self.largest - floor) + sums)

    def over_shards(self) -> "Total":
        """Of the units of all devices."""
        of_all = jax.lax.pmax(self.largest, "model")
        return Total(of_all, jax.lax.psum(self.total * jnp.exp(self.largest - of_all), "model"))


def log_total_over(
    at: Callable[[jax.Array | int], tuple[jax.Array, Shard]], blocks: int, start: jax.Array
) -> jax.Array:
    """Logarithm of the sum of e^logit over all units, [batch, 1], in one pass over the blocks."""

    def of_block(block: jax.Array | int, so_far: Total) -> Total:
        logits, shard = at(block)
        return so_far.with_block(shard.kept(logits, -jnp.inf))

    found = jax.lax.fori_loop(0, blocks, of_block, Total.none(len(start))).over_shards()
    return found.largest + jnp.log(found.total)


def by_source(params: Any) -> list[Any]:
    """Kernel and bias of each connection into an Output layer, in the order of its sources: a tree has its keys, which
    are the connections' numbers, in the order of their digits.
    """
    return [params["outputs"][key] for key in sorted(params["outputs"], key=int)]


def weighted(layer: LayerSpec, targets: SparseBatch | DenseBatch, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The cotangents of samples, and how much their losses count, [batch] each, by their weights."""
    counted = targets.sample_mask * layer.loss_weight
    return (cotangent, counted) if targets.weights is None else (cotangent * targets.weights, counted * targets.weights)


def candidate_rows(targets: SampledBatch, rows: int) -> jax.Array:
    """Which of a device's `rows` the slots of the candidates are, `rows` where they are none; within `shard_map`."""
    local = targets.candidates.reshape(-1) - jax.lax.axis_index("model") * rows
    return jnp.where((local >= 0) & (local < rows), local, rows)


def targets_of(targets: SparseBatch | DenseBatch, block: jax.Array | int, blocks: int) -> SparseBatch | DenseBatch:
    """What a block has to look at of targets."""
    if isinstance(targets, DenseBatch):
        size = targets.values.shape[1] // blocks
        return targets._replace(values=jax.lax.dynamic_slice_in_dim(targets.values, block * size, size, axis=1))
    values = None if targets.values is None else entries_of(targets.values, block, blocks)
    return targets._replace(
        indices=entries_of(targets.indices, block, blocks),
        rows=entries_of(targets.rows, block, blocks),
        values=values,
    )


def entries_of(entries: jax.Array, block: jax.Array | int, blocks: int) -> jax.Array:
    """The entries of a block of whole parts, of [parts, capacity]."""
    return entries.reshape(blocks, -1)[block]


def sliced(tree: Any, start: Any, block: jax.Array | int, size: int) -> Any:
    """The rows of a block; numbers as they were at the start."""
    return jax.tree.map(
        lambda leaf, was: jax.lax.dynamic_slice_in_dim(leaf, block * size, size) if leaf.ndim else was, tree, start
    )


def placed(tree: Any, rows: Any, first: jax.Array | int) -> Any:
    """`tree` with the rows of a block, and the numbers, replaced."""
    return jax.tree.map(
        lambda leaf, own: jax.lax.dynamic_update_slice_in_dim(leaf, own, first, 0) if leaf.ndim else own, tree, rows
    )


def taken(tree: Any, rows: jax.Array) -> Any:
    """Single rows, 0 where there is none; numbers as they are."""
    return jax.tree.map(lambda leaf: leaf.at[rows].get(mode="fill", fill_value=0) if leaf.ndim else leaf, tree)


def returned(tree: Any, own: Any, rows: jax.Array) -> Any:
    """`tree` with single rows, and the numbers, replaced; the inverse of `taken`."""
    return jax.tree.map(lambda leaf, new: leaf.at[rows].set(new, mode="drop") if leaf.ndim else new, tree, own)


def kept_rows(left_out: jax.Array, before: Any, after: Any) -> Any:
    """The rows before where the batch is left out; numbers are for the step to decide."""
    return jax.tree.map(lambda old, new: jnp.where(left_out, old, new) if old.ndim else new, before, after)


def set_apart(is_kept: jax.Array, before: Tree, changed: Callable[[Tree], Tree]) -> Tree:
    """Rows `changed`, or as they were `before` where all are to be kept, but for the numbers. They must stand by
    themselves before any of them is written: read where it is written, the compiler would keep a copy of the whole
    matrix for every block. Its CPU backend drops barriers, but leaves branches alone; on a GPU a branch would wait for
    the host.
    """

    def by_branch(before: Tree) -> Tree:
        return jax.lax.cond(is_kept, lambda before: before, changed, before)

    def by_barrier(before: Tree) -> Tree:
        return jax.lax.optimization_barrier(kept_rows(is_kept, before, changed(before)))

    return jax.lax.platform_dependent(before, cpu=by_branch, default=by_barrier)


def split(spec: NetworkSpec, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters that are updated as a whole, and those that are updated block by block: `outputs` by position of
    the layer and `inputs` by number of the connection, each a tree of its own.
    """
    plain = {group: dict(parts) for group, parts in params.items()}
    apart: dict[str, Any] = {"outputs": {}, "inputs": {}}
    for position, layer in enumerate(spec.layers):
        if layer.parts > 0:
            for number, connection in enumerate(spec.connections):
                key = str(number)
                if connection.target.name == layer.name:
                    own = apart["outputs"].setdefault(str(position), {"outputs": {}})
                    own["outputs"][key] = plain["outputs"].pop(key)
                elif connection.source.name == layer.name:
                    kept = dict(plain["inputs"][key])
                    apart["inputs"][key] = {"inputs": {key: {"kernel": kept.pop("kernel")}}}
                    plain["inputs"][key] = kept
    return plain, apart


def joined(plain: Mapping[str, Any], apart: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `split`."""
    params = {group: dict(parts) for group, parts in plain.items()}
    for own in apart["outputs"].values():
        params.setdefault("outputs", {}).update(own["outputs"])
    for key, own in apart["inputs"].items():
        params["inputs"][key] = params["inputs"][key] | own["inputs"][key]
    return params
