from pathlib import Path

import pytest

from trainer.errors import NetworkError
from trainer.network import (
    AUTO,
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
    parameter_count,
    read_network,
    resolve_widths,
)

ROOT = Path(__file__).parents[2]
CASES = sorted((ROOT / "tests/cases/networks").glob("*.json"))

SMALL = '"Layers": [{"N": 8, "DataSet": "gl_input"}, {"N": 4}, {"N": 8, "DataSet": "gl_output"}]'


def read(folder: Path, text: str) -> NetworkSpec:
    path = folder / "network.json"
    path.write_text(text, encoding="utf-8")
    return read_network(path)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_broken_network_is_refused_by_json_path_as_its_first_line_says(case: Path) -> None:
    message = case.read_text(encoding="utf-8").splitlines()[0].removeprefix("// ")
    with pytest.raises(NetworkError) as caught:
        read_network(case)
    assert str(caught.value) == message.replace("FILE", str(case), 1)
    assert caught.value.exit_status == 2


def test_there_are_broken_networks_to_refuse() -> None:
    assert len(CASES) > 50


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
            LayerSpec("Hidden", LayerKind.HIDDEN, 128, ("Input",), sparse=True),
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
            LayerSpec("Input0", LayerKind.INPUT, 8, (), dataset="gl_input"),
            LayerSpec(
                "Hidden1", LayerKind.HIDDEN, 4, ("Input0",), Activation.SIGMOID,
                weight_init=WeightInit(WeightScheme.XAVIER, 1.0, 0.0, log_odds=False), dropout=0.0,
                relu_slope=1.0, elu_alpha=1.0, selu_lambda=1.050701,
            ),
            LayerSpec("Output2", LayerKind.OUTPUT, 8, ("Hidden1",), dataset="gl_output"),
        ),
    )  # fmt: skip


def test_every_key_that_is_computed_reaches_the_network(tmp_path: Path) -> None:
    text = """
    {
        /* keys and enumerated values in any case */
        "version": 0.7, "NAME": "all", "kind": "autoencoder", "errorfunction": "cross ENTROPY",
        "LRN": {"K": 1, "n": 3, "alpha": 0.5, "beta": 0.25}, "Maxout": {"k": 4},
        "SparsenessPenalty": {"p": 0.25, "beta": 3}, "Denoising": {"P": 0.5},
        "DataScaledMarginalCrossEntropy": {"oneTarget": 1, "zeroTarget": 0, "oneScale": 2, "zeroScale": 3},
        "DeltaBoost": {"one": 1, "zero": 1}, "ShuffleIndices": 0, "Slope": 0.125, "ELUAlpha": 2, "SELULambda": 1.5,
        "Decay": 0.01,
        "Optimizer": {"Name": "rmsprop", "LearningRate": 0.5, "WeightDecay": 0, "Momentum": 0.9, "Momentum2": 0.99},
        "Layers": [
            {"Kind": "INPUT", "Type": "FULLYCONNECTED", "Name": "In", "N": "AUTO", "DataSet": "gl_input", "Sparse": 1,
             "Normalize": true},
            {"Kind": "hidden", "Name": "One", "N": [16], "Source": "In", "Activation": "LRELU", "pDropout": 0.25,
             "Sparse": true, "SparsenessPenalty": {"p": 0.1, "beta": 1},
             "WeightInit": {"Scheme": "GAUSSIAN", "Scale": 0.01, "Bias": -1}, "Kernel": 1, "KernelStride": 1,
             "BatchNormalization": false, "WeightNorm": 0, "DeltaNorm": 0},
            {"Name": "Two", "N": 4.9, "Source": ["One"], "Activation": "selu", "RELUSlope": 0.5, "ELUAlpha": 1.75,
             "SELULambda": 1.25, "SparsenessPenalty": true},
            {"Kind": "Output", "Name": "Out", "N": "auto", "DataSet": "gl_output", "Sparse": true,
             "Activation": "softmax", "WeightInit": {"Bias": "logodds"}}
        ]
    } and what comes after is ignored
    """
    slopes = {"relu_slope": 0.125, "elu_alpha": 2.0, "selu_lambda": 1.5}
    own_slopes = {"relu_slope": 0.5, "elu_alpha": 1.75, "selu_lambda": 1.25}
    hidden, output = LayerKind.HIDDEN, LayerKind.OUTPUT
    one = LayerSpec(
        "One", hidden, 16, ("In",), Activation.LEAKY_RECTIFIED_LINEAR, sparse=True, dropout=0.25,
        sparseness=Sparseness(0.1, 1.0), weight_init=WeightInit(WeightScheme.GAUSSIAN, 0.01, -1.0), **slopes,
    )  # fmt: skip
    two = LayerSpec("Two", hidden, 4, ("One",), Activation.SCALED_EXPONENTIAL_LINEAR, **own_slopes)
    out = LayerSpec(
        "Out", output, AUTO, ("Two",), Activation.SOFT_MAX, sparse=True, dataset="gl_output",
        weight_init=WeightInit(log_odds=True), **slopes,
    )  # fmt: skip
    first = LayerSpec("In", LayerKind.INPUT, AUTO, sparse=True, dataset="gl_input", normalize=True, **slopes)
    assert read(tmp_path, text) == NetworkSpec(
        name="all",
        kind=NetworkKind.AUTO_ENCODER,
        loss=ErrorFunction.CROSS_ENTROPY,
        marginal=MarginalScale(1.0, 0.0, 2.0, 3.0),
        denoising=0.5,
        sparseness=Sparseness(0.25, 3.0),
        shuffle=False,
        decay=0.01,
        optimizer=OptimizerSpec(OptimizerName.RMSPROP, 0.5, 0.0, 0.9, 0.99),
        response_normalization=ResponseNormalization(1.0, 3, 0.5, 0.25),
        maxout_k=4,
        layers=(first, one, two, out),
    )


def test_of_two_spellings_of_a_key_the_last_in_byte_order_counts(tmp_path: Path) -> None:
    assert read(tmp_path, '{"name": "small", "NAME": "large", ' + SMALL + "}").name == "small"


def test_auto_becomes_the_width_of_the_layers_dataset(tmp_path: Path) -> None:
    text = SMALL.replace('"N": 8', '"N": "auto"')
    spec = resolve_widths(read(tmp_path, "{" + text + "}"), {"gl_input": 256, "gl_output": 128})
    assert [layer.width for layer in spec.layers] == [256, 4, 128]
    assert parameter_count(spec) == 257 * 4 + 5 * 128


def test_a_layer_wider_than_its_dataset_keeps_its_width(tmp_path: Path) -> None:
    spec = resolve_widths(read(tmp_path, "{" + SMALL + "}"), {"gl_input": 7, "gl_output": 8})
    assert spec.input.width == 8


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"gl_input": 8}, "$.Layers[2].DataSet: layer Output2: no dataset is called 'gl_output'; there is gl_input"),
        ({"gl_input": 9, "gl_output": 8}, "$.Layers[0].N: layer Input0 has 8 units, dataset gl_input 9"),
    ],
)
def test_a_dataset_that_does_not_fit_its_layer_is_named(tmp_path: Path, widths: dict[str, int], message: str) -> None:
    spec = read(tmp_path, "{" + SMALL + "}")
    with pytest.raises(NetworkError) as caught:
        resolve_widths(spec, widths)
    assert str(caught.value) == message


def test_a_width_asked_for_too_early_says_which_layer() -> None:
    with pytest.raises(ValueError, match="layer Input: the width is not resolved yet"):
        _ = LayerSpec("Input", LayerKind.INPUT, AUTO).width


@pytest.mark.parametrize("name", ["movielens.json", "dsstne-movielens.json"])
def test_shipped_networks_are_read(name: str) -> None:
    assert read_network(ROOT / "configs/networks" / name).input.sparse
