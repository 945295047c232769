"""A network with open values: its JSON, where in a value's place there may stand what the value is to be chosen from:
`{"Range": [low, high], "Scale": "log", "Step": step}` or `{"Choice": [value, …]}`. Both ends of a range can be chosen;
it is of whole numbers if both are written as such. Knows nothing of how values are chosen.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.jsontree import Members, Node

_DIGITS = 6
"""Of a number that is chosen."""
_SCALES = {"linear": False, "log": True}


@dataclass(frozen=True, slots=True)
class Open:
    """One open value of a network."""

    path: str
    """As errors name it."""
    place: tuple[str | int, ...]
    """The keys and positions that lead to it."""
    pick: Callable[[float], Any]
    """The value at a share of the way, in [0, 1)."""

    @property
    def ends(self) -> tuple[Any, Any]:
        """The values at both ends."""
        return self.pick(0.0), self.pick(math.nextafter(1.0, 0.0))


def open_values(root: Node) -> tuple[Open, ...]:
    """Those of a network, in the file's order; a range that is none raises `NetworkError`, and so do no open values."""
    found = tuple(_found(root, ()))
    if not found:
        raise root.fail('nothing is open: write {"Range": [low, high]} or {"Choice": [value, …]} in a value\'s place')
    return found


def is_open(root: Node) -> bool:
    """Whether a network leaves a value open."""
    return next(_found(root, ()), None) is not None


def corners(opened: Sequence[Open]) -> Iterator[dict[tuple[str | int, ...], Any]]:
    """Values by place: all at their first end, then each alone at its other one, then all of them."""
    first, last = ({one.place: one.ends[end] for one in opened} for end in (0, 1))
    yield first
    yield from ({**first, place: value} for place, value in last.items())
    yield last


def closed(root: Node, values: Mapping[tuple[str | int, ...], Any]) -> Node:
    """The network with `values`, by place."""
    tree = copy.deepcopy(root.value)
    for place, value in values.items():
        parent = tree
        for key in place[:-1]:
            parent = parent[key]
        parent[place[-1]] = value
    return Node(tree, root.path, root.file)


def _found(node: Node, place: tuple[str | int, ...]) -> Iterator[Open]:
    if isinstance(node.value, dict):
        if {"range", "choice"} & {key.lower() for key in node.value}:
            yield Open(node.path, place, _picker(node))
            return
        for key in node.value:
            yield from _found(Node(node.value[key], f"{node.path}.{key}", node.file), (*place, key))
    elif isinstance(node.value, list):
        for position, item in enumerate(node.items()):
            yield from _found(item, (*place, position))


def _picker(node: Node) -> Callable[[float], Any]:
    members = node.members(["Range", "Choice", "Scale", "Step"])
    choice = members.get("Choice")
    if choice is None:
        return _of_range(members.nodes["Range"], members)
    if len(members.nodes) > 1:
        raise node.fail("a Choice has no Range, Scale or Step")
    if not isinstance(choice.value, list) or not choice.value:
        raise choice.fail("an array of at least one value is wanted")
    return _of_choice(choice.value)


def _of_range(node: Node, members: Members) -> Callable[[float], Any]:
    ends = node.items()
    if not isinstance(node.value, list) or len(ends) != 2:
        raise node.fail("an array of two numbers is wanted, as [0.001, 0.1]")
    low, high = (end.number() for end in ends)
    if low >= high:
        raise node.fail(f"{high:g} is not above {low:g}")
    is_whole = all(isinstance(end.value, int) for end in ends)
    is_log = members.choice("Scale", _SCALES, False, unknown="unknown scale: {value}")
    if is_log and low <= 0:
        raise node.fail("a log Scale needs numbers above 0")
    step = members.get("Step")
    if step is None:
        return _continuous(low, high, is_log=is_log, is_whole=is_whole)
    if is_log:
        raise step.fail("a range with a log Scale has no Step")
    if step.number() <= 0:
        raise step.fail("a number above 0 is wanted")
    return _stepped(low, high, step.number(), is_whole=is_whole and isinstance(step.value, int))


def _of_choice(values: Sequence[Any]) -> Callable[[float], Any]:
    return lambda share: values[int(share * len(values))]


def _continuous(low: float, high: float, *, is_log: bool, is_whole: bool) -> Callable[[float], Any]:
    def pick(share: float) -> Any:
        # Every whole number has as much of the way, the ends too.
        first, last = (low - 0.5, high + 0.5) if is_whole else (low, high)
        value = first * (last / first) ** share if is_log else first + (last - first) * share
        if is_whole:
            return int(min(max(math.floor(value + 0.5), low), high))
        return min(max(float(f"{value:.{_DIGITS}g}"), low), high)

    return pick


def _stepped(low: float, high: float, step: float, *, is_whole: bool) -> Callable[[float], Any]:
    # The last step may miss the end by how decimals are rounded.
    count = int((high - low) / step + 1e-9) + 1

    def pick(share: float) -> Any:
        value = low + step * int(share * count)
        return int(value) if is_whole else float(f"{value:.{_DIGITS}g}")

    return pick
