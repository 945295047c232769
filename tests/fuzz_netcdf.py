"""NetCDF files taken apart, changed in their structure and put together again: what no flip of bytes arrives at,
since what lies in an HDF5 file is guarded by checksums.
"""

import faulthandler
import os
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args

import netCDF4
import numpy as np

Container = Literal["NETCDF4", "NETCDF4_CLASSIC", "NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]
_CONTAINERS: Sequence[Container] = get_args(Container)
_UNWRITABLE = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, OverflowError, OSError, MemoryError)
"""What the library answers to a file that cannot be."""

_LONGEST_WRITING_SECONDS = 15.0
_MOST_BYTES = 1 << 22
_LARGE = 1 << 20
"""Entries of a variable that are not written any more: only its size stands in the file."""
_VALUES: Sequence[Any] = (
    *(np.uint32(one) for one in (0, 1, 2, 3, 4, 5, 6, 8, 33, 64, 67, 128, 195, 1 << 16, (1 << 31) - 1, (1 << 32) - 1)),
    *(np.int32(one) for one in (-1, 0, 1, 7, -(1 << 31), (1 << 31) - 1)),
    *(np.float32(one) for one in (0.5, -1.0, 0.0, 2.0, 1e-45, 3e38, np.nan, np.inf, -np.inf)),
    *(np.float64(one) for one in (0.25, 1e300, 1e-300, np.nan)),
    *(np.int8(-1), np.uint8(255), np.int16(-2), np.uint16(65535), np.int64(-(1 << 63)), np.uint64((1 << 64) - 1)),
    *(np.array([1, 2], np.uint32), np.array([], np.float32), np.array([0.5, 1.5, 2.5], np.float32)),
    *("", "d", "gl_input", "Input", "Output", "Hidden1", "größe", "a\nb", "x" * 2000, "\x7f"),
    *(np.bytes_(b"\xff\xfe"), np.bytes_(b"a\0b"), np.bytes_(b"\0"), ["one", "two"], [""]),
)
_SIZES = (0, 1, 2, 3, 5, 127, 129, 1000, (1 << 16) + 1, (1 << 31) - 1, (1 << 31) + 1, 1 << 33, 1 << 40)
_TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "S1", "text", "lists", "pairs", "colours")
_ENTRIES: Sequence[float] = (
    0,
    1,
    -1,
    2,
    127,
    128,
    255,
    1 << 20,
    (1 << 31) - 1,
    (1 << 32) - 1,
    0.5,
    -1e30,
    np.nan,
    np.inf,
)
_ACROSS = ("width", "height", "Nx")
_CONVENTIONS = ("scale_factor", "add_offset", "_Unsigned", "missing_value", "valid_min", "valid_range", "units")


@dataclass
class Variable:
    """A variable as it is to be written; `values` that do not fit its size are repeated or cut."""

    kind: str
    dimensions: tuple[str, ...]
    values: Any
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class Contents:
    """All that a file is to hold."""

    attributes: dict[str, Any]
    dimensions: dict[str, int]
    variables: dict[str, Variable]
    container: Container = "NETCDF4"
    group: str = ""
    """Where the variables stand; empty: at the top."""


def contents_of(path: Path) -> Contents:
    """What a file of numbers and texts holds."""
    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        file.set_auto_chartostring(False)
        return Contents(
            {name: file.getncattr(name) for name in file.ncattrs()},
            {name: one.size for name, one in file.dimensions.items()},
            {name: Variable(one.dtype.str, one.dimensions, one[...]) for name, one in file.variables.items()},
        )


def restructured(rng: Random, sources: Sequence[Path], folder: Path, count: int = 64) -> list[tuple[bytes, str]]:
    """At most `count` files, each with the contents of one of the sources after one to four changes, and what these
    were. They are written to `folder` by a forked process: the library may die of it, at once or later.
    """
    own, folder = Random(rng.getrandbits(64)), folder / "restructured"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    child = os.fork()
    if not child:
        try:
            faulthandler.disable()
            # A damaged size may ask for tens of gigabytes, which the library would write out one by one.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_BYTES, _MOST_BYTES))
            for number in range(count):
                with suppress(*_UNWRITABLE):
                    note = _restructure(own, own.choice(sources), folder / f"{number}.nc")
                    (folder / f"{number}.txt").write_text(note, encoding="utf-8", errors="backslashreplace")
        finally:
            os._exit(0)
    _wait(child)
    made = ((note.with_suffix(".nc"), note.read_text(encoding="utf-8")) for note in sorted(folder.glob("*.txt")))
    return [(path.read_bytes(), note) for path, note in made if path.stat().st_size <= _MOST_BYTES]


def _wait(child: int) -> None:
    """Until the child is gone, or for so long: forked from a process with threads it may wait for a lock for ever."""
    end = time.monotonic() + _LONGEST_WRITING_SECONDS
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
        time.sleep(0.005)


def _restructure(rng: Random, source: Path, path: Path) -> str:
    contents = contents_of(source)
    told = [rng.choice(_CHANGES)(rng, contents) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(path, contents)
    return "; ".join(told)


def write(path: Path, contents: Contents) -> None:
    """The file that holds these contents."""
    with netCDF4.Dataset(path, "w", format=contents.container) as file:
        for name, value in contents.attributes.items():
            file.setncattr(name, value)
        for name, size in contents.dimensions.items():
            file.createDimension(name, size)
        place = file.createGroup(contents.group) if contents.group else file
        for name, variable in contents.variables.items():
            _write_variable(place, name, variable, contents.dimensions)


def _write_variable(place: Any, name: str, variable: Variable, sizes: dict[str, int]) -> None:
    length = int(np.prod([float(sizes[one]) for one in variable.dimensions]))
    options = dict(variable.options)
    if length > _LARGE:
        options = {"chunksizes": [max(1, min(sizes[one], 1024)) for one in variable.dimensions]}
    made = place.createVariable(name, _type(place, name, variable.kind), variable.dimensions, **options)
    made.set_auto_maskandscale(False)
    for attribute, value in variable.attributes.items():
        made.setncattr(attribute, value)
    if length <= _LARGE and variable.values is not None:
        _fill(made, variable, length)


def _fill(made: Any, variable: Variable, length: int) -> None:
    if variable.kind == "text":
        made[...] = np.array(["word"] * length, object).reshape(made.shape)
    elif variable.kind == "lists":
        made[...] = _lists(length).reshape(made.shape)
    elif variable.kind in ("pairs", "colours"):
        made[...] = np.zeros(made.shape, made.dtype)
    else:
        with np.errstate(all="ignore"):
            made[...] = np.resize(np.asarray(variable.values), made.shape).astype(variable.kind)


def _lists(length: int) -> Any:
    lists = np.empty(length, object)
    for place in range(length):
        lists[place] = np.arange(place % 3 + 1, dtype=np.uint32)
    return lists


def _type(place: Any, name: str, kind: str) -> Any:
    if kind == "text":
        return str
    if kind == "lists":
        return place.createVLType(np.uint32, f"{name}_lists")
    if kind == "pairs":
        return place.createCompoundType(np.dtype([("a", "u4"), ("b", "f4")]), f"{name}_pairs")
    if kind == "colours":
        return place.createEnumType(np.uint8, f"{name}_colours", {"red": 0, "green": 1})
    return kind


def _change_attribute(rng: Random, contents: Contents) -> str:
    name = rng.choice(list(contents.attributes) or ["datasets"])
    contents.attributes[name] = rng.choice(_VALUES)
    return f"attribute {name} is {contents.attributes[name]!r}"


def _change_number(rng: Random, contents: Contents) -> str:
    """A value of the type that is wanted."""
    name = rng.choice(list(contents.attributes) or ["datasets"])
    old = contents.attributes[name]
    like = [one for one in _VALUES if type(one) is type(old)]
    contents.attributes[name] = rng.choice(like or _VALUES)
    return f"attribute {name} is {contents.attributes[name]!r}"


def _copy_attribute(rng: Random, contents: Contents) -> str:
    names = list(contents.attributes) or ["datasets"]
    name, other = rng.choice(names), rng.choice(names)
    contents.attributes[name] = contents.attributes.get(other, 1)
    return f"attribute {name} is as {other}"


def _drop(rng: Random, contents: Contents) -> str:
    """An attribute or a variable less."""
    holder = rng.choice((contents.attributes, contents.attributes, contents.variables))
    name = rng.choice(list(holder) or [""])
    holder.pop(name, None)
    return f"{name} is missing"


def _rename_dimension(rng: Random, contents: Contents) -> str:
    name = rng.choice(list(contents.dimensions) or [""])
    size = contents.dimensions.pop(name, 1)
    contents.dimensions[f"{name}x"] = size
    for variable in contents.variables.values():
        variable.dimensions = tuple(f"{name}x" if one == name else one for one in variable.dimensions)
    return f"dimension {name} has another name"


def _resize(rng: Random, contents: Contents) -> str:
    name = rng.choice(list(contents.dimensions) or ["d"])
    contents.dimensions[name] = rng.choice(_SIZES)
    return f"dimension {name} is {contents.dimensions[name]}"


def _resize_all(rng: Random, contents: Contents) -> str:
    """Everything equally long: absurd sizes that agree."""
    size, side = rng.choice(_SIZES), rng.choice((1, 1, (1 << 16) + 1, (1 << 31) - 1))
    contents.dimensions = dict.fromkeys(contents.dimensions, size)
    sides = [name for name in contents.attributes if name.rpartition("_")[2].rstrip("0123456789") in _ACROSS]
    contents.attributes.update(dict.fromkeys(sides, np.uint32(side)))
    return f"all dimensions are {size}, the sides {side}"


def _variable(rng: Random, contents: Contents) -> tuple[str, Variable]:
    return rng.choice(list(contents.variables.items()) or [("", Variable("u4", (), 0))])


def _change_type(rng: Random, contents: Contents) -> str:
    name, variable = _variable(rng, contents)
    variable.kind = rng.choice(_TYPES)
    return f"variable {name} holds {variable.kind}"


def _change_shape(rng: Random, contents: Contents) -> str:
    name, variable = _variable(rng, contents)
    others = [*contents.dimensions] or [""]
    shapes = ((), (rng.choice(others),), (*variable.dimensions, rng.choice(others)))
    variable.dimensions = rng.choice(shapes)
    return f"variable {name} has dimensions {variable.dimensions}"


def _change_entries(rng: Random, contents: Contents) -> str:
    name, variable = _variable(rng, contents)
    old = np.asarray(variable.values)
    entries = np.zeros(3) if old.dtype.kind in "SO" else np.array(old, np.float64).reshape(-1)
    value = rng.choice(_ENTRIES)
    if entries.size:
        entries[rng.randrange(entries.size) if rng.random() < 0.7 else slice(None)] = value
    variable.values = entries
    return f"variable {name} holds {value}"


def _change_storage(rng: Random, contents: Contents) -> str:
    name, variable = _variable(rng, contents)
    variable.options = rng.choice(
        (
            *({"zlib": True}, {"zlib": True, "shuffle": True, "fletcher32": True}, {"endian": "big"}),
            *({"chunksizes": [1 for _ in variable.dimensions]}, {"contiguous": True}, {"fill_value": 0}),
        )
    )
    return f"variable {name} is stored with {variable.options}"


def _leave_unwritten(rng: Random, contents: Contents) -> str:
    name, variable = _variable(rng, contents)
    variable.values = None
    return f"variable {name} is not written"


def _follow_conventions(rng: Random, contents: Contents) -> str:
    name, variable = _variable(rng, contents)
    attribute = rng.choice(_CONVENTIONS)
    variable.attributes[attribute] = rng.choice(("true", np.float32(0.5), np.int32(1), np.array([1, 2]), "x"))
    return f"variable {name} has {attribute}"


def _change_container(rng: Random, contents: Contents) -> str:
    contents.container = rng.choice(_CONTAINERS)
    for name, value in contents.attributes.items():
        if contents.container.startswith("NETCDF3") and isinstance(value, np.unsignedinteger):
            contents.attributes[name] = np.int32(min(int(value), (1 << 31) - 1))
    return f"the file is {contents.container}"


def _group(_: Random, contents: Contents) -> str:
    contents.group = "data"
    return "variables stand in a group"


_CHANGES: Sequence[Callable[[Random, Contents], str]] = (
    _change_attribute, _change_attribute, _change_number, _change_number, _copy_attribute, _drop, _rename_dimension,
    _resize, _resize_all, _change_type, _change_shape, _change_entries, _change_entries, _change_storage,
    _leave_unwritten, _follow_conventions, _change_container, _group,
)  # fmt: skip
