"""JSON as people write it: comments allowed, keys and enumerated values in any case, and every value
remembers its path, so that an error can name it. Knows nothing of networks.
"""

import difflib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from trainer.errors import NetworkError

Choice = TypeVar("Choice")

# What is never closed goes to the end: looking for it again from each later place would take hours.
_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*+"?|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Node:
    """One JSON value and where it stands."""

    value: Any
    path: str
    file: str

    def fail(self, message: str) -> NetworkError:
        """The error to raise about this value."""
        return NetworkError(message, self.path, self.file)

    def members(
        self, names: Sequence[str], synonyms: Mapping[str, str] | None = None, *, unknown: str = "unknown key"
    ) -> "Members":
        """The members of this object by canonical name; a key outside `names` and `synonyms` raises, in the words
        `unknown`, where `{key}` and `{lower}` stand for the key.
        """
        if not isinstance(self.value, dict):
            raise self.fail(f"an object is wanted, not {_describe(self.value)}")
        canonical = {name.lower(): name for name in names}
        canonical |= {key.lower(): name for key, name in (synonyms or {}).items()}
        found: dict[str, Node] = {}
        for key in sorted(self.value):
            child = Node(self.value[key], f"{self.path}.{key}", self.file)
            if key.lower() not in canonical:
                hint = _did_you_mean(key, [*names, *(synonyms or {})])
                raise child.fail(unknown.replace("{lower}", key.lower()).replace("{key}", key) + hint)
            name = canonical[key.lower()]
            found[name] = child.over(found[name]) if name in found else child
        return Members(found)

    def over(self, other: "Node") -> "Node":
        """This value, given after `other` for the same key: of two objects the members of both count."""
        if not isinstance(self.value, dict) or not isinstance(other.value, dict):
            return self
        own = {key.lower() for key in self.value}
        kept = {key: value for key, value in other.value.items() if key.lower() not in own}
        return Node({**kept, **self.value}, self.path, self.file)

    def items(self) -> "list[Node]":
        """The elements of this array; a value that is no array counts as an array of one."""
        values = self.value if isinstance(self.value, list) else [self.value]
        single = not isinstance(self.value, list)
        return [
            Node(value, self.path if single else f"{self.path}[{position}]", self.file)
            for position, value in enumerate(values)
        ]

    def text(self) -> str:
        """This value as a string."""
        if not isinstance(self.value, str):
            raise self.fail(f"a string is wanted, not {_describe(self.value)}")
        return self.value

    def number(self, low: float = -float("inf"), high: float = float("inf")) -> float:
        """This value as a number in [low, high]; true and false count as 1 and 0."""
        if not isinstance(self.value, (int, float)):
            raise self.fail(f"a number is wanted, not {_describe(self.value)}")
        if not abs(self.value) <= sys.float_info.max:
            raise self.fail("the number is too large")
        if not low <= self.value <= high:
            raise self.fail(f"{self.value} is outside {low:g} to {high:g}")
        return float(self.value)

    def integer(self, low: int) -> int:
        """This value as a whole number of at least `low`; a fraction is cut off."""
        number = self.number()
        if int(number) < low:
            raise self.fail(f"{self.value} is too small; at least {low} is wanted")
        return int(number)

    def flag(self) -> bool:
        """This value as a truth value; any number but 0 is true."""
        return self.number() != 0

    def choice(self, table: Mapping[str, Choice], unknown: str) -> Choice:
        """The entry of `table` this string names, in any case; any other raises, in the words `unknown`, where
        `{value}` stands for it.
        """
        by_name = {name.lower(): entry for name, entry in table.items()}
        text = self.text()
        if text.lower() not in by_name:
            hint = _did_you_mean(text, list(table)) or f"; one of {', '.join(table)} is wanted"
            raise self.fail(unknown.replace("{value}", text) + hint)
        return by_name[text.lower()]


@dataclass(frozen=True, slots=True)
class Members:
    """The members of one object by canonical name."""

    nodes: dict[str, Node]

    def get(self, name: str) -> Node | None:
        """The member, or `None` where the object has none of that name."""
        return self.nodes.get(name)

    def text(self, name: str, default: str) -> str:
        """The string member `name`."""
        node = self.nodes.get(name)
        return default if node is None else node.text()

    def number(self, name: str, default: float, *, low: float = -float("inf"), high: float = float("inf")) -> float:
        """The number member `name`, in [low, high]."""
        node = self.nodes.get(name)
        return default if node is None else node.number(low, high)

    def flag(self, name: str, default: bool) -> bool:
        """The truth value `name`."""
        node = self.nodes.get(name)
        return default if node is None else node.flag()

    def choice(self, name: str, table: Mapping[str, Choice], default: Choice, *, unknown: str) -> Choice:
        """The entry of `table` named by the member `name`."""
        node = self.nodes.get(name)
        return default if node is None else node.choice(table, unknown)


def read_json(path: Path) -> Node:
    """The top value of a JSON file with `//` and `/* */` comments; text after it is ignored."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise NetworkError(f"cannot be read: {error.strerror}", str(path)) from error
    except UnicodeDecodeError as error:
        raise NetworkError("is not UTF-8 text", str(path)) from error
    return Node(_parse(text, path), "$", str(path))


def _parse(text: str, path: Path) -> Any:
    blank = _STRING_OR_COMMENT.sub(_blank_comment, text)
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    start = len(blank) - len(blank.lstrip())
    try:
        return decoder.raw_decode(blank, start)[0]
    except json.JSONDecodeError as error:
        raise NetworkError(f"not JSON: {error.msg} (column {error.colno})", f"{path}:{error.lineno}") from error
    except ValueError as error:
        raise NetworkError(f"not JSON: {error}", str(path)) from error
    except RecursionError as error:
        raise NetworkError("nested too deeply", str(path)) from error


def _blank_comment(match: re.Match[str]) -> str:
    token = match.group()
    return token if token.startswith('"') else re.sub(r"[^\n]", " ", token)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]}?" if close else ""


def _describe(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", str: f"the string {value!r}", dict: "an object", list: "an array"}
    return names.get(type(value), f"the number {value}")
