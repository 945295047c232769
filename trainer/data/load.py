"""Data of any kind a user may point at: a ratings table, a folder of one, or DSSTNE text, told apart by content."""

from pathlib import Path

from trainer.data.movielens import RATINGS_FILES, LoadedData, is_ratings, read_ratings
from trainer.data.text import Reading, convert_text, text_files
from trainer.errors import DataError, SettingsError
from trainer.filing import read_lines

__all__ = ["LoadedData", "load_data"]


def load_data(path: Path, *, timed: bool = False, min_rating: float | None = None) -> LoadedData:
    """The dataset at `path`, with names, and titles where there are any. Timestamps, and ratings to leave out, are to
    be had of ratings tables only; who asks more has a `SettingsError`.
    """
    if not path.exists():
        raise DataError("no such data file or folder", path)
    if is_ratings(path):
        return read_ratings(path, timed=timed, min_rating=min_rating)
    if timed:
        raise SettingsError(f"{path}: only a ratings table with a fourth column tells when; another protocol is wanted")
    if min_rating is not None:
        raise SettingsError(f"min_rating: {path} is no ratings table, so it has no ratings")
    if not is_known(path):
        raise DataError(
            f"is no data that is known: {', '.join(RATINGS_FILES)} (or a folder with one of them), or DSSTNE "
            "text (`sample TAB feature:feature:…`) is wanted",
            path,
        )
    converted = convert_text(path, name="samples", reading=Reading(strict=True, hidden=False))
    if converted.dataset.nnz == 0:
        raise DataError("holds no features", path)
    return LoadedData(converted.dataset, {})


def is_known(path: Path) -> bool:
    """Whether what is at `path` looks like a ratings table or DSSTNE text."""
    if is_ratings(path):
        return True
    files = text_files(path, hidden=False)
    return bool(files) and all("\t" in next(filter(None, read_lines(one)), "") for one in files)
