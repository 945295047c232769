import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainer_networks import MESHES, batch_of, dense, mesh_of, random_rows

from trainer.layers import Corruption, Linear, initial_kernel
from trainer.network_types import ConnectionSpec, LayerKind, LayerSpec, WeightInit, WeightScheme
from trainer.sparse import round_up

FEATURES, UNITS, SAMPLES = 21, 4, 8
ROWS = random_rows(SAMPLES, FEATURES, seed=1)
VALUES = [np.random.default_rng(n).uniform(-2.0, 2.0, len(row)).tolist() for n, row in enumerate(ROWS)]
PLAIN = Corruption(normalize=False, p=0.0, rng=None)

every_mesh = pytest.mark.parametrize("shape", MESHES, ids=str)


def summed(
    shape: tuple[int, int],
    corruption: Corruption = PLAIN,
    *,
    rows: list[list[int]] = ROWS,
    values: list[list[float]] | None = None,
    spare: int = 3,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Product [batch, units], kernel [features, units], and the kernel's gradient by a fixed cotangent."""
    batch = batch_of(rows, FEATURES, shards=shape[0], values=values, spare=spare)
    cotangent = jnp.asarray(np.random.default_rng(5).normal(size=(len(rows), UNITS)), jnp.float32)
    kernel = np.random.default_rng(3).normal(size=(FEATURES, UNITS)).astype(np.float32)
    stored = np.pad(kernel, ((0, round_up(FEATURES, shape[1]) - FEATURES), (0, 0)))

    @jax.jit
    def call(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        product = corruption.product(kernel, batch)
        return product, jax.grad(lambda kernel: (corruption.product(kernel, batch) * cotangent).sum())(kernel)

    with jax.set_mesh(mesh_of(shape)):
        out, gradient = call(stored)
    assert not np.asarray(gradient)[FEATURES:].any()
    return np.asarray(out), kernel, np.asarray(gradient)[:FEATURES]


@every_mesh
@pytest.mark.parametrize("values", [None, VALUES], ids=["indicators", "analog"])
def test_a_sparse_input_is_the_dense_product(shape: tuple[int, int], values: Any) -> None:
    out, kernel, gradient = summed(shape, values=values)
    inputs = dense(ROWS, FEATURES, values=values)
    cotangent = np.random.default_rng(5).normal(size=(SAMPLES, UNITS))
    np.testing.assert_allclose(out, inputs @ kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, inputs.T @ cotangent, rtol=1e-4, atol=1e-5)


def test_a_feature_stored_twice_adds_up() -> None:
    out, kernel, _ = summed((1, 2), rows=[[3, 3, 5]])
    np.testing.assert_allclose(out[0], 2 * kernel[3] + kernel[5], rtol=1e-5)


def test_padding_entries_of_the_input_change_nothing_at_all() -> None:
    for tight, roomy in zip(summed((1, 8), spare=0), summed((1, 8), spare=50), strict=True):
        np.testing.assert_array_equal(tight, roomy)


def test_normalize_scales_every_sample_to_length_one() -> None:
    out, kernel, _ = summed((2, 4), replace(PLAIN, normalize=True), values=VALUES)
    inputs = dense(ROWS, FEATURES, values=VALUES)
    length = np.linalg.norm(inputs, axis=1, keepdims=True)
    np.testing.assert_allclose(out, inputs / np.maximum(length, 1e-6) @ kernel, rtol=1e-4, atol=1e-6)


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

    with jax.set_mesh(mesh_of((1, 1))):
        kept = jax.jit(lambda batch: corruption.product(jnp.eye(each), batch))(batch_of(rows, each))
    kept = np.asarray(kept)
    np.testing.assert_allclose(np.unique(kept), [0.0, 1.0 / (1.0 - p)], rtol=1e-6)
    deviation = math.sqrt(p * (1.0 - p) / kept.size)
    assert abs((kept == 0).mean() - p) < 4 * deviation
    # Neither samples nor features share their fate.
    assert (kept == 0).any(axis=0).all()
    assert (kept == 0).any(axis=1).all()
    assert len(np.unique(kept, axis=0)) == samples


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
    wide = (
        LayerSpec("In", LayerKind.INPUT, (5,)),
        LayerSpec("Out", LayerKind.OUTPUT, (5,), weight_init=WeightInit(bias=-3.0)),
    )
    hidden = LayerSpec("Hidden", LayerKind.HIDDEN, (3,), weight_init=WeightInit(bias=-3.0))
    first, last = (
        Linear(ConnectionSpec(*ends, 0), own=True, shards=8, rng=jax.random.key(0))
        for ends in ((wide[0], hidden), (hidden, wide[1]))
    )
    for part in (first, last):
        assert part.kernel.shape == (8, 3)
        assert np.asarray(part.kernel[...])[:5].all()
        assert not np.asarray(part.kernel[...])[5:].any()
    np.testing.assert_array_equal(last.bias[...], [-3.0] * 5 + [0.0] * 3)
    np.testing.assert_array_equal(first.bias[...], [-3.0] * 3)


@every_mesh
def test_a_sparse_input_made_dense_is_the_matrix(shape: tuple[int, int]) -> None:
    rows = [[3, 3, 5], *ROWS[1:]]
    with jax.set_mesh(mesh_of(shape)):
        found = jax.jit(lambda batch: PLAIN.dense(batch, FEATURES + 2))(batch_of(rows, FEATURES, shards=shape[0]))
    expected = np.zeros((SAMPLES, FEATURES + 2))
    for n, row in enumerate(rows):
        np.add.at(expected[n], row, 1.0)
    np.testing.assert_array_equal(found, expected)
