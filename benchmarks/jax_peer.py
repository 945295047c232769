"""JAX and optax as their user would write the sparse network without this project: gathered input, mean loss by
`value_and_grad`, one jitted step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.training import Training, in_turns


def plain(**arguments: Any) -> Callable[[], float]:
    """The step by automatic differentiation."""
    training = Training(**arguments)
    params = [(jnp.asarray(weight), jnp.zeros(weight.shape[1])) for weight in training.weights()]
    optimizer = _optimizer(training)
    optimizer_state = optimizer.init(params)
    longest = max(len(batch.indices) for batch in training.batches)
    padded = [_padded(batch, longest, training) for batch in training.batches]

    def loss(params: Any, indices: jax.Array, rows: jax.Array) -> jax.Array:
        (first, bias), *others = params
        gathered = first.at[indices].get(mode="fill", fill_value=0.0)
        sums = jax.ops.segment_sum(gathered, rows, training.batch, indices_are_sorted=True) + bias
        for weight, bias in others:
            sums = jax.nn.sigmoid(sums) @ weight + bias
        stored = sums.at[rows, indices].get(mode="fill", fill_value=0.0)
        return (jax.nn.softplus(sums).sum() - stored.sum()) / training.batch

    @jax.jit
    def step(params: Any, optimizer_state: Any, indices: jax.Array, rows: jax.Array) -> tuple[Any, Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(params, indices, rows)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        return optax.apply_updates(params, updates), optimizer_state, value

    def one(batch: Any) -> None:
        nonlocal params, optimizer_state
        params, optimizer_state, value = step(params, optimizer_state, *batch)
        jax.block_until_ready((params, value))

    return in_turns(training, padded, one)


def _optimizer(training: Training) -> optax.GradientTransformation:
    if training.optimizer == "RMSPROP":
        return optax.rmsprop(training.learning_rate, decay=0.9)
    return optax.sgd(training.learning_rate)


def _padded(batch: Any, length: int, training: Training) -> tuple[Any, Any]:
    missing = (0, length - len(batch.indices))
    indices = jnp.pad(batch.indices, missing, constant_values=training.items)
    return indices, jnp.pad(batch.rows, missing, constant_values=training.batch)
