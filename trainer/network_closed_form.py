"""The extension `ClosedForm` of a Hidden layer: its JSON, what it asks of the layers around it, and what of a network
is left to be trained.
"""

from collections.abc import Sequence
from dataclasses import replace

from trainer.closed_form import NAMES, ClosedForm
from trainer.jsontree import Node
from trainer.network_types import AUTO, Activation, LayerKind, LayerSpec, LayerType, NetworkSpec

_MOST_POWER, _MOST_SCALE = 1.0, 1e6


def read_closed_form(node: Node | None) -> ClosedForm | None:
    """What may be tried; each value is a number or an array of them."""
    if node is None:
        return None
    members = node.members(list(NAMES))
    default = ClosedForm()
    highest = {"ridge": _MOST_SCALE, "scale": _MOST_SCALE}
    found: dict[str, tuple[float, ...]] = {}
    for key, name in NAMES.items():
        own = members.get(key)
        found[name] = getattr(default, name) if own is None else _numbers(own, highest.get(name, _MOST_POWER))
    if found["scale"][0] == 0 and members.get("Scale") is not None:
        raise members.nodes["Scale"].fail("the first one is what counts unless another is better; it cannot be 0")
    return ClosedForm(**found)


def why_not_closed_form(layer: LayerSpec, layers: Sequence[LayerSpec]) -> str | None:
    """What keeps `layer` from being fitted in closed form, or `None`."""
    by_name = {one.name: one for one in layers}
    users = [one for one in layers if layer.name in (*one.sources, *one.skips)]
    sources = [by_name[name] for name in layer.sources]
    output = users[0] if len(users) == 1 else None
    plain = replace(LayerSpec(layer.name, layer.kind), shape=layer.shape, sources=layer.sources)
    alike = (
        "type",
        "dropout",
        "skips",
        "shared",
        "batch_normalization",
        "layer_normalization",
        "weight_norm",
        "normalize",
    )
    if layer.activation is not Activation.LINEAR or any(getattr(layer, it) != getattr(plain, it) for it in alike):
        return "a plain Linear layer is wanted: no other Activation, no norm, dropout, skips or shared weights"
    if len(sources) != 1 or sources[0].kind is not LayerKind.INPUT:
        return "one source is wanted, an Input layer"
    if output is None or output.kind is not LayerKind.OUTPUT or output.type is not LayerType.FULLY_CONNECTED:
        return "it must lead into one Output layer and nowhere else"
    if AUTO not in (output.shape, sources[0].shape) and output.width != sources[0].width:
        return f"Input and Output must be of the same features, not of {sources[0].width} and {output.width}"
    return None


def closed_layers(spec: NetworkSpec) -> tuple[LayerSpec, ...]:
    """The layers that are fitted in closed form."""
    return tuple(layer for layer in spec.layers if layer.closed_form is not None)


def trained_part(spec: NetworkSpec) -> NetworkSpec:
    """The network without what is fitted in closed form, and without Inputs and Outputs that nothing else uses; without
    layers at all where nothing is left to train.
    """
    closed = {layer.name for layer in closed_layers(spec)}
    if not closed:
        return spec
    kept = [
        replace(layer, sources=tuple(name for name in layer.sources if name not in closed))
        for layer in spec.layers
        if layer.name not in closed
    ]
    kept = [layer for layer in kept if layer.kind is not LayerKind.OUTPUT or layer.sources]
    used = {name for layer in kept for name in (*layer.sources, *layer.skips)}
    kept = [layer for layer in kept if layer.kind is not LayerKind.INPUT or layer.name in used]
    return replace(spec, layers=tuple(kept if any(layer.kind is LayerKind.OUTPUT for layer in kept) else ()))


def _numbers(node: Node, high: float) -> tuple[float, ...]:
    items = node.items() if isinstance(node.value, list) else [node]
    if not items:
        raise node.fail("a number is wanted, not an empty array")
    return tuple(item.number(0.0, high) for item in items)
