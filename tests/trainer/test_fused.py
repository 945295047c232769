"""Wide layers that are updated block by block, against a dense network that knows neither blocks nor devices."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainer_networks import chain, dense, mesh_of, random_rows, with_layer

from trainer.data.batches import paired_batches
from trainer.data.netcdf import Dataset
from trainer.deal import blocks_of, deals_of, with_deals
from trainer.dense import DenseDataset
from trainer.network_types import Activation, ErrorFunction, NetworkSpec, OptimizerName, OptimizerSpec
from trainer.optimizer import make_optimizer
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.sparse import SparseDataset
from trainer.state import Brake, TrainState, create_state, make_step, weights_of

WIDTH, HIDDEN, BATCH, STEPS = 43, 5, 6, 50
SAMPLES = 4 * BATCH - 2
ROWS = random_rows(SAMPLES, WIDTH, seed=3)
RNG = np.random.default_rng(4)
VALUES = [RNG.uniform(0.3, 1.5, len(row)).tolist() for row in ROWS]
WEIGHTS = RNG.uniform(0.5, 2.0, SAMPLES).astype(np.float32)

Loss = Callable[[Any, Any], Any]
"""(sums, targets), both [batch, units] -> losses [batch]"""


def marginal(z: Any, stored: Any, scale: Any) -> Any:
    a = jax.nn.sigmoid(z)
    one = jnp.where(a < 0.9, scale * jax.nn.softplus(-z), 0.0)
    zero = jnp.where(a > 0.1, jax.nn.softplus(z), 0.0)
    return jnp.where(stored > 0, one, zero).sum(axis=1)


LOSSES: Mapping[str, Loss] = {
    "L1": lambda z, t: jnp.abs(jnp.tanh(z) - t).sum(axis=1),
    "L2": lambda z, t: 0.5 * jnp.square(z - t).sum(axis=1),
    "hinge": lambda z, t: 0.5 * jnp.square(jnp.where(t > 0, jnp.minimum(z - t, 0.0), jnp.maximum(z, 0.0))).sum(axis=1),
    "cross entropy": lambda z, t: jnp.where(t > 0, jax.nn.softplus(-z), jax.nn.softplus(z)).sum(axis=1),
    "multinomial": lambda z, t: (
        -(t * jax.nn.log_softmax(z)).sum(axis=1) / jnp.maximum((t > 0).sum(axis=1).astype(jnp.float32), 1.0)
    ),
    "contrastive": lambda z, t: (
        (t * (1.0 - z)).sum(axis=1) / jnp.maximum((t > 0).sum(axis=1).astype(jnp.float32), 1.0)
        + 3.0
        * jnp.where(t == 0, jnp.maximum(0.0, z - 0.5), 0.0).sum(axis=1)
        / (t.shape[1] - (t > 0).sum(axis=1).astype(jnp.float32))
    ),
    "dense hinge": lambda z, t: jnp.maximum(0.0, 1.0 - (2.0 * t - 1.0) * z).sum(axis=1),
    "marginal": lambda z, t: marginal(z, t, 1.0),
    "scaled marginal": lambda z, t: marginal(z, t, t),
}


@dataclass(frozen=True)
class Case:
    loss: str
    function: ErrorFunction
    activation: Activation
    optimizer: OptimizerName
    rate: float
    l2: float = 0.0
    analog: bool = False
    weighted: bool = False
    is_dense: bool = False
    """Targets are 1 where a feature is stored, else -1."""

    @property
    def spec(self) -> NetworkSpec:
        optimizer = OptimizerSpec(self.optimizer, self.rate, self.l2, momentum=0.8)
        spec = chain((WIDTH, WIDTH), hidden=(HIDDEN,), optimizer=optimizer, loss=self.function, shuffle=False)
        negative_weight = 3.0 if self.loss == "contrastive" else 1.0
        return with_layer(spec, 2, activation=self.activation, negative_weight=negative_weight)


CE, SIGMOID = ErrorFunction.CROSS_ENTROPY, Activation.SIGMOID
CASES = [
    Case("cross entropy", CE, SIGMOID, OptimizerName.SGD, 0.5, weighted=True),
    Case("cross entropy", CE, SIGMOID, OptimizerName.SGD, 0.5, l2=0.01),
    Case("multinomial", CE, Activation.SOFT_MAX, OptimizerName.ADAM, 0.02),
    Case("contrastive", ErrorFunction.COSINE_CONTRASTIVE, Activation.LINEAR, OptimizerName.ADAM, 0.02, analog=True),
    Case("L1", ErrorFunction.L1, Activation.TANH, OptimizerName.RMSPROP, 0.001, l2=0.01),
    Case("L2", ErrorFunction.L2, Activation.LINEAR, OptimizerName.MOMENTUM, 0.02, analog=True, weighted=True),
    Case("hinge", ErrorFunction.L2_HINGE, Activation.LINEAR, OptimizerName.NESTEROV, 0.02, l2=0.01, analog=True),
    Case("dense hinge", ErrorFunction.HINGE, Activation.LINEAR, OptimizerName.SGD, 0.02, l2=0.01, is_dense=True),
    Case("marginal", ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY, SIGMOID, OptimizerName.ADAGRAD, 0.05),
    Case(
        "scaled marginal",
        ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY,
        SIGMOID,
        OptimizerName.ADADELTA,
        1.0,
        analog=True,
    ),
]


def dataset_of(case: Case) -> SparseDataset:
    indptr = np.cumsum([0, *(len(row) for row in ROWS)])
    values = np.array([value for row in VALUES for value in row], np.float32) if case.analog else None
    indices = np.array([feature for row in ROWS for feature in row], np.uint32)
    return SparseDataset("d", WIDTH, indptr, indices, values, weights=WEIGHTS if case.weighted else None)


def targets_of(case: Case, data: SparseDataset) -> Dataset:
    if not case.is_dense:
        return data
    return DenseDataset("d", (WIDTH,), (2.0 * dense(ROWS, WIDTH) - 1.0).astype(np.float32))


def trained(case: Case, mesh: tuple[int, int]) -> tuple[list[float], list[np.ndarray]]:
    """Summed loss of each of the steps, and what was learnt."""
    settings, on = TrainSettings(batch_size=BATCH, data_shards=mesh[0]), mesh_of(mesh)
    # Eight blocks on one device, four on each of two, one on each of eight.
    spec = with_deals(case.spec, ["Input0"], shards=mesh[1], weights=7 * HIDDEN)
    assert [blocks_of(layer, mesh[1]) for layer in (*spec.inputs, *spec.outputs)] == [8 // mesh[1]] * 2
    data, losses = dataset_of(case), list[float]()
    wanted = targets_of(case, data)
    state, step = create_state(spec, settings, on), make_step(spec, settings, on)
    while len(losses) < STEPS:
        batches = paired_batches(
            {"Input0": data},
            {"Output2": wanted},
            batch_size=BATCH,
            shards=mesh[0],
            order=np.arange(SAMPLES),
            deals=deals_of(spec, mesh[1]),
        )
        for inputs, targets in batches:
            state, report = step(state, *to_mesh((inputs, targets), on))
            losses.append(float(report.loss_sum))
    return losses[:STEPS], [array for part in weights_of(state, spec).connections for array in part]


@cache
def trained_densely(case: Case) -> tuple[list[float], list[Any]]:
    """The same by matrices that have their zeros, on one device."""
    spec, settings = case.spec, TrainSettings(batch_size=BATCH)
    first, second = weights_of(create_state(spec, settings, mesh_of((1, 1))), spec).connections
    optimizer = make_optimizer(spec, settings)
    params = {
        "one": {"kernel": first.kernel, "bias": first.bias},
        "two": {"kernel": second.kernel, "bias": second.bias},
    }
    matrix = dense(ROWS, WIDTH, values=VALUES if case.analog else None).astype(np.float32)
    weights = WEIGHTS if case.weighted else np.ones(SAMPLES, np.float32)

    def mean(params: Any, x: Any, weight: Any) -> Any:
        # Sample weights scale the input, too.
        hidden = jax.nn.sigmoid((x * weight[:, None]) @ params["one"]["kernel"] + params["one"]["bias"][None, :])
        sums = hidden @ params["two"]["kernel"] + params["two"]["bias"][None, :]
        total = (LOSSES[case.loss](sums, x) * weight).sum()
        return total / len(x), total

    @jax.jit
    def step(params: Any, state: Any, x: Any, weight: Any) -> Any:
        grads, total = jax.grad(mean, has_aux=True)(params, x, weight)
        updates, state = optimizer.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state, total

    state, losses = optimizer.init(params), list[float]()
    while len(losses) < STEPS:
        for start in range(0, SAMPLES, BATCH):
            rows = slice(start, start + BATCH)
            params, state, total = step(params, state, matrix[rows], weights[rows])
            losses.append(float(total))
    return losses[:STEPS], [params[layer][name] for layer in ("one", "two") for name in ("kernel", "bias")]


@pytest.mark.parametrize("mesh", [(1, 1), (1, 2), (1, 8)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.loss}-{case.optimizer.name}")
def test_fifty_steps_lose_what_a_dense_network_loses(case: Case, mesh: tuple[int, int]) -> None:
    losses, learnt = trained(case, mesh)
    wanted, wanted_weights = trained_densely(case)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    assert min(losses[-4:]) < max(losses[:4])
    for found, other in zip(learnt, wanted_weights, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-3, atol=3e-5)


@pytest.mark.parametrize("mesh", [(1, 1), (2, 4)], ids=str)
def test_a_batch_whose_loss_jumps_changes_nothing(mesh: tuple[int, int]) -> None:
    case = Case("cross entropy", CE, SIGMOID, OptimizerName.ADAM, 0.5, l2=0.01)
    settings, on = TrainSettings(batch_size=8, data_shards=mesh[0]), mesh_of(mesh)
    spec = with_deals(case.spec, ["Input0"], shards=mesh[1])
    data = dataset_of(case)
    made = paired_batches(
        {"Input0": data},
        {"Output2": data},
        batch_size=8,
        shards=mesh[0],
        order=np.arange(8),
        deals=deals_of(spec, mesh[1]),
    )
    batch = to_mesh(next(made), on)
    step = make_step(spec, settings, on)

    def after(mean: float) -> tuple[TrainState, list[np.ndarray], list[np.ndarray]]:
        state = create_state(spec, settings, on)
        state = state._replace(step=jnp.int32(500), brake=Brake(jnp.float32(mean), jnp.int32(0)))
        before = _held(state)
        state, _ = step(state, *batch)
        return state, before, _held(state)

    _, before, now = after(1e9)
    assert not all(np.array_equal(old, new) for old, new in zip(before, now, strict=True))
    state, before, now = after(1.0)
    for old, new in zip(before, now, strict=True):
        np.testing.assert_array_equal(new, old)
    assert int(state.step) == 501
    assert int(state.brake.left) == 24


def _held(state: TrainState) -> list[np.ndarray]:
    return [np.array(leaf) for leaf in jax.tree.leaves((state.params, state.opt_state))]
