"""Layers fitted in closed form: beside a trained path, alone, chosen, in files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from network_texts import refusal
from scipy import sparse
from trainer_networks import dataset_of, dense, mesh_of, random_rows

from trainer import ending, fitting
from trainer.closed_form import ClosedForm
from trainer.data.split import HeldOut
from trainer.data.validation import hold_out_features
from trainer.ending import Trained, train_to_its_end
from trainer.errors import DataError
from trainer.fitting import Judge
from trainer.network_closed_form import trained_part
from trainer.network_file import read_network_file, write_network
from trainer.network_types import Activation, LayerKind, LayerSpec, NetworkSpec
from trainer.pace import AUTO_BATCH, EarlyStopping, TrainingSpec
from trainer.settings import TrainSettings
from trainer.spectrum import spectrum
from trainer.state import TrainState, weights_of
from trainer.train import TrainingData, train

WIDTH = 24
ROWS = random_rows(40, WIDTH, seed=2, most=9)
WHOLE = dataset_of(ROWS, WIDTH)
SETTINGS = TrainSettings(batch_size=8, epochs=3, seed=3)
FORM = ClosedForm(ridge=(0.1,), item_power=(0.5,), user_power=(0.25,), scale=(4.0,))
IN, HIDDEN = {"Kind": "Input", "N": 8, "DataSet": "gl_input", "Sparse": True}, {"N": 4}
OUT = {"Kind": "Output", "N": 8, "DataSet": "gl_output", "Sparse": True}


def network(form: ClosedForm = FORM, *, beside: bool = True, training: TrainingSpec | None = None) -> NetworkSpec:
    """A Sigmoid Output after a layer in closed form and, `beside` it, a trained one."""
    shape = (WIDTH,)
    layers = [
        LayerSpec("Raw", LayerKind.INPUT, shape, sparse=True, dataset="d"),
        LayerSpec("Linear", LayerKind.HIDDEN, (6,), ("Raw",), Activation.LINEAR, closed_form=form),
    ]
    if beside:
        layers += [
            LayerSpec("In", LayerKind.INPUT, shape, sparse=True, dataset="d", normalize=True),
            LayerSpec("Hidden", LayerKind.HIDDEN, (5,), ("In",), Activation.TANH),
        ]
    sources = ("Hidden", "Linear") if beside else ("Linear",)
    layers.append(LayerSpec("Output", LayerKind.OUTPUT, shape, sources, Activation.SIGMOID, sparse=True, dataset="d"))
    return NetworkSpec("n", tuple(layers), training=training or TrainingSpec())


def data_of(spec: NetworkSpec) -> TrainingData:
    return TrainingData({one.name: WHOLE for one in spec.inputs}, {one.name: WHOLE for one in spec.outputs})


def ended(spec: NetworkSpec, shape: tuple[int, int] = (1, 2), validation: HeldOut | None = None) -> Trained:
    data = data_of(spec)
    return train_to_its_end(spec, data, SETTINGS, mesh=mesh_of(shape), tell=lambda _: None, validation=validation)


def matrices(form: ClosedForm) -> tuple[np.ndarray, np.ndarray]:
    matrix = sparse.csr_array(dense(ROWS, WIDTH))
    powers = {"item_power": form.item_power[0], "user_power": form.user_power[0]}
    return spectrum(matrix, rank=6, **powers).weights(form.ridge[0])


def _product(found: Trained, spec: NetworkSpec) -> np.ndarray:
    ends = [(one.source.name, one.target.name) for one in spec.connections]
    learnt = dict(zip(ends, weights_of(found.state, spec).connections, strict=True))
    return learnt["Raw", "Linear"].kernel @ learnt["Linear", "Output"].kernel


@pytest.mark.parametrize("shape", [(1, 1), (2, 4)])
def test_a_fitted_layer_stands_beside_what_is_trained_as_if_alone(shape: tuple[int, int]) -> None:
    spec = network()
    part = trained_part(spec)
    assert [layer.name for layer in part.layers] == ["In", "Hidden", "Output"]
    alone = weights_of(train(part, data_of(part), SETTINGS, mesh=mesh_of(shape), tell=lambda _: None), part)
    both = weights_of(ended(spec, shape).state, spec)
    ends = [(one.source.name, one.target.name) for one in spec.connections]
    found = dict(zip(ends, both.connections, strict=True))
    for name, (kernel, bias) in zip(["In", "Hidden"], alone.connections, strict=True):
        np.testing.assert_array_equal(found[name, "Hidden" if name == "In" else "Output"].kernel, kernel)
        np.testing.assert_array_equal(found[name, "Hidden" if name == "In" else "Output"].bias, bias)
    down, up = matrices(FORM)
    product = found["Raw", "Linear"].kernel @ found["Linear", "Output"].kernel
    np.testing.assert_allclose(product, 4.0 * down @ up, atol=1e-5)
    assert not found["Raw", "Linear"].bias.any()


def test_a_network_of_nothing_else_is_fitted_alone() -> None:
    spec = network(beside=False)
    assert trained_part(spec).layers == ()
    found = ended(spec)
    assert str(found) == "trained for 0 epochs; Linear: ridge 0.1, item power 0.5, user power 0.25, scale 4"
    assert len(weights_of(found.state, spec).connections) == 2


def test_what_may_be_tried_is_chosen_on_validation_samples() -> None:
    rest, validation = hold_out_features(WHOLE, share=0.3, seed=1)
    form = ClosedForm(ridge=(100.0, 0.1), item_power=(1.0, 0.0), scale=(0.001, 30.0))
    stopping = TrainingSpec(stopping=EarlyStopping("ndcg@5", patience=9))
    spec = network(form, training=stopping)
    data = TrainingData({one.name: rest for one in spec.inputs}, {one.name: rest for one in spec.outputs})
    found = train_to_its_end(spec, data, SETTINGS, mesh=mesh_of((1, 1)), tell=lambda _: None, validation=validation)
    (fit,) = found.fits
    assert fit.layer == "Linear"
    chosen = fit.closed_form
    assert len(chosen.ridge) == len(chosen.item_power) == len(chosen.user_power) == len(chosen.scale) == 1
    assert chosen.ridge[0] in form.ridge
    assert chosen.scale[0] in form.scale


def test_choices_are_made_before_anything_learns_from_what_they_are_made_by(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TrainingData] = []
    plain = fitting.completed

    def heard(spec: NetworkSpec, trained: object, forms: object, data: TrainingData, *rest: Any) -> TrainState:
        asked.append(data)
        return plain(spec, trained, forms, data, *rest)

    monkeypatch.setattr(ending, "completed", heard)
    stopping = EarlyStopping("ndcg@5", patience=9, validation=0.3, refit=True)
    spec = network(ClosedForm(ridge=(0.1,), scale=(1.0, 30.0)), training=TrainingSpec(stopping=stopping))
    found = ended(spec)
    kept, everything = (next(iter(data.inputs.values())).nnz for data in asked)
    assert kept < everything == WHOLE.nnz
    assert found.refit
    (fit,) = found.fits
    product = _product(found, spec)
    down, up = spectrum(sparse.csr_array(dense(ROWS, WIDTH)), rank=6, item_power=0.0, user_power=0.0).weights(0.1)
    np.testing.assert_allclose(product, fit.closed_form.scale[0] * down @ up, atol=1e-5)


def test_the_first_stands_unless_another_is_better_by_more_than_chance() -> None:
    judge = Judge(HeldOut(WHOLE, WHOLE))
    first = np.array([0.5, 0.5, 0.5, 0.5])
    assert judge.choice([first, first + np.array([0.3, -0.2, 0.3, -0.2])]) == 0, "a mean of 0.05 with an error of 0.125"
    assert judge.choice([first, first + np.array([0.1, 0.2, 0.1, 0.2])]) == 1
    assert judge.choice([first, first - 0.1, first - 0.2]) == 0


def test_a_network_file_keeps_how_a_layer_was_fitted(tmp_path: Path) -> None:
    spec = network(ClosedForm((0.03, 0.3), (0.25, 0.0), (0.5,), (16.0, 4.0)))
    write_network(path := tmp_path / "gl.nc", spec, weights_of(ended(spec).state, spec))
    read, _ = read_network_file(path)
    assert read == spec
    # A file is asked as it is: nothing is fitted again.
    with pytest.raises(ValueError, match="an object of Ridge, ItemPower, UserPower, Scale is wanted"):
        ClosedForm.of_text('{"Ridge": [1]}')


def test_a_damaged_text_in_a_network_file_is_an_error_of_ours(tmp_path: Path) -> None:
    spec = network()
    write_network(path := tmp_path / "gl.nc", spec, weights_of(ended(spec).state, spec))
    with netCDF4.Dataset(path, "a") as file:
        file.setncattr("layer1_closedForm", "{")
    with pytest.raises(DataError, match="layer1_closedForm"):
        read_network_file(path)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([IN, {**HIDDEN, "ClosedForm": {}}, OUT], "$.Layers[1].ClosedForm: a plain Linear layer is wanted"),
        (
            [IN, HIDDEN, {**HIDDEN, "Activation": "Linear", "ClosedForm": {}}, OUT],
            "$.Layers[2].ClosedForm: one source is wanted, an Input layer",
        ),
        (
            [IN, {**HIDDEN, "Activation": "Linear", "ClosedForm": {}}, HIDDEN, OUT],
            "$.Layers[1].ClosedForm: it must lead into one Output layer and nowhere else",
        ),
        (
            [IN, {**HIDDEN, "Activation": "Linear", "ClosedForm": {}}, {**OUT, "N": 9}],
            "$.Layers[1].ClosedForm: Input and Output must be of the same features, not of 8 and 9",
        ),
        ([IN, {**HIDDEN, "ClosedForm": {"Ridge": []}}, OUT], "$.Layers[1].ClosedForm.Ridge: a number is wanted"),
        (
            [IN, {**HIDDEN, "ClosedForm": {"ItemPower": 2}}, OUT],
            "$.Layers[1].ClosedForm.ItemPower: 2 is outside 0 to 1",
        ),
        ([IN, {**HIDDEN, "ClosedForm": {"Scale": [0, 1]}}, OUT], "$.Layers[1].ClosedForm.Scale: the first one"),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_its_path(tmp_path: Path, layers: list, message: str) -> None:
    assert message in refusal(tmp_path, *layers)


@pytest.mark.parametrize(("samples", "size"), [(1, 64), (400, 64), (30_000, 256), (138_493, 1024), (10**7, 1024)])
def test_a_batch_size_left_open_follows_from_the_samples(samples: int, size: int) -> None:
    assert TrainingSpec(AUTO_BATCH).over(samples).batch_size == size
    assert replace(TrainingSpec(), batch_size=7).over(samples).batch_size == 7
