import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from trainer_networks import chain, with_layer

from trainer.errors import DataError
from trainer.network import (
    Activation,
    ErrorFunction,
    LayerKind,
    LayerSpec,
    MarginalScale,
    NetworkKind,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    ResponseNormalization,
    Sparseness,
    WeightInit,
    WeightScheme,
    read_network,
    resolve_widths,
)
from trainer.network_file import Connection, read_network_file, write_network

ROOT = Path(__file__).parents[2]
U, I, F, C, U8 = np.uint32, np.int32, np.float32, str, np.uint64  # noqa: E741 - NetCDF types of spec section 6

Attributes = dict[str, tuple[type, Any]]


def literal() -> tuple[NetworkSpec, tuple[Connection, ...]]:
    spec = read_network(ROOT / "configs/networks/dsstne-movielens.json")
    spec = with_layer(resolve_widths(spec, {"gl_input": 6, "gl_output": 4}), 1, units=3)
    return spec, drawn(spec)


def drawn(spec: NetworkSpec) -> tuple[Connection, ...]:
    rng = np.random.default_rng(0)
    widths = [layer.width for layer in spec.layers]
    shapes = pairwise(widths)
    return tuple(Connection(rng.normal(size=s).astype(F), rng.normal(size=s[1]).astype(F)) for s in shapes)


def layer_attributes(number: int, name: str, kind: int, width: int, **own: tuple[type, Any]) -> Attributes:
    """Everything spec 6.2 demands of a layer, by hand."""
    attributes: Attributes = {
        "name": (C, name), "kind": (U, kind), "type": (U, 0), "poolingfunction": (U, 0), "dataSet": (C, ""),
        "Nx": (U, width), "Ny": (U, 1), "Nz": (U, 1), "Nw": (U, 1), "dimensions": (U, 1),
        "kernelX": (U, 1), "kernelY": (U, 1), "kernelZ": (U, 1), "kernelDimensions": (U, 1),
        "kernelStrideX": (U, 1), "kernelStrideY": (U, 1), "kernelStrideZ": (U, 1),
        "kernelPaddingX": (U, 0), "kernelPaddingY": (U, 0), "kernelPaddingZ": (U, 0),
        "pDropout": (F, 0.0), "weightInit": (U, 0), "weightInitScale": (F, 1.0), "biasInit": (F, 0.0),
        "weightNorm": (F, 0.0), "deltaNorm": (F, 0.0), "activation": (U, 0),
        "sparsenessPenalty_p": (F, 0.0), "sparsenessPenalty_beta": (F, 0.0),
        "RELUSlope": (F, 1.0), "ELUAlpha": (F, 1.0), "SELULambda": (F, 1.050701),
        "attributes": (U, 1), "sources": (U, 0), "skips": (U, 0),
    }  # fmt: skip
    return {f"layer{number}_{key}": value for key, value in {**attributes, **own}.items()}


def weight_attributes(number: int, before: str, after: str, *, shape: tuple[int, int]) -> Attributes:
    """Everything spec 6.3 demands of a weight matrix, by hand."""
    attributes: Attributes = {
        "inputLayer": (C, before), "outputLayer": (C, after), "width": (U8, shape[1]), "height": (U8, shape[0]),
        "length": (U8, 1), "depth": (U8, 1), "breadth": (U8, 1), "bShared": (U, 0), "bLocked": (U, 0),
        "norm": (F, 0.0),
    }  # fmt: skip
    return {f"weight{number}_{key}": value for key, value in attributes.items()}


LITERAL: Attributes = {
    "version": (F, 0.9), "name": (C, "AE"), "kind": (U, 0), "errorFunction": (U, 3), "maxout_k": (I, 2),
    "decay": (F, 0.0), "LRN_k": (F, 2.0), "LRN_n": (I, 5), "LRN_alpha": (F, 0.0001), "LRN_beta": (F, 0.75),
    "bSparsenessPenalty": (U, 1), "sparsenessPenalty_p": (F, 0.5), "sparsenessPenalty_beta": (F, 2.0),
    "bDenoising": (U, 1), "denoising_p": (F, 0.2), "deltaBoost_one": (F, 1.0), "deltaBoost_zero": (F, 1.0),
    "SMCE_oneScale": (F, 1.0), "SMCE_zeroScale": (F, 1.0), "SMCE_oneTarget": (F, 1.0), "SMCE_zeroTarget": (F, 0.0),
    "ShuffleIndices": (U, 0), "layers": (U, 3), "weights": (U, 2),
    **layer_attributes(0, "Input", 0, 6, dataSet=(C, "gl_input"), attributes=(U, 3)),
    **layer_attributes(1, "Hidden", 1, 3, sources=(U, 1), source0=(C, "Input")),
    **layer_attributes(2, "Output", 2, 4, sources=(U, 1), source0=(C, "Hidden"), dataSet=(C, "gl_output")),
    **weight_attributes(0, "Input", "Hidden", shape=(6, 3)),
    **weight_attributes(1, "Hidden", "Output", shape=(3, 4)),
}  # fmt: skip
"""DSSTNE's MovieLens sample at toy size: each attribute of spec section 6 with its type and value."""


def write_by_hand(path: Path, attributes: Attributes, connections: tuple[Connection, ...]) -> Path:
    """A network file as the spec describes it, by means that know nothing of the trainer."""
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        for name, (kind, value) in attributes.items():
            if kind is str:
                file.setncattr(name, np.bytes_(value.encode()))
            else:
                file.setncattr(name, kind(value))
        for number, (kernel, bias) in enumerate(connections):
            for name, dimension, values in (("bias", "biasDim", bias), ("weights", "weightDim", kernel.ravel())):
                file.createDimension(f"weight{number}_{dimension}", len(values))
                file.createVariable(f"weight{number}_{name}", "f4", (f"weight{number}_{dimension}",))[:] = values
    return path


def attributes_in(path: Path) -> Attributes:
    with netCDF4.Dataset(path) as file:
        values = {name: file.getncattr(name) for name in file.ncattrs()}
    return {name: (C if isinstance(value, str) else type(value), value) for name, value in values.items()}


def test_every_attribute_has_the_name_type_and_value_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "gl.nc"
    write_network(path, *literal())
    expected = {name: (kind, kind(value)) for name, (kind, value) in LITERAL.items()}
    assert attributes_in(path) == expected


def test_texts_are_char_arrays_and_not_strings(tmp_path: Path) -> None:
    path = tmp_path / "gl.nc"
    spec, connections = literal()
    write_network(path, replace(spec, name="Réseau"), connections)
    content = path.read_bytes()
    texts = [name for name, (kind, _) in LITERAL.items() if kind is C]
    for name in texts:
        # In HDF5 a name is followed by its type: 0x13 is text of fixed length, 0x19 one of variable length.
        kinds = {content[found.end()] for found in re.finditer(rb"(?<![a-z0-9_])" + name.encode() + rb"\0", content)}
        assert kinds == {0x13}, name
    assert read_network_file(path)[0].name == "Réseau"


def test_weights_are_flat_and_row_major_from_input_to_output(tmp_path: Path) -> None:
    path = tmp_path / "gl.nc"
    spec, connections = literal()
    write_network(path, spec, connections)
    with netCDF4.Dataset(path) as file:
        assert {name: dimension.size for name, dimension in file.dimensions.items()} == {
            "weight0_biasDim": 3, "weight0_weightDim": 18, "weight1_biasDim": 4, "weight1_weightDim": 12,
        }  # fmt: skip
        assert file.data_model == "NETCDF4"
        for number, (kernel, bias) in enumerate(connections):
            weights = file[f"weight{number}_weights"]
            assert (weights.dtype, weights.dimensions) == (np.float32, (f"weight{number}_weightDim",))
            flat = [kernel[i, j] for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]
            np.testing.assert_array_equal(weights[:], flat)
            np.testing.assert_array_equal(file[f"weight{number}_bias"][:], bias)


def test_a_file_written_by_someone_else_is_read(tmp_path: Path) -> None:
    spec, connections = literal()
    read, back = read_network_file(write_by_hand(tmp_path / "gl.nc", LITERAL, connections))
    assert read == spec
    for given, returned in zip(connections, back, strict=True):
        np.testing.assert_array_equal(given.kernel, returned.kernel)
        np.testing.assert_array_equal(given.bias, returned.bias)


def test_what_the_format_calls_optional_may_be_absent_and_what_it_does_not_know_is_ignored(tmp_path: Path) -> None:
    spec, connections = literal()
    optional = {"decay", "weight0_bLocked", "weight1_bLocked", "weight0_norm", "weight1_norm"}
    optional |= {name for name in LITERAL if name.endswith("poolingfunction")}
    attributes = {name: value for name, value in LITERAL.items() if name not in optional}
    attributes |= {"checkpoint_name": (C, "gl.nc"), "checkpoint_interval": (I, 10), "someone_elses": (F, 1.0)}
    # On several devices DSSTNE stores one device's part here.
    attributes["weight0_width"] = (U8, 1)
    assert read_network_file(write_by_hand(tmp_path / "gl.nc", attributes, connections))[0] == spec


def rich() -> NetworkSpec:
    """Every field away from its default."""
    slopes = {"relu_slope": 0.1, "elu_alpha": 1.5, "selu_lambda": 1.25}
    first = LayerSpec("In", LayerKind.INPUT, 7, sparse=True, dataset="gl_input", normalize=True, **slopes)
    hidden = LayerSpec(
        "One", LayerKind.HIDDEN, 5, ("In",), Activation.SCALED_EXPONENTIAL_LINEAR, sparse=True, dropout=0.3,
        weight_init=WeightInit(WeightScheme.GAUSSIAN, 0.01, -10.2), sparseness=Sparseness(0.1, 0.2), **slopes,
    )  # fmt: skip
    output = LayerSpec(
        "Out", LayerKind.OUTPUT, 9, ("One",), Activation.SOFT_MAX, sparse=True, dataset="gl_output",
        weight_init=WeightInit(WeightScheme.UNIFORM, 0.7, log_odds=True), **slopes,
    )  # fmt: skip
    return NetworkSpec(
        "rich", (first, hidden, output), NetworkKind.AUTO_ENCODER, ErrorFunction.CROSS_ENTROPY,
        MarginalScale(0.7, 0.2, 1.1, 0.9), denoising=0.35, sparseness=Sparseness(0.3, 0.0), shuffle=False,
        decay=0.05, optimizer=OptimizerSpec(OptimizerName.ADAM, 0.003, None, 0.8, None),
        response_normalization=ResponseNormalization(1.0, 3, 0.002, 0.5), maxout_k=4,
    )  # fmt: skip


@pytest.mark.parametrize(
    "spec", [rich(), chain((4, 4)), replace(chain((4, 5), hidden=(2, 3)), name="")], ids=["rich", "plain", "deep"]
)
def test_a_network_read_is_the_network_written_and_writes_the_same_file(tmp_path: Path, spec: NetworkSpec) -> None:
    connections = drawn(spec)
    write_network(tmp_path / "first.nc", spec, connections)
    read, back = read_network_file(tmp_path / "first.nc")
    assert read == spec
    write_network(tmp_path / "second.nc", read, back)
    assert attributes_in(tmp_path / "second.nc") == attributes_in(tmp_path / "first.nc")
    for given, returned in zip(connections, read_network_file(tmp_path / "second.nc")[1], strict=True):
        np.testing.assert_array_equal(given.kernel, returned.kernel)
        np.testing.assert_array_equal(given.bias, returned.bias)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "gl.nc"
    spec, connections = literal()
    write_network(path, spec, connections)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="zip"):
        write_network(path, spec, connections[:1])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["gl.nc"]


def without(name: str) -> Callable[[Attributes], Any]:
    return lambda attributes: attributes.pop(name)


def changed(name: str, value: Any) -> Callable[[Attributes], Any]:
    return lambda attributes: attributes.update({name: (LITERAL[name][0], value)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("kind"), "has no attribute kind; is it a network file?"),
        (without("layer1_activation"), "has no attribute layer1_activation; is it a network file?"),
        (without("weight1_outputLayer"), "has no attribute weight1_outputLayer; is it a network file?"),
        (changed("errorFunction", 99), "errorFunction is 99, which names nothing"),
        (changed("layer1_activation", 13), "layer1_activation is 13, which names nothing"),
        (changed("layer1_activation", 5), "layer1_activation SOFT_PLUS is not computed yet"),
        (changed("layer1_activation", 7), "layer1_activation SOFT_MAX is not computed yet"),
        (changed("errorFunction", 5), "errorFunction HINGE on SIGMOID is not computed yet"),
        (changed("layer2_activation", 1), "errorFunction SCALED_MARGINAL_CROSS_ENTROPY on TANH is not computed yet"),
        (changed("layer1_type", 1), "layer Hidden: only chains of plain fully connected layers are computed yet"),
        (changed("layer1_attributes", 4), "layer Hidden: only chains of plain fully connected layers are computed yet"),
        (changed("layer2_sources", 2), "layer Output: only chains of plain fully connected layers are computed yet"),
        (changed("layer1_kind", 0), "the layers are not one Input, Hidden layers and one Output in this order"),
        (changed("weights", 1), "3 layers and 1 weights are no chain"),
        (changed("weight1_inputLayer", "Input"), "weight1_inputLayer and outputLayer do not follow the layers"),
        (changed("layer1_Nx", 4), "weight0_weights has shape (18,), (24,) is wanted"),
    ],
)
def test_a_file_that_cannot_be_computed_is_named_with_what_is_wrong(
    tmp_path: Path, change: Callable[[Attributes], Any], message: str
) -> None:
    attributes = dict(LITERAL)
    change(attributes)
    path = write_by_hand(tmp_path / "gl.nc", attributes, literal()[1])
    with pytest.raises(DataError) as caught:
        read_network_file(path)
    assert str(caught.value) == f"{path}: {message}"


def test_weights_that_are_not_there_are_missed(tmp_path: Path) -> None:
    path = write_by_hand(tmp_path / "gl.nc", LITERAL, literal()[1][:1])
    with pytest.raises(DataError, match=r"gl\.nc: has no variable weight1_weights"):
        read_network_file(path)


@pytest.mark.parametrize("content", [None, b"", b"not NetCDF at all"], ids=["absent", "empty", "text"])
def test_what_is_no_netcdf_file_cannot_be_opened(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "gl.nc"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"gl\.nc: cannot be opened as a network file"):
        read_network_file(path)
