"""The best units of an Output layer, found by every device in its share of them, block by block: of [batch, features] a
device holds [batch, block] at most. Exclusion happens there; names are unknown.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from trainer.activations import activate
from trainer.blockwise import Total, in_turn
from trainer.deal import is_wide
from trainer.layers import matmul
from trainer.network_types import Activation, LayerSpec, LayerType, NetworkSpec
from trainer.sparse import SparseBatch, round_up

ON_CPU, ON_ACCELERATOR = 1 << 21, 1 << 26
"""Scores of a block at most: what a cache holds and the C library keeps for the next batch; what is worth a kernel's
start."""
_FEWEST = 1024
"""Units that are worth a turn of a loop, however many samples are asked about."""
_SMALLEST_GROUP = 8
"""Neighbours that are worth being looked at together."""
_RISING = {
    Activation.SIGMOID,
    Activation.TANH,
    Activation.LINEAR,
    Activation.SOFT_PLUS,
    Activation.SOFT_SIGN,
    Activation.SOFT_MAX,
}
"""A larger sum is a larger output: sums are ranked, and outputs are made of the few that are left."""
_SHARED = {Activation.RELU_MAX, Activation.LINEAR_MAX}
"""What a unit puts out depends on all of them."""
NOBODY = -1
"""Id that stands where a sample has no feature left."""


class Head(NamedTuple):
    """What an Output layer's sums are made of."""

    sources: tuple[jax.Array, ...]
    """[batch, units] each."""
    kernels: tuple[jax.Array, ...]
    """[features, units] of each source, features spread over axis `model`."""
    bias: jax.Array
    """[features], spread likewise."""


class Asked(NamedTuple):
    """Which units may be listed."""

    exclude: SparseBatch | None
    """None of these."""
    multiply: SparseBatch | None
    """The score of these is multiplied by the value before."""
    live: jax.Array
    """None at or beyond this one."""


class Best(NamedTuple):
    """Best first, of ties the lower id; both [batch, k]."""

    ids: jax.Array
    """int32, `NOBODY` where there is none."""
    values: jax.Array
    """float32, -inf where there is none."""


def can_be_split(spec: NetworkSpec, layer: LayerSpec) -> bool:
    """Whether the layer's units can be computed some at a time: none but a SoftMax's depends on the others, and nothing
    wide leads to it.
    """
    if layer.type is not LayerType.FULLY_CONNECTED or layer.activation in _SHARED:
        return False
    is_plain = not (layer.skips or layer.batch_normalization or layer.layer_normalization)
    return is_plain and not any(is_wide(spec.layer(name)) for name in layer.sources)


def blocks_for(units: int, samples: int, most: int) -> tuple[int, int]:
    """Blocks that a device works through its units in, and the units of each: `most` scores of `samples` at most,
    unless that is too few to be worth a turn. The last block begins early enough to be a whole one.
    """
    blocks = -(-units // max(most // samples, _FEWEST))
    size = min(round_up(-(-units // blocks)), units)
    return -(-units // size), size


@dataclass(frozen=True, slots=True)
class Ranking:
    """What finds the best `k` units of `layer`; to be called within `jax.set_mesh(mesh)`."""

    layer: LayerSpec
    k: int
    bfloat16: bool
    most: int
    """Scores of a block at most."""

    def of_head(self, head: Head, asked: Asked) -> Best:
        """The best by their outputs, which are computed block by block."""
        best, total = self._on_shards(self._of_head, (P("data", None), P("model", None), P("model")), head, asked)
        best = merged(best, self.k)
        outputs = self._outputs(best.values, total) if self._ranks_sums(asked) else best.values
        return best._replace(values=jnp.where(best.values > -jnp.inf, outputs, -jnp.inf))

    def of_outputs(self, outputs: jax.Array, asked: Asked) -> Best:
        """The best by outputs [batch, features] that are there already; features divide by the devices."""
        return merged(self._on_shards(self._of_outputs, (P("data", "model"),), (outputs,), asked)[0], self.k)

    def _on_shards(self, find: Any, of_given: Any, given: Any, asked: Asked) -> tuple[Best, Total]:
        of_asked: Any = (P("data"), P("data"), P())
        out: Any = (P("data", "model"), P("data"))
        found = jax.shard_map(find, in_specs=(of_given, of_asked), out_specs=out, check_vma=False)
        best, total = found(tuple(given), tuple(asked))
        # Shards lie in the order of their features, so that the earlier of ties comes first overall.
        return Best(*best), Total(*total)

    def _of_outputs(self, given: Any, asked: Any) -> tuple[Any, Any]:
        (outputs,) = given
        samples, units = outputs.shape
        ids = jax.lax.axis_index("model") * units + jnp.arange(units)
        best = _listed(outputs, ids, ids < self.layer.width, Asked(*asked), k=min(self.k, units))
        return tuple(best), tuple(Total.none(samples))

    def _of_head(self, given: Any, asked: Any) -> tuple[Any, Any]:
        blocks, asked = _Blocks.of(Head(*given), self), Asked(*asked)
        samples, is_shared = len(blocks.head.sources[0]), self.layer.activation is Activation.SOFT_MAX
        by_sum, total = self._ranks_sums(asked), Total.none(samples)

        def counted(block: jax.Array | int, so_far: Total) -> Total:
            sums, _, is_new = blocks.at(block)
            return so_far.with_block(jnp.where(is_new[None, :], sums, -jnp.inf))

        if is_shared and not by_sum:
            total = in_turn(blocks.count, counted, total).over_shards()

        def of_block(block: jax.Array | int, carry: tuple[Best, Total]) -> tuple[Best, Total]:
            sums, ids, is_new = blocks.at(block)
            values = sums if by_sum else self._outputs(sums, total)
            found = _listed(values, ids, is_new, asked, k=min(self.k, blocks.size))
            both = Best(*(jnp.concatenate(sides, axis=1) for sides in zip(carry[0], found, strict=True)))
            return merged(both, self.k), counted(block, carry[1]) if is_shared and by_sum else carry[1]

        none = Best(jnp.full((samples, self.k), NOBODY), jnp.full((samples, self.k), -jnp.inf))
        best, so_far = in_turn(blocks.count, of_block, (none, total))
        return tuple(best), tuple(so_far.over_shards() if is_shared and by_sum else total)

    def _ranks_sums(self, asked: Asked) -> bool:
        return self.layer.activation in _RISING and asked.multiply is None

    def _outputs(self, sums: jax.Array, total: Total) -> jax.Array:
        """Outputs of some units by their sums, [batch, units] both."""
        if self.layer.activation is Activation.SOFT_MAX:
            return jnp.exp(sums - total.largest) / total.total
        return activate(self.layer, sums)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """A device's share of an Output layer, some units at a time."""

    head: Head
    ranking: Ranking
    first: jax.Array
    """The first unit of the share."""
    count: int
    size: int

    @classmethod
    def of(cls, head: Head, ranking: Ranking) -> "_Blocks":
        units = len(head.bias)
        first = jax.lax.axis_index("model") * units
        return cls(head, ranking, first, *blocks_for(units, len(head.sources[0]), ranking.most))

    def at(self, block: jax.Array | int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Sums [batch, block], divided by the layer's temperature, the units [block] they are of, and which of these
        there are and no block before had.
        """
        start = jnp.minimum(block * self.size, len(self.head.bias) - self.size)
        bias, kernels = jax.tree.map(
            lambda rows: jax.lax.dynamic_slice_in_dim(rows, start, self.size), (self.head.bias, self.head.kernels)
        )
        products = (
            matmul(values, kernel, transposed=True, bfloat16=self.ranking.bfloat16)
            for values, kernel in zip(self.head.sources, kernels, strict=True)
        )
        places = start + jnp.arange(self.size)
        ids = self.first + places
        sums = sum(products, start=bias[None, :]) / self.ranking.layer.contrast.temperature
        return sums, ids, (places >= block * self.size) & (ids < self.ranking.layer.width)


def merged(found: Best, k: int) -> Best:
    """The best `k` of [batch, more], of ties the earlier; as many columns, or `k` where there are more."""
    values, place = jax.lax.top_k(found.values, min(k, found.values.shape[1]))
    return Best(jnp.where(values > -jnp.inf, jnp.take_along_axis(found.ids, place, axis=1), NOBODY), values)


def _listed(values: jax.Array, ids: jax.Array, allowed: jax.Array, asked: Asked, *, k: int) -> Best:
    """The best of [batch, units] consecutive units `ids`, of those `allowed` [units]."""
    if asked.multiply is not None:
        row, column = asked.multiply.rows, _columns(asked.multiply, ids)
        old = values.at[row, column].get(mode="fill", fill_value=0.0)
        values = values.at[row, column].set(old * asked.multiply.values, mode="drop")
    # top_k would put 0 before -0, which are a tie, and what is no number before all.
    values = jnp.where(values == 0.0, 0.0, values)
    values = jnp.where(jnp.isnan(values), jnp.finfo(values.dtype).min, values)
    values = jnp.where((allowed & (ids < asked.live))[None, :], values, -jnp.inf)
    if asked.exclude is not None:
        values = values.at[asked.exclude.rows, _columns(asked.exclude, ids)].set(-jnp.inf, mode="drop")
    # [batch, units] -> [batch, k]
    best, column = _top(values, k)
    return Best(column + ids[0], best)


def _top(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """As `jax.lax.top_k`, by groups of neighbours: what is among the best lies in the `k` groups whose best is best. Of
    ties the earlier groups come first, as their members do.
    """
    batch, units = values.shape
    size = 1 << round(math.log2(math.sqrt(units / k)))
    if size < _SMALLEST_GROUP:
        return jax.lax.top_k(values, k)
    groups = -(-units // size)
    grouped = jnp.pad(values, ((0, 0), (0, groups * size - units)), constant_values=-jnp.inf)
    grouped = grouped.reshape(batch, groups, size)
    chosen = jnp.sort(jax.lax.top_k(grouped.max(axis=2), min(k, groups))[1], axis=1)
    # [batch, k, size] -> [batch, k * size]
    left = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1).reshape(batch, -1)
    best, place = jax.lax.top_k(left, k)
    return best, jnp.take_along_axis(chosen, place // size, axis=1) * size + place % size


def _columns(batch: SparseBatch, ids: jax.Array) -> jax.Array:
    """Columns of these units; what is another lies past the last, where nothing is written."""
    column = batch.indices - ids[0]
    return jnp.where((column >= 0) & (column < len(ids)), column, len(ids))
