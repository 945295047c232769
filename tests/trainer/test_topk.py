from typing import Any

import jax
import numpy as np
import pytest
from trainer_networks import MESHES, batch_of, chain, dense, mesh_of, random_rows, with_layer

from trainer.network_types import Activation, ErrorFunction, NetworkSpec
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.state import create_state
from trainer.topk import NOBODY, make_recommend
from trainer.weights import Connection, Weights

INPUTS, OUTPUTS, LIVE, SAMPLES = 10, 21, 19, 8
ROWS = random_rows(SAMPLES, INPUTS, seed=1, most=4)
EXCLUDED = random_rows(SAMPLES, LIVE, seed=2, most=5)
MULTIPLIED = random_rows(SAMPLES, LIVE, seed=3, most=5)
FACTORS = [np.random.default_rng(n).uniform(-2.0, 4.0, len(row)).tolist() for n, row in enumerate(MULTIPLIED)]

every_mesh = pytest.mark.parametrize("shape", MESHES, ids=str)
one_and_many = pytest.mark.parametrize("shape", [(1, 1), (2, 4)], ids=str)


def linear(seed: int = 0) -> tuple[Connection, ...]:
    """Weights whose logits are whole numbers, so that many are equal and none is rounded."""
    rng = np.random.default_rng(seed)
    hidden = Connection(np.eye(INPUTS, dtype=np.float32), np.zeros(INPUTS, np.float32))
    kernel = rng.integers(-2, 3, (INPUTS, OUTPUTS)).astype(np.float32)
    # Padding units are what a sample would like best.
    bias = np.where(np.arange(OUTPUTS) < LIVE, 0, 50).astype(np.float32)
    return hidden, Connection(kernel, bias)


def network(activation: Activation = Activation.LINEAR, loss: ErrorFunction = ErrorFunction.L2) -> NetworkSpec:
    spec = chain((INPUTS, OUTPUTS), hidden=(INPUTS,), activation=Activation.LINEAR, loss=loss)
    return with_layer(spec, -1, activation=activation)


def recommended(
    shape: tuple[int, int],
    *,
    k: int,
    spec: NetworkSpec | None = None,
    live: int = LIVE,
    exclude: Any = None,
    multiply: Any = None,
    factors: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    spec, mesh = spec or network(), mesh_of(shape)
    params = create_state(spec, TrainSettings(), mesh, weights=Weights(linear())).params

    def placed(rows: Any, width: int, values: Any = None) -> Any:
        return None if rows is None else to_mesh(batch_of(rows, width, shards=shape[0], values=values), mesh)

    batches = placed(exclude, OUTPUTS), placed(multiply, OUTPUTS, factors)
    found = make_recommend(spec, mesh, k=k)((params, {}), {spec.input.name: placed(ROWS, INPUTS)}, *batches, live)
    return np.asarray(found.ids), np.asarray(found.scores)


def scores_by_hand() -> np.ndarray:
    return dense(ROWS, INPUTS) @ linear()[1].kernel + linear()[1].bias


def best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """A plain sort, [samples, k]: best first, ties by lower id, -inf is nobody."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, order, axis=1)
    return np.where(found > -np.inf, order, NOBODY), found


@every_mesh
def test_the_best_are_those_of_a_plain_sort_with_ties_by_lower_id(shape: tuple[int, int]) -> None:
    scores = scores_by_hand()
    scores[:, LIVE:] = -np.inf
    assert any(len(np.unique(row)) < LIVE for row in scores)
    ids, found = recommended(shape, k=7)
    expected = best(scores, 7)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(found, expected[1])


@every_mesh
def test_what_is_excluded_is_never_listed_and_the_rest_moves_up(shape: tuple[int, int]) -> None:
    scores = scores_by_hand()
    scores[:, LIVE:] = -np.inf
    scores[dense(EXCLUDED, OUTPUTS) > 0] = -np.inf
    # k is more than the features left: the last places stay empty.
    ids, found = recommended(shape, k=LIVE, exclude=EXCLUDED)
    expected = best(scores, LIVE)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(found, expected[1])
    assert (ids == NOBODY).any()


@one_and_many
def test_a_multiplier_acts_on_the_score_before_the_best_are_chosen(shape: tuple[int, int]) -> None:
    spec = network(Activation.SIGMOID, ErrorFunction.CROSS_ENTROPY)
    scores = 1.0 / (1.0 + np.exp(-scores_by_hand()))
    factors = np.where(dense(MULTIPLIED, OUTPUTS) > 0, dense(MULTIPLIED, OUTPUTS, values=FACTORS), 1.0)
    scores *= factors
    scores[:, LIVE:] = -np.inf
    _, found = recommended(shape, k=LIVE, spec=spec, multiply=MULTIPLIED, factors=FACTORS)
    np.testing.assert_allclose(found, best(scores, LIVE)[1], rtol=1e-5, atol=1e-6)


def test_of_a_multiplier_given_twice_the_last_counts() -> None:
    twice: list[list[int]] = [[0, 0], *[[]] * (SAMPLES - 1)]
    factors: list[list[float]] = [[9.0, 0.5], *[[]] * (SAMPLES - 1)]
    once = recommended((1, 2), k=5, multiply=[[0], *twice[1:]], factors=[[0.5], *factors[1:]])
    for array, expected in zip(recommended((1, 2), k=5, multiply=twice, factors=factors), once, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_an_excluded_feature_stays_out_whatever_it_is_multiplied_by() -> None:
    everything = [list(range(LIVE))] * SAMPLES
    ids, _ = recommended((2, 4), k=3, exclude=everything, multiply=everything, factors=[[1e6] * LIVE] * SAMPLES)
    assert (ids == NOBODY).all()


@one_and_many
def test_softmax_scores_are_probabilities_over_all_units_of_the_network(shape: tuple[int, int]) -> None:
    spec = network(Activation.SOFT_MAX, ErrorFunction.CROSS_ENTROPY)
    powers = np.exp(scores_by_hand() - 50.0)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    ids, found = recommended(shape, k=OUTPUTS, spec=spec, live=OUTPUTS)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found, np.take_along_axis(probabilities, ids, axis=1), rtol=1e-4, atol=1e-30)
    # Units that are not listed have their share all the same.
    ids, found = recommended(shape, k=3, spec=spec)
    np.testing.assert_allclose(found, np.take_along_axis(probabilities, ids, axis=1), rtol=1e-4, atol=1e-30)


@one_and_many
def test_places_beyond_the_last_feature_stay_empty(shape: tuple[int, int]) -> None:
    ids, found = recommended(shape, k=OUTPUTS + 30)
    assert ids.shape == found.shape == (SAMPLES, OUTPUTS + 30)
    assert (np.sort(ids[:, :LIVE], axis=1) == np.arange(LIVE)).all()
    assert (ids[:, LIVE:] == NOBODY).all()
    assert (found[:, LIVE:] == -np.inf).all()


def test_no_device_sees_the_scores_of_all_features() -> None:
    wide, batch, mesh = 1024, 16, mesh_of((1, 8))
    spec = chain((256, wide), hidden=(8,))
    params = create_state(spec, TrainSettings(), mesh).params
    inputs = to_mesh({spec.input.name: batch_of([[1]] * batch, 256)}, mesh)
    recommend = make_recommend(spec, mesh, k=5)
    # The program itself, found where `recommend` keeps it.
    (ask,) = (cell.cell_contents for cell in recommend.__closure__ or () if hasattr(cell.cell_contents, "lower"))
    with jax.set_mesh(mesh):
        text = ask.lower((params, {}), inputs, None, None, np.int32(wide)).compile().as_text()
    assert f"f32[{batch},{wide // 8}]" in text
    assert f"[{batch},{wide}]" not in text


@one_and_many
def test_units_that_are_not_there_are_not_listed_however_many_names_there_are(shape: tuple[int, int]) -> None:
    ids, _ = recommended(shape, k=OUTPUTS + 8, live=OUTPUTS + 50)
    assert (np.sort(ids[:, :OUTPUTS], axis=1) == np.arange(OUTPUTS)).all()
    assert (ids[:, OUTPUTS:] == NOBODY).all()


@one_and_many
def test_zeros_of_both_signs_are_a_tie(shape: tuple[int, int]) -> None:
    everything = [list(range(LIVE))] * SAMPLES
    ids, _ = recommended(shape, k=LIVE, multiply=everything, factors=[[0.0] * LIVE] * SAMPLES)
    assert (scores_by_hand()[:, :LIVE] < 0).any()
    np.testing.assert_array_equal(ids, np.tile(np.arange(LIVE), (SAMPLES, 1)))


def test_scores_that_are_no_number_come_last_and_are_listed() -> None:
    ids, _ = recommended(
        (1, 2), k=LIVE, multiply=[[4], *[[]] * (SAMPLES - 1)], factors=[[np.nan], *[[]] * (SAMPLES - 1)]
    )
    assert ids[0, -1] == 4
    assert (np.sort(ids, axis=1) == np.arange(LIVE)).all()
