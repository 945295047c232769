import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.errors import NetworkError
from trainer.jsontree import read_json
from trainer.network import (
    AUTO,
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
    parameter_count,
    read_network,
    resolve_shapes,
)
from trainer.network_names import (
    ACTIVATIONS,
    ERROR_FUNCTIONS,
    LAYER_KEYS,
    LAYER_KINDS,
    LAYER_TYPES,
    NETWORK_KEYS,
    fits_output,
    why_not_target,
)

ROOT = Path(__file__).parents[2]
CASES = sorted((ROOT / "tests/cases/networks").glob("*.json"))

SMALL = '"Layers": [{"N": 8, "DataSet": "gl_input"}, {"N": 4}, {"N": 8, "DataSet": "gl_output"}]'
IN: dict[str, Any] = {"Kind": "Input", "Name": "In", "N": 8, "DataSet": "gl_input"}
OUT: dict[str, Any] = {"Kind": "Output", "Name": "Out", "N": 8, "DataSet": "gl_output"}
IMAGE: dict[str, Any] = {**IN, "N": [32, 32, 3]}

# Beside plain values, words that mean something somewhere in the language.
WORDS = [*ACTIVATIONS, *ERROR_FUNCTIONS, *LAYER_KINDS, *LAYER_TYPES, "auto", "LogOdds", "Max", "Input0", "Hidden1"]
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(WORDS)
)
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from([*NETWORK_KEYS, *LAYER_KEYS]), inner, max_size=4)
    ),
    max_leaves=12,
)
ENUMERATED = {"kind", "type", "activation", "scheme", "function", "errorfunction", "n", "bias", "schedule", "precision"}
NAMES = "ABCDEF"
UNITS = st.sampled_from([4, [2, 2], [2, 2, 1], 1, "auto"])
LINKS = {key: st.sampled_from(NAMES[:3]) for key in ("SourceInputLayer", "SourceOutputLayer")}
HIDDEN = st.fixed_dictionaries(
    {"N": st.sampled_from([4, 4, [2, 2], 1])},
    optional={
        "pDropout": st.floats(0, 1),
        "Kernel": st.lists(st.integers(1, 3), min_size=1, max_size=3),
        "KernelStride": st.integers(1, 2),
        "Activation": st.sampled_from([*ACTIVATIONS]),
        "BatchNormalization": st.booleans(),
    },
)
POOLING = st.fixed_dictionaries(
    {"Type": st.just("Pooling"), "Function": st.sampled_from(["Max", "Average", "LRN", "Cosine", "Maxout"])},
    optional={"Kernel": st.lists(st.integers(1, 3), min_size=1, max_size=3), "Activation": st.just("Relu")},
)


@st.composite
def likely_networks(draw: st.DrawFn) -> dict[str, Any]:
    """Networks of every structure, many of them legal."""
    count = draw(st.integers(2, len(NAMES)))
    layers: list[dict[str, Any]] = [{"Name": "A", "Kind": "Input", "N": draw(UNITS)}]
    for number in range(1, count):
        before, later = st.sampled_from(NAMES[:number]), st.sampled_from(NAMES[:count])
        layer: dict[str, Any] = {"Name": NAMES[number], **draw(HIDDEN | HIDDEN | POOLING)}
        layer["Source"] = draw(st.lists(before, min_size=1, max_size=2, unique=True) | before | before)
        layers.append(layer)
        roll = draw(st.integers(0, 9)) if "N" in layer else 9
        if roll == 0:
            layer["Source"] = draw(later)
        elif roll == 1:
            layer["Skip"] = draw(before | later)
        elif roll == 2:
            shared = {"InputLayer": draw(before), "Transposed": draw(st.booleans())}
            layer["SharedWeights"] = {**shared, **draw(st.fixed_dictionaries(LINKS))}
        elif roll in (3, 4):
            layer |= {"Type": "Convolutional", "N": draw(st.integers(1, 3))}
    layers[-1].pop("BatchNormalization", None)
    return {"Layers": layers, "ErrorFunction": draw(st.sampled_from(["L2", "L1", *ERROR_FUNCTIONS]))}


NETWORKS = likely_networks()


def read(folder: Path, text: str, *, strict_dsstne: bool = False) -> NetworkSpec:
    path = folder / "network.json"
    path.write_text(text, encoding="utf-8")
    return read_network(path, strict_dsstne=strict_dsstne)


def network(folder: Path, *layers: dict[str, Any], strict_dsstne: bool = False, **members: Any) -> NetworkSpec:
    return read(folder, json.dumps({**members, "Layers": layers}), strict_dsstne=strict_dsstne)


def refusal(folder: Path, *layers: dict[str, Any], strict_dsstne: bool = False, **members: Any) -> str:
    with pytest.raises(NetworkError) as caught:
        network(folder, *layers, strict_dsstne=strict_dsstne, **members)
    return str(caught.value).removeprefix(f"{folder / 'network.json'}: ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_broken_network_is_refused_by_json_path_as_its_first_line_says(case: Path) -> None:
    message = case.read_text(encoding="utf-8").splitlines()[0].removeprefix("// ")
    with pytest.raises(NetworkError) as caught:
        read_network(case)
    assert str(caught.value) == message.replace("FILE", str(case), 1)
    assert caught.value.exit_status == 2


def test_there_are_broken_networks_to_refuse() -> None:
    assert len(CASES) > 100


def test_dsstnes_own_sample_is_read_to_the_letter() -> None:
    assert read_network(ROOT / "configs/networks/dsstne-movielens.json") == NetworkSpec(
        name="AE",
        kind=NetworkKind.FEED_FORWARD,
        loss=ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY,
        marginal=MarginalScale(1.0, 0.0, 1.0, 1.0),
        denoising=0.2,
        sparseness=Sparseness(0.5, 2.0),
        shuffle=False,
        layers=(
            LayerSpec("Input", LayerKind.INPUT, AUTO, (), sparse=True, dataset="gl_input"),
            LayerSpec("Hidden", LayerKind.HIDDEN, (128,), ("Input",), sparse=True),
            LayerSpec("Output", LayerKind.OUTPUT, AUTO, ("Hidden",), sparse=True, dataset="gl_output"),
        ),
    )


def test_what_a_network_leaves_out_has_dsstnes_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "{" + SMALL + "}") == NetworkSpec(
        name="",
        kind=NetworkKind.FEED_FORWARD,
        loss=ErrorFunction.CROSS_ENTROPY,
        marginal=MarginalScale(0.9, 0.1, 1.0, 1.0),
        denoising=0.0,
        sparseness=Sparseness(0.0, 0.0),
        shuffle=True,
        decay=0.0,
        optimizer=None,
        response_normalization=ResponseNormalization(2.0, 5, 0.0001, 0.75),
        maxout_k=2,
        layers=(
            LayerSpec("Input0", LayerKind.INPUT, (8,), (), dataset="gl_input"),
            LayerSpec(
                "Hidden1", LayerKind.HIDDEN, (4,), ("Input0",), Activation.SIGMOID,
                weight_init=WeightInit(WeightScheme.XAVIER, 1.0, 0.0, log_odds=False), dropout=0.0,
                relu_slope=1.0, elu_alpha=1.0, selu_lambda=1.050701,
            ),
            LayerSpec("Output2", LayerKind.OUTPUT, (8,), ("Hidden1",), dataset="gl_output"),
        ),
    )  # fmt: skip


EVERYTHING = """
{
    /* keys and enumerated values in any case */
    "version": 0.7, "NAME": "all", "kind": "autoencoder", "errorfunction": "cross ENTROPY",
    "LRN": {"K": 1, "n": 3, "alpha": 0.5, "beta": 0.25}, "Maxout": {"k": 4},
    "SparsenessPenalty": {"p": 0.25, "beta": 3}, "Denoising": {"P": 0.5},
    "DataScaledMarginalCrossEntropy": {"oneTarget": 1, "zeroTarget": 0, "oneScale": 2, "zeroScale": 3},
    "DeltaBoost": {"one": 5, "zero": 0.5}, "ShuffleIndices": 0, "Slope": 0.125, "ELUAlpha": 2, "SELULambda": 1.5,
    "Decay": 0.01, "Precision": "BFloat16",
    "Optimizer": {"Name": "rmsprop", "LearningRate": 0.5, "WeightDecay": 0, "Momentum": 0.9, "Momentum2": 0.99,
                  "Clip": 1, "Warmup": 10, "Schedule": "cosine", "Steps": 1000},
    "Layers": [
        {"Kind": "INPUT", "Type": "FULLYCONNECTED", "Name": "In", "N": "AUTO", "DataSet": "gl_input", "Sparse": 1,
         "Normalize": true, "pDropout": 0.5},
        {"Kind": "hidden", "Name": "One", "N": [16, 2], "Source": "In", "Activation": "LRELU", "pDropout": 0.25,
         "Sparse": true, "SparsenessPenalty": {"p": 0.1, "beta": 1},
         "WeightInit": {"Scheme": "GAUSSIAN", "Scale": 0.01, "Bias": -1}, "Kernel": 1, "KernelStride": 1,
         "BatchNormalization": 1, "WeightNorm": 2.5, "DeltaNorm": 1.5},
        {"Name": "Two", "N": 32.9, "Source": ["One", "In"], "Activation": "silu", "RELUSlope": 0.5, "ELUAlpha": 1.75,
         "SELULambda": 1.25, "SparsenessPenalty": true, "Skip": "One", "LayerNormalization": true},
        {"Name": "Three", "N": 32, "SharedWeights": {"inputlayer": "Two", "SourceInputLayer": "Two",
         "SourceOutputLayer": "Four", "Transposed": 1}},
        {"Name": "Four", "N": 32, "Source": "Two", "Skip": ["One", "Two"]},
        {"Kind": "Output", "Name": "Out", "N": "auto", "DataSet": "gl_output", "Sparse": true,
         "Activation": "softmax", "WeightInit": {"Bias": "logodds"}, "ErrorFunction": {"function": "L2", "Weight": 3}}
    ]
} and what comes after is ignored
"""


def test_every_key_reaches_the_network(tmp_path: Path) -> None:
    slopes: dict[str, Any] = {"relu_slope": 0.125, "elu_alpha": 2.0, "selu_lambda": 1.5}
    own_slopes: dict[str, Any] = {"relu_slope": 0.5, "elu_alpha": 1.75, "selu_lambda": 1.25}
    hidden, output = LayerKind.HIDDEN, LayerKind.OUTPUT
    first = LayerSpec(
        "In", LayerKind.INPUT, AUTO, sparse=True, dataset="gl_input", normalize=True, dropout=0.5, **slopes
    )
    one = LayerSpec(
        "One", hidden, (16, 2), ("In",), Activation.LEAKY_RECTIFIED_LINEAR, sparse=True, dropout=0.25,
        sparseness=Sparseness(0.1, 1.0), weight_init=WeightInit(WeightScheme.GAUSSIAN, 0.01, -1.0),
        batch_normalization=True, weight_norm=2.5, delta_norm=1.5, **slopes,
    )  # fmt: skip
    two = LayerSpec(
        "Two", hidden, (32,), ("One", "In"), Activation.SILU, skips=("One",), layer_normalization=True, **own_slopes
    )
    three = LayerSpec("Three", hidden, (32,), ("Two",), shared=(SharedWeights("Two", "Two", "Four", True),), **slopes)
    four = LayerSpec("Four", hidden, (32,), ("Two",), skips=("One", "Two"), **slopes)
    out = LayerSpec(
        "Out", output, AUTO, ("Four",), Activation.SOFT_MAX, sparse=True, dataset="gl_output",
        weight_init=WeightInit(log_odds=True), loss=ErrorFunction.L2, loss_weight=3.0, **slopes,
    )  # fmt: skip
    assert read(tmp_path, EVERYTHING) == NetworkSpec(
        name="all",
        kind=NetworkKind.AUTO_ENCODER,
        loss=ErrorFunction.CROSS_ENTROPY,
        marginal=MarginalScale(1.0, 0.0, 2.0, 3.0),
        denoising=0.5,
        sparseness=Sparseness(0.25, 3.0),
        shuffle=False,
        decay=0.01,
        optimizer=OptimizerSpec(OptimizerName.RMSPROP, 0.5, 0.0, 0.9, 0.99, 1.0, 10, Schedule.COSINE, 1000),
        response_normalization=ResponseNormalization(1.0, 3, 0.5, 0.25),
        maxout_k=4,
        delta_boost=DeltaBoost(5.0, 0.5),
        bfloat16=True,
        layers=(first, one, two, three, four, out),
    )


def test_of_two_spellings_of_a_key_the_last_in_byte_order_counts(tmp_path: Path) -> None:
    assert read(tmp_path, '{"name": "small", "NAME": "large", ' + SMALL + "}").name == "small"


@pytest.mark.parametrize(("name", "activation"), ACTIVATIONS.items())
def test_every_activation_is_read_on_hidden_layers_and_on_outputs_of_a_loss_that_takes_any(
    folder: Path, name: str, activation: Activation
) -> None:
    spec = network(folder, IN, {"Activation": name}, {**OUT, "Activation": name}, ErrorFunction="L2")
    assert [layer.activation for layer in spec.layers[1:]] == [activation, activation]


def test_what_stands_in_several_places_of_the_list_keeps_its_place(folder: Path) -> None:
    spec = network(
        folder,
        {**OUT, "Source": ["Late", "In"]},
        {"Name": "Late", "N": 4, "Source": ["In", "Other"]},
        IN,
        {**IN, "Name": "Other", "N": 3},
        {**OUT, "Name": "Output"},
    )
    assert [layer.name for layer in spec.layers] == ["Out", "Late", "In", "Other", "Output"]
    assert [(end.source.name, end.target.name) for end in spec.connections] == [
        ("Late", "Out"), ("In", "Out"), ("In", "Late"), ("Other", "Late"), ("Other", "Output"),
    ]  # fmt: skip
    assert [layer.name for layer in spec.inputs] == ["In", "Other"]
    assert spec.output.name == "Output"


def test_any_number_of_sources_may_feed_a_layer(folder: Path) -> None:
    inputs = [{**IN, "Name": f"In{number}", "N": number + 1} for number in range(7)]
    spec = network(folder, *inputs, {**OUT, "Source": [layer["Name"] for layer in inputs]})
    assert parameter_count(spec) == sum((number + 1) * 8 + 8 for number in range(7))


def test_a_target_layer_takes_part_in_nothing(folder: Path) -> None:
    target = {"Kind": "Target", "Name": "Wanted", "N": [2, 2], "Source": "In", "Kernel": 3, "Type": "Pooling"}
    spec = network(folder, IN, target, {"N": 4}, OUT)
    assert spec.layer("Wanted").sources == ()
    assert spec.layer("Hidden2").sources == ("In",)
    assert parameter_count(spec) == 9 * 4 + 5 * 8


def test_dropout_and_type_of_an_input_are_read(folder: Path) -> None:
    first = network(folder, {**IN, "pDropout": 0.25, "Type": "Convolutional"}, OUT).input
    assert (first.dropout, first.type, first.shape) == (0.25, LayerType.FULLY_CONNECTED, (8,))


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
    assert str(caught.value) == ("$.Layers[3].Skip: layer Skipping has 16 units, Pool 24; a skip needs equal sizes")


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
        ({"gl_input": (8,)}, "$.Layers[2].DataSet: layer Output2: no dataset is called 'gl_output'; there is gl_input"),
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


@pytest.mark.parametrize("name", ["movielens.json", "dsstne-movielens.json"])
def test_shipped_networks_are_read(name: str) -> None:
    assert read_network(ROOT / "configs/networks" / name).input.sparse


def test_dsstnes_own_sample_is_read_strictly() -> None:
    path = ROOT / "configs/networks/dsstne-movielens.json"
    assert read_network(path, strict_dsstne=True) == read_network(path)


@pytest.mark.parametrize(
    ("layers", "members", "path"),
    [
        ([IN, OUT], {"Optimizer": {"Name": "Adam"}}, "$.Optimizer"),
        ([IN, OUT], {"Precision": "float32"}, "$.Precision"),
        ([IN, OUT], {"ErrorFunction": "multinomial"}, "$.ErrorFunction"),
        ([{**IN, "Normalize": False}, OUT], {}, "$.Layers[0].Normalize"),
        ([IN, {"LayerNormalization": True}, OUT], {}, "$.Layers[1].LayerNormalization"),
        ([IN, {"activation": "gelu"}, OUT], {}, "$.Layers[1].activation"),
        ([IN, {"Activation": "SiLU"}, OUT], {}, "$.Layers[1].Activation"),
        ([IN, {**OUT, "WeightInit": {"Bias": "LogOdds"}}], {}, "$.Layers[1].WeightInit.Bias"),
        ([IN, {**OUT, "ErrorFunction": "CrossEntropy"}], {}, "$.Layers[1].ErrorFunction"),
    ],
)
def test_a_strict_reading_refuses_each_extension(
    folder: Path, layers: list[dict[str, Any]], members: dict[str, Any], path: str
) -> None:
    assert network(folder, *layers, **members).layers
    message = f"{path}: an extension, which DSSTNE does not know"
    assert refusal(folder, *layers, strict_dsstne=True, **members) == message


def test_multinomial_is_the_cross_entropy_of_a_softmax(folder: Path) -> None:
    spec = network(
        folder, IN, {"N": 4}, {**OUT, "Name": "A"}, {**OUT, "ErrorFunction": "L1"}, ErrorFunction="Multinomial"
    )
    assert spec.loss is ErrorFunction.CROSS_ENTROPY
    assert [layer.activation for layer in spec.layers[1:]] == [
        Activation.SIGMOID, Activation.SOFT_MAX, Activation.SIGMOID,
    ]  # fmt: skip
    own = network(folder, IN, {**OUT, "ErrorFunction": "Multinomial", "Activation": "SoftMax"}, ErrorFunction="L2")
    assert (own.loss_of(own.output), own.output.activation) == (ErrorFunction.CROSS_ENTROPY, Activation.SOFT_MAX)


@pytest.mark.parametrize(
    ("written", "loss", "weight"),
    [
        ("l2", ErrorFunction.L2, 1.0),
        ({"Name": "Hinge", "Weight": 0.5}, ErrorFunction.HINGE, 0.5),
        ({"Function": "L1"}, ErrorFunction.L1, 1.0),
        ({"Weight": 2}, ErrorFunction.CROSS_ENTROPY, 2.0),
    ],
)
def test_an_output_may_have_its_own_loss(folder: Path, written: Any, loss: ErrorFunction, weight: float) -> None:
    spec = network(folder, IN, {**OUT, "ErrorFunction": written})
    assert (spec.loss_of(spec.output), spec.output.loss_weight) == (loss, weight)


def test_an_outputs_own_loss_must_fit_it(folder: Path) -> None:
    message = "$.Layers[1]: DataScaledMarginalCrossEntropy needs an Output with Activation Sigmoid"
    output = {**OUT, "Activation": "Tanh", "ErrorFunction": "DataScaledMarginalCrossEntropy"}
    assert refusal(folder, IN, output, ErrorFunction="L2") == message


def test_cross_entropies_fit_their_outputs_only_and_other_losses_all() -> None:
    cross = (ErrorFunction.CROSS_ENTROPY, ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY)
    fitting = {(loss, activation) for loss in cross for activation in (Activation.SIGMOID, Activation.SOFT_MAX)}
    fitting |= {(ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY, Activation.SIGMOID)}
    others = (ErrorFunction.L1, ErrorFunction.L2, ErrorFunction.HINGE, ErrorFunction.L2_HINGE)
    fitting |= {(loss, activation) for loss in others for activation in Activation}
    pairs = {(loss, activation) for loss in ErrorFunction for activation in Activation}
    assert {pair for pair in pairs if fits_output(*pair)} == fitting


def test_hinge_wants_dense_targets_and_data_scaled_cross_entropy_sparse_ones() -> None:
    refused = {
        (loss, sparse) for loss in ErrorFunction for sparse in (False, True) if why_not_target(loss, sparse=sparse)
    }
    assert refused == {(ErrorFunction.HINGE, True), (ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY, False)}
    assert why_not_target(ErrorFunction.HINGE, sparse=True) == "Hinge needs a dense dataset"


def test_json_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="nested too deeply"):
        read(tmp_path, "[" * 100_000)


@given(tree=ANYTHING | NETWORKS)
def test_any_json_gives_a_network_or_an_error_of_the_network(folder: Path, tree: Any) -> None:
    spec = _outcome(folder, tree)
    assert spec is None or (spec.inputs and spec.outputs)


@given(tree=NETWORKS, sides=st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_any_network_is_resolved_to_the_last_layer_or_refused(folder: Path, tree: Any, sides: list[int]) -> None:
    spec = _outcome(folder, tree)
    if spec is None:
        return
    try:
        resolved = resolve_shapes(spec, {"": tuple(sides)})
    except NetworkError:
        return
    assert AUTO not in [layer.shape for layer in resolved.layers]
    assert parameter_count(resolved) >= len(resolved.connections)
    assert resolve_shapes(resolved, {"": tuple(sides)}) == resolved


@given(chance=st.randoms(use_true_random=False), tree=NETWORKS)
def test_case_of_keys_and_words_and_order_of_members_change_nothing(
    folder: Path, chance: random.Random, tree: Any
) -> None:
    assert _outcome(folder, _scrambled(tree, chance)) == _outcome(folder, tree)


@settings(max_examples=20)
@given(chance=st.randoms(use_true_random=False))
def test_not_even_in_a_network_of_every_key(folder: Path, chance: random.Random) -> None:
    (folder / "everything.json").write_text(EVERYTHING, encoding="utf-8")
    tree = read_json(folder / "everything.json").value
    assert _outcome(folder, _scrambled(tree, chance)) == read_network(folder / "everything.json")


def _outcome(folder: Path, tree: Any) -> NetworkSpec | None:
    try:
        return read(folder, json.dumps(tree))
    except NetworkError:
        return None


def _scrambled(tree: Any, chance: random.Random, key: str = "") -> Any:
    if isinstance(tree, dict):
        keys: list[str] = [*tree]
        chance.shuffle(keys)
        return {_any_case(key, chance): _scrambled(tree[key], chance, key) for key in keys}
    if isinstance(tree, list):
        return [_scrambled(value, chance) for value in tree]
    return _any_case(tree, chance) if isinstance(tree, str) and key.lower() in ENUMERATED else tree


def _any_case(word: str, chance: random.Random) -> str:
    return "".join(chance.choice((letter.lower(), letter.upper())) for letter in word)
