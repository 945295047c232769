"""Output layers whose squared loss over all units is told by a Gram matrix, against SGD that goes through them all."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainer_networks import chain, dataset_of, dense, mesh_of, random_rows, with_layer

from trainer import gram
from trainer.compiled import CompiledProgram
from trainer.data.batches import paired_batches
from trainer.data.sampling import Sampler
from trainer.deal import deals_of, with_deals
from trainer.errors import SettingsError
from trainer.network_types import (
    Activation,
    ErrorFunction,
    Negatives,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    Sampling,
)
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.sparse import round_up
from trainer.state import Brake, abstract_arguments, create_state, jitted_step, make_step, weights_of

WIDTH, HIDDEN, BATCH, STEPS, SAMPLES = 43, 5, 6, 30, 22
ROWS = random_rows(SAMPLES, WIDTH, seed=5)
DATA = dataset_of(ROWS, WIDTH)
RATE, DECAY, WEIGHT = 0.05, 0.01, 0.3
GRAM = Sampling(Negatives.GRAM)


def network(sampling: Sampling = GRAM, rate: float = RATE, *, hidden: int = HIDDEN, width: int = WIDTH) -> NetworkSpec:
    optimizer = OptimizerSpec(OptimizerName.SGD, rate, DECAY)
    spec = chain((width, width), hidden=(hidden,), optimizer=optimizer, loss=ErrorFunction.L2)
    return with_layer(spec, 2, activation=Activation.LINEAR, sampling=sampling, negative_weight=WEIGHT)


def trained(spec: NetworkSpec, mesh: tuple[int, int]) -> tuple[list[float], list[float], list[Any]]:
    """Losses and regularizations of the steps, and what was learnt."""
    settings, on = TrainSettings(batch_size=BATCH, data_shards=mesh[0]), mesh_of(mesh)
    spec = with_deals(spec, ["Input0"], shards=mesh[1])
    deals, output = deals_of(spec, mesh[1]), spec.output
    samplers = {"Output2": Sampler.of(output.sampling, deals["Output2"], DATA)} if output.sampling.by else {}
    state, step, reports = create_state(spec, settings, on), make_step(spec, settings, on), list[Any]()
    while len(reports) < STEPS:
        for inputs, targets in paired_batches(
            {"Input0": DATA},
            {"Output2": DATA},
            batch_size=BATCH,
            shards=mesh[0],
            order=np.arange(SAMPLES),
            deals=deals,
            samplers=samplers,
            seed=(1,),
        ):
            state, report = step(state, *to_mesh((inputs, targets), on))
            reports.append(report)
    learnt = [array for part in weights_of(state, spec).connections for array in part]
    losses, decays = ([float(report[place]) for report in reports[:STEPS]] for place in (0, 1))
    return losses, decays, learnt


@cache
def trained_densely(rate: float) -> tuple[list[float], list[float], list[Any]]:
    """The same in float64 with all zeros, by the gradient written out."""
    spec, settings = network(), TrainSettings(batch_size=BATCH)
    arrays = [a for part in weights_of(create_state(spec, settings, mesh_of((1, 1))), spec).connections for a in part]
    one, first, two, second = (np.array(array, np.float64) for array in arrays)
    matrix, losses, decays = dense(ROWS, WIDTH), list[float](), list[float]()
    while len(losses) < STEPS:
        for start in range(0, SAMPLES, BATCH):
            x = matrix[start : start + BATCH]
            hidden = 1.0 / (1.0 + np.exp(-(x @ one + first)))
            error = hidden @ two + second - x
            weights = np.where(x > 0, 1.0, WEIGHT)
            losses.append(float((0.5 * weights * error**2).sum()))
            decays.append(0.5 * DECAY * float((one**2).sum() + (two**2).sum()) * len(x))
            delta = weights * error / len(x)
            back = (delta @ two.T) * hidden * (1.0 - hidden)
            two, second = two - rate * (hidden.T @ delta + DECAY * two), second - rate * delta.sum(axis=0)
            one, first = one - rate * (x.T @ back + DECAY * one), first - rate * back.sum(axis=0)
    return losses[:STEPS], decays[:STEPS], [one, first, two, second]


@pytest.mark.parametrize(
    ("rate", "mesh"), [(RATE, (1, 1)), (RATE, (1, 2)), (RATE, (1, 8)), (RATE, (2, 4)), (0.9, (1, 2))], ids=str
)
def test_thirty_steps_are_those_of_sgd_over_all_units(rate: float, mesh: tuple[int, int]) -> None:
    losses, decays, learnt = trained(network(rate=rate), mesh)
    wanted, wanted_decays, wanted_weights = trained_densely(rate)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    np.testing.assert_allclose(decays, wanted_decays, rtol=1e-5)
    for found, other in zip(learnt, wanted_weights, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_without_sampling_the_same_is_learnt() -> None:
    losses, _, _ = trained(network(Sampling()), (1, 1))
    np.testing.assert_allclose(losses, trained_densely(RATE)[0], rtol=1e-5)


def test_rows_are_multiplied_in_blocks_as_soon_as_digits_are_at_stake(monkeypatch: pytest.MonkeyPatch) -> None:
    # Eight blocks of six rows, of which the last has two of the one before; every fourth step.
    monkeypatch.setattr(gram, "_BLOCK", 6 * (HIDDEN + 1))
    monkeypatch.setattr(gram, "_LONGEST", 3)
    losses, _, learnt = trained(network(), (1, 1))
    wanted, _, wanted_weights = trained_densely(RATE)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    for found, other in zip(learnt, wanted_weights, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def lowered(items: int, mesh: tuple[int, int] = (1, 8)) -> Any:
    width, on, settings = round_up(items), mesh_of(mesh), TrainSettings(batch_size=32, l2=0.0)
    spec = chain((width, width), hidden=(16,), optimizer=OptimizerSpec(weight_decay=0.0), loss=ErrorFunction.L2)
    spec = with_layer(spec, 2, sampling=GRAM, activation=Activation.LINEAR)
    spec = with_deals(spec, ["Input0"], shards=mesh[1], is_local=True)
    with jax.set_mesh(on):
        arguments = abstract_arguments(spec, settings, on, capacity=512)
        return jitted_step(spec, settings, on), arguments, on


def test_a_steps_cost_does_not_grow_with_the_items_and_little_crosses_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that a block is smaller than a device's share of either.
    monkeypatch.setattr(gram, "_BLOCK", 1 << 14)

    def compiled(items: int) -> Any:
        step, arguments, on = lowered(items)
        with jax.set_mesh(on):
            return step.lower(*arguments).compile()

    few, many = compiled(10_000), compiled(10_000_000)
    assert many.cost_analysis()["flops"] < 1.01 * few.cost_analysis()["flops"]
    assert many.memory_analysis().temp_size_in_bytes < 1.01 * few.memory_analysis().temp_size_in_bytes
    crossing = list(CompiledProgram(many.as_text()).collectives(8))
    assert crossing
    # [batch, hidden + 1] and a number of each sample, or [hidden + 1, hidden + 1].
    assert all(one.bytes <= 4 * 32 * (16 + 2) for one in crossing)


def test_another_optimizer_is_refused() -> None:
    spec = with_deals(network(), ["Input0"], shards=1)
    for optimizer, l1 in ((OptimizerName.ADAM, 0.0), (OptimizerName.SGD, 0.1)):
        asked = replace(spec, optimizer=OptimizerSpec(optimizer))
        with pytest.raises(SettingsError, match="needs SGD without an L1 penalty"):
            make_step(asked, TrainSettings(l1=l1), mesh_of((1, 1)))


def test_a_batch_whose_loss_jumps_changes_nothing() -> None:
    settings, on = TrainSettings(batch_size=BATCH), mesh_of((1, 2))
    spec = with_deals(network(), ["Input0"], shards=2)
    deals = deals_of(spec, 2)
    samplers = {"Output2": Sampler.of(GRAM, deals["Output2"], DATA)}
    given = ({"Input0": DATA}, {"Output2": DATA})
    batches = paired_batches(
        *given, batch_size=BATCH, order=np.arange(BATCH), deals=deals, samplers=samplers, seed=(1,)
    )
    batch, step = to_mesh(next(batches), on), make_step(spec, settings, on)
    state, _ = step(create_state(spec, settings, on), *batch)
    before = jax.tree.map(np.array, (state.params, state.opt_state))
    state = state._replace(step=jnp.int32(500), brake=Brake(jnp.float32(1e-3), jnp.int32(0)))
    state, _ = step(state, *batch)
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.opt_state), before)
