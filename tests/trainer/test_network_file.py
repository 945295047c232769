import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import netCDF4
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netcdf_types import NC_CHAR, NC_STRING, NC_UINT, attribute_type

from trainer.errors import DataError
from trainer.network_file import read_network_file, write_network
from trainer.network_types import (
    Activation,
    DeltaBoost,
    ErrorFunction,
    Kernel,
    LayerKind,
    LayerSpec,
    LayerType,
    MarginalScale,
    NetworkKind,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    PoolingFunction,
    ResponseNormalization,
    Schedule,
    SharedWeights,
    Sparseness,
    WeightInit,
    WeightScheme,
)
from trainer.shapes import bias_size, convolution_sides, pooling_sides, weight_shape
from trainer.weights import Connection, Normalization, Weights

NC_INT, NC_FLOAT, NC_UINT64 = 4, 5, 11
C, U, I, F, U8 = NC_CHAR, NC_UINT, NC_INT, NC_FLOAT, NC_UINT64  # noqa: E741 - NetCDF types of spec section 6
PYTHON = {C: lambda text: np.bytes_(text.encode()), U: np.uint32, I: np.int32, F: np.float32, U8: np.uint64}
INPUT, HIDDEN, OUTPUT, TARGET = LayerKind
FULL, CONVOLUTIONAL, POOLING = LayerType

Attributes = dict[str, tuple[int, Any]]
Vectors = dict[str, np.ndarray]


class Content(NamedTuple):
    """All that a NetCDF file holds."""

    attributes: Attributes
    dimensions: dict[str, int]
    variables: dict[str, tuple[str, tuple[str, ...], list[float]]]


def content_of(path: Path) -> Content:
    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        attributes = {name: (attribute_type(file, name), file.getncattr(name)) for name in file.ncattrs()}
        dimensions = {name: dimension.size for name, dimension in file.dimensions.items()}
        variables = {n: (str(v.dtype), v.dimensions, v[:].tolist()) for n, v in file.variables.items()}
        return Content(attributes, dimensions, variables)


def write_by_hand(path: Path, attributes: Attributes, vectors: Vectors, container: str = "NETCDF4") -> Path:
    """A network file as the spec describes it, by means that know nothing of the trainer."""
    dimensions = {"bias": "biasDim", "weights": "weightDim"}
    with netCDF4.Dataset(path, "w", format=container) as file:
        for name, (kind, value) in attributes.items():
            if kind == NC_STRING:
                file.setncattr_string(name, value)
            else:
                file.setncattr(name, PYTHON[kind](value))
        for name, values in vectors.items():
            prefix, _, what = name.partition("_")
            dimension = f"{prefix}_{dimensions.get(what, 'lnDim' if what.endswith('LN') else 'bnDim')}"
            if dimension not in file.dimensions:
                file.createDimension(dimension, len(values))
            file.createVariable(name, values.dtype, (dimension,))[:] = values
    return path


def layer_attributes(number: int, name: str, kind: int, sides: tuple[int, ...], **own: tuple[int, Any]) -> Attributes:
    """Everything spec 6.2 demands of a layer, by hand."""
    attributes: Attributes = {
        "name": (C, name), "kind": (U, kind), "type": (U, 0), "poolingfunction": (U, 0), "dataSet": (C, ""),
        **{key: (U, side) for key, side in zip(("Nx", "Ny", "Nz", "Nw"), (*sides, 1, 1, 1), strict=False)},
        "dimensions": (U, len(sides)),
        "kernelX": (U, 1), "kernelY": (U, 1), "kernelZ": (U, 1), "kernelDimensions": (U, 1),
        "kernelStrideX": (U, 1), "kernelStrideY": (U, 1), "kernelStrideZ": (U, 1),
        "kernelPaddingX": (U, 0), "kernelPaddingY": (U, 0), "kernelPaddingZ": (U, 0),
        "pDropout": (F, 0.0), "weightInit": (U, 0), "weightInitScale": (F, 1.0), "biasInit": (F, 0.0),
        "weightNorm": (F, 0.0), "deltaNorm": (F, 0.0), "activation": (U, 0),
        "sparsenessPenalty_p": (F, 0.0), "sparsenessPenalty_beta": (F, 0.0),
        "RELUSlope": (F, 1.0), "ELUAlpha": (F, 1.0), "SELULambda": (F, 1.050701),
        "attributes": (U, 0), "sources": (U, 0), "skips": (U, 0),
    }  # fmt: skip
    return {f"layer{number}_{key}": value for key, value in {**attributes, **own}.items()}


def sources(*names: str) -> Attributes:
    return {"sources": (U, len(names)), **{f"source{n}": (C, name) for n, name in enumerate(names)}}


def weight_attributes(number: int, ends: tuple[str, str], sizes: tuple[int, ...], **own: tuple[int, Any]) -> Attributes:
    """Everything spec 6.3 demands of a weight matrix, by hand."""
    names = ("width", "height", "length", "depth", "breadth")
    attributes: Attributes = {
        "inputLayer": (C, ends[0]), "outputLayer": (C, ends[1]),
        **{name: (U8, size) for name, size in zip(names, (*sizes, 1, 1, 1), strict=False)},
        "bShared": (U, 0), "bLocked": (U, 0), "norm": (F, 0.0),
    }  # fmt: skip
    return {f"weight{number}_{key}": value for key, value in {**attributes, **own}.items()}


GLOBALS: Attributes = {
    "version": (F, 0.9), "name": (C, "AE"), "kind": (U, 0), "errorFunction": (U, 3), "maxout_k": (I, 2),
    "decay": (F, 0.0), "LRN_k": (F, 2.0), "LRN_n": (I, 5), "LRN_alpha": (F, 0.0001), "LRN_beta": (F, 0.75),
    "bSparsenessPenalty": (U, 1), "sparsenessPenalty_p": (F, 0.5), "sparsenessPenalty_beta": (F, 2.0),
    "bDenoising": (U, 1), "denoising_p": (F, 0.2), "deltaBoost_one": (F, 1.0), "deltaBoost_zero": (F, 1.0),
    "SMCE_oneScale": (F, 1.0), "SMCE_zeroScale": (F, 1.0), "SMCE_oneTarget": (F, 1.0), "SMCE_zeroTarget": (F, 0.0),
    "ShuffleIndices": (U, 0),
}  # fmt: skip
LITERAL: Attributes = {
    **GLOBALS, "layers": (U, 3), "weights": (U, 2),
    **layer_attributes(0, "Input", 0, (6,), dataSet=(C, "gl_input"), attributes=(U, 3)),
    **layer_attributes(1, "Hidden", 1, (3,), **sources("Input"), attributes=(U, 1)),
    **layer_attributes(2, "Output", 2, (4,), **sources("Hidden"), dataSet=(C, "gl_output"), attributes=(U, 1)),
    **weight_attributes(0, ("Input", "Hidden"), (3, 6)),
    **weight_attributes(1, ("Hidden", "Output"), (4, 3)),
}  # fmt: skip
"""DSSTNE's MovieLens sample at toy size: each attribute of spec section 6 with its type and value."""
LITERAL_SPEC = NetworkSpec(
    "AE",
    (
        LayerSpec("Input", INPUT, (6,), sparse=True, dataset="gl_input"),
        LayerSpec("Hidden", HIDDEN, (3,), ("Input",), sparse=True),
        LayerSpec("Output", OUTPUT, (4,), ("Hidden",), sparse=True, dataset="gl_output"),
    ),
    loss=ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY,
    marginal=MarginalScale(1.0, 0.0),
    denoising=0.2,
    sparseness=Sparseness(0.5, 2.0),
    shuffle=False,
)
GRAPH: Attributes = {
    **GLOBALS, "errorFunction": (U, 1), "bDenoising": (U, 0), "denoising_p": (F, 0.0), "deltaBoost_one": (F, 1.5),
    "LRN_n": (I, 3), "maxout_k": (I, 4), "layers": (U, 7), "weights": (U, 5),
    **layer_attributes(0, "Image", 0, (5, 4, 2), dataSet=(C, "pixels")),
    **layer_attributes(
        1, "Conv", 1, (5, 2, 3), **sources("Image"), type=(U, 1), activation=(U, 11), RELUSlope=(F, 0.1),
        kernelX=(U, 3), kernelY=(U, 2), kernelDimensions=(U, 2), kernelStrideY=(U, 2), kernelPaddingX=(U, 1),
        attributes=(U, 4),
    ),
    **layer_attributes(
        2, "Pool", 1, (2, 1, 3), **sources("Conv"), type=(U, 2), poolingfunction=(U, 1),
        kernelX=(U, 3), kernelY=(U, 3), kernelDimensions=(U, 2), kernelStrideX=(U, 2), kernelStrideY=(U, 2),
        kernelPaddingY=(U, 1), dimensions=(U, 3),
    ),
    **layer_attributes(3, "One", 1, (6,), **sources("Pool", "Side"), weightNorm=(F, 2.5), deltaNorm=(F, 0.5),
                       sparsenessPenalty_p=(F, 0.25), sparsenessPenalty_beta=(F, 3.0)),
    **layer_attributes(4, "Two", 1, (6,), **sources("One"), skips=(U, 2), skip0=(C, "Pool"), skip1=(C, "One")),
    **layer_attributes(5, "Output", 2, (4,), **sources("Two"), dataSet=(C, "gl_output"), attributes=(U, 1)),
    **layer_attributes(6, "Side", 0, (4,), dataSet=(C, "gl_side"), attributes=(U, 1)),
    **weight_attributes(0, ("Image", "Conv"), (3, 2, 2, 3)),
    **weight_attributes(1, ("Pool", "One"), (6, 6), norm=(F, 2.5)),
    **weight_attributes(2, ("Side", "One"), (6, 4), norm=(F, 2.5)),
    **weight_attributes(
        3, ("One", "Two"), (6, 6), bShared=(U, 1), bTransposed=(U, 1),
        sourceInputLayer=(C, "Pool"), sourceOutputLayer=(C, "One"),
    ),
    **weight_attributes(
        4, ("Two", "Output"), (4, 6), bShared=(U, 1), bTransposed=(U, 1),
        sourceInputLayer=(C, "Side"), sourceOutputLayer=(C, "One"),
    ),
}  # fmt: skip
"""Everything a graph can have, as DSSTNE would write it; the side input comes after the layer it feeds."""
GRAPH_SPEC = NetworkSpec(
    "AE",
    (
        LayerSpec("Image", INPUT, (5, 4, 2), dataset="pixels"),
        LayerSpec(
            "Conv", HIDDEN, (5, 2, 3), ("Image",), Activation.LEAKY_RECTIFIED_LINEAR, relu_slope=0.1,
            type=CONVOLUTIONAL, kernel=Kernel((3, 2), (1, 2)), filters=3, batch_normalization=True,
        ),
        LayerSpec(
            "Pool", HIDDEN, (2, 1, 3), ("Conv",), type=POOLING, kernel=Kernel((3, 3), (2, 2)),
            pooling=PoolingFunction.MAX,
        ),
        LayerSpec(
            "One", HIDDEN, (6,), ("Pool", "Side"), weight_norm=2.5, delta_norm=0.5, sparseness=Sparseness(0.25, 3.0)
        ),
        LayerSpec(
            "Two", HIDDEN, (6,), ("One",), skips=("Pool", "One"),
            shared=(SharedWeights("One", "Pool", "One", transposed=True),),
        ),
        LayerSpec(
            "Output", OUTPUT, (4,), ("Two",), sparse=True, dataset="gl_output",
            shared=(SharedWeights("Two", "Side", "One", transposed=True),),
        ),
        LayerSpec("Side", INPUT, (4,), sparse=True, dataset="gl_side"),
    ),
    loss=ErrorFunction.L2,
    marginal=MarginalScale(1.0, 0.0),
    sparseness=Sparseness(0.5, 2.0),
    shuffle=False,
    response_normalization=ResponseNormalization(n=3),
    maxout_k=4,
    delta_boost=DeltaBoost(1.5),
)  # fmt: skip


def counting(*lengths: int, start: int = 1) -> list[np.ndarray]:
    """Vectors whose every number is another."""
    ends = np.cumsum([start, *lengths])
    return [np.arange(first, last, dtype=np.float32) for first, last in pairwise(ends)]


def literal_vectors() -> Vectors:
    names = ("weight0_bias", "weight0_weights", "weight1_bias", "weight1_weights")
    return dict(zip(names, counting(3, 18, 4, 12), strict=True))


def graph_vectors() -> Vectors:
    names = (
        "weight0_bias", "weight0_weights", "weight1_bias", "weight1_weights", "weight2_bias", "weight2_weights",
        "weight3_bias", "weight4_bias", "layer1_scaleBN", "layer1_biasBN", "layer1_runningMeanBN",
        "layer1_runningVarianceBN",
    )  # fmt: skip
    return dict(zip(names, counting(3, 36, 6, 36, 6, 24, 6, 4, 3, 3, 3, 3), strict=True))


def drawn(spec: NetworkSpec) -> Weights:
    """Weights of the right shapes, by rules of their own."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    connections = [
        Connection(normal(*weight_shape(c.source, c.target)) if c.owner == n else None, normal(bias_size(c.target)))
        for n, c in enumerate(spec.connections)
    ]
    batch = [layer for layer in spec.layers if layer.batch_normalization]
    norms = [layer for layer in spec.layers if layer.layer_normalization]
    return Weights(
        tuple(connections),
        {layer.name: Normalization(*normal(4, bias_size(layer))) for layer in batch},
        {layer.name: Normalization(*normal(2, layer.width)) for layer in norms},
    )


def assert_same_weights(one: Weights, other: Weights) -> None:
    for pairs in (
        zip(one.connections, other.connections, strict=True),
        *(
            [(norms[name], others[name]) for name in {*norms, *others}]
            for norms, others in ((one.batch_norms, other.batch_norms), (one.layer_norms, other.layer_norms))
        ),
    ):
        for ours, theirs in pairs:
            for array, back in zip(ours, theirs, strict=True):
                assert (array is None) == (back is None)
                if array is not None:
                    assert back.dtype == np.float32
                    np.testing.assert_array_equal(back, array)


def expected(attributes: Attributes) -> Attributes:
    values = {U: np.uint32, I: np.int32, F: np.float32, U8: np.uint64, C: str}
    return {name: (kind, values[kind](value)) for name, (kind, value) in attributes.items()}


HAND_MADE = [(LITERAL, literal_vectors(), LITERAL_SPEC), (GRAPH, graph_vectors(), GRAPH_SPEC)]
hand_made = pytest.mark.parametrize(("attributes", "vectors", "spec"), HAND_MADE, ids=["literal", "graph"])


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
    )  # fmt: skip


EXTENSIONS: Attributes = {
    "bfloat16": (U, 1), "optimizer": (U, 6), "optimizer_learningRate": (F, 0.003), "optimizer_momentum": (F, 0.8),
    "optimizer_clip": (F, 1.5), "optimizer_warmup": (U, 20), "optimizer_schedule": (U, 1), "optimizer_steps": (U, 500),
    "layer0_normalize": (U, 1), "layer0_analog": (U, 1), "layer1_layerNormalization": (U, 1),
    "layer2_biasInitLogOdds": (U, 1), "layer2_lossFunction": (U, 2), "layer2_lossWeight": (F, 0.25),
    "layer2_ignoreZero": (U, 1),
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


decimals = st.integers(-9999, 9999).map(lambda n: n / 1000)
chances = st.integers(0, 99).map(lambda n: n / 100)
scales = st.integers(1, 9999).map(lambda n: n / 1000)
small = st.integers(1, 4)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
weight_inits = st.builds(WeightInit, st.sampled_from(WeightScheme), scales, decimals)
penalties = st.builds(Sparseness, chances, decimals)
optimizers = st.builds(
    OptimizerSpec, st.sampled_from(OptimizerName), st.none() | scales, st.none() | scales, st.none() | scales,
    st.none() | scales, scales, st.integers(0, 2**32 - 1), st.sampled_from(Schedule), st.integers(0, 2**32 - 1),
)  # fmt: skip


@st.composite
def kernels(draw: st.DrawFn, most: int = 3) -> Kernel:
    dimensions = draw(st.integers(1, most))
    size, stride = (draw(st.tuples(*[small] * dimensions)) for _ in range(2))
    return Kernel(size, stride)


@st.composite
def fed_layers(draw: st.DrawFn, name: str, kind: LayerKind, before: list[LayerSpec], **own: Any) -> LayerSpec:
    """A layer of any type over some of those before it."""
    layer = LayerSpec(
        name, kind, activation=draw(st.sampled_from(Activation)), sparse=draw(st.booleans()), dropout=draw(chances),
        weight_init=draw(weight_inits), sparseness=draw(penalties), relu_slope=draw(decimals),
        weight_norm=draw(scales), delta_norm=draw(scales), kernel=draw(kernels()), **own,
    )  # fmt: skip
    if kind is HIDDEN:
        layer = replace(layer, batch_normalization=draw(st.booleans()), layer_normalization=draw(st.booleans()))
    layer_type = draw(st.sampled_from(LayerType))
    source = draw(st.sampled_from(before))
    if layer_type is CONVOLUTIONAL and len(source.sides) <= len(layer.kernel.size) + 1:
        filters = draw(small)
        shape = convolution_sides(source.sides, layer.kernel, filters)
        return replace(layer, type=layer_type, sources=(source.name,), filters=filters, shape=shape)
    if layer_type is POOLING:
        pooling = draw(st.sampled_from([f for f in PoolingFunction if 0 < f < PoolingFunction.STOCHASTIC]))
        over = [source]
        if pooling in (PoolingFunction.MAXOUT, PoolingFunction.DOT_PRODUCT, PoolingFunction.COSINE):
            over = [other for other in before if other.width == source.width]
        if len(over) > 1 or pooling not in (PoolingFunction.DOT_PRODUCT, PoolingFunction.COSINE):
            shape = pooling_sides([other.sides for other in over], pooling, layer.kernel)
            over_names = tuple(other.name for other in over)
            return replace(layer, type=layer_type, pooling=pooling, sources=over_names, shape=shape)
    over = draw(st.lists(st.sampled_from(before), min_size=1, max_size=3, unique_by=lambda other: other.name))
    shape = draw(
        st.sampled_from([other.sides for other in before]) | st.lists(small, min_size=1, max_size=4).map(tuple)
    )
    return replace(layer, sources=tuple(other.name for other in over), shape=shape)


def with_shared(layer: LayerSpec, before: list[LayerSpec]) -> LayerSpec:
    """The layer using another's matrix wherever one fits, transposed if it must be."""
    named = {other.name: other for other in before}
    entries: list[SharedWeights] = []
    lenders = [o for o in before if o.type is not POOLING and o.sources and not o.shared]
    for source in layer.sources if layer.type is not POOLING else ():
        wanted = weight_shape(named[source], layer)
        for lender in lenders:
            shape = weight_shape(named[lender.sources[0]], lender)
            if shape == wanted or (len(shape) == 2 and shape[::-1] == wanted):
                entries.append(SharedWeights(source, lender.sources[0], lender.name, transposed=shape != wanted))
                break
    return replace(layer, shared=tuple(entries))


@st.composite
def networks(draw: st.DrawFn) -> NetworkSpec:
    """Legal graphs of all kinds; layers stand in any order."""
    labels = draw(st.lists(names, min_size=8, max_size=8, unique=True))
    layers: list[LayerSpec] = []
    for _ in range(draw(st.integers(1, 2))):
        shape = draw(st.lists(small, min_size=1, max_size=4).map(tuple))
        own = {"normalize": draw(st.booleans()), "analog": draw(st.booleans()), "dataset": draw(names)}
        layers.append(LayerSpec(labels.pop(), INPUT, shape, sparse=draw(st.booleans()), **own))
    for kind in [HIDDEN] * draw(st.integers(0, 4)) + [OUTPUT] * draw(st.integers(1, 2)):
        own = {} if kind is HIDDEN else {"dataset": draw(names), "loss_weight": draw(scales)}
        layer = draw(fed_layers(labels.pop(), kind, layers, **own))
        if kind is OUTPUT:
            layer = replace(layer, loss=draw(st.none() | st.sampled_from([ErrorFunction.L1, ErrorFunction.L2])))
        skips = draw(st.lists(st.sampled_from(layers), max_size=2, unique_by=lambda other: other.name))
        if layer.type is not POOLING:
            layer = replace(layer, skips=tuple(other.name for other in skips if other.width == layer.width))
        layers.append(with_shared(layer, layers) if draw(st.booleans()) else layer)
    return NetworkSpec(
        draw(names), tuple(draw(st.permutations(layers))), draw(st.sampled_from(NetworkKind)), ErrorFunction.L2,
        draw(st.builds(MarginalScale, decimals, decimals, decimals, decimals)), denoising=draw(chances),
        sparseness=draw(penalties), shuffle=draw(st.booleans()), decay=draw(scales),
        optimizer=draw(st.none() | optimizers), maxout_k=draw(st.integers(-(2**31), 2**31 - 1)),
        response_normalization=draw(st.builds(ResponseNormalization, decimals, st.integers(1, 9), decimals, decimals)),
        delta_boost=draw(st.builds(DeltaBoost, decimals, decimals)), bfloat16=draw(st.booleans()),
    )  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(spec=networks())
def test_a_network_read_is_the_network_written_and_writes_the_same_file(tmp_path: Path, spec: NetworkSpec) -> None:
    weights = drawn(spec)
    write_network(tmp_path / "first.nc", spec, weights)
    read, back = read_network_file(tmp_path / "first.nc")
    assert read == spec
    assert_same_weights(back, weights)
    write_network(tmp_path / "second.nc", read, back)
    assert content_of(tmp_path / "second.nc") == content_of(tmp_path / "first.nc")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.floats(allow_nan=False, allow_infinity=False), chance=st.floats(0, 0.999))
def test_numbers_between_those_of_the_file_settle_when_first_written(
    tmp_path: Path, value: float, chance: float
) -> None:
    odd = replace(LITERAL_SPEC, sparseness=Sparseness(chance, value), denoising=chance, decay=value)
    odd = replace(odd, layers=(*odd.layers[:2], replace(odd.layers[2], loss_weight=value)))
    with np.errstate(over="ignore"):
        is_too_large = np.isinf(np.float32(value))
    if is_too_large:
        with pytest.raises(DataError, match="attribute decay cannot hold"):
            write_network(tmp_path / "first.nc", odd, drawn(odd))
        return
    write_network(tmp_path / "first.nc", odd, drawn(odd))
    write_network(tmp_path / "second.nc", *read_network_file(tmp_path / "first.nc"))
    assert content_of(tmp_path / "second.nc") == content_of(tmp_path / "first.nc")


IGNORED = re.compile(
    r"version|decay|layer\d+_poolingfunction|weight\d+_(width|height|length|depth|breadth|bLocked|norm)"
)


@pytest.mark.parametrize(("attributes", "vectors"), [case[:2] for case in HAND_MADE], ids=["literal", "graph"])
def test_an_attribute_that_is_missing_is_named(tmp_path: Path, attributes: Attributes, vectors: Vectors) -> None:
    content = write_by_hand(tmp_path / "whole.nc", attributes, vectors).read_bytes()
    path = tmp_path / "gl.nc"
    for name in attributes:
        path.write_bytes(content)
        with netCDF4.Dataset(path, "a") as file:
            file.delncattr(name)
        if IGNORED.fullmatch(name) and not (attributes is GRAPH and name == "layer2_poolingfunction"):
            read_network_file(path)
            continue
        with pytest.raises(DataError) as caught:
            read_network_file(path)
        missing = f"{path}: has no attribute {name}; is it a network file?"
        assert str(caught.value) == missing or name == "layer2_poolingfunction", name


@pytest.mark.parametrize(("attributes", "vectors"), [case[:2] for case in HAND_MADE], ids=["literal", "graph"])
def test_a_variable_that_is_missing_too_long_or_not_finite_is_named(
    tmp_path: Path, attributes: Attributes, vectors: Vectors
) -> None:
    for name, values in vectors.items():
        without = {other: v for other, v in vectors.items() if other != name}
        poisoned = values.copy()
        poisoned[-1] = np.nan
        for broken, message in (
            (without, f"has no variable {name}"),
            ({**vectors, name: poisoned}, f"{name} holds nan at position {len(values) - 1}; a finite number is wanted"),
            ({**vectors, name: values.astype("S1")}, f"{name} has type |S1; numbers are wanted"),
        ):
            path = write_by_hand(tmp_path / "gl.nc", attributes, broken)
            with pytest.raises(DataError) as caught:
                read_network_file(path)
            assert str(caught.value).startswith(f"{path}: {message}")
        if not name.endswith("BN"):
            path = write_by_hand(tmp_path / "gl.nc", attributes, {**vectors, name: np.append(values, values[:1])})
            shape = f"{name} has shape ({len(values) + 1},), ({len(values)},) is wanted"
            with pytest.raises(DataError, match=re.escape(shape)):
                read_network_file(path)


@pytest.mark.parametrize(
    ("attributes", "name", "value", "message"),
    [
        (LITERAL, "errorFunction", (U, 99), "errorFunction is 99, which names nothing"),
        (LITERAL, "layer1_activation", (U, 13), "layer1_activation is 13, which names nothing"),
        (LITERAL, "layer1_kind", (I, -1), "layer1_kind is -1; 0 to 4294967295 is wanted"),
        (LITERAL, "layer1_name", (U, 5), "layer1_name is np.uint32(5); text is wanted"),
        (LITERAL, "layer1_Nx", (C, "3"), "layer1_Nx is '3'; one integer is wanted"),
        (LITERAL, "layer1_Nx", (F, 3.0), "layer1_Nx is np.float32(3.0); one integer is wanted"),
        (LITERAL, "layer1_Nx", (U, [3, 4]), "layer1_Nx is array([3, 4], dtype=uint32); one integer is wanted"),
        (LITERAL, "layer1_Nx", (U, 0), "layer1_Nx is 0; 1 to 2147483647 is wanted"),
        (LITERAL, "layer1_Nx", (U, 2**32 - 1), "layer1_Nx is 4294967295; 1 to 2147483647 is wanted"),
        (LITERAL, "layer1_Ny", (U, 2**31 - 1), "layer1_Nx and the other sides make 6442450941 units; at most 2147483647"
         " are possible"),
        (LITERAL, "layer1_Nx", (U, 4), "weight0_bias has shape (3,), (4,) is wanted"),
        (LITERAL, "layer1_dimensions", (U, 5), "layer1_dimensions is 5; 1 to 4 is wanted"),
        (LITERAL, "layer1_pDropout", (F, 1.0), "layer1_pDropout is 1.0; 0 or more and less than 1 is wanted"),
        (LITERAL, "layer1_pDropout", (F, np.nan), "layer1_pDropout is nan; a finite number is wanted"),
        (LITERAL, "denoising_p", (F, -0.5), "denoising_p is -0.5; 0 or more and less than 1 is wanted"),
        (LITERAL, "layers", (U, 0), "layers is 0; 1 to 2147483647 is wanted"),
        (LITERAL, "layers", (U, 4_000_000_000), "layers is 4000000000; 1 to 2147483647 is wanted"),
        (LITERAL, "layers", (U, 2_000_000_000), "has no attribute layer3_name; is it a network file?"),
        (LITERAL, "layers", (U, 2), "weights is 2, but the layers have 1 connections"),
        (LITERAL, "weights", (U, 4_000_000_000), "weights is 4000000000, but the layers have 2 connections"),
        (LITERAL, "layer1_sources", (U, 2_000_000_000), "has no attribute layer1_source1; is it a network file?"),
        (LITERAL, "layer0_kind", (U, 1), "layers: an Input and an Output layer are wanted"),
        (LITERAL, "layer1_kind", (U, 0), "layer1_sources is not 0, but an Input layer has none"),
        (LITERAL, "layer1_name", (C, "Input"), "layer1_name is 'Input', as of an earlier layer"),
        (LITERAL, "layer1_source0", (C, "input"), "layer1_source0 is 'input'; no layer is called so"),
        (LITERAL, "layer1_kind", (U, 3), "layer2_source0 is 'Hidden', a Target layer, which feeds none"),
        (LITERAL, "layer2_activation", (U, 1), "layer2: ScaledMarginalCrossEntropy needs an Output with Activation "),
        (LITERAL, "weight1_inputLayer", (C, "Input"), "weight1_inputLayer and outputLayer are 'Input' and 'Output': "
         "no connection, or one twice"),
        (GRAPH, "layer4_skip0", (C, "Side"), "layer4: layer Two has 6 units, Side 4; a skip needs equal sizes"),
        (GRAPH, "layer2_skips", (U, 1), "has no attribute layer2_skip0; is it a network file?"),
        (GRAPH, "layer3_source1", (C, "Pool"), "layer3_source1 is 'Pool', as an earlier one"),
        (GRAPH, "layer2_poolingfunction", (U, 0), "layer2: Function is missing"),
        (GRAPH, "layer2_Nx", (U, 3), "layer2_Nx and the other sides are (3, 1, 3); from the sources follows (2, 1, 3)"),
        (GRAPH, "layer1_Ny", (U, 4), "layer1: layer Conv has 5 × 4 × 3 units, the convolution of Image 5 × 2 × 3"),
        (GRAPH, "layer1_kernelDimensions", (U, 4), "layer1_kernelDimensions is 4; 1 to 3 is wanted"),
        (GRAPH, "layer1_kernelPaddingX", (U, 0), "layer1_kernelPaddingX and its like are (0, 0); only (1, 0) is "
         "computed"),
        (GRAPH, "weight3_sourceInputLayer", (C, "Image"), "weight3_sourceInputLayer and sourceOutputLayer are 'Image' "
         "and 'One': no matrix"),
        (GRAPH, "weight4_bTransposed", (U, 0), "layer5: the weights between Side and One are 4 × 6, between Two and "
         "Output 6 × 4 are wanted"),
        (GRAPH, "weight1_bShared", (U, 1), "has no attribute weight1_sourceInputLayer; is it a network file?"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_named(
    tmp_path: Path, attributes: Attributes, name: str, value: tuple[int, Any], message: str
) -> None:
    vectors = literal_vectors() if attributes is LITERAL else graph_vectors()
    path = write_by_hand(tmp_path / "gl.nc", attributes | {name: value}, vectors)
    with pytest.raises(DataError) as caught:
        read_network_file(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_layers_that_feed_each_other_are_named(tmp_path: Path) -> None:
    circle = {"layer1_source0": (C, "Output"), "weight0_inputLayer": (C, "Output")}
    path = write_by_hand(tmp_path / "gl.nc", LITERAL | circle, literal_vectors())
    with pytest.raises(DataError, match=r"layers: layers feed each other in a circle: (Hidden|Output) <- "):
        read_network_file(path)


def test_any_value_of_any_attribute_gives_a_network_or_a_data_error(tmp_path: Path) -> None:
    rng, names, outcomes = np.random.default_rng(0), list(GRAPH), set()
    values = [
        *[(U, n) for n in (0, 1, 2, 3, 4, 5, 7, 2**31 - 1, 2**32 - 1)], (I, -1), (U8, 2**64 - 1), (F, np.inf), (F, 0.5),
        (C, ""), (C, "Pool"), (C, "Side"), (NC_STRING, "One"), (U, [1, 2]), (U, []),
    ]  # fmt: skip
    for _ in range(250):
        changes = {names[rng.integers(len(names))]: values[rng.integers(len(values))] for _ in range(2)}
        path = write_by_hand(tmp_path / "gl.nc", GRAPH | changes, graph_vectors())
        try:
            write_network(tmp_path / "again.nc", *read_network_file(path))
            outcomes.add("read")
        except DataError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    content = write_by_hand(tmp_path / "whole.nc", GRAPH, graph_vectors()).read_bytes()
    for kept in np.linspace(0, len(content) - 1, 40).astype(int).tolist():
        (tmp_path / "gl.nc").write_bytes(content[:kept])
        with pytest.raises(DataError, match=r"gl\.nc: "):
            read_network_file(tmp_path / "gl.nc")


@pytest.mark.parametrize("content", [None, b"", b"not NetCDF at all"], ids=["absent", "empty", "text"])
def test_what_is_no_netcdf_file_cannot_be_opened(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "gl.nc"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"gl\.nc: cannot be opened as a network file"):
        read_network_file(path)


@pytest.mark.parametrize("name", ["nul\0", "lone \ud800"])
def test_a_name_that_a_file_cannot_hold_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"gl\.nc: attribute name cannot hold "):
        write_network(tmp_path / "gl.nc", replace(LITERAL_SPEC, name=name), drawn(LITERAL_SPEC))
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path, weights = tmp_path / "gl.nc", drawn(LITERAL_SPEC)
    write_network(path, LITERAL_SPEC, weights)
    before = path.read_bytes()
    first, second = weights.connections
    for broken in ((first,), (second, first), (Connection(None, first.bias), second)):
        with pytest.raises(ValueError, match=r"zip|have shapes"):
            write_network(path, LITERAL_SPEC, Weights(broken))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["gl.nc"]
