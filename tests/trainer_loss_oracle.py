"""What an output layer costs, and its deltas, by DSSTNE's specification (5.3, 5.4) written down densely, in NumPy and
float64, its defects (10.2) computed right. Shares only types with the trainer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.network_types import Activation, ErrorFunction

Matrix = npt.NDArray[np.float64]

SLOPE, ALPHA, LAMBDA = 0.1, 1.5, 1.2
ONE_TARGET, ZERO_TARGET, ONE_SCALE, ZERO_SCALE = 0.8, 0.1, 1.5, 0.5
BOOST_ONE, BOOST_ZERO = 3.0, 0.7
NEGATIVE = 0.6
MARGIN = 0.3

L1, L2, L2_HINGE, HINGE = ErrorFunction.L1, ErrorFunction.L2, ErrorFunction.L2_HINGE, ErrorFunction.HINGE
CCL, BPR = ErrorFunction.COSINE_CONTRASTIVE, ErrorFunction.PAIRWISE
CE, SMCE = ErrorFunction.CROSS_ENTROPY, ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY
DSMCE = ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY
SIGMOID, SOFT_MAX = Activation.SIGMOID, Activation.SOFT_MAX
CROSS_ENTROPIES = (CE, SMCE, DSMCE)
SHARING = (SOFT_MAX, Activation.RELU_MAX, Activation.LINEAR_MAX)
"""Activations whose outputs depend on all sums of their sample."""
KINDS = ("Boolean", "analog", "dense")


@dataclass(frozen=True)
class Case:
    """An error function on an activation, and its targets."""

    loss: ErrorFunction
    activation: Activation
    kind: str
    weighted: bool = False
    """Deltas are boosted then, too, and negatives count for less where they cost something of their own."""
    ignoring: bool = False
    indexed: bool = False

    @property
    def sparse(self) -> bool:
        """Whether only some units are stored."""
        return self.kind != "dense"

    @property
    def negative(self) -> float:
        """Factor of units that are not stored."""
        by_unit = self.activation is not SOFT_MAX or self.loss not in CROSS_ENTROPIES
        return NEGATIVE if self.weighted and self.sparse and by_unit else 1.0

    @property
    def is_gradient(self) -> bool:
        """Whether the delta is the derivative of the loss, but for a factor of each unit."""
        if self.activation is SOFT_MAX and self.loss is SMCE:
            return False
        return self.activation not in SHARING or self.loss in CROSS_ENTROPIES or not (self.weighted and self.sparse)


@dataclass(frozen=True)
class Targets:
    """Targets of some samples, dense: arrays are [samples, units], weights [samples]."""

    stored: npt.NDArray[np.bool_]
    """Whether a unit is stored; all are in dense targets."""
    given: Matrix
    """As given; 1 for an indicator, 0 where nothing is stored."""
    weights: Matrix

    def of(self, samples: npt.NDArray[np.int64], weights: npt.NDArray[np.float32] | None) -> "Targets":
        """Those of `samples`, which may repeat, of these weights or of 1."""
        own = np.ones(len(samples)) if weights is None else weights.astype(float)
        return Targets(self.stored[samples], self.given[samples], own)


@dataclass(frozen=True)
class Function:
    """An activation, and from the derivative by outputs to the one by sums; arrays are [..., samples, units]."""

    output: Callable[[Matrix], Matrix]
    pull_back: Callable[[Matrix, Matrix], Matrix]


def _by_unit(output: Callable[[Matrix], Matrix], slope: Callable[[Matrix], Matrix]) -> Function:
    return Function(output, lambda z, delta: delta * slope(z))


def _sigmoid(z: Matrix) -> Matrix:
    return 1.0 / (1.0 + np.exp(-z))


def _normal(z: Matrix) -> Matrix:
    """Φ(z)"""
    return 0.5 * (1.0 + np.vectorize(math.erf)(z / math.sqrt(2.0)))


def _exponential(alpha: float, scale: float) -> Function:
    return _by_unit(
        lambda z: scale * np.where(z > 0, z, alpha * (np.exp(z) - 1.0)),
        lambda z: scale * np.where(z > 0, 1.0, alpha * np.exp(z)),
    )


def _shared_out(part: Callable[[Matrix], Matrix], slope: Callable[[Matrix], Matrix]) -> Function:
    """What parts are of the sum of their absolute values."""

    def total(z: Matrix) -> Matrix:
        return np.maximum(np.abs(part(z)).sum(axis=-1, keepdims=True), 1e-12)

    def output(z: Matrix) -> Matrix:
        return part(z) / total(z)

    def pull_back(z: Matrix, delta: Matrix) -> Matrix:
        through_total = (delta * output(z)).sum(axis=-1, keepdims=True) * np.sign(part(z))
        return slope(z) * (delta - through_total) / total(z)

    return Function(output, pull_back)


FUNCTIONS: dict[Activation, Function] = {
    SIGMOID: _by_unit(_sigmoid, lambda z: _sigmoid(z) * (1.0 - _sigmoid(z))),
    Activation.TANH: _by_unit(np.tanh, lambda z: 1.0 - np.tanh(z) ** 2),
    Activation.RECTIFIED_LINEAR: _by_unit(lambda z: np.where(z > 0, z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    Activation.LEAKY_RECTIFIED_LINEAR: _by_unit(
        lambda z: np.where(z > 0, z, SLOPE * z), lambda z: np.where(z > 0, 1.0, SLOPE)
    ),
    Activation.EXPONENTIAL_LINEAR: _exponential(ALPHA, 1.0),
    Activation.SCALED_EXPONENTIAL_LINEAR: _exponential(ALPHA, LAMBDA),
    Activation.LINEAR: _by_unit(lambda z: z, np.ones_like),
    Activation.SOFT_PLUS: _by_unit(lambda z: np.log(1.0 + np.exp(z)), _sigmoid),
    Activation.SOFT_SIGN: _by_unit(lambda z: z / (1.0 + np.abs(z)), lambda z: (1.0 + np.abs(z)) ** -2.0),
    Activation.GELU: _by_unit(
        lambda z: z * _normal(z), lambda z: _normal(z) + z * np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    ),
    Activation.SILU: _by_unit(lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) * (1.0 + z * (1.0 - _sigmoid(z)))),
    SOFT_MAX: _shared_out(np.exp, np.exp),
    Activation.RELU_MAX: _shared_out(lambda z: np.where(z > 0, z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    Activation.LINEAR_MAX: _shared_out(lambda z: z, np.ones_like),
}


def losses_of(case: Case, sums: Matrix, targets: Targets) -> Matrix:
    """Loss of each sample, [..., samples], of sums [..., samples, units]."""
    units = _units_of(case, FUNCTIONS[case.activation].output(sums), targets)[0]
    return targets.weights * (_counted(case, targets) * units).sum(axis=-1)


def gradient_of(case: Case, sums: Matrix, targets: Targets) -> Matrix:
    """By the sums, of the sum of all losses, [samples, units]."""
    delta = deltas_of(case, sums, targets)
    return delta if case.loss in CROSS_ENTROPIES else FUNCTIONS[case.activation].pull_back(sums, delta)


def deltas_of(case: Case, sums: Matrix, targets: Targets) -> Matrix:
    """By the sums for cross-entropies, else by the outputs, [samples, units]."""
    delta = _units_of(case, FUNCTIONS[case.activation].output(sums), targets)[1]
    return _counted(case, targets) * delta * boosts(case, targets) * targets.weights[:, None]


def differences_of(case: Case, sums: Matrix, targets: Targets) -> Matrix:
    """Central differences of the losses, [samples, units]; no sample's loss knows of another's sums."""
    nudges = 1e-6 * np.eye(sums.shape[1])[:, None, :]
    above, below = losses_of(case, sums + nudges, targets), losses_of(case, sums - nudges, targets)
    return ((above - below) / 2e-6).T


def boosts(case: Case, targets: Targets) -> Matrix:
    """Factors of the deltas, [samples, units]."""
    squares, one, zero = case.loss in (L2, L2_HINGE), 1.0, 1.0
    if case.weighted and case.sparse:
        both = case.loss is L1 or (case.activation is SIGMOID and (squares or case.loss is CE))
        one = BOOST_ONE if both or (squares and case.kind == "analog") else 1.0
        zero = BOOST_ZERO if both else 1.0
    return np.where(targets.stored, one, zero)


def _counted(case: Case, targets: Targets) -> Matrix:
    return np.where(targets.stored, 1.0, 0.0 if case.ignoring else case.negative)


def _units_of(case: Case, a: Matrix, targets: Targets) -> tuple[Matrix, Matrix]:
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
    if case.loss is CCL:
        return _contrastive(a, targets)
    if case.loss is HINGE:
        return np.maximum(0.0, 1.0 - t * a), np.where(t * a < 1.0, -t, 0.0)
    if case.activation is SOFT_MAX:
        return _softmax_units(case, a, targets)
    return _cross_entropy(case, a, targets) if case.loss is CE else _marginal(case, a, targets)


def _contrastive(a: Matrix, targets: Targets) -> tuple[Matrix, Matrix]:
    counts = targets.stored.sum(axis=1, keepdims=True)
    one = targets.given * targets.stored / np.maximum(counts, 1)
    none = ~targets.stored / (targets.stored.shape[1] - counts)
    return one * (1.0 - a) + none * np.maximum(0.0, a - MARGIN), none * (a > MARGIN) - one


def _cross_entropy(case: Case, a: Matrix, targets: Targets) -> tuple[Matrix, Matrix]:
    t = targets.stored.astype(float) if case.sparse else targets.given
    return -(t * np.log(a) + (1.0 - t) * np.log(1.0 - a)), a - t


def _marginal(case: Case, a: Matrix, targets: Targets) -> tuple[Matrix, Matrix]:
    one, zero = targets.given == 1.0, targets.given == 0.0
    if case.sparse:
        one, zero = targets.stored, ~targets.stored
    one_scale = ONE_SCALE * (one & (a < ONE_TARGET)) * (targets.given if case.loss is DSMCE else 1.0)
    zero_scale = ZERO_SCALE * (zero & (a > ZERO_TARGET))
    return -one_scale * np.log(a) - zero_scale * np.log(1.0 - a), one_scale * (a - 1.0) + zero_scale * a


def _softmax_units(case: Case, a: Matrix, targets: Targets) -> tuple[Matrix, Matrix]:
    share = targets.stored / np.maximum(targets.stored.sum(axis=1, keepdims=True), 1)
    t = share if case.kind == "Boolean" else targets.given
    if case.loss is CE:
        return -t * np.log(a), a * t.sum(axis=1, keepdims=True) - t
    one, zero = (targets.stored, ~targets.stored) if case.sparse else (t > 0, t == 0)
    one, zero = one & (a < ONE_TARGET), zero & (a > ZERO_TARGET)
    delta = a - ONE_SCALE * share if case.sparse else ONE_SCALE * (a - t)
    return -ONE_SCALE * one * t * np.log(a), np.where(one, delta, np.where(zero, ZERO_SCALE * a, 0.0))
