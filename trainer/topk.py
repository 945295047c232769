"""The best features of each sample, and what single layers put out: a network asked, its question compiled once. Names
are unknown here.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from trainer.catalogue import NOBODY, ON_ACCELERATOR, ON_CPU, Asked, Head, Ranking, can_be_split
from trainer.model import Batches, Forward
from trainer.network_types import NetworkSpec
from trainer.objective import forward_function
from trainer.sparse import SparseBatch, round_up

_ASKED = 4
"""Networks whose compiled question is kept for the next time: validation asks after every epoch."""


class Recommendations(NamedTuple):
    """Best first; ties by lower id. Both [batch, k]."""

    ids: jax.Array
    """int32, `NOBODY` where there is none."""
    scores: jax.Array
    """float32 outputs of the network, -inf where there is none."""


Learnt = tuple[Any, Any]
"""Parameters and running statistics, as in `TrainState`."""

Recommend = Callable[[Learnt, Batches, SparseBatch | None, SparseBatch | None, int], Recommendations]


@lru_cache(maxsize=_ASKED)
def make_recommend(spec: NetworkSpec, mesh: Mesh, *, k: int, layer: str = "", most: int = 0) -> Recommend:
    """`((params, statistics), inputs, exclude, multiply, live) -> Recommendations` from the Output layer `layer`, else
    from `spec.output`. Features of `exclude`, and those at or beyond `live`, are never listed; those of `multiply`
    have their score multiplied by its value first. A device holds `most` scores at a time, 0: what is fast there, or of
    networks whose units need each other its share of [batch, features].
    """
    forward = forward_function(spec, mesh)
    output = spec.layer(layer) if layer else spec.output
    usual = ON_CPU if mesh.devices.flat[0].platform == "cpu" else ON_ACCELERATOR
    ranking = Ranking(output, k, spec.bfloat16, most or usual)

    @jax.jit
    def ask(
        learnt: Learnt, inputs: Batches, exclude: SparseBatch | None, multiply: SparseBatch | None, live: Any
    ) -> Recommendations:
        said = forward(learnt[0], learnt[1], inputs, None)[0]
        asked = Asked(exclude, multiply, jnp.minimum(live, output.width))
        if can_be_split(spec, output):
            # What the pass over all layers made of this one is not used, and never computed.
            best = ranking.of_head(_head(forward.into(*learnt, output), said), asked)
        else:
            outputs = said.outputs[output.name]
            columns = round_up(output.width, mesh.shape["model"])
            best = ranking.of_outputs(jnp.pad(outputs, ((0, 0), (0, columns - outputs.shape[1]))), asked)
        missing = ((0, 0), (0, k - best.ids.shape[1]))
        return Recommendations(
            jnp.pad(best.ids, missing, constant_values=NOBODY), jnp.pad(best.values, missing, constant_values=-jnp.inf)
        )

    def recommend(
        learnt: Learnt, inputs: Batches, exclude: SparseBatch | None, multiply: SparseBatch | None, live: int
    ) -> Recommendations:
        with jax.set_mesh(mesh):
            return ask(learnt, inputs, exclude, multiply, jnp.int32(live))

    return recommend


def make_outputs(spec: NetworkSpec, mesh: Mesh, *, layer: str) -> Callable[[Learnt, Batches], jax.Array]:
    """`((params, statistics), inputs) -> [batch, units]`: the output of any layer but a sparse Input."""
    forward = forward_function(spec, mesh)
    wanted = spec.layer(layer)

    @jax.jit
    def ask(learnt: Learnt, inputs: Batches) -> jax.Array:
        return forward(learnt[0], learnt[1], inputs, None)[0].outputs[layer][:, : wanted.width]

    def outputs(learnt: Learnt, inputs: Batches) -> jax.Array:
        with jax.set_mesh(mesh):
            return ask(learnt, inputs)

    return outputs


def _head(into: Sequence[tuple[str, jax.Array, jax.Array]], said: Forward) -> Head:
    sources = tuple(said.outputs[name] for name, _, _ in into)
    biases = [bias for _, _, bias in into]
    return Head(sources, tuple(kernel for _, kernel, _ in into), sum(biases[1:], start=biases[0]))
