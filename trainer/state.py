"""The state of a training, born sharded, and the jitted step that updates it in place. Knows batches, not files
or epochs.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from trainer.blockwise import Part, Update, joined, split
from trainer.deal import Deal, deal_of
from trainer.dense import DenseBatch
from trainer.fused import Blocks
from trainer.gram import check_rates, with_products, wrapped
from trainer.hosts import placed
from trainer.layers import layout_of, limit_weights
from trainer.lazy import LazyPass, caught_up, check_lazy, delayed
from trainer.model import Batches, Network, Targets, from_weights, group_of, to_weights
from trainer.network_types import ConnectionSpec, LayerSpec, LayerType, Negatives, NetworkSpec
from trainer.objective import Measured, objective_function
from trainer.optimizer import make_optimizer, rate_function, rates_of, regularization
from trainer.pace import pace_of
from trainer.settings import TrainSettings
from trainer.sharding import tree_shardings
from trainer.sparse import SampledBatch, SparseBatch
from trainer.weights import Weights

_WARM_UP = 100
"""Batches that only feed the running mean of the brake."""
_BRAKED = 25
_JUMP = 2.25
"""Times the mean before, from which on a loss is more than twice the mean with it."""


class Brake(NamedTuple):
    """DSSTNE's answer to divergence (spec 4.4)."""

    mean: jax.Array
    """Running mean of the batches' summed losses."""
    left: jax.Array
    """Batches that the brake is still on."""


class TrainState(NamedTuple):
    """What a step changes; a pytree."""

    step: jax.Array
    params: dict[str, Any]
    """By group and connection, as `outputs/1/kernel`; weights that touch features are split by feature over axis
    `model`."""
    opt_state: Any
    statistics: dict[str, Any]
    """Running statistics of batch normalisations."""
    brake: Brake
    rng: jax.Array


class StepReport(NamedTuple):
    """What a step measured before it changed anything."""

    loss_sum: jax.Array
    """Sum over the real samples of their losses."""
    regularization_sum: jax.Array
    """Weight decay's share of the error, times the real samples (DSSTNE spec 4.3)."""
    braked: jax.Array
    """1 where the loss jumped so that the batch was left out and the brake put on, else 0."""


Step = Callable[[TrainState, Batches, Targets], tuple[TrainState, StepReport]]


def create_state(
    spec: NetworkSpec,
    settings: TrainSettings,
    mesh: Mesh,
    *,
    biases: Mapping[str, npt.NDArray[np.float32]] | None = None,
    weights: Weights | None = None,
    steps: int = 0,
) -> TrainState:
    """The state before the first step, every array made where it is to live. Weights are drawn by
    `settings.seed`, the same on every mesh, unless `weights` bring them; `biases` [units] by layer name replace those
    of the first connection into the layer. `steps` of the run are wanted by a cosine schedule.
    """
    start = _starter(spec, settings, mesh, steps=steps)
    with jax.set_mesh(mesh):
        shardings = tree_shardings(jax.eval_shape(start, settings.seed), mesh)
        state = jax.jit(start, static_argnums=0, out_shardings=shardings)(settings.seed)
    if weights is not None:
        params, statistics = from_weights(spec, weights, shards=mesh.shape["model"])
        state = state._replace(
            params=_placed(params, shardings.params), statistics=_placed(statistics, shardings.statistics)
        )
    for name, bias in (biases or {}).items():
        number = next(n for n, connection in enumerate(spec.connections) if connection.target.name == name)
        group = group_of(spec.connections[number], mesh.shape["model"])
        part, where = state.params[group][str(number)], shardings.params[group][str(number)]["bias"]
        deal = deal_of(spec.layer(name), mesh.shape["model"])
        part["bias"] = placed(deal.dealt(np.pad(bias, (0, part["bias"].shape[0] - len(bias)))), where)
    params, opt_state = with_products(spec, state.params, state.opt_state, consume=True)
    return state._replace(params=params, opt_state=opt_state)


def make_step(spec: NetworkSpec, settings: TrainSettings, mesh: Mesh, *, steps: int = 0) -> Step:
    """The update by one batch of inputs and targets, by layer name. It consumes the state it is given."""
    jitted = jitted_step(spec, settings, mesh, steps=steps)

    def step(state: TrainState, inputs: Batches, targets: Targets) -> tuple[TrainState, StepReport]:
        with jax.set_mesh(mesh):
            return jitted(state, inputs, targets)

    return step


def jitted_step(spec: NetworkSpec, settings: TrainSettings, mesh: Mesh, *, steps: int = 0) -> Any:
    """The step as `jax.jit` made it, to be lowered or exported within `jax.set_mesh(mesh)`."""
    optimizer, rates = make_optimizer(spec, settings, steps=steps), rates_of(spec, settings)
    check_rates(spec, rates)
    check_lazy(spec, rates)
    lazy = LazyPass(spec, mesh, optimizer, rates, rate_function(spec, settings, steps=steps))
    objective, blocks = objective_function(spec, mesh), Blocks(spec, mesh, optimizer, rates)

    def step(state: TrainState, inputs: Batches, targets: Targets) -> tuple[TrainState, StepReport]:
        rng = jax.random.fold_in(state.rng, state.step)
        rate_scale = jnp.where(state.brake.left > 0, 0.1, 1.0)
        plain, apart = split(spec, state.params)
        parts = {
            group: {key: Part(own, state.opt_state[group][key]) for key, own in owns.items()}
            for group, owns in apart.items()
        }
        parts["inputs"] = lazy.ready(parts["inputs"], inputs)
        apart["inputs"] = {key: part.params for key, part in parts["inputs"].items()}

        def of_plain(plain: Any, probes: Any) -> tuple[tuple[jax.Array, dict[str, jax.Array]], Measured]:
            params = joined(plain, apart)
            given = probes if any(apart.values()) else None
            value, measured = objective(params, state.statistics, inputs, targets, rng, given, state.step)
            return (value, measured.outputs), measured

        (value, sources), back, measured = jax.vjp(of_plain, plain, _probes(spec, mesh, inputs), has_aux=True)
        limit = jnp.where(state.step >= _WARM_UP, _JUMP * state.brake.mean, jnp.inf)
        update = Update(rate_scale, measured.loss_sum, limit)
        outputs, deltas, loss, decay = blocks.outputs(parts["outputs"], sources, targets, measured.samples, update)
        grads, of_sums = back((jnp.ones_like(value), deltas))
        brake, skipped = _braked(state.brake, state.step, loss)
        by_rows = lazy if rates.lazy else blocks
        found, own_decay = by_rows.inputs(
            parts["inputs"], inputs, of_sums, rng, rate_scale=rate_scale, left_out=skipped
        )
        decay = (regularization(rates, plain) + decay + own_decay) * measured.samples
        updates, opt_state = optimizer.update(grads, state.opt_state["plain"], plain, rate_scale=rate_scale)
        plain = _limited(spec, jax.tree.map(jnp.add, plain, updates), mesh)
        params, states = _together(plain, opt_state, {"outputs": outputs, "inputs": found})
        after = TrainState(state.step, params, states, measured.statistics, brake, state.rng)
        report = StepReport(loss, decay, skipped.astype(jnp.int32))
        return _kept(spec, skipped, state, after)._replace(step=state.step + 1), report

    with jax.set_mesh(mesh):
        shardings = tree_shardings(jax.eval_shape(_starter(spec, settings, mesh, steps=steps), settings.seed), mesh)
    everywhere = NamedSharding(mesh, P())
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, everywhere))


def abstract_state(spec: NetworkSpec, settings: TrainSettings, mesh: Mesh, *, steps: int = 0) -> TrainState:
    """Shapes and shardings of the state."""
    start = _starter(spec, settings, mesh, steps=steps)
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(start, settings.seed)
        return jax.tree.map(_abstract, shapes, tree_shardings(shapes, mesh))


def abstract_arguments(
    spec: NetworkSpec, settings: TrainSettings, mesh: Mesh, *, capacity: int
) -> tuple[TrainState, dict[str, Any], dict[str, Any]]:
    """Shapes and shardings of a step's arguments, for lowering it without data. Batches of layers that say `Sparse`
    hold indicators, `capacity` non-zeros a data shard; the others are dense.
    """
    by_data, size = NamedSharding(mesh, P("data")), pace_of(spec.training, settings).batch_size
    mask = jax.ShapeDtypeStruct((size,), jnp.float32, sharding=by_data)

    def batch(layer: LayerSpec) -> Any:
        if layer.sparse:
            shape = (mesh.shape["data"] * capacity,)
            by_entry = by_data
            if layer.parts > 0:
                shape = (mesh.shape["data"] * layer.parts, max(-(-capacity // layer.parts), 1))
                by_entry = NamedSharding(mesh, P(("data", "model")))
            entries = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=by_entry)
            return SparseBatch(entries, entries, None, mask)
        shape = (size, layer.width)
        return DenseBatch(jax.ShapeDtypeStruct(shape, jnp.float32, sharding=by_data), mask)

    def target(layer: LayerSpec) -> Any:
        entries = batch(layer)
        if not layer.sampling.by or not isinstance(entries, SparseBatch):
            return entries
        # At most: no feature of the batch is another's, or a negative.
        of_batch = capacity if layer.sampling.by is Negatives.IN_BATCH else 0
        negatives = layer.sampling.count or of_batch
        by_part = NamedSharding(mesh, P("model"))

        def of_parts(count: int, kind: Any) -> Any:
            return jax.ShapeDtypeStruct((layer.parts, -(-count // layer.parts)), kind, sharding=by_part)

        candidates, slots = of_parts(capacity + layer.sampling.count, jnp.int32), of_parts(negatives, jnp.int32)
        return SampledBatch(entries, entries.indices, candidates, slots, of_parts(negatives, jnp.float32))

    state = abstract_state(spec, settings, mesh, steps=1)
    return state, {one.name: batch(one) for one in spec.inputs}, {one.name: target(one) for one in spec.outputs}


def in_order(state: TrainState, spec: NetworkSpec, mesh: Mesh, *, release: bool = False) -> TrainState:
    """`state` with its features in the order of their numbers, as without deals, and without the optimizer's part;
    `release` frees each array that is not needed any more as soon as it can be.
    """
    shards = mesh.shape["model"]
    settled = _settled(state, spec)
    params = {group: {key: dict(part) for key, part in parts.items()} for group, parts in settled.items()}
    for number, one in enumerate(spec.connections):
        part = params[group_of(one, shards)][str(number)]
        for layer, names in ((one.source, ("kernel",)), (one.target, ("kernel", "bias"))):
            if layer.parts == 0:
                continue
            deal, rows = deal_of(layer, shards), deal_of(replace(layer, parts=0), shards).stored
            for name in names:
                stored, given = part[name], state.params[group_of(one, shards)][str(number)][name]
                part[name] = _ordering(deal, rows, stored.sharding)(stored)
                for array in {id(stored): stored, id(given): given}.values():
                    if release or array is not given:
                        array.delete()
    return state._replace(params=params, opt_state={})


@lru_cache(maxsize=64)
def _ordering(deal: Deal, rows: int, sharding: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    """Compiled once: validation wants a state in order after every epoch."""
    return jax.jit(partial(_ordered, deal=deal, rows=rows), out_shardings=sharding)


def _ordered(stored: jax.Array, *, deal: Deal, rows: int) -> jax.Array:
    ordered = deal.gathered(stored)[:rows]
    missing = ((0, max(rows - deal.stored, 0)), *[(0, 0)] * (stored.ndim - 1))
    return jnp.pad(ordered, missing)


def weights_of(state: TrainState, spec: NetworkSpec) -> Weights:
    """What was learnt, gathered from all devices, padding stripped."""
    return to_weights(spec, _settled(state, spec), state.statistics)


def _settled(state: TrainState, spec: NetworkSpec) -> dict[str, Any]:
    """The parameters with all rows as they would be had a step updated them all."""
    return caught_up(with_products(spec, state.params, state.opt_state)[0], state.opt_state)


def _braked(brake: Brake, step: jax.Array, loss: jax.Array) -> tuple[Brake, jax.Array]:
    """The brake after a batch of this summed loss, and whether the batch is to be left out."""
    mean = 0.9 * brake.mean + 0.1 * loss
    jumped = (step >= _WARM_UP) & (loss > 2.0 * mean)
    left = jnp.where(jumped, _BRAKED, brake.left)
    return Brake(mean, jnp.maximum(left - 1, 0)), jumped


def _kept(spec: NetworkSpec, skipped: jax.Array, before: TrainState, after: TrainState) -> TrainState:
    """What was, where the batch is left out. Rows that are updated block by block are kept already."""

    def chosen(old: Any, new: Any) -> Any:
        return jax.tree.map(lambda was, now: was if was is now else jnp.where(skipped, was, now), old, new)

    def numbers(old: Any, new: Any) -> Any:
        return jax.tree.map(lambda was, now: now if now.ndim else jnp.where(skipped, was, now), old, new)

    plain, apart = split(spec, after.params)
    states = {
        name: (chosen if name == "plain" else numbers)(before.opt_state[name], own)
        for name, own in after.opt_state.items()
    }
    return after._replace(
        params=joined(chosen(split(spec, before.params)[0], plain), apart),
        opt_state=states,
        statistics=chosen(before.statistics, after.statistics),
    )


def _together(plain: Any, opt_state: Any, parts: Mapping[str, Mapping[str, Part]]) -> tuple[dict[str, Any], Any]:
    """Parameters and optimizer's states of what is updated as a whole and of the parts."""
    params, states = (
        {group: {key: part[place] for key, part in owns.items()} for group, owns in parts.items()} for place in (0, 1)
    )
    return joined(plain, params), {"plain": opt_state, **states}


def _probes(spec: NetworkSpec, mesh: Mesh, inputs: Batches) -> dict[int, jax.Array]:
    """Zeros [batch, units] by number of the connection from an Input layer that is updated block by block."""
    return {
        number: jnp.zeros(
            (len(inputs[one.source.name].sample_mask), deal_of(one.target, mesh.shape["model"]).stored), jnp.float32
        )
        for number, one in enumerate(spec.connections)
        if one.source.parts > 0
    }


def _limited(spec: NetworkSpec, params: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Parameters after the updates, weights no longer than their layers allow."""
    shards = mesh.shape["model"]
    for number, connection in enumerate(spec.connections):
        length = connection.target.weight_norm
        if length > 0 and connection.owner == number and connection.target.parts == 0:
            part = params[group_of(connection, shards)][str(number)]
            by_output = _is_by_output(connection, shards)
            part["kernel"] = limit_weights(part["kernel"], length=length, by_output=by_output)
    return params


def _is_by_output(connection: ConnectionSpec, shards: int) -> bool:
    return connection.target.type is LayerType.CONVOLUTIONAL or layout_of(connection, shards).by_output


def _starter(spec: NetworkSpec, settings: TrainSettings, mesh: Mesh, *, steps: int = 0) -> Callable[[int], TrainState]:
    optimizer = make_optimizer(spec, settings, steps=steps)

    def start(seed: int) -> TrainState:
        weights, training = jax.random.split(jax.random.key(seed))
        network = Network(spec, shards=mesh.shape["model"], rng=weights)
        params = nnx.to_pure_dict(nnx.state(network, nnx.Param))
        statistics = nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))
        brake = Brake(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))
        plain, apart = split(spec, params)
        opt_state: dict[str, Any] = {"plain": optimizer.init(plain)}
        opt_state |= {group: {key: optimizer.init(own) for key, own in owns.items()} for group, owns in apart.items()}
        rates, outputs, inputs = rates_of(spec, settings), opt_state["outputs"], opt_state["inputs"]
        inputs |= {key: delayed(rates, apart["inputs"][key], own) for key, own in inputs.items()}
        outputs |= {at: wrapped(spec.layers[int(at)], apart["outputs"][at], own) for at, own in outputs.items()}
        return TrainState(jnp.zeros((), jnp.int32), params, opt_state, statistics, brake, training)

    return start


def _placed(arrays: Mapping[str, Any], shardings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _placed(value, shardings[name]) if isinstance(value, Mapping) else placed(value, shardings[name])
        for name, value in arrays.items()
    }


def _abstract(shape: Any, sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
