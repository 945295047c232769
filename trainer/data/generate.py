"""DSSTNE's generateNetCDF: text to a NetCDF dataset and its two index files, with the original's messages
(DSSTNE spec 2.1). Ratings tables are taken, too.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.data.features import read_index, write_index
from trainer.data.movielens import is_ratings, read_ratings
from trainer.data.netcdf import write_dataset
from trainer.data.text import Converted, Reading, check_names, convert_text, write_text
from trainer.errors import DataError, SettingsError
from trainer.sparse import FeatureIndex

Tell = Callable[[str], None]

INDICATOR, ANALOG = "indicator", "analog"


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """The flags -d -i -o -f -s -c -m -t."""

    dataset_name: str
    input_path: Path
    output_path: Path
    feature_index: Path
    sample_index: Path
    create: bool = False
    merge: bool = False
    kind: str = INDICATOR


def generate_netcdf(options: GenerateOptions, tell: Tell) -> None:
    """Convert; index files are written before the NetCDF, and only if they have grown."""
    started = time.monotonic()
    _check(options)
    if options.create:
        tell(f"Flag -c is set. Will create a new feature file and overwrite: {options.feature_index}")
    if options.merge:
        tell(f"Flag -m is set. Will merge with existing feature file and overwrite: {options.feature_index}")
    tell(f"Generating dataset of type: {options.kind}")
    samples, features = _samples(options, tell), _features(options, tell)
    converted = _convert(options, samples, features, tell)
    _export(converted.features, features, options.feature_index, tell)
    _export(converted.samples, samples, options.sample_index, tell)
    tell(f"Raw max index is: {len(converted.features)}")
    tell(f"Rounded up max index to: {converted.features.width}")
    write_dataset(converted.dataset, options.output_path)
    tell(f"Created NetCDF file {options.output_path} for dataset {options.dataset_name}")
    tell(f"Total time for generating NetCDF: {time.monotonic() - started:f} secs. ")


def _check(options: GenerateOptions) -> None:
    if options.create and options.merge:
        raise SettingsError("Cannot create (-c) and update existing (-m) feature index. Please select only one.")
    if options.kind not in (INDICATOR, ANALOG):
        raise SettingsError(f"Unknown dataset type [{options.kind}]. Please select one of {{{INDICATOR},{ANALOG}}}")
    if not options.dataset_name.isprintable():
        raise SettingsError(f"-d {options.dataset_name!r}: a dataset's name is printable text")
    if not options.create and not options.feature_index.exists():
        raise DataError("Cannot find a valid feature index file; -c begins an empty one", options.feature_index)


def _samples(options: GenerateOptions, tell: Tell) -> FeatureIndex:
    if not options.sample_index.exists():
        tell(f"Will create a new samples index file: {options.sample_index}")
        return FeatureIndex({})
    tell(f"Loading sample index from: {options.sample_index}")
    return _read(options.sample_index, tell)


def _features(options: GenerateOptions, tell: Tell) -> FeatureIndex:
    if options.create:
        tell(f"Will create a new features index file: {options.feature_index}")
        return FeatureIndex({})
    tell(f"Loading feature index from: {options.feature_index}")
    return _read(options.feature_index, tell)


def _read(path: Path, tell: Tell) -> FeatureIndex:
    index = read_index(path)
    tell(f"Number of lines processed: {len(index)}")
    tell(f"Number of entries added to index: {len(index)}")
    return index


def _convert(options: GenerateOptions, samples: FeatureIndex, features: FeatureIndex, tell: Tell) -> Converted:
    reading = Reading(update=options.create or options.merge, analog=options.kind == ANALOG, tell=tell)
    name, source = options.dataset_name, options.input_path
    if not is_ratings(source):
        return convert_text(source, name=name, features=features, samples=samples, reading=reading)
    table = read_ratings(source, analog=reading.analog).dataset
    check_names(table.sample_names or (), table.features.ids if table.features else (), source)
    tell(f"Indexing 1 files\n\tIndexing file: {source}")
    # By way of text, so that a table obeys the same rules of indexes and rows.
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "samples.txt"
        write_text(table, text)
        silent = replace(reading, tell=lambda _: None)
        return convert_text(text, name=name, features=features, samples=samples, reading=silent)


def _export(now: FeatureIndex, before: FeatureIndex, path: Path, tell: Tell) -> None:
    if len(now) > len(before):
        write_index(now, path)
        tell(f"Exported {path} with {len(now)} entries.")
