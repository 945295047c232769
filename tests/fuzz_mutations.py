"""Random changes to files: to their bytes, whatever they mean, and to JSON trees. The same `Random` gives the same."""

import copy
import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

LARGEST = 200_000
"""Bytes of a mutated file, at most."""

_BYTES = (0, 1, 9, 10, 13, 32, 34, 44, 45, 48, 58, 92, 127, 128, 255)
_INTEGERS = (0, 1, 2, 64, 127, 128, 255, 1 << 15, (1 << 16) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40)
_NUMBERS = (
    *(b"-1", b"0", b"-0", b"1", b"0.5", b"1e999", b"-1e999", b"1e-999", b"1e39", b"1e-46", b"nan", b"inf", b"-inf"),
    *(b"0x1p-149", b"0x1p99999999999999999999", b"0x1p-99999999999999999999", b"0x.", b"0x", b"1e", b".", b"+", b"1_0"),
    *(b"2147483647", b"2147483648", b"4294967295", b"4294967296", b"9223372036854775808", b"18446744073709551616"),
    *(b"9" * 400, b"9" * 5000, b"1." + b"0" * 2000, "\N{ARABIC-INDIC DIGIT FIVE}".encode(), "½".encode()),
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_FEW = 8

Edit = Callable[[Random, bytearray, Sequence[bytes]], None]


def mutated(rng: Random, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """One of the seeds after one to eight changes; rarely a seed as it is, or noise."""
    if rng.random() < 0.01:
        return rng.randbytes(rng.randrange(64)) if rng.random() < 0.5 else rng.choice(seeds)
    data = bytearray(rng.choice(seeds))
    for _ in range(1 << rng.randrange(4)):
        if rng.random() < 0.1:
            _splice(rng, data, seeds)
        else:
            rng.choice(_EDITS)(rng, data, tokens)
    return bytes(data[:LARGEST])


def mutated_json(rng: Random, trees: Sequence[Any], values: Sequence[Any]) -> bytes:
    """One of the trees after one to eight changes of values, keys and places."""
    tree = copy.deepcopy(rng.choice(trees))
    for _ in range(1 << rng.randrange(4)):
        _edit_tree(rng, tree, values)
    text = json.dumps(tree, indent=rng.choice((None, 1)))
    return text.replace("Infinity", rng.choice(("Infinity", "1e999"))).encode()


def _edit_tree(rng: Random, tree: Any, values: Sequence[Any]) -> None:
    places = list(_places(tree))
    if not places:
        return
    holder, key = rng.choice(places)
    other, other_key = rng.choice(places)
    chance = rng.random()
    if chance < 0.5:
        holder[key] = copy.deepcopy(rng.choice(values))
    elif chance < 0.65:
        holder[key] = copy.deepcopy(other[other_key])
    elif chance < 0.75:
        del holder[key]
    elif chance < 0.85 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(other[other_key]))
    elif isinstance(holder, dict):
        name = rng.choice((str(rng.choice(values)), rng.choice(list(holder)), key.upper(), str(other_key)))
        holder[name] = copy.deepcopy(holder[key])
    else:
        holder[key] = [holder[key]]


def _places(tree: Any) -> Sequence[tuple[Any, Any]]:
    """Every container and key below the top."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        found += [(node, key) for key in keys]
        waiting += [node[key] for key in keys]
    return found


def _splice(rng: Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    data[_spot(rng, data) :] = other[_spot(rng, other) :]


def _flip(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[_spot(rng, data)] ^= 1 << rng.randrange(8)


def _set(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[_spot(rng, data)] = rng.choice(_BYTES)


def _cut(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = _spot(rng, data)
    del data[start : start + rng.choice((1, 2, 4, 16, 200))]


def _truncate(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[_spot(rng, data) :]


def _double(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = _spot(rng, data)
    piece = data[start : start + rng.randrange(1, 64)]
    data[start:start] = piece


def _insert(rng: Random, data: bytearray, tokens: Sequence[bytes]) -> None:
    place = _spot(rng, data)
    data[place:place] = rng.choice(tokens) if tokens else rng.randbytes(rng.randrange(_FEW))


def _overwrite(rng: Random, data: bytearray, tokens: Sequence[bytes]) -> None:
    place = _spot(rng, data)
    token = rng.choice(tokens) if tokens else rng.randbytes(rng.randrange(_FEW))
    data[place : place + len(token)] = token


def _integer(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A binary number, in either order of bytes."""
    place, size = _spot(rng, data), rng.choice((1, 2, 4, 8))
    value = rng.choice(_INTEGERS) % (1 << 8 * size)
    data[place : place + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _number(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A number written in digits."""
    found = [match.span() for match in _NUMBER.finditer(data)]
    start, end = rng.choice(found) if found else (len(data), len(data))
    data[start:end] = rng.choice(_NUMBERS)


def _repeat(rng: Random, data: bytearray, tokens: Sequence[bytes]) -> None:
    """Much of the same, as finds what takes the square of a length."""
    place = _spot(rng, data)
    token = (rng.choice(tokens) if tokens else b"") or b"\0"
    times = LARGEST // len(token) if rng.random() < 0.02 else rng.choice((2, 10, 300, 3000))
    data[place:place] = (token * times)[:LARGEST]


def _spot(rng: Random, data: bytes | bytearray) -> int:
    """A place; rather one that is not 0, of which binary files are full."""
    place = 0
    for _ in range(4):
        place = rng.randrange(max(len(data), 1))
        if data and data[place]:
            break
    return place


_EDITS: Sequence[Edit] = (
    _flip, _set, _cut, _truncate, _double, _insert, _insert, _overwrite, _integer, _number, _number, _repeat,
)  # fmt: skip
