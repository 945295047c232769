"""What is wrong with a network file is one error that names it."""

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
    HAND_MADE,
    LITERAL,
    LITERAL_SPEC,
    U8,
    Attributes,
    C,
    F,
    I,
    U,
    Vectors,
    drawn,
    graph_vectors,
    literal_vectors,
    write_by_hand,
)

from trainer.errors import DataError
from trainer.network_file import read_network_file, write_network
from trainer.weights import Connection, Weights

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
        (GRAPH, "layer4_skip0", (C, "Side"), "layer4: NNNetwork::NNNetwork: Layer dimensions do not match for skip "
         "connection between layer Side and Two"),
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
