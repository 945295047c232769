"""How a layer's units are dealt to parts of equal size, like cards, so that popular features spread evenly over the
devices and over the blocks a device works through. Knows NumPy's and JAX's arrays alike, and imports neither.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from trainer.network_names import takes_logits
from trainer.network_types import Activation, LayerKind, LayerSpec, LayerType, NetworkSpec
from trainer.sparse import round_up

ON_CPU, ON_ACCELERATOR = 1 << 20, 1 << 23
"""Weights of a block at most: what fits a cache of some megabytes, and what is worth a kernel's start."""
_LARGEST_BLOCK = 8192
"""Units of a block at most: [batch, block] is what a step holds of a wide layer."""
_FEWEST_PARTS = 8
"""So that the deal is the same on the usual meshes."""


@dataclass(frozen=True, slots=True)
class Deal:
    """Unit `u` is stored at `place(u)`: in part `u % parts`, as entry `u // parts` there. One part keeps the order."""

    units: int
    stored: int
    """Places; a multiple of `parts`. Those that no unit has come to stay zero."""
    parts: int = 1

    @property
    def size(self) -> int:
        """Places of a part."""
        return self.stored // self.parts

    def place(self, unit: Any) -> Any:
        """Where a unit is stored, of numbers or arrays of them."""
        return unit if self.parts == 1 else unit % self.parts * self.size + unit // self.parts

    def unit(self, place: Any) -> Any:
        """The unit stored at a place; at or beyond `units` where there is none."""
        return place if self.parts == 1 else place % self.size * self.parts + place // self.size

    def holds(self, place: Any) -> Any:
        """Whether a unit is stored at a place."""
        return (place < self.stored) & (self.unit(place) < self.units)

    def dealt(self, array: Any, axis: int = 0) -> Any:
        """An array over the units, padded to `stored` along `axis`, in the order of the places."""
        return self._turned(array, axis, (self.size, self.parts))

    def gathered(self, array: Any, axis: int = 0) -> Any:
        """The inverse of `dealt`; the padding is still there."""
        return self._turned(array, axis, (self.parts, self.size))

    def _turned(self, array: Any, axis: int, sides: tuple[int, int]) -> Any:
        if self.parts == 1:
            return array
        shape = array.shape
        split = array.reshape(*shape[:axis], *sides, *shape[axis + 1 :])
        return split.swapaxes(axis, axis + 1).reshape(shape)


IN_ORDER = Deal(0, 0)
"""Of a layer that is not dealt: a unit's place is its number."""


def is_wide(layer: LayerSpec) -> bool:
    """Whether the layer's units are features, to be spread over devices."""
    return layer.kind in (LayerKind.INPUT, LayerKind.OUTPUT) and layer.type is LayerType.FULLY_CONNECTED


def deal_of(layer: LayerSpec, shards: int) -> Deal:
    """How the layer's units are stored on `shards` devices of mesh axis `model`."""
    multiple = max(layer.parts, shards) if is_wide(layer) else 1
    return Deal(layer.width, round_up(layer.width, multiple), max(layer.parts, 1))


def blocks_of(layer: LayerSpec, shards: int) -> int:
    """Blocks of whole parts that a device works through its share of a wide layer in."""
    parts = max(layer.parts // shards, 1)
    wanted = -(-layer.width // (shards * max(layer.block, 1)))
    return next((count for count in range(min(wanted, parts), parts) if parts % count == 0), parts)


def deals_of(spec: NetworkSpec, shards: int) -> dict[str, Deal]:
    """The deals of the layers that are dealt, by name."""
    return {layer.name: deal_of(layer, shards) for layer in spec.layers if layer.parts > 0}


def with_deals(
    spec: NetworkSpec, sparse: Collection[str], *, shards: int, weights: int = ON_CPU, is_local: bool = False
) -> NetworkSpec:
    """`spec` (shapes resolved) with those wide layers dealt that can be updated block by block, of so many `weights` at
    most; `sparse` names the layers that have sparse data. Where an update `is_local`, to the rows that have entries,
    matrices from Input layers need no blocks.
    """
    if _is_clipped(spec):
        return spec
    of_kind = {LayerKind.INPUT: 0 if is_local else weights}
    layers = (_dealt(spec, layer, sparse, shards, of_kind.get(layer.kind, weights)) for layer in spec.layers)
    return replace(spec, layers=tuple(layers))


def _dealt(spec: NetworkSpec, layer: LayerSpec, sparse: Collection[str], shards: int, weights: int) -> LayerSpec:
    if not _can_be_dealt(spec, layer, sparse):
        return replace(layer, parts=0, block=0)
    ends = ((one.source, one.target) for one in spec.connections)
    widest = max((other.width for pair in ends if layer in pair for other in pair if other is not layer), default=1)
    block = layer.width if layer.sampling.by or not weights else max(min(weights // widest, _LARGEST_BLOCK), 1)
    power = 1 << (-(-layer.width // block) - 1).bit_length()
    return replace(layer, parts=round_up(max(power, _FEWEST_PARTS), shards), block=block)


def can_be_sampled(spec: NetworkSpec, layer: LayerSpec) -> bool:
    """Whether a step may look at some units of an Output layer only; shapes need not be resolved."""
    return not _is_clipped(spec) and _can_be_dealt(spec, layer, ())


def _is_clipped(spec: NetworkSpec) -> bool:
    # The length of the whole gradient is known only when no block is left.
    return spec.optimizer is not None and spec.optimizer.clip > 0


def _can_be_dealt(spec: NetworkSpec, layer: LayerSpec, sparse: Collection[str]) -> bool:
    """Whether nothing asks for all its units, or for their order: matrices of its own lead to or from layers that are
    not wide, and each unit's output is its own. A matrix used twice, as in tied auto-encoders, or between two wide
    layers, as in linear models, has its gradient only when all passes are done.
    """
    if not is_wide(layer) or layer.skips or layer.batch_normalization or layer.layer_normalization:
        return False
    readers = [other for other in spec.layers if layer.name in (*other.sources, *other.skips)]
    if any(layer.name in other.skips or other.type is not LayerType.FULLY_CONNECTED for other in readers):
        return False
    if layer.kind is LayerKind.INPUT:
        if layer.name not in sparse or any(other.weight_norm > 0 for other in readers):
            return False
    elif readers or layer.dropout > 0 or layer.delta_norm > 0 or not _is_unit_by_unit(spec, layer):
        return False
    connections = spec.connections
    users = Counter(one.owner for one in connections)
    return all(
        users[number] == 1 and not is_wide(one.target if layer.kind is LayerKind.INPUT else one.source)
        for number, one in enumerate(connections)
        if layer.name in (one.source.name, one.target.name)
    )


def _is_unit_by_unit(spec: NetworkSpec, layer: LayerSpec) -> bool:
    """Whether a unit's loss follows from its own sum and, for SoftMax, one number a sample."""
    if layer.activation is Activation.SOFT_MAX:
        return takes_logits(spec.loss_of(layer), layer.activation)
    return layer.activation not in (Activation.RELU_MAX, Activation.LINEAR_MAX)
