"""Optimizers that update the rows a step has entries for, against themselves updating all rows."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainer_networks import chain, dataset_of, mesh_of, random_rows, with_layer

import trainer.train as training
from trainer import lazy
from trainer.data.batches import paired_batches
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
from trainer.state import Brake, Step, abstract_arguments, create_state, jitted_step, make_step, weights_of
from trainer.train import Checkpoints, TrainingData, train

MESH = mesh_of((1, 8))
WIDTH, BATCH, SAMPLES, STEPS = 91, 6, 58, 50
DATA = dataset_of(random_rows(SAMPLES, WIDTH, seed=7), WIDTH)
RATES = {
    OptimizerName.SGD: (0.5, 0.05),
    OptimizerName.MOMENTUM: (0.2, 0.05),
    OptimizerName.NESTEROV: (0.2, 0.05),
    OptimizerName.ADAGRAD: (0.05, 0.0),
    OptimizerName.RMSPROP: (0.01, 0.0),
    OptimizerName.ADAM: (0.02, 0.0),
}
"""Learning rate and weight decay."""


def network(name: OptimizerName, *, is_lazy: bool) -> NetworkSpec:
    rate, decay = RATES[name]
    momentum = None if name is OptimizerName.ADAM else 0.8
    optimizer = OptimizerSpec(name, rate, decay, momentum=momentum, warmup=20, lazy=is_lazy)
    # The rate is another one in every step.
    return replace(chain((WIDTH, WIDTH), optimizer=optimizer), decay=0.01)


def trained(name: OptimizerName, mesh: tuple[int, int], *, is_lazy: bool = True) -> tuple[list[float], list[Any]]:
    settings, on = TrainSettings(batch_size=BATCH, data_shards=mesh[0]), mesh_of(mesh)
    spec = with_deals(network(name, is_lazy=is_lazy), ["Input0"], shards=mesh[1], is_local=is_lazy)
    state, step, losses = create_state(spec, settings, on), make_step(spec, settings, on), list[float]()
    # In some steps the rate is a tenth.
    state = state._replace(brake=Brake(jnp.float32(0.0), jnp.int32(15)))
    while len(losses) < STEPS:
        for inputs, targets in paired_batches(
            {"Input0": DATA},
            {"Output2": DATA},
            batch_size=BATCH,
            shards=mesh[0],
            order=np.random.default_rng(len(losses)).permutation(SAMPLES),
            deals=deals_of(spec, mesh[1]),
        ):
            state, report = step(state, *to_mesh((inputs, targets), on))
            losses.append(float(report.loss_sum))
    return losses, [array for part in weights_of(state, spec).connections for array in part]


@cache
def trained_eagerly(name: OptimizerName) -> tuple[list[float], list[Any]]:
    return trained(name, (1, 1), is_lazy=False)


def check_equal(name: OptimizerName, mesh: tuple[int, int]) -> None:
    losses, learnt = trained(name, mesh)
    wanted, wanted_weights = trained_eagerly(name)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    for found, other in zip(learnt, wanted_weights, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize(
    ("name", "mesh"),
    [
        (OptimizerName.SGD, (2, 4)),
        (OptimizerName.MOMENTUM, (1, 1)),
        (OptimizerName.NESTEROV, (1, 8)),
        (OptimizerName.ADAGRAD, (1, 2)),
        (OptimizerName.RMSPROP, (1, 2)),
        (OptimizerName.ADAM, (2, 4)),
    ],
    ids=str,
)
def test_fifty_steps_learn_what_updating_all_rows_does(name: OptimizerName, mesh: tuple[int, int]) -> None:
    check_equal(name, mesh)


def test_all_rows_are_caught_up_before_more_is_missed_than_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "_LONGEST", 7)
    # Twelve rows of a device, five at a time.
    monkeypatch.setattr(lazy, "_BLOCK", 5 * 5)
    check_equal(OptimizerName.MOMENTUM, (1, 8))


def test_a_batch_whose_loss_jumps_changes_nothing() -> None:
    settings, on = TrainSettings(batch_size=BATCH), mesh_of((1, 2))
    spec = with_deals(network(OptimizerName.MOMENTUM, is_lazy=True), ["Input0"], shards=2, is_local=True)
    deals = deals_of(spec, 2)
    made = paired_batches({"Input0": DATA}, {"Output2": DATA}, batch_size=BATCH, order=np.arange(SAMPLES), deals=deals)
    batches, step, state = [to_mesh(next(made), on) for _ in range(3)], make_step(spec, settings, on), None
    state = create_state(spec, settings, on)
    for batch in batches[:2]:
        state, _ = step(state, *batch)
    before, rows = weights_of(state, spec), jax.tree.map(np.array, state.opt_state["inputs"])
    state = state._replace(step=jnp.int32(500), brake=Brake(jnp.float32(1.0), jnp.int32(0)))
    for batch in (batches[0], batches[2]):
        state, report = step(state, *batch)
        assert int(report.braked) == 1
    for part, other in zip(weights_of(state, spec).connections, before.connections, strict=True):
        jax.tree.map(lambda new, old: np.testing.assert_allclose(new, old, rtol=1e-6), tuple(part), tuple(other))
    now = state.opt_state["inputs"]
    for key, was in rows.items():
        assert (int(now[key].start), int(now[key].made)) == (int(was.start), int(was.made)) == (0, 2)
        np.testing.assert_array_equal(now[key].passed, was.passed)


def by_gram() -> NetworkSpec:
    spec = replace(network(OptimizerName.SGD, is_lazy=True), loss=ErrorFunction.L2)
    return with_layer(spec, 2, activation=Activation.LINEAR, sampling=Sampling(Negatives.GRAM))


@pytest.mark.parametrize("spec", [by_gram(), network(OptimizerName.ADAM, is_lazy=True)], ids=["gram", "adam"])
def test_killed_between_two_epochs_ends_it_ends_at_the_same_weights(
    spec: NetworkSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, data = (
        TrainSettings(batch_size=BATCH, epochs=3, l2=0.0),
        TrainingData({"Input0": DATA}, {"Output2": DATA}),
    )
    left, made = [1000], dict[NetworkSpec, Step]()

    def mortal(dealt: NetworkSpec, *given: Any, **named: Any) -> Step:
        step = made.setdefault(dealt, make_step(dealt, *given, **named))

        def killing(*given: Any) -> tuple[Any, Any]:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return step(*given)

        return killing

    monkeypatch.setattr(training, "make_step", mortal)

    def learnt(checkpoints: Checkpoints | None = None) -> list[Any]:
        state = train(spec, data, settings, mesh=mesh_of((1, 2)), tell=lambda _: None, checkpoints=checkpoints)
        return [array for part in weights_of(state, spec).connections for array in part]

    wanted, saved = learnt(), Checkpoints(tmp_path, steps=2)
    for steps in (5, 9):
        left[0] = steps
        with pytest.raises(KeyboardInterrupt):
            learnt(saved)
    left[0] = 1000
    for found, other in zip(learnt(saved), wanted, strict=True):
        np.testing.assert_array_equal(found, other)


def test_a_steps_cost_does_not_grow_with_the_items_and_it_can_be_exported() -> None:
    def lowered(items: int) -> tuple[Any, Any]:
        width, settings = round_up(items), TrainSettings(batch_size=32)
        optimizer = OptimizerSpec(OptimizerName.ADAM, weight_decay=0.0, lazy=True)
        spec = chain((width, 128), hidden=(16,), optimizer=optimizer)
        spec = with_deals(spec, ["Input0"], shards=8, is_local=True)
        arguments = abstract_arguments(spec, settings, MESH, capacity=512)
        return jitted_step(spec, settings, MESH), arguments

    def cost(items: int) -> tuple[float, int]:
        step, arguments = lowered(items)
        compiled = step.lower(*arguments).compile()
        return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes

    with jax.set_mesh(MESH):
        (flops, temporaries), (more_flops, more_temporaries) = cost(1_000_000), cost(10_000_000)
        step, arguments = lowered(1_000_000)
        exported = jax.export.export(step, platforms=["cuda", "tpu", "cpu"])(*arguments)
    assert more_flops < 1.01 * flops
    assert more_temporaries < 1.01 * temporaries
    assert exported.nr_devices == 8


def test_what_cannot_be_made_good_is_refused() -> None:
    spec = network(OptimizerName.SGD, is_lazy=True)
    dealt = with_deals(spec, ["Input0"], shards=1)
    adam = replace(dealt, optimizer=OptimizerSpec(OptimizerName.ADAM, lazy=True))
    for asked, l1, problem in (
        (adam, 0.0, r"an L2 penalty of 0\.0001 does with ADAM; set \$\.Optimizer\.WeightDecay"),
        (dealt, 0.5, r"an L1 penalty of 0\.5 does with SGD; set lambda1"),
        (spec, 0.0, "no sparse Input whose matrix is its own"),
    ):
        with pytest.raises(SettingsError, match=problem):
            make_step(asked, TrainSettings(l1=l1), mesh_of((1, 1)))
