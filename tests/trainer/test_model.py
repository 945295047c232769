from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainer_networks import Rows, batch_of, chain, dense, mesh_of, random_rows, with_layer

from trainer.model import Forward, from_weights, to_weights
from trainer.network_types import Activation, NetworkSpec, Sparseness
from trainer.objective import forward_function
from trainer.penalties import sparseness_penalty
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.state import create_state
from trainer.weights import Connection, Weights

INPUTS, OUTPUTS = 21, 13
ROWS = random_rows(8, INPUTS, seed=2)
SETTINGS = TrainSettings()


def asked(
    spec: NetworkSpec, connections: Sequence[Connection], *, shape: tuple[int, int] = (1, 1), rng: Any = None
) -> Forward:
    mesh = mesh_of(shape)
    params = create_state(spec, SETTINGS, mesh, weights=Weights(tuple(connections))).params
    batch = to_mesh({spec.input.name: batch_of(ROWS, INPUTS, shards=shape[0])}, mesh)
    with jax.set_mesh(mesh):
        return jax.jit(forward_function(spec, mesh))(params, {}, batch, rng)[0]


def logits_of(spec: NetworkSpec, said: Forward) -> np.ndarray:
    return np.asarray(said.sums[spec.output.name])


def drawn(spec: NetworkSpec, *, seed: int = 0) -> tuple[Connection, ...]:
    rng = np.random.default_rng(seed)
    widths = [layer.width for layer in spec.layers]
    return tuple(
        Connection(rng.normal(size=(a, b)).astype(np.float32), rng.normal(size=b).astype(np.float32))
        for a, b in pairwise(widths)
    )


def by_hand(rows: Rows, connections: Sequence[Connection]) -> np.ndarray:
    x = dense(rows, INPUTS)
    for kernel, bias in connections[:-1]:
        x = np.tanh(x @ kernel + bias)
    return x @ connections[-1].kernel + connections[-1].bias


@pytest.mark.parametrize("hidden", [(), (5,), (5, 3, 4)], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (2, 4)], ids=str)
def test_logits_are_the_chain_of_products_on_every_mesh(shape: tuple[int, int], hidden: tuple[int, ...]) -> None:
    spec = chain((INPUTS, OUTPUTS), hidden=hidden, activation=Activation.TANH, denoising=0.5)
    connections = drawn(spec)
    said = asked(spec, connections, shape=shape)
    np.testing.assert_allclose(logits_of(spec, said)[:, :OUTPUTS], by_hand(ROWS, connections), rtol=1e-4, atol=1e-5)
    assert float(said.penalty) == 0.0


@pytest.mark.parametrize("hidden", [(), (5,), (5, 3, 4)], ids=str)
@pytest.mark.parametrize("shards", [1, 2, 8])
def test_connections_survive_the_way_through_parameters(shards: int, hidden: tuple[int, ...]) -> None:
    spec = chain((INPUTS, OUTPUTS), hidden=hidden)
    connections = drawn(spec)
    params, statistics = from_weights(spec, Weights(connections), shards=shards)
    assert params["inputs"]["0"]["kernel"].shape[0] % shards == 0
    back = to_weights(spec, params, statistics)
    for given, returned in zip(connections, back.connections, strict=True):
        np.testing.assert_array_equal(given.kernel, returned.kernel)
        np.testing.assert_array_equal(given.bias, returned.bias)


def test_dropout_acts_in_training_alone() -> None:
    spec = with_layer(chain((INPUTS, OUTPUTS), activation=Activation.TANH), 1, dropout=0.5)
    connections = drawn(spec)
    np.testing.assert_allclose(
        logits_of(spec, asked(spec, connections)), by_hand(ROWS, connections), rtol=1e-4, atol=1e-5
    )
    first, second = (logits_of(spec, asked(spec, connections, rng=jax.random.key(n))) for n in (1, 2))
    assert not np.allclose(first, second)


def test_denoising_needs_an_input_that_calls_itself_sparse() -> None:
    spec = with_layer(chain((INPUTS, OUTPUTS), denoising=0.5), 0, sparse=False)
    connections = drawn(spec)
    quiet = logits_of(spec, asked(spec, connections))
    np.testing.assert_array_equal(logits_of(spec, asked(spec, connections, rng=jax.random.key(1))), quiet)


@pytest.mark.parametrize(("own", "common", "p"), [(0.25, 0.9, 0.25), (0.0, 0.5, 0.5)])
def test_a_sparse_inputs_own_chance_goes_before_the_networks_denoising(own: float, common: float, p: float) -> None:
    spec = with_layer(chain((INPUTS, INPUTS), hidden=(), denoising=common), 0, dropout=own)
    itself = [Connection(np.eye(INPUTS, dtype=np.float32), np.zeros(INPUTS, np.float32))]
    seen = [
        logits_of(spec, asked(spec, itself, shape=shape, rng=jax.random.key(5)))[:, :INPUTS]
        for shape in ((1, 1), (1, 8), (2, 4))
    ]
    stored = dense(ROWS, INPUTS) > 0
    assert set(np.unique(seen[0][stored])) == {np.float32(0.0), np.float32(1.0 / (1.0 - p))}
    assert not seen[0][~stored].any()
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])


@pytest.mark.parametrize(
    ("own", "sparse", "expected"),
    [
        (Sparseness(), True, Sparseness(0.5, 2.0)),
        (Sparseness(0.25, 0.0), True, Sparseness(0.25, 2.0)),
        (Sparseness(0.0, 3.0), True, Sparseness(0.5, 3.0)),
        (Sparseness(0.25, 3.0), False, None),
    ],
)
def test_a_layers_own_sparseness_goes_before_the_networks(
    own: Sparseness, sparse: bool, expected: Sparseness | None
) -> None:
    spec = chain((INPUTS, OUTPUTS), sparseness=Sparseness(0.5, 2.0))
    spec = with_layer(spec, 1, sparse=sparse, sparseness=own)
    connections = drawn(spec)
    hidden = dense(ROWS, INPUTS) @ connections[0].kernel + connections[0].bias
    mean = (1.0 / (1.0 + np.exp(-hidden))).mean(axis=0)
    penalty = 0.0 if expected is None else divergence(expected, mean)
    np.testing.assert_allclose(asked(spec, connections, rng=jax.random.key(0)).penalty, penalty, rtol=1e-4)


def test_without_the_networks_beta_no_layer_is_penalised() -> None:
    spec = with_layer(chain((INPUTS, OUTPUTS)), 1, sparseness=Sparseness(0.5, 2.0))
    assert float(asked(spec, drawn(spec), rng=jax.random.key(0)).penalty) == 0.0


def divergence(sparseness: Sparseness, mean: np.ndarray) -> float:
    p = sparseness.p
    terms = p * np.log(p / mean) + (1 - p) * np.log((1 - p) / (1 - mean))
    return float(sparseness.beta * terms.sum())


@pytest.mark.parametrize("level", [0.3, 0.0, 1.0], ids=["inside", "clipped_below", "clipped_above"])
def test_the_penalty_passes_back_dsstnes_term_to_every_real_sample(level: float) -> None:
    activations = np.full((4, 3), level, np.float32)
    mask = jnp.array([1.0, 1.0, 1.0, 0.0])
    sparseness = Sparseness(0.25, 2.0)
    gradient = jax.grad(lambda a: sparseness_penalty(sparseness, a, mask))(jnp.asarray(activations))
    m = np.clip(np.float32(level), 1e-6, 0.999999)
    term = 2.0 * (-0.25 / m + 0.75 / (1.0 - m)) / 3.0
    np.testing.assert_allclose(gradient[:3], np.full((3, 3), term), rtol=2e-2 if level == 1.0 else 1e-5)
    assert not np.asarray(gradient)[3].any()
