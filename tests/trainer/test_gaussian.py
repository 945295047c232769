"""Gaussian layers, against an oracle that is told what they drew."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from network_texts import IN, OUT, refusal
from network_texts import network as network_of
from trainer_graphs import (
    BATCH,
    SAMPLES,
    Given,
    hidden,
    moved,
    network,
    output,
    pooling,
    random_weights,
    sparse_input,
)
from trainer_networks import dataset_of, dense, mesh_of, random_rows
from trainer_oracle import Oracle

from trainer.data.batches import paired_batches
from trainer.deal import deals_of, with_deals
from trainer.loss_parameters import Divergence
from trainer.model import Forward, from_weights
from trainer.network_file import read_network_file, write_network
from trainer.network_types import Activation, NetworkSpec, PoolingFunction
from trainer.objective import forward_function
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.state import create_state, make_step, weights_of
from trainer.weights import Weights

UNITS = 4
ROWS = random_rows(SAMPLES, 21, seed=6)
SETTINGS = TrainSettings()


def auto_encoder(divergence: Divergence, *, loss_weight: float = 1.0) -> NetworkSpec:
    return network(
        sparse_input("Words", 21),
        hidden("Code", 6, "Words"),
        hidden("Mean", UNITS, "Code", activation=Activation.LINEAR),
        hidden("LogVariance", UNITS, "Code", activation=Activation.LINEAR),
        pooling("Latent", PoolingFunction.GAUSSIAN, (UNITS,), "Mean LogVariance", divergence=divergence),
        output("Output", 21, "Latent", activation=Activation.SOFT_MAX, loss_weight=loss_weight),
    )


WHOLE = auto_encoder(Divergence(0.3))
PER_FEATURE = auto_encoder(Divergence(0.1, per_feature=True))


@cache
def jitted(shape: tuple[int, int]) -> Any:
    return jax.jit(forward_function(WHOLE, mesh_of(shape)))


def said(shape: tuple[int, int], rng: jax.Array | None) -> Forward:
    mesh, samples = mesh_of(shape), Given(dense(ROWS, 21), ROWS, None, None)
    params, statistics = from_weights(WHOLE, random_weights(WHOLE), shards=shape[1])
    inputs = to_mesh({"Words": samples.batch(shape[0])}, mesh)
    with jax.set_mesh(mesh):
        return jitted(shape)(params, statistics, inputs, rng)[0]


def noise_of(said: Forward) -> np.ndarray:
    """What was drawn, [samples, units]."""
    mean, log_variance, latent = (
        np.asarray(said.outputs[name], np.float64)[:SAMPLES] for name in ("Mean", "LogVariance", "Latent")
    )
    return (latent - mean) * np.exp(-0.5 * log_variance)


@cache
def noise_of_first_step() -> np.ndarray:
    state = create_state(WHOLE, SETTINGS, mesh_of((1, 1)))
    return noise_of(said((1, 1), jax.random.fold_in(state.rng, 0)))


@pytest.mark.parametrize("shape", [(1, 8), (2, 4)], ids=str)
def test_what_is_drawn_is_the_same_on_every_mesh(shape: tuple[int, int]) -> None:
    rng = jax.random.key(3)
    np.testing.assert_allclose(noise_of(said(shape, rng)), noise_of(said((1, 1), rng)), atol=2e-5)


def test_draws_are_of_the_standard_normal_and_others_in_every_step() -> None:
    found = np.stack([noise_of(said((1, 1), jax.random.key(number))) for number in range(40)])
    assert abs(found.mean()) < 4 / np.sqrt(found.size)
    assert abs(found.var() - 1) < 4 * np.sqrt(2 / found.size)
    assert np.unique(found).size == found.size


def test_a_prediction_takes_the_mean_and_pays_nothing() -> None:
    quiet = said((2, 4), None)
    np.testing.assert_array_equal(quiet.outputs["Latent"], quiet.outputs["Mean"])
    assert float(quiet.penalty) == 0.0


@cache
def step_of(spec: NetworkSpec, shape: tuple[int, int]) -> Any:
    return make_step(spec, SETTINGS, mesh_of(shape))


@cache
def stepped(shape: tuple[int, int], spec: NetworkSpec = WHOLE, *, blocks: bool = False, step: int = 0) -> Weights:
    """The weights after one step at learning rate 1, the batch being that of update `step`."""
    mesh = mesh_of(shape)
    if blocks:
        spec = with_deals(spec, ["Words"], shards=shape[1])
        assert [layer.parts for layer in (spec.input, spec.output)] == [8, 8]
    state = create_state(spec, SETTINGS, mesh, weights=random_weights(spec))._replace(step=np.int32(step))
    made = paired_batches(
        {"Words": dataset_of(ROWS, 21)},
        {"Output": dataset_of(ROWS, 21)},
        batch_size=BATCH,
        shards=shape[0],
        order=np.arange(len(ROWS)),
        deals=deals_of(spec, shape[1]),
    )
    state, _ = step_of(spec, shape)(state, *to_mesh(next(made), mesh))
    return weights_of(state, spec)


@pytest.mark.parametrize("spec", [WHOLE, PER_FEATURE], ids=["per sample", "per feature"])
def test_gradients_of_loss_and_divergence_are_the_finite_differences(spec: NetworkSpec) -> None:
    samples = Given(dense(ROWS, 21), ROWS, None, None)
    given, noise = {"Words": samples, "Output": samples}, {"Latent": noise_of_first_step()}
    before, size = random_weights(spec), 1e-5
    after = stepped((2, 4), spec)
    for number, (old, new) in enumerate(zip(before.connections, after.connections, strict=True)):
        for place in range(len(old.bias)):
            path = ("connections", number, "bias")
            up, down = (
                Oracle(spec, moved(before, path, (place,), by), given, training=True, noise=noise).objective()
                for by in (size, -size)
            )
            slope = (up - down) / (2.0 * size)
            np.testing.assert_allclose(old.bias[place] - new.bias[place], slope, rtol=1e-3, atol=5e-6)


def test_a_step_by_blocks_is_the_plain_step() -> None:
    by_blocks, plain = stepped((2, 4), PER_FEATURE, blocks=True), stepped((2, 4), PER_FEATURE)
    for here, there in zip(by_blocks.connections, plain.connections, strict=True):
        np.testing.assert_allclose(here.kernel, there.kernel, rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(here.bias, there.bias, rtol=1e-4, atol=2e-5)


def test_the_divergence_weighs_more_with_every_step_until_it_is_annealed() -> None:
    def moved_by(step: int) -> np.ndarray:
        spec = auto_encoder(Divergence(0.3, 12), loss_weight=0.0)
        return random_weights(spec).connections[1].bias - stepped((1, 1), spec, step=step).connections[1].bias

    whole = moved_by(12)
    assert np.abs(whole).min() > 1e-3
    for step, share in ((0, 0.0), (3, 0.25), (40, 1.0)):
        np.testing.assert_allclose(moved_by(step), share * whole, rtol=1e-4, atol=1e-7)


def test_a_file_keeps_it(tmp_path: Path) -> None:
    spec = auto_encoder(Divergence(0.2, 10000, per_feature=True))
    write_network(tmp_path / "gl.nc", spec, random_weights(spec))
    assert read_network_file(tmp_path / "gl.nc")[0] == spec


def test_json_names_the_layers_of_mean_and_variance_and_what_the_divergence_costs(folder: Path) -> None:
    two = [{"Name": name, "N": 4, "Source": "In", "Activation": "Linear"} for name in ("Mean", "LogVariance")]
    latent = {
        "Name": "Z",
        "Type": "gaussian",
        "Source": ["Mean", "LogVariance"],
        "KL": {"Weight": 0.2, "Anneal": 10, "PerFeature": 1},
    }
    layer = network_of(folder, IN, *two, latent, {**OUT, "Source": "Z"}).layer("Z")
    assert (layer.pooling, layer.divergence, layer.shape) == (
        PoolingFunction.GAUSSIAN,
        Divergence(0.2, 10, per_feature=True),
        (4,),
    )
    assert network_of(folder, IN, *two, {**latent, "KL": {}}, OUT).layer("Z").divergence == Divergence(1.0, 0)
    message = "$.Layers[3].KL: an extension, which DSSTNE does not know"
    assert refusal(folder, IN, *two, latent, OUT, strict_dsstne=True) == message
    del latent["KL"]
    message = "$.Layers[3].Type: an extension, which DSSTNE does not know"
    assert refusal(folder, IN, *two, latent, OUT, strict_dsstne=True) == message
