"""The network language: DSSTNE's JSON becomes a `NetworkSpec` whose names are enums and whose defaults are
explicit. Errors name the JSON path.

The language is DSSTNE's whole one. Keys and enumerated values are in any case, `//` and `/* */` comments are
allowed. Where DSSTNE goes on in silence although nothing sensible can come of it, this reader refuses: an `N`
that is another word than "auto", sources, skips or shared weights that are not there or do not fit, layers that
feed each other in a circle, an error function without a gradient on its Output, `WeightsData`. A Target layer
takes part in nothing; a Pooling layer's `N`, `Activation` and `pDropout` change nothing, as in DSSTNE.

Extensions to the language, all absent by default and refused under `strict_dsstne`:

- network: `Optimizer` {Name, LearningRate, WeightDecay, Momentum, Momentum2, Clip, Warmup, Schedule
  ("Constant" or "Cosine"), Steps, Lazy}; `Precision` ("float32" or "bfloat16", the type products are computed in);
  `Training` {BatchSize (a number or "auto"), Epochs, EarlyStopping {Metric, Patience, Validation, MinEpochs, Refit}},
  how it is trained where settings do not say;
- Input layers: `Normalize` scales every sample to length 1; of a sparse one, whose `pDropout` DSSTNE ignores, it is
  the chance of a stored feature to be hidden in training, in place of `Denoising`; the others are scaled alike, by
  1 / (1 - p);
- Hidden layers: `Normalize` scales every sample's output to length 1: a Linear Output over it with a `WeightNorm` of 1
  says cosines;
- Hidden layers: `LayerNormalization` brings every sample's sums to mean 0 and variance 1 before the activation;
- Hidden layers: `ClosedForm` {Ridge, ItemPower, UserPower, Scale}, numbers or arrays of them, on a Linear one between
  an Input and an Output: it is fitted to the data instead of being trained, as `trainer.closed_form` says;
- Hidden layers: `Type` "Gaussian", a layer without weights over two others of its size, the mean and the logarithm of
  the variance of a normal distribution: it draws from it in training and is the mean in prediction (Kingma and Welling
  2014). `KL` {Weight, Anneal, PerFeature} weighs the divergence from the standard normal, which is minimised beside the
  losses, the weight rising linearly over the first `Anneal` updates; with `PerFeature` it counts for each feature that
  the first Input has stored of a sample (Shenbin et al. 2020);
- Output layers: `ErrorFunction`, a name or {Name, Weight, NegativeWeight, Margin, Temperature} (`Function` is a synonym
  of `Name`), that layer's own; NegativeWeight multiplies loss and gradient of units without a stored target (Hu et al.
  2008), while `DeltaBoost`, which acts on the gradient too, changes no loss;
  `Bias` of `WeightInit` may be "LogOdds", which starts every unit at the log-odds of its feature's share of the
  training samples;
- Output layers: `ZeroDiagonal`, on one that has an Input of as many units among its sources: the matrix between them
  keeps a diagonal of zeros, so that no feature predicts itself (as in EASE, Steck 2019);
- `Activation` may be "GELU" or "SiLU";
- `ErrorFunction` may be "Multinomial", the cross-entropy of an Output that is a SoftMax, which becomes the default
  of its `Activation`; `Temperature` divides the sums of that SoftMax, in prediction too;
- `ErrorFunction` may be "CosineContrastive" (SimpleX, Mao et al. 2021), the mean of 1 - a over stored features plus
  NegativeWeight times that of max(0, a - Margin) over the others, or "BPR" (Rendle et al. 2009), the mean of -log
  σ(stored - other) over pairs of features, which wants `Sampling`. Both are of sparse targets on a Linear Output, which
  becomes the default; a stored value is how often its feature counts.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from trainer.deal import can_be_sampled
from trainer.errors import NetworkError
from trainer.jsontree import Members, Node, read_json
from trainer.network_graph import checked, resolve_shapes
from trainer.network_layers import Surroundings, read_chance, read_headings, read_layer
from trainer.network_losses import Loss, read_loss, read_sparseness
from trainer.network_names import (
    ACTIVATIONS,
    EXTENSION_ACTIVATIONS,
    EXTENSION_ERRORS,
    GAUSSIAN,
    LAYER_EXTENSIONS,
    LAYER_KEYS,
    LAYER_SYNONYMS,
    NETWORK_EXTENSIONS,
    NETWORK_KEYS,
    NETWORK_KINDS,
    NETWORK_SYNONYMS,
    OPTIMIZER_KEYS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    SPEAKER,
)
from trainer.network_sampling import check_gram
from trainer.network_training import read_training
from trainer.network_types import (
    AUTO,
    Activation,
    Auto,
    DeltaBoost,
    ErrorFunction,
    Kernel,
    LayerKind,
    LayerSpec,
    LayerType,
    MarginalScale,
    Negatives,
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
from trainer.shapes import bias_size, topological, weight_shape

__all__ = [
    "AUTO",
    "Activation",
    "Auto",
    "DeltaBoost",
    "ErrorFunction",
    "Kernel",
    "LayerKind",
    "LayerSpec",
    "LayerType",
    "MarginalScale",
    "NetworkKind",
    "NetworkSpec",
    "OptimizerName",
    "OptimizerSpec",
    "PoolingFunction",
    "ResponseNormalization",
    "Schedule",
    "SharedWeights",
    "Sparseness",
    "WeightInit",
    "WeightScheme",
    "network_of",
    "parameter_count",
    "read_network",
    "read_tree",
    "resolve_shapes",
    "topological",
]

_LARGEST = 3.4028235e38
"""Of float32."""
_MOST = 2**31 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_network(path: Path, *, strict_dsstne: bool = False) -> NetworkSpec:
    """The network a JSON file describes, with the shapes that follow from it alone.

    Anything wrong with it raises `NetworkError`, and so does any extension to the language where it is to be
    `strict_dsstne`.
    """
    return network_of(read_tree(path), strict_dsstne=strict_dsstne)


def network_of(root: Node, *, strict_dsstne: bool = False) -> NetworkSpec:
    """The network that a tree of `read_tree` describes, as in `read_network`."""
    members = root.members(NETWORK_KEYS, NETWORK_SYNONYMS, unknown=f"{SPEAKER}Unknown neural network field: {{lower}}")
    _check_head(members)
    loss = _read_loss(members.get("ErrorFunction"))
    network = NetworkSpec(
        name=members.text("Name", ""),
        layers=_read_layers(root, members, loss),
        kind=members.choice(
            "Kind", NETWORK_KINDS, NetworkKind.FEED_FORWARD, unknown=f"{SPEAKER}Invalid network kind: {{value}}"
        ),
        loss=ErrorFunction.CROSS_ENTROPY if loss.error is None else loss.error,
        marginal=_read_marginal(members.get("ScaledMarginalCrossEntropy")),
        denoising=_read_denoising(members.get("Denoising")),
        sparseness=read_sparseness(members.get("SparsenessPenalty")),
        shuffle=members.flag("ShuffleIndices", True),
        decay=members.number("Decay", 0.0, low=0.0),
        optimizer=_read_optimizer(members.get("Optimizer")),
        response_normalization=_read_response_normalization(members.get("LocalResponseNormalization")),
        maxout_k=_read_maxout(members.get("Maxout")),
        delta_boost=_read_delta_boost(members.get("DeltaBoost")),
        bfloat16=members.choice("Precision", PRECISIONS, False, unknown="unknown precision: {value}"),
        training=read_training(members.get("Training")),
    )
    network = checked(network, root.file)
    for layer, node in zip(network.layers, members.nodes["Layers"].items(), strict=True):
        if layer.sampling.by is not Negatives.NONE and not can_be_sampled(network, layer):
            raise node.fail(
                "a sampled Output needs sums of its own: no skips, normalisation, dropout, DeltaNorm, shared weights, "
                "sparse Input as a source or layer that reads it, and no Clip"
            )
        if layer.sampling.by is Negatives.GRAM:
            check_gram(network, members, layer, node)
    if strict_dsstne:
        _refuse_extensions(members, network)
    return network


def parameter_count(spec: NetworkSpec) -> int:
    """Weights, biases and what normalisations learn, of a network whose shapes are resolved; shared weights once."""
    connections = spec.connections
    weights = sum(
        math.prod(weight_shape(connection.source, connection.target))
        for number, connection in enumerate(connections)
        if connection.owner == number
    )
    biases = sum(bias_size(connection.target) for connection in connections)
    norms = sum(
        2 * (bias_size(layer) * layer.batch_normalization + layer.width * layer.layer_normalization)
        for layer in spec.layers
    )
    return weights + biases + norms


def read_tree(path: Path) -> Node:
    """The JSON tree of a network file: its numbers finite as float32, its texts fit to be written."""
    try:
        root = read_json(path)
    except RecursionError as error:
        raise NetworkError("nested too deeply", str(path)) from error
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node.value, dict):
            waiting += [Node(node.value[key], f"{node.path}.{key}", node.file) for key in node.value]
        elif isinstance(node.value, list):
            waiting += node.items()
        elif isinstance(node.value, int | float) and not abs(node.value) <= _LARGEST:
            raise node.fail("the number is too large")
        elif isinstance(node.value, str) and _SURROGATE.search(node.value):
            raise node.fail("half a character stands in the text")
    return root


def _check_head(members: Members) -> None:
    weights = members.get("WeightsData")
    if weights is not None:
        weights.text()
        raise weights.fail("not supported: weights from a file")
    if members.number("Version", 0.9) < 0.6999:
        raise members.nodes["Version"].fail(
            f"{SPEAKER}version {members.number('Version', 0.9):g} (must be at least 0.7)"
        )


def _read_loss(node: Node | None) -> Loss:
    """The network's error function: a name, for only a layer's own has a weight."""
    if node is not None:
        node.text()
    return read_loss(node)


def _read_layers(root: Node, members: Members, loss: Loss) -> tuple[LayerSpec, ...]:
    node = members.get("Layers")
    if node is None:
        raise root.fail("Layers is missing")
    headings = read_headings(node.items())
    around = Surroundings(members, loss, {heading.name: heading.kind for heading in headings})
    return tuple(read_layer(heading, around) for heading in headings)


def _parameters(node: Node, names: Sequence[str], owner: str) -> Members:
    return node.members(names, unknown=f"{SPEAKER}Invalid {owner} parameter: {{key}}")


def _read_marginal(node: Node | None) -> MarginalScale:
    if node is None:
        return MarginalScale()
    members = _parameters(node, ["oneTarget", "zeroTarget", "oneScale", "zeroScale"], "ScaledMarginalCrossentropy")
    return MarginalScale(
        one_target=members.number("oneTarget", 0.9),
        zero_target=members.number("zeroTarget", 0.1),
        one_scale=members.number("oneScale", 1.0),
        zero_scale=members.number("zeroScale", 1.0),
    )


def _read_denoising(node: Node | None) -> float:
    return 0.0 if node is None else read_chance(_parameters(node, ["p"], "Denoising").get("p"))


def _read_delta_boost(node: Node | None) -> DeltaBoost:
    if node is None:
        return DeltaBoost()
    members = _parameters(node, ["one", "zero"], "DeltaBoost")
    return DeltaBoost(one=members.number("one", 1.0), zero=members.number("zero", 1.0))


def _read_optimizer(node: Node | None) -> OptimizerSpec | None:
    if node is None:
        return None
    members = node.members(OPTIMIZER_KEYS)

    def optional(name: str, high: float) -> float | None:
        child = members.get(name)
        return None if child is None else child.number(0.0, high)

    spec = OptimizerSpec(
        name=members.choice("Name", OPTIMIZERS, OptimizerName.SGD, unknown="unknown optimizer: {value}"),
        learning_rate=optional("LearningRate", 1e6),
        weight_decay=optional("WeightDecay", 1e6),
        momentum=optional("Momentum", 0.999999),
        momentum2=optional("Momentum2", 0.999999),
        clip=members.number("Clip", 0.0, low=0.0),
        warmup=int(members.number("Warmup", 0, low=0, high=_MOST)),
        schedule=members.choice("Schedule", SCHEDULES, Schedule.CONSTANT, unknown="unknown schedule: {value}"),
        steps=int(members.number("Steps", 0, low=0, high=_MOST)),
        lazy=members.flag("Lazy", False),
    )
    _refuse_idle(members, spec)
    return spec


def _refuse_idle(members: Members, spec: OptimizerSpec) -> None:
    """Refuse numbers of an optimizer that would have no effect."""
    for key in ("LearningRate", "Warmup", "Schedule") if spec.name is OptimizerName.ADADELTA else ():
        if key in members.nodes:
            raise members.nodes[key].fail("AdaDelta has no learning rate")
    if spec.steps and spec.schedule is not Schedule.COSINE:
        raise members.nodes["Steps"].fail("only a Cosine schedule has Steps")
    if spec.lazy and spec.clip:
        raise members.nodes["Lazy"].fail("Clip needs the gradient of all rows at once")
    if spec.lazy and spec.weight_decay and not spec.name.is_linear:
        raise members.nodes["Lazy"].fail("only SGD, Momentum and Nesterov can make good a WeightDecay")
    if spec.steps and spec.steps <= spec.warmup:
        raise members.nodes["Steps"].fail(f"no step is left after a Warmup of {spec.warmup}")


def _read_response_normalization(node: Node | None) -> ResponseNormalization:
    if node is None:
        return ResponseNormalization()
    members = _parameters(node, ["k", "n", "alpha", "beta"], "LocalResponseNormalization")
    return ResponseNormalization(
        k=members.number("k", 2.0),
        n=int(members.number("n", 5, low=1, high=_MOST)),
        alpha=members.number("alpha", 0.0001),
        beta=members.number("beta", 0.75),
    )


def _read_maxout(node: Node | None) -> int:
    return 2 if node is None else int(_parameters(node, ["k"], "MaxOut").number("k", 2, low=0, high=_MOST))


def _refuse_extensions(members: Members, network: NetworkSpec) -> None:
    """Refuse what DSSTNE could not read in a network that could be read here."""
    nodes = [members.get(key) for key in NETWORK_EXTENSIONS]
    error = members.get("ErrorFunction")
    if error is not None and error.text().lower() in map(str.lower, EXTENSION_ERRORS):
        nodes.append(error)
    for layer, node in zip(network.layers, members.nodes["Layers"].items(), strict=True):
        own = node.members(LAYER_KEYS, LAYER_SYNONYMS)
        nodes += _extensions_of(own)
        if layer.kind is LayerKind.INPUT and layer.sparse and layer.dropout > 0:
            nodes.append(own.get("pDropout"))
    for node in nodes:
        if node is not None:
            raise node.fail("an extension, which DSSTNE does not know")


def _extensions_of(members: Members) -> list[Node | None]:
    nodes = [members.get(key) for key in LAYER_EXTENSIONS]
    if members.text("Type", "").lower() == GAUSSIAN.lower():
        nodes.append(members.get("Type"))
    activation, begin = members.get("Activation"), members.get("WeightInit")
    if (
        activation is not None
        and activation.choice(ACTIVATIONS, f"{SPEAKER}Invalid layer activation: {{value}}") in EXTENSION_ACTIVATIONS
    ):
        nodes.append(activation)
    bias = None if begin is None else begin.members(["Scheme", "Scale", "Bias"]).get("Bias")
    if bias is not None and isinstance(bias.value, str):
        nodes.append(bias)
    return nodes
