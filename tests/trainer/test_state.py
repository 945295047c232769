import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
import pytest
from trainer_networks import MESHES, Run, batch_of, chain, dense, mesh_of, random_rows, with_layer

from trainer.deal import Deal, with_deals
from trainer.model import Batches
from trainer.network import read_network, resolve_shapes
from trainer.network_types import (
    Activation,
    Negatives,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    Sampling,
    Sparseness,
    WeightInit,
)
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.state import abstract_arguments, create_state, jitted_step, make_step, weights_of

ROOT = Path(__file__).parents[2]
INPUTS, OUTPUTS, SAMPLES = 21, 13, 8
ROWS = (random_rows(SAMPLES, INPUTS, seed=1), random_rows(SAMPLES, OUTPUTS, seed=2))
RATES = TrainSettings(learning_rate=0.5, l2=0.01, l1=0.003, batch_size=SAMPLES)
OTHER_MESHES = [shape for shape in MESHES if shape != (1, 1)]


def literal(**own: Any) -> NetworkSpec:
    """DSSTNE's MovieLens sample, six hidden units and toy widths, nothing hidden."""
    spec = read_network(ROOT / "configs/networks/dsstne-movielens.json")
    spec = with_layer(spec, 1, shape=(6,))
    return replace(resolve_shapes(spec, {"gl_input": (INPUTS,), "gl_output": (OUTPUTS,)}), denoising=0.0, **own)


def everything_on(optimizer: OptimizerName = OptimizerName.NESTEROV, **own: Any) -> NetworkSpec:
    spec = chain(
        (INPUTS, OUTPUTS),
        hidden=(5, 3),
        activation=Activation.TANH,
        denoising=0.4,
        decay=0.1,
        sparseness=Sparseness(0.2, 0.5),
        optimizer=OptimizerSpec(optimizer, 0.05),
        **own,
    )
    spec = with_layer(spec, 0, normalize=True)
    return with_layer(spec, 1, dropout=0.3)


class Reference:
    """The literal network in NumPy and float64, written from DSSTNE spec 5.3 to 5.6 and 5.11."""

    def __init__(self, start: Any, *, nesterov: bool) -> None:
        self.weights = [array.astype(np.float64) for connection in start for array in connection]
        self.velocities = [np.zeros_like(array) for array in self.weights]
        self.mu = 0.5 if nesterov else 0.0
        self.losses, self.regularizations = [], []

    def step(self, inputs: np.ndarray, stored: np.ndarray) -> None:
        w1, b1, w2, b2 = self.weights
        samples = len(inputs)
        hidden = sigmoid(inputs @ w1 + b1)
        a = sigmoid(hidden @ w2 + b2)
        self.losses.append(-np.where(stored, np.log(a), np.log(1.0 - a)).sum())
        squares, sizes = (sum(f(w).sum() for w in (w1, w2)) for f in (np.square, np.abs))
        self.regularizations.append((0.5 * RATES.l2 * squares + RATES.l1 * sizes) * samples)
        delta2 = a - stored
        m = np.clip(hidden.mean(axis=0), 1e-6, 0.999999)
        sparseness = 2.0 * (-0.5 / m + 0.5 / (1.0 - m))
        delta1 = (delta2 @ w2.T + sparseness) * hidden * (1.0 - hidden)
        gradients = [inputs.T @ delta1, delta1.sum(axis=0), hidden.T @ delta2, delta2.sum(axis=0)]
        for n, gradient in enumerate(gradients):
            weight = self.weights[n]
            g = -gradient / samples
            g = g - RATES.l2 * weight - RATES.l1 * np.sign(weight) if weight.ndim == 2 else g
            before = self.velocities[n]
            self.velocities[n] = self.mu * before + RATES.learning_rate * g
            self.weights[n] = weight + self.velocities[n] + self.mu * (self.velocities[n] - before)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


@pytest.mark.parametrize("optimizer", [None, OptimizerSpec(OptimizerName.NESTEROV)], ids=["SGD", "Nesterov"])
def test_three_steps_of_dsstnes_network_are_those_of_a_dense_reference(optimizer: OptimizerSpec | None) -> None:
    spec = literal(optimizer=optimizer)
    # Seven samples in a batch of eight: means are over the real ones.
    rows = tuple(of[: SAMPLES - 1] for of in ROWS)
    run = Run(spec, rows, mesh=(2, 4), settings=RATES, batch=SAMPLES)
    reference = Reference(
        weights_of(create_state(spec, RATES, mesh_of((1, 1))), spec).connections, nesterov=optimizer is not None
    )
    for _ in range(3):
        reference.step(dense(rows[0], INPUTS), dense(rows[1], OUTPUTS) > 0)
    np.testing.assert_allclose(run.losses, reference.losses, rtol=1e-5)
    np.testing.assert_allclose(run.regularizations, reference.regularizations, rtol=1e-5)
    assert run.losses[2] < run.losses[0]
    arrays = [array for connection in run.connections for array in connection]
    for array, expected in zip(arrays, reference.weights, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)


@cache
def alone(optimizer: OptimizerName) -> Run:
    return Run(everything_on(optimizer), ROWS, settings=TrainSettings(l2=0.01, l1=0.001))


@pytest.mark.parametrize(
    ("shape", "optimizer"),
    [*((shape, OptimizerName.ADAM) for shape in OTHER_MESHES), ((2, 4), OptimizerName.NESTEROV)],
    ids=str,
)
def test_losses_and_weights_are_the_same_on_every_mesh(shape: tuple[int, int], optimizer: OptimizerName) -> None:
    one = alone(optimizer)
    many = Run(everything_on(optimizer), ROWS, mesh=shape, settings=TrainSettings(l2=0.01, l1=0.001))
    np.testing.assert_allclose(many.losses, one.losses, rtol=1e-5)
    np.testing.assert_allclose(many.regularizations, one.regularizations, rtol=1e-5)
    for there, here in zip(many.connections, one.connections, strict=True):
        np.testing.assert_allclose(there.kernel, here.kernel, rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(there.bias, here.bias, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("shape", OTHER_MESHES, ids=str)
def test_weights_begin_identical_on_every_mesh(shape: tuple[int, int]) -> None:
    spec, settings = everything_on(), TrainSettings(seed=5)
    one, many = (weights_of(create_state(spec, settings, mesh_of(on)), spec).connections for on in ((1, 1), shape))
    for there, here in zip(many, one, strict=True):
        np.testing.assert_array_equal(there.kernel, here.kernel)
        np.testing.assert_array_equal(there.bias, here.bias)


def test_the_same_seed_repeats_a_run_and_another_does_not() -> None:
    first, again, second = (Run(literal(), ROWS, steps=1, settings=TrainSettings(seed=seed)) for seed in (1, 1, 2))
    assert first.losses == again.losses
    assert not np.allclose(first.connections[0].kernel, second.connections[0].kernel)


def test_every_step_hides_other_features() -> None:
    still = chain((INPUTS, OUTPUTS), denoising=0.5, optimizer=OptimizerSpec(learning_rate=1e-30, weight_decay=0.0))
    losses = Run(still, ROWS, steps=4).losses
    assert len(set(losses)) == 4


@pytest.mark.parametrize("shape", [(1, 1), (2, 4)], ids=str)
def test_padding_samples_weigh_nothing(shape: tuple[int, int]) -> None:
    spec = literal(sparseness=Sparseness(0.5, 2.0))
    exact, padded = (Run(spec, ROWS, mesh=shape, batch=batch, settings=RATES) for batch in (SAMPLES, 2 * SAMPLES))
    np.testing.assert_allclose(padded.losses, exact.losses, rtol=1e-6)
    for there, here in zip(padded.connections, exact.connections, strict=True):
        np.testing.assert_allclose(there.kernel, here.kernel, rtol=1e-5, atol=1e-6)


def test_rows_stored_beyond_the_width_stay_zero() -> None:
    run = Run(everything_on(OptimizerName.ADAM), ROWS, mesh=(1, 8))
    for name, number, width in (("inputs", "0", INPUTS), ("outputs", "2", OUTPUTS)):
        kernel = np.asarray(run.state.params[name][number]["kernel"])
        assert len(kernel) > width
        assert not kernel[~Deal(width, len(kernel), 8).holds(np.arange(len(kernel)))].any()


def test_a_devices_share_of_feature_weights_and_optimizer_state_falls_with_the_devices() -> None:
    spec = chain((1024, 512), hidden=(16,), optimizer=OptimizerSpec(OptimizerName.ADAM))
    state = create_state(spec, TrainSettings(), mesh_of((1, 8)))
    kernels = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if "kernel" in jax.tree_util.keystr(path) and "hidden" not in jax.tree_util.keystr(path)
    ]
    assert len(kernels) == 6  # two weights, each with Adam's two moments
    for kernel in kernels:
        assert [shard.data.nbytes for shard in kernel.addressable_shards] == [kernel.nbytes // 8] * 8


def test_log_odds_become_the_output_biases_and_padding_has_none() -> None:
    odds = np.linspace(-4.0, 1.0, OUTPUTS).astype(np.float32)
    for hidden in ((5,), ()):
        spec = with_layer(chain((INPUTS, OUTPUTS), hidden=hidden), -1, weight_init=WeightInit(log_odds=True))
        state = create_state(spec, TrainSettings(), mesh_of((1, 8)), biases={spec.output.name: odds})
        np.testing.assert_array_equal(weights_of(state, spec).connections[-1].bias, odds)
        bias = state.params["outputs" if hidden else "inputs"]["1" if hidden else "0"]["bias"]
        assert not np.asarray(bias)[OUTPUTS:].any()


def test_a_state_from_a_networks_weights_goes_on_where_it_stopped() -> None:
    spec = literal()
    whole = Run(spec, ROWS, steps=4, settings=RATES)
    half = Run(spec, ROWS, steps=2, settings=RATES)
    rest = Run(spec, ROWS, steps=2, settings=RATES, start=half.weights, mesh=(1, 8))
    np.testing.assert_allclose(half.losses + rest.losses, whole.losses, rtol=1e-5)


def on_devices(shape: tuple[int, int]) -> tuple[Any, Batches, Batches]:
    mesh = mesh_of(shape)
    state = create_state(literal(), RATES, mesh)
    inputs = {"Input": batch_of(ROWS[0], INPUTS, shards=shape[0])}
    return state, *to_mesh((inputs, {"Output": batch_of(ROWS[1], OUTPUTS, shards=shape[0])}), mesh)


def test_a_step_moves_nothing_between_host_and_devices_and_consumes_its_state() -> None:
    state, inputs, targets = on_devices((2, 4))
    step = make_step(literal(), RATES, mesh_of((2, 4)))
    after, _ = step(state, inputs, targets)
    with jax.transfer_guard("disallow"):
        last, _ = step(after, inputs, targets)
    assert after.params["outputs"]["1"]["kernel"].is_deleted()
    assert int(last.step) == 2


def test_abstract_arguments_are_those_of_a_step() -> None:
    batch = batch_of(ROWS[0], INPUTS, spare=3)
    state = create_state(literal(), RATES, mesh_of((1, 8)))
    real = (state, {"Input": batch}, {"Output": batch})
    abstract = abstract_arguments(literal(), RATES, mesh_of((1, 8)), capacity=len(batch.rows))
    assert jax.tree.structure(abstract) == jax.tree.structure(real)
    for there, here in zip(jax.tree.leaves(abstract), jax.tree.leaves(real), strict=True):
        assert (there.shape, there.dtype) == (here.shape, here.dtype)
    for there, here in zip(jax.tree.leaves(abstract[0]), jax.tree.leaves(state), strict=True):
        assert there.sharding.is_equivalent_to(here.sharding, here.ndim)


BATCH, HIDDEN, WIDE_IN, WIDE_OUT = 16, 24, 2048, 1024


COLLECTIVE = re.compile(r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)\S*\(")
ALONE = "replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}"
"""Every device talks to itself."""


def compiled_text(shape: tuple[int, int]) -> str:
    """The HLO of a step whose numbers tell arrays apart."""
    spec = replace(
        chain((WIDE_IN, WIDE_OUT), hidden=(HIDDEN,), optimizer=OptimizerSpec(OptimizerName.ADAM)),
        denoising=0.3,
        sparseness=Sparseness(0.5, 2.0),
    )
    spec = with_layer(spec, 0, normalize=True)
    settings, mesh = TrainSettings(batch_size=BATCH), mesh_of(shape)
    arguments = abstract_arguments(spec, settings, mesh, capacity=80)
    with jax.set_mesh(mesh):
        return jitted_step(spec, settings, mesh).lower(*arguments).compile().as_text()


def shapes_in(text: str) -> set[tuple[int, ...]]:
    return {tuple(int(n) for n in found.split(",")) for found in re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", text)}


def test_no_device_makes_the_input_dense_or_sees_all_logits() -> None:
    text = compiled_text((1, 8))
    shapes = {tuple(sorted(shape)) for shape in shapes_in(text)}
    assert (BATCH, WIDE_OUT // 8) in shapes, "a device's own logits"
    for width in (WIDE_IN, WIDE_IN // 8, WIDE_OUT):
        assert (BATCH, width) not in shapes
    crossing = [line for line in text.splitlines() if COLLECTIVE.search(line) and ALONE not in line]
    assert crossing
    for line in crossing:
        moved = COLLECTIVE.split(line)[0]
        assert all(np.prod(shape) <= BATCH * HIDDEN for shape in shapes_in(moved)), line


def test_no_weight_crosses_axis_model() -> None:
    shapes = shapes_in(compiled_text((2, 4)))
    for width in (WIDE_IN, WIDE_OUT):
        assert (width // 4, HIDDEN) in shapes
        assert (width, HIDDEN) not in shapes


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(Negatives.UNIFORM, 4)], ids=["whole", "sampled"])
def test_a_step_can_be_exported_to_machines_that_are_not_here(sampling: Sampling) -> None:
    settings, mesh = TrainSettings(batch_size=BATCH), mesh_of((1, 8))
    spec = with_layer(everything_on(OptimizerName.ADAM), -1, sampling=sampling)
    spec = with_deals(spec, [one.name for one in spec.inputs], shards=8, weights=1)
    assert all(layer.parts for layer in (*spec.inputs, *spec.outputs))
    arguments = abstract_arguments(spec, settings, mesh, capacity=80)
    with jax.set_mesh(mesh):
        exported = jax.export.export(jitted_step(spec, settings, mesh), platforms=["cuda", "tpu", "cpu"])(*arguments)
    assert exported.platforms == ("cuda", "tpu", "cpu")
    assert exported.nr_devices == 8


@pytest.mark.parametrize("path", sorted((ROOT / "configs/networks").glob("*.json")), ids=lambda path: path.stem)
def test_the_step_of_every_shipped_network_can_be_exported(path: Path) -> None:
    spec = read_network(path)
    spec = resolve_shapes(spec, {layer.dataset: (256,) for layer in (*spec.inputs, *spec.outputs)})
    settings, mesh = TrainSettings(batch_size=BATCH), mesh_of((2, 4))
    spec = with_deals(spec, [one.name for one in spec.inputs], shards=4, weights=1 << 12)
    arguments = abstract_arguments(spec, settings, mesh, capacity=80)
    with jax.set_mesh(mesh):
        exported = jax.export.export(jitted_step(spec, settings, mesh), platforms=["cuda", "tpu", "cpu"])(*arguments)
    assert exported.platforms == ("cuda", "tpu", "cpu")
