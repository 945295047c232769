"""Ratings used as ratings: a table whose entries carry values, which may fade with time."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainer.data.load import load_data
from trainer.data.movielens import LoadedData, is_ratings, read_ratings
from trainer.data.text import Reading, convert_text
from trainer.errors import SettingsError

_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Weighing:
    """What of a ratings table counts, and how much. By default every rating counts as one interaction."""

    analog: bool = False
    """Ratings are values."""
    min_rating: float | None = None
    """Ratings below are left out."""
    half_life_days: float | None = None
    """Values are halved for each so many days an entry is older than the latest; without `analog` they begin at 1."""

    @property
    def is_plain(self) -> bool:
        """Whether a table needs nothing but being read."""
        return self.min_rating is None and self.half_life_days is None


def load_weighed(path: Path, weighing: Weighing) -> LoadedData:
    """The data at `path`, of any kind, as `weighing` says; `SettingsError` where they do not tell what it asks for."""
    if weighing == Weighing():
        return load_data(path)
    if is_ratings(path):
        return read_weighed(path, weighing)
    if weighing.half_life_days is not None:
        raise SettingsError(f"half_life_days: {path} is no ratings table with a fourth column, so nothing tells when")
    if not weighing.analog or weighing.min_rating is not None:
        return load_data(path, min_rating=weighing.min_rating)
    load_data(path)
    converted = convert_text(path, name="samples", reading=Reading(analog=True, strict=True, hidden=False)).dataset
    if converted.values is None or not np.any(converted.values):
        raise SettingsError(f"analog: {path} has no values; `feature,value` or a ratings table is wanted")
    return LoadedData(converted, {})


def read_weighed(path: Path, weighing: Weighing) -> LoadedData:
    """The ratings table at `path` as `weighing` says; timestamps in its fourth column are seconds."""
    half_life = weighing.half_life_days
    if half_life is not None and not 0 < half_life < float("inf"):
        raise SettingsError(f"half-life of {half_life:g} days: more than 0 is wanted")
    loaded = read_ratings(path, analog=weighing.analog, timed=half_life is not None, min_rating=weighing.min_rating)
    if half_life is None or loaded.timestamps is None:
        return loaded
    age = (loaded.timestamps.max() - loaded.timestamps) / _DAY_SECONDS
    ratings = loaded.dataset.values
    values = np.exp2(-age / half_life) * (1.0 if ratings is None else np.asarray(ratings))
    return replace(loaded, dataset=replace(loaded.dataset, values=values.astype(np.float32)))
