"""The layer graph against an oracle that knows DSSTNE's specification alone: what layers say, and what they learn."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.export
import numpy as np
import pytest
from trainer_graphs import (
    BATCH,
    SAMPLES,
    Given,
    batches_of,
    branching,
    convolution,
    given_to,
    hidden,
    limited,
    moved,
    network,
    noisy,
    output,
    random_weights,
    sharing,
    sparse_input,
    spatial,
)
from trainer_networks import MESHES, mesh_of
from trainer_oracle import Oracle, Statistics

from trainer.layers import layout_of
from trainer.model import Batches, from_weights
from trainer.network_types import Kernel, LayerType, NetworkSpec, OptimizerName, OptimizerSpec
from trainer.objective import forward_function
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.state import (
    StepReport,
    TrainState,
    abstract_arguments,
    abstract_state,
    create_state,
    jitted_step,
    make_step,
    weights_of,
)
from trainer.weights import Floats, Normalization, Weights

GRAPHS: dict[str, Callable[[], NetworkSpec]] = {"branching": branching, "spatial": spatial, "sharing": sharing}
SETTINGS = TrainSettings()
ON = (2, 4)
each_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS.keys())


def stepped(
    spec: NetworkSpec, shape: tuple[int, int], *, steps: int = 1, given: dict[str, Given] | None = None
) -> tuple[list[StepReport], TrainState]:
    mesh = mesh_of(shape)
    state = create_state(spec, SETTINGS, mesh, weights=random_weights(spec))
    step = make_step(spec, SETTINGS, mesh)
    inputs, targets = on_mesh(spec, given or given_to(spec), shape)
    reports: list[StepReport] = []
    for _ in range(steps):
        state, report = step(state, inputs, targets)
        reports.append(report)
    return reports, state


def on_mesh(spec: NetworkSpec, given: dict[str, Given], shape: tuple[int, int]) -> tuple[Batches, Batches]:
    inputs, targets = (batches_of(of, given, shape[0]) for of in (spec.inputs, spec.outputs))
    return to_mesh((inputs, targets), mesh_of(shape))


@cache
def one_step(graph: Callable[[], NetworkSpec], shape: tuple[int, int] = ON) -> tuple[float, Weights]:
    spec = graph()
    reports, state = stepped(spec, shape)
    return float(reports[0].loss_sum), weights_of(state, spec)


@pytest.mark.parametrize("shape", MESHES, ids=str)
@pytest.mark.parametrize("graph", [branching, spatial])
def test_every_layer_says_what_the_specification_says(graph: Callable[[], NetworkSpec], shape: tuple[int, int]) -> None:
    spec, mesh = graph(), mesh_of(shape)
    given, weights = given_to(spec), random_weights(spec)
    params, statistics = from_weights(spec, weights, shards=shape[1])
    inputs, _ = on_mesh(spec, given, shape)
    with jax.set_mesh(mesh):
        said, _ = jax.jit(forward_function(spec, mesh))(params, statistics, inputs, None)
    oracle = Oracle(spec, weights, given, training=False)
    assert said.outputs.keys() >= oracle.sums.keys()
    for name in oracle.sums:
        width = spec.layer(name).width
        for there, here in ((said.sums, oracle.sums), (said.outputs, oracle.outputs)):
            np.testing.assert_allclose(there[name][:SAMPLES, :width], here[name], rtol=2e-4, atol=2e-5, err_msg=name)
        assert not np.asarray(said.outputs[name])[:, width:].any(), name


@each_graph
def test_the_loss_of_a_training_batch_is_the_specifications(graph: Callable[[], NetworkSpec]) -> None:
    spec = graph()
    oracle = Oracle(spec, random_weights(spec), given_to(spec), training=True)
    np.testing.assert_allclose(one_step(graph)[0], oracle.losses().sum(), rtol=1e-5)


@each_graph
def test_every_gradient_is_the_finite_difference(graph: Callable[[], NetworkSpec]) -> None:
    spec, size = graph(), 1e-5
    given, before = given_to(spec), random_weights(spec)
    after = one_step(graph)[1]
    rng = np.random.default_rng(3)
    for path, old, new in arrays_of(before, after):
        users = sum(other.owner == path[1] for other in spec.connections) if path[2] == "kernel" else 1
        for _ in range(3):
            place = tuple(int(rng.integers(side)) for side in old.shape)
            up, down = (
                Oracle(spec, moved(before, path, place, by), given, training=True).objective() for by in (size, -size)
            )
            # Of a matrix that is used n times, the mean over its uses (spec 5.5).
            slope = (up - down) / (2.0 * size) / users
            np.testing.assert_allclose(old[place] - new[place], slope, rtol=1e-3, atol=5e-6, err_msg=f"{path} {place}")


@pytest.mark.parametrize("shape", [(1, 1), (1, 8)], ids=str)
@pytest.mark.parametrize("graph", [branching, spatial])
def test_a_step_of_every_layer_is_the_same_on_every_mesh(
    graph: Callable[[], NetworkSpec], shape: tuple[int, int]
) -> None:
    (loss, weights), (expected, same) = one_step(graph, shape), one_step(graph)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for path, here, there in arrays_of(weights, same):
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=2e-5, err_msg=str(path))


@cache
def noisy_run(shape: tuple[int, int]) -> tuple[list[float], TrainState]:
    reports, state = stepped(noisy(), shape, steps=3)
    return [float(report.loss_sum) for report in reports], state


@pytest.mark.parametrize("shape", [(1, 8), (2, 4), (8, 1)], ids=str)
def test_three_noisy_steps_are_the_same_on_every_mesh(shape: tuple[int, int]) -> None:
    (losses, state), (expected, alone) = noisy_run(shape), noisy_run((1, 1))
    np.testing.assert_allclose(losses, expected, rtol=2e-5)
    assert len(set(expected)) == 3
    learnt = weights_of(state, noisy()), weights_of(alone, noisy())
    for path, there, here in arrays_of(*learnt):
        np.testing.assert_allclose(there, here, rtol=1e-3, atol=2e-5, err_msg=f"{path}")
    for name, norm in learnt[0].batch_norms.items():
        for there, here in zip(required(*norm), required(*learnt[1].batch_norms[name]), strict=True):
            np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-5, err_msg=name)


def test_what_is_stored_beyond_a_layers_width_stays_zero() -> None:
    spec, shards = noisy(), 8
    params = noisy_run((1, shards))[1].params
    padded = 0
    for number, connection in enumerate(spec.connections):
        if connection.owner == number and connection.target.type is LayerType.FULLY_CONNECTED:
            layout = layout_of(connection, shards)
            kernel = np.asarray(params[layout.group][str(number)]["kernel"])
            padded += kernel.shape != (layout.rows.units, layout.columns.units)
            assert not kernel[layout.rows.units :].any(), connection
            assert not kernel[:, layout.columns.units :].any(), connection
    assert padded == 7


@cache
def limited_step() -> tuple[Oracle, Weights]:
    """A step by seven equal samples: their mean delta is the delta of each."""
    spec, given = limited(), equal_samples(given_to(limited()))
    _, state = stepped(spec, (1, 8), given=given)
    return Oracle(spec, random_weights(spec), given, training=True), weights_of(state, spec)


def equal_samples(given: dict[str, Given]) -> dict[str, Given]:
    return {
        name: replace(one, dense=one.dense[[5] * SAMPLES], rows=one.rows and [one.rows[5]] * SAMPLES)
        for name, one in given.items()
    }


def required(*arrays: Floats | None) -> list[Floats]:
    """Arrays of which none may be missing."""
    found = [array for array in arrays if array is not None]
    assert len(found) == len(arrays)
    return found


def shortened(array: np.ndarray, length: float, axis: Any = None) -> np.ndarray:
    found = np.sqrt((array**2).sum(axis=axis, keepdims=True))
    return array * np.minimum(1.0, length / found)


def deltas() -> dict[str, np.ndarray]:
    """Delta of each layer's sums, of one of the equal samples, by hand."""
    given, before, said = equal_samples(given_to(limited())), random_weights(limited()), limited_step()[0].outputs
    to_code, to_output = required(*(before.connections[number].kernel for number in (1, 3)))
    full, tied = (said[name][0] - given[name].dense[0] for name in ("Output", "Tied"))
    short = shortened(full, 0.1)
    code = (short @ to_output.T + tied @ to_code) * (1.0 - said["Code"][0] ** 2)
    assert np.linalg.norm(full) > 0.1
    assert np.linalg.norm(code) > 0.05
    return {"Output": short, "Tied": tied, "Code": shortened(code, 0.05)}


@pytest.mark.parametrize(("number", "layer"), [(1, "Code"), (2, "Code"), (3, "Output"), (4, "Tied")])
def test_deltas_of_a_sample_are_no_longer_than_delta_norm(number: int, layer: str) -> None:
    before, after = random_weights(limited()), limited_step()[1]
    change = before.connections[number].bias - after.connections[number].bias
    np.testing.assert_allclose(change, deltas()[layer], rtol=1e-4, atol=1e-6)


def test_incoming_weights_are_no_longer_than_weight_norm() -> None:
    oracle, limited_weights = limited_step()
    before, after = ([one.kernel for one in of.connections] for of in (random_weights(limited()), limited_weights))
    words, maps, code = (oracle.outputs[name][0] for name in ("Words", "Maps", "Code"))
    delta = deltas()
    moves = {
        1: 0.5 * (np.outer(words, delta["Code"]) + np.outer(code, delta["Tied"]).T),
        2: np.outer(maps, delta["Code"]),
        3: np.outer(code, delta["Output"]),
    }
    for number, length in ((1, 0.5), (2, 0.5), (3, 0.6)):
        old, new = required(before[number], after[number])
        by_hand = old - moves[number]
        assert (np.linalg.norm(by_hand, axis=0) > length).any()
        np.testing.assert_allclose(new, shortened(by_hand, length, axis=0), rtol=1e-4, atol=1e-6)
    (filters,) = required(after[0])
    np.testing.assert_allclose(np.sqrt((filters**2).sum(axis=(1, 2))), [0.4] * 3, rtol=1e-5)
    assert after[4] is None


DECAY = 0.25


@cache
def normalised() -> list[tuple[dict[str, Normalization], dict[str, Statistics]]]:
    """Before each of four batches: what normalisations learnt, and that batch's statistics.

    The output is worth nothing, so that decay alone moves parameters. The last batch is the 1001st.
    """
    spec = network(
        sparse_input("Words", 9),
        convolution("Maps", (9, 2), "Words", Kernel((3,), (1,)), batch_normalization=True),
        hidden("Code", 4, "Maps", batch_normalization=True),
        output("Output", 5, "Code", loss_weight=0.0),
    )
    settings = TrainSettings(l2=DECAY)
    state, step = create_state(spec, settings, mesh_of(ON)), make_step(spec, settings, mesh_of(ON))
    for part in state.params["batch_norms"].values():
        part["bias"] = part["bias"] + 0.5
    found: list[tuple[dict[str, Normalization], dict[str, Statistics]]] = []
    for number in range(5):
        given, weights = given_to(spec, seed=number), deepcopy(weights_of(state, spec))
        found.append((dict(weights.batch_norms), Oracle(spec, weights, given, training=True).statistics))
        if number == 3:
            for part in state.statistics["batch_norms"].values():
                part["count"] = part["count"] + 997
        state, _ = step(state, *on_mesh(spec, given, ON))
    return found


@pytest.mark.parametrize("name", ["Maps", "Code"])
def test_running_statistics_are_means_over_batches_of_real_samples(name: str) -> None:
    of_batches = [statistics[name] for _, statistics in normalised()[:3]]
    _, _, mean, variance = required(*normalised()[3][0][name])
    np.testing.assert_allclose(mean, np.mean([each[0] for each in of_batches], axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance, np.mean([each[1] for each in of_batches], axis=0), rtol=1e-4)


def test_a_batch_never_counts_for_less_than_a_hundredth_of_the_running_statistics() -> None:
    (norms, statistics), (later, _) = normalised()[3:]
    before, after = (required(*norm["Code"])[3] for norm in (norms, later))
    np.testing.assert_allclose(after, 0.99 * before + 0.01 * statistics["Code"][1], rtol=1e-5)


def test_decay_makes_scales_and_biases_of_batch_normalisation_smaller() -> None:
    scale, bias, _, _ = normalised()[3][0]["Code"]
    np.testing.assert_allclose(scale, np.full_like(scale, (1.0 - DECAY) ** 3), rtol=1e-5)
    np.testing.assert_allclose(bias, np.full_like(bias, 0.5 * (1.0 - DECAY) ** 3), rtol=1e-5)


def test_bfloat16_changes_results_a_little_and_parameters_stay_float32() -> None:
    mesh = mesh_of((1, 8))
    inputs, targets = on_mesh(limited(), given_to(limited()), (1, 8))
    said: list[dict[str, jax.Array]] = []
    params, statistics = from_weights(limited(), random_weights(limited()), shards=8)
    for spec in (limited(), replace(limited(), bfloat16=True)):
        with jax.set_mesh(mesh):
            said.append(jax.jit(forward_function(spec, mesh))(params, statistics, inputs, None)[0].outputs)
            state = abstract_state(spec, SETTINGS, mesh)
            after, _ = jax.eval_shape(jitted_step(spec, SETTINGS, mesh), state, inputs, targets)
        assert {leaf.dtype for leaf in jax.tree.leaves((after.params, after.statistics))} == {np.dtype(np.float32)}
    for name in ("Maps", "Code", "Output", "Tied"):
        exact, rounded = (np.asarray(of[name])[:SAMPLES] for of in said)
        assert 0.0 < np.abs(rounded - exact).max() < 0.02 * np.abs(exact).max(), name


def test_a_step_of_everything_can_be_exported_to_every_kind_of_accelerator() -> None:
    spec, mesh, settings = noisy(), mesh_of((1, 8)), TrainSettings(batch_size=BATCH)
    arguments = abstract_arguments(spec, settings, mesh, capacity=40)
    with jax.set_mesh(mesh):
        exported = jax.export.export(jitted_step(spec, settings, mesh), platforms=["cuda", "tpu", "cpu"])(*arguments)
    assert exported.platforms == ("cuda", "tpu", "cpu")
    assert exported.nr_devices == 8


class Braking:
    """A small network on two batches, of which one costs ten times as much."""

    def __init__(self) -> None:
        self.spec = network(
            sparse_input("Words", 9),
            hidden("Code", 4, "Words", batch_normalization=True),
            output("WeightedOutput", 5, "Code"),
            optimizer=OptimizerSpec(OptimizerName.SGD, learning_rate=1e-3, weight_decay=0.0),
        )
        given = given_to(self.spec)
        self.inputs, self.usual = on_mesh(self.spec, given, (1, 1))
        dear = self.usual["WeightedOutput"]
        self.dear = {"WeightedOutput": dear._replace(weights=10.0 * dear.weights)}
        self.state = create_state(self.spec, SETTINGS, mesh_of((1, 1)))
        self._step = make_step(self.spec, SETTINGS, mesh_of((1, 1)))

    def learnt(self) -> list[np.ndarray]:
        """All that a step may change but the number of steps and the brake."""
        return [
            np.array(leaf) for leaf in jax.tree.leaves((self.state.params, self.state.opt_state, self.state.statistics))
        ]

    def step(self, targets: Any) -> tuple[int, float]:
        """Whether the brake was put on, and how far the output's biases moved."""
        before = np.array(self.state.params["outputs"]["1"]["bias"])
        self.state, report = self._step(self.state, self.inputs, targets)
        return int(report.braked), float(np.linalg.norm(self.state.params["outputs"]["1"]["bias"] - before))


def test_a_batch_whose_loss_jumps_is_left_out_and_the_next_24_are_trained_at_a_tenth() -> None:
    run = Braking()
    for number in range(100):
        assert run.step(run.dear if number == 60 else run.usual)[0] == 0
    usual = run.step(run.usual)[1]
    before = run.learnt()
    assert run.step(run.dear) == (1, 0.0)
    for old, new in zip(before, run.learnt(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(run.state.step) == 102
    for number in range(24):
        braked, moved = run.step(run.usual)
        assert braked == 0
        np.testing.assert_allclose(moved, 0.1 * usual, rtol=0.05, err_msg=f"{number}")
    np.testing.assert_allclose(run.step(run.usual)[1], usual, rtol=0.05)


def arrays_of(before: Weights, after: Weights) -> Iterator[tuple[tuple[str, int | str, str], Any, Any]]:
    """Path of every array that is learnt, and the array before and after."""
    for number, (old, new) in enumerate(zip(before.connections, after.connections, strict=True)):
        for field in ("kernel", "bias"):
            if getattr(old, field) is not None:
                yield ("connections", number, field), getattr(old, field), getattr(new, field)
    for group in ("batch_norms", "layer_norms"):
        for name, old in getattr(before, group).items():
            for field in ("scale", "bias"):
                yield (group, name, field), getattr(old, field), getattr(getattr(after, group)[name], field)
