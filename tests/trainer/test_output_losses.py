"""Every activation × error function × kind of targets that the language accepts, as the trainer computes it on a mesh,
against DSSTNE's specification (5.3, 5.4) written down densely, in NumPy and float64, with its defects (10.2) computed
right. Losses agree within 1e-5 of themselves. Gradients agree within 1e-5 of the largest entry of their sample: where
an output is close to its target, single precision knows nothing of the difference's fifth digit.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from trainer_networks import chain, mesh_of, with_layer

from trainer.activations import activate
from trainer.attach import attached, resolve
from trainer.data.batches import paired_batches
from trainer.data.netcdf import Dataset, read_datasets, write_datasets
from trainer.dense import DenseDataset
from trainer.losses import check_targets, fits
from trainer.model import Forward
from trainer.network_names import ACTIVATIONS, fits_output, why_not_target
from trainer.network_types import Activation, DeltaBoost, ErrorFunction, LayerKind, LayerSpec, MarginalScale, NetworkSpec
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.sparse import SparseDataset
from trainer.state import output_losses, weights_of
from trainer.train import EpochReport, Start, TrainingData, train
from trainer.weights import Connection, Weights

Matrix = npt.NDArray[np.float64]

SAMPLES, UNITS, COLUMNS = 7, 13, 14
BATCH, MESH = 8, (2, 2)
"""A padding sample and a padding unit, both on the last shard."""
SLOPE, ALPHA, LAMBDA = 0.1, 1.5, 1.2
ONE_TARGET, ZERO_TARGET, ONE_SCALE, ZERO_SCALE = 0.8, 0.1, 1.5, 0.5
BOOST_ONE, BOOST_ZERO = 3.0, 0.7

L1, L2, L2_HINGE, HINGE = ErrorFunction.L1, ErrorFunction.L2, ErrorFunction.L2_HINGE, ErrorFunction.HINGE
CE, SMCE = ErrorFunction.CROSS_ENTROPY, ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY
DSMCE = ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY
SIGMOID, SOFT_MAX = Activation.SIGMOID, Activation.SOFT_MAX
KINDS = ("Boolean", "analog", "dense")

RNG = np.random.default_rng(31)
ROWS = [[], *(RNG.permutation(UNITS)[:count].tolist() for count in RNG.integers(1, 6, SAMPLES - 1))]
INDEX = np.array([3, 0, 3, 5, 1, 1, 4])
"""Stored row of each sample where targets are indexed."""
VALUES = [RNG.choice([0.0, 0.4, 0.7, 1.0, 2.5, -1.3], len(row)).astype(np.float32) for row in ROWS]
GIVEN = RNG.choice([0.0, 1.0, 0.3, 1.7, -1.0], (SAMPLES, UNITS), p=[0.4, 0.3, 0.1, 0.1, 0.1]).astype(np.float32)
WEIGHTS = np.array([0.4, 1.0, 2.3, 0.0, 0.7, 1.6, 3.1], np.float32)
SUMS = RNG.normal(0.0, 2.0, (SAMPLES, UNITS)).astype(np.float32)
SUMS[4] = -np.abs(SUMS[4])  # nothing that a rectifier lets through
SUMS[5, 2] = 9.0  # beyond one_target, of a SoftMax too
ORDER = np.array([2, 6, 0, 5, 3, 1, 4])


@dataclass(frozen=True)
class Case:
    """An error function on an activation, and its targets."""

    loss: ErrorFunction
    activation: Activation
    kind: str
    weighted: bool = False
    boosted: bool = False
    ignoring: bool = False
    indexed: bool = False

    @property
    def sparse(self) -> bool:
        return self.kind != "dense"

    @property
    def is_gradient(self) -> bool:
        """Whether the delta is the derivative of the loss."""
        on_softmax = self.activation is SOFT_MAX and (self.loss is SMCE or (self.loss is CE and self.ignoring))
        return not self.boosted and not on_softmax


def variants(loss: ErrorFunction, activation: Activation) -> Iterator[Case]:
    """Without `indexed`, which shares the program of what is not."""
    for kind in KINDS:
        case = Case(loss, activation, kind)
        if fits_output(loss, activation) and why_not_target(loss, sparse=case.sparse) is None:
            yield case
            yield replace(case, weighted=True)
            if case.sparse:
                yield replace(case, weighted=True, ignoring=True)
                yield replace(case, boosted=True)


every_activation = pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS.values())), ids=lambda one: one.name)


@dataclass(frozen=True)
class Function:
    """An activation, and from the derivative by outputs to the one by sums; arrays are [..., samples, units]."""

    output: Callable[[Matrix], Matrix]
    pull_back: Callable[[Matrix, Matrix], Matrix]


def by_unit(output: Callable[[Matrix], Matrix], slope: Callable[[Matrix], Matrix]) -> Function:
    return Function(output, lambda z, delta: delta * slope(z))


def sigmoid(z: Matrix) -> Matrix:
    return 1.0 / (1.0 + np.exp(-z))


def normal(z: Matrix) -> Matrix:
    """Φ(z)"""
    return 0.5 * (1.0 + np.vectorize(math.erf)(z / math.sqrt(2.0)))


def exponential(alpha: float, scale: float) -> Function:
    return by_unit(
        lambda z: scale * np.where(z > 0, z, alpha * (np.exp(z) - 1.0)),
        lambda z: scale * np.where(z > 0, 1.0, alpha * np.exp(z)),
    )


def shared_out(part: Callable[[Matrix], Matrix], slope: Callable[[Matrix], Matrix]) -> Function:
    """What parts are of the sum of their absolute values."""

    def total(z: Matrix) -> Matrix:
        return np.maximum(np.abs(part(z)).sum(axis=-1, keepdims=True), 1e-12)

    def output(z: Matrix) -> Matrix:
        return part(z) / total(z)

    def pull_back(z: Matrix, delta: Matrix) -> Matrix:
        through_total = (delta * output(z)).sum(axis=-1, keepdims=True) * np.sign(part(z))
        return slope(z) * (delta - through_total) / total(z)

    return Function(output, pull_back)


FUNCTIONS = {
    SIGMOID: by_unit(sigmoid, lambda z: sigmoid(z) * (1.0 - sigmoid(z))),
    Activation.TANH: by_unit(np.tanh, lambda z: 1.0 - np.tanh(z) ** 2),
    Activation.RECTIFIED_LINEAR: by_unit(lambda z: np.where(z > 0, z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    Activation.LEAKY_RECTIFIED_LINEAR: by_unit(
        lambda z: np.where(z > 0, z, SLOPE * z), lambda z: np.where(z > 0, 1.0, SLOPE)
    ),
    Activation.EXPONENTIAL_LINEAR: exponential(ALPHA, 1.0),
    Activation.SCALED_EXPONENTIAL_LINEAR: exponential(ALPHA, LAMBDA),
    Activation.LINEAR: by_unit(lambda z: z, np.ones_like),
    Activation.SOFT_PLUS: by_unit(lambda z: np.log(1.0 + np.exp(z)), sigmoid),
    Activation.SOFT_SIGN: by_unit(lambda z: z / (1.0 + np.abs(z)), lambda z: (1.0 + np.abs(z)) ** -2.0),
    Activation.GELU: by_unit(
        lambda z: z * normal(z), lambda z: normal(z) + z * np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    ),
    Activation.SILU: by_unit(lambda z: z * sigmoid(z), lambda z: sigmoid(z) * (1.0 + z * (1.0 - sigmoid(z)))),
    SOFT_MAX: shared_out(np.exp, np.exp),
    Activation.RELU_MAX: shared_out(lambda z: np.where(z > 0, z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    Activation.LINEAR_MAX: shared_out(lambda z: z, np.ones_like),
}


@dataclass(frozen=True)
class Targets:
    """Targets of some samples, dense: arrays are [samples, units], weights [samples]."""

    stored: npt.NDArray[np.bool_]
    """Whether a unit is stored; all are in dense targets."""
    given: Matrix
    """As given; 1 for an indicator, 0 where nothing is stored."""
    weights: Matrix

    def of(self, samples: npt.NDArray[np.int64], weights: npt.NDArray[np.float32] | None) -> "Targets":
        own = np.ones(len(samples)) if weights is None else weights.astype(float)
        return Targets(self.stored[samples], self.given[samples], own)


def stored_targets(kind: str) -> Targets:
    """Each stored row once."""
    stored, given = np.ones((SAMPLES, UNITS), bool), GIVEN.astype(float)
    if kind != "dense":
        stored, given = np.zeros_like(stored), np.zeros_like(given)
        for row, (units, values) in enumerate(zip(ROWS, VALUES, strict=True)):
            stored[row, units] = True
            given[row, units] = values if kind == "analog" else 1.0
    return Targets(stored, given, np.ones(SAMPLES))


def targets_of(case: Case) -> Targets:
    rows = INDEX if case.indexed else np.arange(SAMPLES)
    return stored_targets(case.kind).of(rows, WEIGHTS if case.weighted else None)


def losses_of(case: Case, sums: Matrix, targets: Targets) -> Matrix:
    """Loss of each sample, [..., samples], of sums [..., samples, units]."""
    units = units_of(case, FUNCTIONS[case.activation].output(sums), targets)[0]
    return targets.weights * np.where(counted(case, targets), units, 0.0).sum(axis=-1)


def gradient_of(case: Case, sums: Matrix, targets: Targets) -> Matrix:
    """By the sums, of the sum of all losses, [samples, units]."""
    function = FUNCTIONS[case.activation]
    delta = units_of(case, function.output(sums), targets)[1]
    delta = np.where(counted(case, targets), delta, 0.0) * boosts(case, targets) * targets.weights[:, None]
    return delta if case.loss in (CE, SMCE, DSMCE) else function.pull_back(sums, delta)


def counted(case: Case, targets: Targets) -> npt.NDArray[np.bool_]:
    return targets.stored | (not case.ignoring)


def boosts(case: Case, targets: Targets) -> Matrix:
    squares, one, zero = case.loss in (L2, L2_HINGE), 1.0, 1.0
    if case.boosted and case.sparse:
        both = case.loss is L1 or (case.activation is SIGMOID and (squares or case.loss is CE))
        one = BOOST_ONE if both or (squares and case.kind == "analog") else 1.0
        zero = BOOST_ZERO if both else 1.0
    return np.where(targets.stored, one, zero)


def units_of(case: Case, a: Matrix, targets: Targets) -> tuple[Matrix, Matrix]:
    """Loss of each unit, and its delta: by the sum for cross-entropies, else by the output."""
    t = targets.given
    if case.loss is L1:
        return np.abs(a - t), np.sign(a - t)
    if case.loss is L2:
        return 0.5 * (a - t) ** 2, a - t
    if case.loss is L2_HINGE:
        d = a - np.abs(t)
        d = np.where(t > 0, np.minimum(d, 0.0), np.maximum(d, 0.0))
        return 0.5 * d**2, d
    if case.loss is HINGE:
        return np.maximum(0.0, 1.0 - t * a), np.where(t * a < 1.0, -t, 0.0)
    if case.activation is SOFT_MAX:
        return softmax_units(case, a, targets)
    return cross_entropy(case, a, targets) if case.loss is CE else marginal(case, a, targets)


def cross_entropy(case: Case, a: Matrix, targets: Targets) -> tuple[Matrix, Matrix]:
    t = targets.stored.astype(float) if case.sparse else targets.given
    return -(t * np.log(a) + (1.0 - t) * np.log(1.0 - a)), a - t


def marginal(case: Case, a: Matrix, targets: Targets) -> tuple[Matrix, Matrix]:
    one, zero = targets.given == 1.0, targets.given == 0.0
    if case.sparse:
        one, zero = targets.stored, ~targets.stored
    one_scale = ONE_SCALE * (one & (a < ONE_TARGET)) * (targets.given if case.loss is DSMCE else 1.0)
    zero_scale = ZERO_SCALE * (zero & (a > ZERO_TARGET))
    return -one_scale * np.log(a) - zero_scale * np.log(1.0 - a), one_scale * (a - 1.0) + zero_scale * a


def softmax_units(case: Case, a: Matrix, targets: Targets) -> tuple[Matrix, Matrix]:
    share = targets.stored / np.maximum(targets.stored.sum(axis=1, keepdims=True), 1)
    t = share if case.kind == "Boolean" else targets.given
    if case.loss is CE:
        return -t * np.log(a), a * t.sum(axis=1, keepdims=True) - t
    one, zero = (targets.stored, ~targets.stored) if case.sparse else (t > 0, t == 0)
    one, zero = one & (a < ONE_TARGET), zero & (a > ZERO_TARGET)
    delta = a - ONE_SCALE * share if case.sparse else ONE_SCALE * (a - t)
    return -one * ONE_SCALE * t * np.log(a), np.where(one, delta, np.where(zero, ZERO_SCALE * a, 0.0))


def differences_of(case: Case, sums: Matrix, targets: Targets) -> Matrix:
    """Central differences of the losses, [samples, units]; no sample's loss knows of another's sums."""
    nudges = 1e-6 * np.eye(UNITS)[:, None, :]
    above, below = losses_of(case, sums + nudges, targets), losses_of(case, sums - nudges, targets)
    return ((above - below) / 2e-6).T


def dataset_of(case: Case) -> Dataset:
    own: dict[str, Any] = {
        "weights": WEIGHTS if case.weighted else None,
        "rows": INDEX if case.indexed else None,
    }
    if not case.sparse:
        return DenseDataset("target", (UNITS,), GIVEN, **own)
    indptr = np.cumsum([0, *map(len, ROWS)])
    indices = np.array([unit for row in ROWS for unit in row], np.uint32)
    values = np.concatenate(VALUES) if case.kind == "analog" else None
    return SparseDataset("target", UNITS, indptr, indices, values, ignore_zero=case.ignoring, **own)


def network_of(case: Case) -> tuple[NetworkSpec, LayerSpec]:
    layer = LayerSpec(
        "Output",
        LayerKind.OUTPUT,
        (UNITS,),
        activation=case.activation,
        relu_slope=SLOPE,
        elu_alpha=ALPHA,
        selu_lambda=LAMBDA,
        ignore_zero=case.ignoring,
    )
    marginal = MarginalScale(ONE_TARGET, ZERO_TARGET, ONE_SCALE, ZERO_SCALE)
    boost = DeltaBoost(BOOST_ONE, BOOST_ZERO) if case.boosted else DeltaBoost()
    return NetworkSpec("toy", (layer,), loss=case.loss, marginal=marginal, delta_boost=boost), layer


Measured = dict[Case, tuple[Matrix, Matrix]]
"""Losses, and the gradient of their sum by the sums."""


@cache
def measured(activation: Activation) -> Measured:
    """All that the trainer computes of an activation, in one program."""
    cases = [case for loss in ErrorFunction for case in variants(loss, activation)]
    mesh = mesh_of(MESH)
    sums = np.zeros((BATCH, COLUMNS), np.float32)
    sums[:SAMPLES, :UNITS] = SUMS[ORDER]
    given = to_mesh(sums, mesh)

    @jax.jit
    def whole(sums: jax.Array, batches: list[Any]) -> list[tuple[jax.Array, jax.Array]]:
        return [of_case(case, sums, batch) for case, batch in zip(cases, batches, strict=True)]

    def of_case(case: Case, sums: jax.Array, batch: Any) -> tuple[jax.Array, jax.Array]:
        spec, layer = network_of(case)

        def losses(sums: jax.Array) -> jax.Array:
            said = Forward({"Output": sums}, {"Output": activate(layer, sums)}, jnp.zeros(()))
            return output_losses(spec, layer, said, batch, mesh)

        found, pull_back = jax.vjp(losses, sums)
        return found, pull_back(batch.sample_mask)[0]

    def run(indexed: bool) -> Measured:
        asked = [replace(case, indexed=indexed) for case in cases]
        batches = [to_mesh(batch_of(case), mesh) for case in asked]
        with jax.set_mesh(mesh):
            found = jax.device_get(whole(given, batches))
        return dict(zip(asked, found, strict=True))

    return {**run(indexed=False), **run(indexed=True)}


def batch_of(case: Case) -> Any:
    target = {"Output": dataset_of(case)}
    batches = paired_batches({}, target, batch_size=BATCH, order=ORDER, shards=MESH[0])
    return next(batches)[1]["Output"]


@every_activation
def test_losses_are_those_of_the_specification(activation: Activation) -> None:
    for case, (losses, _) in measured(activation).items():
        expected = losses_of(case, SUMS.astype(float), targets_of(case))[ORDER]
        np.testing.assert_allclose(losses[:SAMPLES], expected, rtol=1e-5, atol=1e-6, err_msg=str(case))


@every_activation
def test_gradients_are_those_of_the_specification(activation: Activation) -> None:
    for case, (_, gradient) in measured(activation).items():
        check_gradient(case, gradient, gradient_of(case, SUMS.astype(float), targets_of(case)))


@every_activation
def test_gradients_are_the_differences_of_the_loss(activation: Activation) -> None:
    for case, (_, gradient) in measured(activation).items():
        if case.is_gradient:
            check_gradient(case, gradient, differences_of(case, SUMS.astype(float), targets_of(case)))


def check_gradient(case: Case, gradient: npt.NDArray[np.float32], expected: Matrix) -> None:
    """Padding samples and units have none."""
    assert not gradient[SAMPLES:].any(), case
    assert not gradient[:, UNITS:].any(), case
    for found, wanted in zip(gradient[:SAMPLES, :UNITS], expected[ORDER], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0.0, atol=1e-5 * np.abs(wanted).max() + 1e-8, err_msg=str(case))
