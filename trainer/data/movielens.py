"""Ratings tables as GroupLens publishes them, `ratings.csv`, `u.data` and `ratings.dat`, and the titles beside
them. Every rating counts as an interaction; samples are users, features are items, each in order of first
appearance.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from trainer.errors import DataError
from trainer.filing import read_lines
from trainer.sparse import FeatureIndex, SparseDataset, round_up

RATINGS_FILES = ("ratings.csv", "u.data", "ratings.dat")
_LARGEST = float(np.finfo(np.float32).max)
_TITLE_FILES: Mapping[str, tuple[str, str, bool]] = {
    "movies.csv": (",", "utf-8", True),
    "u.item": ("|", "latin-1", False),
    "movies.dat": ("::", "latin-1", False),
}
"""Separator, encoding and whether a header comes first."""


@dataclass(frozen=True, slots=True)
class LoadedData:
    """A dataset with names, and titles by feature name where there are any."""

    dataset: SparseDataset
    titles: Mapping[str, str]


def is_ratings(path: Path) -> bool:
    """Whether `path` is a ratings table, or a folder that holds one under a name GroupLens uses."""
    if path.is_dir():
        return any((path / name).is_file() for name in RATINGS_FILES)
    return path.is_file() and _separator(path) is not None


def read_ratings(path: Path, *, analog: bool = False) -> LoadedData:
    """The table at `path`, a file or its folder; with `analog` the ratings are kept as values.

    A user who rated an item twice has it once. A malformed line raises `DataError` that names it.
    """
    table = _table_of(path)
    separator = _separator(table)
    if separator is None:
        raise DataError("is no ratings table: user, item and rating are wanted on each line", table)
    frame = _read(table, separator)
    if frame.height == 0:
        raise DataError("holds no ratings", table)
    return LoadedData(_dataset(frame, analog=analog), _titles(table.parent))


def _table_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    return next(path / name for name in RATINGS_FILES if (path / name).is_file())


def _separator(table: Path) -> str | None:
    first = next(read_lines(table), "")
    return next((found for found in ("::", "\t", ",") if _is_row(first.split(found))), None)


def _is_row(cells: Sequence[str]) -> bool:
    """Whether these are user, item and rating, or the heads of such columns."""
    # A tab in the first of several cells belongs to DSSTNE text: there a sample's name ends.
    return len(cells) >= 3 and "\t" not in cells[0] and (_is_number(cells[2]) or _is_header(cells))


def _is_header(cells: Sequence[str]) -> bool:
    return "user" in cells[0].lower() and not _is_number(cells[2])


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) <= _LARGEST
    except ValueError:
        return False


def _read(table: Path, separator: str) -> pl.DataFrame:
    """Columns `user`, `item`, `rating`."""
    has_header = _is_header(next(read_lines(table), "").split(separator))
    frame = _read_fast(table, separator, has_header=has_header)
    if frame is None:
        # Whatever polars stumbled over, reading line by line finds it and can name it.
        frame = pl.DataFrame(list(_rows(table, separator, has_header=has_header)), _COLUMNS, orient="row")
    return frame.unique(["user", "item"], keep="first", maintain_order=True)


_COLUMNS: Mapping[str, Any] = {"user": pl.String, "item": pl.String, "rating": pl.Float64}


def _read_fast(table: Path, separator: str, *, has_header: bool) -> pl.DataFrame | None:
    """The table if every line is well-formed, else `None`."""
    if len(separator) > 1:
        return None
    try:
        frame = pl.read_csv(table, separator=separator, has_header=False, skip_rows=int(has_header), infer_schema=False)
    except (pl.exceptions.PolarsError, OSError):
        return None
    if frame.width < 3:
        return None
    user, item, rating = frame.columns[:3]
    frame = frame.select(
        pl.col(user).alias("user"),
        pl.col(item).alias("item"),
        pl.col(rating).cast(pl.Float64, strict=False).alias("rating"),
    )
    is_usable = pl.all_horizontal(pl.all().is_not_null(), pl.col("rating").abs() <= _LARGEST)
    usable = frame.select(is_usable).to_series().all()
    return frame if usable else None


def _rows(table: Path, separator: str, *, has_header: bool) -> Iterator[tuple[str, str, float]]:
    lines = read_lines(table)
    if has_header:
        next(lines)
    for number, line in enumerate(lines, 1 + has_header):
        if not line.strip():
            continue
        cells = _cells(line) if separator == "," else line.split(separator)
        if not _is_utf8(line):
            raise DataError("is not in UTF-8; user, item and rating are wanted in it", table, number)
        if len(cells) < 3 or not cells[0] or not cells[1] or not _is_number(cells[2]):
            raise DataError(f"user, item and rating are wanted, not {line.strip()[:60]!r}", table, number)
        yield cells[0], cells[1], float(cells[2])


def _cells(line: str) -> list[str]:
    """The cells of a line of CSV; none if it is too broken to have any."""
    try:
        return next(csv.reader([line]))
    except csv.Error:
        return []


def _is_utf8(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


def _dataset(frame: pl.DataFrame, *, analog: bool) -> SparseDataset:
    users, samples = _codes(frame["user"])
    items, features = _codes(frame["item"])
    order = np.argsort(users, kind="stable")
    indptr = np.zeros(len(samples) + 1, np.int64)
    np.cumsum(np.bincount(users, minlength=len(samples)), out=indptr[1:])
    return SparseDataset(
        name="ratings",
        width=round_up(len(features)),
        indptr=indptr,
        indices=items[order].astype(np.uint32),
        values=frame["rating"].to_numpy()[order].astype(np.float32) if analog else None,
        sample_names=samples,
        features=FeatureIndex({name: number for number, name in enumerate(features)}),
    )


def _codes(column: pl.Series) -> tuple[Any, list[str]]:
    """For each row the number of its value, counted by first appearance; and the values."""
    names = column.unique(maintain_order=True)
    codes = column.replace_strict(names, np.arange(len(names)), return_dtype=pl.Int64)
    return codes.to_numpy(), names.to_list()


def _titles(folder: Path) -> dict[str, str]:
    for name, (separator, encoding, has_header) in _TITLE_FILES.items():
        path = folder / name
        if path.is_file():
            with path.open(encoding=encoding, errors="replace") as lines:
                if has_header:
                    next(lines, None)
                # Line by line: a quote that is never closed spoils its own title alone.
                bare = (line.rstrip("\n") for line in lines)
                rows = (_cells(line) if separator == "," else line.split(separator) for line in bare)
                return {row[0]: row[1] for row in rows if len(row) >= 2}
    return {}
