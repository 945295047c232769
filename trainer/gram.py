"""The squared loss over all units of an Output layer, and plain SGD on it, at a cost that does not grow with the units
(Krichene et al. 2019, "Efficient training on very large corpora via Gramian estimation", with the Gram matrix kept
instead of estimated). The sum over all units of the squares of h · a is h (Σ a aᵀ) h, of which only the stored units
are corrected.

Every unit's row of weights and biases has the same gradient from units without a target, a linear map of the row. So
rows that a step does not touch are not written: they are kept as they were, together with the one map [width, width]
of what has happened to all of them since. The rows are multiplied by it, block by block, before it loses digits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from trainer.blockwise import OutputPass, Part, Update, by_source, candidate_rows, placed, taken, weighted
from trainer.errors import SettingsError
from trainer.losses import Shard, flat
from trainer.network_types import LayerSpec, Negatives, NetworkSpec, OptimizerName
from trainer.optimizer import Rates
from trainer.sharding import tree_specs
from trainer.sparse import SampledBatch, SparseBatch

_WORST = 100.0
"""Condition of the map from which on the rows are multiplied by it: two digits are lost until then."""
_LARGEST = 0.5
"""Share of any row that a step's map may take away for its inverse to be a short sum."""
_TERMS = 5
"""Factors of that sum: what is left out is below `_LARGEST` to the power of 32."""
_LONGEST = 1000
"""Steps after which the Gram matrix is made anew: it gathers the rounding of each."""
_BLOCK = 1 << 22
"""Weights that are multiplied at a time."""


class GramState(NamedTuple):
    """Beside the rows of a layer: what they stand for."""

    inner: Any
    """The optimizer's own state."""
    map: jax.Array
    """[width, width]: a row stands for its product with it. The width is that of all sources, and a bias for each."""
    inverse: jax.Array
    products: jax.Array
    """[width, width]: the Gram matrix Σ a aᵀ of what the rows stand for."""
    steps: jax.Array
    """Since the map was the identity."""


def is_by_gram(layer: LayerSpec) -> bool:
    """Whether the layer, which is dealt, is updated here."""
    return layer.parts > 0 and layer.sampling.by is Negatives.GRAM


def check_rates(spec: NetworkSpec, rates: Rates) -> None:
    """`SettingsError` unless the update of a row that has no target is a linear map of it."""
    if any(is_by_gram(layer) for layer in spec.layers) and (rates.name is not OptimizerName.SGD or rates.l1):
        raise SettingsError(
            f"optimizer: Sampling by Gram needs SGD without an L1 penalty, not {rates.name.name} with {rates.l1:g}; "
            "set $.Optimizer.Name to SGD and lambda1 to 0"
        )


def wrapped(layer: LayerSpec, params: Any, inner: Any) -> Any:
    """The state of an Output layer's part: the optimizer's, `inner`, within a `GramState` where it is updated here. Its
    Gram matrix is not there before `settled`.
    """
    if not is_by_gram(layer):
        return inner
    width = sum(own["kernel"].shape[1] + 1 for own in params["outputs"].values())
    one, zeros = jnp.eye(width, dtype=jnp.float32), jnp.zeros((width, width), jnp.float32)
    return GramState(inner, one, one, zeros, jnp.zeros((), jnp.int32))


@lru_cache(maxsize=8)
def settled(mesh: Mesh, *, consume: bool) -> Callable[[Part], Part]:
    """What multiplies a part's rows by its map, which is the identity then, and makes the Gram matrix anew; compiled
    once. It may `consume` what it is given.
    """

    def of_device(part: Part) -> Part:
        own: GramState = part.opt_state
        params, products = _multiplied(part.params, own.map, is_wanted=True)
        one = jnp.eye(len(own.map), dtype=jnp.float32)
        return Part(params, GramState(own.inner, one, one, jax.lax.psum(products, "model"), jnp.zeros_like(own.steps)))

    def of_all(part: Part) -> Part:
        specs = Part(*tree_specs(tuple(part)))
        return jax.shard_map(of_device, mesh=mesh, in_specs=(specs,), out_specs=specs, check_vma=False)(part)

    return jax.jit(of_all, donate_argnums=0 if consume else ())


def with_products(
    spec: NetworkSpec, params: Any, opt_state: Any, *, consume: bool = False
) -> tuple[dict[str, Any], Any]:
    """Parameters and optimizer's states with all rows as what they stand for, and their Gram matrices; the arrays given
    stay unless it is to `consume` them.
    """
    found, states = {group: dict(parts) for group, parts in params.items()}, dict(opt_state)
    for position, state in opt_state.get("outputs", {}).items():
        if isinstance(state, GramState):
            name, sharding = spec.layers[int(position)].name, state.map.sharding
            if not isinstance(sharding, NamedSharding):
                raise TypeError("a state has its mesh")
            keys = [str(number) for number, one in enumerate(spec.connections) if one.target.name == name]
            own = {"outputs": {key: params["outputs"][key] for key in keys}}
            part = settled(sharding.mesh, consume=consume)(Part(own, state))
            found["outputs"] |= part.params["outputs"]
            states["outputs"] = states["outputs"] | {position: part.opt_state}
    return found, states


@dataclass(frozen=True, slots=True)
class GramPass:
    """Loss and update of an Output layer by its Gram matrix: the part of one device."""

    spec: NetworkSpec
    mesh: Mesh
    optimizer: optax.GradientTransformationExtraArgs
    rates: Rates

    def __call__(
        self,
        layer: LayerSpec,
        part: Part,
        sources: tuple[jax.Array, ...],
        targets: SampledBatch,
        cotangent: jax.Array,
        update: Update,
    ) -> OutputPass:
        """As `Blocks.output`, within `shard_map`. A feature that a sample stores twice counts twice."""
        entries, own, slots = flat(targets.entries), part.opt_state, targets.candidates.size
        cotangent, counted = weighted(layer, entries, cotangent)
        local = candidate_rows(targets, jax.tree.leaves(part.params)[0].shape[0])
        before = _times(_stacked(taken(part.params, local)), own.map)
        # [batch, units] of each source -> [batch, width], with a 1 for each bias
        given = jnp.concatenate([*sources, jnp.ones((len(counted), len(sources)), jnp.float32)], axis=1)
        shard = Shard(jax.lax.axis_index("model") * slots, slots * self.mesh.shape["model"], "model")
        slot, weight = shard.column(entries.indices, slots), 0.0 if layer.ignore_zero else layer.negative_weight
        of_entries = given.at[entries.rows].get(mode="fill", fill_value=0.0)
        looked_at = before.at[slot].get(mode="fill", fill_value=0.0)
        logits = (of_entries * looked_at).sum(axis=1)
        loss, delta = _corrections(logits, entries, slot < slots, weight, self.spec.delta_boost.one)
        whole = _times(given, own.products)
        batch = len(counted)
        rest = (
            jax.ops.segment_sum(loss, entries.rows, batch),
            jax.ops.segment_sum(delta[:, None] * looked_at, entries.rows, batch),
        )
        loss, back = jax.lax.psum(rest, "model")
        losses = (0.5 * weight * (whole * given).sum(axis=1) + loss) * counted
        left_out = update.before + self._over_data(losses.sum()) > update.limit
        of_rows = (delta * cotangent.at[entries.rows].get(mode="fill", fill_value=0.0))[:, None] * of_entries
        gradient = self._over_data(jax.ops.segment_sum(of_rows, slot, slots))
        squares = weight * self._over_data(_times(given.T * cotangent[None, :], given))
        kept = self._updated(part, local, before, (gradient, squares), left_out, update.rate_scale)
        deltas = (weight * whole + back) * cotangent[:, None]
        ends = [sum(one.shape[1] for one in sources[: count + 1]) for count in range(len(sources))]
        decay = 0.5 * self.rates.l2 * (jnp.diagonal(own.products) * _is_weight(part.params)).sum()
        return OutputPass(kept, losses, tuple(jnp.split(deltas[:, : ends[-1]], ends[:-1], axis=1)), decay)

    def _updated(
        self,
        part: Part,
        local: jax.Array,
        before: jax.Array,
        found: tuple[jax.Array, jax.Array],
        left_out: jax.Array,
        rate_scale: jax.Array,
    ) -> Part:
        """The part after a step of SGD: `found` are the gradient of the rows at `local`, which stand for `before`, by
        their stored targets [candidates, width], and what all rows are multiplied by to be their gradient, [width,
        width].
        """
        own: GramState = part.opt_state
        rate, inner = self._rate(own.inner, rate_scale)
        gradient, squares = found
        step = jnp.where(left_out, 0.0, rate * (squares + jnp.diag(self.rates.l2 * _is_weight(part.params))))
        moved = jnp.where(left_out, 0.0, -rate * gradient)
        mapped, inverse = own.map - _times(own.map, step), _times(_inverse(step), own.inverse)
        condition = jnp.linalg.norm(mapped) * jnp.linalg.norm(inverse) / jnp.sqrt(jnp.float32(len(mapped)))
        is_sound = (jnp.linalg.norm(step) < _LARGEST) & (condition < _WORST) & (own.steps < _LONGEST)
        params, products = _multiplied(part.params, mapped, is_wanted=~is_sound)
        one = jnp.eye(len(mapped), dtype=jnp.float32)
        mapped, inverse = jnp.where(is_sound, mapped, one), jnp.where(is_sound, inverse, one)
        rows = before - _times(before, step)
        cross = _times(rows.T, moved)
        products = jax.lax.psum(products + cross + cross.T + _times(moved.T, moved), "model")
        left = own.products - _times(own.products, step) - _times(step, own.products - _times(own.products, step))
        products = products + jnp.where(is_sound, left, 0.0)
        added = _unstacked(_times(moved, inverse), params)
        params = jax.tree.map(lambda leaf, more: leaf.at[local].add(more, mode="drop"), params, added)
        steps = jnp.where(is_sound, own.steps + 1, 0)
        return Part(params, GramState(inner, mapped, inverse, products, steps))

    def _rate(self, inner: Any, rate_scale: jax.Array) -> tuple[jax.Array, Any]:
        """This step's learning rate: what the optimizer makes of a gradient of 1 where nothing decays."""
        one, zero = {"bias": jnp.ones((), jnp.float32)}, {"bias": jnp.zeros((), jnp.float32)}
        updates: Any
        updates, inner = self.optimizer.update(one, inner, zero, rate_scale=rate_scale)
        return -updates["bias"], inner

    def _over_data(self, values: jax.Array) -> jax.Array:
        return jax.lax.psum(values, "data") if self.mesh.shape["data"] > 1 else values


def _corrections(
    logits: jax.Array, entries: SparseBatch, owned: jax.Array, weight: float, boost: float
) -> tuple[jax.Array, jax.Array]:
    """What ½ (a - t)² of stored entries is above the ½ weight a² that all units are counted with, and its delta, which
    DSSTNE boosts for values, [entries] each.
    """
    target = 1.0 if entries.values is None else entries.values
    error = logits - target
    loss = 0.5 * (jnp.square(error) - weight * jnp.square(logits))
    delta = error if entries.values is None else boost * error
    return jnp.where(owned, loss, 0.0), jnp.where(owned, delta - weight * logits, 0.0)


def _multiplied(params: Any, by: jax.Array, *, is_wanted: jax.Array | bool) -> tuple[Any, jax.Array]:
    """Where it `is_wanted` a device's rows times `by`, and their Gram matrix; else the rows as they are, and zeros.
    Done block by block, in place.
    """
    rows = jax.tree.leaves(params)[0].shape[0]
    size = min(rows, max(_BLOCK // len(by), 1))
    blocks = -(-rows // size)

    def of_block(block: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        params, products = carry
        # The last one begins early enough to be whole; what it has before its turn is done already.
        first = jnp.minimum(block * size, rows - size)
        here = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size), params)
        stored = _stacked(here)
        is_new = (jnp.arange(size) + first >= block * size)[:, None]
        after = _times(stored, by)
        new = jnp.where(is_new, after, 0.0)
        params = placed(params, _unstacked(jnp.where(is_new, after, stored), here), first)
        return params, products + _times(new.T, new)

    return jax.lax.fori_loop(0, jnp.where(is_wanted, blocks, 0), of_block, (params, jnp.zeros_like(by)))


def _stacked(params: Any) -> jax.Array:
    # kernels [rows, units] and biases [rows] of all connections -> [rows, width]
    parts = by_source(params)
    return jnp.concatenate([*(own["kernel"] for own in parts), *(own["bias"][:, None] for own in parts)], axis=1)


def _unstacked(rows: jax.Array, params: Any) -> Any:
    """The inverse of `_stacked`, for rows of any number; `params` tell the widths."""
    found: dict[str, Any] = {}
    first, biases = 0, rows.shape[1] - len(params["outputs"])
    for number, key in enumerate(sorted(params["outputs"], key=int)):
        units = params["outputs"][key]["kernel"].shape[1]
        found[key] = {"bias": rows[:, biases + number], "kernel": rows[:, first : first + units]}
        first += units
    return {"outputs": found}


def _is_weight(params: Any) -> jax.Array:
    """[width]: 1 for weights, 0 for biases, which do not decay."""
    parts = params["outputs"].values()
    return jnp.concatenate([jnp.ones(sum(own["kernel"].shape[1] for own in parts)), jnp.zeros(len(parts))])


def _inverse(step: jax.Array) -> jax.Array:
    """Of 1 - step, symmetric and smaller than `_LARGEST`, by Π (1 + step^(2^k))."""
    inverse, power = jnp.eye(len(step), dtype=jnp.float32) + step, step
    for _ in range(_TERMS - 1):
        power = _times(power, power)
        inverse = inverse + _times(inverse, power)
    return inverse


_times = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
"""In whole float32, on accelerators too: what is lost here is never made good."""
