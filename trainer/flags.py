"""Flags as DSSTNE's programs scan them (spec 2.1, 4.1, 7.1), for commands that take their place: the first argument
equal to a flag counts, the argument after it is its value, and what is unknown is passed over. Long options,
which the originals do not have, work beside them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import typer
from typer.core import TyperCommand

from trainer.errors import SettingsError

Complaint = Callable[[str], str | None]
"""Of a flag's value: what is wrong with it, or `None`."""

Given = Sequence[tuple[str, str | None]]
"""Flags and their values; `None` for a switch, and for a flag that wants a value but is the last argument."""


@dataclass(frozen=True, slots=True)
class Required:
    """A flag that must be given: `what` ends the message if it is not, `check` sees its value once it is. Where the
    long option `unless` is given it may be missing.
    """

    flag: str
    what: str
    check: Complaint = lambda _: None
    unless: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """What a command's flags are called: those that take a value, those that do not, and each one's parameter."""

    valued: frozenset[str]
    switches: frozenset[str]
    parameter: Mapping[str, str]

    @classmethod
    def of(cls, parameters: Sequence[Any]) -> Self:
        """The names of click parameters."""
        spelled = {name: one for one in parameters for name in (*one.opts, *one.secondary_opts)}
        switches = frozenset(name for name, one in spelled.items() if getattr(one, "is_flag", False))
        named = {name: str(one.name) for name, one in spelled.items()}
        return cls(frozenset(spelled) - switches, switches, named)


def readable(what: str) -> Complaint:
    """A check that a file can be read, or that it is a folder; the message calls it `what`."""

    def check(value: str) -> str | None:
        path = Path(value)
        try:
            if not value or not path.is_dir():
                path.open("rb").close()
        except OSError:
            return f"Cannot read {what}: {value}"
        return None

    return check


def absent(what: str) -> Complaint:
    """A check that nothing is there under the name; the message calls it `what`."""

    def check(value: str) -> str | None:
        try:
            exists = bool(value) and Path(value).exists()
        except OSError:
            exists = False
        return f"{what} already exists: {value}" if exists else None

    return check


def flag_command(*required: Required, unless: str = "") -> type[TyperCommand]:
    """The class of a typer command (its `cls`) whose single-dash flags are scanned as DSSTNE scans them.

    The flags `required` are checked in their order, each before the next one is looked for, unless the long
    option `unless` is given. `-h` prints the help and ends with 1; so does every error, on stderr, with the usage
    after it where a flag is missing. An unknown long option is an error.
    """

    class FlagCommand(TyperCommand):
        def collect_usage_pieces(self, ctx: Any) -> list[str]:
            named = Names.of(self.get_params(ctx)).parameter
            return [*(f"{one.flag} {named[one.flag].upper()}" for one in required), "[OPTIONS]"]

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if "-h" in args:
                typer.echo(ctx.get_help())
                raise typer.Exit(1)
            try:
                names = Names.of(self.get_params(ctx))
                given = scan(args, names)
                if not {"--help", unless} & {name for name, _ in given}:
                    _check(required, given, names, usage=ctx.get_usage())
                _refuse_underscores(given, self.params)
                return super().parse_args(ctx, _as_arguments(given, names))
            except SettingsError as error:
                raise _refused(str(error)) from error
            except typer.BadParameter as error:
                raise _refused(error.format_message()) from error

    return FlagCommand


def scan(arguments: Sequence[str], names: Names) -> Given:
    """What is given. Each flag is looked for on its own, so that a value equal to a flag counts as that flag, too;
    long options come after the flags, as often as they are given.

    `SettingsError` for a long option that is unknown.
    """
    long, taken = _long_options(arguments, names)
    rest = ["" if place in taken else word for place, word in enumerate(arguments)]
    short: list[tuple[str, str | None]] = []
    for flag in (name for name in names.parameter if _is_short(name) and name in rest):
        after = rest.index(flag) + 1
        short.append((flag, rest[after] if flag in names.valued and after < len(rest) else None))
    return [*short, *long]


def _long_options(arguments: Sequence[str], names: Names) -> tuple[Given, set[int]]:
    """The long options given, and the places of the arguments they take."""
    found: list[tuple[str, str | None]] = []
    taken: set[int] = set()
    for place, word in enumerate(arguments):
        before = arguments[place - 1] if place and place - 1 not in taken else ""
        is_value = _is_short(before) and before in names.valued
        if place in taken or is_value or _is_short(word) or word == "--":
            continue
        name, equals, value = word.partition("=")
        taken.add(place)
        if name in names.switches and not equals:
            found.append((name, None))
        elif name not in names.valued:
            raise SettingsError(f"No such option: {word}")
        elif equals:
            found.append((name, value))
        else:
            found.append((name, arguments[place + 1] if place + 1 < len(arguments) else None))
            taken.add(place + 1)
    return found, taken


def _is_short(word: str) -> bool:
    return not word.startswith("--")


def _check(required: Sequence[Required], given: Given, names: Names, *, usage: str) -> None:
    for one in required:
        values = [_value(name, value) for name, value in given if names.parameter[name] == names.parameter[one.flag]]
        if not values and one.unless in (name for name, _ in given):
            continue
        if not values:
            raise SettingsError(f"Missing required argument: {one.flag}: {one.what}\n{usage}")
        complaint = one.check(values[-1])
        if complaint is not None:
            raise SettingsError(complaint)


def _refuse_underscores(given: Given, parameters: Sequence[Any]) -> None:
    """Numbers are written as C reads them; Python would take 1_0, too."""
    kinds = (int, float, float | None)
    numbers = {name for one in parameters if one.type_descriptor.annotation in kinds for name in one.opts}
    for name, value in given:
        if name in numbers and "_" in (value or ""):
            raise SettingsError(f"{name} {value}: no number")


def _as_arguments(given: Given, names: Names) -> list[str]:
    """In a form that click cannot read in two ways."""
    arguments: list[str] = []
    for name, value in given:
        arguments += [name, _value(name, value)] if name in names.valued else [name]
    return arguments


def _value(name: str, value: str | None) -> str:
    if value is None:
        raise SettingsError(f"{name} is the last argument; a value is wanted after it")
    return value


def _refused(message: str) -> typer.Exit:
    typer.echo(f"Error: {message}", err=True)
    return typer.Exit(1)
