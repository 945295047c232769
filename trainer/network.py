"""The network language: DSSTNE's JSON becomes a `NetworkSpec` whose names are enums and whose defaults are
explicit. Errors name the JSON path.

Extensions to the language, all absent by default: a network-level `Optimizer` object {Name, LearningRate,
WeightDecay, Momentum, Momentum2}; `Normalize` on an Input layer scales every sample to length 1; `Bias`
of an Output layer's `WeightInit` may be `"LogOdds"`, which starts every unit at the log-odds of its
feature's share of the training samples. Whatever the language has and this trainer does not compute yet
is refused, never ignored.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from trainer.errors import NetworkError
from trainer.jsontree import Members, Node, read_json
from trainer.network_names import (
    ACTIVATIONS,
    CROSS_ENTROPIES,
    ERROR_FUNCTIONS,
    HARMLESS,
    KEYS_OF_KIND,
    KIND_NAMES,
    LAYER_KEYS,
    LAYER_KINDS,
    LAYER_SYNONYMS,
    NETWORK_KEYS,
    NETWORK_KINDS,
    NETWORK_SYNONYMS,
    OPTIMIZERS,
    SCHEMES,
    SUPPORTED_ERROR_FUNCTIONS,
    UNCOMPUTED,
    UNSUPPORTED_ACTIVATIONS,
    fits_output,
)
from trainer.network_types import (
    AUTO,
    Activation,
    Auto,
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
)

__all__ = [
    "AUTO",
    "Activation",
    "Auto",
    "ErrorFunction",
    "LayerKind",
    "LayerSpec",
    "MarginalScale",
    "NetworkKind",
    "NetworkSpec",
    "OptimizerName",
    "OptimizerSpec",
    "ResponseNormalization",
    "Sparseness",
    "WeightInit",
    "WeightScheme",
    "parameter_count",
    "read_network",
    "resolve_widths",
]


def read_network(path: Path) -> NetworkSpec:
    """The network a JSON file describes; anything wrong with it raises `NetworkError`."""
    root = read_json(path)
    members = root.members(NETWORK_KEYS, NETWORK_SYNONYMS)
    _refuse_weights_data(members)
    _refuse_delta_boost(members.get("DeltaBoost"))
    if members.number("Version", 0.9) < 0.6999:
        raise members.nodes["Version"].fail("version must be at least 0.7")
    layers = _read_layers(root, members)
    network = NetworkSpec(
        name=members.text("Name", ""),
        layers=layers,
        kind=members.choice("Kind", NETWORK_KINDS, NetworkKind.FEED_FORWARD, what="network kind"),
        loss=_read_loss(members),
        marginal=_read_marginal(members.get("ScaledMarginalCrossEntropy")),
        denoising=_read_p(members.get("Denoising")),
        sparseness=_read_sparseness(members.get("SparsenessPenalty")),
        shuffle=members.flag("ShuffleIndices", True),
        decay=members.number("Decay", 0.0, low=0.0),
        optimizer=_read_optimizer(members.get("Optimizer")),
        response_normalization=_read_response_normalization(members.get("LocalResponseNormalization")),
        maxout_k=_read_maxout(members.get("Maxout")),
    )
    _check_output(network, root)
    return network


def resolve_widths(spec: NetworkSpec, widths: Mapping[str, int]) -> NetworkSpec:
    """`spec` with every `AUTO` replaced by the width of the layer's dataset.

    A layer narrower than its dataset, or a dataset that is not there, raises `NetworkError`.
    """
    return replace(spec, layers=tuple(_resolved(layer, n, widths) for n, layer in enumerate(spec.layers)))


def parameter_count(spec: NetworkSpec) -> int:
    """Weights and biases of a network whose widths are resolved."""
    return sum((before.width + 1) * layer.width for before, layer in pairwise(spec.layers))


def _resolved(layer: LayerSpec, position: int, widths: Mapping[str, int]) -> LayerSpec:
    if layer.kind is LayerKind.HIDDEN:
        return layer
    path = f"$.Layers[{position}]"
    if layer.dataset not in widths:
        known = ", ".join(sorted(widths)) or "none"
        raise NetworkError(
            f"layer {layer.name}: no dataset is called {layer.dataset!r}; there is {known}", f"{path}.DataSet"
        )
    width = widths[layer.dataset]
    if layer.units is AUTO:
        return replace(layer, units=width)
    if layer.width < width:
        raise NetworkError(f"layer {layer.name} has {layer.width} units, dataset {layer.dataset} {width}", f"{path}.N")
    return layer


def _read_layers(root: Node, members: Members) -> tuple[LayerSpec, ...]:
    node = members.get("Layers")
    if node is None:
        raise root.fail("Layers is missing")
    items = node.items()
    layers: list[LayerSpec] = []
    for position, item in enumerate(items):
        layers.append(_read_layer(item, members, position, len(items), layers))
    if len(layers) < 2:
        raise node.fail("an Input and an Output layer are wanted")
    return tuple(layers)


def _read_layer(node: Node, network: Members, position: int, count: int, before: list[LayerSpec]) -> LayerSpec:
    members = node.members(LAYER_KEYS, LAYER_SYNONYMS)
    kind = members.choice("Kind", LAYER_KINDS, _default_kind(position, count), what="layer kind")
    members.choice("Type", {"FullyConnected": 0, "Convolutional": 1, "Pooling": 2}, 0, what="layer type")
    for key, child in members.nodes.items():
        if key not in KEYS_OF_KIND[kind]:
            raise child.fail(f"not a key of {KIND_NAMES[kind]} layers")
    _refuse_uncomputed(members)
    _check_place(node, members, kind, position, count)
    layer = LayerSpec(
        name=members.text("Name", "") or f"{KIND_NAMES[kind]}{position}",
        kind=kind,
        units=_read_units(members.get("N"), kind),
        sources=_read_sources(members.get("Source"), before),
        activation=_read_activation(members.get("Activation"), kind),
        sparse=members.flag("Sparse", False),
        dataset=members.text("DataSet", ""),
        weight_init=_read_weight_init(members.get("WeightInit"), kind),
        dropout=_read_dropout(members, kind),
        sparseness=_read_sparseness(members.get("SparsenessPenalty")),
        normalize=members.flag("Normalize", False),
        **_read_slopes(members, network),
    )
    if any(layer.name == other.name for other in before):
        raise members.nodes.get("Name", node).fail(f"two layers are called {layer.name}")
    return layer


def _default_kind(position: int, count: int) -> LayerKind:
    if position == 0:
        return LayerKind.INPUT
    return LayerKind.OUTPUT if position == count - 1 else LayerKind.HIDDEN


def _check_place(node: Node, members: Members, kind: LayerKind, position: int, count: int) -> None:
    if kind is not _default_kind(position, count):
        raise members.nodes.get("Kind", node).fail(
            "not supported yet: only one Input layer first, Hidden layers, one Output layer last"
        )


def _read_units(node: Node | None, kind: LayerKind) -> int | Auto:
    if node is None:
        return 1
    if isinstance(node.value, str):
        if node.text().lower() != "auto":
            raise node.fail(f'a number or "auto" is wanted, not {node.value!r}')
        if kind is LayerKind.HIDDEN:
            raise node.fail('"auto" needs a dataset, a Hidden layer has none')
        return AUTO
    sizes = node.items()
    if len(sizes) > 1:
        raise node.fail("not supported yet: more than one dimension")
    if not sizes:
        raise node.fail("a number of units is wanted, not an empty array")
    return sizes[0].integer(1)


def _read_sources(node: Node | None, before: list[LayerSpec]) -> tuple[str, ...]:
    previous = before[-1].name if before else ""
    for source in node.items() if node is not None else []:
        name = source.text()
        if name not in [layer.name for layer in before]:
            raise source.fail(f"no layer before this one is called {name!r}")
        if name != previous:
            raise source.fail(f"not supported yet: a source other than the layer before, {previous}")
    if node is not None and len(node.items()) != 1:
        raise node.fail("not supported yet: a number of sources other than one")
    return (previous,) if before else ()


def _read_activation(node: Node | None, kind: LayerKind) -> Activation:
    if node is None:
        return Activation.SIGMOID
    activation = node.choice(ACTIVATIONS, "activation")
    if activation in UNSUPPORTED_ACTIVATIONS:
        raise node.fail(f"not supported yet: {node.value}")
    if activation is Activation.SOFT_MAX and kind is not LayerKind.OUTPUT:
        raise node.fail("not supported yet: SoftMax on a layer other than the Output")
    return activation


def _read_weight_init(node: Node | None, kind: LayerKind) -> WeightInit:
    if node is None:
        return WeightInit()
    members = node.members(["Scheme", "Scale", "Bias"])
    bias = members.get("Bias")
    log_odds = bias is not None and isinstance(bias.value, str)
    if log_odds and bias is not None:
        bias.choice({"LogOdds": True}, "way to begin biases")
        if kind is not LayerKind.OUTPUT:
            raise bias.fail("LogOdds needs target features, which only an Output layer has")
    return WeightInit(
        scheme=members.choice("Scheme", SCHEMES, WeightScheme.XAVIER, what="weight initialization scheme"),
        scale=members.number("Scale", 1.0),
        bias=0.0 if log_odds else members.number("Bias", 0.0),
        log_odds=log_odds,
    )


def _read_dropout(members: Members, kind: LayerKind) -> float:
    p = members.number("pDropout", 0.0, low=0.0, high=0.999)
    if p > 0 and kind is LayerKind.INPUT:
        raise members.nodes["pDropout"].fail("a sparse input has no dropout; use the network's Denoising")
    if p > 0 and kind is LayerKind.OUTPUT:
        raise members.nodes["pDropout"].fail("not supported yet: dropout of an Output layer")
    return p


def _read_slopes(members: Members, network: Members) -> dict[str, float]:
    defaults = {"RELUSlope": 1.0, "ELUAlpha": 1.0, "SELULambda": 1.050701}
    fields = {"RELUSlope": "relu_slope", "ELUAlpha": "elu_alpha", "SELULambda": "selu_lambda"}
    return {fields[key]: members.number(key, network.number(key, default)) for key, default in defaults.items()}


def _read_loss(members: Members) -> ErrorFunction:
    loss = members.choice("ErrorFunction", ERROR_FUNCTIONS, ErrorFunction.CROSS_ENTROPY, what="error function")
    if loss not in SUPPORTED_ERROR_FUNCTIONS:
        raise members.nodes["ErrorFunction"].fail(f"not supported yet: {members.nodes['ErrorFunction'].value}")
    return loss


def _read_marginal(node: Node | None) -> MarginalScale:
    if node is None:
        return MarginalScale()
    members = node.members(["oneTarget", "zeroTarget", "oneScale", "zeroScale"])
    return MarginalScale(
        one_target=members.number("oneTarget", 0.9),
        zero_target=members.number("zeroTarget", 0.1),
        one_scale=members.number("oneScale", 1.0),
        zero_scale=members.number("zeroScale", 1.0),
    )


def _read_p(node: Node | None) -> float:
    return 0.0 if node is None else node.members(["p"]).number("p", 0.0, low=0.0, high=0.999)


def _read_sparseness(node: Node | None) -> Sparseness:
    if node is None or isinstance(node.value, bool):
        return Sparseness()
    members = node.members(["p", "beta"])
    return Sparseness(p=members.number("p", 0.0, low=0.0, high=1.0), beta=members.number("beta", 0.0))


def _read_optimizer(node: Node | None) -> OptimizerSpec | None:
    if node is None:
        return None
    members = node.members(["Name", "LearningRate", "WeightDecay", "Momentum", "Momentum2"])

    def optional(name: str, high: float) -> float | None:
        child = members.get(name)
        return None if child is None else child.number(0.0, high)

    return OptimizerSpec(
        name=members.choice("Name", OPTIMIZERS, OptimizerName.SGD, what="optimizer"),
        learning_rate=optional("LearningRate", 1e6),
        weight_decay=optional("WeightDecay", 1e6),
        momentum=optional("Momentum", 0.999999),
        momentum2=optional("Momentum2", 0.999999),
    )


def _read_response_normalization(node: Node | None) -> ResponseNormalization:
    if node is None:
        return ResponseNormalization()
    members = node.members(["k", "n", "alpha", "beta"])
    return ResponseNormalization(
        k=members.number("k", 2.0),
        n=int(members.number("n", 5)),
        alpha=members.number("alpha", 0.0001),
        beta=members.number("beta", 0.75),
    )


def _read_maxout(node: Node | None) -> int:
    return 2 if node is None else int(node.members(["k"]).number("k", 2))


def _refuse_weights_data(members: Members) -> None:
    node = members.get("WeightsData")
    if node is not None:
        raise node.fail("not supported yet: weights from a file")


def _refuse_delta_boost(node: Node | None) -> None:
    if node is None:
        return
    members = node.members(["one", "zero"])
    if members.number("one", 1.0) != 1 or members.number("zero", 1.0) != 1:
        raise node.fail("not supported yet: DeltaBoost other than 1")


def _refuse_uncomputed(members: Members) -> None:
    for key in UNCOMPUTED:
        node = members.get(key)
        if node is None:
            continue
        value = node.value.lower() if isinstance(node.value, str) else node.value
        if value not in HARMLESS.get(key, ()):
            raise node.fail(f"not supported yet: {key} {json.dumps(node.value)}")


def _check_output(network: NetworkSpec, root: Node) -> None:
    """Refuse pairs of loss and output activation for which DSSTNE computes no gradient."""
    if fits_output(network.loss, network.output.activation):
        return
    name = next(name for name, loss in ERROR_FUNCTIONS.items() if loss is network.loss)
    output = Node(None, f"{root.path}.Layers[{len(network.layers) - 1}]", root.file)
    if network.loss in CROSS_ENTROPIES:
        raise output.fail(f"{name} needs an Output with Activation Sigmoid or SoftMax")
    raise output.fail(f"not supported yet: SoftMax with {name}")
