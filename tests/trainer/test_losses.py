from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from trainer_networks import batch_of, dense, mesh_of, random_rows

from trainer.layers import activation_function
from trainer.losses import LossRule, Shard, loss_rule, sample_losses
from trainer.network import Activation, ErrorFunction, LayerKind, LayerSpec, MarginalScale
from trainer.sparse import SparseBatch

SAMPLES, UNITS, STORED_UNITS = 8, 13, 16
MARGINAL = MarginalScale(one_target=0.8, zero_target=0.3, one_scale=1.5, zero_scale=0.5)
ROWS = random_rows(SAMPLES, UNITS, seed=3, most=5)
VALUES = [np.random.default_rng(n).uniform(0.2, 3.0, len(row)).tolist() for n, row in enumerate(ROWS)]
LOGITS = np.random.default_rng(9).normal(0.0, 2.0, (SAMPLES, UNITS))

Matrix = np.ndarray


@dataclass(frozen=True)
class Case:
    """A loss on an activation, and DSSTNE's table (spec 5.4) of it, dense and in float64."""

    loss: ErrorFunction
    activation: Activation
    reference: Callable[[Matrix, Matrix, Matrix], tuple[Matrix, Matrix]]
    """(a, stored, values) -> (loss, delta / f'), both [samples, units]."""
    slope: Callable[[Matrix], Matrix] = np.ones_like
    """f' by a."""
    is_gradient: bool = True

    @property
    def id(self) -> str:
        return f"{self.loss.name}-{self.activation.name}"


def cross_entropy(a: Matrix, stored: Matrix, _: Matrix) -> tuple[Matrix, Matrix]:
    return -np.where(stored, np.log(a), np.log1p(-a)), a - stored


def marginal_cross_entropy(a: Matrix, stored: Matrix, _: Matrix) -> tuple[Matrix, Matrix]:
    one, zero = stored & (a < 0.8), ~stored & (a > 0.3)
    loss = np.where(one, -1.5 * np.log(a), 0.0) + np.where(zero, -0.5 * np.log1p(-a), 0.0)
    return loss, np.where(one, 1.5 * (a - 1.0), 0.0) + np.where(zero, 0.5 * a, 0.0)


def multinomial(a: Matrix, stored: Matrix, values: Matrix) -> tuple[Matrix, Matrix]:
    share = shares(stored)
    target = np.where(np.isnan(values), share, values)
    return np.where(stored, -target * np.log(a), 0.0), a - np.where(stored, share, 0.0)


def marginal_multinomial(a: Matrix, stored: Matrix, values: Matrix) -> tuple[Matrix, Matrix]:
    share = shares(stored)
    target = np.where(np.isnan(values), share, values)
    one, zero = stored & (a < 0.8), ~stored & (a > 0.3)
    loss = np.where(one, -1.5 * target * np.log(a), 0.0)
    return loss, np.where(one, a - 1.5 * share, 0.0) + np.where(zero, 0.5 * a, 0.0)


def l1(a: Matrix, stored: Matrix, values: Matrix) -> tuple[Matrix, Matrix]:
    return np.abs(a - as_target(stored, values)), np.sign(a - stored)


def l2(a: Matrix, stored: Matrix, values: Matrix) -> tuple[Matrix, Matrix]:
    error = a - as_target(stored, values)
    return 0.5 * error**2, error


def as_target(stored: Matrix, values: Matrix) -> Matrix:
    return np.where(stored, np.where(np.isnan(values), 1.0, values), 0.0)


def shares(stored: Matrix) -> Matrix:
    return 1.0 / np.maximum(stored.sum(axis=1, keepdims=True), 1)


SIGMOID_SLOPE: Callable[[Matrix], Matrix] = lambda a: a * (1.0 - a)  # noqa: E731
CASES = [
    Case(ErrorFunction.CROSS_ENTROPY, Activation.SIGMOID, cross_entropy),
    Case(ErrorFunction.CROSS_ENTROPY, Activation.SOFT_MAX, multinomial),
    Case(ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY, Activation.SIGMOID, marginal_cross_entropy),
    Case(ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY, Activation.SOFT_MAX, marginal_multinomial, is_gradient=False),
    Case(ErrorFunction.L1, Activation.SIGMOID, l1, SIGMOID_SLOPE),
    Case(ErrorFunction.L1, Activation.LINEAR, l1),
    Case(ErrorFunction.L2, Activation.SIGMOID, l2, SIGMOID_SLOPE),
    Case(ErrorFunction.L2, Activation.TANH, l2, lambda a: 1.0 - a**2),
    Case(ErrorFunction.L2, Activation.RECTIFIED_LINEAR, l2, lambda a: (a > 0).astype(float)),
    Case(ErrorFunction.L2, Activation.EXPONENTIAL_LINEAR, l2, lambda a: np.where(a > 0, 1.0, a + 1.0)),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
every_target = pytest.mark.parametrize("values", [None, VALUES], ids=["indicators", "analog"])


def activated(case: Case, z: Matrix) -> Matrix:
    if case.activation is Activation.SOFT_MAX:
        powers = np.exp(z - z.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    functions: dict[Activation, Callable[[Matrix], Matrix]] = {
        Activation.SIGMOID: lambda z: 1.0 / (1.0 + np.exp(-z)),
        Activation.TANH: np.tanh,
        Activation.RECTIFIED_LINEAR: lambda z: np.maximum(z, 0.0),
        Activation.EXPONENTIAL_LINEAR: lambda z: np.where(z > 0, z, np.expm1(z)),
        Activation.LINEAR: lambda z: z,
    }
    return functions[case.activation](z)


def expected(case: Case, z: Matrix, values: Any) -> tuple[Matrix, Matrix]:
    """Loss of each sample and derivative by the logits, dense in float64."""
    stored = dense(ROWS, UNITS) > 0
    analog = np.full(z.shape, np.nan) if values is None else dense(ROWS, UNITS, values=values)
    a = activated(case, z)
    loss, delta = case.reference(a, stored, analog)
    return loss.sum(axis=1), delta * case.slope(a)


def rule_of(case: Case) -> LossRule:
    output = activation_function(LayerSpec("Output", LayerKind.OUTPUT, activation=case.activation))
    return loss_rule(case.loss, case.activation, marginal=MARGINAL, output=output)


@cache
def compiled(case: Case) -> Any:
    def losses(z: jax.Array, targets: SparseBatch) -> jax.Array:
        return sample_losses(rule_of(case), z, targets, shard=Shard(0, UNITS, None))

    def total(z: jax.Array, targets: SparseBatch) -> tuple[jax.Array, jax.Array]:
        each = losses(z, targets)
        return each.sum(), each

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def measured(case: Case, targets: SparseBatch, *, logits: Matrix = LOGITS) -> tuple[Matrix, Matrix]:
    """Losses, and the gradient of their sum, in one piece."""
    (_, losses), gradient = compiled(case)(jnp.asarray(logits, jnp.float32), targets)
    return np.asarray(losses), np.asarray(gradient)


@every_target
@every_case
def test_losses_and_gradient_are_those_of_a_dense_reference(case: Case, values: Any) -> None:
    losses, gradient = measured(case, batch_of(ROWS, UNITS, values=values))
    reference = expected(case, LOGITS, values)
    np.testing.assert_allclose(losses, reference[0], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, reference[1], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case.is_gradient], ids=lambda case: case.id)
def test_the_gradient_is_the_finite_difference_of_the_loss(case: Case) -> None:
    _, gradient = measured(case, batch_of(ROWS, UNITS))
    # A sample without targets has no multinomial loss, yet DSSTNE passes its probabilities back.
    first = 1 if case.activation is Activation.SOFT_MAX else 0
    step = 1e-6
    for unit in range(UNITS):
        nudge = step * (np.arange(UNITS) == unit)
        above, below = (expected(case, LOGITS + sign * nudge, None)[0] for sign in (1.0, -1.0))
        difference = (above - below) / (2.0 * step)
        np.testing.assert_allclose(gradient[first:, unit], difference[first:], rtol=1e-4, atol=1e-5)


def over_shards(case: Case, values: Any, logits: Matrix) -> tuple[Matrix, Matrix]:
    """Losses, and the gradient of their sum, over two shards of samples and four of units."""
    mesh = mesh_of((2, 4))
    targets = batch_of(ROWS, UNITS, shards=2, values=values)
    # Units stored beyond the width hold what would be felt if anyone looked.
    beyond = ((0, 0), (0, STORED_UNITS - UNITS))
    z = jnp.asarray(np.pad(logits, beyond, constant_values=logits.max()), jnp.float32)

    def of_shard(z: jax.Array, targets: SparseBatch) -> jax.Array:
        shard = Shard(jax.lax.axis_index("model") * z.shape[1], UNITS, "model")
        return sample_losses(rule_of(case), z, targets, shard=shard)

    @jax.jit
    def whole(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses = jax.shard_map(of_shard, in_specs=(P("data", "model"), P("data")), out_specs=P("data"))
        return losses(z, targets), jax.grad(lambda z: losses(z, targets).sum())(z)

    with jax.set_mesh(mesh):
        losses, gradient = (np.asarray(array) for array in whole(z))
    assert not gradient[:, UNITS:].any()
    return losses, gradient[:, :UNITS]


@every_target
@every_case
def test_a_loss_over_shards_is_the_loss_in_one_piece(case: Case, values: Any) -> None:
    alone = measured(case, batch_of(ROWS, UNITS, values=values))
    for array, expected in zip(over_shards(case, values, LOGITS), alone, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)


def test_softmax_over_shards_survives_logits_too_large_to_exponentiate() -> None:
    case = CASES[1]
    losses, gradient = over_shards(case, None, LOGITS + 100.0)
    np.testing.assert_allclose(losses, expected(case, LOGITS, None)[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient, expected(case, LOGITS, None)[1], rtol=1e-4, atol=1e-5)


@every_case
def test_padding_entries_contribute_exactly_nothing(case: Case) -> None:
    tight, roomy = (measured(case, batch_of(ROWS, UNITS, spare=spare)) for spare in (0, 40))
    np.testing.assert_array_equal(tight[0], roomy[0])
    np.testing.assert_array_equal(tight[1], roomy[1])


def test_a_feature_stored_twice_costs_twice_and_passes_back_once() -> None:
    case = CASES[0]
    once, twice = (measured(case, batch_of([row], UNITS), logits=LOGITS[:1]) for row in ([4], [4, 4]))
    z = LOGITS[0, 4]
    np.testing.assert_allclose(twice[0] - once[0], np.log1p(np.exp(-z)) - np.log1p(np.exp(z)), rtol=1e-5)
    np.testing.assert_array_equal(twice[1], once[1])


def test_a_reported_logarithm_stops_at_dsstnes_smallest_argument() -> None:
    logits = np.full((1, UNITS), -1000.0)
    losses, gradient = measured(CASES[0], batch_of([[2]], UNITS), logits=logits)
    np.testing.assert_allclose(losses, -np.log(1e-12), rtol=1e-6)
    assert gradient[0, 2] == -1.0
    losses, gradient = measured(CASES[1], batch_of([[2]], UNITS), logits=-logits * (np.arange(UNITS) == 0))
    np.testing.assert_allclose(losses, -np.log(1e-12), rtol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("stored", [True, False])
def test_the_marginal_comparisons_are_strict(stored: bool) -> None:
    rows = [[0]] if stored else [[]]
    rule = loss_rule(
        ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY,
        Activation.SIGMOID,
        marginal=MarginalScale(one_target=0.5, zero_target=0.5),
        output=jax.nn.sigmoid,
    )
    one = Shard(0, 1, None)
    loss = jax.jit(lambda z, targets: sample_losses(rule, z, targets, shard=one))(jnp.zeros((1, 1)), batch_of(rows, 1))
    assert float(loss[0]) == 0.0
