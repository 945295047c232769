"""Sizes that follow from other sizes: what a window makes of a layer's sides, and which layer comes after which.

Sides are units by dimension, x first, 1 to 4 of them. A kernel of d dimensions works on the first d sides;
the side after them, 1 where it is missing, is the channels. Plain numbers only: no arrays, no files.
"""

import heapq
import math
from collections.abc import Iterable, Sequence

from trainer.network_types import ConnectionSpec, Kernel, LayerKind, LayerSpec, LayerType, PoolingFunction

_WINDOWED = {PoolingFunction.MAX, PoolingFunction.AVERAGE}
_PAIRED = {PoolingFunction.DOT_PRODUCT, PoolingFunction.COSINE}
_COMPUTED = {*_WINDOWED, *_PAIRED, PoolingFunction.LRN, PoolingFunction.MAXOUT, PoolingFunction.GAUSSIAN}


def window_sides(sides: Sequence[int], kernel: Kernel) -> tuple[int, ...]:
    """How often the window fits along each of the kernel's dimensions."""
    return tuple(
        1 if side <= size else side if stride == 1 else (side - size) // stride + 1
        for side, size, stride in _windows(sides, kernel)
    )


def window_padding(sides: Sequence[int], kernel: Kernel) -> tuple[int, ...]:
    """How far the first window begins before the first unit, along each of the kernel's dimensions."""
    return tuple(
        # None for a kernel as long as its side: DSSTNE's half a kernel would make two windows of the one there is.
        (size - side + 1) // 2 if side < size else size // 2 if stride == 1 and side > size else 0
        for side, size, stride in _windows(sides, kernel)
    )


def convolution_sides(sides: Sequence[int], kernel: Kernel, filters: int) -> tuple[int, ...]:
    """Sides of a convolution of a source of `sides`: the filters come after the kernel's dimensions."""
    return (*window_sides(sides, kernel), filters)


def filter_shape(sides: Sequence[int], kernel: Kernel, filters: int) -> tuple[int, ...]:
    """Shape of the filters that convolve a source of `sides`: [filters, channels, …, y, x]."""
    dimensions = len(kernel.size)
    channels = sides[dimensions] if len(sides) > dimensions else 1
    return (filters, channels, *reversed(kernel.size))


def pooling_sides(
    source_sides: Sequence[tuple[int, ...]], function: PoolingFunction, kernel: Kernel
) -> tuple[int, ...]:
    """Sides of a pooling layer over sources that `why_not_pooled` has nothing against."""
    first = source_sides[0]
    if function in _WINDOWED:
        return (*window_sides(first, kernel), *first[len(kernel.size) :])
    return (len(source_sides) - 1,) if function in _PAIRED else first


def why_not_convolved(sides: Sequence[int], kernel: Kernel) -> str | None:
    """What keeps a source of `sides` from being convolved, or `None`."""
    most = len(kernel.size) + 1
    if len(sides) <= most:
        return None
    return f"a source of {len(sides)} dimensions is too many for a kernel of {most - 1}; at most {most} are wanted"


def why_not_pooled(source_sides: Sequence[Sequence[int]], function: PoolingFunction) -> str | None:
    """What keeps sources of these sides from being pooled, or `None`."""
    name = function.name.title().replace("_", "") if function is not PoolingFunction.LRN else "LRN"
    if function is PoolingFunction.NONE:
        return "Function is missing"
    if function not in _COMPUTED:
        return f"{name} pooling is not supported"
    if not source_sides and function is PoolingFunction.MAXOUT:
        return f"{name} needs a source"
    if function in _PAIRED and len(source_sides) < 2:
        return f"{name} needs two or more sources"
    if (function in _WINDOWED or function is PoolingFunction.LRN) and len(source_sides) != 1:
        return f"{name} pools one source, not {len(source_sides)}"
    if function is PoolingFunction.GAUSSIAN and len(source_sides) != 2:
        return f"{name} needs two sources, of its mean and of the logarithm of its variance, not {len(source_sides)}"
    sizes = [math.prod(sides) for sides in source_sides]
    if len(set(sizes)) > 1:
        return f"{name} needs sources of equal size, not {', '.join(map(str, sizes))} units"
    return None


def weight_shape(source: LayerSpec, target: LayerSpec) -> tuple[int, ...]:
    """Shape of the weights that lead from `source` into `target`: [in, out], or that of filters."""
    if target.type is LayerType.CONVOLUTIONAL:
        return filter_shape(source.sides, target.kernel, target.sides[-1])
    return (source.width, target.width)


def bias_size(layer: LayerSpec) -> int:
    """Biases of one connection into `layer`, or scales of its normalisation: one a unit, or one a filter."""
    return layer.sides[-1] if layer.type is LayerType.CONVOLUTIONAL else layer.width


def has_zero_diagonal(connection: ConnectionSpec) -> bool:
    """Whether the matrix of a connection, which is its own then, keeps a diagonal of zeros."""
    source, target = connection.source, connection.target
    return target.zero_diagonal and source.kind is LayerKind.INPUT and source.width == target.width


def topological(layers: Iterable[LayerSpec]) -> tuple[LayerSpec, ...]:
    """The layers in an order in which each comes after its sources and skips, else in the order given.

    The layers whose matrices it shares come before it, too, unless that closes a circle. Sources or skips that
    form a circle or are not there raise `ValueError`.
    """
    layers = tuple(layers)
    named = {layer.name: layer for layer in layers}
    needed = {layer.name: {*layer.sources, *layer.skips} for layer in layers}
    missing = next(((name, other) for name in needed for other in sorted(needed[name] - needed.keys())), None)
    if missing is not None:
        raise ValueError(f"layer {missing[0]}: no layer is called {missing[1]!r}")
    lenders = {layer.name: {entry.source_output for entry in layer.shared} - {layer.name} for layer in layers}
    order = _sorted({name: needed[name] | (lenders[name] & needed.keys()) for name in needed})
    if len(order) < len(named):
        order = _sorted(needed)
    if len(order) < len(named):
        raise ValueError(f"layers feed each other in a circle: {' <- '.join(_circle(needed, set(order)))}")
    return tuple(named[name] for name in order)


def _windows(sides: Sequence[int], kernel: Kernel) -> Iterable[tuple[int, int, int]]:
    """Side, window size and stride along each of the kernel's dimensions; what is missing is 1."""
    ones = [1] * len(kernel.size)
    return zip([*sides, *ones], kernel.size, [*kernel.stride, *ones], strict=False)


def _sorted(needed: dict[str, set[str]]) -> list[str]:
    """The names that can be put after all they need, the earlier given first."""
    names = list(needed)
    place = {name: number for number, name in enumerate(names)}
    users: dict[str, list[str]] = {name: [] for name in names}
    for name, others in needed.items():
        for other in others:
            users[other].append(name)
    waiting = {name: len(others) for name, others in needed.items()}
    ready = [place[name] for name in names if not waiting[name]]
    order: list[str] = []
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        for user in users[name]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, place[user])
    return order


def _circle(needed: dict[str, set[str]], done: set[str]) -> list[str]:
    """A circle among the names that are not done: each needs the next, the last is the first."""
    path = [next(name for name in needed if name not in done)]
    while True:
        step = min(needed[path[-1]] - done)
        if step in path:
            return [*path[path.index(step) :], step]
        path.append(step)
