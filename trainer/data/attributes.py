"""What is known of items besides who has them: MovieLens' tags, genres and years, and any table of items and
attributes, as one matrix of items × attributes weighted by TF-IDF.
"""

import csv
import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from trainer.errors import DataError
from trainer.filing import read_lines
from trainer.sparse import FeatureIndex, SparseDataset, round_up

ATTRIBUTE_FILES = ("attributes.csv", "tags.csv", "movies.csv", "u.item", "movies.dat")
_FIRST_FLAG = 5
"""Column of u.item where the flags of genres begin."""
_NO_GENRE = "(no genres listed)"
_YEAR = re.compile(r"\((\d{3})\d\)\s*$")
_PARTING = re.compile(r"[\s:,]+")
"""What parts DSSTNE's text and index files; within a token it becomes a space."""

_Entry = tuple[str, str, float]
"""Item, token, weight."""


def attribute_tables(folder: Path) -> list[Path]:
    """The tables of `folder` that tell attributes, by the names that `ATTRIBUTE_FILES` lists; none of a file."""
    return [folder / name for name in ATTRIBUTE_FILES if (folder / name).is_file()]


def read_attributes(
    tables: Sequence[Path],
    items: FeatureIndex,
    *,
    at_least: int = 2,
    sublinear: bool = False,
    index: FeatureIndex | None = None,
) -> SparseDataset:
    """Items × attributes, TF-IDF weighted. Row i is the item with id i; those follow that only the tables know.

    Tokens are lower-cased; those that fewer than `at_least` of `items` have are dropped; with `index` just its tokens
    are kept, by their ids. With tf the summed weight (`sublinear`: 1 + ln tf from 1 on), n of `items` that have
    attributes, df of them this one, a value is tf (ln((1 + n) / (1 + df)) + 1), and rows are scaled to length 1 (Salton
    & Buckley 1988, smoothed). A malformed line raises `DataError` that names it.
    """
    counted = _Counted(dict(items.ids), dict(index.ids) if index else {})
    for table in tables:
        for entry in _entries(table):
            counted.add(*entry)
    matrix, tokens = counted.matrix(len(items), at_least) if index is None else counted.of(index)
    return SparseDataset(
        name="attributes",
        width=round_up(len(tokens)),
        indptr=matrix.indptr.astype(np.int64),
        indices=matrix.indices.astype(np.uint32),
        values=_weighted(matrix, len(items), sublinear=sublinear),
        sample_names=list(counted.items),
        features=FeatureIndex({token: number for number, token in enumerate(tokens)}),
    )


@dataclass(frozen=True, slots=True)
class _Counted:
    """Weights of tokens by item, as they come."""

    items: dict[str, int]
    tokens: dict[str, int] = field(default_factory=dict[str, int])
    rows: "array[int]" = field(default_factory=lambda: array("q"))
    columns: "array[int]" = field(default_factory=lambda: array("q"))
    weights: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, item: str, token: str, weight: float) -> None:
        cleaned = _PARTING.sub(" ", token.lower()).strip()
        if not cleaned or weight == 0:
            return
        self.rows.append(self.items.setdefault(item, len(self.items)))
        self.columns.append(self.tokens.setdefault(cleaned, len(self.tokens)))
        self.weights.append(weight)

    def matrix(self, live: int, at_least: int) -> tuple[Any, list[str]]:
        """Summed weights, CSR [items, tokens], of tokens that `at_least` items below `live` have; and these."""
        whole = self._summed()
        kept = np.flatnonzero(_shares(whole, live) >= at_least)
        names = list(self.tokens)
        return _sorted(whole[:, kept]), [names[number] for number in kept.tolist()]

    def of(self, index: FeatureIndex) -> tuple[Any, list[str]]:
        """As `matrix`, of the tokens of `index`."""
        return _sorted(self._summed()[:, : len(index)]), index.names()

    def _summed(self) -> Any:
        places = (np.array(self.rows, np.int64), np.array(self.columns, np.int64))
        shape = (len(self.items), len(self.tokens))
        return sparse.coo_array((np.array(self.weights, np.float64), places), shape=shape).tocsr()


def _sorted(matrix: Any) -> Any:
    matrix.sort_indices()
    return matrix


def _shares(matrix: Any, live: int) -> npt.NDArray[np.int64]:
    """[tokens] how many of the rows below `live` have each."""
    return np.bincount(matrix.indices[: matrix.indptr[live]], minlength=matrix.shape[1])


def _weighted(counts: Any, live: int, *, sublinear: bool) -> npt.NDArray[np.float32]:
    """[nnz] TF-IDF of summed weights, CSR [items, tokens]; rows of length 1."""
    lengths = np.diff(counts.indptr)
    inverse = np.log((1.0 + np.count_nonzero(lengths[:live])) / (1.0 + _shares(counts, live))) + 1.0
    frequency = counts.data
    if sublinear:
        frequency = np.where(frequency > 1.0, 1.0 + np.log(np.maximum(frequency, 1.0)), frequency)
    values = frequency * inverse[counts.indices]
    rows = np.repeat(np.arange(len(lengths)), lengths)
    norms = np.sqrt(np.bincount(rows, values**2, minlength=len(lengths)))
    return (values / norms[rows]).astype(np.float32)


def _entries(table: Path) -> Iterator[_Entry]:
    if table.name == "u.item":
        yield from _flagged(table)
    elif table.name == "movies.dat":
        for number, line in _numbered(table):
            cells = line.split("::")
            if len(cells) != 3:
                raise DataError(f"item::title::genre|genre is wanted, not {line[:60]!r}", table, number)
            yield from _film(cells[0], cells[1], cells[2].split("|"))
    else:
        yield from _of_csv(table)


def _of_csv(table: Path) -> Iterator[_Entry]:
    lines = _numbered(table)
    head = [cell.strip().lower() for cell in _cells(next(lines, (1, ""))[1], table, 1)]
    columns = _columns(head, table)
    for number, line in lines:
        cells = _cells(line, table, number)
        if len(cells) < len(head) or not cells[columns["item"]]:
            raise DataError(f"{','.join(head)} is wanted, not {line[:60]!r}", table, number)
        item, said = cells[columns["item"]], cells[columns["attribute"]]
        if "title" in columns:
            yield from _film(item, cells[columns["title"]], said.split("|"))
        else:
            yield item, said, _weight(cells[columns["weight"]], table, number) if "weight" in columns else 1.0


def _columns(head: Sequence[str], table: Path) -> Mapping[str, int]:
    """Where item and attribute stand, and title or weight, if there is one."""
    if head[:3] == ["movieid", "title", "genres"]:
        return {"item": 0, "title": 1, "attribute": 2}
    if head[:3] == ["userid", "movieid", "tag"]:
        return {"item": 1, "attribute": 2}
    if len(head) not in (2, 3):
        raise DataError("a header item,attribute or item,attribute,weight is wanted, or MovieLens' own", table, 1)
    return {"item": 0, "attribute": 1, **({"weight": 2} if len(head) == 3 else {})}


def _flagged(table: Path) -> Iterator[_Entry]:
    """MovieLens 100K's u.item, whose genres are flags named by u.genre beside it."""
    names = [line.split("|")[0] for line in read_lines(table.with_name("u.genre")) if "|" in line]
    for number, line in _numbered(table):
        cells = line.split("|")
        if len(cells) != _FIRST_FLAG + len(names) or not set(cells[_FIRST_FLAG:]) <= {"0", "1"}:
            wanted = f"item, title, two dates, an address and {len(names)} flags 0 or 1 are wanted"
            raise DataError(f"{wanted}, parted by |, not {line[:60]!r}", table, number)
        flags = zip(names, cells[_FIRST_FLAG:], strict=True)
        yield from _film(cells[0], cells[1], [name for name, flag in flags if flag == "1"])


def _film(item: str, title: str, genres: Sequence[str]) -> Iterator[_Entry]:
    """A film's genres, and its decade where the title ends with a year."""
    yield from ((item, genre, 1.0) for genre in genres if genre != _NO_GENRE)
    year = _YEAR.search(title)
    if year is not None:
        yield item, f"{year[1]}0s", 1.0


def _numbered(table: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers."""
    for number, line in enumerate(read_lines(table), 1):
        if line.strip():
            yield number, line.rstrip("\r")


def _cells(line: str, table: Path, number: int) -> list[str]:
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        raise DataError(f"is no line of CSV ({error}): {line[:60]!r}", table, number) from error


def _weight(text: str, table: Path, number: int) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0.0 <= weight < math.inf:
        raise DataError(f"weight {text!r} is no number of at least 0", table, number)
    return weight
