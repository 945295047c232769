"""How fast ratings become NetCDF, and in how much memory."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.data import Shape, make_ratings, write_csv, write_text
from benchmarks.pairs import Question, Row, SideSpec, compare, turns
from benchmarks.scale import Scale

_TEXT_BAR = 5e6
_CSV_BAR = 3.0
_MEMORY_BAR = 2.0
_GIB = 2**30


def rows(scale: Scale) -> Iterator[Row]:
    """Text by itself, its peak memory, and `ratings.csv` beside polars' own read of it."""
    ratings = make_ratings(Shape(scale.users, scale.items, scale.per_user))
    count, runs = len(ratings.indices), min(scale.runs, 3)
    with tempfile.TemporaryDirectory() as scratch:
        text, table = Path(scratch) / "ratings.txt", Path(scratch) / "ratings.csv"
        write_text(ratings, text)
        write_csv(ratings, table)
        del ratings
        yield from _alone("convert/text", text, count, runs)
        of_table = {"path": str(table), "ratings": count}
        yield compare(
            Question("convert/csv", "s", _CSV_BAR, what="seconds", is_limit=True),
            SideSpec("trainer_side", "convert", of_table),
            SideSpec("trainer_side", "read_csv", of_table),
            runs=runs,
        )


def _alone(name: str, path: Path, ratings: int, runs: int) -> Iterator[Row]:
    side = SideSpec("trainer_side", "convert", {"path": str(path), "ratings": ratings})
    found = [turn for (turn,) in turns([side], runs=runs)]
    rate, peak = median(turn.rate for turn in found), found[-1].peak_bytes / _GIB
    yield Row(name, rate, None, "ratings/s", None, _TEXT_BAR, rate >= _TEXT_BAR, runs)
    yield Row(f"{name}/peak-memory", peak, None, "GiB", None, _MEMORY_BAR, peak <= _MEMORY_BAR, runs)
