import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainer_networks import MESHES, batch_of, dense, mesh_of, random_rows

from trainer.layers import (
    Corruption,
    Dense,
    FeatureOutput,
    Size,
    SparseDense,
    activation_function,
    dropout,
    initial_kernel,
)
from trainer.network import Activation, LayerKind, LayerSpec, WeightInit, WeightScheme

FEATURES, UNITS, SAMPLES = 21, 4, 8
ROWS = random_rows(SAMPLES, FEATURES, seed=1)
VALUES = [np.random.default_rng(n).uniform(-2.0, 2.0, len(row)).tolist() for n, row in enumerate(ROWS)]
PLAIN = Corruption(normalize=False, p=0.0, rng=None)
HIDDEN = LayerSpec("Hidden", LayerKind.HIDDEN, UNITS)

every_mesh = pytest.mark.parametrize("shape", MESHES, ids=str)


def sparse_dense(shape: tuple[int, int]) -> SparseDense:
    stored = -(-FEATURES // shape[1]) * shape[1]
    return SparseDense(Size(FEATURES, stored), Size(UNITS, UNITS), init=WeightInit(bias=0.25), rng=jax.random.key(3))


def summed(
    shape: tuple[int, int],
    corruption: Corruption = PLAIN,
    *,
    rows: list[list[int]] = ROWS,
    values: list[list[float]] | None = None,
    spare: int = 3,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output [batch, units], kernel [features, units], and the kernel's gradient by a fixed cotangent."""
    layer = sparse_dense(shape)
    batch = batch_of(rows, FEATURES, shards=shape[0], values=values, spare=spare)
    cotangent = jnp.asarray(np.random.default_rng(5).normal(size=(len(rows), UNITS)), jnp.float32)
    kernel = layer.kernel[...]

    @jax.jit
    def call(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        def output(kernel: jax.Array) -> jax.Array:
            changed = sparse_dense(shape)
            changed.kernel[...] = kernel
            return changed(batch, corruption=corruption)

        return output(kernel), jax.grad(lambda kernel: (output(kernel) * cotangent).sum())(kernel)

    with jax.set_mesh(mesh_of(shape)):
        out, gradient = call(kernel)
    assert not np.asarray(gradient)[FEATURES:].any()
    return np.asarray(out), np.asarray(kernel)[:FEATURES], np.asarray(gradient)[:FEATURES]


@every_mesh
@pytest.mark.parametrize("values", [None, VALUES], ids=["indicators", "analog"])
def test_a_sparse_input_is_the_dense_product(shape: tuple[int, int], values: Any) -> None:
    out, kernel, gradient = summed(shape, values=values)
    inputs = dense(ROWS, FEATURES, values=values)
    cotangent = np.random.default_rng(5).normal(size=(SAMPLES, UNITS))
    np.testing.assert_allclose(out, inputs @ kernel + 0.25, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, inputs.T @ cotangent, rtol=1e-4, atol=1e-5)


def test_a_feature_stored_twice_adds_up() -> None:
    out, kernel, _ = summed((1, 2), rows=[[3, 3, 5]])
    np.testing.assert_allclose(out[0], 2 * kernel[3] + kernel[5] + 0.25, rtol=1e-5)


def test_padding_entries_of_the_input_change_nothing_at_all() -> None:
    for tight, roomy in zip(summed((1, 8), spare=0), summed((1, 8), spare=50), strict=True):
        np.testing.assert_array_equal(tight, roomy)


def test_normalize_scales_every_sample_to_length_one() -> None:
    out, kernel, _ = summed((2, 4), replace(PLAIN, normalize=True), values=VALUES)
    inputs = dense(ROWS, FEATURES, values=VALUES)
    length = np.linalg.norm(inputs, axis=1, keepdims=True)
    np.testing.assert_allclose(out, inputs / np.maximum(length, 1e-6) @ kernel + 0.25, rtol=1e-4, atol=1e-6)


def test_denoising_hides_the_same_features_on_every_mesh() -> None:
    noise = Corruption(normalize=True, p=0.5, rng=jax.random.key(8))
    alone, *others = (summed(shape, noise) for shape in MESHES)
    assert not np.allclose(alone[0], summed((1, 1), replace(PLAIN, normalize=True))[0])
    for other in others:
        np.testing.assert_allclose(other[0], alone[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(other[2], alone[2], rtol=1e-5, atol=1e-6)


def test_denoising_hides_the_expected_share_and_scales_what_is_left() -> None:
    samples, each, p = 64, 100, 0.3
    rows = [list(range(each))] * samples
    corruption = Corruption(normalize=False, p=p, rng=jax.random.key(2))

    def ones(batch: Any, rng: jax.Array) -> jax.Array:
        return corruption.gather_sum(jnp.eye(each), batch, rng)

    with jax.set_mesh(mesh_of((1, 1))):
        kept = jax.jit(
            jax.shard_map(ones, in_specs=(jax.P("data"), jax.P()), out_specs=jax.P("data", None), check_vma=False)
        )(batch_of(rows, each), corruption.rng)
    kept = np.asarray(kept)
    np.testing.assert_allclose(np.unique(kept), [0.0, 1.0 / (1.0 - p)], rtol=1e-6)
    deviation = math.sqrt(p * (1.0 - p) / kept.size)
    assert abs((kept == 0).mean() - p) < 4 * deviation
    # Neither samples nor features share their fate.
    assert (kept == 0).any(axis=0).all()
    assert (kept == 0).any(axis=1).all()
    assert len(np.unique(kept, axis=0)) == samples


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
    ],
)
def test_activations_and_their_slopes_follow_the_table(
    activation: Activation, reference: Callable[[np.ndarray], np.ndarray]
) -> None:
    layer = replace(HIDDEN, activation=activation, relu_slope=0.1, elu_alpha=1.5, selu_lambda=1.2)
    z = np.array([-90.0, -3.0, -0.5, 0.25, 2.0, 90.0])
    function = activation_function(layer)
    given = jnp.asarray(z, jnp.float32)
    np.testing.assert_allclose(function(given), reference(z), rtol=1e-5, atol=1e-7)
    slope = (reference(z + 1e-5) - reference(z - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(lambda z: function(z).sum())(given), slope, rtol=1e-4, atol=1e-6)


def test_leaky_relu_is_linear_until_a_slope_is_given() -> None:
    function = activation_function(replace(HIDDEN, activation=Activation.LEAKY_RECTIFIED_LINEAR))
    np.testing.assert_array_equal(function(jnp.array([-2.0, 2.0])), [-2.0, 2.0])


def dropped(layer: LayerSpec, activations: np.ndarray) -> np.ndarray:
    return np.asarray(dropout(layer, jnp.asarray(activations, jnp.float32), jax.random.key(4)))


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


SHAPE = (60, 40)
HALF_RANGES = {
    WeightScheme.XAVIER: 0.5 * 2.0 * math.sqrt(6.0 / 100.0),
    WeightScheme.CAFFE_XAVIER: 2.0 * math.sqrt(3.0 / 40.0),
    WeightScheme.UNIFORM: 2.0,
}


def drawn(scheme: WeightScheme, *, rows: int = 60) -> np.ndarray:
    init = WeightInit(scheme, scale=2.0)
    return np.asarray(initial_kernel(init, jax.random.key(1), shape=(rows, 40), fans=SHAPE))


@pytest.mark.parametrize("scheme", HALF_RANGES)
def test_uniform_schemes_fill_their_range(scheme: WeightScheme) -> None:
    weights, half = drawn(scheme), HALF_RANGES[scheme]
    assert -half <= weights.min() < -0.95 * half
    assert 0.95 * half < weights.max() <= half
    assert abs(weights.mean()) < 0.05 * half


@pytest.mark.parametrize(("scheme", "deviation"), [(WeightScheme.GAUSSIAN, 2.0), (WeightScheme.SELU, 1.0 / 60.0)])
def test_normal_schemes_have_their_deviation(scheme: WeightScheme, deviation: float) -> None:
    weights = drawn(scheme)
    assert abs(weights.std() / deviation - 1.0) < 0.05
    assert abs(weights.mean()) < 0.1 * deviation


def test_unit_ball_is_positive_and_constant_is_minus_scale() -> None:
    ball = drawn(WeightScheme.UNIT_BALL)
    assert 0.0 < ball.min() < 0.1
    assert 1.9 < ball.max() <= 2.0
    np.testing.assert_array_equal(drawn(WeightScheme.CONSTANT), np.full(SHAPE, -2.0))


@pytest.mark.parametrize("scheme", WeightScheme)
def test_more_rows_do_not_change_the_rows_before_them(scheme: WeightScheme) -> None:
    np.testing.assert_array_equal(drawn(scheme, rows=64)[:60], drawn(scheme))


def test_rows_stored_beyond_a_layers_width_begin_at_zero() -> None:
    init, rng = WeightInit(bias=-3.0), jax.random.key(0)
    first = SparseDense(Size(5, 8), Size(3, 3), init=init, rng=rng)
    last = FeatureOutput(3, Size(5, 8), init=init, rng=rng)
    assert np.asarray(first.kernel[...])[:5].all()
    assert not np.asarray(first.kernel[...])[5:].any()
    assert not np.asarray(last.kernel[...])[5:].any()
    np.testing.assert_array_equal(last.bias[...], [-3.0] * 5 + [0.0] * 3)
    np.testing.assert_array_equal(first.bias[...], [-3.0] * 3)


def test_a_hidden_layer_is_a_product_and_a_bias() -> None:
    layer = Dense(3, 2, init=WeightInit(bias=0.5), rng=jax.random.key(0))
    given = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(layer(jnp.asarray(given)), given @ np.asarray(layer.kernel[...]) + 0.5, rtol=1e-6)
