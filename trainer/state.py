"""The state of a training, born sharded, and the jitted step that updates it in place. Knows batches, not files
or epochs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from trainer.layers import activation_function
from trainer.losses import Shard, loss_rule, sample_losses
from trainer.model import Network, from_connections, stored_sizes, to_connections
from trainer.network import NetworkSpec
from trainer.network_file import Connection
from trainer.optimizer import make_optimizer, rates_of, regularization
from trainer.settings import TrainSettings
from trainer.sharding import tree_shardings
from trainer.sparse import SparseBatch


class TrainState(NamedTuple):
    """What a step changes; a pytree."""

    step: jax.Array
    params: dict[str, Any]
    """By module, as `output/kernel`; weights that touch features are split by feature over axis `model`."""
    opt_state: Any
    rng: jax.Array


class StepReport(NamedTuple):
    """What a step measured before it changed anything."""

    loss_sum: jax.Array
    """Sum over the real samples of their losses."""
    regularization_sum: jax.Array
    """Weight decay's share of the error, times the real samples (DSSTNE spec 4.3)."""


Step = Callable[[TrainState, SparseBatch, SparseBatch], tuple[TrainState, StepReport]]


def create_state(
    spec: NetworkSpec,
    settings: TrainSettings,
    mesh: Mesh,
    *,
    output_log_odds: npt.NDArray[np.float32] | None = None,
    connections: Sequence[Connection] | None = None,
) -> TrainState:
    """The state before the first step, every array made where it is to live. Weights are drawn by
    `settings.seed`, the same on every mesh, unless `connections` bring them; `output_log_odds` [features]
    replaces the biases of the output layer.
    """
    start = _starter(spec, settings, mesh)
    with jax.set_mesh(mesh):
        shardings = tree_shardings(jax.eval_shape(start, settings.seed), mesh)
        state = jax.jit(start, static_argnums=0, out_shardings=shardings)(settings.seed)
    if connections is not None:
        arrays = from_connections(spec, connections, shards=mesh.shape["model"])
        state = state._replace(params=_placed(arrays, shardings.params))
    if output_log_odds is not None:
        stored = stored_sizes(spec, shards=mesh.shape["model"])[1].stored
        layer = "output" if "output" in state.params else "input"
        bias = np.pad(output_log_odds, (0, stored - len(output_log_odds)))
        placed = jax.device_put(bias, shardings.params[layer]["bias"])
        state.params[layer]["bias"] = placed
    return state


def make_step(spec: NetworkSpec, settings: TrainSettings, mesh: Mesh) -> Step:
    """The update by one batch of inputs and targets. It consumes the state it is given."""
    jitted = jitted_step(spec, settings, mesh)

    def step(state: TrainState, inputs: SparseBatch, targets: SparseBatch) -> tuple[TrainState, StepReport]:
        with jax.set_mesh(mesh):
            return jitted(state, inputs, targets)

    return step


def jitted_step(spec: NetworkSpec, settings: TrainSettings, mesh: Mesh) -> Any:
    """The step as `jax.jit` made it, to be lowered or exported within `jax.set_mesh(mesh)`."""
    optimizer, rates = make_optimizer(spec, settings), rates_of(spec, settings)
    forward = forward_function(spec, mesh)
    losses = _loss_function(spec)

    def objective(params: Any, inputs: SparseBatch, targets: SparseBatch, rng: jax.Array) -> Any:
        said = forward(params, inputs, rng)
        summed = (losses(said.logits, targets) * targets.sample_mask).sum()
        samples = jnp.maximum(targets.sample_mask.sum(), 1.0)
        return summed / samples + said.penalty, (summed, samples)

    def step(state: TrainState, inputs: SparseBatch, targets: SparseBatch) -> tuple[TrainState, StepReport]:
        rng = jax.random.fold_in(state.rng, state.step)
        gradient = jax.grad(objective, has_aux=True)
        grads, (summed, samples) = gradient(state.params, inputs, targets, rng)
        report = StepReport(summed, regularization(rates, state.params) * samples)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        return TrainState(state.step + 1, params, opt_state, state.rng), report

    with jax.set_mesh(mesh):
        shardings = tree_shardings(jax.eval_shape(_starter(spec, settings, mesh), settings.seed), mesh)
    everywhere = NamedSharding(mesh, P())
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, everywhere))


def abstract_arguments(
    spec: NetworkSpec, settings: TrainSettings, mesh: Mesh, *, capacity: int
) -> tuple[TrainState, SparseBatch, SparseBatch]:
    """Shapes and shardings of a step's arguments, for lowering it without data: both batches of indicators,
    `capacity` non-zeros a data shard.
    """
    start = _starter(spec, settings, mesh)
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(start, settings.seed)
        state = jax.tree.map(_abstract, shapes, tree_shardings(shapes, mesh))
    shards = mesh.shape["data"]
    by_data = NamedSharding(mesh, P("data"))
    entries = jax.ShapeDtypeStruct((shards * capacity,), jnp.int32, sharding=by_data)
    mask = jax.ShapeDtypeStruct((settings.batch_size,), jnp.float32, sharding=by_data)
    batch = SparseBatch(entries, entries, None, mask)
    return state, batch, batch


def forward_function(spec: NetworkSpec, mesh: Mesh) -> Callable[..., Any]:
    """`(params, batch, rng or None) -> Forward`, to be called within `jax.set_mesh(mesh)`."""
    shards = mesh.shape["model"]
    abstract = nnx.eval_shape(lambda: Network(spec, shards=shards, rng=jax.random.key(0)))
    graph, variables = nnx.split(abstract)

    def forward(params: Mapping[str, Any], batch: SparseBatch, rng: jax.Array | None) -> Any:
        filled = jax.tree.map(lambda variable: variable, variables)
        nnx.replace_by_pure_dict(filled, dict(params))
        return nnx.merge(graph, filled)(batch, rng=rng)

    return forward


def connections_of(state: TrainState, spec: NetworkSpec) -> tuple[Connection, ...]:
    """The weights, gathered from all devices, padding stripped."""
    return to_connections(spec, state.params)


def _starter(spec: NetworkSpec, settings: TrainSettings, mesh: Mesh) -> Callable[[int], TrainState]:
    optimizer = make_optimizer(spec, settings)

    def start(seed: int) -> TrainState:
        weights, training = jax.random.split(jax.random.key(seed))
        network = Network(spec, shards=mesh.shape["model"], rng=weights)
        params = nnx.to_pure_dict(nnx.state(network))
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), training)

    return start


def _loss_function(spec: NetworkSpec) -> Callable[[jax.Array, SparseBatch], jax.Array]:
    """Loss of each sample, [batch], from logits spread over the mesh."""
    rule = loss_rule(spec.loss, spec.output.activation, marginal=spec.marginal, output=activation_function(spec.output))

    def of_shard(logits: jax.Array, targets: SparseBatch) -> jax.Array:
        first = jax.lax.axis_index("model") * logits.shape[1]
        return sample_losses(rule, logits, targets, shard=Shard(first, spec.output.width, "model"))

    return jax.shard_map(of_shard, in_specs=(P("data", "model"), P("data")), out_specs=P("data"))


def _placed(arrays: Mapping[str, Mapping[str, np.ndarray]], shardings: Mapping[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for path, members in arrays.items():
        layer, _, number = path.partition("/")
        where = shardings[layer][int(number)] if number else shardings[layer]
        placed = {name: jax.device_put(array, where[name]) for name, array in members.items()}
        if number:
            params.setdefault(layer, {})[int(number)] = placed
        else:
            params[layer] = placed
    return {**{name: {} for name in shardings if name not in params}, **params}


def _abstract(shape: Any, sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
