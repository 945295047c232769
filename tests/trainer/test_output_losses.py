"""Every activation × error function × kind of targets that the language accepts, as the trainer computes it on a mesh,
against a dense oracle in float64 and against differences of the oracle's losses.

Losses agree within 1e-5 of themselves. Gradients agree within 1e-5 of the largest entry of their sample, plus two units
of single precision's last place in its largest delta: where an output is close to its target, or tanh to 1, the
difference has lost its fifth digit.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from trainer_loss_oracle import (
    ALPHA,
    BOOST_ONE,
    BOOST_ZERO,
    BPR,
    CCL,
    CE,
    DSMCE,
    FUNCTIONS,
    HINGE,
    KINDS,
    L1,
    L2_HINGE,
    LAMBDA,
    MARGIN,
    ONE_SCALE,
    ONE_TARGET,
    SIGMOID,
    SLOPE,
    SMCE,
    SOFT_MAX,
    ZERO_SCALE,
    ZERO_TARGET,
    Case,
    Matrix,
    Targets,
    boosts,
    deltas_of,
    differences_of,
    gradient_of,
    losses_of,
)
from trainer_networks import mesh_of

from trainer.activations import activate
from trainer.attach import attached, resolve
from trainer.data.batches import paired_batches
from trainer.data.netcdf import Dataset, read_datasets, write_datasets
from trainer.dense import DenseDataset
from trainer.loss_parameters import Contrast
from trainer.model import Forward
from trainer.network_names import ACTIVATIONS, fits_output, why_not_target
from trainer.network_types import (
    Activation,
    DeltaBoost,
    ErrorFunction,
    LayerKind,
    LayerSpec,
    MarginalScale,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    WeightInit,
    WeightScheme,
)
from trainer.objective import output_losses
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.sparse import SparseDataset
from trainer.state import TrainState, weights_of
from trainer.train import EpochReport, TrainingData, train
from trainer.weights import Connection

SAMPLES, UNITS, COLUMNS = 7, 13, 14
BATCH, MESH = 8, (2, 2)
"""A padding sample and a padding unit, both on the last shard."""
RNG = np.random.default_rng(31)
ROWS = [[], *(RNG.permutation(UNITS)[:count].tolist() for count in RNG.integers(1, 6, SAMPLES - 1))]
INDEX = np.array([3, 0, 3, 5, 1, 1, 4])
"""Stored row of each sample where targets are indexed."""
VALUES = [RNG.choice([0.0, 0.4, 0.7, 1.0, 2.5, -1.3], len(row)).astype(np.float32) for row in ROWS]
GIVEN = RNG.choice([0.0, 1.0, 0.3, 1.7, -1.0], (SAMPLES, UNITS), p=[0.4, 0.3, 0.1, 0.1, 0.1]).astype(np.float32)
WEIGHTS = np.array([0.4, 1.0, 2.3, 0.0, 0.7, 1.6, 3.1], np.float32)
SUMS = RNG.normal(0.0, 2.0, (SAMPLES, UNITS)).astype(np.float32)
SUMS[4] = -np.abs(SUMS[4])  # nothing that a rectifier lets through
SUMS[5, ROWS[5][0]] = 9.0  # a stored unit beyond one_target, of a SoftMax too
GIVEN[5, ROWS[5][0]] = 1.0
ORDER = np.array([2, 6, 0, 5, 3, 1, 4])


def variants(loss: ErrorFunction, activation: Activation) -> Iterator[Case]:
    """Without `indexed`, which shares the program of what is not."""
    for kind in KINDS:
        case = Case(loss, activation, kind)
        if loss is not BPR and fits_output(loss, activation) and why_not_target(loss, sparse=case.sparse) is None:
            yield case
            yield replace(case, weighted=True)


LINEAR = Activation.LINEAR
OUTPUTS = {CE: {SIGMOID, SOFT_MAX}, SMCE: {SIGMOID, SOFT_MAX}, DSMCE: {SIGMOID}, CCL: {LINEAR}, BPR: {LINEAR}}
"""Activations of the losses that do not take every one."""
every_activation = pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS.values())), ids=lambda one: one.name)


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
        negative_weight=case.negative,
        contrast=Contrast(margin=MARGIN),
    )
    marginal = MarginalScale(ONE_TARGET, ZERO_TARGET, ONE_SCALE, ZERO_SCALE)
    boost = DeltaBoost(BOOST_ONE, BOOST_ZERO) if case.weighted else DeltaBoost()
    return NetworkSpec("toy", (layer,), loss=case.loss, marginal=marginal, delta_boost=boost), layer


Found = npt.NDArray[np.float32]
Measured = dict[Case, tuple[Found, Found]]
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
        output, pull_back = jax.vjp(partial(activate, network_of(cases[0])[1]), sums)
        found = [of_case(case, batch, sums, output) for case, batch in zip(cases, batches, strict=True)]
        by_output = jax.vmap(pull_back)(jnp.stack([one for _, _, one in found]))[0]
        return [(losses, own + by_output[n]) for n, (losses, own, _) in enumerate(found)]

    def of_case(case: Case, batch: Any, *values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        spec, layer = network_of(case)

        def losses(sums: jax.Array, output: jax.Array) -> jax.Array:
            said = Forward({"Output": sums}, {"Output": output}, jnp.zeros(()))
            return output_losses(spec, layer, said, batch, mesh)

        found, pull_back = jax.vjp(losses, *values)
        return found, *pull_back(batch.sample_mask)

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
            targets = targets_of(case)
            differences = differences_of(case, SUMS.astype(float), targets)
            check_gradient(case, gradient, boosts(case, targets) * differences)


def check_gradient(case: Case, gradient: Found, expected: Matrix) -> None:
    """Padding samples and units have none."""
    assert not gradient[SAMPLES:].any(), case
    assert not gradient[:, UNITS:].any(), case
    deltas = deltas_of(case, SUMS.astype(float), targets_of(case))
    for place, sample in enumerate(ORDER):
        wanted, precision = expected[sample], 2.4e-7 * np.abs(deltas[sample]).max()
        tolerance = 1e-5 * np.abs(wanted).max() + precision
        np.testing.assert_allclose(gradient[place, :UNITS], wanted, rtol=0.0, atol=tolerance, err_msg=str(case))


def test_the_language_accepts_what_has_a_loss() -> None:
    for loss, activation in product(ErrorFunction, set(ACTIVATIONS.values())):
        known = OUTPUTS.get(loss, set(FUNCTIONS))
        assert fits_output(loss, activation) == (activation in known)
        kinds = {case.kind for case in variants(loss, activation)}
        refused = {HINGE: {"Boolean", "analog"}, DSMCE: {"dense"}, CCL: {"dense"}, BPR: set(KINDS)}.get(loss, set())
        assert kinds == (set(KINDS) - refused if activation in known else set())
        for sparse in (True, False) if loss is not BPR else ():
            assert (why_not_target(loss, sparse=sparse) is None) == (("Boolean" if sparse else "dense") not in refused)


@pytest.mark.parametrize(
    "case",
    [
        Case(SMCE, SIGMOID, "Boolean"),
        Case(L1, Activation.LEAKY_RECTIFIED_LINEAR, "Boolean", ignoring=True),
        Case(L2_HINGE, Activation.SCALED_EXPONENTIAL_LINEAR, "analog"),
        Case(DSMCE, SIGMOID, "analog", ignoring=True),
        Case(HINGE, Activation.LINEAR_MAX, "dense"),
        Case(CE, SOFT_MAX, "dense"),
    ],
    ids=lambda case: f"{case.loss.name}-{case.activation.name}-{case.kind}",
)
def test_a_step_on_indexed_weighted_targets_of_a_file_follows_the_specification(case: Case, tmp_path: Path) -> None:
    """Mean loss, and new weights and biases, of samples read from NetCDF: a file has weights by stored row."""
    case, rng = replace(case, weighted=True, indexed=True), np.random.default_rng(4)
    inputs = rng.normal(0.0, 1.0, (SAMPLES, 3)).astype(np.float32)
    rows = INDEX[::-1].copy()
    of_input = DenseDataset("input", (3,), inputs, rows=rows)
    of_target = replace(dataset_of(case), weights=WEIGHTS[INDEX])
    report, (kernel, bias), after = one_step(case, stored(tmp_path, of_input, of_target))
    assert kernel is not None
    given: Matrix = inputs[rows].astype(np.float64)
    sums: Matrix = np.add(given @ kernel, bias, dtype=np.float64)
    targets = stored_targets(case.kind).of(INDEX, WEIGHTS[INDEX])
    gradient = gradient_of(case, sums, targets) / SAMPLES
    np.testing.assert_allclose(report.loss, losses_of(case, sums, targets).mean(), rtol=1e-5)
    assert after.kernel is not None
    np.testing.assert_allclose(after.kernel, kernel - given.T @ gradient, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(after.bias, bias - gradient.sum(axis=0), rtol=1e-5, atol=1e-5)


def stored(folder: Path, of_input: Dataset, of_target: Dataset) -> dict[str, Dataset]:
    """The datasets as a file gives them back."""
    write_datasets(folder / "data.nc", [of_input, of_target])
    found = read_datasets(folder / "data.nc")
    assert found["target"].rows is not None
    assert found["target"].weights is not None
    return found


def one_step(case: Case, found: dict[str, Dataset]) -> tuple[EpochReport, Connection, Connection]:
    """What is told of an epoch of one batch, what it began with and what it leaves, without hidden layers."""
    spec, layer = network_of(case)
    drawn = WeightInit(WeightScheme.GAUSSIAN, bias=0.25)
    taught = replace(layer, sources=("Input",), dataset="target", ignore_zero=False, weight_init=drawn)
    plain = LayerSpec("Input", LayerKind.INPUT, (3,), dataset="input")
    optimizer = OptimizerSpec(OptimizerName.SGD, learning_rate=1.0, weight_decay=0.0)
    spec = resolve(replace(spec, layers=(plain, taught), optimizer=optimizer), found, found)
    data = TrainingData(
        *(attached(spec, found, Path("data.nc"), kind=kind) for kind in (LayerKind.INPUT, LayerKind.OUTPUT))
    )
    settings = TrainSettings(batch_size=BATCH, epochs=1, data_shards=MESH[0])
    told: list[EpochReport] = []
    learnt: list[Connection] = []

    def after_epoch(_: int, state: Callable[[], TrainState]) -> None:
        learnt.append(weights_of(state(), spec).connections[0])

    train(spec, data, settings, mesh=mesh_of(MESH), tell=told.append, after_epoch=after_epoch)
    return told[0], learnt[0], learnt[1]
