"""A compiled program's text, read: which collectives run how often, and what its loops multiply. Knows XLA's notation,
neither JAX nor networks.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count"?:\s*\{"n":"(\d+)"')
_ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\]")
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True, slots=True)
class Collective:
    """A collective of the compiled step between more than one device."""

    name: str
    shape: str
    """Of its result on one device."""
    bytes: int
    """Of that result, once."""
    count: int
    """Times a step."""
    devices: int
    """That take part in one group."""


class _Instruction(NamedTuple):
    shape: str
    operation: str
    rest: str
    """Operands and attributes."""
    times: int
    """How often a step runs it."""


class CompiledProgram:
    """A compiled program's text (https://openxla.org/xla/operation_semantics), with how often each line runs: XLA's own
    cost analysis takes the body of a loop for one pass.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[str, list[tuple[str, str, str]]] = {}
        self._shapes: dict[str, str] = {}
        entry = lines = None
        for line in text.splitlines():
            if head := _COMPUTATION.match(line):
                lines = self._lines.setdefault(head[1], [])
                entry = head[1] if line.startswith("ENTRY") else entry
            elif lines is not None and (found := _INSTRUCTION.match(line)):
                self._shapes[found[1]] = found[2]
                lines.append((found[2], found[3], found[4]))
        self._instructions = tuple(self._run(entry, 1)) if entry else ()

    def collectives(self, devices: int) -> Iterator[Collective]:
        """What passes between devices, equal ones counted together."""
        counts: dict[tuple[str, str, int], int] = {}
        for one in self._instructions:
            size = _group_size(one.rest, devices)
            if one.operation in _COLLECTIVES and size > 1:
                key = (one.operation, _plain(one.shape), size)
                counts[key] = counts.get(key, 0) + one.times
        for (name, shape, size), count in counts.items():
            yield Collective(name, shape, _bytes_of(shape), count, size)

    def repeated_flops(self) -> float:
        """Flops of matrix products in loops, their first pass left out."""
        return sum((one.times - 1) * self._product(one) for one in self._instructions if one.operation == "dot")

    def _run(self, computation: str, times: int) -> Iterator[_Instruction]:
        for shape, operation, rest in self._lines.get(computation, ()):
            yield _Instruction(shape, operation, rest, times)
            trips = _TRIPS.search(rest) if operation == "while" else None
            inner = times * int(trips[1]) if trips else times
            branches = (name.strip(" %") for group in _BRANCHES.findall(rest) for name in group.split(","))
            for called in (*_CALLED.findall(rest), *branches):
                yield from self._run(called, inner)

    def _product(self, one: _Instruction) -> float:
        """2 · elements of the result · summed elements"""
        left = re.match(r"(?:\w+\[\S* )?%?([\w.\-]+)", one.rest)
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.rest)
        if left is None or axes is None:
            return 0.0
        sides = next(_arrays(self._shapes.get(left[1], "")), (0, ()))[1]
        summed = math.prod(sides[int(axis)] for axis in axes[1].split(",") if axis)
        return 2.0 * summed * sum(math.prod(result) for _, result in _arrays(one.shape))


def _group_size(rest: str, devices: int) -> int:
    """Devices of one group, of the three ways to write groups; 1 where nothing leaves a device."""
    if pairs := re.search(r"source_target_pairs=\{\{(.*?)\}\}", rest):
        return 2 if any(len(set(pair.split(","))) > 1 for pair in pairs[1].split("},{")) else 1
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return len(listed[1].split(","))
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(iota[1])
    if axes := re.search(r"replica_groups=mesh\[(.*?)\].*?\{(.*?)\}", rest):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes[1])}
        used: Iterable[tuple[str, str]] = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", axes[2])
        return math.prod(int(part) if part else sizes[name] for name, part in used)
    return devices


def _plain(shape: str) -> str:
    """A shape without layouts and comments: `f32[256,1024]`."""
    return re.sub(r"\{[^}]*\}|/\*.*?\*/", "", shape)


def _arrays(shape: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Bytes of an element, and sides, of each array of a shape."""
    for kind, bits, sides in _ARRAY.findall(shape):
        size = 1 if kind == "pred" else max(int(bits or 8) // 8, 1)
        yield size, tuple(int(side) for side in sides.split(",") if side)


def _bytes_of(shape: str) -> int:
    return sum(size * math.prod(sides) for size, sides in _arrays(shape))
