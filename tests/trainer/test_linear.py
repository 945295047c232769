"""Linear models from items to items, none of which predicts itself, and auto-encoders whose ends are tied."""

from functools import cache
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
from trainer_networks import Run, chain, dense, mesh_of, random_rows, with_layer

from trainer.attach import attached
from trainer.deal import with_deals
from trainer.dense import DenseDataset
from trainer.errors import NetworkError
from trainer.network_file import read_network_file, write_network
from trainer.network_types import (
    Activation,
    ErrorFunction,
    LayerKind,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    SharedWeights,
)
from trainer.settings import TrainSettings
from trainer.state import abstract_arguments, create_state, jitted_step, weights_of
from trainer.weights import Connection, Weights

ITEMS, BATCH = 21, 8
ROWS = random_rows(BATCH, ITEMS, seed=2)
RATE, DECAY = 0.1, 0.5
OTHER_MESHES = [(1, 8), (2, 4)]


def linear(optimizer: OptimizerName = OptimizerName.ADAM) -> NetworkSpec:
    spec = chain((ITEMS, ITEMS), hidden=(), optimizer=OptimizerSpec(optimizer, RATE, DECAY), loss=ErrorFunction.L2)
    return with_layer(spec, 1, activation=Activation.LINEAR, zero_diagonal=True)


def filled() -> Weights:
    rng = np.random.default_rng(4)
    return Weights((Connection(*(rng.normal(size=s).astype(np.float32) for s in ((ITEMS, ITEMS), ITEMS))),))


@cache
def trained(mesh: tuple[int, int]) -> Run:
    return Run(linear(), (ROWS, ROWS), mesh=mesh)


@pytest.mark.parametrize("mesh", OTHER_MESHES, ids=str)
def test_a_linear_model_learns_the_same_on_every_mesh_and_its_diagonal_stays_zero(mesh: tuple[int, int]) -> None:
    run, alone = trained(mesh), trained((1, 1))
    np.testing.assert_allclose(run.losses, alone.losses, rtol=1e-5)
    assert alone.losses[-1] < alone.losses[0]
    (kernel, bias), (expected, same) = run.connections[0], alone.connections[0]
    assert kernel is not None
    np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bias, same, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(np.diag(kernel), np.zeros(ITEMS))
    assert (kernel != 0).sum() == ITEMS * (ITEMS - 1)


def test_a_step_is_that_of_ridge_regression_without_the_diagonal() -> None:
    (start, bias), x = filled().connections[0], dense(ROWS, ITEMS)
    assert start is not None
    start = start * (1.0 - np.eye(ITEMS))
    run = Run(linear(OptimizerName.SGD), (ROWS, ROWS), mesh=(2, 4), steps=1, start=filled())
    error = x @ start + bias - x
    gradient = (x.T @ error / BATCH + DECAY * start) * (1.0 - np.eye(ITEMS))
    np.testing.assert_allclose(run.losses[0], 0.5 * (error**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(run.connections[0].kernel, start - RATE * gradient, rtol=1e-4, atol=1e-6)


def test_a_file_keeps_the_diagonal_at_zero_and_what_negatives_weigh(tmp_path: Path) -> None:
    spec = with_layer(linear(), 1, negative_weight=0.25)
    write_network(tmp_path / "gl.nc", spec, filled())
    read, weights = read_network_file(tmp_path / "gl.nc")
    assert read.output == spec.output
    state = create_state(read, TrainSettings(), mesh_of((1, 8)), weights=weights)
    kernel = weights_of(state, read).connections[0].kernel
    assert kernel is not None
    assert not np.diag(kernel).any()


def test_negatives_of_dense_targets_are_refused() -> None:
    spec = with_layer(linear(), 1, negative_weight=0.25)
    found = {"gl_output": DenseDataset("gl_output", (ITEMS,), np.zeros((2, ITEMS), np.float32))}
    with pytest.raises(NetworkError, match="only sparse targets have negatives") as caught:
        attached(spec, found, Path("data.nc"), kind=LayerKind.OUTPUT)
    assert str(caught.value).startswith("$.Layers[1].ErrorFunction: ")


def tied() -> NetworkSpec:
    optimizer = OptimizerSpec(OptimizerName.ADAM, 0.02, 0.0)
    spec = chain((ITEMS, ITEMS), activation=Activation.TANH, optimizer=optimizer, denoising=0.3)
    shared = SharedWeights("Hidden1", "Input0", "Hidden1", transposed=True)
    return with_layer(spec, 2, activation=Activation.SOFT_MAX, shared=(shared,))


@cache
def trained_tied(mesh: tuple[int, int]) -> Run:
    return Run(tied(), (ROWS, ROWS), mesh=mesh, steps=20)


@pytest.mark.parametrize("mesh", OTHER_MESHES, ids=str)
def test_a_tied_auto_encoder_learns_the_same_on_every_mesh_and_keeps_one_matrix(mesh: tuple[int, int]) -> None:
    run, alone = trained_tied(mesh), trained_tied((1, 1))
    np.testing.assert_allclose(run.losses, alone.losses, rtol=1e-4)
    assert alone.losses[-1] < 0.9 * alone.losses[0]
    assert run.connections[1].kernel is None
    np.testing.assert_allclose(run.connections[0].kernel, alone.connections[0].kernel, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("spec", [linear(), tied()], ids=["linear", "tied"])
def test_matrices_that_join_features_or_are_tied_are_updated_as_a_whole_on_every_accelerator(spec: NetworkSpec) -> None:
    mesh, settings = mesh_of((1, 8)), TrainSettings(batch_size=BATCH)
    assert with_deals(spec, ["Input0"], shards=8) == spec
    with jax.set_mesh(mesh):
        arguments = abstract_arguments(spec, settings, mesh, capacity=40)
        exported = jax.export.export(jitted_step(spec, settings, mesh), platforms=["cuda", "tpu"])(*arguments)
    assert exported.nr_devices == 8
