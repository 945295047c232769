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
import numpy.typing as npt
import polars as pl

from trainer.errors import DataError
from trainer.filing import read_lines
from trainer.sparse import FeatureIndex, SparseDataset, round_up

RATINGS_FILES = ("ratings.csv", "u.data", "ratings.dat")
_COLUMNS = ("user", "item", "rating")
_TIMED = (*_COLUMNS, "time")
_AT_ONCE = 1 << 20
_LARGEST = float(np.finfo(np.float32).max)
_TITLE_FILES: Mapping[str, tuple[str, str, bool]] = {
    "movies.csv": (",", "utf-8", True),
    "u.item": ("|", "latin-1", False),
    "movies.dat": ("::", "latin-1", False),
}
"""Separator, encoding and whether a header comes first."""

_Numbers = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class LoadedData:
    """A dataset with names, and titles by feature name where there are any."""

    dataset: SparseDataset
    titles: Mapping[str, str]
    timestamps: npt.NDArray[np.float64] | None = None
    """[nnz] when each stored feature came, where it was asked for."""

    @property
    def features(self) -> FeatureIndex:
        """Names of the features; `ValueError` where the dataset has none."""
        if self.dataset.features is None:
            raise ValueError("loaded data names its features")
        return self.dataset.features


def is_ratings(path: Path) -> bool:
    """Whether `path` is a ratings table, or a folder that holds one under a name GroupLens uses."""
    if path.is_dir():
        return any((path / name).is_file() for name in RATINGS_FILES)
    return path.is_file() and _separator(path) is not None


def read_ratings(
    path: Path, *, analog: bool = False, timed: bool = False, min_rating: float | None = None
) -> LoadedData:
    """The table at `path`, a file or its folder; with `analog` the ratings are kept as values, with `timed` the fourth
    column, too. Ratings below `min_rating` are passed over.

    A user who rated an item twice has it once. A malformed line raises `DataError` that names it.
    """
    table = _table_of(path)
    separator = _separator(table)
    if separator is None:
        raise DataError("is no ratings table: user, item and rating are wanted on each line", table)
    frame = _read(table, separator, _TIMED if timed else _COLUMNS)
    if min_rating is not None:
        frame = frame.filter(pl.col("rating") >= min_rating)
    if frame.height == 0:
        least = "" if min_rating is None else f" of at least {min_rating:g}"
        raise DataError(f"holds no ratings{least}", table)
    dataset, times = _dataset(frame, analog=analog)
    return LoadedData(dataset, _titles(table.parent), times)


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


def _read(table: Path, separator: str, columns: Sequence[str]) -> pl.DataFrame:
    """Columns `user` and `item`, categorical, `rating`, and `time` if it is among those."""
    has_header = _is_header(next(read_lines(table), "").split(separator))
    frame = _read_fast(table, separator, columns, has_header=has_header)
    if frame is not None:
        return frame
    # Whatever polars stumbled over, reading line by line finds it and can name it.
    rows = list(_rows(table, separator, columns, has_header=has_header))
    schema = dict.fromkeys(columns, pl.Float64) | {"user": pl.String, "item": pl.String}
    return pl.DataFrame(rows, schema, orient="row").select(_cells_of(*columns))


def _read_fast(table: Path, separator: str, columns: Sequence[str], *, has_header: bool) -> pl.DataFrame | None:
    """The table if every line is well-formed, else `None`."""
    # polars parts by single characters: two of them have an empty column between.
    step = len(separator)
    try:
        lines = pl.scan_csv(
            table,
            separator=separator[0],
            quote_char='"' if step == 1 else None,
            has_header=False,
            skip_rows=int(has_header),
            infer_schema=False,
            glob=False,
        )
        names = lines.collect_schema().names()
        if len(names) <= (len(columns) - 1) * step:
            return None
        cells = names[: len(columns) * step : step]
        # Lines with too many cells are refused only where every column is read.
        others = [pl.col(name).is_null() for name in names if name not in cells]
        # In a stream, whose memory does not grow with the text of the table.
        frame = lines.select(*_cells_of(*cells), *others).collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError):
        return None
    is_parted = all(frame[name].all() for number, name in enumerate(names) if number % step)
    is_usable = is_parted and not any(frame[column].null_count() for column in columns)
    return frame.select(columns) if is_usable else None


def _cells_of(user: str, item: str, rating: str, time: str | None = None) -> list[pl.Expr]:
    """The columns; a rating is null unless it is a number that 4 bytes hold, a time unless it is a finite number."""
    number = pl.col(rating).cast(pl.Float64, strict=False)
    moment = [] if time is None else [pl.col(time).cast(pl.Float64, strict=False)]
    return [
        *(pl.when(one.is_finite()).then(one).alias("time") for one in moment),
        pl.col(user).cast(pl.Categorical).alias("user"),
        pl.col(item).cast(pl.Categorical).alias("item"),
        pl.when(number.abs() <= _LARGEST).then(number.cast(pl.Float32)).alias("rating"),
    ]


def _rows(
    table: Path, separator: str, columns: Sequence[str], *, has_header: bool
) -> Iterator[tuple[str | float, ...]]:
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
        if len(cells) < len(columns) or not all(_is_number(cell) for cell in cells[3 : len(columns)]):
            raise DataError(f"a fourth cell, the time as a number, is wanted, not {line.strip()[:60]!r}", table, number)
        yield cells[0], cells[1], *map(float, cells[2 : len(columns)])


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


def _dataset(frame: pl.DataFrame, *, analog: bool) -> tuple[SparseDataset, npt.NDArray[np.float64] | None]:
    """The dataset, and the time of each stored feature if there is one."""
    users, samples = _codes(frame["user"])
    items, features = _codes(frame["item"])
    values = frame["rating"].to_numpy() if analog else None
    times = frame["time"].to_numpy() if "time" in frame.columns else None
    if (users[1:] < users[:-1]).any():
        order = _by_number(users)
        users, items, values, times = users[order], items[order], _some(values, order), _some(times, order)
    first = _firsts(users, items, features=len(features))
    if not first.all():
        users, items, values, times = users[first], items[first], _some(values, first), _some(times, first)
    indptr = np.zeros(len(samples) + 1, np.int64)
    np.cumsum(np.bincount(users, minlength=len(samples)), out=indptr[1:])
    dataset = SparseDataset(
        name="ratings",
        width=round_up(len(features)),
        indptr=indptr,
        indices=items,
        values=values,
        sample_names=samples,
        features=FeatureIndex({name: number for number, name in enumerate(features)}),
    )
    return dataset, times


def _codes(column: pl.Series) -> tuple[_Numbers, list[str]]:
    """For each row the number of its value, counted by first appearance; and the values."""
    codes = column.to_physical().to_numpy()
    first = np.full(int(codes.max()) + 1, len(codes))
    for start in reversed(range(0, len(codes), _AT_ONCE)):
        block = codes[start : start + _AT_ONCE]
        # From behind: of those that are alike the first comes last and stays.
        first[block[::-1]] = np.arange(start, start + len(block))[::-1]
    seen = np.flatnonzero(first < len(codes))
    seen = seen[np.argsort(first[seen])]
    number = np.zeros(len(first), np.uint32)
    number[seen] = np.arange(len(seen))
    return number[codes], column.gather(first[seen]).cast(pl.String).to_list()


def _by_number(users: _Numbers) -> npt.NDArray[np.uint64]:
    """The order that puts like numbers together, each kind as it came."""
    # Number and place in one: sorting those is many times faster than a stable order.
    both = users.astype(np.uint64) << np.uint64(32) | np.arange(len(users), dtype=np.uint64)
    both.sort()
    return both & np.uint64(0xFFFFFFFF)


def _firsts(users: _Numbers, items: _Numbers, *, features: int) -> npt.NDArray[np.bool_]:
    """Whether each is the first of its user and item; `users` ascend."""
    first = np.ones(len(users), bool)
    start = 0
    while start < len(users):
        last = users[min(start + _AT_ONCE, len(users)) - 1]
        end = int(np.searchsorted(users, last, "right"))
        pairs = users[start:end].astype(np.uint64) * np.uint64(features) + items[start:end]
        ordered = np.sort(pairs)
        if (ordered[1:] == ordered[:-1]).any():
            first[start:end] = False
            first[start + np.unique(pairs, return_index=True)[1]] = True
        start = end
    return first


def _some(values: npt.NDArray[Any] | None, chosen: Any) -> npt.NDArray[Any] | None:
    return None if values is None else values[chosen]


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
