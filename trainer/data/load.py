"""Data of any kind a user may point at: a ratings table, a folder of one, or DSSTNE text, told apart by content."""

from pathlib import Path

from trainer.data.movielens import RATINGS_FILES, LoadedData, is_ratings, read_ratings
from trainer.data.text import Reading, convert_text, text_files
from trainer.errors import DataError
from trainer.filing import read_lines

__all__ = ["LoadedData", "load_data"]


def load_data(path: Path) -> LoadedData:
    """The dataset at `path`, with names, and titles where there are any."""
    if not path.exists():
        raise DataError("no such data file or folder", path)
    if is_ratings(path):
        return read_ratings(path)
    files = text_files(path, hidden=False)
    if not files or not all("\t" in next(filter(None, read_lines(one)), "") for one in files):
        raise DataError(
            f"is no data that is known: {', '.join(RATINGS_FILES)} (or a folder with one of them), or DSSTNE "
            "text (`sample TAB feature:feature:…`) is wanted",
            path,
        )
    converted = convert_text(path, name="samples", reading=Reading(strict=True, hidden=False))
    if converted.dataset.nnz == 0:
        raise DataError("holds no features", path)
    return LoadedData(converted.dataset, {})
