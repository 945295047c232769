"""The feature index on disk, in DSSTNE's form: `name TAB id`, one a line. Order does not matter when read; it is
by id when written. A sample index has the same form.
"""

import re
from pathlib import Path

from trainer.errors import DataError
from trainer.filing import read_lines, replacing
from trainer.sparse import FeatureIndex

_LEADING_INTEGER = re.compile(r"\s*([+-]?\d+)", re.ASCII)
_UNSIGNED = 1 << 32


def read_index(path: Path) -> FeatureIndex:
    """The index at `path`. A line that is not a name and a number, or a name that comes twice, raises
    `DataError`.
    """
    ids: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        pieces = line.split("\t")
        if len(pieces) == 3 and pieces[2] == "":
            pieces.pop()
        if len(pieces) != 2 or not pieces[0] or not pieces[1]:
            raise DataError("contains invalid data: a name, a tab and a number are wanted", path, number)
        if pieces[0] in ids:
            raise DataError(f"names {pieces[0]!r} a second time", path, number)
        ids[pieces[0]] = _as_unsigned(pieces[1])
    return FeatureIndex(ids)


def write_index(index: FeatureIndex, path: Path) -> None:
    """Write `index` by id, aside and renamed."""
    with replacing(path) as aside:
        lines = (f"{name}\t{number}\n" for name, number in sorted(index.ids.items(), key=lambda item: item[1]))
        aside.write_text("".join(lines), encoding="utf-8", errors="surrogateescape", newline="\n")


def _as_unsigned(text: str) -> int:
    """As DSSTNE reads it: C's `atoi`, stored unsigned."""
    found = _LEADING_INTEGER.match(text)
    return int(found[1]) % _UNSIGNED if found else 0
