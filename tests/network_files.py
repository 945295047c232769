"""Network files as DSSTNE writes them, made by hand, and the networks they hold."""

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import netCDF4
import numpy as np
import pytest
from netcdf_types import NC_CHAR, NC_STRING, NC_UINT, attribute_type

from trainer.network_types import (
    Activation,
    DeltaBoost,
    ErrorFunction,
    Kernel,
    LayerKind,
    LayerSpec,
    LayerType,
    MarginalScale,
    NetworkSpec,
    PoolingFunction,
    ResponseNormalization,
    SharedWeights,
    Sparseness,
)
from trainer.shapes import bias_size, weight_shape
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
