"""The feature index on disk, in DSSTNE's form: `name TAB id`, one a line. Order does not matter when read; it is
by id when written. A sample index has the same form.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from trainer.errors import DataError, InputError
from trainer.filing import read_lines, replacing
from trainer.sparse import FeatureIndex

_LEADING_INTEGER = re.compile(r"\s*([+-]?)0*(\d*)", re.ASCII)
_LONGEST = 1 << 63
_UNSIGNED = 1 << 32


def read_index(path: Path) -> FeatureIndex:
    """The index at `path`. A line that is not a name and a number, or a name that comes twice, raises
    `DataError`.
    """
    try:
        return load_index(path)
    except InputError as error:
        raise DataError(
            f"{error}; each line is a name, a tab and a number, and each name is there once", path
        ) from error


def load_index(path: Path, tell: Callable[[str], None] = lambda _: None) -> FeatureIndex:
    """The index at `path`, and the counts told, as DSSTNE does it (spec 1.3). What is wrong is an `InputError` in
    the original's words, which do not name the file.
    """
    ids: dict[str, int] = {}
    count = 0
    for line in _lines(path):
        count += 1
        pieces = line.split("\t")
        if not pieces[-1]:
            pieces.pop()
        if len(pieces) != 2 or not pieces[0]:
            raise InputError(f"line {count} contains invalid data")
        ids[pieces[0]] = _as_unsigned(pieces[1])
    tell(f"Number of lines processed: {count}")
    tell(f"Number of entries added to index: {len(ids)}")
    if len(ids) != count:
        raise InputError("Number of entries added to index not equal to number of lines processed")
    return FeatureIndex(ids)


def write_index(index: FeatureIndex, path: Path) -> None:
    """Write `index` by id, aside and renamed."""
    with replacing(path) as aside:
        lines = (f"{name}\t{number}\n" for name, number in sorted(index.ids.items(), key=lambda item: item[1]))
        aside.write_text("".join(lines), encoding="utf-8", errors="surrogateescape", newline="\n")


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from read_lines(path)
    except DataError as error:
        raise InputError("Failed to open index file") from error


def _as_unsigned(text: str) -> int:
    """As DSSTNE reads it: C's `atoi`, which stops at the ends of a 64-bit number, stored unsigned."""
    found = _LEADING_INTEGER.match(text)
    sign, digits = found.groups() if found else ("", "")
    # More digits than the ends have: no need to read them all.
    size = int(digits[:20] or "0")
    return (max(-size, -_LONGEST) if sign == "-" else min(size, _LONGEST - 1)) % _UNSIGNED
