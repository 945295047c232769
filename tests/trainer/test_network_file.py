import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from netcdf_types import NC_STRING
from network_files import (
    GRAPH,
    GRAPH_SPEC,
    HIDDEN,
    INPUT,
    LITERAL,
    LITERAL_SPEC,
    OUTPUT,
    PYTHON,
    U8,
    Attributes,
    C,
    F,
    I,
    U,
    Vectors,
    assert_same_weights,
    content_of,
    drawn,
    expected,
    graph_vectors,
    hand_made,
    literal_vectors,
    write_by_hand,
)

from trainer.network_file import read_network_file, write_network
from trainer.network_types import (
    Activation,
    DeltaBoost,
    ErrorFunction,
    LayerSpec,
    MarginalScale,
    NetworkKind,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    ResponseNormalization,
    Schedule,
    Sparseness,
    WeightInit,
    WeightScheme,
)
from trainer.pace import EarlyStopping, TrainingSpec


@hand_made
def test_a_file_written_by_someone_else_is_read(
    tmp_path: Path, attributes: Attributes, vectors: Vectors, spec: NetworkSpec
) -> None:
    assert read_network_file(write_by_hand(tmp_path / "gl.nc", attributes, vectors))[0] == spec


@hand_made
def test_every_attribute_and_variable_is_written_with_the_name_type_and_value_of_the_format(
    tmp_path: Path, attributes: Attributes, vectors: Vectors, spec: NetworkSpec
) -> None:
    theirs = write_by_hand(tmp_path / "theirs.nc", attributes, vectors)
    write_network(tmp_path / "ours.nc", *read_network_file(theirs))
    ours = content_of(tmp_path / "ours.nc")
    assert ours.attributes == expected(attributes)
    assert ours == content_of(theirs)
    with netCDF4.Dataset(tmp_path / "ours.nc") as file:
        assert file.data_model == "NETCDF4"
        assert {variable.chunking() for variable in file.variables.values()} == {"contiguous"}


def test_weights_are_row_major_from_input_to_output_and_filters_in_order_channels_y_x(tmp_path: Path) -> None:
    weights = read_network_file(write_by_hand(tmp_path / "gl.nc", GRAPH, graph_vectors()))[1]
    conv, pooled, side, shared, output = weights.connections
    assert conv.kernel is not None
    assert pooled.kernel is not None
    assert side.kernel is not None
    assert conv.kernel.shape == (3, 2, 2, 3)
    flat = graph_vectors()["weight0_weights"]
    assert conv.kernel[2, 1, 0, 2] == flat[2 * 12 + 1 * 6 + 0 * 3 + 2]
    assert side.kernel.shape == (4, 6)
    assert side.kernel[3, 5] == graph_vectors()["weight2_weights"][3 * 6 + 5]
    assert (shared.kernel, output.kernel) == (None, None)
    np.testing.assert_array_equal(output.bias, graph_vectors()["weight4_bias"])
    norm = weights.batch_norms["Conv"]
    names = ("scaleBN", "biasBN", "runningMeanBN", "runningVarianceBN")
    for values, name in zip(norm, names, strict=True):
        np.testing.assert_array_equal(values, graph_vectors()[f"layer1_{name}"])


def test_matrices_are_found_by_the_names_of_their_layers_whatever_their_order(tmp_path: Path) -> None:
    swapped = {"weight0": "weight1", "weight1": "weight0"}
    attributes = {re.sub(r"^weight[01]", lambda m: swapped[m[0]], n): value for n, value in LITERAL.items()}
    vectors = {re.sub(r"^weight[01]", lambda m: swapped[m[0]], n): value for n, value in literal_vectors().items()}
    straight = read_network_file(write_by_hand(tmp_path / "straight.nc", LITERAL, literal_vectors()))
    turned = read_network_file(write_by_hand(tmp_path / "turned.nc", attributes, vectors))
    assert turned[0] == straight[0]
    assert_same_weights(turned[1], straight[1])


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint64])
def test_integers_of_every_type_and_texts_of_both_are_read(
    tmp_path: Path, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PYTHON, U, kind)
    monkeypatch.setitem(PYTHON, F, np.float64)
    attributes = {name: (NC_STRING if k == C else k, value) for name, (k, value) in GRAPH.items()}
    assert read_network_file(write_by_hand(tmp_path / "gl.nc", attributes, graph_vectors()))[0] == GRAPH_SPEC


def test_what_the_format_calls_optional_may_be_absent_and_what_it_does_not_know_is_ignored(tmp_path: Path) -> None:
    optional = {"decay", "weight0_bLocked", "weight1_bLocked", "weight0_norm", "weight1_norm"}
    optional |= {name for name in LITERAL if name.endswith("poolingfunction")}
    attributes = {name: value for name, value in LITERAL.items() if name not in optional}
    attributes |= {"checkpoint_name": (C, "gl.nc"), "checkpoint_interval": (I, 10), "someone_elses": (F, 1.0)}
    # On several devices DSSTNE stores one device's part here.
    attributes["weight0_width"] = (U8, 1)
    read = read_network_file(write_by_hand(tmp_path / "gl.nc", attributes, literal_vectors()))[0]
    assert read == replace(LITERAL_SPEC, checkpoint_name="gl.nc", checkpoint_interval=10)


def test_sides_count_even_where_dimensions_says_fewer(tmp_path: Path) -> None:
    attributes = LITERAL | {"layer1_Nx": (U, 1), "layer1_Ny": (U, 3)}
    read = read_network_file(write_by_hand(tmp_path / "gl.nc", attributes, literal_vectors()))[0]
    assert read.layer("Hidden").sides == (1, 3)


def test_an_input_that_dsstne_does_not_denoise_is_not_denoised_here(tmp_path: Path) -> None:
    attributes = LITERAL | {"layer0_attributes": (U, 1)}
    read = read_network_file(write_by_hand(tmp_path / "gl.nc", attributes, literal_vectors()))[0]
    assert (read.denoising, read.layer("Input").sparse, read.layer("Input").denoised) == (0.2, True, False)


def test_a_penalty_and_a_denoising_that_are_switched_off_are_off(tmp_path: Path) -> None:
    attributes = LITERAL | {"bDenoising": (U, 0), "bSparsenessPenalty": (U, 0)}
    read = read_network_file(write_by_hand(tmp_path / "gl.nc", attributes, literal_vectors()))[0]
    assert (read.denoising, read.sparseness) == (0.0, Sparseness(0.5, 0.0))
    assert read.layer("Input").sparse


def test_locked_weights_stay_locked(tmp_path: Path) -> None:
    path = write_by_hand(tmp_path / "gl.nc", LITERAL | {"weight1_bLocked": (U, 1)}, literal_vectors())
    spec, weights = read_network_file(path)
    assert weights.locked == {1}
    write_network(tmp_path / "again.nc", spec, weights)
    with netCDF4.Dataset(tmp_path / "again.nc") as file:
        assert [int(file.getncattr(f"weight{n}_bLocked")) for n in (0, 1)] == [0, 1]


def test_an_optimizer_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    numbers = {"learningRate": 0.003, "weightDecay": -1.0, "momentum": 0.8, "momentum2": -1.0}
    attributes = LITERAL | {f"optimizer_{name}": (F, value) for name, value in numbers.items()}
    path = write_by_hand(tmp_path / "gl.nc", attributes | {"optimizer": (U, 6)}, literal_vectors())
    assert read_network_file(path)[0].optimizer == OptimizerSpec(OptimizerName.ADAM, 0.003, None, 0.8, None)


@pytest.mark.parametrize("scheme", list(WeightScheme))
def test_empty_vectors_are_drawn_as_the_layer_says_and_always_the_same(tmp_path: Path, scheme: WeightScheme) -> None:
    attributes = LITERAL | {
        "layer0_Nx": (U, 400), "layer1_Nx": (U, 100), "layer1_weightInit": (U, int(scheme)),
        "layer1_weightInitScale": (F, 0.5), "layer1_biasInit": (F, -2.5),
    }  # fmt: skip
    nothing = np.zeros(0, np.float32)
    vectors = literal_vectors() | {"weight0_weights": nothing, "weight0_bias": nothing}
    vectors["weight1_weights"] = np.ones(400, np.float32)
    path = write_by_hand(tmp_path / "gl.nc", attributes, vectors)
    first, again = read_network_file(path)[1], read_network_file(path)[1]
    assert_same_weights(first, again)
    kernel, bias = first.connections[0]
    assert kernel is not None
    assert (kernel.shape, kernel.dtype) == ((400, 100), np.float32)
    np.testing.assert_array_equal(bias, np.full(100, -2.5))
    half = {
        WeightScheme.XAVIER: 0.25 * np.sqrt(6 / 500),
        WeightScheme.CAFFE_XAVIER: 0.5 * np.sqrt(3 / 100),
        WeightScheme.UNIFORM: 0.5,
    }
    low, high, deviation = {
        **{uniform: (-width, width, width / np.sqrt(3)) for uniform, width in half.items()},
        WeightScheme.GAUSSIAN: (-np.inf, np.inf, 0.5),
        WeightScheme.SELU: (-np.inf, np.inf, 1 / 400),
        WeightScheme.UNIT_BALL: (0.0, 0.5, 0.5 / np.sqrt(12)),
        WeightScheme.CONSTANT: (-0.5, -0.5, 0.0),
    }[scheme]
    assert np.float32(low) <= kernel.min()
    assert kernel.max() <= np.float32(high)
    np.testing.assert_allclose(kernel.std(), deviation, rtol=0.02)
    if np.isfinite(low):
        np.testing.assert_allclose(kernel.mean(), (low + high) / 2, atol=0.01 * abs(high - low))


def rich() -> NetworkSpec:
    """Every field away from its default, extensions included."""
    slopes: dict[str, Any] = {"relu_slope": 0.1, "elu_alpha": 1.5, "selu_lambda": 1.25}
    first = LayerSpec(
        "In", INPUT, (7,), sparse=True, dataset="gl_input", normalize=True, analog=True, dropout=0.1, **slopes
    )
    hidden = LayerSpec(
        "Réseau", HIDDEN, (5,), ("In",), Activation.GELU, sparse=True, dropout=0.3, skips=(), weight_norm=0.5,
        weight_init=WeightInit(WeightScheme.GAUSSIAN, 0.01, -10.2), sparseness=Sparseness(0.1, 0.2), delta_norm=0.75,
        batch_normalization=True, layer_normalization=True, **slopes,
    )  # fmt: skip
    output = LayerSpec(
        "Out", OUTPUT, (9,), ("Réseau",), Activation.SOFT_MAX, sparse=True, dataset="gl_output",
        weight_init=WeightInit(WeightScheme.UNIFORM, 0.7, log_odds=True), loss=ErrorFunction.CROSS_ENTROPY,
        loss_weight=0.25, ignore_zero=True, **slopes,
    )  # fmt: skip
    return NetworkSpec(
        "rich", (first, hidden, output), NetworkKind.AUTO_ENCODER, ErrorFunction.L1,
        MarginalScale(0.7, 0.2, 1.1, 0.9), denoising=0.35, sparseness=Sparseness(0.3, 0.0), shuffle=False,
        decay=0.05, optimizer=OptimizerSpec(
            OptimizerName.ADAM, 0.003, None, 0.8, None, clip=1.5, warmup=20, schedule=Schedule.COSINE, steps=500
        ),
        response_normalization=ResponseNormalization(1.0, 3, 0.002, 0.5), maxout_k=4,
        delta_boost=DeltaBoost(2.0, 0.5), bfloat16=True,
        training=TrainingSpec(64, 0, EarlyStopping("recall@20", 3, 0.15, refit=True)),
    )  # fmt: skip


EXTENSIONS: Attributes = {
    "bfloat16": (U, 1), "optimizer": (U, 6), "optimizer_learningRate": (F, 0.003), "optimizer_momentum": (F, 0.8),
    "optimizer_clip": (F, 1.5), "optimizer_warmup": (U, 20), "optimizer_schedule": (U, 1), "optimizer_steps": (U, 500),
    "layer0_normalize": (U, 1), "layer0_analog": (U, 1), "layer1_layerNormalization": (U, 1),
    "layer2_biasInitLogOdds": (U, 1), "layer2_lossFunction": (U, 2), "layer2_lossWeight": (F, 0.25),
    "layer2_ignoreZero": (U, 1), "trainingBatchSize": (U, 64), "trainingEpochs": (U, 0),
    "earlyStopping": (C, "recall@20"), "earlyStopping_patience": (U, 3), "earlyStopping_validation": (F, 0.15),
    "earlyStopping_refit": (U, 1),
}  # fmt: skip


def test_extensions_travel_in_attributes_of_their_own(tmp_path: Path) -> None:
    spec = rich()
    write_network(tmp_path / "gl.nc", spec, drawn(spec))
    content = content_of(tmp_path / "gl.nc")
    known = {re.sub(r"\d+", "0", name) for name in {**LITERAL, **GRAPH}}
    extra = {name: value for name, value in content.attributes.items() if re.sub(r"\d+", "0", name) not in known}
    assert extra == expected(EXTENSIONS)
    assert content.dimensions["layer1_lnDim"] == 5
    assert {"layer1_scaleLN", "layer1_biasLN"} <= set(content.variables)
    read, weights = read_network_file(tmp_path / "gl.nc")
    assert read == spec
    assert_same_weights(weights, drawn(spec))
