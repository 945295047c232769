"""DSSTNE's text format: one line a sample, `name TAB feature[,value]:feature[,value]:…`. Streaming; errors name
file and line. What the samples stand for is unknown here.
"""

import math
import re
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.blocks import Block, Plain, read_blocks
from trainer.data.lookup import Lookup
from trainer.errors import DataError
from trainer.filing import read_lines, replacing
from trainer.sparse import FeatureIndex, SparseDataset

Tell = Callable[[str], None]

_PROGRESS_EVERY = 10_000
_SMALLEST_NORMAL = (1 - 2**-25) * float(np.finfo(np.float32).tiny)
"""What is at least this rounds to a normal 4-byte float."""

_NUMBER = re.compile(
    r"\s*[+-]?(?:0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?\d+)?|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
    r"|inf(?:inity)?|nan)",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Converted:
    """A dataset and the two indexes, additions included."""

    dataset: SparseDataset
    features: FeatureIndex
    samples: FeatureIndex


@dataclass(frozen=True, slots=True)
class Reading:
    """How text is read. `update`: unknown features are added, else dropped. `analog`: values are kept.
    `strict`: a malformed line is an error, else it is told and passed over. `hidden`: of a folder, files whose
    name begins with a dot are read, too, as DSSTNE does.
    """

    update: bool = False
    analog: bool = False
    strict: bool = False
    hidden: bool = True
    tell: Tell = lambda _: None


def convert_text(
    path: Path | str,
    *,
    name: str,
    features: FeatureIndex | None = None,
    samples: FeatureIndex | None = None,
    reading: Reading | None = None,
) -> Converted:
    """The samples of a file, or of every file of a folder, as a dataset called `name` (DSSTNE spec 1.1, 1.2).

    `features` and `samples` are what is known already; without `features` the index begins empty and grows.
    Rows are the samples seen here, by sample id; a repeated sample replaces its row. What is told repeats `path` as
    it is spelled.
    """
    wanted = reading or Reading()
    parser = _Parser(
        features=dict(features.ids) if features else {},
        samples=dict(samples.ids) if samples else {},
        update=wanted.update or features is None,
        reading=wanted,
    )
    # A directory among them is an error only when its turn comes, as with DSSTNE.
    entries = _entries(Path(path), hidden=wanted.hidden)
    wanted.tell(f"Indexing {len(entries)} files")
    for entry in entries:
        wanted.tell(f"\tIndexing file: {_spelled(entry, str(path))}")
        parser.read(entry)
    return parser.result(name)


def text_files(path: Path, *, hidden: bool = True) -> list[Path]:
    """The file itself, or every entry of the folder in byte order, hidden ones among them or not. `DataError` if
    a directory is among them.
    """
    found = _entries(path, hidden=hidden)
    for entry in found:
        if path.is_dir() and entry.is_dir():
            raise DataError("is a directory; only files are read", entry)
    return found


def write_text(dataset: SparseDataset, path: Path) -> None:
    """Write a dataset that has sample and feature names, aside and renamed. `DataError` if one would not be
    read again as it is.
    """
    if dataset.sample_names is None or dataset.features is None:
        raise ValueError(f"dataset {dataset.name} has no names")
    names = dataset.features.names()
    check_names(dataset.sample_names, names, path)
    with (
        replacing(path) as aside,
        aside.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file,
    ):
        for row, sample in enumerate(dataset.sample_names):
            file.write(f"{sample}\t{':'.join(_pieces(dataset, row, names))}\n")


def check_names(samples: Iterable[str], features: Iterable[str], path: Path) -> None:
    """Raise a `DataError` about `path` unless text can hold these names."""
    for what, names, parting in (("sample", samples, "\t\n"), ("feature", features, ":,\t\n")):
        for name in names:
            if (not name and what == "feature") or not set(name).isdisjoint(parting):
                raise DataError(f"{what} name {name!r} is empty or holds a character that parts text", path)


def read_filter(path: Path, *, features: FeatureIndex, samples: FeatureIndex) -> SparseDataset:
    """A filter (DSSTNE spec 7.4): for each sample of `samples` by id, features and the value that multiplies
    their score. A feature without a value, or with one that is no number, has 0; unknown samples and
    features are passed over; a later line for a sample replaces the earlier.
    """
    rows: dict[int, tuple[array[int], array[float]]] = {}
    for one in text_files(path):
        for line in read_lines(one):
            sample, tab, data = line.partition("\t")
            if not tab or sample not in samples.ids:
                continue
            row = rows[samples.ids[sample]] = (array("I"), array("f"))
            first, *others = data.split(":")
            # Only of the first piece does DSSTNE cut what follows a further tab.
            for piece in (first.partition("\t")[0], *others):
                feature, _, value = piece.partition(",")
                if feature in features.ids:
                    row[0].append(features.ids[feature])
                    row[1].append(_leading_number(value) or 0.0)
    ordered = [rows.get(number, (array("I"), array("f"))) for number in range(len(samples))]
    return _dataset("filter", features, ordered, analog=True, sample_names=None)


def _entries(path: Path, *, hidden: bool) -> list[Path]:
    if not path.exists():
        raise DataError("not found", path)
    if not path.is_dir():
        return [path]
    try:
        entries = [entry for entry in path.iterdir() if hidden or not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
    return sorted(entries, key=lambda entry: entry.name.encode("utf-8", "surrogateescape"))


def _spelled(entry: Path, path: str) -> str:
    if not Path(path).is_dir():
        return path
    return f"{path}{entry.name}" if path.endswith("/") else f"{path}/{entry.name}"


_Row = tuple[Any, Any]
"""Ids and values of a sample, each a buffer of 4-byte numbers."""


class _Parser:
    def __init__(self, features: dict[str, int], samples: dict[str, int], *, update: bool, reading: Reading) -> None:
        self.features, self.samples = features, samples
        self.update, self.reading = update, reading
        self.rows: dict[int, _Row] = {}
        self._lookup = Lookup(features, update=update)
        self._started = self._last = time.monotonic()

    def read(self, path: Path) -> None:
        self._last = time.monotonic()
        for block in read_blocks(path, values=self.reading.analog):
            if block.plain is not None:
                self._add(block.plain)
            else:
                self._read_lines(block, path)

    def _add(self, plain: Plain) -> None:
        ids = self._lookup.find(plain.names)
        known = ids >= 0
        ends, values = plain.ends, np.zeros(0, np.float32) if plain.values is None else plain.values
        if not known.all():
            ends, ids = np.concatenate([[0], np.cumsum(known)])[ends], ids[known]
            values = values if plain.values is None else values[known]
        kept = ids.astype(np.uint32)
        start = 0
        for sample, end in zip(plain.samples, ends.tolist(), strict=True):
            self._put(sample, (kept[start:end], values[start:end]))
            start = end

    def _read_lines(self, block: Block, path: Path) -> None:
        lines = block.data.decode("utf-8", "surrogateescape").split("\n")[:-1]
        for number, line in enumerate(lines, block.line + 1):
            if not line:
                continue
            sample, tab, data = line.partition("\t")
            if not tab:
                self._malformed(line, path, number)
                continue
            # The row first: a sample whose line is refused is not known.
            self._put(sample, self._row(data, path, number))

    def _put(self, sample: str, row: _Row) -> None:
        self.rows[self.samples.setdefault(sample, len(self.samples))] = row
        if len(self.samples) % _PROGRESS_EVERY == 0:
            now = time.monotonic()
            self.reading.tell(
                f"Progress Parsing (Sample {len(self.samples)}, Time {now - self._last:f}, "
                f"Total {now - self._started:f})"
            )
            self._last = now

    def result(self, name: str) -> Converted:
        seen = sorted(self.rows)
        names = {number: sample for sample, number in self.samples.items()}
        features = FeatureIndex(self.features)
        rows = [self.rows[number] for number in seen]
        sample_names = [names[number] for number in seen]
        dataset = _dataset(name, features, rows, analog=self.reading.analog, sample_names=sample_names)
        return Converted(dataset, features, FeatureIndex(self.samples))

    def _malformed(self, line: str, path: Path, number: int) -> None:
        if self.reading.strict:
            raise DataError(f"no tab: `sample TAB feature:feature:…` is wanted, not {line[:60]!r}", path, number)
        self.reading.tell(f"Warning: Skipping over malformed line ({line}) at line {number}")

    def _row(self, data: str, path: Path, number: int) -> tuple["array[int]", "array[float]"]:
        pieces = data.split(":")
        if "," not in data and not self.reading.analog:
            return array("I", self._known(pieces)), array("f")
        ids, values = array("I"), array("f")
        for piece in pieces:
            parts = piece.split(",")
            if len(parts) > 1 and not parts[-1]:
                parts.pop()
            if not parts[0]:
                continue
            # The value is looked at even where it is not kept or the feature is unknown, as DSSTNE does.
            value = self._value(piece, parts, path, number)
            for feature in self._known(parts[:1]):
                ids.append(feature)
                values.append(value)
        return ids, values

    def _known(self, names: Iterable[str]) -> Iterator[int]:
        features = self.features
        for name in names:
            found = features.get(name)
            if found is None:
                if not name or not self.update:
                    continue
                found = features[name] = len(features)
            yield found

    def _value(self, piece: str, parts: Sequence[str], path: Path, number: int) -> float:
        if len(parts) == 1:
            return 0.0
        if len(parts) > 2:
            self.reading.tell(
                f"Warning: Data point [{piece}] at line {number} has more than 1 value for feature "
                f"(actual value: {len(parts)}). Keeping the first value and ignoring subsequent values."
            )
        value = _leading_number(parts[1])
        if value is None:
            raise DataError(f"value {parts[1]!r} of feature {parts[0]!r} is no number", path, number)
        if _is_out_of_range(parts[1], value):
            raise DataError(f"value {parts[1]!r} of feature {parts[0]!r} is out of range", path, number)
        return value


def _leading_number(text: str) -> float | None:
    """The number `text` begins with, as C's `strtof` finds it; `None` if it begins with none."""
    found = _NUMBER.match(text)
    if found is None:
        return None
    number = found[0].strip()
    if "x" not in number.lower():
        return float(number)
    try:
        return float.fromhex(number)
    except OverflowError:
        return -math.inf if number.startswith("-") else math.inf


def _is_out_of_range(text: str, value: float) -> bool:
    """Whether C's `strtof` finds `text` beyond a 4-byte float: too large, or smaller than a normal one and not
    exact.
    """
    found = _NUMBER.match(text)
    said = found[0].lower().strip().lstrip("+-") if found else ""
    if said.startswith(("inf", "nan")):
        return False
    # array rounds to the nearest 4-byte float, as strtof does.
    rounded = array("f", [value])[0]
    is_hex = said.startswith("0x")
    mantissa = said[2:].partition("p")[0] if is_hex else said.partition("e")[0]
    is_zero = not mantissa.strip("0.")
    is_exact = is_zero or (is_hex and value == rounded != 0.0)
    return math.isinf(rounded) or (abs(value) < _SMALLEST_NORMAL and not is_exact)


def _dataset(
    name: str,
    features: FeatureIndex,
    rows: Sequence[_Row],
    *,
    analog: bool,
    sample_names: Sequence[str] | None,
) -> SparseDataset:
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(ids) for ids, _ in rows], out=indptr[1:])
    empty = np.zeros(0, np.uint32)
    indices = np.concatenate([empty, *(np.frombuffer(ids, np.uint32) for ids, _ in rows if len(ids))])
    values = None
    if analog:
        kept = (np.frombuffer(row, np.float32) for _, row in rows if len(row))
        values = np.concatenate([empty.astype(np.float32), *kept])
    return SparseDataset(name, features.width, indptr, indices, values, sample_names, features)


def _pieces(dataset: SparseDataset, row: int, names: Sequence[str]) -> Iterator[str]:
    mine = slice(dataset.indptr[row], dataset.indptr[row + 1])
    own = [names[int(feature)] for feature in dataset.indices[mine]]
    if dataset.values is None:
        yield from own
        return
    for name, value in zip(own, dataset.values[mine].tolist(), strict=True):
        yield f"{name},{value:.9g}"
