"""DSSTNE's generateNetCDF: text to a NetCDF dataset and its two index files, with the original's messages
(DSSTNE spec 2.1). Ratings tables are taken, too.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.data.features import load_index, write_index
from trainer.data.movielens import is_ratings
from trainer.data.netcdf import write_dataset
from trainer.data.text import Converted, Reading, check_names, convert_text
from trainer.data.weighing import Weighing, read_weighed
from trainer.errors import DataError, InputError, SettingsError
from trainer.sparse import FeatureIndex, SparseDataset

Tell = Callable[[str], None]

INDICATOR, ANALOG = "indicator", "analog"
_AT_ONCE = 1 << 20

_TABLES = frozenset({".csv", ".tsv", ".data", ".dat", ".base", ".test"})
"""Endings that ratings tables have. By its first line alone, DSSTNE text with a malformed one may look like one."""


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """The flags -d -i -o -f -s -c -m -t. Paths as they were typed, since messages repeat them."""

    dataset_name: str
    input_path: str
    output_path: str
    feature_index: str
    sample_index: str
    create: bool = False
    merge: bool = False
    kind: str = INDICATOR
    weighing: Weighing = field(default_factory=Weighing)
    """Of a ratings table; whether it is analog says `kind`."""


def generate_netcdf(options: GenerateOptions, tell: Tell) -> None:
    """Convert; index files are written before the NetCDF, and only if they have grown.

    What cannot be done is an `InputError`, in the original's words where it has some; a `SettingsError` where
    the usage would help.
    """
    started = time.monotonic()
    _begin(options, tell)
    samples, features = _samples(options, tell), _features(options, tell)
    converted = _convert(options, samples, features, tell)
    _export(converted.features, features, options.feature_index, tell)
    _export(converted.samples, samples, options.sample_index, tell)
    tell(f"Raw max index is: {len(converted.features)}")
    tell(f"Rounded up max index to: {converted.features.width}")
    write_dataset(converted.dataset, _file(options.output_path))
    tell(f"Created NetCDF file {options.output_path} for dataset {options.dataset_name}")
    tell(f"Total time for generating NetCDF: {time.monotonic() - started:f} secs. ")


def _begin(options: GenerateOptions, tell: Tell) -> None:
    if options.create:
        tell(f"Flag -c is set. Will create a new feature file and overwrite: {options.feature_index}")
    if options.merge:
        tell(f"Flag -m is set. Will merge with existing feature file and overwrite: {options.feature_index}")
    if options.create and options.merge:
        # Sic: the flag to update is -m.
        raise SettingsError("Cannot create (-c) and update existing (-u) feature index. Please select only one.")
    if options.kind not in (INDICATOR, ANALOG):
        raise InputError(f"Unknown dataset type [{options.kind}]. Please select one of {{{INDICATOR},{ANALOG}}}")
    if options.kind == INDICATOR and options.weighing.half_life_days is not None:
        raise SettingsError(f"--half-life-days: indicators have no values that fade; -t {ANALOG} is wanted")
    if not _is_utf8(options.dataset_name):
        raise InputError(f"-d {options.dataset_name!r}: a dataset's name is text in UTF-8")
    tell(f"Generating dataset of type: {options.kind}")


def _samples(options: GenerateOptions, tell: Tell) -> FeatureIndex:
    if not _exists(options.sample_index):
        tell(f"Will create a new samples index file: {options.sample_index}")
        return FeatureIndex({})
    tell(f"Loading sample index from: {options.sample_index}")
    return load_index(Path(options.sample_index), tell)


def _features(options: GenerateOptions, tell: Tell) -> FeatureIndex:
    if options.create:
        tell(f"Will create a new features index file: {options.feature_index}")
        return FeatureIndex({})
    if not _exists(options.feature_index):
        raise InputError(f"Cannnot find a valid feature index file: {options.feature_index}")
    tell(f"Loading feature index from: {options.feature_index}")
    return load_index(Path(options.feature_index), tell)


def _convert(options: GenerateOptions, samples: FeatureIndex, features: FeatureIndex, tell: Tell) -> Converted:
    reading = Reading(update=options.create or options.merge, analog=options.kind == ANALOG, tell=tell)
    if not _exists(options.input_path):
        raise InputError(f"{options.input_path} not found.")
    name, source = options.dataset_name, Path(options.input_path)
    if is_ratings(source) and (source.is_dir() or source.suffix in _TABLES):
        return _convert_ratings(options, samples, features, reading)
    if not options.weighing.is_plain:
        raise SettingsError(f"--min-rating and --half-life-days: {source} is no ratings table")
    try:
        return convert_text(options.input_path, name=name, features=features, samples=samples, reading=reading)
    except DataError as error:
        if isinstance(error.__cause__, IsADirectoryError):
            raise InputError("Is a directory") from error
        raise


def _convert_ratings(
    options: GenerateOptions, samples: FeatureIndex, features: FeatureIndex, reading: Reading
) -> Converted:
    source = Path(options.input_path)
    table = read_weighed(source, replace(options.weighing, analog=reading.analog)).dataset
    check_names(table.sample_names or (), table.features.ids if table.features else (), source)
    reading.tell(f"Indexing 1 files\n\tIndexing file: {source}")
    return _renumbered(replace(table, name=options.dataset_name), samples, features, reading)


def _renumbered(table: SparseDataset, samples: FeatureIndex, features: FeatureIndex, reading: Reading) -> Converted:
    """The table by the two indexes, as text with a line for each of its rows would be."""
    known, seen = dict(features.ids), dict(samples.ids)
    numbers = [seen.setdefault(sample, len(seen)) for sample in table.sample_names or ()]
    ids, is_known = _ids(table, known, update=reading.update)
    # A row that has the number of an earlier one replaces it.
    row_of = {number: row for row, number in enumerate(numbers)}
    indptr, indices, values = _rows(table, [row_of[number] for number in sorted(row_of)])
    kept = is_known[indices]
    indices = ids[indices]
    if not kept.all():
        indptr = np.concatenate([[0], np.cumsum(kept)])[indptr]
        indices, values = indices[kept], None if values is None else values[kept]
    names = {number: sample for sample, number in seen.items()}
    index = FeatureIndex(known)
    sample_names = [names[number] for number in sorted(row_of)]
    dataset = SparseDataset(table.name, index.width, indptr, indices, values, sample_names, index)
    return Converted(dataset, index, FeatureIndex(seen))


def _ids(
    table: SparseDataset, known: dict[str, int], *, update: bool
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]:
    """Id of each feature of the table, and whether it has one; with `update` unknown ones are added in the order
    in which its rows have them.
    """
    names = table.features.names() if table.features else []
    ids, is_new = np.zeros(len(names), np.uint32), np.ones(len(names), bool)
    for start in range(0, table.nnz, _AT_ONCE):
        block = table.indices[start : start + _AT_ONCE]
        first, where = np.unique(block[is_new[block]], return_index=True)
        for number in first[np.argsort(where)].tolist():
            if update:
                known.setdefault(names[number], len(known))
            ids[number] = known.get(names[number], 0)
        is_new[first] = False
    return ids, np.array([name in known for name in names], bool)


def _rows(
    table: SparseDataset, rows: Sequence[int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.float32] | None]:
    """The rows of the table in another order."""
    if list(rows) == list(range(table.samples)):
        return table.indptr, np.asarray(table.indices), None if table.values is None else np.asarray(table.values)
    starts, lengths = table.indptr[:-1][rows], np.diff(table.indptr)[rows]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    places = np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])
    return indptr, table.indices[places], None if table.values is None else table.values[places]


def _export(now: FeatureIndex, before: FeatureIndex, path: str, tell: Tell) -> None:
    if len(now) > len(before):
        write_index(now, _file(path))
        tell(f"Exported {path} with {len(now)} entries.")


def _file(path: str) -> Path:
    if not Path(path).name or (_exists(path) and not Path(path).is_file()):
        # A device is not for replacing.
        raise InputError(f"{path!r} cannot be written: it is no file")
    return Path(path)


def _exists(path: str) -> bool:
    try:
        # An empty name is no file; to Path it is the working folder.
        return bool(path) and Path(path).exists()
    except OSError:
        return False


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
