"""Sizes of layers: as they are given, as they follow from others, and as datasets bring them."""

from pathlib import Path

import pytest
from network_texts import IMAGE, IN, OUT, SMALL, network, read

from trainer.errors import NetworkError
from trainer.network import (
    AUTO,
    Kernel,
    LayerKind,
    LayerSpec,
    PoolingFunction,
    parameter_count,
    resolve_shapes,
)


def test_shapes_of_convolution_and_pooling_follow_from_the_file_alone_where_it_gives_all_sizes(folder: Path) -> None:
    spec = network(
        folder,
        IMAGE,
        {"Type": "Convolutional", "N": 16, "Kernel": [5, 5]},
        {"Type": "Pooling", "Function": "Max", "Kernel": [3, 3], "KernelStride": [2, 2], "N": 99},
        {"Type": "Pooling", "Function": "LocalResponseNormalization"},
        {"N": 10},
        {"N": 10, "Source": "Hidden3"},
        {"Type": "Pooling", "Function": "Cosine", "Source": ["Hidden4", "Hidden5", "Hidden4"]},
        {**OUT, "N": [4], "Type": "Convolutional", "Source": "Hidden6"},
    )
    assert [layer.shape for layer in spec.layers[1:]] == [
        (32, 32, 16), (15, 15, 16), (15, 15, 16), (10,), (10,), (2,), (2, 4),
    ]  # fmt: skip
    assert [layer.filters for layer in spec.layers] == [0, 16, 0, 0, 0, 0, 0, 4]
    assert [layer.pooling for layer in spec.layers if layer.pooling] == [
        PoolingFunction.MAX, PoolingFunction.LRN, PoolingFunction.COSINE,
    ]  # fmt: skip
    assert spec.layers[2].kernel == Kernel((3, 3), (2, 2))
    assert parameter_count(spec) == (5 * 5 * 3 * 16 + 16) + 2 * (15 * 15 * 16 * 10 + 10) + (4 + 4)


def test_a_stride_that_is_one_number_is_that_of_x(folder: Path) -> None:
    spec = network(folder, IMAGE, {"Type": "Convolutional", "N": 2, "Kernel": [4, 4], "KernelStride": 4}, OUT)
    assert spec.layers[1].kernel == Kernel((4, 4), (4, 1))
    assert spec.layers[1].shape == (8, 32, 2)


def test_shapes_that_depend_on_a_dataset_wait_for_it(folder: Path) -> None:
    spec = network(
        folder,
        {**IN, "N": "auto"},
        {"Name": "Conv", "Type": "Convolutional", "N": 4, "Kernel": [3, 3]},
        {"Name": "Pool", "Type": "Pooling", "Function": "Average", "Kernel": [2, 2], "KernelStride": [2, 2]},
        {"Name": "Skipping", "N": 16, "Skip": "Pool"},
        {**OUT, "N": "auto", "Type": "Convolutional", "Kernel": [1, 1], "Source": "Pool"},
    )
    assert [layer.shape for layer in spec.layers] == [AUTO, AUTO, AUTO, (16,), AUTO]
    resolved = resolve_shapes(spec, {"gl_input": (4, 4, 3), "gl_output": (2, 2, 5)})
    assert [layer.shape for layer in resolved.layers] == [(4, 4, 3), (4, 4, 4), (2, 2, 4), (16,), (2, 2, 5)]
    assert parameter_count(resolved) == (3 * 3 * 3 * 4 + 4) + (16 * 16 + 16) + (4 * 5 + 5)
    with pytest.raises(NetworkError) as caught:
        resolve_shapes(spec, {"gl_input": (6, 4, 3), "gl_output": (2, 2, 5)})
    assert str(caught.value) == (
        "$.Layers[3].Skip: NNNetwork::NNNetwork: Layer dimensions do not match for skip connection between layer "
        "Pool and Skipping: 24 and 16 units"
    )


def test_a_convolutional_output_may_give_its_sizes(folder: Path) -> None:
    conv = {"Type": "Convolutional", "Kernel": [3, 3]}
    spec = network(folder, IMAGE, {**OUT, **conv, "N": [32, 32, 4]})
    assert (spec.output.shape, spec.output.filters) == ((32, 32, 4), 4)
    late = network(folder, {**IN, "N": "auto"}, {**OUT, **conv, "N": [32, 32, 4]})
    with pytest.raises(NetworkError) as caught:
        resolve_shapes(late, {"gl_input": (16, 32, 3), "gl_output": (32, 32, 4)})
    assert str(caught.value) == (
        "$.Layers[1].Source: layer Out has 32 × 32 × 4 units, the convolution of In 16 × 32 × 4"
    )


def test_weights_that_are_shared_count_once(folder: Path) -> None:
    tied = {"InputLayer": "Code", "SourceInputLayer": "In", "SourceOutputLayer": "Code", "Transposed": True}
    spec = network(folder, IN, {"Name": "Code", "N": 4, "BatchNormalization": True}, {**OUT, "SharedWeights": tied})
    assert [(end.owner, end.transposed) for end in spec.connections] == [(0, False), (0, True)]
    assert parameter_count(spec) == 8 * 4 + 4 + 8 + 2 * 4


def test_an_encoder_may_share_the_weights_of_its_decoder(folder: Path) -> None:
    tied = {"InputLayer": "In", "SourceInputLayer": "Code", "SourceOutputLayer": "Out", "Transposed": 1}
    spec = network(folder, IN, {"Name": "Code", "N": 4, "SharedWeights": [tied]}, OUT)
    assert [end.owner for end in spec.connections] == [1, 1]


def test_shared_weights_of_unknown_size_are_checked_with_the_datasets(folder: Path) -> None:
    tied = {"InputLayer": "Code", "SourceInputLayer": "In", "SourceOutputLayer": "Code", "Transposed": True}
    spec = network(folder, {**IN, "N": "auto"}, {"Name": "Code", "N": 4}, {**OUT, "SharedWeights": tied})
    assert parameter_count(resolve_shapes(spec, {"gl_input": (8,), "gl_output": (8,)})) == 32 + 4 + 8
    with pytest.raises(NetworkError) as caught:
        resolve_shapes(spec, {"gl_input": (9,), "gl_output": (8,)})
    assert str(caught.value) == (
        "$.Layers[2].SharedWeights: the transposed weights between In and Code are 4 × 9, "
        "between Code and Out 4 × 8 are wanted"
    )


def test_filters_may_be_shared_and_layer_normalization_learns_scale_and_bias(folder: Path) -> None:
    conv = {"Type": "Convolutional", "N": 3, "Kernel": [3, 3], "LayerNormalization": True}
    shared = {"InputLayer": "One", "SourceInputLayer": "In", "SourceOutputLayer": "One"}
    spec = network(folder, IMAGE, {**conv, "Name": "One"}, {**conv, "Name": "Two", "SharedWeights": shared}, OUT)
    assert parameter_count(spec) == 3 * 3 * 3 * 3 + 2 * 3 + 2 * 2 * (32 * 32 * 3) + 32 * 32 * 3 * 8 + 8


def test_auto_becomes_the_sides_of_the_layers_dataset(tmp_path: Path) -> None:
    text = SMALL.replace('"N": 8', '"N": "auto"')
    spec = resolve_shapes(read(tmp_path, "{" + text + "}"), {"gl_input": (16, 16), "gl_output": (128,)})
    assert [layer.shape for layer in spec.layers] == [(16, 16), (4,), (128,)]
    assert parameter_count(spec) == 257 * 4 + 5 * 128


def test_a_layer_larger_than_its_dataset_keeps_its_size(tmp_path: Path) -> None:
    spec = resolve_shapes(read(tmp_path, "{" + SMALL + "}"), {"gl_input": (7,), "gl_output": (8,)})
    assert spec.input.width == 8


def test_a_dimension_of_one_is_as_good_as_none(tmp_path: Path) -> None:
    spec = read(tmp_path, "{" + SMALL + "}")
    assert resolve_shapes(spec, {"gl_input": (8, 1), "gl_output": (8, 1, 1)}) == spec


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            {"gl_input": (8,)},
            "$.Layers[2].DataSet: LoadNeuralNetworkJSON: Unable to find data set gl_output to determine dimensions for "
            "layer: Output2; there is gl_input",
        ),
        (
            {"gl_input": (9,), "gl_output": (8,)},
            "$.Layers[0].N: layer Input0 has 8 units, dataset gl_input 9",
        ),
        (
            {"gl_input": (4, 2), "gl_output": (8,)},
            "$.Layers[0].N: layer Input0 has 8 units, dataset gl_input 4 × 2",
        ),
    ],
)
def test_a_dataset_that_does_not_fit_its_layer_is_named(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    spec = read(tmp_path, "{" + SMALL + "}")
    with pytest.raises(NetworkError) as caught:
        resolve_shapes(spec, shapes)
    assert str(caught.value) == message


def test_a_pooling_output_must_hold_its_dataset(folder: Path) -> None:
    spec = network(folder, IMAGE, {**OUT, "Type": "Pooling", "Function": "Max", "Kernel": 4}, ErrorFunction="L2")
    with pytest.raises(NetworkError) as caught:
        resolve_shapes(spec, {"gl_input": (32, 32, 3), "gl_output": (32, 33)})
    assert str(caught.value) == "$.Layers[1].N: layer Out has 32 × 32 × 3 units, dataset gl_output 32 × 33"


def test_what_a_pooling_output_does_not_compute_does_not_trouble_it(folder: Path) -> None:
    pooling = {"Type": "Pooling", "Function": "Max", "Activation": "SoftMax", "pDropout": 0.5, "N": 99}
    assert network(folder, IN, {**OUT, **pooling}, ErrorFunction="L2").output.shape == (8,)


def test_a_width_asked_for_too_early_says_which_layer() -> None:
    with pytest.raises(ValueError, match="layer Input: the shape is not resolved yet"):
        _ = LayerSpec("Input", LayerKind.INPUT, AUTO).width
