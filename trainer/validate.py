"""The gradient of a network held against differences of its loss (DSSTNE's Validate, spec 4.6)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from trainer.data.batches import paired_batches
from trainer.errors import NetworkError
from trainer.network_types import ErrorFunction, NetworkSpec
from trainer.objective import objective_function
from trainer.pace import pace_of
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.state import create_state
from trainer.train import TrainingData

_ENTRIES = 20
"""Looked at of each parameter."""


def largest_errors(
    spec: NetworkSpec, data: TrainingData, settings: TrainSettings, *, mesh: Mesh, step: float
) -> dict[str, float]:
    """By parameter: how far the gradient of the first batch's mean loss is from its central difference over `step`,
    at most, over some entries drawn by the seed.
    """
    if any(spec.loss_of(layer) is ErrorFunction.PAIRWISE for layer in spec.outputs):
        raise NetworkError("the gradient of BPR, which is of sampled pairs, cannot be validated", "$.ErrorFunction")
    state, size = create_state(spec, settings, mesh, steps=1), pace_of(spec.training, settings).batch_size
    batches = paired_batches(
        data.inputs,
        data.targets,
        batch_size=size,
        order=np.arange(min(size, data.samples)),
    )
    inputs, targets = to_mesh(next(batches), mesh)
    objective = objective_function(spec, mesh)
    drawn = np.random.default_rng(settings.seed)

    def loss(params: Any) -> jax.Array:
        return objective(params, state.statistics, inputs, targets, state.rng)[0]

    errors: dict[str, float] = {}
    with jax.set_mesh(mesh):
        gradient, compiled = jax.jit(jax.grad(loss))(state.params), jax.jit(loss)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
            places = drawn.choice(leaf.size, min(_ENTRIES, leaf.size), replace=False)
            slopes = np.asarray(_at(gradient, path)).reshape(-1)[places]
            found = [_difference(compiled, state.params, path, int(place), step) for place in places]
            name = "/".join(str(getattr(part, "key", part)) for part in path)
            errors[name] = float(np.abs(slopes - np.array(found)).max())
    return errors


def _difference(loss: Any, params: Mapping[str, Any], path: tuple[Any, ...], place: int, step: float) -> float:
    ends: list[float] = []
    for sign in (1.0, -1.0):

        def moved(here: tuple[Any, ...], leaf: jax.Array, sign: float = sign) -> jax.Array:
            return leaf if here != path else leaf.at[jnp.unravel_index(place, leaf.shape)].add(sign * step)

        ends.append(float(loss(jax.tree_util.tree_map_with_path(moved, params))))
    return (ends[0] - ends[1]) / (2 * step)


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        tree = tree[part.key]
    return tree
