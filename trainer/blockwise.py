"""Rows taken block by block out of a device's share of a wide layer, and put back."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from trainer.dense import DenseBatch
from trainer.losses import Shard
from trainer.sparse import SparseBatch

Carry = TypeVar("Carry")


class Part(NamedTuple):
    """Parameters that are updated apart from the others, and their optimizer's state. The numbers in it, which count
    updates, go on: whether the batch counts is known only when all layers are done.
    """

    params: Any
    opt_state: Any


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


def log_total_over(
    at: Callable[[jax.Array | int], tuple[jax.Array, Shard]], blocks: int, start: jax.Array
) -> jax.Array:
    """Logarithm of the sum of e^logit over all units, [batch, 1], in one pass over the blocks (Milakov and Gimelshein
    2018).
    """

    def of_block(block: jax.Array | int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        largest, total = carry
        logits, shard = at(block)
        masked = shard.kept(logits, -jnp.inf)
        larger = jnp.maximum(largest, masked.max(axis=1, keepdims=True))
        # Before the first live unit both are -inf.
        floor = jnp.maximum(larger, jnp.finfo(jnp.float32).min)
        return larger, total * jnp.exp(largest - floor) + jnp.exp(masked - floor).sum(axis=1, keepdims=True)

    largest, total = jax.lax.fori_loop(0, blocks, of_block, (jnp.full_like(start, -jnp.inf), start))
    of_all = jax.lax.pmax(largest, "model")
    return of_all + jnp.log(jax.lax.psum(total * jnp.exp(largest - of_all), "model"))


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
    """What a block has to look at of [parts, capacity] entries; all of those that are not dealt."""
    return entries if entries.ndim == 1 else entries.reshape(blocks, -1)[block]


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


def kept_rows(left_out: jax.Array, before: Any, after: Any) -> Any:
    """The rows before where the batch is left out; numbers are for the step to decide."""
    return jax.tree.map(lambda old, new: jnp.where(left_out, old, new) if old.ndim else new, before, after)
