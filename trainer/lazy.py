"""Matrices from sparse Input layers updated in the rows a step has entries for, and only there, with the result of
updating them all (`Lazy` of an Optimizer). A row keeps the number of the update it has last seen; what the updates
since would have done to it without a gradient is made good when a step next looks at it, and for all rows before
weights are read.

Without a gradient SGD with weight decay, Momentum and Nesterov map weight and velocity linearly, the same for all rows:
the product of these maps from each update on is kept. AdaGrad, RMSProp and AdaDelta move no weight then, their squares
fall by a power. Adam's moves fall faster than their number grows: so many are added up as float32 can tell apart.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from trainer.blockwise import Entries, Part, placed, returned, set_apart, taken
from trainer.errors import SettingsError
from trainer.layers import Corruption, entry_pieces
from trainer.model import Batches, corruption_of
from trainer.network_types import NetworkSpec, OptimizerName
from trainer.optimizer import Rates, SquaresState, regularization
from trainer.sharding import batch_specs, tree_specs
from trainer.sparse import SparseBatch

_LONGEST = 4096
"""Updates after which all rows are caught up, so that what is kept of them has an end."""
_NEGLIGIBLE = 1e-9
"""Of the first of Adam's moves: what is smaller is not added."""
_BLOCK = 1 << 20
"""Weights that are caught up at a time when all are."""
_NO_ROW = 2**31 - 1
_ADAM_EPSILON = 1e-8


class LazyState(NamedTuple):
    """Beside the rows of a matrix: what they have missed."""

    inner: Any
    """The optimizer's own state; its rows are as old as the matrix's."""
    seen: jax.Array
    """[rows] int32: how many updates a row has had or made good."""
    passed: jax.Array
    """Linear rules: [updates, 2, 2], what (weight, velocity) is multiplied by from an update on, less 1. Adam:
    [updates], their rates. Else [0]."""
    decays: jax.Array
    """[2]: what the optimizer's averages are multiplied by in an update."""
    start: jax.Array
    """Updates when all rows were last caught up."""
    made: jax.Array
    """Updates in all."""


class _Rows(NamedTuple):
    """Some rows of a matrix, and what belongs to them."""

    params: Any
    inner: Any
    seen: jax.Array


def check_lazy(spec: NetworkSpec, rates: Rates) -> None:
    """`SettingsError` where what a row has missed is not known in short, or nothing can be updated by rows."""
    if not rates.lazy:
        return
    decays = rates.l2 != 0 and not rates.name.is_linear
    if rates.l1 or decays:
        penalty, remedy = (f"L2 penalty of {rates.l2:g}", "$.Optimizer.WeightDecay (-lambda)")
        if rates.l1:
            penalty, remedy = (f"L1 penalty of {rates.l1:g}", "lambda1")
        raise SettingsError(
            f"optimizer: Lazy cannot make good what an {penalty} does with {rates.name.name}; set {remedy} to 0"
        )
    if not any(layer.parts for layer in spec.inputs):
        raise SettingsError("optimizer: Lazy finds no sparse Input whose matrix is its own; remove $.Optimizer.Lazy")


def delayed(rates: Rates, params: Any, inner: Any) -> Any:
    """The state of a part from an Input layer: the optimizer's, `inner`, within a `LazyState` where it is lazy."""
    if not rates.lazy:
        return inner
    shape = (_LONGEST, 2, 2) if rates.name.is_linear else (_LONGEST if rates.name is OptimizerName.ADAM else 0,)
    decay = 1.0 if rates.name is OptimizerName.ADAGRAD else rates.momentum
    zero, rows = jnp.zeros((), jnp.int32), jax.tree.leaves(params)[0].shape[0]
    decays = jnp.array([decay, rates.momentum2], jnp.float32)
    return LazyState(inner, jnp.zeros(rows, jnp.int32), jnp.zeros(shape, jnp.float32), decays, zero, zero)


def caught_up(params: dict[str, Any], opt_state: Any) -> dict[str, Any]:
    """`params` with all rows as they would be had each been updated in every step; the arrays given stay."""
    found = {group: dict(parts) for group, parts in params.items()}
    for key, state in opt_state.get("inputs", {}).items():
        if isinstance(state, LazyState):
            kernel = params["inputs"][key]["kernel"]
            found["inputs"][key] = found["inputs"][key] | {"kernel": _reading(kernel.sharding)(kernel, state)}
    return found


@lru_cache(maxsize=8)
def _reading(sharding: NamedSharding) -> Callable[[jax.Array, LazyState], jax.Array]:
    def read(kernel: jax.Array, state: LazyState) -> jax.Array:
        return jax.tree.leaves(_current(_Rows(kernel, state.inner, state.seen), state).params)[0]

    return jax.jit(read, out_shardings=sharding)


@dataclass(frozen=True, slots=True)
class LazyPass:
    """What updates matrices from Input layers lazily; to be called within `jax.set_mesh(mesh)`."""

    spec: NetworkSpec
    mesh: Mesh
    optimizer: optax.GradientTransformationExtraArgs
    rates: Rates
    rate_at: Callable[[jax.Array], jax.Array]
    """The learning rate by the number of updates before."""

    def ready(self, parts: Mapping[str, Part], batches: Batches) -> dict[str, Part]:
        """The parts with the rows caught up that the batches have entries for, before the step looks at them."""
        found = dict(parts)
        for key, part in parts.items() if self.rates.lazy else ():
            batch = _sparse(batches[self.spec.connections[int(key)].source.name])
            of_part = Part(*tree_specs(tuple(part)))
            ready = jax.shard_map(
                self._ready, in_specs=(of_part, batch_specs(batch)), out_specs=of_part, check_vma=False
            )
            found[key] = ready(part, batch)
        return found

    def inputs(
        self,
        parts: Mapping[str, Part],
        batches: Batches,
        deltas: Mapping[int, jax.Array],
        rng: jax.Array,
        *,
        rate_scale: jax.Array,
        left_out: jax.Array,
    ) -> tuple[dict[str, Part], jax.Array]:
        """As `Blocks.inputs`, of parts that are `ready`. The regularization is that of the rows looked at."""
        found, decay = dict(parts), jnp.zeros((), jnp.float32)
        for key, part in parts.items():
            source = self.spec.connections[int(key)].source
            batch, corruption = (
                _sparse(batches[source.name]),
                corruption_of(self.spec, source, self.mesh.shape["model"], rng),
            )
            of_part = Part(*tree_specs(tuple(part)))
            updated = jax.shard_map(
                lambda *given, corruption=corruption: self._updated(corruption, *given),
                in_specs=(of_part, batch_specs(batch), P("data", None), P(), P(), P()),
                out_specs=(of_part, P()),
                check_vma=False,
            )
            found[key], own = updated(part, batch, deltas[int(key)], corruption.rng, rate_scale, left_out)
            decay = decay + own
        return found, decay

    def _ready(self, part: Part, batch: SparseBatch) -> Part:
        """The part of one device. A row of several entries is written several times, each time the same."""
        state: LazyState = part.opt_state
        rows, units = jax.tree.leaves(part.params)[0].shape
        places = _local(self._of_all(batch.indices), rows)
        pieces = entry_pieces(places, units)

        def of_piece(number: jax.Array, whole: _Rows) -> _Rows:
            here = _Rows(*taken(tuple(whole), pieces[number]))
            # Padding has missed nothing.
            here = here._replace(seen=jnp.where(pieces[number] < rows, here.seen, state.made))
            is_old = (here.seen < state.made).any()
            here = set_apart(~is_old, here, partial(_current, state=state))
            return _Rows(*returned(tuple(whole), tuple(here), pieces[number]))

        whole = jax.lax.fori_loop(0, len(pieces), of_piece, _Rows(part.params, state.inner, state.seen))
        return Part(whole.params, state._replace(inner=whole.inner, seen=whole.seen))

    def _updated(
        self,
        corruption: Corruption,
        part: Part,
        batch: SparseBatch,
        deltas: jax.Array,
        rng: jax.Array | None,
        rate_scale: jax.Array,
        left_out: jax.Array,
    ) -> tuple[Part, jax.Array]:
        """The part of one device, its rows that have entries changed."""
        state: LazyState = part.opt_state
        rows, units = jax.tree.leaves(part.params)[0].shape
        samples = len(batch.sample_mask)
        # Rows of the batch count from 0 in each data shard, and one past the last is padding.
        row = jnp.where(batch.rows < samples, batch.rows + jax.lax.axis_index("data") * samples, _NO_ROW)
        of_all = (self._of_all(entry) for entry in (batch.indices, row, corruption.values(batch, rng)))
        entries = Entries(*of_all)
        entries = entries._replace(places=_local(entries.places, rows))
        if self.mesh.shape["data"] > 1:
            # [batch of a data shard, units] -> [batch, units]
            deltas = jax.lax.all_gather(deltas, "data", tiled=True)
        pieces = Entries(*(entry_pieces(entry, units) for entry in entries))

        def of_piece(number: jax.Array, carry: tuple[_Rows, jax.Array]) -> tuple[_Rows, jax.Array]:
            whole, decay = carry
            own = Entries(*(entry[number] for entry in pieces))
            places, slot = _distinct(own.places, rows)
            here = _Rows(*taken(tuple(whole), places))
            grads = jax.ops.segment_sum(own.brought(deltas), slot, len(places))

            def moved(here: _Rows) -> _Rows:
                after = self._moved(here, grads, rate_scale, state.made)
                # Every piece is moved by the same numbers.
                return jax.tree.map(lambda old, new: new if old.ndim else old, here, after)

            after = set_apart(left_out, here, moved)
            decay = decay + regularization(self.rates, here.params)
            return _Rows(*returned(tuple(whole), tuple(after), places)), decay

        start = _Rows(part.params, state.inner, state.seen), jnp.zeros((), jnp.float32)
        whole, decay = jax.lax.fori_loop(0, len(pieces.places), of_piece, start)
        none = jax.tree.map(lambda leaf: leaf[:0] if leaf.ndim else leaf, whole)
        counted = self._moved(none, jnp.zeros((0, units), jnp.float32), rate_scale, state.made).inner
        # Without rows it only counts.
        inner = jax.tree.map(lambda leaf, count: leaf if leaf.ndim else count, whole.inner, counted)
        passed = jnp.where(left_out, state.passed, self._passed(state, rate_scale))
        state = LazyState(inner, whole.seen, passed, state.decays, state.start, state.made + 1)
        return self._restarted(Part(whole.params, state), left_out), jax.lax.psum(decay, "model")

    def _moved(self, here: _Rows, grads: jax.Array, rate_scale: jax.Array, made: jax.Array) -> _Rows:
        tree = jax.tree.map(lambda _: grads, here.params)
        updates, inner = self.optimizer.update(tree, here.inner, here.params, rate_scale=rate_scale)
        return _Rows(jax.tree.map(jnp.add, here.params, updates), inner, jnp.full_like(here.seen, made + 1))

    def _passed(self, state: LazyState, rate_scale: jax.Array) -> jax.Array:
        """What is kept of the updates, after one more."""
        rate, rates = self.rate_at(state.made) * rate_scale, self.rates
        if rates.name is OptimizerName.ADAM:
            return state.passed.at[state.made - state.start].set(rate)
        if not rates.name.is_linear:
            return state.passed
        pull, momentum = rate * rates.l2, 0.0 if rates.name is OptimizerName.SGD else rates.momentum
        is_nesterov = rates.name is OptimizerName.NESTEROV
        own, of_velocity = (pull * (1.0 + momentum), momentum**2) if is_nesterov else (pull, momentum)
        # From (weight, velocity) to (weight, velocity), less 1.
        step = jnp.stack([-own, -pull, jnp.float32(of_velocity), jnp.float32(momentum - 1.0)]).reshape(1, 2, 2)
        passed = state.passed + step + (state.passed[:, :, :, None] * step[:, None]).sum(axis=2)
        return jnp.where((jnp.arange(len(passed)) <= state.made - state.start)[:, None, None], passed, 0.0)

    def _restarted(self, part: Part, left_out: jax.Array) -> Part:
        """The part with all rows caught up, block by block, where what is kept of the updates is full."""
        state: LazyState = part.opt_state
        rows, units = jax.tree.leaves(part.params)[0].shape
        size = min(rows, max(_BLOCK // units, 1))
        is_full = (state.made - state.start >= _LONGEST) & ~left_out

        def of_block(block: jax.Array, whole: _Rows) -> _Rows:
            # What the last one has before its turn is caught up already.
            first = jnp.minimum(block * size, rows - size)
            here = jax.tree.map(
                lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size) if leaf.ndim else leaf, whole
            )
            here = set_apart(~is_full, here, partial(_current, state=state))
            return _Rows(*placed(tuple(whole), tuple(here), first))

        before = _Rows(part.params, state.inner, state.seen)
        whole = jax.lax.fori_loop(0, jnp.where(is_full, -(-rows // size), 0), of_block, before)
        passed, start = jnp.where(is_full, 0.0, state.passed), jnp.where(is_full, state.made, state.start)
        return Part(whole.params, state._replace(inner=whole.inner, seen=whole.seen, passed=passed, start=start))

    def _of_all(self, entries: jax.Array) -> jax.Array:
        """Those of all data shards, [parts, entries] of each."""
        return jax.lax.all_gather(entries, "data", axis=1, tiled=True) if self.mesh.shape["data"] > 1 else entries


def _current(here: _Rows, state: LazyState) -> _Rows:
    """Rows after the updates they have missed."""
    missed = state.made - here.seen
    weights = jax.tree.leaves(here.params)[0]
    velocity = jnp.zeros_like(weights)
    nodes = jax.tree.leaves(here.inner, is_leaf=_is_node)
    if trace := next((node.trace for node in nodes if isinstance(node, optax.TraceState)), None):
        velocity = jax.tree.leaves(trace)[0]
    after = weights
    if state.passed.ndim > 1:
        (own, pull), (of_velocity, kept) = _factors(state, here.seen, missed)
        after = weights + own * weights + of_velocity * velocity
        velocity = velocity + pull * weights + kept * velocity
    for node in nodes:
        if isinstance(node, optax.ScaleByAdamState):
            mean, square = (jax.tree.leaves(part)[0] for part in (node.mu, node.nu))
            after = weights - _adams_moves(mean, square, state, here.seen)

    def fallen(tree: Any, decay: jax.Array) -> Any:
        return jax.tree.map(lambda leaf: leaf * (decay ** missed.astype(jnp.float32))[:, None], tree)

    def older(node: Any) -> Any:
        if isinstance(node, optax.TraceState):
            return node._replace(trace=jax.tree.map(lambda _: velocity, node.trace))
        if isinstance(node, SquaresState):
            return SquaresState(*(fallen(part, state.decays[0]) for part in node))
        if isinstance(node, optax.ScaleByAdamState):
            return node._replace(mu=fallen(node.mu, state.decays[0]), nu=fallen(node.nu, state.decays[1]))
        return node

    inner = jax.tree.map(older, here.inner, is_leaf=_is_node)
    return _Rows(jax.tree.map(lambda _: after, here.params), inner, jnp.full_like(here.seen, state.made))


def _factors(state: LazyState, seen: jax.Array, missed: jax.Array) -> list[list[jax.Array]]:
    """What a linear rule has multiplied (weight, velocity) of each row by since, less 1, [rows, 1] each."""
    kept = jnp.where(
        missed[:, None, None] > 0, state.passed[jnp.clip(seen - state.start, 0, len(state.passed) - 1)], 0.0
    )
    return [[kept[:, row, column, None] for column in range(2)] for row in range(2)]


def _adams_moves(mean: jax.Array, square: jax.Array, state: LazyState, seen: jax.Array) -> jax.Array:
    """The sum of what Adam's updates without a gradient take off each row, [rows, units]."""
    missed, (first, second) = state.made - seen, state.decays
    falls = jnp.log(first / jnp.sqrt(second))
    enough = jnp.where(falls < 0, jnp.ceil(math.log(_NEGLIGIBLE) / falls), float(_LONGEST)).astype(jnp.int32)

    def more(number: jax.Array, moved: jax.Array) -> jax.Array:
        turn = number + 1
        count = (state.made - missed + turn).astype(jnp.float32)[:, None]
        power, place = turn.astype(jnp.float32), jnp.clip(seen - state.start + number, 0, len(state.passed) - 1)
        rate = jnp.where(turn <= missed, state.passed[place], 0.0)[:, None]
        unbiased = mean * first**power / (1.0 - first**count)
        return moved + rate * unbiased / (jnp.sqrt(square * second**power / (1.0 - second**count)) + _ADAM_EPSILON)

    return jax.lax.fori_loop(0, jnp.minimum(missed.max(), enough), more, jnp.zeros_like(mean))


def _is_node(node: Any) -> bool:
    return isinstance(node, optax.TraceState | optax.ScaleByAdamState | SquaresState)


def _distinct(places: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
    """Different ones of `places` [entries], then `rows` as often as there is room, and which of them each is."""
    order = jnp.argsort(places)
    ordered = places[order]
    is_first = jnp.concatenate([jnp.zeros(1, bool), ordered[1:] != ordered[:-1]])
    slot = jnp.cumsum(is_first.astype(jnp.int32))
    return jnp.full_like(places, rows).at[slot].set(ordered), jnp.zeros_like(slot).at[order].set(slot)


def _local(indices: jax.Array, rows: int) -> jax.Array:
    """Which of a device's `rows` entries are of; `rows` where they are another's; within `shard_map`."""
    places = indices - jax.lax.axis_index("model") * rows
    return jnp.where((places >= 0) & (places < rows), places, rows)


def _sparse(batch: Any) -> SparseBatch:
    if not isinstance(batch, SparseBatch):
        raise TypeError("only layers with sparse data are dealt")
    return batch
