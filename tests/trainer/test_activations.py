import math
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainer.activations import activate, dropout
from trainer.network_types import Activation, LayerKind, LayerSpec

HIDDEN = LayerSpec("Hidden", LayerKind.HIDDEN, (4,))


@pytest.mark.parametrize(
    ("activation", "reference"),
    [
        (Activation.SIGMOID, lambda z: 1.0 / (1.0 + np.exp(-z))),
        (Activation.TANH, np.tanh),
        (Activation.RECTIFIED_LINEAR, lambda z: np.maximum(z, 0.0)),
        (Activation.LINEAR, lambda z: z),
        (Activation.LEAKY_RECTIFIED_LINEAR, lambda z: np.maximum(z, 0.1 * z)),
        (Activation.EXPONENTIAL_LINEAR, lambda z: np.where(z > 0, z, 1.5 * np.expm1(z))),
        (Activation.SCALED_EXPONENTIAL_LINEAR, lambda z: np.where(z > 0, 1.2 * z, 1.2 * 1.5 * np.expm1(z))),
        (Activation.SOFT_PLUS, lambda z: np.logaddexp(0.0, z)),
        (Activation.SOFT_SIGN, lambda z: z / (1.0 + np.abs(z))),
        (Activation.GELU, lambda z: 0.5 * z * (1.0 + np.vectorize(math.erf)(z / math.sqrt(2.0)))),
        (Activation.SILU, lambda z: z / (1.0 + np.exp(-z))),
    ],
)
def test_activations_and_their_slopes_follow_the_table(
    activation: Activation, reference: Callable[[np.ndarray], np.ndarray]
) -> None:
    z = np.array([[-90.0, -3.0, -0.5, 0.25, 2.0, 90.0]])
    layer = replace(HIDDEN, shape=z.shape[1:], activation=activation, relu_slope=0.1, elu_alpha=1.5, selu_lambda=1.2)
    given = jnp.asarray(z, jnp.float32)
    np.testing.assert_allclose(activate(layer, given), reference(z), rtol=1e-5, atol=1e-7)
    slope = (reference(z + 1e-5) - reference(z - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(lambda z: activate(layer, z).sum())(given), slope, rtol=1e-4, atol=1e-6)


def test_leaky_relu_is_linear_until_a_slope_is_given() -> None:
    layer = replace(HIDDEN, shape=(2,), activation=Activation.LEAKY_RECTIFIED_LINEAR)
    np.testing.assert_array_equal(activate(layer, jnp.array([[-2.0, 2.0]])), [[-2.0, 2.0]])


@pytest.mark.parametrize(
    ("activation", "slope"),
    [
        (Activation.RECTIFIED_LINEAR, 0.0),
        (Activation.EXPONENTIAL_LINEAR, 1.5),
        (Activation.SCALED_EXPONENTIAL_LINEAR, 1.2 * 1.5),
    ],
)
def test_the_slope_at_zero_is_the_one_from_below(activation: Activation, slope: float) -> None:
    layer = replace(HIDDEN, activation=activation, elu_alpha=1.5, selu_lambda=1.2)
    found = jax.grad(lambda z: activate(layer, z).sum())(jnp.array([[0.0, -0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(found, np.full((1, 4), slope), rtol=1e-6)


def dropped(layer: LayerSpec, activations: np.ndarray) -> np.ndarray:
    kept = jax.random.uniform(jax.random.key(4), activations.shape) >= layer.dropout
    return np.asarray(dropout(layer, jnp.asarray(activations, jnp.float32), kept))


def test_dropped_sigmoid_units_become_one_half_and_the_others_stay() -> None:
    out = dropped(replace(HIDDEN, dropout=0.25), np.full((100, 100), 0.125))
    np.testing.assert_array_equal(np.unique(out), [0.125, 0.5])
    assert abs((out == 0.5).mean() - 0.25) < 0.02


@pytest.mark.parametrize("activation", [Activation.TANH, Activation.RECTIFIED_LINEAR, Activation.LINEAR])
def test_dropped_units_of_other_layers_become_zero_and_the_others_grow(activation: Activation) -> None:
    out = dropped(replace(HIDDEN, dropout=0.25, activation=activation), np.full((100, 100), 0.75))
    np.testing.assert_allclose(np.unique(out), [0.0, 1.0])
    assert abs((out == 0.0).mean() - 0.25) < 0.02


@pytest.mark.parametrize("activation", [Activation.EXPONENTIAL_LINEAR, Activation.SCALED_EXPONENTIAL_LINEAR])
def test_alpha_dropout_keeps_mean_and_variance(activation: Activation) -> None:
    given = np.random.default_rng(0).normal(size=(400, 400))
    out = dropped(replace(HIDDEN, dropout=0.3, activation=activation), given)
    assert abs(out.mean()) < 0.02
    assert abs(out.var() - 1.0) < 0.02


SHARED_OUT: dict[Activation, Callable[[np.ndarray], np.ndarray]] = {
    Activation.SOFT_MAX: np.exp,
    Activation.RELU_MAX: lambda z: np.maximum(z, 0.0),
    Activation.LINEAR_MAX: lambda z: z,
}


@pytest.mark.parametrize("columns", [5, 8])
@pytest.mark.parametrize("activation", SHARED_OUT, ids=lambda activation: activation.name)
def test_activations_that_share_one_out_count_the_layers_units_alone(activation: Activation, columns: int) -> None:
    z = np.random.default_rng(1).normal(size=(6, columns))
    z[:, 0] = 1.0
    direction = np.random.default_rng(2).normal(size=(6, 5))
    layer = replace(HIDDEN, shape=(5,), activation=activation)

    def reference(z: np.ndarray) -> np.ndarray:
        parts = SHARED_OUT[activation](z[:, :5])
        return parts / np.abs(parts).sum(axis=1, keepdims=True)

    given = jnp.asarray(z, jnp.float32)
    np.testing.assert_allclose(activate(layer, given)[:, :5], reference(z), rtol=1e-5, atol=1e-7)
    assert not np.asarray(activate(layer, given))[:, 5:].any()
    gradient = jax.grad(lambda z: (activate(layer, z)[:, :5] * direction.astype(np.float32)).sum())(given)
    for unit in range(columns):
        moved = np.zeros_like(z)
        moved[:, unit] = 1e-6
        slope = ((reference(z + moved) - reference(z - moved)) * direction).sum(axis=1) / 2e-6
        np.testing.assert_allclose(gradient[:, unit], slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("activation", [Activation.RELU_MAX, Activation.LINEAR_MAX], ids=lambda one: one.name)
def test_a_layer_that_has_nothing_to_share_out_stays_at_zero(activation: Activation) -> None:
    layer = replace(HIDDEN, activation=activation)
    given = jnp.zeros((2, 4)) if activation is Activation.LINEAR_MAX else -jnp.ones((2, 4))
    assert not np.asarray(activate(layer, given)).any()
    assert not np.asarray(jax.grad(lambda z: activate(layer, z)[:, 0].sum())(given)).any()
