"""What is found block by block is what a plain sort of all scores finds, on every mesh, and needs no room for them."""

from dataclasses import replace
from typing import Any

import jax
import jax.export
import numpy as np
import pytest
from trainer_networks import batch_of, chain, dense, mesh_of, random_rows, with_layer

from trainer.catalogue import blocks_for, can_be_split
from trainer.loss_parameters import Contrast
from trainer.network_types import (
    Activation,
    ErrorFunction,
    LayerKind,
    LayerSpec,
    NetworkSpec,
    SharedWeights,
    WeightInit,
    WeightScheme,
)
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.state import create_state
from trainer.topk import NOBODY, make_outputs, make_recommend
from trainer.weights import Connection, Weights

INPUTS, HIDDEN, OUTPUTS, LIVE, SAMPLES = 10, 4, 9001, 8990, 8
ROWS = random_rows(SAMPLES, INPUTS, seed=1, most=4)
# Nothing is left for the third sample.
EXCLUDED = [list(range(LIVE)) if n == 2 else row for n, row in enumerate(random_rows(SAMPLES, LIVE, seed=2, most=99))]
MULTIPLIED = random_rows(SAMPLES, LIVE, seed=3, most=50)
FACTORS = [np.random.default_rng(n).uniform(0.0, 3.0, len(row)).tolist() for n, row in enumerate(MULTIPLIED)]
SMALLEST = 1
"""Scores at a time, so that blocks are as small as they get: several on each of eight devices."""


def weights() -> tuple[Connection, Connection]:
    """Such that sums are whole numbers: many are equal, and none is rounded."""
    rng = np.random.default_rng(4)
    first = Connection(rng.integers(-2, 3, (INPUTS, HIDDEN)).astype(np.float32), np.zeros(HIDDEN, np.float32))
    kernel = rng.integers(-1, 2, (HIDDEN, OUTPUTS)).astype(np.float32)
    # Units without a name are what a sample would like best.
    return first, Connection(kernel, np.where(np.arange(OUTPUTS) < LIVE, 0, 50).astype(np.float32))


def network(activation: Activation = Activation.LINEAR, loss: ErrorFunction = ErrorFunction.L2) -> NetworkSpec:
    spec = chain((INPUTS, OUTPUTS), hidden=(HIDDEN,), activation=Activation.LINEAR, loss=loss)
    return with_layer(spec, -1, activation=activation)


def sums() -> np.ndarray:
    first, second = weights()
    return dense(ROWS, INPUTS) @ first.kernel @ second.kernel + second.bias


def recommended(spec: NetworkSpec, shape: tuple[int, int], k: int, **given: Any) -> tuple[np.ndarray, np.ndarray]:
    mesh = mesh_of(shape)
    params = create_state(spec, TrainSettings(), mesh, weights=Weights(given.get("learnt", weights()))).params

    def placed(name: str, values: Any = None) -> Any:
        rows = given.get(name)
        return None if rows is None else to_mesh(batch_of(rows, OUTPUTS, shards=shape[0], values=values), mesh)

    inputs = {spec.input.name: to_mesh(batch_of(ROWS, INPUTS, shards=shape[0]), mesh)}
    ask = make_recommend(spec, mesh, k=k, most=SMALLEST)
    found = ask((params, {}), inputs, placed("exclude"), placed("multiply", FACTORS), LIVE)
    return np.asarray(found.ids), np.asarray(found.scores)


def best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """A plain sort, [samples, k]: best first, ties by lower id, -inf is nobody."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, order, axis=1)
    return np.where(found > -np.inf, order, NOBODY), found


def allowed(scores: np.ndarray, *, excluded: bool) -> np.ndarray:
    scores = np.where(np.arange(OUTPUTS) < LIVE, scores, -np.inf)
    return np.where(dense(EXCLUDED, OUTPUTS) > 0, -np.inf, scores) if excluded else scores


@pytest.mark.parametrize(
    ("units", "samples", "most"), [(1, 1, 1), (1024, 9, 1), (1025, 9, 1), (26_752, 256, 1 << 21), (3001, 2, 4000)]
)
def test_blocks_cover_all_units_and_are_no_more_than_needed(units: int, samples: int, most: int) -> None:
    count, size = blocks_for(units, samples, most)
    assert (count - 1) * size < units <= count * size
    assert size <= units
    assert size <= max(most // samples, 1024)


@pytest.mark.parametrize(
    ("shape", "k"),
    [
        pytest.param((1, 2), 12, id="by groups of neighbours"),
        pytest.param((1, 8), 300, id="more than a group has"),
        pytest.param((1, 1), 1500, id="more than a block has"),
    ],
)
def test_blocks_find_what_a_plain_sort_finds_with_ties_by_lower_id(shape: tuple[int, int], k: int) -> None:
    assert blocks_for(-(-OUTPUTS // shape[1]), SAMPLES // shape[0], SMALLEST)[0] > 1
    ids, found = recommended(network(), shape, k, exclude=EXCLUDED)
    expected = best(allowed(sums(), excluded=True), k)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(found, expected[1])
    assert (ids[2] == NOBODY).all()


def test_units_whose_outputs_are_equal_are_listed_by_id_though_their_sums_differ() -> None:
    ids, _ = recommended(network(Activation.RECTIFIED_LINEAR), (1, 2), 2000)
    np.testing.assert_array_equal(ids, best(allowed(np.maximum(sums(), 0), excluded=False), 2000)[0])


@pytest.mark.parametrize("multiplied", [False, True])
def test_probabilities_are_over_the_units_of_all_blocks(multiplied: bool) -> None:
    powers = np.exp((sums() - 50.0) / 2.0)
    scores = powers / powers.sum(axis=1, keepdims=True)
    spec = with_layer(network(Activation.SOFT_MAX, ErrorFunction.CROSS_ENTROPY), -1, contrast=Contrast(temperature=2.0))
    factors = np.where(dense(MULTIPLIED, OUTPUTS) > 0, dense(MULTIPLIED, OUTPUTS, values=FACTORS), 1.0)
    given = {"multiply": MULTIPLIED} if multiplied else {}
    _, found = recommended(spec, (2, 4), 20, **given)
    expected = best(allowed(scores * factors if multiplied else scores, excluded=False), 20)[1]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-30)


def test_sums_that_sigmoid_cannot_tell_apart_are_ranked_all_the_same() -> None:
    first, second = weights()
    factor = np.float32(1 << 5)
    ids, found = recommended(
        network(Activation.SIGMOID, ErrorFunction.CROSS_ENTROPY),
        (1, 2),
        500,
        learnt=(first, Connection(second.kernel * factor, second.bias)),
    )
    order, large = best(allowed(sums() * factor, excluded=False), 500)
    np.testing.assert_array_equal(ids, order)
    assert len(np.unique(large[1, found[1] == 1.0])) > 1


def branched() -> NetworkSpec:
    """Two paths into the Output, one of which lends its matrix from the Input."""
    spec = chain((OUTPUTS, OUTPUTS), hidden=(HIDDEN,), activation=Activation.TANH)
    start = WeightInit(WeightScheme.GAUSSIAN, scale=0.3)
    other = LayerSpec("Other", LayerKind.HIDDEN, (3,), (spec.input.name,), weight_init=start)
    first, second, last = (replace(layer, weight_init=start) for layer in spec.layers)
    shared = (SharedWeights(second.name, first.name, second.name, transposed=True),)
    last = replace(last, sources=(second.name, other.name), shared=shared)
    return replace(spec, layers=(first, second, other, last))


@pytest.mark.parametrize("whole", [False, True])
def test_paths_are_added_and_borrowed_matrices_split_or_all_is_computed_at_once(whole: bool) -> None:
    spec, mesh = branched(), mesh_of((2, 4))
    if whole:
        spec = with_layer(spec, -1, activation=Activation.RELU_MAX, loss=ErrorFunction.L2)
    assert can_be_split(spec, spec.output) != whole
    state = create_state(spec, TrainSettings(), mesh)
    inputs = {spec.input.name: to_mesh(batch_of(ROWS, OUTPUTS, shards=2), mesh)}
    found = make_recommend(spec, mesh, k=30, most=SMALLEST)((state.params, {}), inputs, None, None, LIVE)
    outputs = np.array(make_outputs(spec, mesh, layer=spec.output.name)((state.params, {}), inputs))
    outputs[:, LIVE:] = -np.inf
    np.testing.assert_allclose(np.asarray(found.scores), best(outputs, 30)[1], rtol=1e-5, atol=1e-6)
    listed = np.take_along_axis(outputs, np.asarray(found.ids), axis=1)
    np.testing.assert_allclose(listed, np.asarray(found.scores), rtol=1e-5, atol=1e-6)


def lowered(width: int, most: int, mesh: Any) -> Any:
    """The program that recommends, of a catalogue of `width`, found where `recommend` keeps it."""
    spec = chain((128, width), hidden=(8,))
    params = create_state(spec, TrainSettings(), mesh).params
    inputs = to_mesh({spec.input.name: batch_of([[1]] * 16, 128)}, mesh)
    recommend = make_recommend(spec, mesh, k=5, most=most)
    (ask,) = (cell.cell_contents for cell in recommend.__closure__ or () if hasattr(cell.cell_contents, "lower"))
    return ask, ((params, {}), inputs, inputs[spec.input.name], None, np.int32(width))


def test_a_catalogue_four_times_as_large_needs_no_more_room() -> None:
    mesh, needed = mesh_of((1, 2)), []
    for width in (1 << 13, 1 << 15):
        with jax.set_mesh(mesh):
            ask, arguments = lowered(width, SMALLEST, mesh)
            needed.append(ask.lower(*arguments).compile().memory_analysis().temp_size_in_bytes)
    assert needed[1] <= needed[0] + 1024
    assert needed[0] < 16 * (1 << 12) * 4


def test_the_program_is_made_for_accelerators_too() -> None:
    mesh = mesh_of((1, 1))
    with jax.set_mesh(mesh):
        ask, arguments = lowered(4096, SMALLEST, mesh)
        exported = jax.export.export(ask, platforms=["cuda", "tpu"])(*arguments)
    assert exported.platforms == ("cuda", "tpu")
