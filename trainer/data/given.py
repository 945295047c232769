"""Data to be split, or split by others already: loaded, brought to one feature index where they are several files, and
parted by a protocol.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.data import protocols
from trainer.data.load import LoadedData, is_known, load_data
from trainer.data.protocols import Split, as_split, distinct, numbered_as_trained
from trainer.data.split_files import read_split
from trainer.errors import DataError, SettingsError
from trainer.filing import read_lines
from trainer.settings import SplitSettings
from trainer.sparse import FeatureIndex, SparseDataset, round_up

_VALIDATION_NAMES = ("validation.txt", "valid.txt")


@dataclass(frozen=True, slots=True)
class Source:
    """Where data lie: one file or folder, or, for the protocol `given`, a file for each part. A folder of given parts
    holds train.txt, test.txt and, where there is one, validation.txt or valid.txt.
    """

    data: Path | None = None
    training: Path | None = None
    validation: Path | None = None
    test: Path | None = None

    @property
    def by_part(self) -> bool:
        """Whether there are files for parts."""
        return bool(self.training or self.validation or self.test)


def make_split(source: Source, settings: SplitSettings) -> Split:
    """The split of `source` by the protocol of `settings`, features numbered as the training part has them."""
    if source.by_part and "protocol" not in settings.model_fields_set:
        settings = settings.model_copy(update={"protocol": "given"})
    _refuse_idle(settings)
    if settings.protocol == "given":
        return numbered_as_trained(_given(source, settings))
    if source.data is None or source.by_part:
        raise SettingsError(
            f"data: protocol {settings.protocol} wants one file or folder; files by part are for the protocol given"
        )
    timed = settings.protocol == "temporal" or settings.last
    return numbered_as_trained(_drawn(load_data(source.data, timed=timed, min_rating=settings.min_rating), settings))


def find_split(folder: Path | None, source: Source, settings: SplitSettings) -> Split:
    """The split in `folder`, or that of `source`. Where no protocol is named it is what a run holds out: a share of
    each sample's features, none for validation unless it is asked for, and features numbered as in all of the data.
    """
    if folder is not None:
        if source != Source() or settings.model_fields_set - {"seed"}:
            raise SettingsError("split: the split is made already; leave data, protocol and their options out")
        return read_split(folder)
    if source.data is None or source.by_part or "protocol" in settings.model_fields_set:
        return make_split(source, settings)
    _refuse_idle(settings)
    hiding = settings.model_copy(update={"validation_part": settings.validation_part or 0.0})
    return _drawn(load_data(source.data, min_rating=settings.min_rating), hiding)


def _refuse_idle(settings: SplitSettings) -> None:
    """Refuse settings that were given although the protocol has no use for them."""
    idle = sorted(settings.model_fields_set - {"protocol", "seed"} - protocols.HEEDED[settings.protocol])
    if idle:
        raise SettingsError(f"{idle[0]}: protocol {settings.protocol} has no use for it; leave it out")


def _drawn(loaded: LoadedData, settings: SplitSettings) -> Split:
    whole, places = distinct(loaded.dataset)
    times = None if loaded.timestamps is None else loaded.timestamps[places]
    if settings.protocol == "strong":
        parts = protocols.strong(whole, settings)
    elif settings.protocol == "leave-one-out":
        parts = protocols.leave_one_out(whole, settings, times)
    elif settings.protocol == "temporal" and times is not None:
        parts = protocols.temporal(whole, settings, times)
    else:
        parts = protocols.weak(whole, settings)
    if whole.features is None:
        raise ValueError("loaded data names its features")
    return as_split(parts, whole.features, settings)


def _given(source: Source, settings: SplitSettings) -> Split:
    found = _files(source)
    files = [one for one in (found.training, found.validation, found.test) if one is not None]
    loaded = [_load(one, settings.min_rating) for one in files]
    training, *validation, test = _aligned(loaded)
    parts = protocols.given(training, validation[0] if validation else None, test, settings)
    if training.features is None:
        raise ValueError("aligned data name their features")
    return as_split(parts, training.features, settings)


def _files(source: Source) -> Source:
    folder = source.data
    if folder is None:
        if source.training is None or source.test is None:
            raise SettingsError("protocol given wants a folder of train.txt and test.txt, or a file for each of both")
        return source
    if source.by_part:
        raise SettingsError("data: files by part are given already; leave one of both out")
    for name in ("train.txt", "test.txt"):
        if not (folder / name).is_file():
            raise DataError(f"holds no {name}; protocol given wants a folder of train.txt and test.txt", folder)
    validation = next((folder / name for name in _VALIDATION_NAMES if (folder / name).is_file()), None)
    return Source(training=folder / "train.txt", validation=validation, test=folder / "test.txt")


def _load(path: Path, min_rating: float | None) -> SparseDataset:
    """A part of a given split: whatever `load_data` knows, or lists as LightGCN has them."""
    if path.is_file() and not is_known(path):
        if min_rating is not None:
            raise SettingsError(f"min_rating: {path} is no ratings table, so it has no ratings")
        return _read_lists(path)
    return load_data(path, min_rating=min_rating).dataset


def _read_lists(path: Path) -> SparseDataset:
    """Lines of `sample feature feature …`, numbers parted by blanks (LightGCN, He et al. 2020); a sample may have
    several lines, or nothing but its number.
    """
    samples: dict[str, int] = {}
    features: dict[str, int] = {}
    rows: list[int] = []
    lengths: list[int] = []
    indices: list[int] = []
    for number, line in enumerate(read_lines(path), 1):
        words = line.split()
        if not words:
            continue
        odd = next((word for word in words if not word.isdecimal()), None)
        if odd is not None:
            raise DataError(
                "a ratings table, DSSTNE text or numbers parted by blanks, `sample feature …`, are wanted, "
                f"not {odd[:60]!r}",
                path,
                number,
            )
        rows.append(samples.setdefault(words[0], len(samples)))
        lengths.append(len(words) - 1)
        indices += [features.setdefault(word, len(features)) for word in words[1:]]
    index = FeatureIndex(features)
    return _gathered(np.repeat(np.array(rows, np.int64), lengths), np.array(indices, np.uint32), list(samples), index)


def _aligned(parts: Sequence[SparseDataset]) -> list[SparseDataset]:
    """The parts with the same rows and features: those of the first, then what further ones have besides."""
    samples: dict[str, int] = {}
    features: dict[str, int] = {}
    entries: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]] = []
    for part in parts:
        if part.features is None or part.sample_names is None:
            raise ValueError("loaded data have names")
        row = np.array([samples.setdefault(name, len(samples)) for name in part.sample_names], np.int64)
        feature = np.array([features.setdefault(name, len(features)) for name in part.features.names()], np.uint32)
        entries.append((np.repeat(row, np.diff(part.indptr)), feature[part.indices]))
    index = FeatureIndex(features)
    return [distinct(_gathered(rows, indices, list(samples), index))[0] for rows, indices in entries]


def _gathered(
    rows: npt.NDArray[np.int64], indices: npt.NDArray[np.uint32], samples: Sequence[str], features: FeatureIndex
) -> SparseDataset:
    order = np.argsort(rows, kind="stable")
    indptr = np.zeros(len(samples) + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=len(samples)), out=indptr[1:])
    return SparseDataset("samples", round_up(len(features)), indptr, indices[order], None, samples, features)
