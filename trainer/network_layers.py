"""One layer of the network language: its JSON object becomes a `LayerSpec`. Whether layers fit each other is not
looked at here, only that those a layer names are there.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from trainer.jsontree import Members, Node
from trainer.network_closed_form import read_closed_form
from trainer.network_losses import Loss, read_divergence, read_loss, read_sparseness
from trainer.network_names import (
    ACTIVATIONS,
    CONTRASTING,
    FUNCTIONS,
    GAUSSIAN,
    GAUSSIAN_KEYS,
    KEYS_OF_KIND,
    KIND_NAMES,
    LAYER_KEYS,
    LAYER_KINDS,
    LAYER_SYNONYMS,
    LAYER_TYPES,
    MULTINOMIAL,
    SCHEMES,
    SPEAKER,
)
from trainer.network_sampling import read_sampling
from trainer.network_types import (
    AUTO,
    Activation,
    Auto,
    ErrorFunction,
    Kernel,
    LayerKind,
    LayerSpec,
    LayerType,
    PoolingFunction,
    SharedWeights,
    Sparseness,
    WeightInit,
    WeightScheme,
)

_MOST = 2**31 - 1
_COMPUTING = (LayerKind.HIDDEN, LayerKind.OUTPUT)


@dataclass(frozen=True, slots=True)
class Heading:
    """Who a layer is: what must be known of all layers before one can be read."""

    node: Node
    members: Members
    name: str
    kind: LayerKind
    type: LayerType
    previous: str | None
    """The layer that feeds this one if it names no source; Target layers feed none."""

    @property
    def is_gaussian(self) -> bool:
        """Whether it draws from a normal distribution."""
        return self.members.text("Type", "").lower() == GAUSSIAN.lower()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What one layer takes from the network around it."""

    network: Members
    loss: Loss
    kinds: Mapping[str, LayerKind]
    """Of every layer, by name."""


def read_headings(nodes: Sequence[Node]) -> list[Heading]:
    """Kind, type and name of each layer; two layers of one name raise `NetworkError`."""
    headings: list[Heading] = []
    names: set[str] = set()
    previous: str | None = None
    for position, node in enumerate(nodes):
        heading = _read_heading(node, position, len(nodes), previous)
        if heading.name in names:
            raise heading.members.nodes.get("Name", node).fail(
                f"{SPEAKER}Duplicate layer name detected: {heading.name}"
            )
        names.add(heading.name)
        headings.append(heading)
        previous = previous if heading.kind is LayerKind.TARGET else heading.name
    return headings


def read_layer(heading: Heading, around: Surroundings) -> LayerSpec:
    """The layer, alone; a convolution's or pooling's shape is `AUTO` where its sources decide it."""
    members, kind = heading.members, heading.kind
    kernel = _read_kernel(members)
    shape, filters = _read_shape(heading, kernel)
    sources = _read_sources(heading, around.kinds)
    own = read_loss(members.get("ErrorFunction"))
    loss = own if own.error is not None else around.loss
    error = ErrorFunction.CROSS_ENTROPY if loss.error is None else loss.error
    activation = _read_activation(heading, loss)
    return LayerSpec(
        name=heading.name,
        kind=kind,
        shape=shape,
        sources=sources if kind in _COMPUTING else (),
        activation=activation,
        sparse=members.flag("Sparse", False),
        dataset=members.text("DataSet", ""),
        weight_init=_read_weight_init(heading),
        dropout=_read_dropout(heading, activation),
        sparseness=_read_own_sparseness(heading),
        normalize=members.flag("Normalize", False),
        type=heading.type if kind in _COMPUTING else LayerType.FULLY_CONNECTED,
        kernel=kernel,
        filters=filters,
        pooling=_read_function(heading),
        divergence=read_divergence(members.get("KL"), is_gaussian=heading.is_gaussian),
        skips=_read_skips(heading, around.kinds),
        shared=_read_shared(heading, sources),
        batch_normalization=_read_normalization(heading, "BatchNormalization"),
        layer_normalization=_read_normalization(heading, "LayerNormalization"),
        weight_norm=members.number("WeightNorm", 0.0, low=0.0),
        delta_norm=members.number("DeltaNorm", 0.0, low=0.0),
        loss=own.error,
        loss_weight=own.weight,
        negative_weight=own.negative_weight,
        contrast=own.contrast,
        zero_diagonal=members.flag("ZeroDiagonal", False),
        sampling=read_sampling(members.get("Sampling"), error, activation),
        closed_form=read_closed_form(members.get("ClosedForm")),
        relu_slope=_read_slope("RELUSlope", members, around.network, default=1.0),
        elu_alpha=_read_slope("ELUAlpha", members, around.network, default=1.0),
        selu_lambda=_read_slope("SELULambda", members, around.network, default=1.050701),
    )


def read_chance(node: Node | None) -> float:
    """A probability below 1; 0 where there is no node."""
    if node is None:
        return 0.0
    p = node.number(0.0, 1.0)
    if p == 1:
        raise node.fail(f"{node.value} is too large; less than 1 is wanted")
    return p


def _read_heading(node: Node, position: int, count: int, previous: str | None) -> Heading:
    members = node.members(
        LAYER_KEYS, LAYER_SYNONYMS, unknown=f"{SPEAKER}Unknown neural network layer field: {{lower}}"
    )
    usual = LayerKind.INPUT if position == 0 else LayerKind.OUTPUT if position == count - 1 else LayerKind.HIDDEN
    kind = members.choice("Kind", LAYER_KINDS, usual, unknown=f"{SPEAKER}Invalid layer kind: {{value}}")
    for key, child in members.nodes.items():
        if key not in KEYS_OF_KIND[kind]:
            raise child.fail(f"not a key of {KIND_NAMES[kind]} layers")
    heading = Heading(
        node=node,
        members=members,
        name=members.text("Name", "") or f"{KIND_NAMES[kind]}{position}",
        kind=kind,
        type=members.choice(
            "Type", LAYER_TYPES, LayerType.FULLY_CONNECTED, unknown=f"{SPEAKER}Invalid layer type: {{value}}"
        ),
        previous=previous,
    )
    if heading.is_gaussian and kind is not LayerKind.HIDDEN:
        raise members.nodes["Type"].fail("only a Hidden layer can be Gaussian")
    for key, child in members.nodes.items() if heading.is_gaussian else ():
        if key not in GAUSSIAN_KEYS:
            raise child.fail("not a key of Gaussian layers")
    return heading


def _read_kernel(members: Members) -> Kernel:
    size, stride = (_read_window(members.get(key)) for key in ("Kernel", "KernelStride"))
    if any(step != 1 for step in stride[len(size) :]):
        raise members.nodes["KernelStride"].fail(f"more dimensions than Kernel, which has {len(size)}")
    return Kernel(size, (*stride, *[1] * len(size))[: len(size)])


def _read_window(node: Node | None) -> tuple[int, ...]:
    return (1,) if node is None else _read_integers(node, 3)


def _read_shape(heading: Heading, kernel: Kernel) -> tuple[tuple[int, ...] | Auto, int]:
    """Shape and number of filters, as far as the layer itself says."""
    sides = _read_units(heading)
    if heading.kind not in _COMPUTING or heading.type is LayerType.FULLY_CONNECTED:
        return sides, 0
    if sides is AUTO or heading.type is LayerType.POOLING:
        return AUTO, 0
    if heading.kind is LayerKind.OUTPUT and len(sides) == len(kernel.size) + 1:
        return sides, sides[-1]
    if prod(sides[1:]) != 1:
        raise heading.members.nodes["N"].fail("the number of filters is wanted; the sizes follow from the sources")
    return AUTO, sides[0]


def _read_units(heading: Heading) -> tuple[int, ...] | Auto:
    node, kind = heading.members.get("N"), heading.kind
    if node is None:
        return (1,)
    if isinstance(node.value, str):
        if node.text().lower() != "auto":
            raise node.fail(f'a number or "auto" is wanted, not {node.value!r}')
        if kind in (LayerKind.HIDDEN, LayerKind.TARGET):
            raise node.fail(
                f"{SPEAKER}Illegal attempt to use auto for {KIND_NAMES[kind].lower()} layer: {heading.name}"
            )
        return AUTO
    sides = _read_integers(node, 4)
    if prod(sides) > _MOST:
        raise node.fail(f"{prod(sides)} units are too many; at most {_MOST} are possible")
    return sides


def _read_integers(node: Node, most: int) -> tuple[int, ...]:
    """One to `most` whole numbers of at least 1."""
    items = node.items()
    if not 1 <= len(items) <= most:
        raise node.fail(f"1 to {most} numbers are wanted, not {len(items)}")
    numbers = tuple(item.integer(1) for item in items)
    for item, number in zip(items, numbers, strict=True):
        if number > _MOST:
            raise item.fail(f"{number} is too large; at most {_MOST} is possible")
    return numbers


def _read_sources(heading: Heading, kinds: Mapping[str, LayerKind]) -> tuple[str, ...]:
    node = heading.members.get("Source")
    if heading.kind is LayerKind.INPUT or (heading.kind is LayerKind.TARGET and node is None):
        return ()
    if node is None:
        if heading.previous is None:
            raise heading.node.fail("Source is missing; no layer before this one can feed it")
        return (heading.previous,)
    items = node.items()
    if not items:
        raise node.fail("a source is wanted, not an empty array")
    names = [_read_name(item, kinds) for item in items]
    if heading.type is not LayerType.POOLING:
        for number, name in enumerate(names):
            if name in names[:number]:
                raise items[number].fail(f"{name} is a source twice")
    return tuple(names)


def _read_skips(heading: Heading, kinds: Mapping[str, LayerKind]) -> tuple[str, ...]:
    node = heading.members.get("Skip")
    if node is None:
        return ()
    skips = tuple(_read_name(item, kinds) for item in node.items())
    if skips and heading.type is LayerType.POOLING:
        raise node.fail("a Pooling layer has no sum that a skip could be added to")
    return skips


def _read_name(node: Node, kinds: Mapping[str, LayerKind]) -> str:
    name = node.text()
    if name not in kinds:
        close = difflib.get_close_matches(name, kinds, n=1)
        raise node.fail(f"no layer is called {name!r}" + (f"; did you mean {close[0]}?" if close else ""))
    if kinds[name] is LayerKind.TARGET:
        raise node.fail(f"{name} is a Target layer, which feeds nothing")
    return name


def _read_activation(heading: Heading, loss: Loss) -> Activation:
    node = heading.members.get("Activation")
    multinomial = heading.kind is LayerKind.OUTPUT and loss.multinomial
    if multinomial and heading.type is LayerType.POOLING:
        raise heading.node.fail(f"{MULTINOMIAL} needs an Output with Activation SoftMax; a Pooling layer has none")
    if node is None:
        if heading.kind is LayerKind.OUTPUT and loss.error in CONTRASTING:
            return Activation.LINEAR
        return Activation.SOFT_MAX if multinomial else Activation.SIGMOID
    activation = node.choice(ACTIVATIONS, f"{SPEAKER}Invalid layer activation: {{value}}")
    if multinomial and activation is not Activation.SOFT_MAX:
        raise node.fail(f"{MULTINOMIAL} needs an Output with Activation SoftMax")
    return activation


def _read_weight_init(heading: Heading) -> WeightInit:
    node = heading.members.get("WeightInit")
    if node is None:
        return WeightInit()
    members = node.members(
        ["Scheme", "Scale", "Bias"], unknown=f"{SPEAKER}Invalid weight initialization field: {{key}}"
    )
    bias = members.get("Bias")
    log_odds = bias is not None and isinstance(bias.value, str)
    if log_odds and bias is not None:
        bias.choice({"LogOdds": True}, "unknown way to begin biases: {value}")
        if heading.kind is not LayerKind.OUTPUT:
            raise bias.fail("LogOdds needs target features, which only an Output layer has")
        if heading.type is not LayerType.FULLY_CONNECTED:
            raise bias.fail("LogOdds needs a bias for each unit, which only a FullyConnected layer has")
    return WeightInit(
        scheme=members.choice(
            "Scheme", SCHEMES, WeightScheme.XAVIER, unknown=f"{SPEAKER}Invalid weight initialization scheme: {{value}}"
        ),
        scale=members.number("Scale", 1.0),
        bias=0.0 if log_odds else members.number("Bias", 0.0),
        log_odds=log_odds,
    )


def _read_dropout(heading: Heading, activation: Activation) -> float:
    node = heading.members.get("pDropout")
    p = read_chance(node)
    soft_max = activation is Activation.SOFT_MAX and heading.type is not LayerType.POOLING
    if node is not None and p > 0 and heading.kind is LayerKind.OUTPUT and soft_max:
        raise node.fail("a SoftMax Output has no dropout: its units would no longer sum to 1")
    return p


def _read_own_sparseness(heading: Heading) -> Sparseness:
    node = heading.members.get("SparsenessPenalty")
    if node is not None and isinstance(node.value, bool):
        return Sparseness()
    return read_sparseness(node, f"sparseness penalty parameter for hidden layer {heading.name}")


def _read_function(heading: Heading) -> PoolingFunction:
    node = heading.members.get("Function")
    if heading.is_gaussian:
        return PoolingFunction.GAUSSIAN
    if heading.kind not in _COMPUTING:
        return PoolingFunction.NONE
    if heading.type is not LayerType.POOLING:
        if node is not None:
            raise node.fail("only a layer of Type Pooling has a Function")
        return PoolingFunction.NONE
    if node is None:
        raise heading.node.fail("Function is missing")
    return node.choice(FUNCTIONS, f"{SPEAKER}Invalid pooling function ({{value}}) for pooling layer {heading.name}")


def _read_shared(heading: Heading, sources: Sequence[str]) -> tuple[SharedWeights, ...]:
    node = heading.members.get("SharedWeights")
    if node is None:
        return ()
    items = node.items()
    if items and heading.type is LayerType.POOLING:
        raise node.fail("a Pooling layer has no weights to share")
    shared: list[SharedWeights] = []
    for item in items:
        members = item.members(
            ["InputLayer", "SourceInputLayer", "SourceOutputLayer", "Transposed"],
            unknown=f"{SPEAKER}Invalid shared weight field: {{key}}",
        )
        for key in ("InputLayer", "SourceInputLayer", "SourceOutputLayer"):
            if members.get(key) is None:
                raise item.fail(f"{key} is missing")
        names = [members.text(key, "") for key in ("InputLayer", "SourceInputLayer", "SourceOutputLayer")]
        if names[0] not in sources:
            raise members.nodes["InputLayer"].fail(f"{names[0]!r} is no source of layer {heading.name}")
        if any(names[0] == other.input for other in shared):
            raise item.fail(f"the weights from {names[0]} are shared twice")
        shared.append(SharedWeights(*names, transposed=members.flag("Transposed", False)))
    return tuple(shared)


def _read_normalization(heading: Heading, key: str) -> bool:
    wanted = heading.members.flag(key, False)
    if wanted and heading.type is LayerType.POOLING:
        raise heading.members.nodes[key].fail("a Pooling layer has no sum that could be normalized")
    return wanted


def _read_slope(key: str, members: Members, network: Members, *, default: float) -> float:
    return members.number(key, network.number(key, default))
