"""The state of a training, born sharded, and the jitted step that updates it in place. Knows batches, not files
or epochs.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from trainer.dense import DenseBatch
from trainer.hosts import placed
from trainer.layers import layout_of, limit_weights
from trainer.losses import LossSpec, Shard, sample_losses, takes_logits
from trainer.model import Batches, Forward, Network, from_weights, group_of, to_weights
from trainer.network_types import Activation, ConnectionSpec, LayerSpec, LayerType, NetworkSpec
from trainer.optimizer import make_optimizer, rates_of, regularization
from trainer.settings import TrainSettings
from trainer.sharding import tree_shardings
from trainer.sparse import SparseBatch, round_up
from trainer.weights import Weights

_WARM_UP = 100
"""Batches that only feed the running mean of the brake."""
_BRAKED = 25


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


class Measured(NamedTuple):
    """What a forward pass tells besides what is minimised."""

    loss_sum: jax.Array
    """Sum over the real samples of their losses."""
    samples: jax.Array
    """How many those are."""
    statistics: dict[str, Any]
    """Running statistics after the batch."""


Step = Callable[[TrainState, Batches, Batches], tuple[TrainState, StepReport]]


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
        missing = part["bias"].shape[0] - len(bias)
        part["bias"] = placed(np.pad(bias, (0, missing)), where)
    return state


def make_step(spec: NetworkSpec, settings: TrainSettings, mesh: Mesh, *, steps: int = 0) -> Step:
    """The update by one batch of inputs and targets, by layer name. It consumes the state it is given."""
    jitted = jitted_step(spec, settings, mesh, steps=steps)

    def step(state: TrainState, inputs: Batches, targets: Batches) -> tuple[TrainState, StepReport]:
        with jax.set_mesh(mesh):
            return jitted(state, inputs, targets)

    return step


def jitted_step(spec: NetworkSpec, settings: TrainSettings, mesh: Mesh, *, steps: int = 0) -> Any:
    """The step as `jax.jit` made it, to be lowered or exported within `jax.set_mesh(mesh)`."""
    optimizer, rates = make_optimizer(spec, settings, steps=steps), rates_of(spec, settings)
    gradient = jax.grad(objective_function(spec, mesh), has_aux=True)

    def step(state: TrainState, inputs: Batches, targets: Batches) -> tuple[TrainState, StepReport]:
        rng = jax.random.fold_in(state.rng, state.step)
        grads, measured = gradient(state.params, state.statistics, inputs, targets, rng)
        brake, skipped = _braked(state.brake, state.step, measured.loss_sum)
        report = StepReport(
            measured.loss_sum,
            regularization(rates, state.params) * measured.samples,
            skipped.astype(jnp.int32),
        )
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, rate_scale=jnp.where(state.brake.left > 0, 0.1, 1.0)
        )
        params = _limited(spec, jax.tree.map(jnp.add, state.params, updates), mesh)
        after = TrainState(state.step, params, opt_state, measured.statistics, state.brake, state.rng)
        kept = jax.tree.map(lambda now, before: now if now is before else jnp.where(skipped, before, now), after, state)
        return kept._replace(step=state.step + 1, brake=brake), report

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
    by_data = NamedSharding(mesh, P("data"))
    entries = jax.ShapeDtypeStruct((mesh.shape["data"] * capacity,), jnp.int32, sharding=by_data)
    mask = jax.ShapeDtypeStruct((settings.batch_size,), jnp.float32, sharding=by_data)

    def batch(layer: LayerSpec) -> Any:
        if layer.sparse:
            return SparseBatch(entries, entries, None, mask)
        shape = (settings.batch_size, layer.width)
        return DenseBatch(jax.ShapeDtypeStruct(shape, jnp.float32, sharding=by_data), mask)

    state = abstract_state(spec, settings, mesh, steps=1)
    return state, {one.name: batch(one) for one in spec.inputs}, {one.name: batch(one) for one in spec.outputs}


class ForwardFunction:
    """`(params, statistics, batches, rng or None) -> (Forward, statistics)`, to be called within
    `jax.set_mesh(mesh)`.
    """

    def __init__(self, spec: NetworkSpec, mesh: Mesh) -> None:
        shards = mesh.shape["model"]
        abstract = nnx.eval_shape(lambda: Network(spec, shards=shards, rng=jax.random.key(0)))
        self._graph, self._params, self._statistics = nnx.split(abstract, nnx.Param, nnx.BatchStat)

    def __call__(
        self, params: Any, statistics: Any, batches: Batches, rng: jax.Array | None
    ) -> tuple[Forward, dict[str, Any]]:
        """Every layer of a batch, and the running statistics after it."""
        filled = [jax.tree.map(lambda variable: variable, own) for own in (self._params, self._statistics)]
        nnx.replace_by_pure_dict(filled[0], dict(params))
        nnx.replace_by_pure_dict(filled[1], dict(statistics))
        network = nnx.merge(self._graph, *filled)
        said = network(batches, rng=rng)
        return said, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))


def forward_function(spec: NetworkSpec, mesh: Mesh) -> ForwardFunction:
    """What computes `spec` on `mesh`."""
    return ForwardFunction(spec, mesh)


def weights_of(state: TrainState, spec: NetworkSpec) -> Weights:
    """What was learnt, gathered from all devices, padding stripped."""
    return to_weights(spec, state.params, state.statistics)


def objective_function(spec: NetworkSpec, mesh: Mesh) -> Callable[..., tuple[jax.Array, Measured]]:
    """`(params, statistics, inputs, targets, rng) -> (what is minimised, what was measured on the way)`: the mean loss
    of the real samples plus the penalty. To be called within `jax.set_mesh(mesh)`.
    """
    forward = forward_function(spec, mesh)

    def objective(
        params: Any, statistics: Any, inputs: Batches, targets: Batches, rng: jax.Array
    ) -> tuple[jax.Array, Measured]:
        said, statistics = forward(params, statistics, inputs, rng)
        mask = next(iter(targets.values())).sample_mask
        losses = jnp.zeros_like(mask)
        for layer in spec.outputs:
            losses = losses + layer.loss_weight * output_losses(spec, layer, said, targets[layer.name], mesh)
        summed = jnp.where(mask > 0, losses, 0.0).sum()
        samples = jnp.maximum(mask.sum(), 1.0)
        return summed / samples + said.penalty, Measured(summed, samples, statistics)

    return objective


def output_losses(
    spec: NetworkSpec, layer: LayerSpec, said: Forward, targets: SparseBatch | DenseBatch, mesh: Mesh
) -> jax.Array:
    """Loss of each sample at one Output layer, [batch]."""
    activation = Activation.LINEAR if layer.type is LayerType.POOLING else layer.activation
    loss = LossSpec(spec.loss_of(layer), activation, spec.marginal, spec.delta_boost)
    values = (said.sums if takes_logits(loss.loss, activation) else said.outputs)[layer.name]
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


def _braked(brake: Brake, step: jax.Array, loss: jax.Array) -> tuple[Brake, jax.Array]:
    """The brake after a batch of this summed loss, and whether the batch is to be left out."""
    mean = 0.9 * brake.mean + 0.1 * loss
    jumped = (step >= _WARM_UP) & (loss > 2.0 * mean)
    left = jnp.where(jumped, _BRAKED, brake.left)
    return Brake(mean, jnp.maximum(left - 1, 0)), jumped


def _limited(spec: NetworkSpec, params: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Parameters after the updates, weights no longer than their layers allow."""
    shards = mesh.shape["model"]
    for number, connection in enumerate(spec.connections):
        length = connection.target.weight_norm
        if length > 0 and connection.owner == number:
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
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), statistics, brake, training)

    return start


def _placed(arrays: Mapping[str, Any], shardings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _placed(value, shardings[name]) if isinstance(value, Mapping) else placed(value, shardings[name])
        for name, value in arrays.items()
    }


def _abstract(shape: Any, sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
