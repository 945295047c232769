from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainer_networks import chain

from trainer.network_types import OptimizerName, OptimizerSpec
from trainer.optimizer import make_optimizer, rates_of, regularization
from trainer.settings import TrainSettings

MU, MU1, RATE, L1, L2, FLOOR = 0.8, 0.9, 0.05, 0.02, 0.1, 1e-9
STEPS = 20

Slots = list[np.ndarray]
Update = Callable[[np.ndarray, Slots, float, int], np.ndarray]
"""(G, state, step size, steps so far) -> what is added to the weights; DSSTNE spec 5.11, G the negative gradient."""


def momentum(g: np.ndarray, state: Slots, a: float, _: int) -> np.ndarray:
    state[0] = MU * state[0] + a * g
    return state[0]


def nesterov(g: np.ndarray, state: Slots, a: float, _: int) -> np.ndarray:
    before = state[0]
    state[0] = MU * before + a * g
    return state[0] + MU * (state[0] - before)


def ada_grad(g: np.ndarray, state: Slots, a: float, _: int) -> np.ndarray:
    state[0] = state[0] + g**2
    return a * g / np.sqrt(np.maximum(FLOOR, state[0]))


def rms_prop(g: np.ndarray, state: Slots, a: float, _: int) -> np.ndarray:
    state[0] = MU * state[0] + (1 - MU) * g**2
    return a * g / np.sqrt(np.maximum(FLOOR, state[0]))


def ada_delta(g: np.ndarray, state: Slots, _: float, __: int) -> np.ndarray:
    state[0] = MU * state[0] + (1 - MU) * g**2
    d = g * np.sqrt(np.maximum(FLOOR, state[1]) / np.maximum(FLOOR, state[0]))
    state[1] = MU * state[1] + (1 - MU) * d**2
    return d


def adam(g: np.ndarray, state: Slots, a: float, before: int) -> np.ndarray:
    state[0] = MU * state[0] + (1 - MU) * g
    state[1] = MU1 * state[1] + (1 - MU1) * g**2
    t = before + 1
    return a * (state[0] / (1 - MU**t)) / (np.sqrt(state[1] / (1 - MU1**t)) + 1e-8)


EQUATIONS: dict[OptimizerName, Update] = {
    OptimizerName.SGD: lambda g, _, a, __: a * g,
    OptimizerName.MOMENTUM: momentum,
    OptimizerName.NESTEROV: nesterov,
    OptimizerName.ADAGRAD: ada_grad,
    OptimizerName.RMSPROP: rms_prop,
    OptimizerName.ADADELTA: ada_delta,
    OptimizerName.ADAM: adam,
}


def some(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def tree(kernel: np.ndarray, bias: np.ndarray) -> dict[str, Any]:
    return {"output": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}}


def expected(update: Update, decay: float) -> Slots:
    """Weights and biases after `STEPS` steps, in float64."""
    ends = []
    for shape, is_weight in (((3, 2), True), ((2,), False)):
        w, state = some(0, shape), [np.zeros(shape), np.zeros(shape)]
        for step in range(STEPS):
            g = -some(step + 1, shape)
            g = g - L2 * w - L1 * np.sign(w) if is_weight else g
            w = w + update(g, state, RATE / (1.0 + decay * step), step)
        ends.append(w)
    return ends


@pytest.mark.parametrize("decay", [0.0, 0.5], ids=["constant", "decaying"])
@pytest.mark.parametrize("name", EQUATIONS, ids=lambda name: name.name)
def test_updates_follow_dsstnes_equations(name: OptimizerName, decay: float) -> None:
    spec = chain((8, 8), decay=decay, optimizer=OptimizerSpec(name, RATE, L2, MU, MU1))
    optimizer = make_optimizer(spec, TrainSettings(l1=L1))
    params = tree(some(0, (3, 2)), some(0, (2,)))
    state = optimizer.init(params)
    for step in range(STEPS):
        updates, state = optimizer.update(tree(some(step + 1, (3, 2)), some(step + 1, (2,))), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    kernel, bias = expected(EQUATIONS[name], decay)
    np.testing.assert_allclose(params["output"]["kernel"], kernel, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(params["output"]["bias"], bias, rtol=2e-5, atol=1e-6)


def test_a_network_that_asks_for_nothing_is_trained_as_dsstnes_train_does() -> None:
    rates = rates_of(replace(chain((8, 8)), optimizer=None), TrainSettings())
    assert (rates.name, rates.learning_rate, rates.l1, rates.l2) == (OptimizerName.SGD, 0.025, 0.0, 0.0001)
    assert rates.momentum == 0.5


def test_adam_has_its_authors_decays_unless_told_otherwise() -> None:
    spec = chain((8, 8), optimizer=OptimizerSpec(OptimizerName.ADAM))
    rates = rates_of(spec, TrainSettings())
    assert (rates.momentum, rates.momentum2) == (0.9, 0.999)


def test_settings_win_over_the_network_and_the_network_over_defaults() -> None:
    spec = chain((8, 8), optimizer=OptimizerSpec(OptimizerName.NESTEROV, 0.5, 0.0, 0.75, 0.25))
    rates = rates_of(spec, TrainSettings(learning_rate=0.125))
    assert (rates.learning_rate, rates.l2, rates.momentum, rates.momentum2) == (0.125, 0.0, 0.75, 0.25)
    rates = rates_of(spec, TrainSettings(l2=0.5, l1=0.25, momentum=0.0, momentum2=0.0))
    assert (rates.learning_rate, rates.l1, rates.l2) == (0.5, 0.25, 0.5)
    assert (rates.momentum, rates.momentum2) == (0.0, 0.0)


def test_regularization_counts_weights_and_no_biases() -> None:
    kernel = some(1, (3, 2))
    rates = rates_of(chain((8, 8)), TrainSettings(l1=L1, l2=L2))
    measured = regularization(rates, tree(kernel, np.full(2, 100.0)))
    np.testing.assert_allclose(measured, 0.5 * L2 * (kernel**2).sum() + L1 * np.abs(kernel).sum(), rtol=1e-6)
    assert float(regularization(replace(rates, l1=0.0, l2=0.0), tree(kernel, kernel[0]))) == 0.0
