from pathlib import Path
from typing import Any

import pytest
from network_texts import EVERYTHING, IN, OUT, ROOT, SMALL, network, read, refusal

from trainer.errors import NetworkError
from trainer.loss_parameters import Contrast
from trainer.network import (
    AUTO,
    Activation,
    DeltaBoost,
    ErrorFunction,
    LayerKind,
    LayerSpec,
    LayerType,
    MarginalScale,
    NetworkKind,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    ResponseNormalization,
    Schedule,
    SharedWeights,
    Sparseness,
    WeightInit,
    WeightScheme,
    parameter_count,
    read_network,
)
from trainer.network_names import (
    ACTIVATIONS,
    fits_output,
    why_not_target,
)
from trainer.network_types import Negatives
from trainer.pace import EarlyStopping, TrainingSpec

CASES = sorted((ROOT / "tests/cases/networks").glob("*.json"))


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
        training=TrainingSpec(64, 100, EarlyStopping("recall@20", 3, 0.2, 4, True)),
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


@pytest.mark.parametrize("name", ["movielens.json", "dsstne-movielens.json", "hybrid.json"])
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
        ([IN, OUT], {"Training": {}}, "$.Training"),
        ([IN, OUT], {"ErrorFunction": "multinomial"}, "$.ErrorFunction"),
        ([IN, {"N": 4}, {**OUT, "Sampling": {}}], {"ErrorFunction": "bpr"}, "$.ErrorFunction"),
        ([{**IN, "Normalize": False}, OUT], {}, "$.Layers[0].Normalize"),
        ([IN, {"Normalize": True}, OUT], {}, "$.Layers[1].Normalize"),
        ([IN, {**OUT, "ZeroDiagonal": True}], {}, "$.Layers[1].ZeroDiagonal"),
        ([{**IN, "Sparse": True, "pDropout": 0.5}, OUT], {}, "$.Layers[0].pDropout"),
        ([IN, {"LayerNormalization": True}, OUT], {}, "$.Layers[1].LayerNormalization"),
        ([IN, {"Activation": "Linear", "ClosedForm": {}}, OUT], {}, "$.Layers[1].ClosedForm"),
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


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"BatchSize": 0}, "$.Training.BatchSize: 0 is too small; at least 1 is wanted"),
        ({"Epochs": "all"}, "$.Training.Epochs: a number is wanted, not the string 'all'"),
        ({"Epoch": 3}, "$.Training.Epoch: unknown key; did you mean Epochs?"),
        ({"EarlyStopping": 5}, "$.Training.EarlyStopping: an object is wanted, not the number 5"),
        (
            {"EarlyStopping": {"Metric": "ndcg"}},
            "$.Training.EarlyStopping.Metric: unknown metric: ndcg; "
            "one of ndcg@K, recall@K, precision@K is wanted, as ndcg@100",
        ),
        (
            {"EarlyStopping": {"Validation": 1}},
            "$.Training.EarlyStopping.Validation: 1 is no share of the samples; between 0 and 1 is wanted",
        ),
        ({"EarlyStopping": {"Patience": 0}}, "$.Training.EarlyStopping.Patience: 0 is too small; at least 1 is wanted"),
    ],
)
def test_a_training_that_cannot_be_is_refused_by_its_path(folder: Path, training: dict[str, Any], message: str) -> None:
    assert refusal(folder, IN, OUT, Training=training) == message


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
    ("written", "loss", "weights"),
    [
        ("l2", ErrorFunction.L2, (1.0, 1.0)),
        ({"Name": "Hinge", "Weight": 0.5}, ErrorFunction.HINGE, (0.5, 1.0)),
        ({"Function": "L1", "NegativeWeight": 0.25}, ErrorFunction.L1, (1.0, 0.25)),
        ({"Weight": 2}, ErrorFunction.CROSS_ENTROPY, (2.0, 1.0)),
        ({"Name": "CosineContrastive", "NegativeWeight": 150}, ErrorFunction.COSINE_CONTRASTIVE, (1.0, 150.0)),
    ],
)
def test_an_output_may_have_its_own_loss(
    folder: Path, written: Any, loss: ErrorFunction, weights: tuple[float, float]
) -> None:
    spec = network(folder, IN, {**OUT, "ErrorFunction": written})
    own = spec.output
    assert (spec.loss_of(own), own.loss_weight, own.negative_weight) == (loss, *weights)


def test_a_loss_tells_its_margin_or_temperature_and_the_activation_that_goes_with_it(folder: Path) -> None:
    contrastive = network(folder, IN, {**OUT, "ErrorFunction": {"Name": "cosinecontrastive", "Margin": 0.4}}).output
    assert (contrastive.activation, contrastive.contrast) == (Activation.LINEAR, Contrast(margin=0.4))
    sharp = network(folder, IN, {**OUT, "ErrorFunction": {"Name": "Multinomial", "Temperature": 0.1}}).output
    assert (sharp.activation, sharp.contrast) == (Activation.SOFT_MAX, Contrast(temperature=0.1))
    pairs = network(folder, IN, {"N": 4}, {**OUT, "Sampling": {}}, ErrorFunction="BPR").output
    assert (pairs.activation, pairs.contrast, pairs.sampling.by) == (Activation.LINEAR, Contrast(), Negatives.UNIFORM)


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
    fitting |= {(loss, Activation.LINEAR) for loss in (ErrorFunction.COSINE_CONTRASTIVE, ErrorFunction.PAIRWISE)}
    pairs = {(loss, activation) for loss in ErrorFunction for activation in Activation}
    assert {pair for pair in pairs if fits_output(*pair)} == fitting


def test_hinge_wants_dense_targets_and_losses_of_stored_features_sparse_ones() -> None:
    refused = {
        (loss, sparse) for loss in ErrorFunction for sparse in (False, True) if why_not_target(loss, sparse=sparse)
    }
    of_stored = {
        ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY,
        ErrorFunction.COSINE_CONTRASTIVE,
        ErrorFunction.PAIRWISE,
    }
    assert refused == {(ErrorFunction.HINGE, True), *((loss, False) for loss in of_stored)}
    assert why_not_target(ErrorFunction.HINGE, sparse=True) == "Hinge needs a dense dataset"
