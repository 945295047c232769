from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from trainer.dense import DenseBatch
from trainer.loss_parameters import Contrast
from trainer.losses import LossSpec, Shard, sample_losses, takes_logits
from trainer.network_names import fits_output, why_not_target
from trainer.network_types import Activation, DeltaBoost, ErrorFunction, MarginalScale
from trainer.sparse import SparseBatch

Matrix = np.ndarray

SAMPLES, UNITS, STORED_UNITS = 8, 13, 16
MARGINAL = MarginalScale(one_target=0.8, zero_target=0.1, one_scale=1.5, zero_scale=0.5)
BOOST = DeltaBoost(one=3.0, zero=0.7)
RNG = np.random.default_rng(9)
ROWS = [[], *(RNG.permutation(UNITS)[:count].tolist() for count in RNG.integers(1, 6, SAMPLES - 1))]
VALUES = [RNG.uniform(0.2, 3.0, len(row)) * RNG.choice([1.0, 1.0, -1.0], len(row)) for row in ROWS]
WEIGHTS = RNG.uniform(0.3, 2.0, SAMPLES)
LOGITS = RNG.normal(0.0, 2.0, (SAMPLES, UNITS))
LOGITS[1, ROWS[1][0]] = 6.0  # a stored unit that is beyond one_target, of a SoftMax too
GIVEN = RNG.choice([0.0, 1.0, 0.3, 1.7, -1.0], (SAMPLES, UNITS), p=[0.4, 0.3, 0.1, 0.1, 0.1])
GIVEN[1] = LOGITS[1] == 6.0

CCL, BPR = ErrorFunction.COSINE_CONTRASTIVE, ErrorFunction.PAIRWISE
CE, SMCE = ErrorFunction.CROSS_ENTROPY, ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY
DSMCE = ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY
L1, L2, L2_HINGE, HINGE = ErrorFunction.L1, ErrorFunction.L2, ErrorFunction.L2_HINGE, ErrorFunction.HINGE
SIGMOID, SOFT_MAX = Activation.SIGMOID, Activation.SOFT_MAX
OUTPUTS: dict[Activation, Callable[[Matrix], Matrix]] = {
    SIGMOID: lambda z: 1.0 / (1.0 + np.exp(-z)),
    SOFT_MAX: lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
    Activation.TANH: np.tanh,
    Activation.LINEAR: lambda z: z,
}


@dataclass(frozen=True)
class Case:
    """A loss on an activation, and the kind of targets: `indicators`, `analog` or `dense`."""

    loss: ErrorFunction
    activation: Activation
    targets: str
    weighted: bool = False
    ignore_zero: bool = False
    boosted: bool = False

    def __str__(self) -> str:
        return f"{self.loss.name}-{self.activation.name}-{self.targets}"

    @property
    def sparse(self) -> bool:
        return self.targets != "dense"

    @property
    def spec(self) -> LossSpec:
        return LossSpec(self.loss, self.activation, MARGINAL, BOOST if self.boosted else DeltaBoost())

    @property
    def values(self) -> Matrix:
        """Logits, or what the activation makes of them."""
        if takes_logits(self.loss, self.activation):
            return LOGITS
        return OUTPUTS[self.activation](LOGITS)

    @property
    def is_gradient(self) -> bool:
        """Whether the delta is the derivative of the loss, all of it."""
        return not self.boosted and (
            self.activation is not SOFT_MAX or (self.loss is not SMCE and not self.ignore_zero)
        )

    def variants(self) -> Iterator["Case"]:
        for weighted, ignore_zero, boosted in product((False, True), repeat=3):
            if self.sparse or not ignore_zero:
                yield replace(self, weighted=weighted, ignore_zero=ignore_zero, boosted=boosted)


CASES = [
    Case(loss, activation, targets)
    for loss, activation, targets in product(ErrorFunction, OUTPUTS, ("indicators", "analog", "dense"))
    if loss is not BPR and fits_output(loss, activation) and why_not_target(loss, sparse=targets != "dense") is None
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def sparse_batch(rows: list[list[int]], values: Any = None, *, weights: Any = None, capacity: int = 40) -> SparseBatch:
    """`rows` as `SparseBatch` promises them; one capacity and one batch size, so few programs to compile."""
    indices, places = np.full(capacity, UNITS, np.int32), np.full(capacity, SAMPLES, np.int32)
    used = sum(map(len, rows))
    indices[:used] = [feature for row in rows for feature in row]
    places[:used] = [n for n, row in enumerate(rows) for _ in row]
    analog = None
    if values is not None:
        analog = np.zeros(capacity, np.float32)
        analog[:used] = np.concatenate(values)
    return SparseBatch(indices, places, analog, np.ones(SAMPLES, np.float32), weights)


def targets_of(case: Case, *, capacity: int = 40, units: int = UNITS) -> SparseBatch | DenseBatch:
    weights = WEIGHTS.astype(np.float32) if case.weighted else None
    if case.sparse:
        return sparse_batch(ROWS, VALUES if case.targets == "analog" else None, weights=weights, capacity=capacity)
    # Units beyond the width hold what would be felt if anyone looked.
    given = np.pad(GIVEN, ((0, 0), (0, units - UNITS)), constant_values=1.0).astype(np.float32)
    return DenseBatch(given, np.ones(SAMPLES, np.float32), weights)


@dataclass(frozen=True)
class Reference:
    """The table of DSSTNE's specification (5.4), dense and in float64, with 10.2 computed right."""

    case: Case
    stored: Matrix
    """Whether a unit is stored; all are in dense targets."""
    given: Matrix
    """Targets as given: 1 for indicators, 0 where nothing is stored."""

    def losses(self, values: Matrix) -> Matrix:
        """[samples]"""
        return self._weights[:, 0] * np.where(self._counts, self._units(values)[0], 0.0).sum(axis=1)

    def gradient(self, values: Matrix) -> Matrix:
        """By the values, of the sum of losses, [samples, units]."""
        return self._weights * self._boosts * np.where(self._counts, self._units(values)[1], 0.0)

    @property
    def _weights(self) -> Matrix:
        return WEIGHTS[:, None] if self.case.weighted else np.ones((SAMPLES, 1))

    @property
    def _counts(self) -> Matrix:
        return self.stored | (not self.case.ignore_zero)

    def _units(self, values: Matrix) -> tuple[Matrix, Matrix]:
        table = {L1: self._l1, L2: self._l2, L2_HINGE: self._l2_hinge, HINGE: self._hinge, CCL: self._ccl}
        if self.case.loss in table:
            return table[self.case.loss](values)
        a = OUTPUTS[self.case.activation](values)
        if self.case.activation is SOFT_MAX:
            return self._softmax(a)
        return self._ce(a) if self.case.loss is CE else self._marginal(a)

    def _l1(self, a: Matrix) -> tuple[Matrix, Matrix]:
        return np.abs(a - self.given), np.sign(a - self.given)

    def _l2(self, a: Matrix) -> tuple[Matrix, Matrix]:
        return 0.5 * (a - self.given) ** 2, a - self.given

    def _l2_hinge(self, a: Matrix) -> tuple[Matrix, Matrix]:
        d = a - np.abs(self.given)
        d[(self.given > 0) & (d > 0)] = 0.0
        d[(self.given <= 0) & (d < 0)] = 0.0
        return 0.5 * d**2, d

    def _hinge(self, a: Matrix) -> tuple[Matrix, Matrix]:
        felt = self.given * a < 1.0
        return np.where(felt, 1.0 - self.given * a, 0.0), np.where(felt, -self.given, 0.0)

    def _ccl(self, a: Matrix) -> tuple[Matrix, Matrix]:
        counts = self.stored.sum(axis=1, keepdims=True)
        one = self.given * self.stored / np.maximum(counts, 1)
        none = ~self.stored / (UNITS - counts)
        return one * (1.0 - a) + none * np.maximum(0.0, a - 0.5), -one + none * (a > 0.5)

    def _ce(self, a: Matrix) -> tuple[Matrix, Matrix]:
        t = self.stored.astype(float) if self.case.sparse else self.given
        return -t * np.log(a) - (1.0 - t) * np.log(1.0 - a), a - t

    def _marginal(self, a: Matrix) -> tuple[Matrix, Matrix]:
        one, zero = self.given == 1.0, self.given == 0.0
        if self.case.sparse:
            one, zero = self.stored, ~self.stored
        scale = np.where(one & (a < 0.8), 1.5, 0.0) * (self.given if self.case.loss is DSMCE else 1.0)
        zero_scale = np.where(zero & (a > 0.1), 0.5, 0.0)
        return -scale * np.log(a) - zero_scale * np.log(1.0 - a), scale * (a - 1.0) + zero_scale * a

    def _softmax(self, a: Matrix) -> tuple[Matrix, Matrix]:
        share = self.stored / np.maximum(self.stored.sum(axis=1, keepdims=True), 1)
        t = share if self.case.targets == "indicators" else self.given
        if self.case.loss is CE:
            return -t * np.log(a), a * t.sum(axis=1, keepdims=True) - t
        one, zero = (self.stored, ~self.stored) if self.case.sparse else (t > 0, t == 0)
        one, zero = one & (a < 0.8), zero & (a > 0.1)
        delta = a - 1.5 * share if self.case.sparse else 1.5 * (a - t)
        return np.where(one, -1.5 * t * np.log(a), 0.0), np.where(one, delta, np.where(zero, 0.5 * a, 0.0))

    @property
    def _boosts(self) -> Matrix:
        case, one, zero = self.case, 1.0, 1.0
        if case.boosted and case.sparse:
            everywhere = case.loss is L1 or (case.activation is SIGMOID and case.loss in (CE, L2, L2_HINGE))
            one = 3.0 if everywhere or (case.loss in (L2, L2_HINGE) and case.targets == "analog") else 1.0
            zero = 0.7 if everywhere else 1.0
        return np.where(self.stored, one, zero)


def reference_of(case: Case) -> Reference:
    if not case.sparse:
        return Reference(case, np.ones_like(GIVEN, dtype=bool), GIVEN)
    stored, given = np.zeros((SAMPLES, UNITS), dtype=bool), np.zeros((SAMPLES, UNITS))
    for n, row in enumerate(ROWS):
        stored[n, row] = True
        given[n, row] = VALUES[n] if case.targets == "analog" else 1.0
    return Reference(case, stored, given)


def measured(
    case: Case,
    targets: SparseBatch | DenseBatch,
    *,
    values: Matrix | None = None,
    spec: LossSpec | None = None,
) -> tuple[Matrix, Matrix]:
    """Losses, and the gradient of their sum by the values, in one piece."""
    on_device = jax.tree.map(jnp.asarray, targets)

    def total(values: jax.Array) -> tuple[jax.Array, jax.Array]:
        shard = Shard(0, UNITS, None)
        losses = sample_losses(spec or case.spec, values, on_device, shard=shard, ignore_zero=case.ignore_zero)
        return losses.sum(), losses

    given = case.values if values is None else values
    gradient, losses = jax.grad(total, has_aux=True)(jnp.asarray(given, jnp.float32))
    return np.asarray(losses), np.asarray(gradient)


@every_case
def test_losses_and_gradients_are_those_of_a_dense_reference(case: Case) -> None:
    for variant in case.variants():
        losses, gradient = measured(variant, targets_of(variant))
        reference = reference_of(variant)
        np.testing.assert_allclose(losses, reference.losses(case.values), rtol=1e-5, atol=2e-6, err_msg=repr(variant))
        np.testing.assert_allclose(
            gradient, reference.gradient(case.values), rtol=1e-5, atol=1e-6, err_msg=repr(variant)
        )


@every_case
def test_the_gradient_is_the_finite_difference_of_the_loss(case: Case) -> None:
    for variant in case.variants():
        if not variant.is_gradient:
            continue
        reference = reference_of(variant)
        gradient = reference.gradient(case.values)
        for unit, nudge in enumerate(1e-6 * np.eye(UNITS)):
            above, below = reference.losses(case.values + nudge), reference.losses(case.values - nudge)
            difference = (above - below) / 2e-6
            np.testing.assert_allclose(gradient[:, unit], difference, rtol=1e-5, atol=1e-7, err_msg=repr(variant))


def of_shards(case: Case, mesh: Mesh, values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Losses, and the gradient of their sum by the values [samples, stored units], over all shards of the mesh."""
    targets = targets_of(case, units=STORED_UNITS)
    parts = P(None) if case.sparse else DenseBatch(P(None, "model"), P(None), P(None))

    def of_shard(values: jax.Array, targets: SparseBatch | DenseBatch) -> jax.Array:
        shard = Shard(jax.lax.axis_index("model") * values.shape[1], UNITS, "model")
        return sample_losses(case.spec, values, targets, shard=shard, ignore_zero=case.ignore_zero)

    over = jax.shard_map(of_shard, mesh=mesh, in_specs=(P(None, "model"), parts), out_specs=P(None))

    def total(values: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses = over(values, targets)
        return losses.sum(), losses

    gradient, losses = jax.grad(total, has_aux=True)(values)
    return losses, gradient


@cache
def over_shards(targets: str) -> dict[Case, tuple[Matrix, Matrix]]:
    """All cases of such targets, weighted and boosted, over eight shards of two units; compiled as one."""
    mesh = jax.make_mesh((8,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    variants = [case for each in CASES if each.targets == targets for case in each.variants()]
    cases = [case for case in variants if case.weighted and case.boosted]
    # Units stored beyond the width hold what would be felt if anyone looked.
    beyond = ((0, 0), (0, STORED_UNITS - UNITS))
    values = [jnp.asarray(np.pad(case.values, beyond, constant_values=20.0), jnp.float32) for case in cases]

    @jax.jit
    def whole(values: list[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
        return [of_shards(case, mesh, given) for case, given in zip(cases, values, strict=True)]

    return {case: (np.asarray(one), np.asarray(other)) for case, (one, other) in zip(cases, whole(values), strict=True)}


@every_case
def test_losses_and_gradients_over_shards_are_those_in_one_piece(case: Case) -> None:
    for variant, (losses, gradient) in over_shards(case.targets).items():
        if (variant.loss, variant.activation) != (case.loss, case.activation):
            continue
        alone = measured(variant, targets_of(variant))
        np.testing.assert_allclose(losses, alone[0], rtol=1e-5, atol=1e-6, err_msg=repr(variant))
        np.testing.assert_allclose(gradient[:, :UNITS], alone[1], rtol=1e-5, atol=1e-6, err_msg=repr(variant))
        assert not gradient[:, UNITS:].any()


@pytest.mark.parametrize("case", [case for case in CASES if case.sparse], ids=str)
def test_padding_entries_contribute_exactly_nothing(case: Case) -> None:
    tight, roomy = (measured(case, targets_of(case, capacity=capacity)) for capacity in (40, 80))
    np.testing.assert_array_equal(tight[0], roomy[0])
    np.testing.assert_array_equal(tight[1], roomy[1])


@pytest.mark.parametrize("loss", [CE, SMCE])
def test_softmax_survives_logits_too_large_to_exponentiate(loss: ErrorFunction) -> None:
    case = Case(loss, SOFT_MAX, "indicators")
    losses, gradient = measured(case, targets_of(case), values=LOGITS + 100.0)
    np.testing.assert_allclose(losses, reference_of(case).losses(LOGITS), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient, reference_of(case).gradient(LOGITS), rtol=1e-4, atol=1e-5)


def test_a_feature_stored_twice_costs_twice_and_passes_back_once() -> None:
    case = Case(CE, SIGMOID, "indicators")
    once, twice = (measured(case, sparse_batch([row])) for row in ([4], [4, 4]))
    z = LOGITS[0, 4]
    np.testing.assert_allclose(twice[0][0] - once[0][0], np.log1p(np.exp(-z)) - np.log1p(np.exp(z)), rtol=1e-5)
    np.testing.assert_array_equal(twice[1], once[1])


@pytest.mark.parametrize("loss", [CE, SMCE])
@pytest.mark.parametrize("targets", ["indicators", "dense"])
def test_a_temperature_divides_the_sums_of_a_softmax(loss: ErrorFunction, targets: str) -> None:
    """And passes back as much through every sum."""
    case, temperature = Case(loss, SOFT_MAX, targets), 0.25
    spec = replace(case.spec, contrast=Contrast(temperature=temperature))
    losses, gradient = measured(case, targets_of(case), values=LOGITS * temperature, spec=spec)
    reference = reference_of(case)
    np.testing.assert_allclose(losses, reference.losses(LOGITS), rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(gradient * temperature, reference.gradient(LOGITS), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("activation", [SIGMOID, SOFT_MAX])
def test_a_reported_logarithm_stops_at_dsstnes_smallest_argument(activation: Activation) -> None:
    highest = 1000.0 if activation is SOFT_MAX else -1000.0
    logits = np.tile(np.where(np.arange(UNITS) == 0, highest, -1000.0), (SAMPLES, 1))
    losses, gradient = measured(Case(CE, activation, "indicators"), sparse_batch([[2]]), values=logits)
    np.testing.assert_allclose(losses[0], -np.log(1e-12), rtol=1e-6)
    assert gradient[0, 2] == -1.0


def test_the_marginal_comparisons_are_strict_for_stored_and_other_units() -> None:
    spec = LossSpec(SMCE, SIGMOID, MarginalScale(one_target=0.5, zero_target=0.5), DeltaBoost())
    targets = jax.tree.map(jnp.asarray, sparse_batch(ROWS))
    assert not sample_losses(spec, jnp.zeros((SAMPLES, UNITS)), targets, shard=Shard(0, UNITS, None)).any()


def test_cross_entropies_are_defined_on_probabilities_alone() -> None:
    probabilities = {SIGMOID, SOFT_MAX}
    for loss, allowed in ((CE, probabilities), (SMCE, probabilities), (DSMCE, {SIGMOID})):
        assert {activation for activation in Activation if fits_output(loss, activation)} == allowed
        assert all(takes_logits(loss, activation) for activation in allowed)
    for loss in (CCL, BPR):
        assert [activation for activation in Activation if fits_output(loss, activation)] == [Activation.LINEAR]
    for loss, activation in product((L1, L2, L2_HINGE, HINGE), Activation):
        assert fits_output(loss, activation)
        assert not takes_logits(loss, activation)


def test_hinge_refuses_sparse_targets_and_other_losses_dense_ones() -> None:
    refused = {
        (loss, sparse) for loss in ErrorFunction for sparse in (True, False) if why_not_target(loss, sparse=sparse)
    }
    assert refused == {(HINGE, True), (DSMCE, False), (CCL, False), (BPR, False)}
    with pytest.raises(ValueError, match="Hinge needs a dense dataset"):
        measured(Case(HINGE, SIGMOID, "indicators"), sparse_batch(ROWS))
    with pytest.raises(ValueError, match="DataScaledMarginalCrossEntropy needs an Output with Activation Sigmoid"):
        measured(Case(DSMCE, SOFT_MAX, "indicators"), sparse_batch(ROWS))
